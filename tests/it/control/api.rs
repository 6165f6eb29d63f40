//! What people ask and change.

use outrigger_tests::control::outrigger_control;
use outrigger_tests::{Client, Control, Echo, until, within};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::{answered_by, port, proxy, web};

#[tokio::test]
async fn what_is_applied_is_shown_kept_and_rolled_back() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let control = Control::start("", &[]);
    let proxy = proxy(&control, "a").await;
    let (first, second) = (web(&[port(&one)]), web(&[port(&two)]));
    let file = control.dir().write("web.yaml", &first).display().to_string();
    // Only said.
    let said = control.ok(&["apply", &file, "--dry-run"]);
    assert!(said.contains("+++ b/web.yaml\n") && said.contains("revision 0 stays"), "{said}");
    assert_eq!(control.status()["revision"], 0);
    let said = control.ok(&["apply", &file, "-m", "the first"]);
    assert!(said.ends_with("revision 1 is accepted\n"), "{said}");
    answered_by(&proxy, "one").await;
    // The same once more is no revision.
    assert_eq!(control.ok(&["apply", &file]), "nothing is different from revision 1\n");
    control.dir().write("web.yaml", &second);
    let diff = control.ok(&["diff", &file]);
    assert!(diff.contains(&format!("-  app: {{ endpoints: [127.0.0.1:{}] }}\n", port(&one))), "{diff}");
    control.ok(&["apply", &file]);
    answered_by(&proxy, "two").await;
    assert_eq!(control.ok(&["diff", "2"]), diff);
    // Against another one, and against nothing.
    let back = control.ok(&["diff", "1", "--from", "2"]);
    assert!(back.contains(&format!("+  app: {{ endpoints: [127.0.0.1:{}] }}\n", port(&one))), "{back}");
    let all = control.ok(&["diff", "2", "--from", "0"]);
    assert_eq!(
        all.lines().filter(|line| line.starts_with("+ ")).count(),
        second.lines().count() - 2,
        "{all}"
    );
    let refused = control.run(&["diff", &file, "--from", "1"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("goes with the number of a revision"));
    assert_eq!(control.ok(&["get"]), "web.yaml\n");
    assert_eq!(control.ok(&["get", "web.yaml"]), second);
    assert_eq!(control.ok(&["get", "web.yaml", "--revision", "1"]), first);
    control.ok(&["rollback", "1", "-m", "it was better"]);
    answered_by(&proxy, "one").await;
    control.wait_in_sync(1, 3).await;
    let history = control.json(&["history", "--json"]);
    let lines: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| json!([entry["number"], entry["author"], entry["message"], entry["rollback_to"]]))
        .collect();
    assert_eq!(
        lines,
        [
            json!([3, "admin", "it was better", 1]),
            json!([2, "admin", "", null]),
            json!([1, "admin", "the first", null])
        ]
    );
    control.ok(&["apply", "--remove", "web.yaml"]);
    control.wait_revision(4).await;
    let said = control.run(&["apply", "--remove", "web.yaml"]);
    assert_eq!(String::from_utf8_lossy(&said.stderr), "there is no document `web.yaml`\n");
}

#[tokio::test]
async fn what_is_wrong_is_refused_at_the_door_in_the_words_of_the_proxy() {
    let control = Control::start("", &[("web.yaml", &web(&[1]))]);
    control.wait_revision(1).await;
    let refused = |text: &str| {
        let file = control.dir().write("new.yaml", text).display().to_string();
        let said = control.run(&["apply", &file]);
        assert!(!said.status.success());
        String::from_utf8(said.stderr).unwrap()
    };
    assert_eq!(
        refused("clusters:\n  x: { endpoints: [127.0.0.1:1], balance: fast }\n"),
        "new.yaml:2:43: clusters.x.balance: `fast` is not known here; expected one of `peak-ewma`, `least-request`, `round-robin`, `random`, `ring-hash`, `maglev`\n"
    );
    let taken = refused("clusters:\n  app: { endpoints: [127.0.0.1:1] }\n");
    assert_eq!(
        taken,
        "new.yaml:2:3: clusters.app: another document has this name already; rename one of them\n"
    );
    let files = refused("clusters:\n  x: { endpoints: [127.0.0.1:1], tls: { sni: x, trust: /roots.pem } }\n");
    let expected =
        "new.yaml:2:56: clusters.x.tls.trust: a file of the proxies' machines is not named from afar";
    assert!(files.starts_with(expected), "{files}");
    // What stands in the directory is changed there.
    let file = control.dir().write("mine.yaml", "").display().to_string();
    let said = control.run(&["apply", "--remove", "directory/web.yaml", &file]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("change it there"));
    assert_eq!(control.status()["revision"], 1);
}

