//! Envoy as a second opinion on all that a configuration can say: one configuration, served three times. By the proxy from
//! its file, by the proxy and by Envoy as nodes of our control plane. The same requests come to all three.

mod drains;
mod limits;
mod mutual;
mod outliers;
mod refusals;
mod retries;
mod splits;
mod stage;
mod sticky;
mod tokens;

use std::net::SocketAddr;

use outrigger_tests::{Client, Control, Echo, Proxy};
use serde_json::Value;
use tokio::net::TcpListener;

use super::envoy::{Envoy, Serving, node};

/// Origins, and the configuration before them.
struct Behind {
    one: Echo,
    two: Echo,
    /// Takes connections, and never says anything.
    silent: TcpListener,
    /// Nobody listens there.
    closed: String,
}

impl Behind {
    async fn start() -> Self {
        Self {
            one: Echo::start("one").await,
            two: Echo::start("two").await,
            silent: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            closed: closed().await,
        }
    }

    fn document(&self) -> String {
        let (one, two) = (self.one.address(), self.two.address());
        let silent = self.silent.local_addr().unwrap();
        let closed = &self.closed;
        format!(
            "{}{}clusters:
  one: {{ endpoints: [\"{one}\"] }}
  two: {{ endpoints: [\"{two}\"], balance: round-robin }}
  silent: {{ endpoints: [\"{silent}\"] }}
  closed: {{ endpoints: [\"{closed}\"] }}
  nobody: {{ endpoints: [] }}
  second: {{ endpoints: [\"{two}\", {{ address: \"{closed}\", priority: 1 }}] }}
",
            include_str!("second_opinion/routes.yaml"),
            include_str!("second_opinion/rules.yaml"),
        )
    }
}

/// An address that nobody listens at, where no other test is given a port either.
async fn closed() -> String {
    TcpListener::bind("127.0.0.2:0").await.unwrap().local_addr().unwrap().to_string()
}

/// A request, and where it goes.
struct Row {
    name: String,
    listener: &'static str,
    request: String,
}

fn row(listener: &'static str, method: &str, host: &str, target: &str, fields: &[&str]) -> Row {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
    let name = request.trim_end().replace("\r\n", " | ");
    Row { name: format!("{listener}: {name}"), listener, request }
}

/// What can be told of by one answer.
fn rows() -> Vec<Row> {
    [matched(), rewritten(), answered(), failed(), faults(), limited(), rules()]
        .into_iter()
        .flatten()
        .collect()
}

/// How many rows there are, by what they are about.
fn counts() -> [(&'static str, usize); 15] {
    [
        ("routing", matched().len()),
        ("rewriting", rewritten().len()),
        ("answers and header fields", answered().len()),
        ("retries", retries::RETRIES.len()),
        ("timeouts", retries::TIMEOUTS.len()),
        ("other failures", failed().len()),
        ("splits", splits::ROWS.len()),
        ("fault", faults().len() + refusals::FAULTS.len()),
        ("TLS", mutual::COUNT),
        ("RBAC", rules().len()),
        ("JWT", tokens::count()),
        ("rate limits", limited().len() + refusals::LIMITS.len() + limits::ROWS.len()),
        ("outliers", outliers::ROWS.len()),
        ("stickiness", sticky::COUNT),
        ("drains", drains::count()),
    ]
}

/// A GET of each target.
fn get(host: &str, targets: &str, fields: &[&str]) -> Vec<Row> {
    targets.split(' ').map(|target| row("web", "GET", host, target, fields)).collect()
}

/// Which route is taken.
fn matched() -> Vec<Row> {
    let mut all = Vec::new();
    // Paths.
    all.extend(get(
        "paths.test",
        "/exact /exact/ /exact/1 /exact?q /Exact /prefix /prefix/ /prefix/1 /prefixed /prefix?q=1 /v1/items /v12/items /v/items \
         /v1/items/ /xitemsx /a/items/b /none / /a//b /a/b /%61/b /a/./b /a/../b /a/b/..",
        &[],
    ));
    // Methods.
    for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "HEAD", "get"] {
        all.push(row("web", method, "methods.test", "/", &["Content-Length: 0"]));
    }
    // Header fields.
    let fields = "x-exact: a|x-exact: A|x-exact: ab|x-exact: |X-EXACT: a|x-prefix: abc|x-prefix: ab|x-prefix: a|x-regex: v12|x-regex: v|\
                  x-regex: xv12x|x-whole: v12|x-whole: xv12x|x-there: 1|x-there:|x-other: 1";
    for field in fields.split('|') {
        all.push(row("web", "GET", "fields.test", "/", &[field]));
    }
    all.push(row("web", "GET", "fields.test", "/", &["x-exact: a", "x-prefix: abc"]));
    all.push(row("web", "GET", "fields.test", "/both", &["x-exact: a"]));
    all.push(row("web", "GET", "fields.test", "/both", &["x-exact: a", "x-there: 1"]));
    // Parameters.
    all.extend(get(
        "queries.test",
        "/?exact=a /?exact=b /?exact=a&exact=b /?x=1&exact=a /?prefix=abc /?prefix=a /?regex=v12 /?regex=x /?there /?there=1 /?other=1 /",
        &[],
    ));
    // Hosts.
    let hosts = "hosts.test HOSTS.test hosts.test:80 a.wild.test b.a.wild.test wild.test x.deep.wild.test deep.wild.test elsewhere.test \
                 127.0.0.1";
    for host in hosts.split(' ') {
        all.push(row("web", "GET", host, "/", &[]));
        all.push(row("web", "GET", host, "/only-here", &[]));
    }
    all
}

/// What is rewritten.
fn rewritten() -> Vec<Row> {
    get(
        "rewrites.test",
        "/api /api/ /api/a /api/a?q=1 /apis /whole /whole/x?q=1 /root/a /root /host /host/x?y /raw /raw/ /rawer/x?raw=/raw /raw/raw \
         /cut/x /cutx /swap/a/1 /swap/a/1/b/2?q=/swap/a/1 /swap/1/a /swap /each/1/22?q=3 /eaches",
        &[],
    )
}

/// What is answered here, and what is changed about header fields.
fn answered() -> Vec<Row> {
    let mut all = Vec::new();
    all.extend(get(
        "answers.test",
        "/ok /empty /gone /teapot /busy /moved /found /other /temporary /permanent /local /local?q=1",
        &[],
    ));
    for fields in [&["x-set: 0", "x-add: 0", "x-gone: 0"][..], &[], &["x-set: 1", "x-set: 2"]] {
        all.push(row("web", "GET", "edits.test", "/", fields));
        all.push(row("web", "GET", "edits.test", "/share", fields));
    }
    all
}

/// What fails.
fn failed() -> Vec<Row> {
    get("failures.test", "/silent /closed /nobody /retried /once /second", &[])
}

/// Failures on purpose.
fn faults() -> Vec<Row> {
    let mut all = get("faults.test", "/abort /delay /never", &[]);
    all.extend(get("faults.test", "/when", &["x-chaos: 1"]));
    all.extend(get("faults.test", "/when", &[]));
    all
}

/// A limit: the third is one too many.
fn limited() -> Vec<Row> {
    (0..4).flat_map(|_| get("limits.test", "/", &[])).collect()
}

/// Who may do what.
fn rules() -> Vec<Row> {
    let mut all = Vec::new();
    let mut ask = |method: &str, target: &str, fields: &[&str]| {
        all.push(row("rules", method, "rules.test", target, fields))
    };
    for target in "/public /public/x /publicity /exact /exact/x /v1 /v1x /none /admin /secret".split(' ') {
        ask("GET", target, &[]);
    }
    for method in ["GET", "POST", "DELETE"] {
        ask(method, "/methods", &["Content-Length: 0"]);
    }
    for fields in
        [&["x-team: shop"][..], &["x-team: shops"], &["x-team: shop", "x-banned: 1"], &["x-banned: 1"], &[]]
    {
        ask("GET", "/team", fields);
        ask("GET", "/public", fields);
    }
    ask("GET", "/public/../secret", &[]);
    ask("GET", "/near", &[]);
    ask("GET", "/far", &[]);
    all
}

/// So many behaviours there are to be compared, whatever else is.
const LEAST: usize = 120;

/// Fields of requests that count.
const SENT: [&str; 8] = ["x-add", "x-set", "x-gone", "x-share", "x-who", "x-n", "x-groups", "authorization"];

/// What came of a request: the status, who answered and what that was sent, and what the client was told.
async fn came_of(address: SocketAddr, Row { request, .. }: &Row) -> String {
    let mut client = Client::connect(address).await;
    client.send(request).await;
    let method = request.split(' ').next().unwrap_or_default();
    let Some(reply) = client.try_reply_to(method).await else { return "cut".to_owned() };
    let told = ["x-told", "location"].map(|name| reply.field(name).unwrap_or("-").to_owned());
    let Ok(report) = serde_json::from_slice::<Value>(&reply.body) else {
        // Of answers of its own a proxy says what it likes; what was written for it, it says.
        let text = reply.text();
        let said = if text.starts_with("said") { text.as_str() } else { "-" };
        return format!("{} {told:?} {said}", reply.status);
    };
    let sent = SENT.map(|name| {
        let fields = report["fields"].as_array().unwrap().iter();
        let named = fields.filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
        let values: Vec<_> = named.map(|pair| pair[1].as_str().unwrap()).collect();
        // Of a token the beginning is enough.
        values.join(",").chars().take(40).collect::<String>()
    });
    let text = |key: &str| report[key].as_str().unwrap_or_default().to_owned();
    format!(
        "{} {} {} {} {} {sent:?} {told:?}",
        reply.status,
        text("origin"),
        text("method"),
        text("path"),
        text("host")
    )
}

/// What differs, by the beginning of the row's name, and why that is meant.
type Meant = &'static [(&'static str, &'static str)];

const MEANT: Meant = &[
    (
        "web: get ",
        "any token is a method, and letters count (RFC 9110 section 9.1); Envoy's parser knows a list",
    ),
    (
        "web: GET /local",
        "a `location` may be a path (RFC 9110 section 10.2.2); Envoy adds the scheme and the host that it believes in",
    ),
];

/// One configuration, served three times.
struct Three {
    control: Control,
    alone: Proxy,
    told: Proxy,
    envoy: Serving,
}

impl Three {
    async fn start(envoy: &Envoy, document: &str) -> Self {
        let control = Control::start("", &[("mesh.yaml", document)]);
        control.wait_revision(1).await;
        let told = Proxy::start(&follows(&control)).await;
        let alone = Proxy::start(document).await;
        let envoy = envoy.run(&node("envoy", control.xds(), "DELTA_GRPC")).await;
        control.wait_in_sync(2, 1).await;
        Self { control, alone, told, envoy }
    }

    /// Where each listens: by file, by xDS, Envoy.
    fn addresses(&self, listener: &str) -> [SocketAddr; 3] {
        let Self { control: _, alone, told, envoy } = self;
        [alone.address(listener), told.address(listener), envoy.address_of(listener)]
    }

    /// Another configuration, to all three.
    async fn change(&self, document: &str) {
        self.control.document("mesh.yaml", document);
        self.alone.reload(document).await;
        self.control.wait_in_sync(2, 2).await;
    }

    /// What comes of this at each.
    async fn each(&self, listener: &str, ask: impl AsyncFn(SocketAddr) -> String) -> [String; 3] {
        let [alone, told, envoy] = self.addresses(listener);
        // On the heap: with their buffers all three are more than a stack has room for.
        let [alone, told, envoy] = [alone, told, envoy].map(|address| Box::pin(ask(address)));
        tokio::join!(alone, told, envoy).into()
    }

    /// All rows, of which there are so many, through all three.
    async fn compare(&self, rows: &[Row], meant: Meant, least: usize) {
        let mut differences = Differences::new(meant);
        for row in rows {
            let came = self.each(row.listener, async |address| came_of(address, row).await);
            differences.note(&row.name, came.await);
        }
        differences.end(least);
    }
}

/// A node of this control plane.
fn follows(control: &Control) -> String {
    format!("node: {{ id: told, cluster: web }}\nxds: {{ server: \"http://{}\" }}\n", control.xds())
}

/// Where the three are not of one mind.
struct Differences {
    meant: Meant,
    rows: usize,
    found: Vec<String>,
    used: Vec<&'static str>,
}

impl Differences {
    fn new(meant: Meant) -> Self {
        Self { meant, rows: 0, found: Vec::new(), used: Vec::new() }
    }

    /// What came of this by file, by xDS, and of Envoy.
    fn note(&mut self, name: &str, [by_file, by_xds, envoys]: [String; 3]) {
        self.rows += 1;
        if by_file != by_xds {
            self.found.push(format!("{name}\n  by file      {by_file}\n  by xDS       {by_xds}"));
        } else if by_xds != envoys {
            match self.meant.iter().find(|(meant, _)| name.starts_with(meant)) {
                Some((meant, _)) => self.used.push(meant),
                None => self.found.push(format!("{name}\n  ours         {by_xds}\n  Envoy's      {envoys}")),
            }
        }
    }

    /// Panics unless all that differs is meant, all that is meant differs, and there are so many rows.
    fn end(self, least: usize) {
        let Self { meant, rows, found, used } = self;
        assert!(rows >= least, "{rows}");
        assert!(found.is_empty(), "{} of {rows}:\n{}", found.len(), found.join("\n"));
        let unneeded: Vec<_> = meant.iter().filter(|(name, _)| !used.contains(name)).collect();
        assert!(unneeded.is_empty(), "these do not differ: {unneeded:?}");
    }
}

#[tokio::test]
async fn a_file_a_control_plane_and_envoy_mean_the_same() {
    let Some(envoy) = Envoy::find().await else { return };
    let behind = Behind::start().await;
    let three = Three::start(&envoy, &behind.document()).await;
    three.compare(&rows(), MEANT, LEAST).await;
}

/// Nothing that a configuration can say is without a row.
#[test]
fn there_are_rows_of_everything() {
    let counts = counts();
    for (about, rows) in counts {
        println!("{rows:5} {about}");
        assert!(rows > 0, "none about {about}");
    }
    let all: usize = counts.iter().map(|(_, rows)| rows).sum();
    println!("{all:5} rows");
    assert!(all >= LEAST, "{all}");
}
