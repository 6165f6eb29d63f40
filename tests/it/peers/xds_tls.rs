//! Secrets by the stream of a control plane that is not ours: listeners and clusters show, and believe, what it tells.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use outrigger_tests::peer::peer;
use outrigger_tests::pki::{self, Authority, IDENTITY, Svid, identity, leaf};
use outrigger_tests::{Client, Dir, Echo, Proxy, until};
use rcgen::SanType;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::envoy::Envoy;
use super::ext_authz::python_with_messages;
use super::xds::{Way, asked, cluster, control, endpoints, file, listener, routes, to};
use super::{Running, run};

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// A certificate for a host.
/// A secret of the same stream.
pub(super) fn of(name: &str) -> Value {
    json!({ "name": name, "sds_config": { "ads": {}, "resource_api_version": "V3" } })
}

pub(super) fn certificate(name: &str, svid: &Svid) -> Value {
    let (chain, key) = (&svid.chain, &svid.key);
    json!({ "name": name, "tls_certificate": { "certificate_chain": { "inline_string": chain }, "private_key": { "inline_string": key } } })
}

pub(super) fn roots(name: &str, authority: &Authority) -> Value {
    json!({ "name": name, "validation_context": { "trusted_ca": { "inline_string": authority.pem() } } })
}

/// The listener of that name, with this around it.
fn around(mut listener: Value, common: &Value, requires: bool) -> Value {
    let context = json!({ "@type": format!("{TLS}.DownstreamTlsContext"), "common_tls_context": common, "require_client_certificate": requires });
    listener["filter_chains"][0]["transport_socket"] = json!({ "name": "tls", "typed_config": context });
    listener
}

/// A listener `web` with the certificate of a secret, and where it leads to.
pub(super) fn served(version: &str, app: u16, secrets: &Value) -> Value {
    let common =
        json!({ "alpn_protocols": ["h2", "http/1.1"], "tls_certificate_sds_secret_configs": [of("web")] });
    json!({
        "version": version,
        "Cluster": [cluster("app", &json!({}))],
        "ClusterLoadAssignment": [endpoints("app", &[app])],
        "Listener": [around(listener("web", "table"), &common, false)],
        "RouteConfiguration": [routes("table", &json!([to(&json!({ "prefix": "/" }), "app")]))],
        "Secret": secrets,
    })
}

/// Whether curl, which believes this authority alone, is served.
pub(super) async fn curl_believes(curl: &Path, dir: &Dir, authority: &Authority, to: SocketAddr) -> bool {
    let ca = dir.write("ca.pem", &authority.pem());
    let url = format!("https://localhost:{}/", to.port());
    let args = ["-sSf", "--max-time", "10", "--cacert", ca.to_str().unwrap(), &url];
    run(curl, &args, b"").await.success
}

/// What of this kind is said to be refused.
pub(super) async fn refused(control: &mut Running, kind: &str) -> String {
    loop {
        let asked = asked(control, kind).await;
        match asked["error"].as_str() {
            Some("") | None => {}
            Some(error) => return error.to_owned(),
        }
    }
}

async fn shows_what_it_is_told(way: Way) {
    let (Some(python), Some(curl)) = (python_with_messages().await, peer("curl")) else { return };
    let (curl, dir) = (curl.path(), Dir::new());
    let echo = Echo::start("app").await;
    let app = echo.address().port();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let first = old.named("localhost");
    let begun = served("1", app, &json!([certificate("web", &first), certificate("unasked", &first)]));
    let (mut control, port) = control(&python, way, 0, &begun).await;
    let proxy = Proxy::start(&file(port)).await;
    let web = proxy.address("web");
    assert_eq!(asked(&mut control, "Secret").await["names"], json!(["web"]));
    assert!(curl_believes(curl, &dir, &old, web).await);
    assert!(!curl_believes(curl, &dir, &new, web).await);
    // In the clear nobody is served.
    assert_eq!(Client::connect(web).await.try_get("/").await.map(|reply| reply.status), None);
    let mut open = pki::client(web, None).await;
    assert_eq!(open.get("/").await.status, 200);
    // Another certificate, and nobody has to reconnect.
    let second = new.named("localhost");
    control.tell(&served("2", app, &json!([certificate("web", &second)])).to_string()).await;
    until("the other certificate", async || curl_believes(curl, &dir, &new, web).await.then_some(())).await;
    assert!(!curl_believes(curl, &dir, &old, web).await);
    assert_eq!(open.get("/").await.status, 200);
    // One that cannot be used, a key of another's, and a file of the proxy's machine.
    let mut rubbish = certificate("web", &second);
    rubbish["tls_certificate"]["certificate_chain"] = json!({ "inline_string": "rubbish" });
    let other = certificate("web", &Svid { key: first.key.clone(), ..second.clone() });
    let mut files = certificate("web", &second);
    files["tls_certificate"]["private_key"] = json!({ "filename": "/etc/ssl/private/key.pem" });
    let rows = [
        (rubbish, "certificate_chain: the secret `web` holds no PEM certificate"),
        (other, ": the private key does not belong to the certificate"),
        (files, "private_key.filename: not supported"),
    ];
    for (index, (wrong, expected)) in rows.into_iter().enumerate() {
        control.tell(&served(&format!("wrong-{index}"), app, &json!([wrong])).to_string()).await;
        let said = refused(&mut control, "Secret").await;
        let at = "Secret[web].tls_certificate";
        let separator = if expected.starts_with(':') { "" } else { "." };
        assert!(said.starts_with(&format!("{at}{separator}{expected}")), "{said}");
        assert!(curl_believes(curl, &dir, &new, web).await, "{expected}");
    }
    assert_eq!(open.get("/").await.status, 200);
    proxy.wait_metric("outrigger_xds_refused_total", |n| n >= 3.0).await;
    // Of the key there is no trace.
    let shown = proxy.ask("/config?format=yaml").await.text() + &proxy.log();
    assert!(shown.contains("certificate: { secret: web }"), "{shown}");
    for svid in [&first, &second] {
        assert!(svid.key.lines().all(|line| !shown.contains(line)), "{shown}");
    }
}

