//! Balancing by hash: one of a kind goes to one endpoint, over all connections, and both have some.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use outrigger_tests::{Client, until, within};
use tokio::net::TcpSocket;

use super::stage::{Seen, Stage};
use super::{Differences, Envoy, Meant, Three};

/// What the cluster hashes, what the route does, and what requests come with: query and fields, with a key for `K`, and for
/// `R` what is new each time; and whether each key stays where it is. Where they are told apart by where they come from, each
/// key has an address.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

const ONE: &str = "each at one of";
const ANY: &str = "anywhere of";

const ROWS: &[Row] = &[
    ("{ header: x-user }", "", "", "x-user: K", ONE),
    ("{ header: x-user }", "", "?x-user=K", "cookie: x-user=K", ANY),
    ("{ header: x-user }", "", "", "x-user: K|x-user: R", ONE),
    ("{ cookie: session }", "", "", "cookie: session=K", ONE),
    ("{ cookie: session }", "", "", "cookie: a=R; session=K; b=R", ONE),
    ("{ cookie: session }", "", "", "cookie: a=R|cookie: session=K", ONE),
    ("{ cookie: session }", "", "", "cookie: sessions=K", ANY),
    ("{ cookie: session }", "", "", "", ANY),
    ("{ cookie: { name: session, ttl: 1h } }", "", "", "cookie: session=K", ONE),
    ("{ query: user }", "", "?user=K", "", ONE),
    ("{ query: user }", "", "?r=R&user=K&s=R", "", ONE),
    ("{ query: user }", "", "?users=K", "", ANY),
    ("source", "", "?r=R", "x-user: R", ONE),
    // Several: each counts, unless one is the last.
    ("{ header: x-user }, { query: user }", "", "?user=K", "x-user: all", ONE),
    ("{ header: x-user }, { query: user }", "", "?user=K", "", ONE),
    ("{ header: x-user }, { query: user }", "", "?user=R", "x-user: K", ANY),
    ("{ header: x-user, terminal: true }, { query: user }", "", "?user=R", "x-user: K", ONE),
    ("{ header: x-user, terminal: true }, { query: user }", "", "?user=K", "", ONE),
    // What routes say counts where the cluster says nothing.
    ("", "{ header: x-user }", "", "x-user: K", ONE),
    ("", "{ header: x-user, terminal: true }, { header: x-round }", "", "x-user: K|x-round: R", ONE),
    ("", "{ query: user }, source", "?user=K", "", ONE),
    ("{ header: x-user }", "{ header: x-round }", "", "x-user: K|x-round: R", ONE),
    ("", "", "", "x-user: K", ANY),
];

/// Cookies that are made, by what is said of them.
const MADE: &[&str] = &["ttl: 1h", "ttl: 1h, path: /shop", "ttl: 90s, path: /"];

/// Who balances.
const BALANCERS: [&str; 2] = ["ring-hash", "maglev"];
/// Of so many keys all go to one of two once in a thousand million times.
const KEYS: usize = 32;
/// How many times each comes.
const ROUNDS: usize = 2;

/// All rows: those, cookies that are made, and an endpoint that leaves.
pub(super) const COUNT: usize = BALANCERS.len() * (ROWS.len() + MADE.len() + 1);

/// What is meant to differ.
const MEANT: Meant = &[
    (
        "[{ header: x-user }] []:  x-user: K|x-user: R",
        "of several values the first says who it is, as for limits; Envoy takes all together",
    ),
    (
        "made: ",
        "a cookie that says nothing of it is `SameSite=Lax` to browsers anyway; Envoy leaves it to them",
    ),
];

/// All clusters, each with a route of its name; of those that lose an endpoint, `leaving` is the one.
fn document(stage: &Stage, leaving: &str) -> String {
    let (mut routes, mut clusters) = (String::new(), String::new());
    let mut add = |name: &str, balance: &str, (own, asked): (&str, &str), endpoints: &str| {
        let asked = if asked.is_empty() { String::new() } else { format!(", hash: [{asked}]") };
        let balance = match own {
            "" => balance.to_owned(),
            own => format!("{{ {balance}: {{ hash: [{own}] }} }}"),
        };
        routes += &format!("      - {{ match: {{ path: {{ exact: /{name} }} }}, to: {name}{asked} }}\n");
        clusters +=
            &format!("  {name}: {{ endpoints: [{endpoints}], protocol: http1, balance: {balance} }}\n");
    };
    for balance in BALANCERS {
        for (index, (own, asked, _, _, _)) in ROWS.iter().enumerate() {
            add(&format!("{balance}-{index}"), balance, (own, asked), "\"@a\", \"@b\"");
        }
        for (index, made) in MADE.iter().enumerate() {
            let cookie = format!("{{ cookie: {{ name: made, {made} }} }}");
            add(&format!("{balance}-made-{index}"), balance, (&cookie, ""), "\"@a\", \"@b\"");
        }
        let endpoints = format!("\"@a\", \"@b\"{leaving}");
        add(&format!("{balance}-leaves"), balance, ("{ header: x-user }", ""), &endpoints);
    }
    let all =
        format!("listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n{routes}clusters:\n{clusters}");
    stage.placed(&all)
}

