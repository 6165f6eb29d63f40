//! Retries: what is tried again, how often, where, and what is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use outrigger_tests::h2client::H2;
use outrigger_tests::origin::ok;
use outrigger_tests::wire::{get, post};
use outrigger_tests::{Echo, Origin, Proxy};
use tokio::time::Instant;

use crate::web_routed;

const RETRY: &str =
    "retry: { attempts: 3, conditions: [connect-failure, reset, 503], backoff: { base: 1ms, max: 5ms } }";
const BAD: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";

/// Answers 503 so many times, then 200.
async fn failing(times: usize) -> Origin {
    let left = Arc::new(AtomicUsize::new(times));
    Origin::start(move |mut conn| {
        let left = left.clone();
        async move {
            while let Some(request) = conn.request().await {
                let bad = left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok();
                let body = String::from_utf8_lossy(&request.message.body).into_owned();
                conn.send(if bad { BAD.to_owned() } else { ok(&format!("well {body}")) }).await;
            }
        }
    })
    .await
}

async fn proxy(route: &str, cluster: &str, endpoints: &[&str]) -> Proxy {
    Proxy::start(&web_routed(route, "", cluster, endpoints)).await
}

async fn skipped(proxy: &Proxy, reason: &str) -> f64 {
    let series = format!("outrigger_upstream_retries_skipped_total{{cluster=\"app\",reason=\"{reason}\"}}");
    proxy.metric(&series).await
}

#[tokio::test]
async fn a_status_is_tried_again_and_the_attempt_is_marked() {
    let origin = failing(2).await;
    let proxy = proxy(RETRY, "", &[origin.address()]).await;
    let reply = proxy.get("web", "/").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "well "));
    let marks: Vec<_> =
        origin.requests().iter().map(|r| r.field("x-outrigger-attempt").map(str::to_owned)).collect();
    assert_eq!(marks, [None, Some("2".to_owned()), Some("3".to_owned())]);
    proxy.wait_metric("outrigger_upstream_retries_total{cluster=\"app\"}", |n| n == 2.0).await;
}

#[tokio::test]
async fn what_a_share_changes_is_changed_once_and_holds_for_the_mark_too() {
    let edits = "{ add: { x-share: a }, remove: [x-outrigger-attempt] }";
    let origin = failing(2).await;
    let config = web_routed(RETRY, "", "", [origin.address()])
        .replace("to: app", &format!("to: {{ app: {{ weight: 1, request_headers: {edits} }} }}"));
    let proxy = Proxy::start(&config).await;
    assert_eq!(proxy.get("web", "/").await.status, 200);
    let requests = origin.requests();
    assert_eq!(requests.len(), 3);
    for request in requests {
        assert_eq!(request.values("x-share"), ["a"]);
        assert_eq!(request.field("x-outrigger-attempt"), None);
    }
}

#[tokio::test]
async fn attempts_end_and_the_last_answer_is_passed_on() {
    let origin = failing(9).await;
    let proxy = proxy(RETRY, "", &[origin.address()]).await;
    let reply = proxy.get("web", "/").await;
    assert_eq!((reply.status, reply.text().as_str(), origin.count()), (503, "busy", 3));
    assert_eq!(skipped(&proxy, "attempts").await, 1.0);
}

#[tokio::test]
async fn header_case_survives_a_retry() {
    let origin = failing(1).await;
    let proxy = proxy(RETRY, "", &[origin.address()]).await;
    let mut client = proxy.client("web").await;
    client.send("GET / HTTP/1.1\r\nHost: app\r\nX-OdD-Case: 1\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    assert!(origin.requests().iter().all(|r| r.message.head.contains("X-OdD-Case: 1")));
}

#[tokio::test]
async fn what_is_not_idempotent_is_not_done_twice_unless_told_so() {
    let origin = failing(1).await;
    let careful = proxy(RETRY, "", &[origin.address()]).await;
    let mut client = careful.client("web").await;
    client.send(post("/order", "one")).await;
    assert_eq!((client.reply().await.status, origin.count()), (503, 1));
    assert_eq!(skipped(&careful, "not_idempotent").await, 1.0);

    let origin = failing(1).await;
    let route = RETRY.replace(" }", ", non_idempotent: true }").replacen(", non_idempotent: true }", " }", 1);
    let told = proxy(&route, "", &[origin.address()]).await;
    let mut client = told.client("web").await;
    client.send(post("/order", "one")).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str(), origin.count()), (200, "well one", 2));
}

