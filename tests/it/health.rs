//! Active health checks: endpoints that fail them get no requests, and get them again once they pass.
//!
//! What is asserted here of traffic, beside what admin and metrics say, holds only where the balancer asks for an
//! endpoint's health.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use outrigger_tests::load::{Load, OnClose};
use outrigger_tests::origin::ok;
use outrigger_tests::{Dir, Nobody, Origin, Proxy, until};
use serde_json::Value;

use crate::web_with;

const HEALTHY: &str = "outrigger_upstream_endpoints_healthy{cluster=\"app\"}";
/// Fast enough for a test; nobody need send requests for checks to be frequent.
const FAST: &str = "interval: 20ms, unhealthy_interval: 20ms, idle_interval: 20ms";

fn checks(result: &str) -> String {
    format!("outrigger_upstream_health_checks_total{{cluster=\"app\",result=\"{result}\"}}")
}

/// The configuration with these checks of the cluster `app`.
fn checked(probe: &str, endpoints: &[&str]) -> String {
    web_with("", &format!("balance: round-robin\nhealth_check: {{ {probe}, {FAST} }}"), endpoints)
}

/// What admin shows of an endpoint.
async fn shown(proxy: &Proxy, address: &str) -> Value {
    let clusters = proxy.ask_json("/clusters").await;
    let endpoints = clusters["clusters"][0]["endpoints"].as_array().unwrap();
    endpoints.iter().find(|e| e["address"] == address).unwrap_or_else(|| panic!("{clusters}")).clone()
}

/// Waits until an endpoint's health is this, and gives what the last check found.
async fn wait_health(proxy: &Proxy, address: &str, health: &str) -> String {
    until(&format!("{address} is {health}"), async || {
        let endpoint = shown(proxy, address).await;
        let is = endpoint["health"] == health;
        is.then(|| endpoint["health_check"]["result"].as_str().unwrap().to_owned())
    })
    .await
}

/// Sends ten requests, of which all must be answered by this origin.
async fn all_go_to(proxy: &Proxy, origin: &str) {
    let mut client = proxy.client("web").await;
    for _ in 0..10 {
        let reply = client.get("/").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, origin));
    }
}

/// Sends requests until both of these have answered.
async fn wait_both(proxy: &Proxy, mut wanted: Vec<&str>) {
    until("both origins answer", async || {
        let text = proxy.get("web", "/").await.text();
        wanted.retain(|name| *name != text);
        wanted.is_empty().then_some(())
    })
    .await;
}

/// Answers requests with its name, and checks with 500 while it is told to.
async fn moody(name: &'static str) -> (Origin, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(true));
    let told = well.clone();
    let origin = Origin::start(move |mut conn| {
        let told = told.clone();
        async move {
            while let Some(request) = conn.request().await {
                let fails = request.target() == "/healthz" && !told.load(SeqCst);
                let reply = ok(name);
                conn.send(if fails { reply.replace("200 OK", "500 No") } else { reply }).await;
            }
        }
    });
    (origin.await, well)
}

#[tokio::test]
async fn an_endpoint_that_answers_500_gets_nothing_until_it_is_well_again() {
    let ((a, _), (b, b_is_well)) = (moody("a").await, moody("b").await);
    let proxy = Proxy::start(&checked("http: /healthz", &[a.address(), b.address()])).await;
    for origin in [&a, &b] {
        assert_eq!(wait_health(&proxy, origin.address(), "healthy").await, "ok");
    }
    wait_both(&proxy, vec!["a", "b"]).await;
    b_is_well.store(false, SeqCst);
    assert_eq!(wait_health(&proxy, b.address(), "unhealthy").await, "status 500");
    proxy.wait_metric(HEALTHY, |healthy| healthy == 1.0).await;
    assert!(proxy.metric(&checks("status")).await >= 3.0);
    proxy.wait_log("endpoint is unhealthy: status 500 cluster=app endpoint=").await;
    all_go_to(&proxy, "a").await;
    b_is_well.store(true, SeqCst);
    wait_health(&proxy, b.address(), "healthy").await;
    proxy.wait_metric(HEALTHY, |healthy| healthy == 2.0).await;
    proxy.wait_log("endpoint is healthy cluster=app endpoint=").await;
    wait_both(&proxy, vec!["a", "b"]).await;
}

