//! Outlier detection: an endpoint that fails is left out, probed, and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use outrigger_tests::origin::ok;
use outrigger_tests::{Client, Nobody, Origin, Proxy, until};
use serde_json::Value;

use crate::{web_two_routes, web_with};

const BAD: &str = "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n";

/// An origin that can be made to fail, and to be slow.
pub(crate) struct Patient {
    pub(crate) origin: Origin,
    pub(crate) ill: Arc<AtomicBool>,
    delay_ms: Arc<AtomicU64>,
}

impl Patient {
    pub(crate) async fn start() -> Self {
        let (ill, delay_ms) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let state = (ill.clone(), delay_ms.clone());
        let origin = Origin::start(move |mut conn| {
            let (ill, delay_ms) = state.clone();
            async move {
                while conn.request().await.is_some() {
                    tokio::time::sleep(Duration::from_millis(delay_ms.load(SeqCst))).await;
                    conn.send(if ill.load(SeqCst) { BAD.to_owned() } else { ok("well") }).await;
                }
            }
        })
        .await;
        Self { origin, ill, delay_ms }
    }
}

/// Five of them, and a proxy before them with these rules.
async fn ward(rules: &str) -> (Vec<Patient>, Proxy) {
    let mut patients = Vec::new();
    for _ in 0..5 {
        patients.push(Patient::start().await);
    }
    let cluster = format!("balance: round-robin\noutlier_detection: {{ {rules} }}");
    let config = web_with("", &cluster, patients.iter().map(|p| p.origin.address()));
    (patients, Proxy::start(&config).await)
}

/// How many of so many requests failed.
async fn failures(client: &mut Client, requests: usize) -> usize {
    let mut failed = 0;
    for _ in 0..requests {
        failed += usize::from(client.get("/").await.status != 200);
    }
    failed
}

/// What `/clusters` says of the first endpoint.
async fn outlier(proxy: &Proxy) -> Value {
    proxy.ask_json("/clusters").await["clusters"][0]["endpoints"][0]["outlier"].clone()
}

#[tokio::test]
async fn one_of_five_fails_is_left_out_and_comes_back_when_it_heals() {
    let (patients, proxy) = ward("consecutive_5xx: 5, interval: 500ms, base_ejection: 1s").await;
    let mut client = proxy.client("web").await;
    assert_eq!(failures(&mut client, 50).await, 0);
    patients[0].ill.store(true, SeqCst);
    // As many as it takes to be sure, and then none.
    assert_eq!(failures(&mut client, 100).await, 5);
    assert!(outlier(&proxy).await["ejected_for_ms"].is_u64());
    let ejections = "outrigger_upstream_ejections_total{cluster=\"app\",cause=\"consecutive_5xx\"}";
    assert_eq!(proxy.metric(ejections).await, 1.0);
    // While it is ill, a probe at a time finds it so: one failed request for each ejection.
    let probes = "outrigger_upstream_ejections_total{cluster=\"app\",cause=\"probe\"}";
    until("it is probed and left out again", async || {
        failures(&mut client, 5).await;
        (proxy.metric(probes).await >= 1.0).then_some(())
    })
    .await;
    patients[0].ill.store(false, SeqCst);
    until("it is back", async || {
        failures(&mut client, 5).await;
        (outlier(&proxy).await == "healthy").then_some(())
    })
    .await;
    let before = patients[0].origin.count();
    assert_eq!(failures(&mut client, 50).await, 0);
    assert_eq!(patients[0].origin.count() - before, 10, "its whole share");
}

#[tokio::test]
async fn never_more_than_the_share_is_left_out() {
    let (patients, proxy) = ward("consecutive_5xx: 2, interval: 500ms, max_ejected: 40%").await;
    patients.iter().for_each(|patient| patient.ill.store(true, SeqCst));
    let mut client = proxy.client("web").await;
    failures(&mut client, 100).await;
    let clusters = proxy.ask_json("/clusters").await;
    let endpoints = clusters["clusters"][0]["endpoints"].as_array().unwrap();
    let out = endpoints.iter().filter(|endpoint| endpoint["outlier"] != "healthy").count();
    assert_eq!(out, 2, "{clusters:#}");
    assert!(proxy.metric("outrigger_upstream_ejections_spared_total{cluster=\"app\"}").await > 0.0);
}

#[tokio::test]
async fn one_that_is_much_slower_than_the_others_is_left_out() {
    let rules = "latency_factor: 5, min_requests: 5, interval: 500ms, base_ejection: 30s";
    let (patients, proxy) = ward(rules).await;
    patients[1..].iter().for_each(|patient| patient.delay_ms.store(2, SeqCst));
    patients[0].delay_ms.store(50, SeqCst);
    let mut client = proxy.client("web").await;
    let ejections = "outrigger_upstream_ejections_total{cluster=\"app\",cause=\"latency\"}";
    until("the slow one is left out", async || {
        failures(&mut client, 10).await;
        (proxy.metric(ejections).await == 1.0).then_some(())
    })
    .await;
    assert!(outlier(&proxy).await["ejected_for_ms"].is_u64());
}

