//! Mutual TLS: who is served, what they are told that is spoken, and whom all three believe. Our control plane tells nobody a
//! secret. We read our own from files; Envoy is given the same by an agent between the two, as meshes do it.

use std::net::SocketAddr;

use outrigger_tests::h2client::H2;
use outrigger_tests::pki::{self, Authority, IDENTITY, Svid, identity, leaf};
use outrigger_tests::{Client, Control, Echo, Origin, Proxy, until};
use serde_json::{Value, json};

use super::{Differences, Envoy, Meant, Three, follows, node};
use crate::peers::ext_authz::python_with_messages;
use crate::peers::xds_tls::{certificate, roots, server};
use crate::peers::{Running, script};

/// Envoy and the agent that it asks.
async fn agent(control: &Control, secrets: &Value) -> Option<(Running, SocketAddr)> {
    let python = python_with_messages().await?;
    let mut agent = Running::start(&python, &[&script("xds_agent.py"), &control.xds().port().to_string()]);
    agent.tell(&secrets.to_string()).await;
    let port = agent.port().await;
    Some((agent, ([127, 0, 0, 1], port).into()))
}

/// Rows: of each of three listeners its callers, what they speak and one in the clear; and servers.
pub(super) const COUNT: usize = 3 * (9 + 10 + 1) + 13;

/// Who comes, by a word for it; `None` shows nothing.
fn callers(authority: &Authority) -> Vec<(&'static str, Option<Svid>)> {
    let stranger = Authority::new(&authority.domain);
    let signed = |uris: &[&str]| Some(authority.sign(leaf(uris)));
    let mut expired = leaf(&[&authority.id("/web")]);
    let hour = std::time::Duration::from_secs(3600);
    (expired.not_before, expired.not_after) = (expired.not_before - 2 * hour, expired.not_before - hour);
    vec![
        ("somebody", Some(authority.svid("/ns/shop/sa/web"))),
        ("nobody", None),
        ("a stranger", Some(stranger.svid("/ns/shop/sa/web"))),
        ("somebody of before", Some(authority.sign(expired))),
        ("somebody of another domain", signed(&["spiffe://elsewhere/web"])),
        ("somebody without a name", signed(&[])),
        ("somebody of two names", signed(&[&authority.id("/a"), &authority.id("/b")])),
        ("somebody who is denied", Some(authority.svid("/ns/shop/sa/bad"))),
        ("somebody who is not allowed", Some(authority.svid("/ns/pay/sa/web"))),
    ]
}

/// What came of a caller: what was agreed on to be spoken, the status, and what the origin was told of whom it is.
async fn served(to: SocketAddr, shows: Option<&Svid>, sni: &str, alpn: &[&str]) -> String {
    let Ok(stream) = pki::connect(to, sni, &pki::client_config(shows, alpn)).await else {
        return "no handshake".to_owned();
    };
    let spoken = stream.get_ref().1.alpn_protocol().map(String::from_utf8_lossy);
    let spoken = spoken.unwrap_or_default().into_owned();
    if spoken == "h2" {
        // That it is agreed on is enough.
        return spoken;
    }
    let Some(reply) = Client::over(stream).try_get("/app").await else { return "cut".to_owned() };
    let Ok(report) = serde_json::from_slice::<Value>(&reply.body) else { return reply.status.to_string() };
    let fields: Vec<(String, String)> = serde_json::from_value(report["fields"].clone()).unwrap();
    let told = ["x-forwarded-proto", "x-forwarded-client-cert"].map(|name| {
        let found = fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map_or("-", |(_, value)| value).to_owned()
    });
    format!("{spoken} {} {told:?}", reply.status)
}

