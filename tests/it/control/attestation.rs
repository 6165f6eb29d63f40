//! Who a node is, and by what the control plane knows: over TLS, with proxies that ask and ask again.

use std::process::Output;
use std::sync::Arc;

use outrigger_tests::pki::Authority;
use outrigger_tests::{Control, Dir, Echo, Proxy, until};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{answered_by, port, web};

const ID: &str = "spiffe://mesh.test/web";

/// A control plane that proves who it is, with these further settings.
pub(crate) fn start(settings: &str) -> Control {
    start_in(Arc::new(Dir::new()), settings)
}

/// The same, where the files are that the settings name.
pub(crate) fn start_in(dir: Arc<Dir>, settings: &str) -> Control {
    std::fs::create_dir(dir.file("mesh")).unwrap();
    prove(&dir);
    let tls = "tls: { certificate: tls.crt, private_key: tls.key }";
    Control::start_in(dir, "127.0.0.1:0", &format!("{tls}\n{settings}"))
}

/// Writes what it shows, and by which root that is believed.
fn prove(dir: &Dir) {
    let authority = Authority::new("control.test");
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let shown = authority.sign(params);
    dir.write("ca.crt", &authority.pem());
    dir.write("tls.crt", &shown.chain);
    dir.write("tls.key", &shown.key);
}

/// The command line, which believes it.
pub(crate) fn ok(control: &Control, args: &[&str]) -> String {
    let Output { status, stdout, stderr } = run(control, args);
    assert!(status.success(), "{args:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// The same, whatever comes of it.
pub(crate) fn run(control: &Control, args: &[&str]) -> Output {
    let server = format!("https://localhost:{}", control.api().port());
    let trust = control.dir().file("ca.crt").display().to_string();
    control.run(&[args, &["--server", &server, "--trust", &trust]].concat())
}

pub(crate) fn events(control: &Control, kind: &str) -> Vec<Value> {
    let all = ok(control, &["events"]);
    let all = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|event| event["type"] == format!("dev.outrigger.{kind}")).collect()
}

/// By what those were known who were signed for, in turn.
fn issued(control: &Control) -> Vec<String> {
    let issued = events(control, "certificate.issued.v1");
    issued.iter().map(|event| event["data"]["by"].as_str().unwrap().to_owned()).collect()
}

/// Where it is asked, and with what it is believed.
pub(crate) fn at(control: &Control) -> String {
    let trust = control.dir().file("ca.crt");
    format!("server: \"https://localhost:{}\", trust: {}", control.xds().port(), trust.display())
}

/// What a proxy asks by, with the token in `join.token`, and that it shows it.
pub(crate) fn asks(control: &Control) -> String {
    format!(
        "identity: {{ csr: {{ {}, token: join.token }} }}\nlisteners:\n  in: {{ bind: 127.0.0.1:0, mtls: strict, routes: [{{ respond: {{ status: 204 }} }}] }}\n",
        at(control)
    )
}

/// One that may never be ready.
fn spawn(dir: &Arc<Dir>, config: &str) -> Proxy {
    let file = dir.write("outrigger.yaml", &outrigger_tests::proxy::with_admin(config));
    Proxy::spawn(dir.clone(), &file, &[])
}

#[tokio::test]
async fn what_it_shows_is_replaced_without_a_restart() {
    let control = start("");
    ok(&control, &["status"]);
    prove(control.dir());
    until("it is believed by the new root", async || {
        run(&control, &["status"]).status.success().then_some(())
    })
    .await;
}

/// A token is shown once, and then neither needed nor good any more; what comes of it goes on until it is taken back.
#[tokio::test]
async fn a_token_is_needed_once_and_can_be_taken_back() {
    let control = start("ca: { trust_domain: mesh.test, lifetime: 10s }");
    let dir = Arc::new(Dir::new());
    dir.write("join.token", &ok(&control, &["token", "join", ID, "--once"]));
    let proxy = Proxy::start_in(dir.clone(), &asks(&control)).await;
    until("it is somebody", async || (proxy.ask("/ready").await.status == 200).then_some(())).await;
    std::fs::remove_file(dir.file("join.token")).unwrap();
    until("certificates of certificates", async || (issued(&control).len() >= 3).then_some(())).await;
    assert_eq!(issued(&control)[..3], ["join token", "certificate", "certificate"]);
    assert_eq!(proxy.ask("/ready").await.status, 200);
    let joins = ok(&control, &["token", "joins"]);
    assert!(joins.contains(ID) && joins.contains("  once  in use until ") && !joins.contains("outrigger_"));
    let id = joins.split_whitespace().next().unwrap();
    ok(&control, &["token", "unjoin", id]);
    proxy.wait_log("this join token was taken back").await;
    let end = issued(&control).len();
    until("it is nobody", async || (proxy.ask("/ready").await.status == 503).then_some(())).await;
    assert_eq!(issued(&control).len(), end);
    assert!(ok(&control, &["token", "joins"]).contains("  taken back "));
    let revoked = events(&control, "join.revoked.v1");
    assert_eq!((&revoked[0]["data"]["id"], &revoked[0]["data"]["author"]), (&id.into(), &"admin".into()));
    // A new token is all that it takes.
    dir.write("join.token", &ok(&control, &["token", "join", ID]));
    until("it is somebody", async || (proxy.ask("/ready").await.status == 200).then_some(())).await;
}

/// A service of somebody's, which knows one ticket.
async fn verifier() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
            while !text.ends_with(b"}") {
                match stream.read(&mut buffer).await {
                    Ok(read @ 1..) => text.extend_from_slice(&buffer[..read]),
                    Ok(0) | Err(_) => break,
                }
            }
            let is_good = String::from_utf8_lossy(&text).contains("\"ticket-7\"");
            let body = if is_good {
                format!("{{\"spiffe_id\":\"{ID}\"}}")
            } else {
                "{\"refused\":\"no such ticket\"}".to_owned()
            };
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).await.unwrap();
        }
    });
    port
}

