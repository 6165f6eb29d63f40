//! Circuit breakers: limits that hold for the whole process, seen from the upstream, and say what they are.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use outrigger_tests::origin::{established, ok};
use outrigger_tests::wire::get;
use outrigger_tests::{Client, Echo, Origin, Proxy};
use tokio::task::JoinSet;

use crate::{web_two_routes, web_with};

/// Counts how many are in at once, and the most there ever were.
#[derive(Debug, Default)]
struct Most {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Most {
    fn enter(&self) {
        let now = self.now.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
    }

    fn leave(&self) {
        self.now.fetch_sub(1, SeqCst);
    }
}

/// Takes a moment over each request, and counts requests that it has at once, and the most connections that were open
/// when one came.
async fn counting() -> (Origin, Arc<Most>, Arc<AtomicUsize>) {
    let (requests, connections) = (Arc::new(Most::default()), Arc::new(AtomicUsize::new(0)));
    let (counts, port) = ((requests.clone(), connections.clone()), Arc::new(OnceLock::new()));
    let known = port.clone();
    let origin = Origin::start(move |mut conn| {
        let (requests, connections) = counts.clone();
        connections.fetch_max(established(*known.get().expect("asked after it was started")), SeqCst);
        async move {
            while conn.request().await.is_some() {
                requests.enter();
                tokio::time::sleep(std::time::Duration::from_millis(3)).await;
                // Before the last byte of the answer: after it the proxy may have sent the next one.
                requests.leave();
                conn.send(ok("x")).await;
            }
        }
    })
    .await;
    port.set(origin.socket().port()).unwrap();
    (origin, requests, connections)
}

/// So many clients that ask so often; how many answers had which status.
async fn storm(proxy: &Proxy, clients: usize, each: usize) -> (usize, usize) {
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let web = proxy.address("web");
        tasks.spawn(async move {
            let mut client = Client::connect(web).await;
            let (mut good, mut refused) = (0, 0);
            for _ in 0..each {
                match client.get("/").await.status {
                    200 => good += 1,
                    503 => refused += 1,
                    other => panic!("{other}"),
                }
            }
            (good, refused)
        });
    }
    let all = tasks.join_all().await;
    all.into_iter().fold((0, 0), |(good, refused), (g, r)| (good + g, refused + r))
}

#[tokio::test]
async fn never_more_requests_than_the_limit_over_all_workers() {
    let (origin, requests, _) = counting().await;
    let config = web_with("", "circuit_breaker: { max_requests: 3 }", [origin.address()]);
    let proxy = Proxy::start(&format!("workers: 4\n{config}")).await;
    let (good, refused) = storm(&proxy, 30, 40).await;
    assert!(good > 0 && refused > 0 && good + refused == 1200, "{good} {refused}");
    assert_eq!(requests.most.load(SeqCst), 3);
    let series = "outrigger_upstream_overflows_total{cluster=\"app\",limit=\"max_requests\"}";
    assert_eq!(proxy.metric(series).await, refused as f64);
    proxy.wait_metric("outrigger_upstream_requests_active{cluster=\"app\"}", |n| n == 0.0).await;
}

/// A limit below the number of workers: what one of them has idle, another one gets.
#[tokio::test]
async fn never_more_connections_than_the_limit_and_nobody_starves() {
    for limit in [1, 2, 5] {
        let (origin, _, connections) = counting().await;
        let limits = format!("circuit_breaker: {{ max_connections: {limit} }}");
        let config = web_with("", &limits, [origin.address()]);
        let proxy = Proxy::start(&format!("workers: 4\n{config}")).await;
        let (good, refused) = storm(&proxy, 20, 10).await;
        assert_eq!((good, refused), (200, 0), "limit {limit}: all waited for their turn");
        let most = connections.load(SeqCst);
        assert!((1..=limit).contains(&most), "limit {limit}: {most}");
        proxy.wait_metric("outrigger_upstream_connections{cluster=\"app\"}", |n| n <= limit as f64).await;
    }
}

#[tokio::test]
async fn connections_are_used_again_while_others_wait_on_the_same_worker() {
    let (origin, ..) = counting().await;
    let config = web_with("", "circuit_breaker: { max_connections: 2 }", [origin.address()]);
    let proxy = Proxy::start(&format!("workers: 1\n{config}")).await;
    assert_eq!(storm(&proxy, 10, 20).await, (200, 0));
    assert_eq!(origin.opened(), 2);
}

#[tokio::test]
async fn http2_streams_wait_for_room_too() {
    let origin = Echo::start("echo").await;
    let cluster = "protocol: http2\ncircuit_breaker: { max_connections: 1 }";
    let config = web_with("", cluster, [origin.address()]);
    let proxy = Proxy::start(&format!("workers: 4\n{config}")).await;
    let (good, refused) = storm(&proxy, 12, 20).await;
    assert_eq!((good, refused), (240, 0));
}

