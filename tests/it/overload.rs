//! Overload: what is shed, in which order, what goes on, and that all is well again without help.

use std::sync::Arc;

use outrigger_tests::h2client::H2;
use outrigger_tests::origin::ok;
use outrigger_tests::wire::get;
use outrigger_tests::{Client, Echo, Origin, Proxy, Reply, until, within};
use tokio::sync::Notify;

use crate::{web, web_routed, web_with};

const LEVEL: &str = "outrigger_overload_level";
const BAD: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";

async fn wait_level(proxy: &Proxy, level: u8) {
    proxy.wait_metric(LEVEL, |n| n == f64::from(level)).await;
}

async fn shed(proxy: &Proxy, what: &str) -> f64 {
    proxy.metric(&format!("outrigger_overload_shed_total{{what=\"{what}\"}}")).await
}

/// Connections of which nothing is heard, as many as were asked for; some may be closed already.
async fn crowd(proxy: &Proxy, many: usize) -> Vec<Client> {
    let mut all = Vec::new();
    for _ in 0..many {
        all.push(proxy.client("web").await);
    }
    all
}

#[track_caller]
fn assert_refused(reply: &Reply) {
    let said = ["x-outrigger-reason", "retry-after", "connection"].map(|name| reply.field(name));
    assert_eq!((reply.status, said), (503, [Some("overload"), Some("1"), Some("close")]), "{}", reply.head);
}

