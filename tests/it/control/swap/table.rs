//! Each kind of change by itself, made and taken back, and what it must leave alone: every connection of clients, those to
//! endpoints that it does not name, who is left out and who is ill, what limits have counted, what balancers have learned.

use std::collections::BTreeMap;

use outrigger_tests::h2client::H2;
use outrigger_tests::{Client, Echo, Origin, Proxy, until};
use serde_json::Value;

use super::super::{file, port};
use super::{Held, Plane, connections, in_force, sockets};

/// Requests of each client between two changes: enough for each endpoint to have its turn.
const TURNS: usize = 6;

/// What is changed, in the words of the document.
#[derive(Clone, Debug)]
struct Mesh {
    /// Further keys of the listener.
    listener: String,
    /// Further listeners.
    listeners: String,
    /// Routes before the last.
    routes: String,
    /// What the last route says.
    last: String,
    /// Endpoints, and further keys, of the cluster that it leads to.
    endpoints: Vec<String>,
    cluster: String,
    /// The health check of another.
    check: String,
    /// Further clusters.
    clusters: String,
    /// Whether all routes are of a host, which may be told on demand.
    of_host: bool,
}

impl Mesh {
    fn text(&self, stage: &Stage) -> String {
        let Self { listener, listeners, routes, last, endpoints, cluster, check, clusters, of_host } = self;
        let text = format!(
            "listeners:
{listeners}  web:
    bind: 127.0.0.1:0
{listener}    routes:
{routes}      - {{ match: {{ path: {{ prefix: /chat }} }}, to: sockets }}
      - {{ match: {{ path: {{ prefix: /checked }} }}, to: checked }}
      - {{ match: {{ path: {{ prefix: /limited }} }}, to: app, rate_limit: {{ rate: 1/h, burst: 9000 }} }}
      - {{ match: {{ path: {{ prefix: / }} }}, {last} }}
clusters:
{clusters}  sockets: {{ endpoints: [\"{}\"] }}
  other: {{ endpoints: [127.0.0.1:{}], idle_timeout: 10m }}
  checked:
    endpoints: [127.0.0.1:{}, 127.0.0.1:1]
    health_check: {{ http: /, interval: 60s, unhealthy_interval: 60s{check} }}
  app:
    endpoints: [{}]
{cluster}",
            stage.sockets.address(),
            port(&stage.other),
            port(&stage.checked),
            endpoints.join(", "),
        );
        if *of_host { text.replace("match: { path", "match: { host: test, path") } else { text }
    }

    /// One cluster key in place of what it was.
    fn cluster(&mut self, old: &str, new: &str) {
        assert!(old.is_empty() || self.cluster.contains(old), "{old}");
        self.cluster = if old.is_empty() {
            format!("{}    {new}\n", self.cluster)
        } else {
            self.cluster.replace(old, new)
        };
    }

    fn endpoint(&mut self, number: usize, more: &str) {
        self.endpoints[number] = format!("{{ address: {}, {more} }}", self.endpoints[number]);
    }
}

/// Who stands behind the proxy.
struct Stage {
    one: Echo,
    two: Echo,
    three: Echo,
    other: Echo,
    checked: Echo,
    ill: Origin,
    sockets: Origin,
}

impl Stage {
    async fn start() -> Self {
        Self {
            one: Echo::start("one").await,
            two: Echo::start("two").await,
            three: Echo::start("three").await,
            other: Echo::start("other").await,
            checked: Echo::start("checked").await,
            ill: Origin::answering("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").await,
            sockets: sockets().await,
        }
    }

    fn mesh(&self) -> Mesh {
        let endpoint = |port: u16| format!("127.0.0.1:{port}");
        Mesh {
            listener: String::new(),
            listeners: String::new(),
            routes: String::new(),
            last: "to: app".to_owned(),
            endpoints: vec![
                endpoint(port(&self.one)),
                endpoint(port(&self.two)),
                self.ill.address().to_owned(),
            ],
            cluster: "    balance: round-robin
    idle_timeout: 10m
    outlier_detection: { consecutive_5xx: 3, base_ejection: 5m }
"
            .to_owned(),
            check: String::new(),
            clusters: String::new(),
            of_host: false,
        }
    }

    /// Who is not named any more keeps what somebody uses, and nothing else.
    async fn drained(&self, in_force: &str, held: &Held, name: &str) {
        for (of, echo) in [("two", &self.two), ("three", &self.three)] {
            if in_force.contains(&format!(":{}", port(echo))) {
                continue;
            }
            let calls = held.calls.iter().filter(|call| call.origin == of).count();
            until(&format!("{name}: {of} is left"), async || {
                let (opened, closed) = connections(echo);
                (opened - closed <= calls).then_some(())
            })
            .await;
        }
    }

    /// Connections at each of those who count them.
    fn connections(&self) -> BTreeMap<&'static str, (usize, usize)> {
        let Self { one, two, three, other, checked: _, ill, sockets } = self;
        let of = [("one", one), ("two", two), ("three", three), ("other", other)];
        let of = of.map(|(name, echo)| (name, connections(echo)));
        let more = [("ill", ill), ("sockets", sockets)];
        of.into_iter().chain(more.map(|(name, origin)| (name, (origin.opened(), origin.closed())))).collect()
    }
}

/// A change: its name, what it does, words that are in force with it and not without, and the origins whose connections it
/// may open and close.
type Row = (&'static str, fn(&mut Mesh, &Stage), &'static str, &'static [&'static str]);

const CLUSTERS: &[Row] = &[
    ("a timeout", |mesh, _| mesh.cluster("", "connect_timeout: 7s"), "connect_timeout: 7s", &[]),
    (
        "how long connections wait",
        |mesh, _| mesh.cluster("idle_timeout: 10m", "idle_timeout: 9m"),
        "idle_timeout: 9m",
        &[],
    ),
    ("a balancer", |mesh, _| mesh.cluster("round-robin", "least-request"), "balance: least-request", &[]),
    (
        "a balancer by hash",
        |mesh, _| mesh.cluster("round-robin", "{ maglev: { hash: [source] } }"),
        "maglev",
        &[],
    ),
    (
        "a breaker",
        |mesh, _| mesh.cluster("", "circuit_breaker: { max_requests: 777 }"),
        "max_requests: 777",
        &[],
    ),
    (
        "rules of ejection",
        |mesh, _| mesh.cluster("consecutive_5xx: 3", "consecutive_5xx: 9"),
        "consecutive_5xx: 9",
        &[],
    ),
    ("a health check", |mesh, _| mesh.check = ", timeout: 2s".to_owned(), "timeout: 2s", &[]),
    ("a budget", |mesh, _| mesh.cluster("", "retry_budget: { percent: 31% }"), "percent: 31%", &[]),
    ("a slow start", |mesh, _| mesh.cluster("", "slow_start: 77s"), "slow_start: 77s", &[]),
    ("a threshold", |mesh, _| mesh.cluster("", "panic_threshold: 3%"), "panic_threshold: 3%", &[]),
    (
        "another cluster",
        |mesh, _| mesh.clusters = "  more: { endpoints: [127.0.0.1:1] }\n".to_owned(),
        "more:",
        &[],
    ),
];

const ENDPOINTS: &[Row] = &[
    ("a weight", |mesh, _| mesh.endpoint(0, "weight: 3"), "weight: 3", &[]),
    ("a label", |mesh, _| mesh.endpoint(0, "labels: { version: v9 }"), "v9", &[]),
    ("a zone", |mesh, _| mesh.endpoint(0, "zone: z7"), "z7", &[]),
    ("a priority", |mesh, _| mesh.endpoint(1, "priority: 1"), "priority: 1", &[]),
    (
        "an endpoint more",
        |mesh, stage| mesh.endpoints.push(format!("127.0.0.1:{}", port(&stage.three))),
        "",
        &["three"],
    ),
    ("an endpoint less", |mesh, _| drop(mesh.endpoints.remove(1)), "", &["two"]),
];

const ROUTES: &[Row] = &[
    (
        "a route before others",
        |mesh, _| {
            mesh.routes = "      - { match: { path: { prefix: /x } }, respond: { status: 204 } }\n".to_owned()
        },
        "/x",
        &[],
    ),
    ("a timeout", |mesh, _| mesh.last += ", timeout: 17s", "timeout: 17s", &[]),
    ("retries", |mesh, _| mesh.last += ", retry: { attempts: 3 }", "attempts: 3", &[]),
    ("a header", |mesh, _| mesh.last += ", request_headers: { set: { x-more: more } }", "x-more", &[]),
    ("a limit of another route", |mesh, _| mesh.last += ", rate_limit: { rate: 99999/s }", "99999/s", &[]),
    (
        "another cluster beside",
        |mesh, _| mesh.last = "to: { app: 50, other: 50 }".to_owned(),
        "50",
        &["other"],
    ),
    ("another cluster instead", |mesh, _| mesh.last = "to: other".to_owned(), "to: other", &["other"]),
];

const LISTENERS: &[Row] = &[
    (
        "a limit of bodies",
        |mesh, _| mesh.listener = "    limits: { body: 9MiB }\n".to_owned(),
        "body: 9MiB",
        &[],
    ),
    (
        "a limit of streams",
        |mesh, _| mesh.listener = "    limits: { streams: 77 }\n".to_owned(),
        "streams: 77",
        &[],
    ),
    (
        "a limit of time",
        |mesh, _| mesh.listener = "    limits: { idle_timeout: 77m }\n".to_owned(),
        "idle_timeout: 77m",
        &[],
    ),
    (
        "whom it trusts",
        |mesh, _| mesh.listener = "    trusted_proxies: [10.7.0.0/16]\n".to_owned(),
        "10.7.0.0/16",
        &[],
    ),
    (
        "who may come",
        |mesh, _| mesh.listener = "    authorization: [{ allow: { source: 127.0.0.0/8 } }]\n".to_owned(),
        "127.0.0.0/8",
        &[],
    ),
    (
        "another listener",
        |mesh, _| mesh.listeners = "  second: { bind: 127.0.0.1:0, routes: [{ to: other }] }\n".to_owned(),
        "second",
        &[],
    ),
    (
        "another listener, of bytes",
        |mesh, _| mesh.listeners = "  bytes: { bind: 127.0.0.1:0, tcp: { to: other } }\n".to_owned(),
        "bytes",
        &[],
    ),
];

/// Clients that are there all the time, and what the proxy knew before.
struct Witness {
    proxy: Proxy,
    http1: Vec<Client>,
    http2: Vec<H2>,
    held: Held,
    limited: Client,
    left: u64,
    clusters: Value,
}

fn find<'v>(all: &'v Value, key: &str, value: &str) -> Option<&'v Value> {
    all.as_array().unwrap().iter().find(|one| one[key] == value)
}