/// Whom a request may reach by `out`: how the cluster is called, its port, and what else is said of it.
type Behind = Vec<(&'static str, u16, String)>;

/// Servers of all kinds, and what TLS towards them must prove. `inner` speaks all versions of HTTP, the others one.
async fn behind(authority: &Authority, clear: &Origin, inner: u16) -> Behind {
    let stranger = Authority::new(&authority.domain);
    let api = authority.svid("/ns/pay/sa/api");
    let good = server(&api, authority).await;
    let false_one = server(&stranger.svid("/ns/pay/sa/api"), authority).await;
    let unbelieving = server(&api, &stranger).await;
    let exact = "peers: [\"spiffe://cluster.local/ns/pay/sa/api\"]";
    let rows = [
        ("exact", good, exact),
        ("below", good, "peers: [\"spiffe://cluster.local/ns/pay/*\"]"),
        ("either", good, "peers: [\"spiffe://cluster.local/x\", \"spiffe://cluster.local/ns/*\"]"),
        ("named", good, "peers: [\"spiffe://cluster.local/ns/pay/sa/api\"], sni: pay.test"),
        ("another", good, "peers: [\"spiffe://cluster.local/ns/pay/sa/other\"]"),
        ("beginning", good, "peers: [\"spiffe://cluster.local/ns/pay/sa/ap\"]"),
        ("elsewhere", good, "peers: [\"spiffe://cluster.local/ns/shop/*\"]"),
        ("stranger", false_one, exact),
        ("unbelieving", unbelieving, exact),
        ("clear", clear.socket().port(), exact),
    ];
    let one = rows.map(|(name, port, mtls)| (name, port, format!("protocol: http1, mtls: {{ {mtls} }}")));
    let all = [("inner-auto", "auto"), ("inner-http1", "http1"), ("inner-http2", "http2")]
        .map(|(name, protocol)| (name, inner, format!("protocol: {protocol}, mtls: {{ {exact} }}")));
    one.into_iter().chain(all).collect()
}

/// What came of a request by `out`, in HTTP/1.1 and in HTTP/2: the status, and what the origin was spoken to in.
async fn passed_on(to: SocketAddr, path: &str) -> String {
    let by = |body: &[u8]| {
        let report = serde_json::from_slice::<Value>(body).unwrap_or_default();
        report["protocol"].as_str().unwrap_or("-").to_owned()
    };
    let one = Client::connect(to).await.get(path).await;
    let two = H2::connect(to).await.get(path).await;
    format!("{} {}, {} {}", one.status, by(&one.body), two.status, by(&two.body))
}

fn document(app: SocketAddr, behind: &Behind) -> String {
    let each = |made: &dyn Fn(&(&str, u16, String)) -> String| behind.iter().map(made).collect::<String>();
    let routes =
        each(&|(name, _, _)| format!("      - {{ match: {{ path: {{ exact: /{name} }} }}, to: {name} }}\n"));
    let clusters =
        each(&|(name, port, more)| format!("  {name}: {{ endpoints: [127.0.0.1:{port}], {more} }}\n"));
    format!(
        "listeners:
  strict: {{ bind: 127.0.0.1:0, mtls: strict, routes: [{{ to: app }}] }}
  permissive: {{ bind: 127.0.0.1:0, mtls: permissive, routes: [{{ to: app }}] }}
  peers:
    bind: 127.0.0.1:0
    mtls: permissive
    authorization: [{{ allow: {{ peers: [\"spiffe://cluster.local/ns/shop/*\"] }} }}, {{ deny: {{ peers: [\"spiffe://cluster.local/ns/shop/sa/bad\"] }} }}]
    routes: [{{ to: app }}]
  out:
    bind: 127.0.0.1:0
    routes:
{routes}clusters:
  app: {{ endpoints: [\"{app}\"] }}
{clusters}"
    )
}

/// What is meant to differ.
const MEANT: Meant = &[
    (
        "by [\"x\"]",
        "who speaks nothing of what a server does is told so (RFC 7301 section 3.2); Envoy serves it as if it had not said a word",
    ),
    ("somebody of another domain", SPIFFE),
    ("somebody without a name", SPIFFE),
    ("somebody of two names", SPIFFE),
    (
        "out: unbelieving",
        "502 is an upstream that ends a connection without an answer; to Envoy all is 503 that fails there",
    ),
];
const SPIFFE: &str = "a caller is somebody by one SPIFFE ID, of the domain whose roots have signed it; Envoy knows no \
     domains: whatever the roots have signed comes in, and rules are what is between";

/// The three, each with the same identity.
async fn three(envoy: &Envoy, authority: &Authority, document: &str) -> Option<(Three, Running)> {
    let control = Control::start("", &[("mesh.yaml", document)]);
    control.wait_revision(1).await;
    let own = authority.svid("/app");
    let secrets = json!([certificate("default", &own), roots("ROOTCA", authority)]);
    let (agent, at) = agent(&control, &secrets).await?;
    let start = async |config: &str| {
        let dir = identity(authority, "/app");
        own.write(&dir, "own");
        Proxy::start_in(dir, &format!("{IDENTITY}{config}")).await
    };
    let (alone, told) = (start(document).await, start(&follows(&control)).await);
    let envoy = envoy.run(&node("envoy", at, "GRPC")).await;
    control.wait_in_sync(2, 1).await;
    Some((Three { control, alone, told, envoy }, agent))
}

#[tokio::test]
async fn of_identities_all_three_mean_the_same() {
    let Some(envoy) = Envoy::find().await else { return };
    let (authority, echo) = (Authority::new(pki::DOMAIN), Echo::start("app").await);
    let clear = Origin::start(async |mut conn| {
        let _ = conn.some().await;
        conn.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    // One of ours; whoever it passes a request on to is spoken to as it was.
    let inner = format!(
        "{IDENTITY}listeners:\n  in: {{ bind: 127.0.0.1:0, mtls: strict, routes: [{{ to: app }}] }}\nclusters:\n  app: {{ endpoints: [\"{}\"] }}\n",
        echo.address()
    );
    let inner = Proxy::start_in(identity(&authority, "/ns/pay/sa/api"), &inner).await;
    let behind = behind(&authority, &clear, inner.address("in").port()).await;
    let document = document(echo.address(), &behind);
    let Some((three, _agent)) = three(&envoy, &authority, &document).await else { return };
    let mut differences = Differences::new(MEANT);
    let callers = callers(&authority);
    let (_, somebody) = &callers[0];
    for listener in ["strict", "permissive", "peers"] {
        for (who, shows) in &callers {
            let came = three.each(listener, async |address| {
                served(address, shows.as_ref(), "localhost", &["http/1.1"]).await
            });
            differences.note(&format!("{who}: {listener}"), came.await);
        }
        let spoken: [&[&str]; 5] = [&["h2"], &["h2", "http/1.1"], &["http/1.1", "h2"], &[], &["x"]];
        for alpn in spoken {
            for sni in ["localhost", "pay.test"] {
                let came =
                    three.each(listener, async |address| served(address, somebody.as_ref(), sni, alpn).await);
                differences.note(&format!("by {alpn:?} to {sni}: {listener}"), came.await);
            }
        }
        let came = three.each(listener, async |address| {
            let reply = Client::connect(address).await.try_get("/app").await;
            format!("{:?}", reply.map(|reply| reply.status))
        });
        differences.note(&format!("in the clear: {listener}"), came.await);
    }
    for (name, _, _) in &behind {
        let came = three.each("out", async |address| passed_on(address, &format!("/{name}")).await).await;
        // All may be wrong in the same way.
        let good = ["exact", "below", "either", "named"].contains(name) || name.starts_with("inner");
        assert_eq!(came[0].starts_with("200"), good, "{name}: {came:?}");
        differences.note(&format!("out: {name}"), came);
    }
    differences.end(COUNT);
}

/// Envoy has no word for the roots of its system, and refuses a cluster that is checked by names alone: it serves nobody there,
/// and our control plane shows why.
#[tokio::test]
async fn whom_the_system_believes_envoy_cannot_be_told() {
    let Some(envoy) = Envoy::find().await else { return };
    let authority = Authority::new(pki::DOMAIN);
    let behind = server(&authority.svid("/app"), &authority).await;
    let document = format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: partner }}] }}\n\
         clusters:\n  partner: {{ endpoints: [127.0.0.1:{behind}], tls: {{ sni: partner.test }} }}\n"
    );
    let control = Control::start("", &[("mesh.yaml", &document)]);
    let told = Proxy::start(&follows(&control)).await;
    let envoy = envoy.run(&node("envoy", control.xds(), "DELTA_GRPC")).await;
    let refused = until("the event", async || control.events("node.nack.v1").pop()).await;
    assert_eq!((&refused["data"]["node"], &refused["data"]["kind"]), (&json!("envoy"), &json!("Cluster")));
    assert!(refused["data"]["why"].as_str().unwrap().contains("without trusted CA"), "{refused}");
    for address in [told.address("web"), envoy.address] {
        assert_eq!(Client::connect(address).await.get("/").await.status, 503);
    }
}
