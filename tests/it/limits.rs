//! Limits: each refuses what is above it with an answer of its own, says so in `/metrics`, and lets pass what is not.

use std::sync::Arc;

use outrigger_tests::h2client::{self, H2};
use outrigger_tests::wire::{get, post};
use outrigger_tests::{Client, Echo, Proxy, Reply, until, within};

use crate::web_with;

async fn start(limits: &str) -> (Echo, Proxy) {
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&web_with(&format!("limits: {{ {limits} }}"), "", [echo.address()])).await;
    (echo, proxy)
}

async fn named(proxy: &Proxy, limit: &str, times: u32) {
    let series = format!("outrigger_downstream_limits_total{{listener=\"web\",limit=\"{limit}\"}}");
    proxy.wait_metric(&series, |n| (n - f64::from(times)).abs() < 0.5).await;
}

/// Sends this and expects the status, a reason, and the end of the connection.
async fn refused(proxy: &Proxy, request: &str, status: u16) -> Reply {
    let mut client = proxy.client("web").await;
    client.send(request).await;
    let reply = client.reply().await;
    assert_eq!(reply.status, status, "{}", reply.head);
    assert_eq!(String::from_utf8_lossy(&client.rest().await), "");
    reply
}

#[tokio::test]
async fn a_body_whose_length_is_too_large_is_refused_unread() {
    let (echo, proxy) = start("body: 1KiB").await;
    assert_eq!(proxy.client("web").await.get("/").await.status, 200);
    let mut client = proxy.client("web").await;
    client.send(post("/", &"x".repeat(1024))).await;
    assert_eq!(client.reply().await.status, 200, "the limit itself is allowed");
    let reply = refused(&proxy, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1025\r\n\r\n", 413).await;
    assert_eq!(reply.field("x-outrigger-reason"), Some("body_too_large"));
    named(&proxy, "body", 1).await;
    assert_eq!(echo.requests(), 2);
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_refused_on_the_way() {
    let (echo, proxy) = start("body: 1KiB").await;
    let mut client = proxy.client("web").await;
    client.send("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..5 {
        client.send(format!("100\r\n{}\r\n", "x".repeat(256))).await;
    }
    let reply = client.reply().await;
    assert_eq!(reply.status, 413, "{}", reply.head);
    assert_eq!(client.rest().await, b"");
    assert_eq!(echo.requests(), 0, "the origin saw a whole request");
    named(&proxy, "body", 1).await;
}

#[tokio::test]
async fn a_body_over_http2_is_held_to_the_same_limit() {
    let (_echo, proxy) = start("body: 1KiB").await;
    let h2 = H2::connect(proxy.address("web")).await;
    let request = || http::Request::post("http://test/").body(()).unwrap();
    let reply = h2.send(request(), vec![b'x'; 1024], None).await.unwrap();
    assert_eq!(reply.status, 200);
    let reply = h2.send(request(), vec![b'x'; 1025], None).await.unwrap();
    assert_eq!(reply.status, 413);
    assert_eq!(h2.get("/").await.status, 200, "the connection is not to blame");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let (_echo, proxy) = start("header_bytes: 8KiB").await;
    let request = |n: usize| format!("GET / HTTP/1.1\r\nHost: t\r\nX-A: {}\r\n\r\n", "a".repeat(n));
    let mut client = proxy.client("web").await;
    client.send(request(7000)).await;
    assert_eq!(client.reply().await.status, 200);
    refused(&proxy, &request(9000), 431).await;
    named(&proxy, "header_bytes", 1).await;
    // Without an end: it must not be waited for.
    refused(&proxy, &format!("GET / HTTP/1.1\r\nHost: t\r\nX-A: {}", "a".repeat(20_000)), 431).await;
}

#[tokio::test]
async fn a_head_with_too_many_fields_is_refused() {
    let (_echo, proxy) = start("headers: 20").await;
    let request = |n: usize| {
        let fields: String = (0..n - 1).map(|i| format!("X-{i}: a\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: t\r\n{fields}\r\n")
    };
    let mut client = proxy.client("web").await;
    client.send(request(20)).await;
    assert_eq!(client.reply().await.status, 200, "the limit itself is allowed");
    refused(&proxy, &request(21), 431).await;
    named(&proxy, "headers", 1).await;
}

#[tokio::test]
async fn fields_over_http2_are_held_to_the_same_limits() {
    let (_echo, proxy) = start("headers: 20, header_bytes: 8KiB").await;
    let request = |n: usize, size: usize| {
        let mut request = h2client::get("/");
        for i in 0..n {
            let name = http::HeaderName::try_from(format!("x-{i}")).unwrap();
            request.headers_mut().insert(name, "a".repeat(size).try_into().unwrap());
        }
        request
    };
    let h2 = H2::connect(proxy.address("web")).await;
    assert_eq!(h2.send(request(15, 1), Vec::new(), None).await.unwrap().status, 200);
    let many = h2.send(request(30, 1), Vec::new(), None).await.unwrap();
    assert_eq!(many.status, 431);
    let h2 = H2::connect(proxy.address("web")).await;
    let large = h2.send(request(3, 5000), Vec::new(), None).await.map(|reply| reply.status);
    // Over its advertised size the stream may be reset as well (RFC 9113 section 10.5.1).
    assert!(large.is_err() || matches!(large, Ok(431)), "{large:?}");
}

#[tokio::test]
async fn a_target_that_is_too_long_is_refused() {
    let (_echo, proxy) = start("header_bytes: 1MiB").await;
    let request = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: t\r\n\r\n", "a".repeat(n));
    let mut client = proxy.client("web").await;
    client.send(request(60_000)).await;
    assert_eq!(client.reply().await.status, 200);
    refused(&proxy, &request(70_000), 414).await;
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_is_refused() {
    let (_echo, proxy) = start("header_timeout: 1s").await;
    let reply = refused(&proxy, "GET / HTTP/1.1\r\nHost:", 408).await;
    assert!(reply.closes());
    named(&proxy, "header_timeout", 1).await;
    // Who never said anything gets no answer.
    let mut silent = proxy.client("web").await;
    assert_eq!(silent.rest().await, b"");
    // Byte by byte is no way around it.
    let mut slow = proxy.client("web").await;
    let trickle = async {
        loop {
            slow.send("X").await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            if let Ok(Some(reply)) =
                tokio::time::timeout(std::time::Duration::from_millis(1), slow.try_reply_to("GET")).await
            {
                return reply.status;
            }
        }
    };
    assert_eq!(within("the 408", trickle).await, 408);
}

#[tokio::test]
async fn the_second_head_is_held_to_the_timeout_too() {
    let (_echo, proxy) = start("header_timeout: 1s").await;
    let mut client = proxy.client("web").await;
    assert_eq!(client.get("/").await.status, 200);
    client.send("GET /second HTTP/1.1\r\n").await;
    assert_eq!(client.reply().await.status, 408);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let (_echo, proxy) = start("idle_timeout: 1s").await;
    let mut client = proxy.client("web").await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(client.rest().await, b"");
    let h2 = H2::connect(proxy.address("web")).await;
    assert_eq!(h2.get("/").await.status, 200);
    h2.ended().await.unwrap();
}

#[tokio::test]
async fn a_connection_too_many_is_closed() {
    let (_echo, proxy) = start("connections: 2").await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut client = proxy.client("web").await;
        assert_eq!(client.get("/").await.status, 200);
        open.push(client);
    }
    let mut third = proxy.client("web").await;
    third.send(get("/")).await;
    let rest = third.rest().await;
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&rest));
    named(&proxy, "connections", 1).await;
    for client in &mut open {
        assert_eq!(client.get("/").await.status, 200);
    }
    open.pop();
    let web = proxy.address("web");
    until("there is room again", async || {
        Client::try_connect(web).await?.try_get("/").await.filter(|reply| reply.status == 200).map(drop)
    })
    .await;
}

#[tokio::test]
async fn streams_above_the_limit_wait() {
    let (_echo, proxy) = start("streams: 5").await;
    let h2 = Arc::new(H2::connect(proxy.address("web")).await);
    // After an answer the client knows the limit.
    assert_eq!(h2.get("/").await.status, 200);
    let mut asking = tokio::task::JoinSet::new();
    for i in 0..40 {
        let h2 = h2.clone();
        asking.spawn(async move { h2.get(&format!("/{i}")).await.status });
    }
    assert_eq!(asking.join_all().await, [200; 40]);
}

#[tokio::test]
async fn a_route_that_takes_too_long_times_out() {
    let origin = outrigger_tests::Origin::start(async |mut conn| {
        conn.request().await;
        conn.rest().await;
    })
    .await;
    let config =
        crate::web([origin.address()]).replace("      - to: app", "      - to: app\n        timeout: 500ms");
    let proxy = Proxy::start(&config).await;
    let reply = proxy.get("web", "/").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (504, Some("timeout")));
    // The origin is not left to work for nobody.
    origin.wait_closed(1).await;
}

