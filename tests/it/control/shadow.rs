//! A configuration on trial: told to whoever asks, acted on by nobody, and what would change is shown.

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use outrigger_proto::xds::discovery::{DELTA_STREAM, DeltaDiscoveryRequest, Node};
use outrigger_proto::xds::shadow::{Difference, FOLLOW, Found, Shadow};
use outrigger_tests::h2client::H2;
use outrigger_tests::{Control, Echo, Proxy, pki, until, within};
use prost::Message;
use serde_json::{Value, json};

use super::{answered_by, attestation, port, proxy, web};

/// A node that asks what is on trial, and says what it likes.
pub(super) struct Follower {
    reports: SendStream<Bytes>,
    told: RecvStream,
    buffer: BytesMut,
    /// It must live.
    _connection: H2,
}

impl Follower {
    pub(super) async fn start(control: &Control, id: &str) -> Self {
        let node = Node { id: id.to_owned(), user_agent_name: "fake".to_owned(), ..Node::default() };
        Self::open(control, FOLLOW, Found { node: Some(node), ..Found::default() }).await
    }

    /// Another stream that nodes begin, by this word.
    async fn open(control: &Control, path: &str, first: impl Message) -> Self {
        let connection = H2::connect(control.xds()).await;
        let request = Request::post(format!("http://{}{path}", control.xds()));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let (response, reports) = connection.open(request.body(()).unwrap(), false).await;
        let told = within("the head of the stream", response).await.unwrap().into_body();
        let mut follower = Self { reports, told, buffer: BytesMut::new(), _connection: connection };
        follower.say(first);
        follower
    }

    pub(super) fn say(&mut self, message: impl Message) {
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(message.encoded_len() as u32);
        message.encode(&mut framed).unwrap();
        self.reports.send_data(framed.freeze(), false).unwrap();
    }

    /// What it is told next.
    pub(super) async fn told(&mut self) -> Shadow {
        within("what is on trial", self.try_told()).await.expect("the stream goes on")
    }

    async fn try_told(&mut self) -> Option<Shadow> {
        loop {
            if let Some(head) = self.buffer.get(1..5) {
                let length = u32::from_be_bytes(head.try_into().unwrap()) as usize;
                if self.buffer.len() >= 5 + length {
                    let message = self.buffer.split_to(5 + length).split_off(5);
                    return Some(Shadow::decode(message).unwrap());
                }
            }
            let data = self.told.data().await?.ok()?;
            self.told.flow_control().release_capacity(data.len()).unwrap();
            self.buffer.extend_from_slice(&data);
        }
    }

    /// How its stream ends.
    async fn end(mut self) -> HeaderMap {
        assert!(within("the end", self.try_told()).await.is_none());
        within("the trailers", self.told.trailers()).await.unwrap().unwrap_or_default()
    }
}

/// A report about a revision.
pub(super) fn found(revision: u64, evaluated: u64, differences: &[(&str, &str, u64)]) -> Found {
    let differences = differences.iter().map(|(in_force, shadow, requests)| Difference {
        listener: "web".to_owned(),
        in_force: (*in_force).to_owned(),
        shadow: (*shadow).to_owned(),
        requests: *requests,
        example: "GET shop.example.com/cart".to_owned(),
    });
    Found { revision, evaluated, differences: differences.collect(), ..Found::default() }
}

/// What is on trial, once it is like that.
pub(super) async fn until_shown(control: &Control, what: &str, good: impl Fn(&Value) -> bool) -> Value {
    until(what, async || {
        let shown = control.json(&["shadow", "--json"])["on_trial"].take();
        good(&shown).then_some(shown)
    })
    .await
}

/// A control plane, with its first revision, and a file of what else could be.
fn with_file(ports: [u16; 2], settings: &str) -> (Control, String) {
    let control = Control::start(settings, &[]);
    let file = control.dir().write("web.yaml", &web(&ports[..1])).display().to_string();
    control.ok(&["apply", &file]);
    control.dir().write("web.yaml", &other(ports));
    (control, file)
}

/// Another route and another cluster.
fn other(ports: [u16; 2]) -> String {
    web(&ports[1..]).replace("app", "rest")
}