#[tokio::test]
async fn a_body_is_sent_again_whole_or_not_at_all() {
    let origin = failing(1).await;
    let put = |body: &str| post("/", body).replacen("POST", "PUT", 1);
    let small = proxy(RETRY, "", &[origin.address()]).await;
    let mut client = small.client("web").await;
    let body = "x".repeat(60_000);
    client.send(put(&body)).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().len(), origin.count()), (200, 60_005, 2));

    let origin = failing(1).await;
    let route = RETRY.replace("attempts: 3", "attempts: 3, max_body: 10KB");
    let large = proxy(&route, "", &[origin.address()]).await;
    let mut client = large.client("web").await;
    client.send(put(&body)).await;
    assert_eq!((client.reply().await.status, origin.count()), (503, 1));
    assert_eq!(skipped(&large, "body_too_large").await, 1.0);
}

#[tokio::test]
async fn another_endpoint_is_tried_first() {
    let (bad, good) = (failing(usize::MAX).await, Origin::ok("good").await);
    let proxy = proxy(
        RETRY,
        "balance: round-robin\nretry_budget: { percent: 100 }",
        &[bad.address(), good.address()],
    )
    .await;
    for _ in 0..10 {
        assert_eq!(proxy.get("web", "/").await.text(), "good");
    }
    assert_eq!(bad.count(), 5);
}

#[tokio::test]
async fn a_connection_that_dies_under_a_get_is_a_reset() {
    let dying = Origin::start(async |mut conn| {
        conn.request().await;
    })
    .await;
    let proxy = proxy(RETRY, "", &[dying.address()]).await;
    let reply = proxy.get("web", "/").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (502, Some("upstream_closed")));
    assert_eq!(dying.count(), 3);
}

/// Once a byte of an answer went to the client there is no way back, and none is taken.
#[tokio::test]
async fn an_answer_that_breaks_off_is_not_tried_again() {
    let origin = Origin::start(async |mut conn| {
        if conn.request().await.is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        }
    })
    .await;
    let proxy = proxy(RETRY, "", &[origin.address()]).await;
    let mut client = proxy.client("web").await;
    client.send(get("/")).await;
    assert!(client.try_reply_to("GET").await.is_none());
    assert_eq!(origin.count(), 1);
}

