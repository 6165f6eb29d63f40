//! Several control planes with one store, in a real etcd: each takes changes, all serve them, one dies and nobody notices.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use outrigger_tests::load::{Load, OnClose};
use outrigger_tests::peer::{Peer, peer};
use outrigger_tests::process::Process;
use outrigger_tests::wait::PATIENCE;
use outrigger_tests::wire::post;
use outrigger_tests::{Client, Control, Dir, Echo, Proxy, pki, until};
use rcgen::ExtendedKeyUsagePurpose;
use rustix::process::Signal;
use serde_json::Value;

use super::nats::{self, kept};
use super::shadow::{Follower, found, until_shown};
use super::{answered_by, port, proxy, web};
use crate::peers::free_port;

/// An etcd of this many members, each with a directory of its own.
struct Store {
    program: Peer,
    dir: Arc<Dir>,
    /// Where members are asked, and ask each other.
    ports: Vec<(u16, u16)>,
    members: Vec<Process>,
}

impl Store {
    async fn start(members: usize) -> Option<Self> {
        let program = peer("etcd")?;
        let dir = Arc::new(Dir::new());
        std::fs::create_dir(dir.file("mesh")).unwrap();
        let ports: Vec<_> = (0..members).map(|_| (free_port(), free_port())).collect();
        let mut store = Self { program, dir, ports, members: Vec::new() };
        store.members = (0..members).map(|index| store.member(index)).collect();
        for index in 0..members {
            store.wait(index).await;
        }
        Some(store)
    }

    fn member(&self, index: usize) -> Process {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let all =
            self.ports.iter().enumerate().map(|(index, (_, peers))| format!("m{index}={}", url(*peers)));
        let (clients, peers) = self.ports[index];
        let mut command = Command::new(self.program.path());
        command.args(["--name", &format!("m{index}"), "--logger", "zap", "--log-level", "error"]);
        command.arg("--data-dir").arg(self.dir.file(&format!("etcd{index}")));
        command.args(["--listen-client-urls", &url(clients), "--advertise-client-urls", &url(clients)]);
        command.args(["--listen-peer-urls", &url(peers), "--initial-advertise-peer-urls", &url(peers)]);
        command.args(["--initial-cluster", &all.collect::<Vec<_>>().join(",")]);
        Process::spawn("etcd", command)
    }

    async fn wait(&mut self, index: usize) {
        let address = ([127, 0, 0, 1], self.ports[index].0).into();
        until("etcd is ready", async || {
            // Its port was free when it was chosen, and may for a moment be the near end of somebody's connection.
            let was_taken = self.members[index].exited().is_some()
                && self.members[index].log().contains("address already in use");
            if was_taken {
                self.members[index] = self.member(index);
            }
            let reply = Client::try_connect(address).await?.try_get("/health").await?;
            (reply.status == 200).then_some(())
        })
        .await;
    }

    /// Another control plane with this store, where nodes ask at this address.
    fn control(&self, xds: &str, settings: &str) -> Control {
        let endpoints: Vec<_> =
            self.ports.iter().map(|(port, _)| format!("'http://127.0.0.1:{port}'")).collect();
        let etcd = format!("{{ directory: store, etcd: {{ endpoints: [{}] }} }}", endpoints.join(", "));
        let control = Control::start_with(self.dir.clone(), xds, &etcd, settings);
        // It has read its settings by then, and the next one writes others in their place.
        control.api();
        control
    }

    /// Two of them, the first of which leads.
    async fn pair(&self, settings: &str) -> [Control; 2] {
        let first = self.control("127.0.0.1:0", settings);
        first.process().wait_log(LEADS).await;
        [first, self.control("127.0.0.1:0", settings)]
    }

    /// Writes a file of a document, which no directory is.
    fn document(&self, name: &str, text: &str) -> String {
        self.dir.write(name, text).display().to_string()
    }
}

const LEADS: &str = "this control plane leads";

