//! Rate limits: exact over all workers, by caller where that is meant, told to who is counted, and not filled again by
//! a reload.
//!
//! Tokens that would come while a test runs are an hour apart: what is granted is the burst and nothing else.

use std::net::SocketAddr;

use outrigger_tests::h2client::H2;
use outrigger_tests::{Client, Echo, Proxy, Reply, until};

use crate::web;

const HITS: &str = "outrigger_downstream_limits_total{listener=\"web\",limit=\"rate_limit\"}";

/// A listener `web` whose one route has this limit.
fn limited(echo: &Echo, limit: &str, listener: &str) -> String {
    let route = format!("      - to: app\n        rate_limit: {{ {limit} }}\n");
    web([echo.address()])
        .replace("      - to: app\n", &route)
        .replace("    routes:", &format!("    {listener}\n    routes:"))
}

async fn start(limit: &str) -> (Echo, Proxy) {
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&limited(&echo, limit, "")).await;
    (echo, proxy)
}

/// One GET with this further field.
async fn get(proxy: &Proxy, field: &str) -> Reply {
    let mut client = proxy.client("web").await;
    client.send(format!("GET / HTTP/1.1\r\nHost: test\r\n{field}\r\n\r\n")).await;
    client.reply().await
}

/// Asks as each of these, by this field, and compares the statuses.
async fn check(proxy: &Proxy, field: &str, rows: &[(&str, u16)]) {
    for (n, (value, status)) in rows.iter().enumerate() {
        let reply = get(proxy, &format!("{field}: {value}")).await;
        assert_eq!(reply.status, *status, "{n}: {field}: {value}\n{}", reply.head);
    }
}

/// The statuses of so many requests, one after the other.
async fn statuses(to: SocketAddr, requests: usize) -> Vec<u16> {
    let mut client = Client::connect(to).await;
    let mut statuses = Vec::new();
    for _ in 0..requests {
        statuses.push(client.get("/").await.status);
    }
    statuses
}

#[tokio::test]
async fn four_workers_grant_exactly_the_burst() {
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&format!("workers: 4\n{}", limited(&echo, "rate: 1/h, burst: 50", ""))).await;
    let to = proxy.address("web");
    let clients: Vec<_> = (0..16).map(|_| tokio::spawn(statuses(to, 10))).collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await.unwrap());
    }
    let count = |status: u16| all.iter().filter(|s| **s == status).count();
    assert_eq!((count(200), count(429)), (50, 110));
    assert_eq!(echo.requests(), 50, "the origin sees no more");
    proxy.wait_metric(HITS, |n| n == 110.0).await;
    let errors = "outrigger_downstream_errors_total{listener=\"web\",reason=\"rate_limited\"}";
    proxy.wait_metric(errors, |n| n == 110.0).await;
}

#[tokio::test]
async fn who_is_counted_is_told() {
    let (_echo, proxy) = start("rate: 10/m, burst: 2").await;
    let rows = [(200, "\"default\";r=1;t=6"), (200, "\"default\";r=0;t=6"), (429, "\"default\";r=0;t=6")];
    for (status, left) in rows {
        let reply = get(&proxy, "x: y").await;
        assert_eq!(reply.status, status);
        assert_eq!(reply.field("ratelimit-policy"), Some("\"default\";q=10;w=60;outrigger-burst=2"));
        assert_eq!(reply.field("ratelimit"), Some(left));
        assert_eq!(reply.field("retry-after"), (status == 429).then_some("6"));
    }
    let reply = get(&proxy, "x: y").await;
    assert_eq!(reply.field("x-outrigger-reason"), Some("rate_limited"));
    let text = "outrigger: this route takes 10 requests a minute, 2 at once, and no more (rate_limit)\n";
    assert_eq!(reply.text(), text);
}

#[tokio::test]
async fn the_answer_of_a_failure_carries_it_too() {
    let echo = Echo::start("e").await;
    let config =
        limited(&echo, "rate: 1/h, burst: 5", "").replace(&echo.address().to_string(), "127.0.0.1:1");
    let proxy = Proxy::start(&config).await;
    let reply = get(&proxy, "x: y").await;
    assert_eq!((reply.status, reply.field("ratelimit")), (503, Some("\"default\";r=4;t=3600")));
}

