//! Failures on purpose, and limits that each proxy counts by itself.

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_tests::{Client, until};
use tokio::time::Instant;

use super::stage::{Seen, Stage};
use super::{Differences, Envoy, Meant, Three};

/// Requests, one after the other, to these routes with these fields.
type Row = (&'static str, &'static str);

/// Less than the delays below, as timers of Envoy's may end a little sooner, and longer than an answer takes.
const HELD: Duration = Duration::from_millis(250);
const GRPC: &str = "content-type: application/grpc";

/// Where a route says `delay`, it is of 300 ms at least.
pub(super) const FAULTS: &[Row] = &[
    ("/abort", ""),
    ("/delay", ""),
    ("/delay-and-abort", ""),
    ("/delay-and-never-abort", ""),
    ("/never-held-and-abort", ""),
    ("/never", ""),
    ("/abort", GRPC),
    ("/abort-429", GRPC),
    ("/abort-404", GRPC),
    ("/delay", GRPC),
    ("/grpc", GRPC),
    ("/grpc", ""),
    ("/grpc-denied", GRPC),
    ("/grpc-denied", ""),
    ("/grpc-exhausted", ""),
    ("/grpc-missing", ""),
    ("/when", "x-chaos: 1"),
    ("/when", "x-chaos:"),
    ("/when", "x-chaotic: 1"),
    ("/when-delay", "x-chaos: 1"),
    ("/when-delay", ""),
    ("/never", "x-envoy-fault-abort-request: 503"),
    ("/never", "x-envoy-fault-delay-request: 300"),
    // What is done on purpose is not done away with.
    ("/retried", ""),
    ("/delay-and-timeout", ""),
];

pub(super) const LIMITS: &[Row] = &[
    // As many as there is room for, and those that are refused go nowhere.
    ("/five /five /five /five /five /five /five", ""),
    ("/one /one /one", ""),
    ("/as-the-rate /as-the-rate /as-the-rate /as-the-rate", ""),
    // Each route has its own.
    ("/left /left /right /right /left", ""),
    ("/open /open /open", ""),
    // Before what is done on purpose, and what is answered here.
    ("/aborted /aborted", ""),
    ("/answered /answered", ""),
    ("/moved /moved", ""),
    // How it is said.
    ("/told /told", ""),
    ("/grpc-limited /grpc-limited", GRPC),
    // By caller.
    ("/keyed /keyed", "x-key: a"),
    ("/keyed /keyed", "x-key: b"),
    // It fills again.
    ("/again", ""),
];

/// What is meant to differ.
const FAULTS_MEANT: Meant = &[(
    "plain: /grpc",
    "who speaks no gRPC is answered with the HTTP status that its own table has for it (google/rpc/code.proto); Envoy's 200 is \
     taken for an answer",
)];
const LIMITS_MEANT: Meant = &[
    (
        "plain: /told",
        "whoever is refused is told when there is room again (RFC 6585 section 4); Envoy does not say",
    ),
    (
        "content-type: application/grpc: /grpc-limited",
        "what is exhausted is RESOURCE_EXHAUSTED; Envoy says UNAVAILABLE, which callers of gRPC take for a reason to try again",
    ),
    ("x-key: a: /keyed", BY_CALLER),
    ("x-key: b: /keyed", BY_CALLER),
];
const BY_CALLER: &str = "Envoy's filter has no bucket of its own for each value of a field that nobody has listed; what is said \
     of it travels beside, and Envoy leaves it alone";

/// What came of it, and whether it took as long as it should where a route says that.
async fn came_of(stage: &Stage, to: SocketAddr, route: &str, field: &str) -> (Seen, String) {
    let mut client = Client::connect(to).await;
    let field = if field.is_empty() { String::new() } else { format!("{field}\r\n") };
    let began = Instant::now();
    let seen = stage.ask(&mut client, &format!("GET {route} HTTP/1.1\r\nHost: test\r\n{field}"), "").await;
    let held = route.contains("delay") && began.elapsed() >= HELD;
    let held = if held { " held up" } else { "" };
    let tried = if seen.attempts.is_empty() { "nobody".to_owned() } else { seen.tried() };
    let came = format!("{} of {tried}{held}", seen.status());
    (seen, came)
}

async fn all_of(stage: &Stage, to: SocketAddr, (routes, field): Row) -> String {
    if routes == "/again" {
        return again(stage, to, routes).await;
    }
    let mut all = Vec::new();
    for route in routes.split(' ') {
        let (seen, mut came) = came_of(stage, to, route, field).await;
        if route == "/told" {
            let after = seen.reply.as_ref().and_then(|reply| reply.field("retry-after"));
            came += if after.is_some() { ", says when" } else { "" };
        }
        all.push(came);
    }
    all.join(", ")
}

/// Until one is refused, and until one is taken again.
async fn again(stage: &Stage, to: SocketAddr, route: &str) -> String {
    let comes_to = async |status: &str| {
        until(&format!("{route}: {status}"), async || {
            (came_of(stage, to, route, "").await.0.status() == status).then_some(())
        })
        .await;
    };
    comes_to("200").await;
    comes_to("429").await;
    comes_to("200").await;
    "refused, and taken".to_owned()
}

async fn compare(rows: &[Row], meant: Meant) {
    let Some(envoy) = Envoy::find().await else { return };
    let stage = Stage::start(&["a"]).await;
    let three = Three::start(&envoy, &stage.placed(include_str!("refusals.yaml"))).await;
    let mut differences = Differences::new(meant);
    for row in rows {
        let came = three.each("web", async |to| all_of(&stage, to, *row).await);
        let (routes, field) = row;
        let who = if field.is_empty() { "plain" } else { field };
        differences.note(&format!("{who}: {routes}"), came.await);
    }
    differences.end(rows.len());
}

#[tokio::test]
async fn of_failures_on_purpose_all_three_mean_the_same() {
    compare(FAULTS, FAULTS_MEANT).await;
}

#[tokio::test]
async fn of_limits_of_their_own_all_three_mean_the_same() {
    compare(LIMITS, LIMITS_MEANT).await;
}
