//! Graceful degradation: what is served when a cluster is of no use, and how one can tell.

use outrigger_tests::wire::post;
use outrigger_tests::{Origin, Proxy};

use crate::web_routed;

mod stale;

const BAD: &str = "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn a_fixed_answer_is_marked_in_header_log_and_metric() {
    let bad = Origin::answering(BAD).await;
    let route = "fallback: { respond: { status: 200, body: \"[]\" } }";
    let config =
        format!("access_log: {{ format: json, to: stdout }}\n{}", web_routed(route, "", "", [bad.address()]));
    let proxy = Proxy::start(&config).await;
    let reply = proxy.get("web", "/").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "[]"));
    assert_eq!(reply.field("x-outrigger-fallback"), Some("response"));
    let series = "outrigger_downstream_fallbacks_total{listener=\"web\",kind=\"response\"}";
    proxy.wait_metric(series, |n| n == 1.0).await;
    // The cluster's own figures say what it answered.
    let series = "outrigger_upstream_requests_total{cluster=\"app\",code=\"5xx\"}";
    proxy.wait_metric(series, |n| n == 1.0).await;
    outrigger_tests::until("the line is written", async || {
        proxy.stdout().contains("\"fallback\":\"response\"").then_some(())
    })
    .await;
}

#[tokio::test]
async fn another_cluster_answers_with_the_same_request() {
    let (bad, good) = (Origin::answering(BAD).await, Origin::ok("spare").await);
    let config = web_routed("fallback: { to: spare }", "", "", [bad.address()]);
    let config = format!("{config}  spare: {{ endpoints: [\"{}\"] }}\n", good.address());
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.client("web").await;
    client.send(post("/order?x=1", "a body")).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "spare"));
    assert_eq!(reply.field("x-outrigger-fallback"), Some("cluster"));
    assert_eq!((good.last().message.body.as_slice(), good.last().target()), (&b"a body"[..], "/order?x=1"));
    proxy
        .wait_metric("outrigger_upstream_requests_total{cluster=\"spare\",code=\"2xx\"}", |n| n == 1.0)
        .await;
    for cluster in ["app", "spare"] {
        let series = format!("outrigger_upstream_requests_active{{cluster=\"{cluster}\"}}");
        proxy.wait_metric(&series, |n| n == 0.0).await;
    }
}

#[tokio::test]
async fn what_is_well_or_the_clients_fault_falls_back_to_nothing() {
    for status in ["200 OK", "404 Not Found"] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
        let origin = Origin::answering(&answer).await;
        let route = "fallback: { respond: { status: 200, body: \"[]\" } }";
        let proxy = Proxy::start(&web_routed(route, "", "", [origin.address()])).await;
        let reply = proxy.get("web", "/").await;
        assert_eq!((reply.text().as_str(), reply.field("x-outrigger-fallback")), ("ok", None));
    }
}

#[tokio::test]
async fn no_answer_at_all_and_no_answer_in_time_fall_back() {
    let silent = Origin::start(async |mut conn| {
        conn.rest().await;
    })
    .await;
    for (route, endpoints) in [("timeout: 100ms", vec![silent.address()]), ("", vec![])] {
        let route = format!("{route}\nfallback: {{ respond: {{ status: 203, body: later }} }}");
        let proxy = Proxy::start(&web_routed(route.trim(), "", "", endpoints)).await;
        let reply = proxy.get("web", "/").await;
        assert_eq!((reply.status, reply.text().as_str()), (203, "later"));
    }
}
