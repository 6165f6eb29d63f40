//! WebSocket with PyPI's websockets at both ends, without and with TLS towards the client.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::Request;
use outrigger_tests::h2client::H2;
use outrigger_tests::{Dir, Proxy, within};

use super::{Running, certify, python, quiet, run, script};

/// A case of `ws_client.py`, without and with TLS.
async fn check(case: &str) {
    let Some(python) = python(&["websockets"]).await else { return };
    let mut server = Running::start(&python, &[&script("ws_server.py")]);
    let port = server.port().await;
    let dir = Arc::new(Dir::new());
    let ca = certify(&dir);
    let config = format!(
        "listeners:\n\
         \x20 plain: {{ bind: 127.0.0.1:0, routes: [{{ to: sockets }}] }}\n\
         \x20 tls: {{ bind: 127.0.0.1:0, tls: {{ certificate: tls.crt, private_key: tls.key }}, routes: [{{ to: sockets }}] }}\n\
         clusters:\n\
         \x20 sockets: {{ endpoints: [127.0.0.1:{port}] }}\n"
    );
    let proxy = Proxy::start_in(dir, &config).await;
    let client = script("ws_client.py");
    for listener in ["plain", "tls"] {
        let port = proxy.address(listener).port().to_string();
        let mut args = vec![client.as_str(), case, &port];
        if listener == "tls" {
            args.push(&ca);
        }
        let ran = run(&python, &args, b"").await;
        assert!(ran.success, "{case} by {listener}:\n{}{}", ran.stdout, ran.stderr);
    }
    quiet(&proxy).await;
}

#[tokio::test]
async fn text() {
    check("text").await;
}

#[tokio::test]
async fn binary_of_a_megabyte() {
    check("binary").await;
}

#[tokio::test]
async fn pings_of_both_sides() {
    check("ping").await;
}

#[tokio::test]
async fn a_server_that_pushes() {
    check("push").await;
}

#[tokio::test]
async fn close_codes_of_both_sides() {
    check("close").await;
}

#[tokio::test]
async fn a_server_that_breaks_off() {
    check("abort").await;
}

#[tokio::test]
async fn fifty_at_once() {
    check("many").await;
}

#[tokio::test]
async fn subprotocols() {
    check("subprotocol").await;
}

#[tokio::test]
async fn what_the_server_sees_of_the_client() {
    check("headers").await;
}

#[tokio::test]
async fn a_refusal_passes_through() {
    check("refused").await;
}

#[tokio::test]
async fn over_http2_to_a_server_that_knows_only_http1() {
    let Some(python) = python(&["websockets"]).await else { return };
    let mut server = Running::start(&python, &[&script("ws_server.py")]);
    let proxy = Proxy::start(&format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [\
         {{ match: {{ path: /here }}, respond: {{ status: 204 }} }}, {{ to: sockets }}] }}\n\
         clusters:\n  sockets: {{ endpoints: [127.0.0.1:{}] }}\n",
        server.port().await
    ))
    .await;
    let client = H2::connect(proxy.address("web")).await;
    // The answer shows that the proxy's settings have come: it takes extended CONNECT (RFC 8441 section 3).
    assert_eq!(client.get("/here").await.status, 204);
    let request = Request::connect("http://test/echo").header("sec-websocket-version", "13");
    let request = request.extension(h2::ext::Protocol::from_static("websocket")).body(()).unwrap();
    let (response, mut stream) = client.open(request, false).await;
    let response = within("the tunnel", response).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    // A text frame and a close frame, masked with zeros.
    stream.send_data(Bytes::from_static(b"\x81\x85\0\0\0\0hello"), false).unwrap();
    assert_eq!(exactly(&mut body, 7).await, &b"\x81\x05hello"[..]);
    stream.send_data(Bytes::from_static(b"\x88\x82\0\0\0\0\x03\xe8"), false).unwrap();
    assert_eq!(exactly(&mut body, 4).await, &b"\x88\x02\x03\xe8"[..]);
    // The end may come in a frame of its own, which is then empty.
    while let Some(data) = within("the tunnel's end", body.data()).await {
        assert_eq!(data.unwrap(), Bytes::new());
    }
    drop((stream, body, client));
    quiet(&proxy).await;
}

/// So many bytes and no more.
async fn exactly(body: &mut h2::RecvStream, n: usize) -> Bytes {
    let mut bytes = BytesMut::new();
    while bytes.len() < n {
        let data = within("bytes of the tunnel", body.data()).await.expect("the tunnel ended early").unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    bytes.freeze()
}