/// One GET, on a connection of its own from an address of this number.
async fn ask(stage: &Stage, to: SocketAddr, number: usize, target: &str, fields: &str) -> Seen {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 1, u8::try_from(number).unwrap()], 0).into()).unwrap();
    let mut client = Client::over(within("a connection", socket.connect(to)).await.unwrap());
    let fields = fields.split('|').filter(|field| !field.is_empty());
    let fields: String = fields.map(|field| format!("{field}\r\n")).collect();
    stage.ask(&mut client, &format!("GET /{target} HTTP/1.1\r\nHost: test\r\n{fields}"), "").await
}

fn by(seen: &Seen) -> String {
    seen.by().map_or_else(|| seen.status(), str::to_owned)
}

/// Who answered each.
type Places = BTreeMap<usize, BTreeSet<String>>;

fn judged(places: &Places) -> String {
    let all: BTreeSet<_> = places.values().flatten().cloned().collect();
    let kept = if places.values().all(|by| by.len() == 1) { ONE } else { ANY };
    format!("{kept} {all:?}")
}

async fn placed(stage: &Stage, to: SocketAddr, name: &str, (own, asked, query, fields, _): Row) -> String {
    let by_source = own == "source" || asked.ends_with("source");
    let mut places = Places::new();
    for (round, key) in (0..ROUNDS).flat_map(|round| (0..KEYS).map(move |key| (round, key))) {
        let new = round * KEYS + key;
        let with = |text: &str| text.replace('K', &format!("k{key}")).replace('R', &format!("r{new}"));
        let from = if by_source { key } else { new };
        let seen = ask(stage, to, from + 1, &format!("{name}{}", with(query)), &with(fields)).await;
        places.entry(key).or_default().insert(by(&seen));
    }
    judged(&places)
}

/// Clients that are given a cookie, and come back with it from elsewhere.
async fn given(stage: &Stage, to: SocketAddr, name: &str) -> String {
    let (mut places, mut told) = (Places::new(), BTreeSet::new());
    for key in 0..KEYS {
        let first = ask(stage, to, key + 1, name, "").await;
        let made = first.reply.as_ref().and_then(|reply| reply.field("set-cookie")).unwrap_or("-");
        let (pair, attributes) = made.split_once(';').unwrap_or((made, ""));
        let mut attributes: Vec<_> = attributes.split(';').map(str::trim).collect();
        attributes.sort_unstable();
        told.insert(attributes.join("; ").to_ascii_lowercase());
        let second = ask(stage, to, key + KEYS + 1, name, &format!("cookie: {pair}")).await;
        if second.reply.as_ref().is_some_and(|reply| reply.field("set-cookie").is_some()) {
            told.insert("another".to_owned());
        }
        places.insert(key, [by(&first), by(&second)].into());
    }
    format!("{}, told {told:?}", judged(&places))
}

/// Where each key is.
async fn kept(stage: &Stage, to: SocketAddr, name: &str) -> Vec<String> {
    let mut all = Vec::new();
    for key in 0..2 * KEYS {
        all.push(by(&ask(stage, to, 1, name, &format!("x-user: k{key}")).await));
    }
    all
}

/// Keys of the one that has left go elsewhere, and of the others' only those that make room.
fn moved(before: &[String], after: &[String]) -> String {
    let stayed = before.iter().zip(after).filter(|(before, _)| *before != "c");
    let (all, moved) = (stayed.clone().count(), stayed.filter(|(before, after)| before != after).count());
    if moved * 2 < all { "most stay".to_owned() } else { format!("{moved} of {all} moved") }
}

#[tokio::test]
async fn of_who_stays_where_all_three_mean_the_same() {
    let Some(envoy) = Envoy::find().await else { return };
    let stage = Stage::start(&["a", "b", "c"]).await;
    let three = Three::start(&envoy, &document(&stage, ", \"@c\"")).await;
    let mut differences = Differences::new(MEANT);
    for balance in BALANCERS {
        for (index, row) in ROWS.iter().enumerate() {
            let name = format!("{balance}-{index}");
            let came = three.each("web", async |to| placed(&stage, to, &name, *row).await).await;
            let (own, asked, query, fields, means) = row;
            let name = format!("[{own}] [{asked}]: {query} {fields}: {balance}");
            // All may be wrong in the same way.
            assert_eq!(came[0], format!("{means} {{\"a\", \"b\"}}"), "{name}");
            differences.note(&name, came);
        }
        for (index, made) in MADE.iter().enumerate() {
            let name = format!("{balance}-made-{index}");
            let came = three.each("web", async |to| given(&stage, to, &name).await);
            differences.note(&format!("made: {made}: {balance}"), came.await);
        }
    }
    let names = BALANCERS.map(|balance| format!("{balance}-leaves"));
    let mut before = Vec::new();
    for (name, to) in names.iter().flat_map(|name| three.addresses("web").map(|to| (name, to))) {
        before.push(kept(&stage, to, name).await);
        assert!(before.iter().flatten().any(|by| by == "c"), "{name}: {before:?}");
    }
    three.change(&document(&stage, "")).await;
    let mut before = before.into_iter();
    for name in names {
        let mut came = Vec::new();
        for to in three.addresses("web") {
            let after = until("nobody goes where nobody is", async || {
                let after = kept(&stage, to, &name).await;
                (!after.iter().any(|by| by == "c")).then_some(after)
            });
            came.push(moved(&before.next().unwrap(), &after.await));
        }
        differences.note(&format!("one leaves: {name}"), came.try_into().expect("three"));
    }
    differences.end(COUNT);
}