impl Witness {
    async fn start(proxy: Proxy, stage: &Stage) -> Self {
        let mut first = proxy.client("web").await;
        until("the one that fails is left out", async || {
            first.get("/").await;
            let clusters = proxy.ask_json("/clusters").await;
            let app = find(&clusters["clusters"], "name", "app")?;
            let ill = find(&app["endpoints"], "address", stage.ill.address())?;
            ill["outlier"]["ejected_for_ms"].is_u64().then_some(())
        })
        .await;
        until("the one that is not there is known to be ill", async || {
            let clusters = proxy.ask_json("/clusters").await;
            let checked = find(&clusters["clusters"], "name", "checked")?;
            (checked["endpoints"][1]["health"] == "unhealthy").then_some(())
        })
        .await;
        let (mut http1, mut http2) = (vec![first], Vec::new());
        for _ in 0..3 {
            http1.push(proxy.client("web").await);
            http2.push(H2::connect(proxy.address("web")).await);
        }
        let held = Held::open(&proxy, 4).await;
        let limited = proxy.client("web").await;
        let mut witness = Self { proxy, http1, http2, held, limited, left: 9000, clusters: Value::Null };
        witness.ask("the start").await;
        witness.clusters = witness.proxy.ask_json("/clusters").await;
        witness
    }