/// Never answers its first request, until it is let go of, and answers all others.
async fn deaf_once() -> Origin {
    let seen = Arc::new(AtomicUsize::new(0));
    Origin::start(move |mut conn| {
        let seen = seen.clone();
        async move {
            while conn.request().await.is_some() {
                if seen.fetch_add(1, SeqCst) == 0 {
                    conn.rest().await;
                    return;
                }
                conn.send(ok("second")).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_attempt_has_its_own_timeout() {
    let origin = deaf_once().await;
    let route = RETRY.replace("attempts: 3", "attempts: 3, per_try_timeout: 100ms");
    let proxy = proxy(&route, "", &[origin.address()]).await;
    let reply = proxy.get("web", "/").await;
    assert_eq!((reply.status, reply.text().as_str(), origin.count()), (200, "second", 2));
    proxy.wait_metric("outrigger_upstream_requests_active{cluster=\"app\"}", |n| n == 0.0).await;
}

#[tokio::test]
async fn an_attempt_that_took_too_long_says_so() {
    let origin = Origin::start(async |mut conn| {
        conn.rest().await;
    })
    .await;
    let route = "retry: { attempts: 2, per_try_timeout: 50ms }";
    let proxy = proxy(route, "", &[origin.address()]).await;
    let reply = proxy.get("web", "/").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (504, Some("per_try_timeout")));
    assert_eq!(origin.opened(), 2);
}

#[tokio::test]
async fn a_server_may_ask_to_be_left_alone_for_a_while() {
    let asked = Arc::new(AtomicUsize::new(0));
    let origin = Origin::start(move |mut conn| {
        let asked = asked.clone();
        async move {
            while conn.request().await.is_some() {
                let wait = match asked.fetch_add(1, SeqCst) {
                    0 => "1",
                    1 => "60",
                    _ => return conn.send(ok("well")).await,
                };
                let head = format!("HTTP/1.1 503 Busy\r\nRetry-After: {wait}\r\nContent-Length: 0\r\n\r\n");
                conn.send(head).await;
            }
        }
    })
    .await;
    let proxy = proxy(RETRY, "", &[origin.address()]).await;
    let start = Instant::now();
    let reply = proxy.get("web", "/").await;
    assert_eq!((reply.status, reply.field("retry-after"), origin.count()), (503, Some("60"), 2));
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(skipped(&proxy, "retry_after").await, 1.0);
}

#[tokio::test]
async fn a_deadline_is_not_waited_past() {
    let origin = failing(9).await;
    let route = format!("timeout: 300ms\n{}", RETRY.replace("base: 1ms, max: 5ms", "base: 1h, max: 1h"));
    let proxy = proxy(&route, "", &[origin.address()]).await;
    let reply = proxy.get("web", "/").await;
    assert_eq!((reply.status, reply.text().as_str(), origin.count()), (503, "busy", 1));
    assert_eq!(skipped(&proxy, "deadline").await, 1.0);
}

/// The budget is what keeps retries from multiplying load: a fifth, however many attempts a route allows.
#[tokio::test]
async fn when_everything_fails_load_grows_by_the_budget_and_no_more() {
    let origin = failing(usize::MAX).await;
    let route = RETRY.replace("attempts: 3", "attempts: 10");
    let config = web_routed(&route, "", "retry_budget: { percent: 20%, min: 0 }", [origin.address()]);
    let proxy = Proxy::start(&format!("workers: 4\n{config}")).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let web = proxy.address("web");
        clients.spawn(async move {
            let mut client = outrigger_tests::Client::connect(web).await;
            for _ in 0..50 {
                assert_eq!(client.get("/").await.status, 503);
            }
        });
    }
    clients.join_all().await;
    assert_eq!(origin.count(), 400 + 80, "exactly a fifth over all workers");
    assert!(skipped(&proxy, "budget").await > 300.0);
}

/// What was tried before on the other side counts: retries of retries do not multiply. A stranger's word does not.
#[tokio::test]
async fn attempts_made_by_a_trusted_peer_count() {
    let origin = failing(usize::MAX).await;
    let endpoints = [origin.address()];
    let trusting = Proxy::start(&web_routed(RETRY, "trusted_proxies: [127.0.0.1]", "", endpoints)).await;
    let marked = "GET / HTTP/1.1\r\nHost: app\r\nx-outrigger-attempt: 2\r\n\r\n";
    let mut client = trusting.client("web").await;
    client.send(marked).await;
    assert_eq!((client.reply().await.status, origin.count()), (503, 2));
    assert_eq!(origin.last().field("x-outrigger-attempt"), Some("3"));

    let wary = Proxy::start(&web_routed(RETRY, "", "", endpoints)).await;
    let mut client = wary.client("web").await;
    client.send(marked).await;
    assert_eq!((client.reply().await.status, origin.count()), (503, 2 + 3));
}

/// Of proxies in a row, the last one tries again, and says so; the others take its word.
#[tokio::test]
async fn retries_of_retries_do_not_multiply() {
    let origin = failing(usize::MAX).await;
    let last = proxy(RETRY, "", &[origin.address()]).await;
    let middle = proxy(RETRY, "", &[&last.address("web").to_string()]).await;
    let first = proxy(RETRY, "", &[&middle.address("web").to_string()]).await;
    let reply = first.get("web", "/").await;
    assert_eq!((reply.status, reply.field("x-outrigger-retried"), origin.count()), (503, Some("3"), 3));
    assert_eq!(skipped(&first, "retried_below").await, 1.0);

    // Also where the last one gets no answer to pass on.
    let dying = Origin::start(async |mut conn| {
        conn.request().await;
    })
    .await;
    let route = RETRY.replace("503]", "5xx]");
    let last = proxy(&route, "", &[dying.address()]).await;
    let first = proxy(&route, "", &[&last.address("web").to_string()]).await;
    let reply = first.get("web", "/").await;
    assert_eq!((reply.status, reply.field("x-outrigger-retried"), dying.count()), (502, Some("3"), 3));
}

#[tokio::test]
async fn a_slow_attempt_gets_one_beside_it() {
    let origin = deaf_once().await;
    let proxy = proxy("hedge: { after: 50ms }", "", &[origin.address()]).await;
    assert_eq!(proxy.get("web", "/").await.text(), "second");
    assert_eq!(origin.count(), 2);
    // The loser is let go of.
    origin.wait_closed(1).await;
    proxy.wait_metric("outrigger_upstream_hedges_total{cluster=\"app\"}", |n| n == 1.0).await;
    proxy.wait_metric("outrigger_upstream_requests_active{cluster=\"app\"}", |n| n == 0.0).await;
}

#[tokio::test]
async fn retries_work_over_http2() {
    let origin = Echo::start("echo").await;
    let proxy = proxy(RETRY, "protocol: http2", &[&origin.address().to_string()]).await;
    let h2 = H2::connect(proxy.address("web")).await;
    let request = |want: &str| {
        let uri = format!("http://app/{want}");
        http::Request::put(uri).header("x-want", want).body(()).unwrap()
    };
    let reply = h2.send(request("status=503"), b"a body".to_vec(), None).await.unwrap();
    assert_eq!((reply.status, origin.requests()), (503, 3));
    let reply = h2.send(request("status=200"), b"a body".to_vec(), None).await.unwrap();
    assert_eq!((reply.status, reply.report().length), (200, 6));
}

/// An idle connection that the origin closes costs neither an attempt nor a part of the budget.
#[tokio::test]
async fn a_connection_that_died_while_idle_costs_no_attempt() {
    let origin = Origin::start(async |mut conn| {
        if conn.request().await.is_some() {
            conn.send(ok("once")).await;
        }
        // The second request is read, and the connection closed over it.
        conn.request().await;
    })
    .await;
    let cluster = "retry_budget: { percent: 0, min: 0 }\noutlier_detection: { consecutive_local: 1, consecutive_5xx: 1 }";
    let config = web_routed(RETRY, "", cluster, [origin.address()]);
    let proxy = Proxy::start(&format!("workers: 1\n{config}")).await;
    let mut client = proxy.client("web").await;
    for n in 0..50 {
        let reply = client.get("/").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "once"), "request {n}");
    }
    proxy.wait_metric("outrigger_upstream_replays_total{cluster=\"app\"}", |n| n > 30.0).await;
    assert_eq!(proxy.metric("outrigger_upstream_retries_total{cluster=\"app\"}").await, 0.0);
    let clusters = proxy.ask_json("/clusters").await;
    assert_eq!(clusters["clusters"][0]["endpoints"][0]["failures"], 0, "{clusters:#}");
}

/// Whichever endpoint a key belongs to: where that one does not answer, the next attempt is at another.
#[tokio::test]
async fn what_was_given_up_is_tried_elsewhere_also_where_a_hash_decides() {
    let deaf = Origin::start(async |mut conn| {
        conn.rest().await;
    })
    .await;
    let good = Origin::ok("good").await;
    for route in ["retry: { attempts: 2, per_try_timeout: 100ms }", "hedge: { after: 50ms }"] {
        let cluster =
            "balance: { maglev: { hash: [{ header: x-user }] } }\nretry_budget: { percent: 100, min: 100 }";
        let proxy = proxy(route, cluster, &[deaf.address(), good.address()]).await;
        for user in 0..8 {
            let mut client = proxy.client("web").await;
            client.send(format!("GET / HTTP/1.1\r\nHost: app\r\nx-user: {user}\r\n\r\n")).await;
            assert_eq!(client.reply().await.text(), "good", "{route}, user {user}");
        }
    }
}

/// Whatever other timers there are: the one of a hedge comes before it, is gone when there is no budget for one, and when
/// the head of an answer has come.
#[tokio::test]
async fn the_deadline_holds_whether_there_are_hedges_or_not() {
    let deaf = Origin::start(async |mut conn| {
        conn.rest().await;
    })
    .await;
    let stuck = Origin::start(async |mut conn| {
        conn.request().await;
        conn.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf ").await;
        conn.rest().await;
    })
    .await;
    let no_budget = "retry_budget: { percent: 0, min: 0 }";
    for route in
        ["timeout: 200ms\nhedge: { after: 20ms }", "timeout: 200ms\nhedge: { after: 150ms }\nretry: {}"]
    {
        let reply = proxy(route, no_budget, &[deaf.address()]).await.get("web", "/").await;
        assert_eq!((reply.status, reply.field("x-outrigger-reason")), (504, Some("timeout")), "{route}");
        let proxy = proxy(route, no_budget, &[stuck.address()]).await;
        let mut client = proxy.client("web").await;
        client.send(outrigger_tests::wire::get("/")).await;
        let rest = client.rest().await;
        assert!(rest.ends_with(b"half "), "{}", rest.escape_ascii());
        proxy
            .wait_metric("outrigger_downstream_errors_total{listener=\"web\",reason=\"timeout\"}", |n| {
                n == 1.0
            })
            .await;
    }
}

/// What an idle connection took to die is no time of the request's on the next one.
#[tokio::test]
async fn what_is_sent_again_on_a_fresh_connection_has_all_of_its_time() {
    let origin = Origin::start(async |mut conn| {
        let is_fresh = conn.number > 0;
        conn.request().await;
        if is_fresh {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        conn.send(ok("well")).await;
        conn.request().await;
        tokio::time::sleep(Duration::from_millis(250)).await;
    })
    .await;
    let route = "retry: { attempts: 2, per_try_timeout: 400ms }\nhedge: { after: 399ms }";
    let config = web_routed(route, "", "outlier_detection: { consecutive_local: 1 }", [origin.address()]);
    let proxy = Proxy::start(&format!("workers: 1\n{config}")).await;
    let mut client = proxy.client("web").await;
    for _ in 0..2 {
        assert_eq!(client.get("/").await.text(), "well");
    }
    assert_eq!((origin.count(), origin.opened()), (3, 2));
    for series in ["outrigger_upstream_retries_total", "outrigger_upstream_hedges_total"] {
        assert_eq!(proxy.metric(&format!("{series}{{cluster=\"app\"}}")).await, 0.0, "{series}");
    }
}

/// Also where the one before has set the connection's timer.
#[tokio::test]
async fn each_request_of_a_connection_has_its_own_deadline() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    let origin = Origin::start(async |mut conn| {
        while let Some(request) = conn.request().await {
            match request.target() {
                "/deaf" => {}
                "/half" => conn.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf ").await,
                _ => conn.send(ok("well")).await,
            }
        }
    })
    .await;
    let proxy = proxy("timeout: 300ms", "protocol: http1", &[origin.address()]).await;
    for path in ["/deaf", "/half"] {
        let mut client = proxy.client("web").await;
        assert_eq!(client.get("/").await.text(), "well");
        tokio::time::sleep(TIMEOUT / 2).await;
        let began = Instant::now();
        client.send(get(path)).await;
        if path == "/deaf" {
            assert_eq!(client.reply().await.status, 504);
        } else {
            assert!(client.rest().await.ends_with(b"half "));
        }
        assert!(began.elapsed() >= TIMEOUT, "{path}: {:?}", began.elapsed());
    }
    let h2 = H2::connect(proxy.address("web")).await;
    let request = |path: &str| http::Request::get(format!("http://app{path}")).body(()).unwrap();
    assert_eq!(h2.send(request("/"), Vec::new(), None).await.unwrap().status, 200);
    let began = Instant::now();
    assert_eq!(h2.send(request("/deaf"), Vec::new(), None).await.unwrap().status, 504);
    assert!(began.elapsed() >= TIMEOUT, "{:?}", began.elapsed());
}