#[tokio::test]
async fn a_check_is_a_request_of_its_own() {
    let (origin, _) = moody("a").await;
    let proxy = Proxy::start(&checked("http: \"/healthz?deep=1\"", &[origin.address()])).await;
    origin.wait_requests(3).await;
    let request = origin.last();
    assert_eq!(request.target(), "/healthz?deep=1");
    assert_eq!(request.field("host"), Some(origin.address()));
    assert_eq!(request.field("connection"), Some("close"));
    assert!(request.field("user-agent").unwrap().starts_with("outrigger-health/"));
    assert!(shown(&proxy, origin.address()).await["health_check"]["seconds_ago"].as_f64().unwrap() < 10.0);
    // It is no traffic.
    assert_eq!(shown(&proxy, origin.address()).await["requests"], 0);
}

/// A port that nobody listens on says so at once: one check is enough, and a minute of others is not waited for.
#[tokio::test]
async fn a_refused_connection_fails_fast() {
    let alive = Origin::ok("alive").await;
    let nobody = Nobody::new();
    let dead = nobody.address();
    let slow = "health_check: { tcp: {}, interval: 60s, unhealthy_interval: 60s }";
    let endpoints = [alive.address(), dead];
    let proxy = Proxy::start(&web_with("", &format!("balance: round-robin\n{slow}"), endpoints)).await;
    assert_eq!(wait_health(&proxy, dead, "unhealthy").await, "connection refused");
    assert_eq!(wait_health(&proxy, alive.address(), "healthy").await, "ok");
    assert_eq!(proxy.metric(&checks("refused")).await, 1.0);
    proxy.wait_log("endpoint is unhealthy: connection refused").await;
    // The dead one is not even tried.
    all_go_to(&proxy, "alive").await;
    assert_eq!(shown(&proxy, dead).await["requests"], 0);
}

#[tokio::test]
async fn an_endpoint_that_starts_to_listen_is_found() {
    let dir = Arc::new(Dir::new());
    let path = dir.file("app.sock");
    let address = format!("unix:{}", path.display());
    let proxy = Proxy::start(&checked("http: /healthz", &[&address])).await;
    assert_eq!(wait_health(&proxy, &address, "unhealthy").await, "connection refused");
    assert_eq!(proxy.get("web", "/").await.status, 503);
    let _origin = Origin::start_unix(&path, async |mut conn| {
        while conn.request().await.is_some() {
            conn.send(ok("here")).await;
        }
    });
    wait_health(&proxy, &address, "healthy").await;
    all_go_to(&proxy, "here").await;
}

/// What is in flight when its endpoint becomes unhealthy goes on, and so does its connection.
#[tokio::test]
async fn requests_in_flight_are_not_touched() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let well = Arc::new(AtomicBool::new(true));
    let told = well.clone();
    let origin = Origin::start(move |mut conn| {
        let (mut gate, told) = (gate.clone(), told.clone());
        async move {
            while let Some(request) = conn.request().await {
                if request.target() == "/healthz" {
                    let reply = ok("");
                    conn.send(if told.load(SeqCst) { reply } else { reply.replace("200 OK", "500 No") })
                        .await;
                } else {
                    let _ = gate.wait_for(|go| *go).await;
                    conn.send(ok("late")).await;
                }
            }
        }
    })
    .await;
    let proxy = Proxy::start(&checked("http: /healthz", &[origin.address()])).await;
    let mut client = proxy.client("web").await;
    client.send(outrigger_tests::wire::get("/")).await;
    until("the request is in flight", async || {
        (shown(&proxy, origin.address()).await["active"] == 1).then_some(())
    })
    .await;
    well.store(false, SeqCst);
    wait_health(&proxy, origin.address(), "unhealthy").await;
    go.send(true).unwrap();
    assert_eq!(client.reply().await.text(), "late");
}