    /// Everybody asks on over what is open; one after the other, so that each has its turn at each endpoint.
    async fn ask(&mut self, name: &str) {
        for client in &mut self.http1 {
            for path in ["/"; TURNS].iter().chain(&["/checked"]) {
                let reply = client.get(path).await;
                assert!(reply.status == 200 && !reply.closes(), "{name}: {}{}", reply.head, reply.text());
            }
        }
        for client in self.http2.iter().chain(self.held.calls.iter().map(|call| &call.client)) {
            for _ in 0..TURNS {
                let reply = client.get("/").await;
                assert_eq!(reply.status, 200, "{name}: {}", String::from_utf8_lossy(&reply.body));
            }
        }
        for _ in 0..TURNS {
            self.left -= 1;
            let reply = self.limited.get("/limited").await;
            let left = format!("\"default\";r={};", self.left);
            let said = reply.field("ratelimit").unwrap_or_default();
            assert!(reply.status == 200 && said.starts_with(&left), "{name}: {left} but {said}");
        }
        self.held.say().await;
    }

    /// What the proxy knows of its endpoints is what it knew, and what it has learned since.
    async fn knows(&mut self, name: &str, stage: &Stage) {
        let now = self.proxy.ask_json("/clusters").await;
        for before in self.clusters["clusters"].as_array().unwrap() {
            let cluster = before["name"].as_str().unwrap();
            let Some(after) = find(&now["clusters"], "name", cluster) else { continue };
            for known in before["endpoints"].as_array().unwrap() {
                let address = known["address"].as_str().unwrap();
                let Some(found) = find(&after["endpoints"], "address", address) else { continue };
                let of = |key: &str| [known, found].map(|endpoint| endpoint[key].clone());
                let requests = of("requests").map(|requests| requests.as_u64().unwrap());
                // Taken away and named again, it is another.
                let is_same = address != stage.two.address().to_string() || name != "an endpoint less";
                assert!(requests[0] <= requests[1] || !is_same, "{name}: {cluster} {address}: {requests:?}");
                let [before, after] = of("health");
                assert!(before != "unhealthy" || after == before, "{name}: {cluster} {address} is {after}");
                let learned = of("latency_ms").map(|latency| latency.as_f64().unwrap() > 0.0);
                assert!(
                    !learned[0] || learned[1] || !is_same,
                    "{name}: {cluster} {address} has forgotten its latency"
                );
            }
        }
        let app = find(&now["clusters"], "name", "app").unwrap();
        let ill = find(&app["endpoints"], "address", stage.ill.address()).unwrap();
        assert!(ill["outlier"]["ejected_for_ms"].is_u64(), "{name}: {ill:#}");
        assert_eq!(ill["outlier"]["ejections"], 1, "{name}");
        self.clusters = now;
    }