#[tokio::test]
async fn a_listener_shows_the_certificate_that_it_is_told() {
    shows_what_it_is_told(Way::Sotw).await;
}

#[tokio::test]
async fn a_listener_shows_the_certificate_that_it_is_told_incrementally() {
    shows_what_it_is_told(Way::Delta).await;
}

/// A server that asks for a certificate, and answers each request alike.
pub(super) async fn server(shown: &Svid, believed: &Authority) -> u16 {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut store = RootCertStore::empty();
    store.add(believed.issuer().der().clone()).unwrap();
    let clients =
        WebPkiClientVerifier::builder_with_provider(store.into(), provider.clone()).build().unwrap();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.unwrap().with_client_cert_verifier(clients);
    let config = builder.with_single_cert(shown.certificates(), shown.private_key()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                if let Ok(1..) = stream.read(&mut [0; 4096]).await {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    let _ = stream.write_all(answer).await;
                }
            });
        }
    });
    port
}

/// TLS towards a server of this name, by the roots `ca`.
pub(super) fn towards(name: &str) -> Value {
    let names = json!([{ "san_type": "DNS", "matcher": { "exact": name } }]);
    let combined = json!({
        "default_validation_context": { "match_typed_subject_alt_names": names },
        "validation_context_sds_secret_config": of("ca"),
    });
    let common = json!({
        "tls_certificate_sds_secret_configs": [of("own")], "combined_validation_context": combined,
    });
    let context =
        json!({ "@type": format!("{TLS}.UpstreamTlsContext"), "sni": name, "common_tls_context": common });
    json!({ "transport_socket": { "name": "tls", "typed_config": context } })
}

pub(super) async fn came_of(proxy: &Proxy, status: u16, reason: Option<&str>) {
    until(&format!("{status} {reason:?}"), async || {
        let reply = proxy.get("web", "/").await;
        ((reply.status, reply.field("x-outrigger-reason")) == (status, reason)).then_some(())
    })
    .await;
}