#[tokio::test]
async fn a_share_of_failures_is_too_much() {
    let rules =
        "consecutive_5xx: 0, consecutive_local: 0, failure_percent: 30%, min_requests: 10, interval: 500ms";
    let (patients, proxy) = ward(rules).await;
    let mut client = proxy.client("web").await;
    let ejections = "outrigger_upstream_ejections_total{cluster=\"app\",cause=\"failure_percent\"}";
    let mut turn = 0;
    until("the one that fails half of its requests is left out", async || {
        for _ in 0..10 {
            turn += 1;
            patients[0].ill.store(turn % 2 == 0, SeqCst);
            failures(&mut client, 5).await;
        }
        (proxy.metric(ejections).await == 1.0).then_some(())
    })
    .await;
}

/// What our own limits refuse says nothing of an endpoint; a dead connection does.
#[tokio::test]
async fn our_own_limits_blame_nobody_and_refused_connections_do() {
    let nobody = Nobody::new();
    let dead = nobody.address();
    let patient = Patient::start().await;
    let cluster = "balance: round-robin\noutlier_detection: { consecutive_local: 3, interval: 500ms }";
    let proxy = Proxy::start(&web_with("", cluster, [dead, patient.origin.address()])).await;
    let mut client = proxy.client("web").await;
    assert_eq!(failures(&mut client, 20).await, 0, "the other one is tried");
    let ejections = "outrigger_upstream_ejections_total{cluster=\"app\",cause=\"consecutive_local\"}";
    assert_eq!(proxy.metric(ejections).await, 1.0);

    let hang = async |mut conn: outrigger_tests::Conn| {
        conn.rest().await;
    };
    let (one, two) = (Origin::start(hang).await, Origin::start(hang).await);
    let cluster = "circuit_breaker: { max_requests: 1 }\noutlier_detection: { consecutive_5xx: 1, consecutive_local: 1 }";
    let proxy = Proxy::start(&web_with("", cluster, [one.address(), two.address()])).await;
    let mut held = proxy.client("web").await;
    held.send(outrigger_tests::wire::get("/")).await;
    proxy.wait_metric("outrigger_upstream_requests_active{cluster=\"app\"}", |n| n == 1.0).await;
    let mut client = proxy.client("web").await;
    assert_eq!(failures(&mut client, 10).await, 10);
    let clusters = proxy.ask_json("/clusters").await;
    for endpoint in clusters["clusters"][0]["endpoints"].as_array().unwrap() {
        assert_eq!(endpoint["outlier"], "healthy", "{clusters:#}");
    }
}

#[tokio::test]
async fn ejections_outlive_a_reload_and_end_with_their_rules() {
    let (patients, proxy) = ward("consecutive_5xx: 2, base_ejection: 1h, max_ejection: 1h").await;
    patients[0].ill.store(true, SeqCst);
    let mut client = proxy.client("web").await;
    failures(&mut client, 20).await;
    let rules = "outlier_detection: { consecutive_5xx: 2, base_ejection: 1h, max_ejection: 1h }";
    let config = |cluster: &str| {
        web_with("", &format!("balance: round-robin\n{cluster}"), patients.iter().map(|p| p.origin.address()))
    };
    proxy.reload(&format!("# another\n{}", config(&format!("{rules}\nconnect_timeout: 1s")))).await;
    assert!(outlier(&proxy).await["ejected_for_ms"].is_u64());
    assert_eq!(failures(&mut client, 20).await, 0);
    proxy.reload(&config("")).await;
    until("nobody is left out any more", async || (outlier(&proxy).await == "healthy").then_some(())).await;
}

/// Who stands in our own line until its time is over says nothing of the endpoint.
#[tokio::test]
async fn what_waits_for_a_connection_of_ours_is_no_failure() {
    let hang = Origin::start(async |mut conn| {
        conn.rest().await;
    })
    .await;
    let cluster = ", circuit_breaker: { max_connections: 1 }, outlier_detection: { consecutive_5xx: 1, consecutive_local: 1 }";
    let config = web_two_routes(("/hold", ""), ", timeout: 100ms", (hang.address(), cluster));
    let proxy = Proxy::start(&config).await;
    let mut held = proxy.client("web").await;
    held.send(outrigger_tests::wire::get("/hold")).await;
    proxy.wait_metric("outrigger_upstream_connections{cluster=\"app\"}", |n| n == 1.0).await;
    for _ in 0..3 {
        assert_eq!(proxy.get("web", "/").await.status, 504);
    }
    let clusters = proxy.ask_json("/clusters").await;
    assert_eq!(clusters["clusters"][0]["endpoints"][0]["failures"], 0, "{clusters:#}");
}
