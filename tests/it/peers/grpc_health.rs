//! Health checks in gRPC, of a server of PyPI's grpcio: every status its health service can give, and none at all.

use outrigger_tests::{Proxy, until};

use super::{Running, python, script};

/// A proxy that checks `shop` on that port.
async fn checking(port: u16) -> Proxy {
    Proxy::start(&format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\nclusters:\n  app:\n    \
         endpoints: [127.0.0.1:{port}]\n    protocol: http2\n    health_check: {{ grpc: shop, interval: 20ms, \
         unhealthy_interval: 20ms, idle_interval: 20ms, timeout: 5s }}\n"
    ))
    .await
}

/// Waits until the endpoint's health, and what its last check found, are these.
async fn wait_for(proxy: &Proxy, health: &str, found: &str) {
    until(&format!("{health}: {found}"), async || {
        let endpoint = proxy.ask_json("/clusters").await["clusters"][0]["endpoints"][0].clone();
        (endpoint["health"] == health && endpoint["health_check"]["result"] == found).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_serving_status_decides() {
    let Some(python) = python(&["grpc"]).await else { return };
    let mut server = Running::start(&python, &[&script("health_server.py")]);
    let proxy = checking(server.port().await).await;
    wait_for(&proxy, "unhealthy", "gRPC status 5: it does not know this service").await;
    let rows = [
        ("SERVING", "healthy", "ok"),
        ("NOT_SERVING", "unhealthy", "NOT_SERVING"),
        ("SERVING", "healthy", "ok"),
        ("UNKNOWN", "unhealthy", "UNKNOWN"),
        ("SERVING", "healthy", "ok"),
        ("SERVICE_UNKNOWN", "unhealthy", "SERVICE_UNKNOWN"),
    ];
    for (status, health, found) in rows {
        server.tell(&format!("shop {status}")).await;
        server.line_with("SET").await;
        wait_for(&proxy, health, found).await;
    }
    // Needs the balancer.
    assert_eq!(proxy.get("web", "/").await.status, 503);
}

#[tokio::test]
async fn a_server_without_a_health_service_fails_and_the_log_says_so() {
    let Some(python) = python(&["grpc"]).await else { return };
    let mut server = Running::start(&python, &[&script("grpc_server.py")]);
    let proxy = checking(server.port().await).await;
    wait_for(&proxy, "unhealthy", "gRPC status 12: it has no service grpc.health.v1.Health").await;
    proxy.wait_log("endpoint is unhealthy: gRPC status 12: it has no service grpc.health.v1.Health").await;
}