async fn believes_what_it_is_told(way: Way) {
    let Some(python) = python_with_messages().await else { return };
    let (authority, stranger) = (Authority::new("a"), Authority::new("b"));
    let server = server(&authority.named("app.test"), &authority).await;
    let own = certificate("own", &authority.named("proxy.test"));
    let state = |version: &str, app: &Value, secrets: &Value| {
        json!({
            "version": version,
            "Cluster": [cluster("app", app)],
            "ClusterLoadAssignment": [endpoints("app", &[server])],
            "Listener": [listener("web", "table")],
            "RouteConfiguration": [routes("table", &json!([to(&json!({ "prefix": "/" }), "app")]))],
            "Secret": secrets,
        })
    };
    let good = json!([own, roots("ca", &authority)]);
    // Without roots nobody is believed, and nobody is spoken with in the clear.
    let (mut control, port) =
        control(&python, way, 0, &state("1", &towards("app.test"), &json!([own]))).await;
    let proxy = Proxy::start(&file(port)).await;
    came_of(&proxy, 503, Some("upstream_no_secret")).await;
    proxy.wait_log("Secret[ca]").await;
    control.tell(&state("2", &towards("app.test"), &good).to_string()).await;
    came_of(&proxy, 200, None).await;
    // Another name than the server's, other roots than its own.
    control.tell(&state("3", &towards("other.test"), &good).to_string()).await;
    came_of(&proxy, 503, Some("upstream_tls_not_expected")).await;
    control.tell(&state("4", &towards("app.test"), &good).to_string()).await;
    came_of(&proxy, 200, None).await;
    let others = json!([own, roots("ca", &stranger)]);
    control.tell(&state("5", &towards("app.test"), &others).to_string()).await;
    came_of(&proxy, 503, Some("upstream_tls_unknown_issuer")).await;
    // Nothing that believes everybody, nothing in files of the proxy's machine: the last good version stays.
    let mut anybody = towards("app.test");
    let common = &mut anybody["transport_socket"]["typed_config"]["common_tls_context"];
    *common = json!({ "tls_certificate_sds_secret_configs": [of("own")] });
    let at = "Cluster[app].transport_socket.typed_config.common_tls_context";
    control.tell(&state("6", &anybody, &good).to_string()).await;
    let said = refused(&mut control, "Cluster").await;
    assert!(said.starts_with(&format!("{at}: it is not said whose certificate is expected")), "{said}");
    came_of(&proxy, 200, None).await;
    let mut files = towards("app.test");
    files["transport_socket"]["typed_config"]["common_tls_context"]["combined_validation_context"]["default_validation_context"]
        ["trusted_ca"] = json!({ "filename": "/etc/ssl/ca.pem" });
    control.tell(&state("7", &files, &good).to_string()).await;
    let said = refused(&mut control, "Cluster").await;
    let at = format!("{at}.combined_validation_context.default_validation_context.trusted_ca");
    assert!(said.starts_with(&format!("{at}.filename: not supported")), "{said}");
    came_of(&proxy, 200, None).await;
}

#[tokio::test]
async fn a_cluster_believes_the_roots_that_it_is_told() {
    believes_what_it_is_told(Way::Sotw).await;
}

#[tokio::test]
async fn a_cluster_believes_the_roots_that_it_is_told_incrementally() {
    believes_what_it_is_told(Way::Delta).await;
}

/// A listener is there when what it shows is, and not before; its neighbours wait for it for a while, and no longer.
#[tokio::test]
async fn a_listener_without_its_secret_serves_nobody() {
    let Some(python) = python_with_messages().await else { return };
    let echo = Echo::start("app").await;
    let app = echo.address().port();
    let authority = Authority::new("a");
    let state = |version: &str, secrets: &Value| {
        let mut state = served(version, app, secrets);
        state["Listener"].as_array_mut().unwrap().push(listener("plain", "table"));
        state
    };
    let (mut control, port) = control(&python, Way::Delta, 0, &state("1", &json!([]))).await;
    let proxy = Proxy::start(&file(port)).await;
    proxy.wait_log("the secret `web` has not come, or holds something else: it is left out").await;
    assert_eq!(proxy.get("plain", "/").await.status, 200);
    // Roots are nothing to show.
    control.tell(&state("2", &json!([roots("web", &authority)])).to_string()).await;
    control.line_with("SENT|Secret|web|").await;
    assert_eq!(proxy.get("plain", "/").await.status, 200);
    assert!(!proxy.log().contains("listening listener=web"), "{}", proxy.log());
    control.tell(&state("3", &json!([certificate("web", &authority.named("localhost"))])).to_string()).await;
    proxy.wait_log("listening listener=web").await;
    assert_eq!(pki::status(proxy.address("web"), None, "/").await, Some(200));
    // Taken back while the listener names it, it is shown on, as by Envoy: what names it may be on its way out. It goes with that.
    let mut rest = state("4", &json!([]));
    control.tell(&rest.to_string()).await;
    proxy.wait_log("Secret[web]: taken away, but still referred to").await;
    assert_eq!(pki::status(proxy.address("web"), None, "/").await, Some(200));
    rest["version"] = json!("5");
    rest["Listener"].as_array_mut().unwrap().retain(|listener| listener["name"] == "plain");
    control.tell(&rest.to_string()).await;
    proxy.wait_log("no longer listening listener=web").await;
    assert_eq!(proxy.get("plain", "/").await.status, 200);
}