#[tokio::test]
async fn tokens_come_back() {
    let (_echo, proxy) = start("rate: 5/s, burst: 1").await;
    assert_eq!(get(&proxy, "x: y").await.status, 200);
    until("a token comes", async || {
        let reply = get(&proxy, "x: y").await;
        (reply.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_value_of_a_header_is_counted_apart() {
    let (_echo, proxy) = start("rate: 1/h, burst: 2, per: { header: x-api-key }").await;
    let rows = [("a", 200), ("a", 200), ("a", 429), ("b", 200), ("A", 200), ("b", 200), ("b", 429)];
    check(&proxy, "x-api-key", &rows).await;
    // Whoever has none shares one bucket.
    check(&proxy, "x-other", &[("1", 200), ("2", 200), ("3", 429)]).await;
    let reply = get(&proxy, "x-api-key: a").await;
    assert!(reply.text().contains("2 at once, of each caller"), "{}", reply.text());
}

#[tokio::test]
async fn the_one_seen_longest_ago_is_forgotten() {
    let (_echo, proxy) = start("rate: 1/h, burst: 1, per: { header: x-api-key }, keys: 2").await;
    check(&proxy, "x-api-key", &[("a", 200), ("b", 200), ("a", 429), ("c", 200), ("a", 429), ("b", 200)])
        .await;
}

#[tokio::test]
async fn a_stranger_cannot_choose_its_address() {
    let (_echo, proxy) = start("rate: 1/h, burst: 2, per: source").await;
    check(&proxy, "x-forwarded-for", &[("1.1.1.1", 200), ("2.2.2.2", 200), ("3.3.3.3", 429)]).await;
}

#[tokio::test]
async fn a_trusted_proxy_says_whose_request_it_is() {
    let echo = Echo::start("e").await;
    let trusted = "trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]";
    let proxy = Proxy::start(&limited(&echo, "rate: 1/h, burst: 1, per: source", trusted)).await;
    let rows = [
        ("1.1.1.1", 200),
        ("1.1.1.1, 10.0.0.7", 429),
        ("2.2.2.2", 200),
        // What the client wrote itself is not believed.
        ("3.3.3.3, 2.2.2.2, 10.0.0.7", 429),
        ("3.3.3.3", 200),
    ];
    check(&proxy, "x-forwarded-for", &rows).await;
}

#[tokio::test]
async fn a_reload_fills_no_bucket_unless_the_limit_changes() {
    let echo = Echo::start("e").await;
    let config = limited(&echo, "rate: 1/h, burst: 2", "");
    let proxy = Proxy::start(&config).await;
    check(&proxy, "x", &[("y", 200), ("y", 200), ("y", 429)]).await;
    // Another route stands before it now, and it has a timeout.
    let other = "    routes:\n      - match: { path: { exact: /other } }\n        respond: { status: 204 }\n";
    let more = config
        .replace("    routes:\n", other)
        .replace("      - to: app\n", "      - to: app\n        timeout: 9s\n");
    proxy.reload(&more).await;
    check(&proxy, "x", &[("y", 429)]).await;
    proxy.reload(&config.replace("burst: 2", "burst: 3")).await;
    check(&proxy, "x", &[("y", 200), ("y", 200), ("y", 200), ("y", 429)]).await;
}

#[tokio::test]
async fn a_grpc_caller_is_told_in_its_own_way() {
    let (_echo, proxy) = start("rate: 1/h, burst: 1").await;
    let h2 = H2::connect(proxy.address("web")).await;
    assert_eq!(h2.get("/").await.status, 200);
    let request = http::Request::post("http://test/a.B/C").header("content-type", "application/grpc");
    let reply = h2.send(request.body(()).unwrap(), Vec::new(), None).await.unwrap();
    assert_eq!((reply.status, reply.field("grpc-status")), (200, Some("8")));
    assert!(reply.field("grpc-message").unwrap().contains("1 requests an hour, 1 at once"));
    assert_eq!(reply.field("ratelimit"), Some("\"default\";r=0;t=3600"));
    assert_eq!(reply.field("retry-after"), Some("3600"));
    assert!(reply.body.is_empty() && reply.trailers.is_none());
}

#[tokio::test]
async fn a_route_without_a_limit_says_nothing() {
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&web([echo.address()])).await;
    let reply = get(&proxy, "x: y").await;
    assert_eq!((reply.status, reply.field("ratelimit"), reply.field("ratelimit-policy")), (200, None, None));
}
