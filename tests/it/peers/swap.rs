//! Libraries that hold a WebSocket and a call of gRPC open, while the control plane tells a change after the other of
//! everything that these go through.

use outrigger_tests::{Control, Proxy, until};

use super::{Running, python, script};

const CHANGES: usize = 40;

/// What both go through, with a number in a part of it that is another each time.
fn document(number: usize, [sockets, calls]: [u16; 2]) -> String {
    let turn = |part: usize| 5 + number / 5 + usize::from(number % 5 >= part);
    let (body, route, timeout, requests, weight) = (turn(0), turn(1), turn(2), turn(3), turn(4));
    let cluster = format!(
        "connect_timeout: {timeout}s, circuit_breaker: {{ max_requests: {requests} }}, outlier_detection: {{ consecutive_5xx: {requests} }}"
    );
    let endpoints = |port: u16| format!("[{{ address: 127.0.0.1:{port}, weight: {weight} }}, 127.0.0.1:1]");
    format!(
        "listeners:
  web:
    bind: 127.0.0.1:0
    limits: {{ body: {body}MiB }}
    routes:
      - {{ match: {{ path: {{ prefix: /x{route} }} }}, respond: {{ status: 204 }} }}
      - {{ match: {{ path: {{ prefix: /chat }} }}, to: sockets }}
      - {{ to: calls, request_headers: {{ set: {{ x-number: n{route} }} }} }}
clusters:
  sockets: {{ endpoints: {}, {cluster} }}
  calls: {{ endpoints: {}, protocol: http2, {cluster} }}
",
        endpoints(sockets),
        endpoints(calls)
    )
}

#[tokio::test]
async fn what_libraries_hold_open_stays_open() {
    let Some(python) = python(&["websockets", "grpc"]).await else { return };
    let mut servers =
        ["ws_server.py", "grpc_server.py"].map(|name| Running::start(&python, &[&script(name)]));
    let [sockets, calls] = &mut servers;
    let ports = [sockets.port().await, calls.port().await];
    let control = Control::start("", &[]);
    let file = control.dir().file("mesh.yaml").display().to_string();
    let apply = |number: usize| {
        control.dir().write("mesh.yaml", &document(number, ports));
        control.ok(&["apply", &file]);
    };
    apply(0);
    let proxy =
        Proxy::start(&format!("node: {{ id: a }}\nxds: {{ server: \"http://{}\" }}\n", control.xds())).await;
    until("it listens", async || proxy.log().contains("listening listener=web").then_some(())).await;
    let port = proxy.address("web").port().to_string();
    let mut client = Running::start(&python, &[&script("held.py"), &port]);
    client.line_with("HELD").await;
    for number in 1..=CHANGES {
        apply(number);
        let text = format!("message {number}");
        client.tell(&text).await;
        assert_eq!(client.line().await, text);
    }
    control.wait_in_sync(1, 1 + CHANGES as u64).await;
    client.tell("last").await;
    assert_eq!(client.line().await, "last");
}