#[tokio::test]
async fn an_endpoint_that_does_not_accept_times_out() {
    // Nobody answers there (RFC 5737), or the network says so at once.
    let proxy = Proxy::start(&web_with("", "connect_timeout: 300ms", ["192.0.2.1:80"])).await;
    let reply = proxy.get("web", "/").await;
    assert!(matches!(reply.status, 503 | 504), "{}", reply.head);
    assert!(reply.field("x-outrigger-reason").unwrap().starts_with("upstream_connect_"));
}

/// An answer that comes before the body has been read must survive the bytes that are still on their way.
#[tokio::test]
async fn an_early_refusal_is_read_by_a_client_that_is_sending() {
    let Some(curl) = outrigger_tests::peer::peer("curl") else { return };
    let (_echo, proxy) = start("body: 1MiB").await;
    let body = proxy.dir().write("body", &"b".repeat(20 << 20));
    let url = format!("http://{}/", proxy.address("web"));
    for encoding in ["Content-Type: a/b", "Transfer-Encoding: chunked"] {
        for _ in 0..3 {
            let data = format!("@{}", body.display());
            let args = [
                "-s",
                "--http1.1",
                "-H",
                "Expect:",
                "-H",
                encoding,
                "--data-binary",
                &data,
                "-o",
                "/dev/null",
                &url,
            ];
            let ran = curl.run(args.iter().copied().chain(["-w", "%{http_code}"])).await;
            assert_eq!(ran.stdout, "413", "{encoding}: {}", ran.stderr);
        }
    }
    // Not by curl, which before 8.0 takes RST_STREAM(NO_ERROR) behind a whole answer for a failure.
    let h2 = H2::connect(proxy.address("web")).await;
    for _ in 0..3 {
        let request = http::Request::post("http://test/").body(()).unwrap();
        let reply = h2.send(request, vec![b'b'; 20 << 20], None).await.unwrap();
        assert_eq!((reply.status, reply.field("x-outrigger-reason")), (413, Some("body_too_large")));
    }
}
