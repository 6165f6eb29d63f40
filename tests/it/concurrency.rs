//! Bulkheads: so many requests of a route at once, in all or of each caller, and a line that has an end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use outrigger_tests::origin::ok;
use outrigger_tests::wire::get;
use outrigger_tests::{Client, Origin, Proxy, wait};

use crate::web_routed;

/// So many requests under way, of callers by this header.
async fn ask(proxy: &Proxy, callers: &[&str]) -> Vec<Client> {
    let mut clients = Vec::new();
    for caller in callers {
        let mut client = proxy.client("web").await;
        client.send(format!("GET / HTTP/1.1\r\nHost: app\r\nx-tenant: {caller}\r\n\r\n")).await;
        clients.push(client);
    }
    clients
}

async fn proxy(limits: &str, origin: &Origin) -> Proxy {
    let route = format!("concurrency: {{ {limits} }}");
    Proxy::start(&format!("workers: 4\n{}", web_routed(&route, "", "", [origin.address()]))).await
}

#[tokio::test]
async fn never_more_than_the_limit_over_all_workers() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (now.clone(), most.clone());
    let origin = Origin::start(move |mut conn| {
        let (now, most) = counts.clone();
        async move {
            while conn.request().await.is_some() {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_millis(2)).await;
                now.fetch_sub(1, SeqCst);
                conn.send(ok("x")).await;
            }
        }
    })
    .await;
    let proxy = proxy("max: 3, queue: 1000, wait: 10s", &origin).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..24 {
        let web = proxy.address("web");
        clients.spawn(async move {
            let mut client = Client::connect(web).await;
            for _ in 0..20 {
                assert_eq!(client.get("/").await.status, 200, "everybody gets a turn");
            }
        });
    }
    clients.join_all().await;
    assert_eq!(most.load(SeqCst), 3);
}

#[tokio::test]
async fn the_line_ends_and_the_answer_names_the_limit() {
    let (origin, open) = Origin::gated().await;
    let proxy = proxy("max: 2, queue: 1, wait: 10s", &origin).await;
    let mut inside = ask(&proxy, &["a", "a"]).await;
    origin.wait_requests(2).await;
    let mut line = ask(&proxy, &["a"]).await;
    proxy.wait_metric("outrigger_downstream_requests_active{listener=\"web\"}", |n| n == 3.0).await;
    let refused = ask(&proxy, &["a"]).await.remove(0).reply().await;
    assert_eq!((refused.status, refused.field("x-outrigger-reason")), (503, Some("concurrency")));
    assert_eq!(refused.text(), "outrigger: concurrency.max is 2, and this would be 3\n");
    let series = "outrigger_downstream_limits_total{listener=\"web\",limit=\"concurrency\"}";
    assert!(proxy.metric(series).await >= 1.0);
    open.send(true).unwrap();
    for client in inside.iter_mut().chain(&mut line) {
        assert_eq!(client.reply().await.status, 200);
    }
}

#[tokio::test]
async fn nobody_waits_longer_than_it_may_or_than_its_own_deadline() {
    let (origin, _open) = Origin::gated().await;
    let impatient = proxy("max: 1, queue: 9, wait: 50ms", &origin).await;
    let _inside = ask(&impatient, &["a"]).await;
    origin.wait_requests(1).await;
    let reply = ask(&impatient, &["a"]).await.remove(0).reply().await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (503, Some("concurrency_wait")));

    let (origin, _open) = Origin::gated().await;
    let route = "timeout: 100ms\nconcurrency: { max: 1, queue: 9, wait: 1h }";
    let hasty = Proxy::start(&web_routed(route, "", "", [origin.address()])).await;
    let _inside = ask(&hasty, &["a"]).await;
    origin.wait_requests(1).await;
    let reply = ask(&hasty, &["a"]).await.remove(0).reply().await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (504, Some("timeout")));
}

#[tokio::test]
async fn one_tenant_does_not_crowd_out_another() {
    let (origin, open) = Origin::gated().await;
    let proxy = proxy("max: 1, per: { header: x-tenant }", &origin).await;
    let mut inside = ask(&proxy, &["a", "b"]).await;
    origin.wait_requests(2).await;
    let refused = ask(&proxy, &["a"]).await.remove(0).reply().await;
    assert_eq!(refused.field("x-outrigger-reason"), Some("concurrency"));
    open.send(true).unwrap();
    for client in &mut inside {
        assert_eq!(client.reply().await.status, 200);
    }
}

#[tokio::test]
async fn places_come_back_from_clients_that_leave_and_outlive_a_reload() {
    let (origin, _open) = Origin::gated().await;
    let route = "concurrency: { max: 2 }";
    let config = |more: &str| web_routed(route, more, "", [origin.address()]);
    let proxy = Proxy::start(&config("")).await;
    for round in 1..=5 {
        let inside = ask(&proxy, &["a", "b"]).await;
        origin.wait_requests(2 * round).await;
        // Another configuration that leaves the limit as it is.
        proxy.reload(&format!("# {round}\n{}", config("merge_slashes: true"))).await;
        let mut client = proxy.client("web").await;
        client.send(get("/")).await;
        assert_eq!(client.reply().await.field("x-outrigger-reason"), Some("concurrency"));
        drop(inside);
        proxy.wait_metric("outrigger_downstream_requests_active{listener=\"web\"}", |n| n == 0.0).await;
    }
}

