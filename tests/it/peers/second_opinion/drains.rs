//! Changes under a request that is on its way: what becomes of it, of its connection, and of whoever comes after.

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_tests::h2client::{H2, collect, get};
use outrigger_tests::wire;
use outrigger_tests::{Client, Echo, Origin, Reply, until};
use serde_json::Value;

use super::{Differences, Envoy, Meant, Three};

/// In which an answer comes that nobody keeps back; when it does not, there is another look.
const SOON: Duration = Duration::from_secs(1);

/// What there is before and after, and how it is seen that all have heard of it: by what comes of a new connection.
struct Change {
    name: &'static str,
    before: String,
    after: String,
    settled: &'static str,
}

fn changes(slow: &str, two: SocketAddr) -> Vec<Change> {
    let mesh = |listener: &str, clusters: &str| {
        format!(
            "listeners:\n  other: {{ bind: 127.0.0.1:0, routes: [{{ respond: {{}} }}] }}\n{listener}clusters:\n{clusters}"
        )
    };
    let web =
        |more: &str, routes: &str| format!("  web: {{ bind: 127.0.0.1:0{more}, routes: [{routes}] }}\n");
    let of =
        |name: &str, address: &str| format!("  {name}: {{ endpoints: [\"{address}\"], protocol: http1 }}\n");
    let two = two.to_string();
    let (to_app, app) = (web("", "{ to: app }"), of("app", slow));
    let before = mesh(&to_app, &app);
    let change = |name, after: String, settled| Change { name, before: before.clone(), after, settled };
    vec![
        change("an endpoint is replaced", mesh(&to_app, &of("app", &two)), "200 two"),
        change(
            "the last endpoint is gone",
            mesh(&to_app, "  app: { endpoints: [], protocol: http1 }\n"),
            "503 -",
        ),
        change("another cluster", mesh(&web("", "{ to: two }"), &of("two", &two)), "200 two"),
        change(
            "another route before",
            mesh(
                &web("", "{ match: { path: { exact: /now } }, to: two }, { to: app }"),
                &(app.clone() + &of("two", &two)),
            ),
            "200 two",
        ),
        change(
            "no route is left",
            mesh(&web("", "{ match: { path: { exact: /else } }, to: app }"), &app),
            "404 -",
        ),
        change(
            "another rule",
            mesh(&web(", authorization: [{ allow: { paths: [/later] } }]", "{ to: app }"), &app),
            "403 -",
        ),
        change(
            "another limit",
            mesh(&web(", limits: { header_bytes: 16KiB }", "{ to: two }"), &of("two", &two)),
            "200 two",
        ),
        change("the listener is gone", mesh("", &app), "refused"),
    ]
}

pub(super) fn count() -> usize {
    changes("", ([127, 0, 0, 1], 0).into()).len()
}

/// What came of a new connection. A change that a worker has yet to hear of (Envoy accepts it before) leads to the origin
/// that keeps its answers back: that one waits.
async fn anew(address: SocketAddr) -> String {
    let Some(mut client) = Client::try_connect(address).await else { return "refused".to_owned() };
    match tokio::time::timeout(SOON, client.try_get("/now")).await {
        Ok(reply) => reply.as_ref().map_or("cut".to_owned(), shown),
        Err(_) => "waits".to_owned(),
    }
}

fn shown(reply: &Reply) -> String {
    let by = serde_json::from_slice::<Value>(&reply.body).map(|report| report["origin"].clone());
    let by = match (by, reply.status) {
        (Ok(Value::String(origin)), _) => origin,
        (_, 200) => reply.text(),
        (_, _) => "-".to_owned(),
    };
    format!("{} {by}", reply.status)
}

/// A request on its way in HTTP/1.1 and one in HTTP/2.
struct Way {
    address: SocketAddr,
    one: Client,
    two: tokio::task::JoinHandle<String>,
}

impl Way {
    async fn start(address: SocketAddr) -> Self {
        let mut one = Client::connect(address).await;
        one.send(wire::get("/now")).await;
        let two = tokio::spawn(async move {
            let client = H2::connect(address).await;
            let (response, _) = client.open(get("/now"), true).await;
            let whole = async { collect(response.await?).await };
            match whole.await {
                Ok(reply) => format!("{} {}", reply.status, String::from_utf8_lossy(&reply.body)),
                Err(error) => format!("{:?}", error.reason()),
            }
        });
        Self { address, one, two }
    }

    /// What came of them, of the first one's connection, and of a new one.
    async fn end(mut self) -> String {
        let first = self.one.try_reply_to("GET").await;
        let closes = if first.as_ref().is_some_and(Reply::closes) { ", the last" } else { "" };
        let first = first.as_ref().map_or("cut".to_owned(), shown);
        let second = self.two.await.unwrap();
        let next = match closes {
            "" => self.one.try_get("/now").await.as_ref().map_or("cut".to_owned(), shown),
            _ => "-".to_owned(),
        };
        let anew = anew(self.address).await;
        format!("{first}{closes}; over HTTP/2 {second}; then {next}; anew {anew}")
    }
}

/// What is meant to differ.
const MEANT: Meant = &[("another rule", NOBODY_RECONNECTS), ("another limit", NOBODY_RECONNECTS)];
const NOBODY_RECONNECTS: &str = "a connection that is open is under what is in force from its next request on, rules first of all; \
     Envoy leaves it under what it came to, and sees it off";

#[tokio::test]
async fn of_changes_under_a_request_all_three_mean_the_same() {
    let Some(envoy) = Envoy::find().await else { return };
    let two = Echo::start("two").await;
    let mut differences = Differences::new(MEANT);
    let names: Vec<_> = changes("", two.address()).into_iter().map(|change| change.name).collect();
    for (index, name) in names.iter().enumerate() {
        let (slow, open) = Origin::gated().await;
        let Change { name: _, before, after, settled } =
            changes(slow.address(), two.address()).swap_remove(index);
        let three = Three::start(&envoy, &before).await;
        let mut ways = Vec::new();
        for address in three.addresses("web") {
            ways.push(Way::start(address).await);
        }
        slow.wait_requests(2 * ways.len()).await;
        three.change(&after).await;
        for way in &ways {
            until(&format!("{name}: {settled}"), async || (anew(way.address).await == settled).then_some(()))
                .await;
        }
        open.send(true).unwrap();
        let mut came = Vec::new();
        for way in ways {
            came.push(way.end().await);
        }
        let came: [String; 3] = came.try_into().expect("three");
        // Whatever is meant: nobody loses what is on its way.
        for one in &came {
            assert!(one.starts_with("200 x") && one.contains("over HTTP/2 200 x"), "{name}: {one}");
        }
        differences.note(name, came);
    }
    differences.end(names.len());
}