    /// Circuit breakers count who is under way.
    async fn counts(&self, name: &str, cluster: &str, requests: usize) {
        until(&format!("{name}: {requests} under way to {cluster}"), async || {
            let clusters = self.proxy.ask_json("/clusters").await;
            let cluster = find(&clusters["clusters"], "name", cluster)?;
            (cluster["circuit_breaker"]["max_requests"] == requests).then_some(())
        })
        .await;
    }
}

/// Makes each change, and takes it back; where that is wanted, of a host that came on demand, and clusters with it.
async fn check(rows: &[Row], on_demand: bool) {
    let stage = Stage::start().await;
    let base = Mesh { of_host: on_demand, ..stage.mesh() };
    let mut plane = Plane::start(&base.text(&stage));
    let demand = format!("\", on_demand: {on_demand} }}");
    let proxy = Proxy::start(&file(&plane.control, "a").replace("\" }", &demand)).await;
    until("it listens", async || proxy.log().contains("listening listener=web").then_some(())).await;
    let mut witness = Witness::start(proxy, &stage).await;
    let at_first = in_force(&witness.proxy).await;
    let asked_of_ill = stage.ill.count();
    for (name, change, words, named) in rows {
        let before = stage.connections();
        let mut mesh = base.clone();
        change(&mut mesh, &stage);
        for (way, mesh) in [("made", &mesh), ("taken back", &base)] {
            plane.apply(&mesh.text(&stage));
            plane.taken().await;
            let text = in_force(&witness.proxy).await;
            match way {
                "made" => {
                    assert!(text != at_first && text.contains(words), "{name}: not in force in\n{text}")
                }
                _ => assert_eq!(text, at_first, "{name}"),
            }
            let context = format!("{name}, {way}");
            witness.ask(&context).await;
            witness.knows(name, &stage).await;
            witness.counts(&context, "sockets", witness.held.sockets.len()).await;
            witness.counts(&context, "app", witness.held.calls.len()).await;
            stage.drained(&text, &witness.held, &context).await;
            let after = stage.connections();
            for (origin, seen) in after.iter().filter(|(origin, _)| !named.contains(origin)) {
                assert_eq!(*seen, before[origin], "{context}: connections of {origin}, opened and closed");
            }
        }
        assert_eq!(stage.ill.count(), asked_of_ill, "{name}: who is left out is asked nothing");
    }
}

#[tokio::test]
async fn changes_of_clusters_close_nothing_and_forget_nothing() {
    check(CLUSTERS, false).await;
}

#[tokio::test]
async fn changes_of_endpoints_touch_those_that_they_name() {
    check(ENDPOINTS, false).await;
}

#[tokio::test]
async fn changes_of_routes_close_nothing_and_forget_nothing() {
    check(ROUTES, false).await;
}

#[tokio::test]
async fn changes_of_hosts_on_demand_close_nothing_and_forget_nothing() {
    check(ROUTES, true).await;
}

#[tokio::test]
async fn changes_of_clusters_on_demand_close_nothing_and_forget_nothing() {
    check(&CLUSTERS[..5], true).await;
    check(ENDPOINTS, true).await;
}

#[tokio::test]
async fn changes_of_listeners_close_nothing_and_forget_nothing() {
    check(LISTENERS, false).await;
}