/// A document of nothing but a cluster.
fn cluster(name: &str, port: u16) -> String {
    format!("clusters:\n  {name}: {{ endpoints: [127.0.0.1:{port}] }}\n")
}

/// The ids of events are numbers without a gap.
fn are_numbered(events: &[Value]) {
    let ids: Vec<_> = events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    let expected: Vec<_> = (1..=events.len()).map(|id| id.to_string()).collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn what_one_accepts_all_serve_and_what_one_sees_all_show() {
    let Some(store) = Store::start(1).await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let [a, b] = store.pair("").await;
    let (first, second) = (proxy(&a, "a").await, proxy(&b, "b").await);
    let file = store.document("web.yaml", &web(&[port(&one)]));
    a.ok(&["apply", &file]);
    answered_by(&second, "one").await;
    answered_by(&first, "one").await;
    // A token that one has made is known to the other, and forgotten by both.
    let token = a.ok(&["token", "create", "me"]);
    let token = store.document("token", &token);
    store.document("web.yaml", &web(&[port(&two)]));
    b.ok(&["apply", &file, "--token-file", &token]);
    answered_by(&first, "two").await;
    answered_by(&second, "two").await;
    assert_eq!(a.json(&["history", "--json"])[0]["author"], "me");
    for control in [&a, &b] {
        control.wait_in_sync(2, 2).await;
    }
    b.ok(&["token", "revoke", "me"]);
    until("it is forgotten", async || {
        let out = a.run(&["apply", &file, "--token-file", &token]);
        (!out.status.success()).then_some(())
    })
    .await;
    // Of both one log.
    let events = until("both say the same", async || {
        let all = kept(&a);
        (all == kept(&b)).then_some(all)
    })
    .await;
    are_numbered(&events);
    let ups = events.iter().filter(|event| event["type"] == "dev.outrigger.node.up.v1");
    let ups: BTreeSet<_> = ups.map(|event| event["subject"].as_str().unwrap()).collect();
    assert_eq!(ups, ["node/a", "node/b"].into());
    assert_eq!(a.ok(&["diff", "2"]), b.ok(&["diff", "2"]));
}

#[tokio::test]
async fn of_changes_at_once_each_is_a_revision_and_none_is_lost() {
    const EACH: u16 = 6;
    let Some(store) = Store::start(1).await else { return };
    let controls = store.pair("").await;
    std::thread::scope(|scope| {
        for (index, control) in controls.iter().enumerate() {
            let name = format!("c{index}");
            let store = &store;
            scope.spawn(move || {
                for port in 1..=EACH {
                    let file = store.document(&format!("{name}.yaml"), &cluster(&name, port));
                    control.ok(&["apply", &file]);
                }
            });
        }
    });
    let [a, b] = &controls;
    let history = a.json(&["history", "--json"]);
    assert_eq!(history, b.json(&["history", "--json"]));
    let numbers: Vec<_> =
        history.as_array().unwrap().iter().map(|of| of["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=u64::from(EACH) * 2).rev().collect::<Vec<_>>());
    for name in ["c0", "c1"] {
        assert_eq!(b.ok(&["get", &format!("{name}.yaml")]), cluster(name, EACH));
    }
    are_numbered(&kept(a));
    // One that brings back what was told to all before.
    b.ok(&["rollback", "1"]);
    a.wait_revision(u64::from(EACH) * 2 + 1).await;
}

/// Whichever of them it was said to, and whichever nodes ask.
#[tokio::test]
async fn what_is_on_trial_is_told_by_all_and_what_is_found_of_it_all_show() {
    let Some(store) = Store::start(1).await else { return };
    let [a, b] = store.pair("").await;
    let file = store.document("web.yaml", &web(&[1]));
    a.ok(&["apply", &file]);
    let mut nodes = [Follower::start(&a, "a").await, Follower::start(&b, "b").await];
    for node in &mut nodes {
        assert_eq!(node.told().await.revision, 0);
    }
    store.document("web.yaml", &web(&[2]).replace("app", "rest"));
    b.ok(&["apply", "--shadow", &file]);
    for node in &mut nodes {
        assert_eq!(node.told().await.revision, 2);
        node.say(found(2, 10, &[("to app", "to rest", 3)]));
    }
    let mut shown = Vec::new();
    for control in [&a, &b] {
        let both = |shown: &Value| {
            shown["evaluated"] == 20 && shown["nodes"].as_array().is_some_and(|nodes| nodes.len() == 2)
        };
        shown.push(until_shown(control, "what both have found", both).await);
    }
    assert_eq!(shown[0], shown[1]);
    assert_eq!(
        (&shown[0]["differences"][0]["requests"], &shown[0]["differences"][0]["nodes"]),
        (&6.into(), &2.into())
    );
    assert_eq!(a.json(&["history", "--json"]), b.json(&["history", "--json"]));
    // A change by one leaves it; it is ended by the other, and comes into force by either.
    a.ok(&["apply", &store.document("more.yaml", &cluster("more", 3))]);
    a.ok(&["shadow", "end"]);
    for node in &mut nodes {
        assert_eq!(node.told().await.revision, 0);
    }
    b.ok(&["apply", "--shadow", &file]);
    for node in &mut nodes {
        assert_eq!(node.told().await.revision, 4);
    }
    a.ok(&["shadow", "promote", "4"]);
    for node in &mut nodes {
        assert_eq!(node.told().await.revision, 0);
    }
    b.wait_revision(5).await;
    assert_eq!(b.json(&["shadow", "--json"])["on_trial"], Value::Null);
    let ended = until("both ends", async || {
        let ended = b.events("shadow.ended.v1");
        (ended.len() == 2).then_some(ended)
    })
    .await;
    assert_eq!((&ended[0]["data"]["how"], &ended[1]["data"]["how"]), (&"ended".into(), &"promoted".into()));
    are_numbered(&kept(&a));
}

#[tokio::test]
async fn one_that_is_killed_is_missed_by_nobody() {
    let Some(store) = Store::start(1).await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let [a, b] = store.pair("").await;
    let file = store.document("web.yaml", &web(&[port(&one)]));
    b.ok(&["apply", &file]);
    let (first, second) = (proxy(&a, "a").await, proxy(&b, "b").await);
    answered_by(&first, "one").await;
    b.wait_in_sync(2, 1).await;
    let load = Load::start(second.address("web"), "/", 2, OnClose::Reconnect);
    let address = a.xds().to_string();
    a.process().kill();
    store.document("web.yaml", &web(&[port(&two)]));
    b.ok(&["apply", &file]);
    answered_by(&second, "two").await;
    answered_by(&first, "one").await;
    // What it was the one to do, and whom it knew, is known to be nobody's.
    b.process().wait_log(LEADS).await;
    b.wait_in_sync(1, 2).await;
    // Another in its place.
    let c = store.control(&address, "");
    answered_by(&first, "two").await;
    for control in [&b, &c] {
        control.wait_in_sync(2, 2).await;
    }
    let outcome = load.stop().await;
    assert!(outcome.failures.is_empty() && outcome.closes == 0, "{outcome:?}");
    are_numbered(&kept(&c));
}

#[tokio::test]
async fn while_etcd_is_away_all_is_served_and_nothing_changes() {
    let Some(mut store) = Store::start(1).await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let [a, b] = store.pair("").await;
    let file = store.document("web.yaml", &web(&[port(&one)]));
    a.ok(&["apply", &file]);
    let first = proxy(&a, "a").await;
    answered_by(&first, "one").await;
    b.wait_in_sync(1, 1).await;
    store.members[0].kill();
    store.document("web.yaml", &web(&[port(&two)]));
    let said = a.run(&["apply", &file]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.starts_with("the store is away: "), "{said}");
    let ready = async |control: &Control| Client::connect(control.api()).await.get("/ready").await.status;
    for control in [&a, &b] {
        until("it says so", async || (ready(control).await == 503).then_some(())).await;
    }
    assert_eq!(a.status()["revision"], 1);
    // Nodes come and are told, and go.
    let second = proxy(&b, "b").await;
    answered_by(&second, "one").await;
    drop(first);
    store.members[0] = store.member(0);
    store.wait(0).await;
    for control in [&a, &b] {
        until("it is back", async || (ready(control).await == 200).then_some(())).await;
    }
    a.ok(&["apply", &file]);
    answered_by(&second, "two").await;
    for control in [&a, &b] {
        control.wait_in_sync(1, 2).await;
    }
    // What happened meanwhile is noted.
    until("it is noted", async || a.events("node.down.v1").pop()).await;
    let ups = a.events("node.up.v1");
    assert!(ups.iter().any(|event| event["subject"] == "node/b"), "{ups:?}");
    are_numbered(&kept(&b));
}

#[tokio::test]
async fn a_member_that_dies_is_missed_by_nobody() {
    let Some(store) = Store::start(3).await else { return };
    let one = Echo::start("one").await;
    let [a, b] = store.pair("").await;
    let proxy = proxy(&b, "b").await;
    a.ok(&["apply", &store.document("web.yaml", &cluster("before", 1))]);
    b.wait_revision(1).await;
    store.members[0].kill();
    let file = store.document("web.yaml", &web(&[port(&one)]));
    until("it goes on", async || a.run(&["apply", &file]).status.success().then_some(())).await;
    answered_by(&proxy, "one").await;
    a.wait_in_sync(1, 2).await;
}

/// Two control planes that roll out. Whoever leads has no node of its own; the other has two, which serve the first revision.
struct Rolling {
    proxies: [Proxy; 2],
    control: [Control; 2],
    store: Store,
    _one: Echo,
    good: String,
    file: String,
}

impl Rolling {
    /// Each step is watched for so long; the first revision is applied `by` one of them.
    async fn start(watch: &str, by: for<'c> fn(&'c Control, &'c Control) -> &'c Control) -> Option<Self> {
        let store = Store::start(1).await?;
        let one = Echo::start("one").await;
        let control = store.pair(&format!("rollout: {{ steps: [50%], watch: {watch} }}")).await;
        let good = web(&[port(&one)]);
        let file = store.document("web.yaml", &good);
        let [a, b] = &control;
        by(a, b).ok(&["apply", &file]);
        let proxies = [proxy(b, "a").await, proxy(b, "b").await];
        for proxy in &proxies {
            answered_by(proxy, "one").await;
        }
        a.wait_in_sync(2, 1).await;
        Some(Self { proxies, control, store, _one: one, good, file })
    }

    /// What the route does from now on.
    fn change(&self, by: &Control, to: &str) {
        self.store.document("web.yaml", &self.good.replace("to: app", to));
        by.ok(&["apply", &self.file]);
    }
}

#[tokio::test]
async fn one_leads_a_rollout_to_nodes_of_another() {
    let Some(rolling) = Rolling::start("1s", |_, b| b).await else { return };
    let [a, b] = &rolling.control;
    rolling.change(b, "to: app, timeout: 9s");
    for control in [a, b] {
        control.wait_in_sync(2, 2).await;
    }
    assert_eq!(until("it is done", async || a.events("rollout.done.v1").pop()).await["data"]["revision"], 2);
    assert!(!b.process().log().contains(LEADS));
}

#[tokio::test]
async fn one_that_fails_requests_elsewhere_is_taken_back() {
    let Some(rolling) = Rolling::start("3s", |a, _| a).await else { return };
    let [a, b] = &rolling.control;
    let loads = super::rollouts::loads(b, &rolling.proxies, 2).await;
    rolling.change(b, "respond: { status: 503 }");
    let back = until("it is taken back", async || a.events("rollout.back.v1").pop()).await;
    let why = back["data"]["why"].as_str().unwrap();
    assert!(why.contains("requests to those who were told"), "{why}");
    a.wait_in_sync(2, 3).await;
    for load in loads {
        load.stop().await;
    }
}

/// A silent etcd is as good as none, and a document may be larger than what etcd takes at once.
#[tokio::test]
async fn an_etcd_that_is_frozen_is_away_and_large_documents_come_whole() {
    let Some(store) = Store::start(1).await else { return };
    let one = Echo::start("one").await;
    let [a, b] = store.pair("").await;
    let proxy = proxy(&b, "b").await;
    let large = web(&[port(&one)]) + &"# ä, a comment as long as many are\n".repeat(80_000);
    let file = store.document("web.yaml", &large);
    a.ok(&["apply", &file]);
    answered_by(&proxy, "one").await;
    assert_eq!(b.ok(&["get", "web.yaml"]), large);
    store.members[0].signal(Signal::STOP);
    let small = store.document("c.yaml", &cluster("c", 1));
    let said = a.run(&["apply", &small]);
    assert!(String::from_utf8_lossy(&said.stderr).starts_with("the store is away: "), "{said:?}");
    answered_by(&proxy, "one").await;
    store.members[0].signal(Signal::CONT);
    until("it goes on", async || a.run(&["apply", &small]).status.success().then_some(())).await;
    for control in [&a, &b] {
        control.wait_in_sync(1, 2).await;
    }
}

#[tokio::test]
async fn etcd_may_want_to_know_who_asks() {
    let Some(store) = Store::start(1).await else { return };
    let address = ([127, 0, 0, 1], store.ports[0].0).into();
    for (path, body) in [
        ("user/add", r#"{"name":"root","password":"pass"}"#),
        ("role/add", r#"{"name":"root"}"#),
        ("user/grant", r#"{"user":"root","role":"root"}"#),
        ("enable", "{}"),
    ] {
        let mut client = Client::connect(address).await;
        client.send(post(&format!("/v3/auth/{path}"), body)).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
    let password = store.document("password", "wrong\n");
    let start = |login: &str| {
        let etcd = format!("{{ endpoints: 'http://{address}'{login} }}");
        let etcd = format!("{{ directory: store, etcd: {etcd} }}");
        Control::start_with(store.dir.clone(), "127.0.0.1:0", &etcd, "")
    };
    let login = format!(", user: root, password: {password}");
    for (login, why) in [("", "user name is empty"), (&*login, "invalid user ID or password")] {
        let control = start(login);
        control.process().wait_log(why).await;
        control.process().exit(PATIENCE).await;
    }
    store.document("password", "pass\n");
    let control = start(&login);
    control.ok(&["apply", &store.document("c.yaml", &cluster("c", 1))]);
    control.wait_revision(1).await;
}

#[tokio::test]
async fn members_are_believed_by_their_root_alone_and_want_a_certificate() {
    let Some(program) = peer("etcd") else { return };
    let dir = Arc::new(Dir::new());
    std::fs::create_dir(dir.file("mesh")).unwrap();
    let authority = pki::Authority::new("etcd.test");
    let sign = |name: &str, purposes: &[ExtendedKeyUsagePurpose]| {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages = purposes.to_vec();
        authority.sign(params).write(&dir, name);
    };
    // Its gateway shows its own certificate to itself.
    sign("member", &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]);
    sign("own", &[ExtendedKeyUsagePurpose::ClientAuth]);
    dir.write("ca.crt", &authority.pem());
    dir.write("other.crt", &pki::Authority::new("other.test").pem());
    let mut command = Command::new(program.path());
    let port = free_port();
    let url = format!("https://127.0.0.1:{port}");
    command.args(["--logger", "zap", "--log-level", "error", "--listen-peer-urls", "http://127.0.0.1:0"]);
    command.args(["--client-cert-auth", "--listen-client-urls", &url, "--advertise-client-urls", &url]);
    for (flag, file) in [
        ("--data-dir", "etcd"),
        ("--cert-file", "member.crt"),
        ("--key-file", "member.key"),
        ("--trusted-ca-file", "ca.crt"),
    ] {
        command.arg(flag).arg(dir.file(file));
    }
    let _etcd = Process::spawn("etcd", command);
    until("etcd listens", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
    let start = |more: &str| {
        let etcd =
            format!("{{ directory: store, etcd: {{ endpoints: 'https://localhost:{port}', {more} }} }}");
        Control::start_with(dir.clone(), "127.0.0.1:0", &etcd, "")
    };
    let own = "tls: { certificate: own.crt, private_key: own.key }";
    let control = start(&format!("trust: ca.crt, {own}"));
    control.ok(&["apply", &dir.write("c.yaml", &cluster("c", 1)).display().to_string()]);
    control.wait_revision(1).await;
    for (more, why) in [
        (format!("trust: other.crt, {own}"), "UnknownIssuer"),
        ("trust: ca.crt".to_owned(), "the store is away: "),
    ] {
        let control = start(&more);
        control.process().wait_log(why).await;
        control.process().exit(PATIENCE).await;
    }
}

#[tokio::test]
async fn who_shows_a_join_token_of_one_is_signed_for_by_another() {
    let Some(store) = Store::start(1).await else { return };
    let authority = pki::Authority::new("mesh.test");
    store.dir.write("ca.crt", &authority.pem());
    store.dir.write("ca.key", &authority.issuer().key().serialize_pem());
    let root = "root: { certificate: ca.crt, private_key: ca.key }";
    let [a, b] = store.pair(&format!("ca: {{ trust_domain: mesh.test, {root} }}")).await;
    let token = store.document("join.token", &a.ok(&["token", "join", "spiffe://mesh.test/a"]));
    let asked = format!("server: \"http://{}\", token: {token}", b.xds());
    let _proxy = Proxy::start(&format!(
        "identity: {{ csr: {{ {asked} }} }}\nlisteners:\n  web: {{ bind: 127.0.0.1:0, mtls: strict, routes: [{{ respond: {{ status: 204 }} }}] }}\n"
    ))
    .await;
    let issued = until("it is signed for", async || a.events("certificate.issued.v1").pop()).await;
    assert_eq!(issued["subject"], "spiffe://mesh.test/a");
    assert_eq!(a.ok(&["ca", "bundle"]), b.ok(&["ca", "bundle"]));
    let refused = String::from_utf8(a.run(&["ca", "rotate"]).stderr).unwrap();
    assert!(refused.contains("the root is a file of yours"), "{refused}");
}

/// Whoever takes over goes on where the other was.
#[tokio::test]
async fn a_rollout_outlives_who_led_it() {
    let Some(rolling) = Rolling::start("3s", |a, _| a).await else { return };
    let [a, b] = &rolling.control;
    rolling.change(a, "to: app, timeout: 9s");
    until("it is told to some", async || b.events("rollout.step.v1").pop()).await;
    a.process().kill();
    b.wait_in_sync(2, 2).await;
    let steps = b.events("rollout.step.v1");
    let told: BTreeSet<_> = steps.iter().map(|step| step["data"]["nodes"].to_string()).collect();
    assert_eq!((steps.len(), told.len()), (2, 1), "{steps:?}");
}

#[tokio::test]
async fn one_publishes_to_nats_and_another_goes_on() {
    let Some(program) = peer("nats-server") else { return };
    let Some(store) = Store::start(1).await else { return };
    std::fs::create_dir(store.dir.file("nats")).unwrap();
    let server = nats::Server::start(&program, &store.dir.file("nats"), 0, "").await;
    let settings = format!("events: {{ nats: {{ server: 'nats://{}' }} }}", server.address());
    let [a, b] = store.pair(&settings).await;
    let file = |port| store.document("c.yaml", &cluster("c", port));
    for port in 1..4 {
        b.ok(&["apply", &file(port)]);
    }
    nats::same(&b, &server, 3).await;
    a.ok(&["apply", &file(4)]);
    a.process().kill();
    b.ok(&["apply", &file(5)]);
    b.process().wait_log(LEADS).await;
    nats::same(&b, &server, 5).await;
}
