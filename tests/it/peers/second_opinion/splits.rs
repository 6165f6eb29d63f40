//! Shares: requests go to clusters by weight, within what chance explains.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use outrigger_tests::Client;

use super::stage::Stage;
use super::{Differences, Envoy, Three};

/// What a route says, and what that means: whom requests come to, or the status without anybody, by share.
type Row = (&'static str, &'static [(&'static str, u32)]);

pub(super) const ROWS: &[Row] = &[
    ("a", &[("a", 1)]),
    ("{ a: 7 }", &[("a", 1)]),
    ("{ a: 1, b: 1 }", &[("a", 1), ("b", 1)]),
    ("{ a: 90, b: 10 }", &[("a", 9), ("b", 1)]),
    ("{ a: 10, b: 90 }", &[("a", 1), ("b", 9)]),
    ("{ a: 300, b: 100 }", &[("a", 3), ("b", 1)]),
    ("{ a: 1, b: 2 }", &[("a", 1), ("b", 2)]),
    ("{ a: 1, b: 1, c: 1 }", &[("a", 1), ("b", 1), ("c", 1)]),
    ("{ a: 2, b: 1, c: 1 }", &[("a", 2), ("b", 1), ("c", 1)]),
    // Who has nothing gets nothing.
    ("{ a: 1, b: 0 }", &[("a", 1)]),
    ("{ a: 0, b: 100 }", &[("b", 1)]),
    ("{ a: 0, b: 7, c: 0 }", &[("b", 1)]),
    ("{ a: 1, b: 1, c: 0 }", &[("a", 1), ("b", 1)]),
    // Nobody takes the share of one that has no endpoints.
    ("{ a: 1, nobody: 1 }", &[("a", 1), ("503", 1)]),
    ("{ a: 0, nobody: 1 }", &[("503", 1)]),
    // Each with what is its own.
    (
        "{ a: { weight: 3, request_headers: { set: { x-share: a } } }, b: { weight: 1, request_headers: { set: { x-share: b } } } }",
        &[("a as a", 3), ("b as b", 1)],
    ),
];

/// Where it is a matter of chance, that is of so many requests.
const REQUESTS: u32 = 600;
/// So many standard deviations from its part a share may be. With the shares above, chance goes further less than once in
/// seventy million times.
const DEVIATIONS: f64 = 6.0;

/// Whether the counts are as the shares say; if not, the counts.
fn judged(counts: &BTreeMap<String, u32>, shares: &[(&str, u32)]) -> String {
    let all = f64::from(counts.values().sum::<u32>());
    let sum = f64::from(shares.iter().map(|(_, share)| share).sum::<u32>());
    let fits = shares.iter().all(|(name, share)| {
        let part = f64::from(*share) / sum;
        let count = f64::from(counts.get(*name).copied().unwrap_or_default());
        (count - all * part).abs() <= DEVIATIONS * (all * part * (1.0 - part)).sqrt()
    });
    let known = counts.keys().all(|name| shares.iter().any(|(of, _)| of == name));
    if fits && known { "as it says".to_owned() } else { format!("{counts:?}") }
}

async fn shared(stage: &Stage, address: SocketAddr, index: usize, shares: &[(&str, u32)]) -> String {
    let mut client = Client::connect(address).await;
    let mut counts = BTreeMap::new();
    let requests = if shares.len() > 1 { REQUESTS } else { REQUESTS / 10 };
    for _ in 0..requests {
        let request = format!("GET /{index} HTTP/1.1\r\nHost: test\r\nx-play: kept\r\n");
        let seen = stage.ask(&mut client, &request, "").await;
        let to = match &seen.attempts[..] {
            [] => seen.status(),
            [(by, request), ..] => match request.field("x-share") {
                Some(share) => format!("{by} as {share}"),
                None => (*by).to_owned(),
            },
        };
        *counts.entry(to).or_default() += 1;
    }
    judged(&counts, shares)
}

#[tokio::test]
async fn of_shares_all_three_mean_the_same() {
    let Some(envoy) = Envoy::find().await else { return };
    let stage = Stage::start(&["a", "b", "c"]).await;
    let routes = ROWS.iter().enumerate();
    let routes: String = routes
        .map(|(index, (to, _))| format!("      - {{ match: {{ path: {{ exact: /{index} }} }}, to: {to} }}\n"))
        .collect();
    let document = format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n{routes}clusters:\n  a: {{ endpoints: [\"@a\"], protocol: http1 }}\n\
        \x20 b: {{ endpoints: [\"@b\"], protocol: http1 }}\n  c: {{ endpoints: [\"@c\"], protocol: http1 }}\n  nobody: {{ endpoints: [] }}\n"
    );
    let three = Three::start(&envoy, &stage.placed(&document)).await;
    let mut differences = Differences::new(&[]);
    for (index, (to, shares)) in ROWS.iter().enumerate() {
        let came = three.each("web", async |address| shared(&stage, address, index, shares).await).await;
        // All may be wrong in the same way.
        assert_eq!(came[0], "as it says", "{to}");
        differences.note(to, came);
    }
    differences.end(ROWS.len());
}