/// One that joins beside others that are well gets nothing before it has passed a check.
#[tokio::test]
async fn a_new_endpoint_first_shows_that_it_is_well() {
    let ((a, _), (b, b_is_well)) = (moody("a").await, moody("b").await);
    b_is_well.store(false, SeqCst);
    let proxy = Proxy::start(&checked("http: /healthz", &[a.address()])).await;
    wait_health(&proxy, a.address(), "healthy").await;
    proxy.reload(&checked("http: /healthz", &[a.address(), b.address()])).await;
    all_go_to(&proxy, "a").await;
    assert_eq!(shown(&proxy, a.address()).await["health"], "healthy", "its state has survived the reload");
    wait_health(&proxy, b.address(), "unhealthy").await;
    b_is_well.store(true, SeqCst);
    wait_health(&proxy, b.address(), "healthy").await;
    wait_both(&proxy, vec!["a", "b"]).await;
}

#[tokio::test]
async fn other_settings_keep_what_is_known() {
    let ((a, _), (b, b_is_well)) = (moody("a").await, moody("b").await);
    b_is_well.store(false, SeqCst);
    let endpoints = [a.address(), b.address()];
    let proxy = Proxy::start(&checked("http: /healthz", &endpoints)).await;
    wait_health(&proxy, b.address(), "unhealthy").await;
    // By the new settings it takes a thousand successes to bring it back.
    proxy.reload(&checked("http: /other, healthy_after: 1000", &endpoints)).await;
    until("the new path is asked for", async || (b.last().target() == "/other").then_some(())).await;
    assert_eq!(shown(&proxy, b.address()).await["health"], "unhealthy");
    // Without a check everybody is used again.
    proxy.reload(&web_with("", "balance: round-robin", endpoints)).await;
    until("nobody is checked", async || {
        (shown(&proxy, b.address()).await["health"] == "unknown").then_some(())
    })
    .await;
    assert_eq!(shown(&proxy, b.address()).await["health_check"], Value::Null);
    wait_both(&proxy, vec!["a", "b"]).await;
    assert!(!proxy.ask("/metrics").await.text().contains(HEALTHY));
}

#[tokio::test]
async fn a_cluster_that_is_gone_is_not_checked() {
    let ((a, _), (b, _)) = (moody("a").await, moody("b").await);
    let config = checked("http: /healthz", &[a.address()]);
    let proxy = Proxy::start(&config).await;
    a.wait_requests(3).await;
    proxy.reload(&config.replace("app", "other").replace(a.address(), b.address())).await;
    // Once the new cluster's checks have begun, the old one's have ended.
    b.wait_requests(1).await;
    let before = a.opened();
    b.wait_requests(20).await;
    assert_eq!(a.opened(), before);
    assert!(!proxy.ask("/metrics").await.text().contains("cluster=\"app\""));
}

#[tokio::test]
async fn checks_go_on_while_the_workers_are_busy() {
    let (a, a_is_well) = moody("a").await;
    let b = Origin::ok("b").await;
    let endpoints = [a.address(), b.address()];
    let proxy = Proxy::start(&format!("workers: 1\n{}", checked("http: /healthz", &endpoints))).await;
    wait_health(&proxy, a.address(), "healthy").await;
    let load = Load::start(proxy.address("web"), "/", 32, OnClose::Reconnect);
    load.more(200).await;
    let before = proxy.metric(&checks("ok")).await;
    proxy.wait_metric(&checks("ok"), |checks| checks >= before + 20.0).await;
    a_is_well.store(false, SeqCst);
    wait_health(&proxy, a.address(), "unhealthy").await;
    load.more(200).await;
    let outcome = load.stop().await;
    assert_eq!(outcome.failures, Vec::<String>::new());
}
