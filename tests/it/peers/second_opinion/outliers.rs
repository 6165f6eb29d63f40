//! Endpoints that are left out for how they answer: which, after what, how many at once, and how they come back.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_tests::Client;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::stage::{Seen, Stage};
use super::{Differences, Envoy, Meant, Three, closed};

/// By which rules, whose sum is 0 where they say nothing; over which endpoints; and what is done:
/// - `a:500*3`: requests that make the origin `a` answer 500, until three have come to it
/// - `=a+b`: who answers in the end
/// - `a:500?`: whether it is asked once or more often when it is back, and still answers 500
type Row = (&'static str, &'static str, &'static str);

pub(super) const ROWS: &[Row] = &[
    // Whatever is 500 or above, or nothing, in a row.
    ("consecutive_5xx: 3", "a b", "a:500*3 =b"),
    ("consecutive_5xx: 3", "a b", "a:503*3 =b"),
    ("consecutive_5xx: 3", "a b", "a:599*3 =b"),
    ("consecutive_5xx: 3", "a b", "a:500*2 =a+b"),
    ("consecutive_5xx: 1", "a b", "a:500*1 =b"),
    ("consecutive_5xx: 3", "a b", "a:500*2 a:200*1 a:500*2 =a+b"),
    ("consecutive_5xx: 3", "a b", "a:500*2 a:404*1 a:500*2 =a+b"),
    ("consecutive_5xx: 3", "a b", "a:500*2 b:500*2 =a+b"),
    ("consecutive_5xx: 3", "a b", "a:500*1 a:503*1 a:reset*1 =b"),
    ("consecutive_5xx: 3", "a b", "a:404*10 =a+b"),
    ("consecutive_5xx: 3", "a b", "a:429*10 =a+b"),
    ("consecutive_5xx: 3", "a b", "a:reset*3 =b"),
    ("consecutive_5xx: 3", "a b", "a:half*3 =b"),
    ("consecutive_5xx: 3", "a b", "a:begun*10 =a+b"),
    ("consecutive_5xx: 1", "a b", "a:200*40 b:200*40 =a+b"),
    ("consecutive_5xx: 3", "a closed", "a:200*20 =a"),
    // The same of calls.
    ("consecutive_5xx: 3", "a b", "a:grpc-0*10 =a+b"),
    ("consecutive_5xx: 3", "a b", "a:grpc-5*10 =a+b"),
    ("consecutive_5xx: 3", "a b", "a:grpc-13*3 =b"),
    ("consecutive_5xx: 3", "a b", "a:grpc-14*3 =b"),
    ("consecutive_gateway: 3", "a b", "a:grpc-14*3 =b"),
    ("consecutive_gateway: 3", "a b", "a:grpc-13*10 =a+b"),
    // What gateways say.
    ("consecutive_gateway: 3", "a b", "a:503*3 =b"),
    ("consecutive_gateway: 3", "a b", "a:502*1 a:503*1 a:504*1 =b"),
    ("consecutive_gateway: 3", "a b", "a:500*10 =a+b"),
    ("consecutive_gateway: 3", "a b", "a:503*2 a:500*1 a:503*2 =a+b"),
    ("consecutive_gateway: 3", "a b", "a:reset*3 =b"),
    // Nothing, and only that.
    ("consecutive_local: 3", "a b", "a:503*10 =a+b"),
    ("consecutive_local: 3", "a b", "a:reset*2 a:503*1 a:reset*2 =a+b"),
    ("consecutive_local: 3", "a closed", "a:200*20 =a"),
    // How many at once.
    ("consecutive_5xx: 3, max_ejected: 50%", "a b", "a:500*3 =b b:500*6 =b"),
    ("consecutive_5xx: 3, max_ejected: 10%", "a b", "a:500*3 =b b:500*6 =b"),
    ("consecutive_5xx: 3, max_ejected: 100%", "a b", "a:500*3 =b b:500*3 =503"),
    ("consecutive_5xx: 3, max_ejected: 100%", "a b c", "a:500*3 =b+c b:500*3 =c"),
    ("consecutive_5xx: 3, max_ejected: 40%", "a b c", "a:500*3 =b+c b:500*6 =b+c"),
    // From here on some are waited for; those stand side by side.
    ("failure_percent: 30%, min_requests: 1000", "a b", "a:500*60 =a+b"),
    ("failure_percent: 30%, min_requests: 6", "a b", "a:500*60 =b"),
    // Out for long enough to be seen so on a busy machine, too.
    ("consecutive_5xx: 3, interval: 300ms, base_ejection: 3s", "a b", "a:500*3 =b =a+b"),
    ("consecutive_5xx: 3, interval: 300ms, base_ejection: 3s", "a b", "a:500*3 =b a:500?"),
    ("consecutive_5xx: 3, max_ejected: 100%", "a", "a:500*6 =a"),
    ("consecutive_local: 3", "a b", "a:reset*3 =b"),
    // Of a request, and of an attempt.
    ("consecutive_5xx: 3", "a b", "a:silent*3 =b"),
    ("consecutive_gateway: 3", "a b", "a:silent*3 =b"),
    ("consecutive_5xx: 3", "a b", "a:stuck*3 =b"),
    ("consecutive_gateway: 3", "a b", "a:stuck*3 =b"),
    ("consecutive_local: 3", "a b", "a:stuck*3 =b"),
];

/// What is meant to differ.
const MEANT: Meant = &[
    ("consecutive_5xx: 3: a:silent*3", NOBODYS_FAULT),
    ("consecutive_gateway: 3: a:silent*3", NOBODYS_FAULT),
    ("consecutive_local: 3: a:reset*3", A_CONNECTION_IS_ENOUGH),
    ("consecutive_local: 3: a:stuck*3", A_CONNECTION_IS_ENOUGH),
    (
        "consecutive_5xx: 3, max_ejected: 100%: a:500*6",
        "the only endpoint is never left out: whatever it answers is better than nothing; Envoy refuses everything",
    ),
    (
        "consecutive_5xx: 3, interval: 300ms, base_ejection: 3s: a:500*3 =b a:500?",
        "an endpoint comes back by one request that finds out, and is out again at once; Envoy takes it back, and is content \
         with nothing but another three failures",
    ),
];
const NOBODYS_FAULT: &str = "who lets a request's time run out is to blame; Envoy is told of that time as of a stream's, the one \
     way for it to keep what a gRPC caller grants as well, and blames nobody for it";
const A_CONNECTION_IS_ENOUGH: &str = "no answer is no answer; where Envoy counts its own failures apart, every connection that is \
     made ends a row of them, and what comes after is none";

/// In which everybody has heard of a verdict: what is seen by then is what there is.
const SETTLED: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Requests of a look: whoever takes none of so many is out.
const LOOK: usize = 8;
/// Whoever has not been asked by then is out.
const MOST: usize = 150;
/// Rows at once, as some wait for long.
const AT_ONCE: usize = 6;

/// All clusters, each with a route of its number.
fn document(stage: &Stage, closed: &str) -> String {
    let (mut routes, mut clusters) = (String::new(), String::new());
    for (index, (rules, endpoints, script)) in ROWS.iter().enumerate() {
        let patience = match script {
            script if script.contains("silent") => ", timeout: 700ms",
            script if script.contains("stuck") => {
                ", retry: { attempts: 2, conditions: [reset], per_try_timeout: 700ms }"
            }
            _ => "",
        };
        routes +=
            &format!("      - {{ match: {{ path: {{ exact: /{index} }} }}, to: c{index}{patience} }}\n");
        let mut rules = (*rules).to_owned();
        for rule in ["consecutive_5xx: 0", "consecutive_local: 0", "interval: 500ms"] {
            let name = rule.split(':').next().unwrap();
            if !rules.contains(name) {
                rules += &format!(", {rule}");
            }
        }
        let endpoints: Vec<_> = endpoints.split(' ').map(|name| format!("\"@{name}\"")).collect();
        clusters += &format!(
            "  c{index}: {{ endpoints: [{}], protocol: http1, balance: round-robin, outlier_detection: {{ {rules} }} }}\n",
            endpoints.join(", ")
        );
    }
    let all =
        format!("listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n{routes}clusters:\n{clusters}");
    stage.placed(&all.replace("@closed", closed))
}

/// One of the rows at one of the three.
struct Patient {
    stage: Arc<Stage>,
    address: SocketAddr,
    index: usize,
}

impl Patient {
    async fn ask(&self, fields: &str) -> Seen {
        let mut client = Client::connect(self.address).await;
        let request = format!("GET /{} HTTP/1.1\r\nHost: test\r\n{fields}", self.index);
        self.stage.ask(&mut client, &request, "").await
    }

    /// How many of so many requests come to an origin that does this; no more than `enough`.
    async fn asked(&self, (origin, word): (&str, &str), enough: usize, requests: usize) -> usize {
        let mut asked = 0;
        for _ in 0..requests {
            let call = if word.starts_with("grpc") { "content-type: application/grpc\r\n" } else { "" };
            let seen = self.ask(&format!("x-{origin}: {word}\r\n{call}")).await;
            asked += usize::from(seen.attempts.iter().any(|(by, _)| *by == origin));
            if asked == enough {
                break;
            }
        }
        asked
    }

    async fn look(&self) -> String {
        let mut seen = BTreeSet::new();
        for _ in 0..LOOK {
            let one = self.ask("").await;
            seen.insert(one.by().map_or_else(|| one.status(), str::to_owned));
        }
        seen.into_iter().collect::<Vec<_>>().join("+")
    }

    /// What comes of a script.
    async fn plays(&self, script: &str) -> String {
        let mut came = Vec::new();
        for step in script.split(' ') {
            if let Some(wanted) = step.strip_prefix('=') {
                let end = Instant::now() + SETTLED;
                let mut seen = self.look().await;
                while seen != wanted && Instant::now() < end {
                    tokio::time::sleep(PAUSE).await;
                    seen = self.look().await;
                }
                came.push(seen);
                continue;
            }
            let (origin, rest) = step.split_once(':').unwrap();
            if let Some(word) = rest.strip_suffix('?') {
                let end = Instant::now() + SETTLED;
                while self.asked((origin, word), 1, LOOK).await == 0 && Instant::now() < end {
                    tokio::time::sleep(PAUSE).await;
                }
                let more = self.asked((origin, word), LOOK, LOOK * LOOK).await;
                came.push(if more == 0 { "asked once" } else { "asked more often" }.to_owned());
                continue;
            }
            let (word, times) = rest.split_once('*').unwrap();
            self.asked((origin, word), times.parse().unwrap(), MOST).await;
        }
        came.join(", ")
    }
}

#[tokio::test]
async fn of_who_is_left_out_all_three_mean_the_same() {
    let Some(envoy) = Envoy::find().await else { return };
    let stage = Arc::new(Stage::start(&["a", "b", "c"]).await);
    let three = Three::start(&envoy, &document(&stage, &closed().await)).await;
    let mut came = vec![[const { String::new() }; 3]; ROWS.len()];
    let rows: Vec<_> = (0..ROWS.len()).collect();
    for rows in rows.chunks(AT_ONCE) {
        let mut playing = JoinSet::new();
        for index in rows.iter().copied() {
            for (place, address) in three.addresses("web").into_iter().enumerate() {
                let patient = Patient { stage: stage.clone(), address, index };
                playing.spawn(async move { (index, place, patient.plays(ROWS[index].2).await) });
            }
        }
        while let Some(played) = playing.join_next().await {
            let (index, place, seen) = played.unwrap();
            came[index][place] = seen;
        }
    }
    let mut differences = Differences::new(MEANT);
    for ((rules, endpoints, script), came) in ROWS.iter().zip(came) {
        let name = format!("{rules}: {script} of {endpoints}");
        // All may be wrong in the same way.
        let wanted: Vec<_> = script.split(' ').filter_map(|step| step.strip_prefix('=')).collect();
        assert!(came[0].starts_with(&wanted.join(", ")), "{name}: {came:?}");
        differences.note(&name, came);
    }
    differences.end(ROWS.len());
}