#[tokio::test]
async fn it_is_told_to_whoever_asks_and_changes_nothing() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let (control, file) = with_file([port(&one), port(&two)], "");
    let proxy = proxy(&control, "a").await;
    answered_by(&proxy, "one").await;
    control.wait_in_sync(1, 1).await;
    // But for what it was asked, which is told by and by.
    let nodes = || {
        let mut node = control.status()["nodes"][0].take();
        node["load"].take();
        node
    };
    let (version, before) = (proxy.version().await, nodes());
    let mut follower = Follower::start(&control, "f").await;
    assert_eq!(follower.told().await, Shadow::default());
    // Only said.
    let said = control.ok(&["apply", "--shadow", "--dry-run", &file]);
    assert!(said.ends_with("revision 1 stays: this was a dry run\n"), "{said}");
    let said = control.ok(&["apply", "--shadow", &file, "-m", "try it"]);
    assert!(
        said.contains("+++ b/web.yaml\n") && said.contains("revision 2 is on trial: nothing changes"),
        "{said}"
    );
    let told = follower.told().await;
    assert_eq!((told.revision, told.listeners.len(), told.routes.len()), (2, 1, 1));
    assert!(told.listeners[0].type_url.ends_with("envoy.config.listener.v3.Listener"));
    assert!(told.interval.is_some_and(|interval| interval.seconds >= 1));
    // The same once more is no other.
    control.ok(&["apply", "--shadow", &file]);
    // Whoever comes later hears of it at once.
    assert_eq!(Follower::start(&control, "g").await.told().await, told);
    control
        .dir()
        .write("web.yaml", &other([port(&one), port(&two)]).replace("to: rest", "to: rest, timeout: 9s"));
    control.ok(&["apply", "--shadow", &file]);
    let again = follower.told().await;
    assert_eq!(
        (again.revision, again.listeners == told.listeners, again.routes == told.routes),
        (3, true, false)
    );
    assert_eq!(control.ok(&["shadow", "end"]), "nothing is on trial any more\n");
    assert_eq!(follower.told().await, Shadow::default());
    assert!(!control.run(&["shadow", "end"]).status.success());
    assert_eq!(control.ok(&["shadow"]), "nothing is on trial; `apply --shadow` puts something\n");
    // Of all that nobody was told on the other stream.
    assert_eq!((proxy.version().await, nodes()), (version, before));
    assert!(control.events("revision.accepted.v1").len() == 1 && control.events("node.ack.v1").len() == 1);
    answered_by(&proxy, "one").await;
    let ended: Vec<_> =
        control.events("shadow.ended.v1").into_iter().map(|mut event| event["data"].take()).collect();
    let expected = [
        json!({ "revision": 2, "how": "replaced", "by": 3, "author": null }),
        json!({ "revision": 3, "how": "ended", "by": null, "author": "admin" }),
    ];
    assert_eq!(ended, expected);
    let begun = control.events("shadow.begun.v1");
    assert_eq!(begun[0]["data"], json!({ "revision": 2, "author": "admin", "message": "try it" }));
}