#[tokio::test]
async fn what_waits_is_limited_and_the_answer_names_the_limit() {
    let origin = Origin::start(async |mut conn| {
        conn.rest().await;
    })
    .await;
    let limits = "circuit_breaker: { max_connections: 1, max_pending: 2 }\nconnect_timeout: 200ms";
    let proxy = Proxy::start(&web_with("", limits, [origin.address()])).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = proxy.client("web").await;
        client.send(get("/")).await;
        clients.push(client);
    }
    // One is at the origin and two wait: the next one overflows, or it comes before they do, and one of them overflows.
    let mut refused = 0;
    let mut late = 0;
    clients.push({
        let mut client = proxy.client("web").await;
        client.send(get("/")).await;
        client
    });
    for client in &mut clients {
        let Ok(reply) = tokio::time::timeout(std::time::Duration::from_secs(2), client.reply()).await else {
            continue;
        };
        assert_eq!(reply.status, 503);
        match reply.field("x-outrigger-reason") {
            Some("max_pending") => {
                refused += 1;
                assert_eq!(
                    reply.text(),
                    "outrigger: circuit_breaker.max_pending is 2, and this would be 3\n"
                );
            }
            Some("no_connection_free") => late += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((refused, late), (1, 2));
}

#[tokio::test]
async fn permits_come_back_from_clients_that_leave() {
    let origin = Origin::start(async |mut conn| {
        conn.rest().await;
    })
    .await;
    let limits = "circuit_breaker: { max_requests: 5 }";
    let proxy = Proxy::start(&web_with("", limits, [origin.address()])).await;
    for _ in 0..5 {
        let mut clients = Vec::new();
        for _ in 0..5 {
            let mut client = proxy.client("web").await;
            client.send(get("/")).await;
            clients.push(client);
        }
        proxy.wait_metric("outrigger_upstream_requests_active{cluster=\"app\"}", |n| n == 5.0).await;
        assert_eq!(proxy.get("web", "/").await.field("x-outrigger-reason"), Some("max_requests"));
        drop(clients);
        proxy.wait_metric("outrigger_upstream_requests_active{cluster=\"app\"}", |n| n == 0.0).await;
    }
}

#[tokio::test]
async fn a_reload_changes_limits_and_keeps_counts() {
    let origin = Origin::start(async |mut conn| {
        conn.rest().await;
    })
    .await;
    let config =
        |max: u32| web_with("", &format!("circuit_breaker: {{ max_requests: {max} }}"), [origin.address()]);
    let proxy = Proxy::start(&config(1)).await;
    let mut held = proxy.client("web").await;
    held.send(get("/")).await;
    proxy.wait_metric("outrigger_upstream_requests_active{cluster=\"app\"}", |n| n == 1.0).await;
    let refused = proxy.get("web", "/").await;
    assert_eq!(refused.text(), "outrigger: circuit_breaker.max_requests is 1, and this would be 2\n");
    proxy.reload(&config(2)).await;
    let mut second = proxy.client("web").await;
    second.send(get("/")).await;
    proxy.wait_metric("outrigger_upstream_requests_active{cluster=\"app\"}", |n| n == 2.0).await;
    let refused = proxy.get("web", "/").await;
    assert_eq!(refused.text(), "outrigger: circuit_breaker.max_requests is 2, and this would be 3\n");
}

/// Requests of another class have limits and connections of their own.
#[tokio::test]
async fn one_priority_does_not_crowd_out_the_other() {
    let (origin, open) = Origin::gated().await;
    let limits = ", circuit_breaker: { max_connections: 1, max_requests: 1, high: { max_connections: 2, max_requests: 2 } }";
    let config = web_two_routes(("/pay", ", priority: high"), "", (origin.address(), limits));
    let proxy = Proxy::start(&format!("workers: 1\n{config}")).await;
    let mut held = Vec::new();
    for (path, limit) in [("/", "max_requests is 1, and this would be 2"), ("/pay", "")] {
        let places = if limit.is_empty() { 2 } else { 1 };
        for _ in 0..places {
            let mut client = proxy.client("web").await;
            client.send(get(path)).await;
            held.push(client);
        }
        origin.wait_requests(held.len()).await;
        let reply = proxy.get("web", path).await;
        assert_eq!(reply.status, 503);
        let limit = if limit.is_empty() { "high.max_requests is 2, and this would be 3" } else { limit };
        assert_eq!(reply.text(), format!("outrigger: circuit_breaker.{limit}\n"));
    }
    let clusters = proxy.ask_json("/clusters").await;
    let breaker = &clusters["clusters"][0]["circuit_breaker"];
    assert_eq!((&breaker["max_requests"], &breaker["high"]["max_requests"]), (&1.into(), &2.into()));
    let series = "outrigger_upstream_overflows_total{cluster=\"app\",limit=\"high.max_requests\"}";
    assert_eq!(proxy.metric(series).await, 1.0);
    open.send(true).unwrap();
    for client in &mut held {
        assert_eq!(client.reply().await.status, 200);
    }
    proxy.wait_metric("outrigger_upstream_requests_active{cluster=\"app\"}", |n| n == 0.0).await;
}

/// However idle those of the other class are.
#[tokio::test]
async fn each_priority_has_connections_of_its_own() {
    let origin = Origin::ok("x").await;
    let h2 = Echo::start("echo").await;
    for (protocol, address) in [("http1", origin.address().to_owned()), ("http2", h2.address().to_string())] {
        let protocol_is = format!(", protocol: {protocol}");
        let config = web_two_routes(("/pay", ", priority: high"), "", (&address, &protocol_is));
        let proxy = Proxy::start(&format!("workers: 1\n{config}")).await;
        for (path, connections) in [("/", 1.0), ("/", 1.0), ("/pay", 2.0), ("/", 2.0), ("/pay", 2.0)] {
            assert_eq!(proxy.get("web", path).await.status, 200);
            let opened = proxy.metric("outrigger_upstream_connections_total{cluster=\"app\"}").await;
            assert_eq!(opened, connections, "{protocol} {path}");
        }
    }
}