#[tokio::test]
async fn changes_need_a_token_and_reads_can_be_opened() {
    let control = Control::start("reads: open", &[]);
    let api = control.api();
    let ask = async |head: &str| {
        let mut client = Client::connect(api).await;
        client.send(head).await;
        client.reply().await
    };
    let asks = [
        ("GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        ("GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        ("GET /v1/tokens HTTP/1.1\r\nHost: x\r\n\r\n", 401),
        ("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (
            "POST /v1/rollback HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{\"to\":1}",
            401,
        ),
        (
            "POST /v1/ca/rotate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\nContent-Length: 0\r\n\r\n",
            401,
        ),
    ];
    for (head, status) in asks {
        assert_eq!(ask(head).await.status, status, "{head}");
    }
    let token = control.ok(&["token", "create", "ci"]);
    assert!(control.ok(&["token", "list"]).contains("ci  since "));
    let file = control.dir().write("web.yaml", &web(&[1])).display().to_string();
    let own = control.dir().write("ci.token", &token).display().to_string();
    control.ok(&["apply", &file, "--token-file", &own]);
    assert_eq!(control.json(&["history", "--json"])[0]["author"], "ci");
    control.ok(&["token", "revoke", "ci"]);
    let refused = control.run(&["apply", "--remove", "web.yaml", "--token-file", &own]);
    assert!(String::from_utf8_lossy(&refused.stderr).starts_with("this token is not known here"));
}

/// Misspelt, a shadow would be in force.
#[tokio::test]
async fn what_is_not_understood_changes_nothing() {
    let control = Control::start("", &[("web.yaml", &web(&[1]))]);
    control.wait_revision(1).await;
    let token = std::fs::read_to_string(control.dir().file("store/admin.token")).unwrap();
    let ask = async |head: &str, body: &str| {
        let mut client = Client::connect(control.api()).await;
        let length = body.len();
        let fields = format!("Content-Type: application/json\r\nContent-Length: {length}");
        let head =
            format!("{head} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n{fields}", token.trim());
        client.send(format!("{head}\r\n\r\n{body}")).await;
        client.reply().await.status
    };
    let put =
        |key: &str| format!(r#"{{"documents": {{"a.yaml": "clusters: {{}}\n"}}, "message": "x"{key}}}"#);
    let asks = [
        ("POST /v1/revisions?Shadow=true", put(""), 400),
        ("POST /v1/revisions?shadow=true", put(""), 400),
        ("POST /v1/revisions", put(r#", "Shadow": true"#), 422),
        ("POST /v1/rollback?dry=true", r#"{"to": 1}"#.to_owned(), 400),
        ("POST /v1/shadow/promote?dry_run", "{}".to_owned(), 400),
        ("DELETE /v1/tokens/admin?dry_run=yes", String::new(), 400),
        ("DELETE /v1/tokens/admin?dry_run=true&dry_run=false", String::new(), 400),
        ("DELETE /v1/tokens/admin?dry_run=true&force=true", String::new(), 400),
        ("DELETE /v1/tokens/admin?dry_run=true", String::new(), 200),
        ("GET /v1/revisions?Most=1", String::new(), 400),
        ("GET /v1/revisions/1/diff?form=1", String::new(), 400),
        ("GET /v1/events?since=1", String::new(), 400),
        ("GET /v1/revisions?most=1", String::new(), 200),
    ];
    for (head, body, status) in asks {
        assert_eq!(ask(head, &body).await, status, "{head} {body}");
    }
    assert_eq!((&control.status()["revision"], &control.status()["shadow"]), (&1.into(), &Value::Null));
    assert_eq!(ask("POST /v1/revisions", &put(r#", "shadow": true"#)).await, 200);
    assert_eq!((&control.status()["revision"], &control.status()["shadow"]), (&1.into(), &2.into()));
}

/// Whatever is asked, and whoever asks.
#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_is_refused_what_would_be() {
    let control = Control::start("ca: { trust_domain: mesh.test }", &[("web.yaml", &web(&[1]))]);
    control.wait_revision(1).await;
    let file = control.dir().write("new.yaml", "clusters: { x: { endpoints: [127.0.0.1:1] } }\n");
    control.ok(&["apply", "--shadow", &file.display().to_string()]);
    control.ok(&["token", "create", "ci"]);
    control.ok(&["token", "join", "spiffe://mesh.test/a"]);
    let joins = control.ok(&["token", "joins"]);
    let (id, _) = joins.split_once(' ').unwrap();
    let seen = || {
        [&["token", "list"][..], &["token", "joins"], &["ca", "bundle"], &["shadow"], &["history"]]
            .map(|args| control.ok(args))
    };
    let events = async || until("the events", async || control.events("join.created.v1").pop()).await;
    events().await;
    let (before, told) = (seen(), control.ok(&["events"]));
    let said = [
        (&["token", "create", "ci"][..], "make a token of `ci`, beside 1 that stay good"),
        (
            &["token", "join", "spiffe://mesh.test/b", "--once"],
            "make a token by which a node is `spiffe://mesh.test/b`",
        ),
        (&["token", "revoke", "ci"], "forget the token of `ci`"),
        (
            &["token", "unjoin", id],
            "take back the token of `spiffe://mesh.test/a`, and all that goes back to it",
        ),
        (&["ca", "rotate"], "make root 2 of `mesh.test`, to be believed beside the 1 that there are"),
        (&["shadow", "end"], "end the trial of revision 2"),
    ];
    for (args, would) in said {
        let said = control.ok(&[args, &["--dry-run"]].concat());
        assert!(said.starts_with(&format!("this would {would}")), "{said}");
        assert!(said.ends_with("; nothing is changed: this was a dry run\n"), "{said}");
    }
    let refused = [
        (&["token", "create", "rollout"][..], "is no name of a token"),
        (&["token", "join", "spiffe://elsewhere.test/b"], "is not of the trust domain `mesh.test`"),
        (&["token", "revoke", "nobody"], "there is no token of `nobody`"),
        (&["token", "unjoin", "0123456789abcdef"], "there is no join token"),
        (&["ca", "rotate", "--token-file", "/dev/null"], "a token is needed"),
    ];
    for (args, why) in refused {
        let said = control.run(&[args, &["--dry-run"]].concat());
        assert!(!said.status.success(), "{args:?}");
        assert!(String::from_utf8_lossy(&said.stderr).contains(why), "{args:?}: {said:?}");
    }
    assert_eq!((seen(), control.ok(&["events"])), (before, told));
    // What it said is what comes to pass.
    for (args, _) in said {
        control.ok(args);
    }
    let gone = ["token revoke ci", "shadow end", &format!("token unjoin {id}")].map(|line| {
        let args: Vec<_> = line.split(' ').chain(["--dry-run"]).collect();
        control.run(&args).status.success()
    });
    assert_eq!(gone, [false; 3]);
}

#[tokio::test]
async fn reads_need_one_too_unless_they_are_open() {
    let control = Control::start("", &[]);
    let reply = Client::connect(control.api()).await.get("/v1/status").await;
    assert_eq!(reply.status, 401);
    assert!(reply.text().contains("a token is needed"), "{}", reply.text());
}

#[tokio::test]
async fn events_are_kept_and_told_to_whoever_listens() {
    let control = Control::start("reads: open", &[]);
    let file = control.dir().write("web.yaml", &web(&[1])).display().to_string();
    control.ok(&["apply", &file]);
    let events = control.events("revision.accepted.v1");
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!((&event["specversion"], &event["subject"]), (&json!("1.0"), &json!("revision/1")));
    assert_eq!(event["data"], json!({ "number": 1, "author": "admin", "message": "", "rollback_to": null }));
    // And what it looks like is said.
    let schema = control.json(&["events", "--schema"]);
    let keys = &schema["$defs"][event["type"].as_str().unwrap()]["properties"];
    assert!(keys["rollback_to"].is_object() && keys.as_object().unwrap().len() == 4, "{schema:#}");
    // From the one that is known on, and then what comes.
    let mut listener = Client::connect(control.api()).await;
    let id = event["id"].as_str().unwrap();
    let head = format!(
        "GET /v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nLast-Event-ID: {id}\r\n\r\n"
    );
    listener.send(head).await;
    control.ok(&["apply", "--remove", "web.yaml", "-m", "gone"]);
    let seen = read_until(listener, "\"message\":\"gone\"").await;
    assert!(
        seen.contains("event: dev.outrigger.revision.accepted.v1") && !seen.contains("\"number\":1,"),
        "{seen}"
    );
}

/// Everything up to this.
async fn read_until(client: Client, end: &str) -> String {
    let (mut stream, mut seen) = client.into_parts();
    let reading = async {
        while !String::from_utf8_lossy(&seen).contains(end) {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "the stream goes on");
        }
    };
    within(end, reading).await;
    String::from_utf8_lossy(&seen).into_owned()
}

#[test]
fn documents_are_checked_without_a_control_plane() {
    let documents = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/mesh/documents");
    let said = outrigger_control(&["check", documents]);
    assert_eq!(
        String::from_utf8_lossy(&said.stdout),
        "group front  listeners: web  clusters: cart shop\nok\n"
    );
    let dir = outrigger_tests::Dir::new();
    let file = dir.write("a.yaml", "clusters: { x: { endpoint: [] } }").display().to_string();
    let said = outrigger_control(&["check", &file]);
    assert!(!said.status.success());
    let said = String::from_utf8_lossy(&said.stderr);
    assert!(
        said.contains(
            "a.yaml:1:18: clusters.x.endpoint: there is no such key in `cluster`; did you mean `endpoints`?"
        ),
        "{said}"
    );
}

#[test]
fn a_configuration_that_is_open_to_others_in_the_clear_is_refused() {
    let dir = outrigger_tests::Dir::new();
    let file = dir.write("control.yaml", "api: 0.0.0.0:18001\nstroe: x\n").display().to_string();
    let said = outrigger_control(&["run", &file]);
    let said = String::from_utf8(said.stderr).unwrap();
    assert_eq!(
        said,
        format!(
            "{file}:1:6: api: `0.0.0.0:18001` is open to others, who could read tokens and configurations; \
             write `tls: {{ certificate, private_key }}`, or an address on loopback\n\
             {file}:2:1: stroe: there is no such key in `control plane`; did you mean `store`?\n"
        )
    );
}

/// Nothing of what is named is there, and nothing is made.
#[test]
fn what_would_run_is_said_without_running() {
    let dir = outrigger_tests::Dir::new();
    let file = dir.write(
        "control.yaml",
        "store: store\nreads: open\nca: { trust_domain: mesh.test }\nrollout: { steps: [12.5%] }\n",
    );
    let file = file.display().to_string();
    let said = outrigger_control(&["run", "--dry-run", &file]);
    let store = dir.file("store").display().to_string();
    assert_eq!(
        String::from_utf8_lossy(&said.stdout),
        format!(
            "listens for nodes (xDS) at 127.0.0.1:18000, in the clear\n\
             listens for people (API) at 127.0.0.1:18001, in the clear; reads are open\n\
             keeps what is its own in {store}, which it makes\n\
             gives identities of mesh.test for 86400s, by roots that it makes\n\
             tells a revision to 12.5 % of each group before all\n\
             nothing is started: this was a dry run\n"
        ),
        "{said:?}"
    );
    assert!(!dir.file("store").exists());
    // All that is wrong, at once.
    let settings = "tls: { certificate: a.crt, private_key: a.key }\ndocuments: mesh\nca: { trust_domain: mesh.test, root: { certificate: b.crt, private_key: b.key } }\n";
    dir.write("control.yaml", settings);
    let said = outrigger_control(&["run", "--dry-run", &file]);
    assert!(!said.status.success() && said.stdout.is_empty());
    let wrong = String::from_utf8(said.stderr).unwrap();
    assert_eq!(wrong.lines().count(), 3, "{wrong}");
    for (line, file) in wrong.lines().zip(["a.crt", "mesh", "b.crt"]) {
        assert!(line.starts_with(&dir.file(file).display().to_string()), "{wrong}");
    }
}

/// Whoever may be asked from afar proves who it is, over both of its ports.
#[tokio::test]
async fn it_is_asked_and_asks_over_tls() {
    let authority = outrigger_tests::pki::Authority::new("control.test");
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let shown = authority.sign(params);
    let dir = std::sync::Arc::new(outrigger_tests::Dir::new());
    std::fs::create_dir(dir.file("mesh")).unwrap();
    dir.write("ca.crt", &authority.pem());
    dir.write("tls.crt", &shown.chain);
    dir.write("tls.key", &shown.key);
    let settings = "tls: { certificate: tls.crt, private_key: tls.key }";
    let control = Control::start_in(dir.clone(), "127.0.0.1:0", settings);
    let one = Echo::start("one").await;
    control.document("web.yaml", &web(&[port(&one)]));
    let server = format!("https://localhost:{}", control.api().port());
    let trust = dir.file("ca.crt").display().to_string();
    until("the revision", async || {
        let said = control.run(&["status", "--json", "--server", &server, "--trust", &trust]);
        String::from_utf8_lossy(&said.stdout).contains("\"revision\": 1").then_some(())
    })
    .await;
    let said = control.run(&["status", "--server", &server]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("cannot be asked"), "{said:?}");
    let file = format!(
        "node: {{ id: a }}\nxds: {{ server: \"https://localhost:{}\", trust: {trust} }}\n",
        control.xds().port()
    );
    let proxy = outrigger_tests::Proxy::start(&file).await;
    answered_by(&proxy, "one").await;
}
