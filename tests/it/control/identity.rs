//! Identities that the control plane gives, between two proxies that prove them.

use std::sync::Arc;

use outrigger_tests::{Control, Dir, Echo, Proxy, until};

use super::port;

const CA: &str = "ca: { trust_domain: mesh.test, lifetime: 1h }";

/// A file that says which identity is asked for, with the token for it.
fn identity(control: &Control, dir: &Dir, id: &str) -> String {
    let token = control.ok(&["token", "join", id]);
    let token = dir.write("join.token", &token);
    format!("identity: {{ csr: {{ server: \"http://{}\", token: {} }} }}\n", control.xds(), token.display())
}

#[tokio::test]
async fn two_proxies_prove_who_they_are() {
    let one = Echo::start("one").await;
    let control = Control::start(CA, &[]);
    let (near, far) = (Arc::new(Dir::new()), Arc::new(Dir::new()));
    let server = format!(
        "{}listeners:\n  in: {{ bind: 127.0.0.1:0, mtls: strict, routes: [{{ to: app }}] }}\nclusters:\n  app: {{ endpoints: [127.0.0.1:{}] }}\n",
        identity(&control, &far, "spiffe://mesh.test/server"),
        port(&one)
    );
    let server = Proxy::start_in(far, &server).await;
    let client = |expects: &str| {
        format!(
            "{}listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: peer }}] }}\nclusters:\n  peer: {{ endpoints: [{}], mtls: {{ peers: [\"{expects}\"] }} }}\n",
            identity(&control, &near, "spiffe://mesh.test/client"),
            server.address("in")
        )
    };
    let good = Proxy::start_in(near.clone(), &client("spiffe://mesh.test/server")).await;
    until("the call goes through", async || (good.get("web", "/").await.status == 200).then_some(())).await;
    let issued = control.events("certificate.issued.v1");
    let mut ids: Vec<_> = issued.iter().map(|event| event["subject"].as_str().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["spiffe://mesh.test/client", "spiffe://mesh.test/server"]);
    // Whoever is expected to be another is not believed.
    let bad = Proxy::start_in(near.clone(), &client("spiffe://mesh.test/other")).await;
    assert_eq!(bad.get("web", "/").await.status, 503);
}

#[tokio::test]
async fn only_whoever_shows_a_token_is_signed_for() {
    let control = Control::start(CA, &[]);
    let refused = control.run(&["token", "join", "spiffe://elsewhere.test/x"]);
    let refused = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.contains("is not of the trust domain `mesh.test`"), "{refused}");
    let dir = Arc::new(Dir::new());
    let good = identity(&control, &dir, "spiffe://mesh.test/a");
    dir.write("join.token", "outrigger_made_up");
    let listener =
        "listeners:\n  web: { bind: 127.0.0.1:0, mtls: strict, routes: [{ respond: { status: 204 } }] }\n";
    let file = dir.write("outrigger.yaml", &outrigger_tests::proxy::with_admin(&(good + listener)));
    let proxy = Proxy::spawn(dir, &file, &[]);
    proxy.wait_log("this join token is not known here").await;
    assert!(control.events("certificate.issued.v1").is_empty());
}

#[tokio::test]
async fn a_new_root_is_believed_before_it_signs_and_all_are_kept() {
    let control = Control::start(CA, &[]);
    let roots = |text: &str| text.matches("BEGIN CERTIFICATE").count();
    assert_eq!(roots(&control.ok(&["ca", "bundle"])), 1);
    control.ok(&["ca", "rotate"]);
    let both = control.ok(&["ca", "bundle"]);
    assert_eq!(roots(&both), 2);
    let key = control.dir().file("store/ca/root-2.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    until("the event", async || control.events("ca.rotated.v1").pop()).await;
    control.process().kill();
    let control = Control::start_in(control.dir().clone(), "127.0.0.1:0", CA);
    assert_eq!(control.ok(&["ca", "bundle"]), both);
}

/// All of it from the control plane: who they are, that they prove it, and whom they expect.
#[tokio::test]
async fn a_mesh_proves_who_it_is_by_what_it_is_told() {
    let one = Echo::start("one").await;
    let document = format!(
        "listeners:
  in: {{ bind: 127.0.0.1:0, mtls: strict, authorization: [{{ allow: {{ peers: [\"spiffe://mesh.test/client\"] }} }}], routes: [{{ to: app }}] }}
clusters:
  app: {{ endpoints: [127.0.0.1:{}] }}
proxies:
  server: {{ select: {{ labels: {{ role: server }} }}, listeners: [in] }}
",
        port(&one)
    );
    let control = Control::start(CA, &[("server.yaml", &document)]);
    let node = |id: &str, role: &str, dir: &Dir| {
        format!(
            "node: {{ id: {id}, metadata: {{ labels: {{ role: {role} }} }} }}\nxds: {{ server: \"http://{}\" }}\n{}",
            control.xds(),
            identity(&control, dir, &format!("spiffe://mesh.test/{id}"))
        )
    };
    let dirs: [Arc<Dir>; 3] = std::array::from_fn(|_| Arc::new(Dir::new()));
    let server = Proxy::start_in(dirs[0].clone(), &node("server", "server", &dirs[0])).await;
    let client = format!(
        "listeners:
  web: {{ bind: 127.0.0.1:0, routes: [{{ to: peer }}] }}
clusters:
  peer: {{ endpoints: [{}], mtls: {{ peers: [\"spiffe://mesh.test/server\"] }} }}
proxies:
  client: {{ select: {{ labels: {{ role: client }} }}, listeners: [web] }}
",
        server.address("in")
    );
    control.document("client.yaml", &client);
    let good = Proxy::start_in(dirs[1].clone(), &node("client", "client", &dirs[1])).await;
    until("the call goes through", async || (good.get("web", "/").await.status == 200).then_some(())).await;
    // Whoever is somebody else proves it, and is told no.
    let other = Proxy::start_in(dirs[2].clone(), &node("other", "client", &dirs[2])).await;
    until("the call is refused", async || (other.get("web", "/").await.status == 403).then_some(())).await;
    control.wait_in_sync(3, 2).await;
}