#[tokio::test]
async fn what_nodes_find_is_added_up_and_shown() {
    let (control, file) = with_file([1, 2], "");
    let node = Node { id: "plain".to_owned(), ..Node::default() };
    let first = DeltaDiscoveryRequest { node: Some(node), ..DeltaDiscoveryRequest::default() };
    let _plain = Follower::open(&control, DELTA_STREAM, first).await;
    control.ok(&["apply", "--shadow", &file]);
    let mut nodes = [Follower::start(&control, "a").await, Follower::start(&control, "b").await];
    for node in &mut nodes {
        assert_eq!(node.told().await.revision, 2);
        node.say(found(2, 10, &[("to app", "to rest", 7)]));
    }
    nodes[0].say(found(2, 5, &[("to app", "denied by rule 1", 1)]));
    until_shown(&control, "these are heard", |shown| shown["evaluated"] == 25).await;
    // About what is not on trial, and more than is taken.
    nodes[0].say(found(1, 1000, &[("to app", "no route", 1000)]));
    let many: Vec<_> = (0..200).map(|n| format!("{n:03}{}\x1b[2J", "x".repeat(1000))).collect();
    let many: Vec<_> = many.iter().map(|words| ("to app", words.as_str(), 1)).collect();
    nodes[1].say(found(2, 200, &many));
    let mut refusing = Follower::start(&control, "c").await;
    assert_eq!(refusing.told().await.revision, 2);
    refusing.say(Found { revision: 2, refused: vec!["Listener[web]: no".to_owned()], ..Found::default() });
    let shown = until_shown(&control, "all is heard", |shown| {
        shown["evaluated"] == 225
            && shown["nodes"][2]["state"] == "refuses"
            && shown["nodes"].as_array().unwrap().len() == 4
    })
    .await;
    let differences = shown["differences"].as_array().unwrap();
    let first = json!({
        "listener": "web", "in_force": "to app", "shadow": "to rest", "requests": 14, "nodes": 2,
        "example": "GET shop.example.com/cart",
    });
    assert_eq!((&differences[0], differences.len(), &shown["others"]), (&first, 101, &json!(101)));
    assert!(differences.iter().all(|of| of["shadow"].as_str().unwrap().len() <= 200));
    let nodes = shown["nodes"].as_array().unwrap().iter();
    let nodes: Vec<_> = nodes.map(|node| json!([node["id"], node["state"]])).collect();
    let expected = [["a", "follows"], ["b", "follows"], ["c", "refuses"], ["plain", "cannot"]];
    assert_eq!(json!(nodes), json!(expected));
    let said = control.ok(&["shadow"]);
    for line in [
        "revision 2 is on trial",
        "that would refuse it, and say nothing more: 1: c\n    c: Listener[web]: no\n",
        "nodes that do not ask what is on trial: 1: plain\n",
        "requests that were held up against it: 225\n",
        "LISTENER  NOW     THEN",
        "and 101 in other ways, which are not kept apart\n",
        "`shadow promote 2` puts it into force; `shadow end` ends it\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains('\x1b'));
    let told = until("events", async || {
        let told = control.events("shadow.difference.v1");
        (told.len() == 101).then_some(told)
    })
    .await;
    // Without an example, whoever may hear of it.
    let expected = json!({ "revision": 2, "node": "a", "listener": "web", "in_force": "to app", "shadow": "denied by rule 1" });
    assert_eq!(told[1]["data"], expected);
    let refused = control.events("shadow.refused.v1");
    assert_eq!(refused[0]["data"], json!({ "revision": 2, "node": "c", "why": "Listener[web]: no" }));
}

/// What was found differs from what is not in force any more; what moves no request tells of.
#[tokio::test]
async fn what_was_found_is_forgotten_when_something_else_comes_into_force() {
    let (control, file) = with_file([1, 2], "");
    control.dir().write("web.yaml", &other([1, 2]).replace("127.0.0.1:0", "127.0.0.1:9"));
    control.ok(&["apply", "--shadow", &file]);
    let mut node = Follower::start(&control, "a").await;
    assert_eq!(node.told().await.revision, 2);
    let shown = until_shown(&control, "it was told", |shown| shown["nodes"][0]["state"] == "told").await;
    let moved =
        json!({ "group": "all", "listener": "web", "in_force": "127.0.0.1:0", "shadow": "127.0.0.1:9" });
    assert_eq!(shown["listeners"], json!([moved]));
    let said = control.ok(&["shadow"]);
    assert!(
        said.contains("nodes that were told what is on trial, and have said nothing of it yet: 1: a\n"),
        "{said}"
    );
    assert!(said.contains("\n    web of all: 127.0.0.1:0, then 127.0.0.1:9\n"), "{said}");
    // That it has seen no request is something.
    node.say(found(2, 0, &[]));
    until_shown(&control, "it follows", |shown| shown["nodes"][0]["state"] == "follows").await;
    node.say(found(2, 10, &[("to app", "to rest", 7)]));
    until_shown(&control, "what it has found", |shown| shown["evaluated"] == 10).await;
    let mine = control.dir().write("mine.yaml", "clusters: { mine: { endpoints: [127.0.0.1:3] } }\n");
    control.ok(&["apply", &mine.display().to_string()]);
    let shown = control.json(&["shadow", "--json"])["on_trial"].take();
    assert_eq!(
        json!([shown["evaluated"], shown["differences"], shown["nodes"][0]["state"]]),
        json!([0, [], "follows"])
    );
    // What it says first may be of before.
    node.say(found(2, 10, &[("to app", "to rest", 7)]));
    node.say(found(2, 5, &[("to app", "to rest", 1)]));
    let shown = until_shown(&control, "what it finds now", |shown| shown["evaluated"] != 0).await;
    assert_eq!((&shown["evaluated"], &shown["differences"][0]["requests"]), (&json!(5), &json!(1)));
    assert_eq!(control.events("shadow.difference.v1").len(), 1);
}

#[tokio::test]
async fn it_is_promoted_unless_that_takes_back_what_others_changed() {
    let (control, file) = with_file([1, 2], "");
    control.ok(&["apply", "--shadow", &file]);
    let mut follower = Follower::start(&control, "f").await;
    assert_eq!(follower.told().await.revision, 2);
    // What others change leaves it as it is, and is not to be lost.
    let mine = control.dir().write("mine.yaml", "clusters: { mine: { endpoints: [127.0.0.1:3] } }\n");
    let mine = mine.display().to_string();
    control.ok(&["apply", &mine]);
    let history = control.json(&["history", "--json"]);
    let lines: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|of| json!([of["number"], of["shadow"], of["before"]]))
        .collect();
    assert_eq!(lines, [json!([3, false, 1]), json!([2, true, 1]), json!([1, false, 0])]);
    assert!(control.ok(&["history"]).contains("(shadow)"));
    // Each against what was in force.
    assert!(!control.ok(&["diff", "3"]).contains("web.yaml"));
    assert!(control.ok(&["diff", "2"]).contains("+  rest: "));
    let got = control.run(&["get", "web.yaml", "--revision", "2"]);
    assert_eq!(String::from_utf8(got.stdout).unwrap(), other([1, 2]));
    assert_eq!(
        String::from_utf8(got.stderr).unwrap(),
        "revision 2 is a shadow: it is not in force by that\n"
    );
    assert!(!control.ok(&["get", "web.yaml"]).contains("rest"));
    let refused = |args: &[&str]| {
        let said = control.run(args);
        assert!(!said.status.success());
        String::from_utf8(said.stderr).unwrap()
    };
    let said = refused(&["shadow", "promote"]);
    assert!(
        said.starts_with(
            "revision 3 is in force, and 2 was written when 1 was: to promote it would take back"
        ),
        "{said}"
    );
    assert!(refused(&["rollback", "2"]).contains("never was in force"));
    assert!(control.ok(&["shadow"]).contains("put it on trial anew before it is promoted"));
    // What was taken back is not in its way.
    control.ok(&["apply", "--remove", "mine.yaml"]);
    assert!(refused(&["shadow", "promote", "7"]).contains("revision 2 is on trial, not 7"));
    assert!(control.ok(&["shadow", "promote", "2", "--dry-run"]).contains("+  rest: "));
    let said = control.ok(&["shadow", "promote", "2"]);
    assert!(said.ends_with("revision 5 is accepted\n"), "{said}");
    assert_eq!(follower.told().await, Shadow::default());
    assert_eq!((control.ok(&["get", "web.yaml"]), &control.status()["revision"]), (other([1, 2]), &json!(5)));
    let ended = until("the event", async || control.events("shadow.ended.v1").pop()).await;
    assert_eq!(ended["data"], json!({ "revision": 2, "how": "promoted", "by": 5, "author": null }));
    assert_eq!(control.json(&["history", "--json"])[0]["message"], "promotes 2");
    // By force it takes back; and whoever applies the same has promoted it too.
    control.dir().write("web.yaml", &web(&[1]));
    control.ok(&["apply", "--shadow", &file]);
    control.ok(&["apply", &mine]);
    control.ok(&["shadow", "promote", "--force"]);
    assert_eq!(control.ok(&["get"]), "web.yaml\n");
    control.dir().write("web.yaml", &other([1, 2]));
    control.ok(&["apply", "--shadow", &file]);
    control.ok(&["apply", &file]);
    assert_eq!(control.json(&["shadow", "--json"])["on_trial"], Value::Null);
}

