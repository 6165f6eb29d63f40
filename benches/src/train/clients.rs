//! Browsers and services, one request after the other on a connection of HTTP/1.1, several at once on one of HTTP/2.

use std::io::{Read, Write};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::REQUESTS;
use crate::error::{Doing, Failure, Result};
use crate::net::{self, local};

/// What is asked for, and with how much of a body; `None` for one in chunks.
const ASKED: [(&str, &str, Option<usize>); 9] = [
    ("GET", "/api/v1/users/1842", Some(0)),
    ("GET", "/api/v1/search?q=anchor&page=2&sort=price", Some(0)),
    ("GET", "/page", Some(0)),
    ("GET", "/flaky/api/v1/stock/77", Some(0)),
    ("POST", "/api/v1/orders", Some(900)),
    ("GET", "/stream", Some(0)),
    ("PUT", "/api/v1/documents/empty", Some(24_000)),
    ("GET", "/image", Some(0)),
    ("POST", "/api/v1/events", None),
];

/// Streams of a connection that are open at once.
const STREAMS: usize = 6;

/// As browsers write them, and as programs do.
const FIELDS: [&[(&str, &str)]; 2] = [
    &[
        ("Connection", "keep-alive"),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("Accept-Language", "en-US,en;q=0.5"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Referer", "https://shop.example.com/products/anchors"),
        ("Cookie", "session=4f3c9a0be1; theme=dark; consent=1"),
        ("Sec-Fetch-Dest", "document"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Site", "same-origin"),
        ("X-Tenant", "a"),
    ],
    &[
        ("accept", "application/json"),
        ("user-agent", "service/2.7"),
        ("authorization", "Bearer 0123456789abcdef0123456789abcdef0123456789abcdef"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-tenant", "b"),
    ],
];

/// Asks for everything below `base` in turns, beginning at one; how many requests were answered 200.
pub(crate) fn http1(mut stream: impl Read + Write, base: &str, from: usize) -> Result<usize> {
    let requests: Vec<Vec<u8>> = (0..ASKED.len() * FIELDS.len()).map(|turn| written(base, turn)).collect();
    for turn in from..from + REQUESTS {
        let status = net::exchange(&mut stream, &requests[turn % requests.len()])?;
        expect(status, turn)?;
    }
    Ok(REQUESTS)
}

fn expect(status: u16, turn: usize) -> Result<()> {
    // What fails is tried again where there is a policy for it, and passed on where there is none.
    let (_, path, _) = ASKED[turn % ASKED.len()];
    match status {
        200 => Ok(()),
        503 if path.starts_with("/flaky") => Ok(()),
        _ => Err(Failure::new(format!("{path} was answered {status}"))),
    }
}

fn written(base: &str, turn: usize) -> Vec<u8> {
    let (method, path, length) = ASKED[turn % ASKED.len()];
    let mut request = format!("{method} {base}{path} HTTP/1.1\r\nHost: shop.example.com\r\n");
    for (name, value) in FIELDS[turn % FIELDS.len()] {
        request += &format!("{name}: {value}\r\n");
    }
    match length {
        Some(0) => request += "\r\n",
        Some(length) => {
            request += &format!("Content-Length: {length}\r\n\r\n");
            request += &"y".repeat(length);
        }
        None => {
            let piece = "z".repeat(300);
            request +=
                &format!("Transfer-Encoding: chunked\r\n\r\n12c\r\n{piece}\r\n12c\r\n{piece}\r\n0\r\n\r\n");
        }
    }
    request.into_bytes()
}

/// The same over a connection of HTTP/2.
pub(crate) fn http2(port: u16, base: &'static str) -> Result<usize> {
    let runtime = crate::fleet::runtime()?;
    runtime.block_on(async {
        let stream = TcpStream::connect(local(port)).await.doing("connecting")?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .handshake(stream)
            .await
            .map_err(broken)?;
        let driver = tokio::task::spawn_local(connection);
        let mut streams = JoinSet::new();
        for first in 0..STREAMS {
            let requests = requests.clone();
            streams.spawn_local(async move {
                for turn in (first..REQUESTS).step_by(STREAMS) {
                    expect(ask(requests.clone(), base, turn).await?, turn)?;
                }
                Ok(())
            });
        }
        while let Some(ended) = streams.join_next().await {
            ended.map_err(|_| Failure::new("a client ended"))??;
        }
        driver.abort();
        Ok(REQUESTS)
    })
}

async fn ask(requests: SendRequest<Bytes>, base: &str, turn: usize) -> Result<u16> {
    let (method, path, length) = ASKED[turn % ASKED.len()];
    let length = length.unwrap_or(600);
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).map_err(broken)?)
        .uri(format!("http://shop.example.com{base}{path}"));
    for (name, value) in FIELDS[turn % FIELDS.len()].iter().filter(|(name, _)| *name != "Connection") {
        request = request.header(*name, *value);
    }
    let request = request.body(()).map_err(broken)?;
    let mut requests = requests.ready().await.map_err(broken)?;
    let (response, mut stream) = requests.send_request(request, length == 0).map_err(broken)?;
    if length > 0 {
        stream.send_data(Bytes::from(vec![b'y'; length]), true).map_err(broken)?;
    }
    let response = response.await.map_err(broken)?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let data = data.map_err(broken)?;
        body.flow_control().release_capacity(data.len()).map_err(broken)?;
    }
    Ok(status)
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("over HTTP/2: {error}"))
}