#[tokio::test]
async fn what_is_under_way_and_what_waits_is_to_be_seen_by_route() {
    let (origin, open) = Origin::gated().await;
    let proxy = proxy("max: 2, queue: 5, wait: 10s", &origin).await;
    let mut clients = ask(&proxy, &["a", "a"]).await;
    origin.wait_requests(2).await;
    clients.extend(ask(&proxy, &["a"]).await);
    let series =
        |of: &str| format!("outrigger_route_concurrency_{of}{{listener=\"web\",route=\"web.routes[0]\"}}");
    proxy.wait_metric(&series("waiting"), |n| n == 1.0).await;
    assert_eq!((proxy.metric(&series("active")).await, proxy.metric(&series("limit")).await), (2.0, 2.0));
    open.send(true).unwrap();
    for client in &mut clients {
        assert_eq!(client.reply().await.status, 200);
    }
    proxy.wait_metric(&series("active"), |n| n == 0.0).await;
    assert_eq!(proxy.metric(&series("waiting")).await, 0.0);
}

/// A service for eight at once: more of them only wait there.
#[tokio::test]
async fn an_adaptive_limit_finds_out_how_many_are_of_use() {
    let places = Arc::new(tokio::sync::Semaphore::new(8));
    let origin = Origin::start(move |mut conn| {
        let places = places.clone();
        async move {
            while conn.request().await.is_some() {
                let place = places.acquire().await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
                drop(place);
                conn.send(ok("x")).await;
            }
        }
    })
    .await;
    let proxy = proxy("max: 1000, adaptive: { min: 2 }", &origin).await;
    let (good, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(String::new())));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..200 {
        // As many as there are places come first: what answers take without a crowd is known when the others come.
        if number == 8 {
            wait::until("300 answers", async || (good.load(SeqCst) >= 300).then_some(())).await;
        }
        let (web, good, refused) = (proxy.address("web"), good.clone(), refused.clone());
        clients.spawn(async move {
            let mut client = Client::connect(web).await;
            loop {
                let reply = client.get("/").await;
                match reply.status {
                    200 => _ = good.fetch_add(1, SeqCst),
                    503 => {
                        reply.text().clone_into(&mut refused.lock().unwrap());
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    other => panic!("{other}"),
                }
            }
        });
    }
    let limit = "outrigger_route_concurrency_limit{listener=\"web\",route=\"web.routes[0]\"}";
    // It is another than that which it begins with, in a crowd always.
    proxy.wait_metric(limit, |n| n != 20.0).await;
    wait::until("2000 answers", async || (good.load(SeqCst) >= 2000).then_some(())).await;
    // Without a limit there would be 200.
    proxy.wait_metric(limit, |n| (2.0..=100.0).contains(&n)).await;
    let refused = refused.lock().unwrap().clone();
    assert!(refused.starts_with("outrigger: concurrency.adaptive is at "), "{refused}");
}

#[tokio::test]
async fn who_is_under_way_stays_counted_when_the_limit_changes() {
    let (origin, _open) = Origin::gated().await;
    let config = |max: u32| web_routed(&format!("concurrency: {{ max: {max} }}"), "", "", [origin.address()]);
    let proxy = Proxy::start(&config(2)).await;
    let _inside = ask(&proxy, &["a", "a"]).await;
    origin.wait_requests(2).await;
    proxy.reload(&config(3)).await;
    let _third = ask(&proxy, &["a"]).await;
    origin.wait_requests(3).await;
    let reply = proxy.get("web", "/").await;
    assert_eq!(reply.text(), "outrigger: concurrency.max is 3, and this would be 4\n");
}

/// Clients that give up before there is an answer tell as much as answers that are late.
#[tokio::test]
async fn an_adaptive_limit_hears_of_requests_that_nobody_waits_for() {
    let slow = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let weather = slow.clone();
    let origin = Origin::start(move |mut conn| {
        let slow = weather.clone();
        async move {
            while conn.request().await.is_some() {
                let time = if slow.load(SeqCst) { 60_000 } else { 5 };
                tokio::time::sleep(Duration::from_millis(time)).await;
                conn.send(ok("x")).await;
            }
        }
    })
    .await;
    let route =
        "timeout: 300ms\nfallback: { respond: { status: 200 } }\nconcurrency: { max: 60, adaptive: {} }";
    let proxy = Proxy::start(&web_routed(route, "", "", [origin.address()])).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let web = proxy.address("web");
        clients.spawn(async move {
            let mut client = Client::connect(web).await;
            loop {
                if client.get("/").await.status == 503 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
    }
    let limit = "outrigger_route_concurrency_limit{listener=\"web\",route=\"web.routes[0]\"}";
    proxy.wait_metric(limit, |n| n == 60.0).await;
    slow.store(true, SeqCst);
    // It is looked whether half of them are enough.
    proxy.wait_metric(limit, |n| n <= 30.0).await;
}
