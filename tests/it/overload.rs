//! What runs out is shed in order: copies, retries, requests, connections; admin goes on, and all comes back by itself.

use outrigger_tests::wire::{Client, get};
use outrigger_tests::{Origin, Proxy, until};

use crate::web;

/// Any process uses more than this.
const LITTLE: &str = "overload: { memory: 1MiB }\n";

async fn wait_level(proxy: &Proxy, level: f64) {
    proxy.wait_metric("outrigger_overload_level", |n| (n - level).abs() < 0.5).await;
}

#[tokio::test]
async fn without_memory_requests_are_refused_and_admin_is_not() {
    let app = Origin::ok("app").await;
    let proxy = Proxy::start(&web([app.address()])).await;
    let mut open = proxy.client("web").await;
    assert_eq!(open.get("/").await.text(), "app");
    wait_level(&proxy, 0.0).await;

    proxy.reload(&(LITTLE.to_owned() + &web([app.address()]))).await;
    wait_level(&proxy, 5.0).await;
    let reply = open.get("/").await;
    assert_eq!((reply.status, reply.field("retry-after")), (503, Some("1")));
    assert_eq!(reply.field("x-outrigger-reason"), Some("overloaded"));
    assert!(reply.text().contains("overload.memory"), "{}", reply.text());
    assert!(reply.closes(), "what the connection holds is wanted");
    // Whoever comes now is not even read.
    let late = async {
        let mut client = Client::try_connect(proxy.address("web")).await?;
        client.try_get("/").await
    };
    assert!(late.await.is_none());
    assert_eq!(app.count(), 1);
    let limit = "outrigger_downstream_limits_total{listener=\"web\",limit=\"overload.memory\"}";
    assert!(proxy.metric(limit).await >= 2.0);
    assert_eq!(proxy.ask("/ready").await.status, 200);
    proxy.wait_log("memory runs out").await;

    proxy.reload(&web([app.address()])).await;
    wait_level(&proxy, 0.0).await;
    assert_eq!(proxy.get("web", "/").await.text(), "app");
}

#[tokio::test]
async fn the_last_descriptors_are_not_given_to_clients() {
    let app = Origin::ok("app").await;
    let proxy = Proxy::start_with_descriptors(&web([app.address()]), 96).await;
    let mut clients = Vec::new();
    for _ in 0..120 {
        clients.push(proxy.client("web").await);
    }
    let limit = "outrigger_downstream_limits_total{listener=\"web\",limit=\"descriptors\"}";
    proxy.wait_metric(limit, |n| n > 20.0).await;
    // Those that are in are served, for which an upstream connection is still to be had.
    clients[0].send(get("/")).await;
    assert_eq!(clients[0].reply().await.text(), "app");
    assert!(!proxy.log().contains("cannot accept connections"), "{}", proxy.log());
    drop(clients);
    until("there is room again", async || {
        let mut client = Client::try_connect(proxy.address("web")).await?;
        client.try_get("/").await.filter(|reply| reply.text() == "app")
    })
    .await;
}
