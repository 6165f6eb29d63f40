//! Hedges: of two attempts that are under way the first good one counts, whichever that is, and the other is let go of.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_tests::{Origin, Proxy};
use tokio::sync::oneshot::{Receiver, Sender, channel};

use crate::web_routed;

const GOOD: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ngood";
const BAD: &str = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbad";

/// Answers so many requests, in the order in which they come, each when it is told to and with what.
async fn prompted(requests: usize) -> (Origin, Vec<Sender<&'static str>>) {
    let (prompts, told): (Vec<_>, VecDeque<Receiver<&str>>) = (0..requests).map(|_| channel()).unzip();
    let told = Arc::new(Mutex::new(told));
    let origin = Origin::start(move |mut conn| {
        let told = told.clone();
        async move {
            conn.request().await;
            let told = told.lock().unwrap().pop_front();
            let answers = async {
                match told {
                    Some(told) => told.await.ok(),
                    None => None,
                }
            };
            let answer = tokio::select! {
                answer = answers => answer,
                _ = conn.rest() => None,
            };
            if let Some(answer) = answer {
                conn.send(answer).await;
                conn.rest().await;
            }
        }
    })
    .await;
    (origin, prompts)
}

/// What a client gets when attempts are answered so, one after the other: each is the number of an attempt and its
/// answer. Three times, as one that left something behind would have no room for the second time.
async fn check(answers: &[(usize, &'static str)], expected: (u16, &str)) {
    const TIMES: usize = 3;
    let (origin, prompts) = prompted(2 * TIMES).await;
    let cluster = "circuit_breaker: { max_retries: 1, max_requests: 2 }";
    let proxy = Proxy::start(&web_routed("hedge: { after: 20ms }", "", cluster, [origin.address()])).await;
    let mut prompts: Vec<_> = prompts.into_iter().map(Some).collect();
    for before in (0..TIMES).map(|time| time * 2) {
        let mut client = proxy.client("web").await;
        client.send(outrigger_tests::wire::get("/")).await;
        origin.wait_requests(before + 2).await;
        for (done, (attempt, answer)) in answers.iter().enumerate() {
            // The answer before has been seen.
            origin.wait_closed(before + done).await;
            prompts[before + attempt].take().unwrap().send(answer).unwrap();
        }
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.text().as_str()), expected, "{answers:?}");
        origin.wait_closed(before + 2).await;
    }
    proxy.wait_metric("outrigger_upstream_hedges_total{cluster=\"app\"}", |n| n == TIMES as f64).await;
    proxy.wait_metric("outrigger_upstream_requests_active{cluster=\"app\"}", |n| n == 0.0).await;
}

#[tokio::test]
async fn the_first_good_answer_counts_whichever_attempt_has_it() {
    check(&[(0, GOOD)], (200, "good")).await;
    check(&[(1, GOOD)], (200, "good")).await;
}

#[tokio::test]
async fn an_attempt_that_failed_leaves_it_to_the_other() {
    check(&[(0, BAD), (1, GOOD)], (200, "good")).await;
    check(&[(1, BAD), (0, GOOD)], (200, "good")).await;
}

#[tokio::test]
async fn when_both_fail_the_last_answer_is_passed_on() {
    check(&[(0, BAD), (1, BAD)], (503, "bad")).await;
    check(&[(1, BAD), (0, BAD)], (503, "bad")).await;
}

/// Each of the two has its time, and each endpoint is to blame for the attempt that it had.
#[tokio::test]
async fn both_attempts_may_take_too_long() {
    let deaf = async || {
        Origin::start(async |mut conn| {
            conn.rest().await;
        })
        .await
    };
    let endpoints = [deaf().await, deaf().await];
    let route = "hedge: { after: 20ms }\nretry: { attempts: 2, per_try_timeout: 100ms }";
    let cluster = "outlier_detection: { consecutive_local: 2, consecutive_5xx: 2 }";
    let config = web_routed(route, "", cluster, endpoints.each_ref().map(Origin::address));
    let proxy = Proxy::start(&config).await;
    let began = tokio::time::Instant::now();
    let reply = proxy.get("web", "/").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (504, Some("per_try_timeout")));
    assert!(began.elapsed() >= Duration::from_millis(120), "{:?}", began.elapsed());
    let clusters = proxy.ask_json("/clusters").await;
    let blamed = |n: usize| &clusters["clusters"][0]["endpoints"][n]["failures"];
    assert_eq!((blamed(0), blamed(1)), (&1.into(), &1.into()), "{clusters:#}");
}