/// The two names that stand for the proxy's own identity, in the clear beside on one port.
#[tokio::test]
async fn a_listener_proves_the_proxys_own_identity() {
    let Some(python) = python_with_messages().await else { return };
    let echo = Echo::start("app").await;
    let mut state = served("1", echo.address().port(), &json!([]));
    let common = json!({
        "tls_certificate_sds_secret_configs": [of("default")], "validation_context_sds_secret_config": of("ROOTCA"),
    });
    let strict = around(listener("strict", "table"), &common, true);
    let mut permissive = around(listener("permissive", "table"), &common, true);
    let mut clear = listener("clear", "table")["filter_chains"][0].clone();
    clear["filters"] = permissive["filter_chains"][0]["filters"].clone();
    clear["filter_chain_match"] = json!({ "transport_protocol": "raw_buffer" });
    permissive["filter_chains"][0]["filter_chain_match"] = json!({ "transport_protocol": "tls" });
    permissive["filter_chains"].as_array_mut().unwrap().push(clear);
    state["Listener"] = json!([strict, permissive]);
    let (_control, port) = control(&python, Way::Sotw, 0, &state).await;
    let authority = Authority::new(pki::DOMAIN);
    let config = format!("{}{IDENTITY}", file(port));
    let proxy = Proxy::start_in(identity(&authority, "/app"), &config).await;
    let caller = authority.svid("/web");
    for name in ["strict", "permissive"] {
        let to = proxy.address(name);
        assert_eq!(pki::status(to, Some(&caller), "/").await, Some(200), "{name}");
        assert_eq!(pki::status(to, None, "/").await, None, "{name}");
        let clear = Client::connect(to).await.try_get("/").await.map(|reply| reply.status);
        assert_eq!(clear, (name == "permissive").then_some(200), "{name}");
    }
}

/// TLS towards a server that has a name which matches, by the roots `ca`.
fn matching(names: &Value) -> Value {
    let mut around = towards("app.test");
    let context = &mut around["transport_socket"]["typed_config"];
    context.as_object_mut().unwrap().remove("sni");
    let combined = &mut context["common_tls_context"]["combined_validation_context"];
    combined["default_validation_context"]["match_typed_subject_alt_names"] = names.clone();
    around
}

/// Envoy as a second opinion on who is believed: the same control plane, the same secrets, the same server.
#[tokio::test]
async fn who_is_believed_is_who_envoy_believes() {
    let (Some(python), Some(envoy)) = (python_with_messages().await, Envoy::find().await) else { return };
    let authority = Authority::new("a");
    let mut params = leaf(&["spiffe://a/ns/x"]);
    let names = ["app.test", "*.wild.test"].map(|host| SanType::DnsName(host.try_into().unwrap()));
    params.subject_alt_names.extend(names);
    params.subject_alt_names.push(SanType::IpAddress([10, 9, 8, 7].into()));
    let server = server(&authority.sign(params), &authority).await;
    let exact = |kind: &str, name: &str| json!({ "san_type": kind, "matcher": { "exact": name } });
    let below = |prefix: &str| json!({ "san_type": "URI", "matcher": { "prefix": prefix } });
    let rows = [
        (json!([exact("DNS", "app.test")]), 200),
        (json!([exact("DNS", "App.Test")]), 200),
        (json!([exact("DNS", "other.test")]), 503),
        (json!([exact("DNS", "other.test"), exact("DNS", "app.test")]), 200),
        (json!([exact("DNS", "a.wild.test")]), 200),
        (json!([exact("DNS", "a.b.wild.test")]), 503),
        (json!([exact("DNS", "wild.test")]), 503),
        (json!([exact("IP_ADDRESS", "10.9.8.7")]), 200),
        (json!([exact("IP_ADDRESS", "10.9.8.8")]), 503),
        (json!([exact("DNS", "10.9.8.7")]), 503),
        (json!([exact("URI", "spiffe://a/ns/x")]), 200),
        (json!([exact("URI", "spiffe://a/ns")]), 503),
        (json!([below("spiffe://a/")]), 200),
        (json!([below("spiffe://a/n/")]), 503),
        (json!([below("spiffe://b/")]), 503),
    ];
    let name = |index: usize| format!("c{index}");
    let of_rows = |made: &dyn Fn(usize) -> Value| (0..rows.len()).map(made).collect::<Vec<_>>();
    let by_path = |index: usize| to(&json!({ "path": format!("/{index}") }), &name(index));
    let mut state = served(
        "1",
        server,
        &json!([
            certificate("web", &authority.named("localhost")),
            certificate("own", &authority.named("proxy.test")),
            roots("ca", &authority),
        ]),
    );
    state["Cluster"] = of_rows(&|index| cluster(&name(index), &matching(&rows[index].0))).into();
    state["ClusterLoadAssignment"] = of_rows(&|index| endpoints(&name(index), &[server])).into();
    state["RouteConfiguration"] = json!([routes("table", &of_rows(&by_path).into())]);
    let (_control, port) = control(&python, Way::Sotw, 0, &state).await;
    let envoy = envoy.run(&super::envoy::node("envoy", ([127, 0, 0, 1], port).into(), "GRPC")).await;
    let proxy = Proxy::start(&file(port)).await;
    let mut differ = Vec::new();
    for (index, (names, expected)) in rows.iter().enumerate() {
        let path = format!("/{index}");
        let ours = pki::status(proxy.address("web"), None, &path).await;
        let envoys = pki::status(envoy.address, None, &path).await;
        if (ours, envoys) != (Some(*expected), Some(*expected)) {
            differ.push(format!("{names}: ours {ours:?}, Envoy's {envoys:?}, expected {expected}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}
