//! WebSocket with PyPI's websockets at both ends, without and with TLS towards the client.

use std::sync::Arc;

use outrigger_tests::{Dir, Proxy};

use super::{Running, address, certify, python, quiet, run, script};

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
        let port = address(&proxy, listener).await.port().to_string();
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
