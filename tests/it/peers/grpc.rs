//! gRPC with PyPI's grpcio at both ends: every kind of call, deadlines, cancellation, metadata, errors.

use std::path::PathBuf;
use std::sync::Arc;

use outrigger_tests::{Dir, Proxy};

use super::{Running, certify, free_port, python, quiet, run, script};

/// Everything between a client and a server, with a listener for each way to pass through.
struct Scene {
    python: PathBuf,
    proxy: Proxy,
    ca: String,
    _server: Running,
}

/// The ways through: without and with TLS towards the client, by either setting of the upstream's protocol.
const WAYS: [&str; 4] = ["plain-http2", "plain-auto", "tls-http2", "tls-auto"];

impl Scene {
    /// The server gets these arguments.
    async fn start(args: &[&str]) -> Option<Self> {
        let python = python(&["grpc"]).await?;
        let mut server = Running::start(&python, &[&[script("grpc_server.py").as_str()], args].concat());
        let port = server.port().await;
        let dir = Arc::new(Dir::new());
        let ca = certify(&dir);
        let tls = "tls: { certificate: tls.crt, private_key: tls.key }, ";
        let mut config = "listeners:\n".to_owned();
        for way in WAYS {
            let (tls, cluster) =
                (if way.starts_with("tls") { tls } else { "" }, way.rsplit('-').next().unwrap());
            config += &format!(
                "  {way}: {{ bind: 127.0.0.1:0, {tls}limits: {{ streams: 256 }}, routes: [{{ to: {cluster} }}] }}\n"
            );
        }
        config += &format!(
            "  gone: {{ bind: 127.0.0.1:0, routes: [{{ to: gone }}] }}\n\
             \x20 no-route: {{ bind: 127.0.0.1:0, routes: [{{ match: {{ path: /elsewhere }}, to: http2 }}] }}\n\
             \x20 hurried: {{ bind: 127.0.0.1:0, routes: [\
             {{ match: {{ path: /peers.Test/Hang }}, to: http2, timeout: 300ms }}, {{ to: http2 }}] }}\n\
             \x20 again: {{ bind: 127.0.0.1:0, routes: [\
             {{ to: http2, retry: {{ conditions: [grpc-unavailable] }} }}] }}\n\
             clusters:\n\
             \x20 http2: {{ endpoints: [127.0.0.1:{port}], protocol: http2 }}\n\
             \x20 auto: {{ endpoints: [127.0.0.1:{port}] }}\n\
             \x20 gone: {{ endpoints: [127.0.0.1:{}], protocol: http2 }}\n",
            free_port()
        );
        let proxy = Proxy::start_in(dir, &config).await;
        Some(Self { python, proxy, ca, _server: server })
    }

    async fn call(&self, case: &str, listener: &str) {
        let (script, port) = (script("grpc_client.py"), self.proxy.address(listener).port().to_string());
        let mut args = vec![script.as_str(), case, &port];
        if listener.starts_with("tls") {
            args.push(&self.ca);
        }
        let ran = run(&self.python, &args, b"").await;
        assert!(ran.success, "{case} by {listener}:\n{}{}", ran.stdout, ran.stderr);
        quiet(&self.proxy).await;
    }
}

/// A case of `grpc_client.py`, all ways.
async fn check(case: &str) {
    let Some(scene) = Scene::start(&[]).await else { return };
    for way in WAYS {
        scene.call(case, way).await;
    }
}

/// A case of `grpc_client.py`, by one listener.
async fn check_by(case: &str, listener: &str) {
    let Some(scene) = Scene::start(&[]).await else { return };
    scene.call(case, listener).await;
}

#[tokio::test]
async fn unary() {
    check("unary").await;
}

#[tokio::test]
async fn client_streaming() {
    check("client_stream").await;
}

#[tokio::test]
async fn server_streaming() {
    check("server_stream").await;
}

#[tokio::test]
async fn both_ways_each_message_is_answered_before_the_next_is_sent() {
    check("interleaved").await;
}

#[tokio::test]
async fn messages_of_megabytes() {
    check("large").await;
}

#[tokio::test]
async fn metadata_before_and_after() {
    check("metadata").await;
}

#[tokio::test]
async fn errors_of_the_server_with_their_details() {
    check("status").await;
}

#[tokio::test]
async fn deadlines_end_the_call_at_both_ends() {
    check("deadline").await;
}

#[tokio::test]
async fn cancellation_reaches_the_server() {
    check("cancel").await;
}

#[tokio::test]
async fn two_hundred_calls_at_once_on_a_channel() {
    check("concurrent").await;
}

#[tokio::test]
async fn two_hundred_calls_at_once_to_a_server_that_takes_ten_on_a_connection() {
    let Some(scene) = Scene::start(&["10"]).await else { return };
    for way in WAYS {
        scene.call("concurrent", way).await;
    }
}

#[tokio::test]
async fn chatty_streams_are_not_cut() {
    check("chatty").await;
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable() {
    check_by("gone", "gone").await;
}

#[tokio::test]
async fn a_server_that_dies_takes_its_calls_with_it() {
    check_by("dies", "plain-auto").await;
}

#[tokio::test]
async fn no_route_is_unimplemented() {
    check_by("no_route", "no-route").await;
}

#[tokio::test]
async fn the_routes_timeout_is_a_deadline() {
    check_by("route_timeout", "hurried").await;
}

#[tokio::test]
async fn what_failed_in_trailers_is_tried_again() {
    check_by("retried", "again").await;
}