#[tokio::test]
async fn somebody_else_may_know_who_a_node_is() {
    let port = verifier().await;
    let control = start(&format!(
        "ca: {{ trust_domain: mesh.test, attest: {{ verifier: {{ url: \"http://127.0.0.1:{port}/\" }} }} }}"
    ));
    let shows = |ticket: &str| {
        let dir = Arc::new(Dir::new());
        dir.write("join.token", ticket);
        spawn(&dir, &asks(&control))
    };
    shows("ticket-8").wait_log("the verifier has refused: no such ticket").await;
    assert!(issued(&control).is_empty());
    shows("ticket-7").wait_log("the identity is in force").await;
    assert_eq!(issued(&control), ["verifier"]);
}

/// Nobody hears anything who has not proven who it is; and whoever has it from here, does by itself.
#[tokio::test]
async fn those_who_have_proven_who_they_are_are_told_alone() {
    let one = Echo::start("one").await;
    let control = start("ca: { trust_domain: mesh.test }\nnodes: proven");
    control.document("web.yaml", &web(&[port(&one)]));
    let node = |id: &str| format!("node: {{ id: {id} }}\nxds: {{ {} }}\n", at(&control));
    let stranger = spawn(&Arc::new(Dir::new()), &node("stranger"));
    stranger.wait_log("a certificate of ours is to be shown").await;
    let dir = Arc::new(Dir::new());
    dir.write("join.token", &ok(&control, &["token", "join", ID]));
    let known = Proxy::start_in(dir, &(node("known") + &asks(&control))).await;
    known.wait_metric("outrigger_xds_connected", |connected| connected > 0.0).await;
    answered_by(&known, "one").await;
    let nodes: Vec<_> = events(&control, "node.up.v1");
    assert!(!nodes.is_empty() && nodes.iter().all(|event| event["subject"] == "node/known"), "{nodes:?}");
    stranger.wait_log("admin listening").await;
    assert_eq!(stranger.metric("outrigger_xds_connected").await, 0.0);
}

/// For programs that cannot ask: as files, and anew by what is in them.
#[tokio::test]
async fn an_identity_is_written_into_files_and_renewed_by_them() {
    let control = start("ca: { trust_domain: mesh.test }");
    let dir = Dir::new();
    let token = dir.write("join.token", &ok(&control, &["token", "join", ID, "--once"]));
    let (out, trust) = (dir.file("own"), control.dir().file("ca.crt"));
    let server = format!("https://localhost:{}", control.xds().port());
    let asked = |more: &[&str]| {
        let [token, out, trust] = [&token, &out, &trust].map(|path| path.to_str().unwrap());
        let files = ["--trust", trust, "--token", token, "--out", out];
        outrigger_tests::control::outrigger_control(
            &[&["identity", "--server", &server], &files[..], more].concat(),
        )
    };
    let get = || asked(&[]);
    let dry = asked(&["--dry-run"]);
    assert!(dry.status.success() && !out.exists(), "{dry:?}");
    assert!(String::from_utf8_lossy(&dry.stdout).contains("can be asked"), "{dry:?}");
    let mut chains = Vec::new();
    for _ in 0..3 {
        let got = get();
        assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
        let _ = std::fs::remove_file(&token);
        chains.push(std::fs::read_to_string(out.join("identity.crt")).unwrap());
    }
    assert!(chains[0] != chains[1] && chains[1] != chains[2]);
    assert_eq!(issued(&control), ["join token", "certificate", "certificate"]);
    let roots = std::fs::read_to_string(out.join("roots.crt")).unwrap();
    assert_eq!(roots, ok(&control, &["ca", "bundle"]));
    let mode = std::fs::metadata(out.join("identity.key")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    let joins = ok(&control, &["token", "joins"]);
    ok(&control, &["token", "unjoin", joins.split_whitespace().next().unwrap()]);
    let refused = String::from_utf8(get().stderr).unwrap();
    assert!(refused.contains("signs nothing: this join token was taken back"), "{refused}");
    assert_eq!(std::fs::read_to_string(out.join("identity.crt")).unwrap(), chains[2]);
    // In the clear nothing is said.
    let plain = ["identity", "--server", "http://localhost:1", "--out", out.to_str().unwrap()];
    let refused = String::from_utf8(outrigger_tests::control::outrigger_control(&plain).stderr).unwrap();
    assert!(refused.contains("write `https://`"), "{refused}");
}