#[tokio::test]
async fn a_restart_and_a_rollout_leave_it_on_trial() {
    let settings = "rollout: { steps: [50%], watch: 200ms }";
    let (control, file) = with_file([1, 2], settings);
    control.ok(&["apply", "--shadow", &file, "-m", "try it"]);
    let dir = control.dir().clone();
    let before = control.json(&["shadow", "--json"]);
    control.process().kill();
    let control = Control::start_in(dir, "127.0.0.1:0", settings);
    assert_eq!(control.json(&["shadow", "--json"]), before);
    assert_eq!((&control.status()["revision"], &control.status()["shadow"]), (&json!(1), &json!(2)));
    assert_eq!(Follower::start(&control, "f").await.told().await.revision, 2);
    // It goes to some first, as anything does, and is on trial until all are told.
    control.ok(&["shadow", "promote"]);
    let status = control.status();
    assert_eq!(
        (&status["revision"], &status["candidate"], &status["shadow"]),
        (&json!(1), &json!(3), &json!(2))
    );
    assert!(control.ok(&["shadow"]).contains("; revision 3 says the same and is being rolled out; "));
    assert_eq!(control.ok(&["shadow", "promote"]), "nothing is different from revision 3\n");
    let _proxy = proxy(&control, "a").await;
    control.wait_revision(3).await;
    assert_eq!(control.status()["shadow"], Value::Null);
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_so_is_who_may_not() {
    let (control, file) = with_file([1, 2], "");
    control.dir().write("web.yaml", &other([1, 2]).replace("to: rest", "to: nobody"));
    let said = control.run(&["apply", "--shadow", &file]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("there is no cluster `nobody`"));
    control.dir().write("web.yaml", &web(&[1]));
    assert_eq!(control.ok(&["apply", "--shadow", &file]), "nothing is different from revision 1\n");
    for (method, path) in [("GET", ""), ("DELETE", ""), ("POST", "/promote")] {
        let mut client = outrigger_tests::Client::connect(control.api()).await;
        let head = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        client.send(format!("{method} /v1/shadow{path} HTTP/1.1\r\nHost: x\r\n{head}")).await;
        assert_eq!(client.reply().await.status, 401, "{method} {path}");
    }
    let mut nameless = Follower::start(&control, "").await;
    nameless.reports.send_data(Bytes::new(), true).unwrap();
    assert_eq!(nameless.end().await["grpc-status"], "3");
    // More than a report may hold.
    let mut long = Follower::start(&control, "f").await;
    long.told().await;
    long.say(Found { refused: vec!["x".repeat(2 << 20)], ..Found::default() });
    assert!(within("the end", long.try_told()).await.is_none());
    // Under `nodes: proven` it is as with all else that nodes ask.
    let control = attestation::start("ca: { trust_domain: mesh.test }\nnodes: proven");
    let mut client = pki::client(control.xds(), None).await;
    let head = "Host: x\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n";
    client.send(format!("POST {FOLLOW} HTTP/1.1\r\n{head}")).await;
    assert_eq!(client.reply().await.field("grpc-status"), Some("16"));
}

/// With a real proxy: another route, and a rule that denies.
#[tokio::test]
async fn a_proxy_says_what_would_change() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let (control, file) = with_file([port(&one), port(&two)], "");
    let proxy = proxy(&control, "a").await;
    answered_by(&proxy, "one").await;
    control.wait_in_sync(1, 1).await;
    let text = format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    authorization: [{{ deny: {{ paths: [/admin] }} }}, {{ allow: {{}} }}]\n\
         \x20   routes:\n      - {{ match: {{ path: {{ prefix: /cart }} }}, to: rest }}\n      - {{ to: app }}\n\
         clusters:\n  app: {{ endpoints: [127.0.0.1:{}] }}\n  rest: {{ endpoints: [127.0.0.1:{}] }}\n",
        port(&one),
        port(&two)
    );
    control.dir().write("web.yaml", &text);
    control.ok(&["apply", "--shadow", &file]);
    until_shown(&control, "it follows", |shown| shown["nodes"][0]["state"] == "follows").await;
    let shown = until_shown(&control, "what would change", |shown| {
        // Answers are those in force all the while.
        shown["differences"].as_array().is_some_and(|of| of.len() >= 2)
    });
    let requests = async {
        loop {
            for path in ["/", "/cart", "/admin"] {
                let reply = proxy.get("web", path).await;
                assert_eq!(
                    (reply.status, outrigger_tests::Report::parse(&reply.body).origin.as_str()),
                    (200, "one")
                );
            }
        }
    };
    let shown = tokio::select! {
        shown = shown => shown,
        () = requests => unreachable!("requests go on"),
    };
    let differences = shown["differences"].as_array().unwrap();
    let of = |word: &str| differences.iter().find(|of| of["shadow"].as_str().unwrap().contains(word));
    let (cart, admin) = (of("rest").unwrap(), of("denied").unwrap());
    assert!(
        cart["in_force"].as_str().unwrap().contains("app")
            && cart["example"].as_str().unwrap().contains("/cart")
    );
    assert!(admin["example"].as_str().unwrap().contains("/admin"), "{shown:#}");
    assert!(shown["evaluated"].as_u64().unwrap() > cart["requests"].as_u64().unwrap());
    control.ok(&["shadow", "promote"]);
    control.wait_in_sync(1, 3).await;
    let reply = proxy.get("web", "/cart").await;
    assert_eq!(outrigger_tests::Report::parse(&reply.body).origin, "two");
    assert_eq!(proxy.get("web", "/admin").await.status, 403);
    answered_by(&proxy, "one").await;
}

