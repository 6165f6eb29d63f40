//! Tunnels: bytes pass only after the upstream has agreed to it (RFC 9110 section 7.8, RFC 9113 section 8.5).

use outrigger_tests::h2client::H2;
use outrigger_tests::origin::ok;
use outrigger_tests::wire::field;
use outrigger_tests::{Conn, Origin, Proxy, Report, within};

use crate::{web, web_with};

pub(super) const ASK: &str = "GET /chat HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n";
pub(super) const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\n";

pub(super) async fn repeat(conn: &mut Conn) {
    while let Some(bytes) = conn.some().await {
        conn.send(bytes).await;
    }
}

async fn agreeing() -> (Origin, Proxy) {
    let origin = Origin::start(async |mut conn| {
        conn.head().await;
        conn.send(AGREE).await;
        repeat(&mut conn).await;
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    (origin, proxy)
}

#[tokio::test]
async fn bytes_pass_both_ways_after_101() {
    let (origin, proxy) = agreeing().await;
    let mut client = proxy.client("web").await;
    client.send(ASK).await;
    let reply = client.reply().await;
    assert_eq!(reply.status, 101);
    assert_eq!(reply.field("upgrade"), Some("websocket"));
    assert!(reply.field("connection").unwrap().eq_ignore_ascii_case("upgrade"));
    assert_eq!(reply.field("sec-websocket-accept"), Some("y"));
    let seen = origin.last();
    assert_eq!(seen.field("upgrade"), Some("websocket"));
    assert!(seen.field("connection").unwrap().eq_ignore_ascii_case("upgrade"));
    assert_eq!(seen.field("sec-websocket-key"), Some("x"));
    // There are clients and servers that know these names in one spelling alone.
    assert!(reply.head.contains("\r\nSec-WebSocket-Accept: y\r\n"), "{:?}", reply.head);
    assert!(seen.message.head.contains("\r\nSec-WebSocket-Key: x\r\n"), "{:?}", seen.message.head);
    for i in 0..50 {
        let bytes = vec![i; 1 + usize::from(i) * 999];
        client.send(&bytes).await;
        assert_eq!(client.exactly(bytes.len()).await, bytes);
    }
    client.finish().await;
    assert_eq!(client.rest().await, b"");
    origin.wait_closed(1).await;
}

#[tokio::test]
async fn what_the_client_sends_early_waits_for_the_agreement() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let origin = Origin::start(move |mut conn| {
        let mut gate = gate.clone();
        async move {
            conn.head().await;
            // Nothing may have come by the time of the agreement.
            let early = tokio::select! {
                bytes = conn.some() => bytes,
                _ = gate.wait_for(|go| *go) => None,
            };
            assert_eq!(early, None);
            conn.send(AGREE).await;
            repeat(&mut conn).await;
        }
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    client.send(format!("{ASK}early bytes")).await;
    origin.wait_requests(1).await;
    go.send(true).unwrap();
    assert_eq!(client.reply().await.status, 101);
    assert_eq!(client.exactly(11).await, b"early bytes");
}

/// An upgrade that was refused leaves HTTP, and the next bytes are a request that is looked at as such.
#[tokio::test]
async fn a_refusal_does_not_become_a_tunnel() {
    let refusals = [
        (200, ok("no")),
        (426, "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno".to_owned()),
        (403, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_owned()),
    ];
    for (status, refusal) in refusals {
        let origin = Origin::answering(&refusal).await;
        let config = web([origin.address()]).replace(
            "      - to: app",
            "      - { match: { path: { prefix: /admin } }, respond: { status: 404 } }\n      - to: app",
        );
        let proxy = Proxy::start(&config).await;
        let mut client = proxy.client("web").await;
        client.send(format!("{ASK}GET /admin HTTP/1.1\r\nHost: t\r\n\r\n")).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.text().as_str()), (status, "no"));
        if let Some(reply) = within("the second answer", client.try_reply_to("GET")).await {
            assert_eq!(reply.status, 404, "the smuggled request passed the routes");
        }
        assert!(origin.requests().iter().all(|request| request.target() == "/chat"));
    }
}

#[tokio::test]
async fn the_second_request_after_a_refusal_is_served() {
    let origin = Origin::ok("plain").await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    for _ in 0..3 {
        client.send(ASK).await;
        assert_eq!(client.reply().await.text(), "plain");
        assert_eq!(client.get("/x").await.text(), "plain");
    }
}

#[tokio::test]
async fn half_of_a_tunnel_may_end_first() {
    let origin = Origin::start(async |mut conn| {
        conn.head().await;
        conn.send(AGREE).await;
        let all = conn.rest().await;
        conn.send(format!("{} bytes", all.len())).await;
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    client.send(ASK).await;
    assert_eq!(client.reply().await.status, 101);
    client.send([b'x'; 1234]).await;
    client.finish().await;
    assert_eq!(client.rest().await, b"1234 bytes");
}

#[tokio::test]
async fn the_end_of_the_origin_ends_the_client() {
    let origin = Origin::start(async |mut conn| {
        conn.head().await;
        conn.send(format!("{AGREE}last words")).await;
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    client.send(ASK).await;
    assert_eq!(client.reply().await.status, 101);
    assert_eq!(client.rest().await, b"last words");
}

#[tokio::test]
async fn connect_makes_a_tunnel_when_the_upstream_agrees() {
    let origin = Origin::start(async |mut conn| {
        conn.head().await;
        conn.send("HTTP/1.1 200 Connected\r\n\r\n").await;
        repeat(&mut conn).await;
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    client.send("CONNECT db.internal:5432 HTTP/1.1\r\nHost: db.internal:5432\r\n\r\n").await;
    let reply = within("an answer", client.try_reply_to("CONNECT")).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.head);
    assert_eq!((reply.field("content-length"), reply.field("transfer-encoding")), (None, None));
    client.send("through the tunnel").await;
    assert_eq!(client.exactly(18).await, b"through the tunnel");
    assert_eq!(origin.last().message.start, "CONNECT db.internal:5432 HTTP/1.1");
}

#[tokio::test]
async fn a_refused_connect_is_an_answer_like_others() {
    let origin = Origin::answering("HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 2\r\n\r\nno").await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    client.send("CONNECT db.internal:5432 HTTP/1.1\r\nHost: db.internal:5432\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let reply = within("an answer", client.try_reply_to("CONNECT")).await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (405, "no"));
    client.finish().await;
    client.rest().await;
    let targets: Vec<_> = origin.requests().iter().map(|request| request.target().to_owned()).collect();
    assert_ne!(targets.first().map(String::as_str), Some("/smuggled"), "{targets:?}");
}

#[tokio::test]
async fn an_upgrade_to_http2_is_not_taken() {
    let echo = outrigger_tests::Echo::start("e").await;
    let proxy = Proxy::start(&web([echo.address()])).await;
    let mut client = proxy.client("web").await;
    client.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n").await;
    let report = Report::parse(&client.reply().await.body);
    assert_eq!(report.field("upgrade"), None);
    assert_eq!(report.field("http2-settings"), None);
}

#[tokio::test]
async fn an_http2_upstream_cannot_carry_it_and_says_so() {
    let echo = outrigger_tests::Echo::start("e").await;
    let proxy = Proxy::start(&web_with("", "protocol: http2", [echo.address()])).await;
    let mut client = proxy.client("web").await;
    client.send(ASK).await;
    assert_eq!(client.reply().await.status, 501);
}

/// RFC 8441: a WebSocket on a stream of HTTP/2, to an origin that knows the HTTP/1.1 way.
#[tokio::test]
async fn a_websocket_over_http2_reaches_an_http1_origin() {
    let origin = Origin::start(async |mut conn| {
        while conn.head().await.is_some_and(|request| request.target() == "/first") {
            conn.send(ok("plain")).await;
        }
        conn.send(AGREE).await;
        repeat(&mut conn).await;
    })
    .await;
    let proxy = Proxy::start(&web_with("", "protocol: http1", [origin.address()])).await;
    let h2 = H2::connect(proxy.address("web")).await;
    // After an answer the client has seen the proxy's settings, which allow what follows.
    assert_eq!(h2.get("/first").await.status, 200);
    let mut request = http::Request::connect("http://t/chat").body(()).unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let (response, mut stream) = h2.open(request, false).await;
    let response = within("the agreement", response).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    outrigger_tests::echo::send_h2(&mut stream, "hello".into()).await.unwrap();
    let data = within("the echo", body.data()).await.unwrap().unwrap();
    assert_eq!(&data[..], b"hello");
    let seen = origin.last();
    assert_eq!(
        (seen.message.start.as_str(), field(&seen.message.fields, "upgrade")),
        ("GET /chat HTTP/1.1", Some("websocket"))
    );
    stream.send_reset(h2::Reason::CANCEL);
    origin.wait_closed(1).await;
}

/// An extended CONNECT (RFC 8441), as it comes from clients that speak WebSocket over HTTP/2.
pub(super) fn extended(protocol: &'static str, path: &str) -> http::Request<()> {
    let request = http::Request::builder().method("CONNECT").uri(format!("http://t{path}"));
    request.extension(h2::ext::Protocol::from_static(protocol)).body(()).unwrap()
}

/// A client that knows that the proxy takes extended CONNECT: its settings have come.
async fn settled(proxy: &Proxy) -> H2 {
    let client = H2::connect(proxy.address("web")).await;
    client.get("/settle").await;
    client
}

#[tokio::test]
async fn a_tunnel_over_http2_that_is_not_agreed_to_leaves_nothing_behind() {
    let origin = Origin::start(async |mut conn| {
        while let Some(request) = conn.head().await {
            let refused = request.target() != "/settle" && request.target() != "/b";
            conn.send(if refused {
                "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".into()
            } else {
                ok("plain")
            })
            .await;
        }
    })
    .await;
    let proxy = Proxy::start(&web_with("", "protocol: http1", [origin.address()])).await;
    let client = settled(&proxy).await;
    for (protocol, path, status) in [
        ("websocket", "/chat", 403),
        ("websocket", "/a/%2e%2e/x", 403),
        // The upstream answered, but did not change the protocol: 200 would say that the tunnel stands.
        ("websocket", "/b", 502),
        ("h2c", "/chat", 501),
        ("websocket", "/a/../../x", 400),
    ] {
        let (response, _stream) = client.open(extended(protocol, path), false).await;
        assert_eq!(within("an answer", response).await.unwrap().status(), status, "{protocol} {path}");
    }
    let seen: Vec<_> = origin.requests().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(seen, ["/settle", "/chat", "/x", "/b"], "what is routed is canonical, and is what is sent on");
    for _ in 0..20 {
        let (response, mut stream) = client.open(extended("websocket", "/chat"), false).await;
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
    }
    drop(client);
    proxy.wait_metric("outrigger_downstream_requests_active{listener=\"web\"}", |n| n == 0.0).await;
    proxy.wait_metric("outrigger_downstream_connections{listener=\"web\"}", |n| n == 0.0).await;
}
