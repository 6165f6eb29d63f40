//! Faults: as often as was asked for, to whom it was meant, and named in answer, log and metric.

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_tests::h2client::{H2, H2Reply};
use outrigger_tests::{Client, Echo, Proxy, Reply, until, within};
use tokio::time::Instant;

use crate::web;

const LOG: &str = "access_log: { format: text, to: stdout }\n";

/// A listener `web` whose one route has this fault, and this further key.
async fn start(fault: &str, route: &str) -> (Echo, Proxy) {
    let echo = Echo::start("e").await;
    let route = format!("      - to: app\n        fault: {{ {fault} }}\n        {route}\n");
    let config = LOG.to_owned() + &web([echo.address()]).replace("      - to: app\n", &route);
    let proxy = Proxy::start(&config).await;
    (echo, proxy)
}

async fn get(proxy: &Proxy, field: &str) -> (Reply, Duration) {
    let mut client = proxy.client("web").await;
    let start = Instant::now();
    client.send(format!("GET / HTTP/1.1\r\nHost: test\r\n{field}\r\n\r\n")).await;
    let reply = client.reply().await;
    (reply, start.elapsed())
}

async fn call(proxy: &Proxy) -> H2Reply {
    let request = http::Request::post("http://test/a.B/C").header("content-type", "application/grpc");
    let h2 = H2::connect(proxy.address("web")).await;
    h2.send(request.body(()).unwrap(), Vec::new(), None).await.unwrap()
}

async fn counted(proxy: &Proxy, kind: &str, times: f64) {
    let series = format!("outrigger_downstream_faults_total{{listener=\"web\",kind=\"{kind}\"}}");
    proxy.wait_metric(&series, |n| n == times).await;
}

/// Waits until a line of the access log has these words.
async fn logged(proxy: &Proxy, words: &str) {
    let found = async || {
        let log = proxy.stdout();
        log.contains(words).then_some(())
    };
    until(&format!("the access log says {words:?}"), found).await;
}

#[tokio::test]
async fn an_abort_is_answered_here() {
    let (echo, proxy) = start("abort: { status: 418, percent: 100 }", "").await;
    let (reply, _) = get(&proxy, "x: y").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (418, Some("fault_abort")));
    assert_eq!(reply.text(), "outrigger: the request was aborted on purpose (fault.abort)\n");
    let reply = call(&proxy).await;
    assert_eq!((reply.status, reply.field("grpc-status")), (200, Some("2")), "UNKNOWN");
    assert_eq!(echo.requests(), 0);
    counted(&proxy, "abort", 2.0).await;
    logged(&proxy, " 418 FI ").await;
}

#[tokio::test]
async fn an_abort_of_grpc_has_a_form_for_others() {
    let (_echo, proxy) = start("abort: { grpc: resource-exhausted, percent: 100 }", "").await;
    let reply = call(&proxy).await;
    assert_eq!((reply.status, reply.field("grpc-status")), (200, Some("8")));
    assert!(reply.body.is_empty() && reply.trailers.is_none());
    assert_eq!(get(&proxy, "x: y").await.0.status, 429);
}

#[tokio::test]
async fn a_delay_holds_a_request_up_and_then_it_goes_on() {
    let (echo, proxy) = start("delay: { fixed: 200ms, percent: 100 }", "").await;
    let (reply, took) = get(&proxy, "x: y").await;
    assert_eq!(reply.status, 200);
    assert!(took >= Duration::from_millis(200), "{took:?}");
    assert_eq!(echo.requests(), 1);
    counted(&proxy, "delay", 1.0).await;
    logged(&proxy, " 200 DI ").await;
}

#[tokio::test]
async fn a_request_may_meet_both() {
    let faults = "delay: { fixed: 100ms, percent: 100 }, abort: { status: 503, percent: 100 }";
    let (echo, proxy) = start(faults, "").await;
    let (reply, took) = get(&proxy, "x: y").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (503, Some("fault_abort")));
    assert!(took >= Duration::from_millis(100), "{took:?}");
    assert_eq!(echo.requests(), 0);
    logged(&proxy, " 503 DI,FI ").await;
}

#[tokio::test]
async fn a_delay_counts_against_the_timeout() {
    let (echo, proxy) = start("delay: { fixed: 1h, percent: 100 }", "timeout: 200ms").await;
    let (reply, took) = get(&proxy, "x: y").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (504, Some("timeout")));
    assert!(took >= Duration::from_millis(200), "{took:?}");
    assert_eq!(echo.requests(), 0, "the origin sees nothing of it");
    logged(&proxy, " 504 DI,UT ").await;
}

#[tokio::test]
async fn a_delay_counts_against_the_deadline_of_a_grpc_caller() {
    let (echo, proxy) = start("delay: { fixed: 1h, percent: 100 }", "").await;
    let request = http::Request::post("http://test/a.B/C").header("content-type", "application/grpc");
    let request = request.header("grpc-timeout", "200m").body(()).unwrap();
    let h2 = H2::connect(proxy.address("web")).await;
    let reply = h2.send(request, Vec::new(), None).await.unwrap();
    assert_eq!((reply.status, reply.field("grpc-status")), (200, Some("4")), "DEADLINE_EXCEEDED");
    assert_eq!(echo.requests(), 0, "the origin sees nothing of it");
}

#[tokio::test]
async fn who_gives_up_is_held_up_no_longer() {
    let (_echo, proxy) = start("delay: { fixed: 1h, percent: 100 }", "").await;
    let active = "outrigger_downstream_requests_active{listener=\"web\"}";
    let mut client = proxy.client("web").await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    proxy.wait_metric(active, |n| n == 1.0).await;
    drop(client);
    proxy.wait_metric(active, |n| n == 0.0).await;
    logged(&proxy, " DI,DC ").await;
}

#[tokio::test]
async fn only_who_asks_for_it() {
    let (_echo, proxy) = start("abort: { status: 503, percent: 100 }, when: { header: x-chaos }", "").await;
    for (field, status) in [("x-chaos: 1", 503), ("x-other: 1", 200), ("X-Chaos:", 503)] {
        assert_eq!(get(&proxy, field).await.0.status, status, "{field}");
    }
}

/// How many of so many requests were aborted.
async fn aborted(to: SocketAddr, requests: usize) -> u32 {
    let mut client = Client::connect(to).await;
    let mut aborted = 0;
    for _ in 0..requests {
        aborted += u32::from(client.get("/").await.status == 503);
    }
    aborted
}

/// Five standard deviations around what was asked for: wrong once in a million runs.
#[tokio::test]
async fn shares_come_out() {
    let (_echo, proxy) = start("abort: { status: 503, percent: 20 }", "").await;
    let to = proxy.address("web");
    let clients: Vec<_> = (0..4).map(|_| tokio::spawn(aborted(to, 500))).collect();
    let mut all = 0;
    for client in clients {
        all += within("all answers", client).await.unwrap();
    }
    assert!((310..=490).contains(&all), "{all} of 2000");
    counted(&proxy, "abort", f64::from(all)).await;
}