/// More than gRPC takes by default.
#[tokio::test]
async fn a_proxy_takes_a_large_one() {
    let one = Echo::start("one").await;
    let (control, file) = with_file([port(&one), port(&one)], "");
    let proxy = proxy(&control, "a").await;
    answered_by(&proxy, "one").await;
    let paths: Vec<_> = (0..600).map(|n| format!("/{n}/{}", "x".repeat(8000))).collect();
    let rules = format!("authorization: [{{ allow: {{}} }}, {{ deny: {{ paths: {paths:?} }} }}], routes:");
    control.dir().write("web.yaml", &web(&[port(&one)]).replacen("routes:", &rules, 1));
    control.ok(&["apply", "--shadow", &file]);
    until_shown(&control, "it follows", |shown| shown["nodes"][0]["state"] == "follows").await;
    until("what is on trial", async || {
        (proxy.ask_json("/shadow").await["listeners"] == json!(["web"])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_found_of_another_revision_in_force_is_forgotten() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let (control, file) = with_file([port(&one), port(&two)], "");
    let proxy = proxy(&control, "a").await;
    answered_by(&proxy, "one").await;
    control.ok(&["apply", "--shadow", &file]);
    let shown = async |evaluated: u64, listeners: Value| {
        until("what the proxy has found", async || {
            let shown = proxy.ask_json("/shadow").await;
            (shown["evaluated"] == evaluated && shown["listeners"] == listeners).then_some(shown)
        })
        .await
    };
    shown(0, json!(["web"])).await;
    until("a difference", async || {
        proxy.get("web", "/").await;
        (proxy.ask_json("/shadow").await["evaluated"] != 0).then_some(())
    })
    .await;
    control.dir().write("web.yaml", &web(&[port(&one)]).replace("to: app", "to: app, timeout: 9s"));
    control.ok(&["apply", &file]);
    control.wait_in_sync(1, 3).await;
    let shown = shown(0, json!(["web"])).await;
    assert_eq!((&shown["revision"], &shown["differences"]), (&json!(2), &json!([])));
}

#[tokio::test]
async fn a_proxy_that_wants_no_trials_has_none() {
    let one = Echo::start("one").await;
    let (control, file) = with_file([port(&one), port(&one)], "");
    let text = format!("node: {{ id: b }}\nxds: {{ server: \"http://{}\", trials: false }}\n", control.xds());
    let without = Proxy::start(&text).await;
    let _with = proxy(&control, "a").await;
    answered_by(&without, "one").await;
    control.ok(&["apply", "--shadow", &file]);
    let shown = until_shown(&control, "one follows", |shown| shown["nodes"][0]["state"] == "follows").await;
    assert_eq!((&shown["nodes"][1]["id"], &shown["nodes"][1]["state"]), (&json!("b"), &json!("cannot")));
    assert_eq!(without.ask_json("/shadow").await["listeners"], json!([]));
}
