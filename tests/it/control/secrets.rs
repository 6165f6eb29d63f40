//! Secrets that documents name, out of files of the control plane: told to those who prove that they may have them, told anew
//! when the files change, and found nowhere else.

use std::sync::Arc;
use std::time::Duration;

use outrigger_tests::pki::{self, Authority, Svid, shown};
use outrigger_tests::{Control, Dir, Echo, Proxy, until};
use serde_json::Value;

use super::attestation::{at, events, ok, run, start_in};
use super::port;

const SETTINGS: &str = "ca: { trust_domain: mesh.test }
secrets:
  shop: { certificate: shop.crt, private_key: shop.key, nodes: [\"spiffe://mesh.test/shop/*\"] }
  next: { certificate: next.crt, private_key: next.key, nodes: [\"spiffe://mesh.test/shop/web\"] }
  partners: { trust: partners.crt }";

/// A listener with a certificate of its own, one that anybody may reach, and a way to the first, where that is known.
fn document(app: u16, to: Option<std::net::SocketAddr>) -> String {
    let more = to.map_or(String::new(), |to| {
        format!("  in-again: {{ endpoints: [\"{to}\"], tls: {{ trust: {{ secret: partners }}, sans: [shop.test] }} }}\n")
    });
    let web = if to.is_some() { "in-again" } else { "app" };
    format!(
        "listeners:
  in: {{ bind: 127.0.0.1:0, tls: {{ certificate: {{ secret: shop }} }}, routes: [{{ to: app }}] }}
  web: {{ bind: 127.0.0.1:0, routes: [{{ to: {web} }}] }}
clusters:
  app: {{ endpoints: [127.0.0.1:{app}] }}
{more}"
    )
}

/// A file that says who asks, whom, and by which identity, if any.
fn node(control: &Control, dir: &Dir, id: &str, path: Option<&str>) -> String {
    let known = path.map_or(String::new(), |path| {
        let id = format!("spiffe://mesh.test{path}");
        dir.write("join.token", &ok(control, &["token", "join", &id]));
        format!("identity: {{ csr: {{ {}, token: join.token }} }}\n", at(control))
    });
    format!("node: {{ id: {id} }}\nxds: {{ {} }}\n{known}", at(control))
}

async fn start_node(control: &Control, id: &str, path: Option<&str>) -> Proxy {
    let dir = Arc::new(Dir::new());
    let file = node(control, &dir, id, path);
    Proxy::start_in(dir, &file).await
}

/// Is shown of a listener whose certificate is this.
async fn shows(proxy: &Proxy, svid: &Svid) {
    let expected = svid.certificates()[0].to_vec();
    until("the certificate", async || (shown(proxy.address("in")).await? == expected).then_some(())).await;
}

fn start(shop: &Svid, authority: &Authority) -> Control {
    let dir = Arc::new(Dir::new());
    shop.write(&dir, "shop");
    authority.named("next.test").write(&dir, "next");
    dir.write("partners.crt", &authority.pem());
    start_in(dir, SETTINGS)
}

/// A service, the certificate of the secret `shop`, and who tells it.
async fn shop() -> (Echo, Svid, Control) {
    let authority = Authority::new("shop");
    let shop = authority.named("shop.test");
    let control = start(&shop, &authority);
    (Echo::start("one").await, shop, control)
}

#[tokio::test]
async fn who_may_have_a_secret_serves_with_it_and_hears_when_it_is_another() {
    let (one, authority) = (Echo::start("one").await, Authority::new("shop"));
    let first = authority.named("shop.test");
    let control = start(&first, &authority);
    control.document("shop.yaml", &document(port(&one), None));
    let proxy = start_node(&control, "web", Some("/shop/web")).await;
    shows(&proxy, &first).await;
    // Out of the same process, and back into it: believed by the other secret.
    control.document("shop.yaml", &document(port(&one), Some(proxy.address("in"))));
    until("the way back", async || {
        let came = proxy.metric("outrigger_upstream_requests_total{cluster=\"in-again\",code=\"2xx\"}").await;
        (proxy.get("web", "/").await.status == 200 && came > 0.0).then_some(())
    })
    .await;
    let revision = ok(&control, &["history"]);
    let mut open = pki::client(proxy.address("in"), None).await;
    assert_eq!(open.get("/").await.status, 200);
    let second = authority.named("shop.test");
    second.write(control.dir(), "shop");
    shows(&proxy, &second).await;
    assert_eq!((open.get("/").await.status, proxy.get("web", "/").await.status), (200, 200));
    assert_eq!(ok(&control, &["history"]), revision);
    // What does not belong together is not told, and what lapses is said.
    control.dir().write("shop.key", &first.key);
    control.process().wait_log("what is told stays as it was secret=shop").await;
    shows(&proxy, &second).await;
    let short = authority.svid_for("/", Duration::from_secs(8));
    short.write(control.dir(), "shop");
    let lapse = until("the event", async || events(&control, "certificate.expiring.v1").pop()).await;
    assert_eq!(lapse["subject"], "secret/shop");
    // Nobody else is shown a key.
    let said = ok(&control, &["history"]) + &ok(&control, &["get"]) + &ok(&control, &["events"]);
    for text in [said, control.process().log(), proxy.log(), proxy.ask("/config").await.text().to_owned()] {
        assert!(!text.contains("PRIVATE KEY") && !text.contains(first.key.lines().nth(1).unwrap()), "{text}");
    }
}

/// What named the one is told after the other, and what it had stays until then; so does who else has that.
#[tokio::test]
async fn a_listener_that_is_given_another_secret_is_never_without_one() {
    let (one, shop, control) = shop().await;
    let named = |secret: &str, client: &str| {
        let listener = |name: &str, tls: &str| {
            format!(
                "  {name}: {{ bind: 127.0.0.1:0, tls: {{ certificate: {tls} }}, routes: [{{ to: app }}] }}\n"
            )
        };
        let first = format!("{{ secret: {secret} }}{client}");
        let listeners = listener("in", &first) + &listener("other", "{ secret: next }");
        format!("listeners:\n{listeners}clusters:\n  app: {{ endpoints: [127.0.0.1:{}] }}\n", port(&one))
    };
    control.document("shop.yaml", &named("shop", ""));
    let proxy = start_node(&control, "web", Some("/shop/web")).await;
    shows(&proxy, &shop).await;
    let to = proxy.address("in");
    let mut open = pki::client(to, None).await;
    control.document("shop.yaml", &named("next", ""));
    let other = shown(proxy.address("other")).await;
    until("the other certificate", async || (shown(to).await? == *other.as_ref()?).then_some(())).await;
    assert_eq!(open.get("/").await.status, 200);
    // Certificates are needed no more where roots are: nobody is sent away for what he could not prove.
    control.document("shop.yaml", &named("shop", ", client: optional, client_trust: { secret: partners }"));
    shows(&proxy, &shop).await;
    let plain = format!(
        "listeners:\n  in: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\nclusters:\n  app: {{ endpoints: [127.0.0.1:{}], tls: {{ trust: {{ secret: partners }}, sans: [a.test] }} }}\n",
        port(&one)
    );
    control.document("shop.yaml", &plain);
    until("all of it is taken", async || {
        let status: Value = serde_json::from_str(&ok(&control, &["status", "--json"])).unwrap();
        (status["revision"] == 4 && status["nodes"][0]["in_sync"] == true).then_some(())
    })
    .await;
    let log = proxy.log();
    assert_eq!(log.matches(" listening listener=in ").count(), 1, "{log}");
    assert!(!log.contains("has not come") && !log.contains("the control plane is away"), "{log}");
}

/// They are told all else, and what they lack is said on both sides.
#[tokio::test]
async fn nobody_else_is_told() {
    let (one, _, control) = shop().await;
    control.document("shop.yaml", &document(port(&one), None));
    let other = start_node(&control, "other", Some("/other/web")).await;
    let stranger = start_node(&control, "stranger", None).await;
    control.process().wait_log("`spiffe://mesh.test/other/web` is none of its `nodes`").await;
    control.process().wait_log("it has not proven who it is: a certificate of ours is to be shown").await;
    for proxy in [&other, &stranger] {
        proxy.wait_log("the secret `shop` has not come").await;
        until("all else", async || (proxy.get("web", "/").await.status == 200).then_some(())).await;
        assert!(!proxy.log().contains("listener=in "), "{}", proxy.log());
    }
}

/// Its identity comes long after it, and what depends on that comes then.
#[tokio::test]
async fn who_began_as_nobody_is_told_when_it_is_somebody() {
    let (one, shop, control) = shop().await;
    control.document("shop.yaml", &document(port(&one), None));
    let dir = Arc::new(Dir::new());
    let file = node(&control, &dir, "web", Some("/shop/web"));
    let token = std::fs::read_to_string(dir.file("join.token")).unwrap();
    std::fs::remove_file(dir.file("join.token")).unwrap();
    let path = dir.write("outrigger.yaml", &outrigger_tests::proxy::with_admin(&file));
    // It is not ready as long as it is nobody.
    let proxy = Proxy::spawn(dir.clone(), &path, &[]);
    control.process().wait_log("it has not proven who it is: a certificate of ours is to be shown").await;
    until("all else", async || (proxy.get("web", "/").await.status == 200).then_some(())).await;
    dir.write("join.token", &token);
    proxy.wait_log("the identity is there: asking as who we are").await;
    proxy.wait_log("listening listener=in ").await;
    shows(&proxy, &shop).await;
}

#[test]
fn a_secret_that_is_not_there_is_refused_at_the_door() {
    let authority = Authority::new("shop");
    let control = start(&authority.named("shop.test"), &authority);
    let file = control.dir().write("web.yaml", &document(1, None).replace("secret: shop", "secret: shpo"));
    let refused = run(&control, &["apply", file.to_str().unwrap()]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success(), "{said}");
    let expected =
        "web.yaml:2:58: listeners.in.tls.certificate.secret: there is no secret `shpo`; did you mean `shop`?";
    assert!(said.contains(expected), "{said}");
}