/// Asks on connections of its own until one is answered.
async fn wait_served(proxy: &Proxy) {
    until("requests are served again", async || {
        let reply = Client::try_connect(proxy.address("web")).await?.try_get("/").await?;
        (reply.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_descriptors_admin_answers_requests_are_refused_and_it_recovers() {
    let echo = Echo::start("e").await;
    let config = format!("access_log: {{ to: stdout }}\n{}", web([echo.address()]));
    let proxy = Proxy::start_with_descriptors(64, &config).await;
    let mut established = proxy.client("web").await;
    assert_eq!(established.get("/").await.status, 200);
    let crowd = crowd(&proxy, 100).await;
    wait_level(&proxy, 2).await;
    assert_refused(&established.get("/").await);
    assert_eq!(established.rest().await, b"");
    until("the log says why", async || proxy.stdout().contains(" 503 OM ").then_some(())).await;
    for path in ["/live", "/ready", "/metrics", "/config", "/clusters"] {
        assert_eq!(proxy.ask(path).await.status, 200, "{path}");
    }
    assert!(shed(&proxy, "connection").await >= 40.0);
    assert!(shed(&proxy, "request").await >= 1.0);
    proxy.wait_log("overloaded: new requests are answered 503").await;
    drop(crowd);
    wait_served(&proxy).await;
    wait_level(&proxy, 0).await;
    proxy.wait_log("no longer pressed").await;
}

#[tokio::test]
async fn accepting_goes_on_after_the_last_descriptor_was_taken() {
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&format!("overload: {{ descriptors: none }}\n{}", web([echo.address()]))).await;
    assert_eq!(proxy.get("web", "/").await.status, 200);
    proxy.limit_descriptors(1);
    let mut waiting = proxy.client("web").await;
    waiting.send(get("/")).await;
    proxy.wait_log("cannot accept connections; trying again").await;
    proxy.limit_descriptors(1000);
    // It may have been seen meanwhile how few there were, and not yet that there are more: then what has waited is shed.
    if within("an answer or the end", waiting.try_reply_to("GET")).await.is_none() {
        assert_eq!(shed(&proxy, "connection").await, 1.0);
        until("the next is served", async || {
            let mut client = proxy.client("web").await;
            client.try_get("/").await.filter(|reply| reply.status == 200)
        })
        .await;
    }
}

#[tokio::test]
async fn admin_answers_with_the_descriptors_that_it_has_kept() {
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&web([echo.address()])).await;
    let open: Vec<u64> = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().parse().unwrap())
        .collect();
    // Below it no number is free.
    proxy.limit_descriptors((0..).find(|number| !open.contains(number)).unwrap());
    for path in ["/live", "/ready", "/metrics"] {
        assert_eq!(proxy.ask(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn connections_above_the_threshold_are_closed_and_those_below_are_not() {
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&format!("overload: {{ connections: 20 }}\n{}", web([echo.address()]))).await;
    let mut first = crowd(&proxy, 20).await;
    let series = "outrigger_downstream_connections{listener=\"web\"}";
    proxy.wait_metric(series, |n| n == 20.0).await;
    for _ in 0..5 {
        assert_eq!(within("the end", proxy.client("web").await.rest()).await, b"");
    }
    assert_eq!(shed(&proxy, "connection").await, 5.0);
    assert_eq!(proxy.metric(series).await, 20.0);
    wait_level(&proxy, 2).await;
    assert_refused(&first[0].get("/").await);
    first.truncate(2);
    wait_level(&proxy, 0).await;
    assert_eq!(first[1].get("/").await.status, 200, "it was there before, and has waited");
}

#[tokio::test]
async fn idle_connections_make_room_by_themselves() {
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&format!("overload: {{ connections: 20 }}\n{}", web([echo.address()]))).await;
    let h2 = H2::connect(proxy.address("web")).await;
    assert_eq!(h2.get("/").await.status, 200);
    let mut idle = crowd(&proxy, 10).await;
    for client in &mut idle {
        assert_eq!(client.get("/").await.status, 200);
    }
    let silent = crowd(&proxy, 9).await;
    wait_level(&proxy, 2).await;
    // As many as it takes: whoever is left when there is room again may stay.
    wait_level(&proxy, 0).await;
    assert!(proxy.metric("outrigger_downstream_connections{listener=\"web\"}").await <= 16.0);
    wait_served(&proxy).await;
    drop((h2, idle, silent));
}

#[tokio::test]
async fn memory_is_watched_streams_go_on_and_a_reload_lets_everybody_in_again() {
    let told = Arc::new(Notify::new());
    let release = told.clone();
    let origin = Origin::start(move |mut conn| {
        let release = release.clone();
        async move {
            while let Some(request) = conn.request().await {
                if request.target() != "/stream" {
                    conn.send(ok("x")).await;
                    continue;
                }
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst").await;
                release.notified().await;
                conn.send("last").await;
            }
        }
    })
    .await;
    let config = web_with("", "protocol: http1", [origin.address()]);
    let proxy = Proxy::start(&format!("overload: {{ memory: none }}\n{config}")).await;
    let h2 = H2::connect(proxy.address("web")).await;
    assert_eq!(h2.get("/").await.status, 200);
    let mut stream = proxy.client("web").await;
    stream.send(get("/stream")).await;
    origin.wait_requests(2).await;
    proxy.reload(&format!("overload: {{ memory: 0.001% }}\n{config}")).await;
    wait_level(&proxy, 2).await;
    assert_refused(&proxy.get("web", "/").await);
    assert_eq!(h2.get("/").await.status, 503);
    let request = http::Request::post("http://test/a.B/C").header("content-type", "application/grpc");
    let reply = h2.send(request.body(()).unwrap(), Vec::new(), None).await.unwrap();
    assert_eq!((reply.status, reply.field("grpc-status")), (200, Some("14")));
    assert_eq!(proxy.ask("/ready").await.status, 200, "others are to keep their load");
    proxy.wait_log("or raise `overload.memory`").await;
    told.notify_one();
    assert_eq!(stream.reply().await.text(), "firstlast");
    proxy.reload(&format!("overload: {{ memory: none }}\n{config}")).await;
    wait_level(&proxy, 0).await;
    assert_eq!(proxy.get("web", "/").await.status, 200);
    assert_eq!(h2.get("/").await.status, 200, "the connection has lasted");
}

#[tokio::test]
async fn bytes_are_not_taken_on_while_requests_are_not() {
    let echo = Echo::start("e").await;
    let more = "  raw: { bind: 127.0.0.1:0, tcp: { to: app } }\nclusters:";
    let config = web([echo.address()]).replace("clusters:", more);
    let proxy = Proxy::start(&format!("overload: {{ memory: 0.001% }}\n{config}")).await;
    wait_level(&proxy, 2).await;
    let mut client = proxy.client("raw").await;
    assert_eq!(within("the end", client.rest()).await, b"");
    assert!(shed(&proxy, "connection").await >= 1.0);
    proxy.reload(&config).await;
    wait_level(&proxy, 0).await;
    assert_eq!(proxy.get("raw", "/").await.status, 200);
}

#[tokio::test]
async fn pressed_it_does_what_is_asked_and_no_more() {
    let (app, copy) = (Origin::answering(BAD).await, Origin::ok("copy").await);
    let route = "retry: { attempts: 3, conditions: [503] }\nmirror: { to: copy }";
    let config = web_routed(route, "", "", [app.address()]);
    let config = format!("{config}  copy: {{ endpoints: [\"{}\"] }}\n", copy.address());
    let proxy = Proxy::start(&format!("overload: {{ connections: 20 }}\n{config}")).await;
    let mut crowd = crowd(&proxy, 18).await;
    wait_level(&proxy, 1).await;
    let reply = crowd[0].get("/").await;
    assert_eq!((reply.status, reply.field("connection")), (503, Some("close")));
    assert_eq!(reply.field("x-outrigger-reason"), None, "it is the service's answer");
    assert_eq!((app.count(), copy.count()), (1, 0));
    assert_eq!((shed(&proxy, "mirror").await, shed(&proxy, "retry").await), (1.0, 1.0));
    let skipped = "outrigger_upstream_retries_skipped_total{cluster=\"app\",reason=\"overload\"}";
    assert_eq!(proxy.metric(skipped).await, 1.0);
    crowd.truncate(3);
    wait_level(&proxy, 0).await;
    let reply = crowd[1].get("/").await;
    assert_eq!((reply.status, reply.field("connection")), (503, None));
    copy.wait_requests(1).await;
    assert_eq!(app.count(), 4, "three attempts more");
}

#[tokio::test]
async fn pressed_a_slow_request_gets_no_second_attempt_beside_it() {
    let told = Arc::new(Notify::new());
    let release = told.clone();
    let origin = Origin::start(move |mut conn| {
        let release = release.clone();
        async move {
            while conn.request().await.is_some() {
                release.notified().await;
                conn.send(ok("first")).await;
            }
        }
    })
    .await;
    let config = web_routed("hedge: { after: 5ms }", "", "", [origin.address()]);
    let proxy = Proxy::start(&format!("overload: {{ connections: 20 }}\n{config}")).await;
    let mut crowd = crowd(&proxy, 18).await;
    wait_level(&proxy, 1).await;
    crowd[0].send(get("/")).await;
    let skipped = "outrigger_upstream_retries_skipped_total{cluster=\"app\",reason=\"overload\"}";
    proxy.wait_metric(skipped, |n| n == 1.0).await;
    told.notify_one();
    assert_eq!(crowd[0].reply().await.text(), "first");
    assert_eq!(origin.count(), 1);
}
