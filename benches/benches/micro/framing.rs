//! The guard that reads every byte of HTTP/1 before hyper does.

use std::hint::black_box;

use criterion::Throughput;
use outrigger::io::framing::{Guard, Phase};

use crate::{Criterion, within};

/// As one service calls another.
const SERVICE: &str = "GET /api/v1/customers/8c1f2b6e HTTP/1.1\r\n\
    Host: customers.shop.svc.cluster.local\r\n\
    User-Agent: inventory/2.4.1\r\n\
    Accept: application/json\r\n\
    Accept-Encoding: gzip\r\n\
    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
    x-request-id: 3f2c1d9e-7a54-4d0e-9d55-0c6f2d7b7a10\r\n\r\n";

/// As a browser asks for a page.
const BROWSER: &str = "GET /shop/cart?item=4711&coupon=spring HTTP/1.1\r\n\
    Host: www.shop.example.com\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: de-DE,de;q=0.8,en-US;q=0.5,en;q=0.3\r\n\
    Referer: https://www.shop.example.com/shop/items/4711\r\n\
    Cookie: session=b7c0f3e2a9d84c16; consent=necessary.statistics; theme=dark; \
    basket=eyJpdGVtcyI6WzQ3MTEsNDcxMiw0NzEzXSwidG90YWwiOiIxMjkuOTAifQ; seen=1732368000\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-User: ?1\r\n\
    Priority: u=0, i\r\n\
    DNT: 1\r\n\r\n";

pub(crate) fn bench(criterion: &mut Criterion) {
    let chunked = chunked();
    let requests = [
        ("service's head", "500 ns", SERVICE.as_bytes()),
        // A person waits at the other end, for far longer.
        ("browser's head", "1 us", BROWSER.as_bytes()),
        // Chunks are jumped over: the head costs more than the body.
        ("16 chunks of 1 KiB", "1 us", &chunked),
    ];
    let mut group = criterion.benchmark_group("guard");
    for (name, budget, request) in requests {
        let mut guard = Guard::requests();
        assert_eq!((guard.feed(request), guard.phase()), (Ok(()), Phase::BetweenMessages));
        group.throughput(Throughput::Bytes(request.len() as u64));
        group.bench_function(within(budget, name), |bencher| {
            bencher.iter(|| guard.feed(black_box(request)).is_ok());
        });
    }
    group.finish();
}

fn chunked() -> Vec<u8> {
    let head = "POST /upload HTTP/1.1\r\nHost: files\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    format!("{head}{}0\r\n\r\n", chunk.repeat(16)).into_bytes()
}
