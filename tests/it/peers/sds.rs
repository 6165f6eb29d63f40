//! Envoy as a node that has its identity from our control plane, and proves it to Outrigger, which has its own from there too.

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_tests::pki::{self, Authority, shown};
use outrigger_tests::wait::until_for;
use outrigger_tests::{Client, Control, Dir, Echo, Proxy, until};
use serde_json::{Value, json};

use super::LONG;
use super::envoy::{Envoy, node};
use crate::control::attestation::{asks, at, events, ok, start, start_in};

/// What Envoy is started with: the control plane is believed, and shown a certificate of its own.
fn bootstrap(control: &Control, dir: &Dir, way: &str) -> Value {
    let mut config = node("envoy", control.xds(), way);
    let file = |name: &str| json!({ "filename": dir.file(name) });
    let context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "localhost",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificates": [{ "certificate_chain": file("own.crt"), "private_key": file("own.key") }],
            "validation_context": { "trusted_ca": { "filename": control.dir().file("ca.crt") } },
        },
    });
    config["static_resources"]["clusters"][0]["transport_socket"] =
        json!({ "name": "tls", "typed_config": context });
    config
}

/// Both listen for the other, and lead to it.
fn document(app: SocketAddr, to_outrigger: SocketAddr, to_envoy: Option<SocketAddr>) -> String {
    let peer = |name: &str, to: SocketAddr, expected: &str| {
        format!(
            "  {name}: {{ endpoints: [\"{to}\"], mtls: {{ peers: [\"spiffe://mesh.test/{expected}\"] }} }}\n"
        )
    };
    let (listener, cluster, name) = match to_envoy {
        None => (String::new(), String::new(), ""),
        Some(to) => (
            "  web-o: { bind: 127.0.0.1:0, routes: [{ to: to-envoy }] }\n".to_owned(),
            peer("to-envoy", to, "envoy"),
            ", web-o",
        ),
    };
    format!(
        "listeners:
  in-o: {{ bind: 127.0.0.1:0, mtls: strict, authorization: [{{ allow: {{ peers: [\"spiffe://mesh.test/envoy\"] }} }}], routes: [{{ to: app }}] }}
  in-e: {{ bind: 127.0.0.1:0, mtls: strict, routes: [{{ to: app }}] }}
  web-e: {{ bind: 127.0.0.1:0, routes: [{{ to: to-outrigger }}] }}
{listener}clusters:
  app: {{ endpoints: [\"{app}\"] }}
{}{cluster}proxies:
  envoy: {{ select: {{ id: envoy }}, listeners: [in-e, web-e] }}
  outrigger: {{ select: {{ id: outrigger }}, listeners: [in-o{name}] }}
",
        peer("to-outrigger", to_outrigger, "web"),
    )
}

async fn is_answered(to: SocketAddr) -> Option<()> {
    (Client::connect(to).await.try_get("/").await?.status == 200).then_some(())
}

async fn proves_who_it_is(way: &str) {
    let Some(envoy) = Envoy::find().await else { return };
    let (echo, theirs) = (Echo::start("app").await, Authority::new("mesh.test"));
    let dir = Arc::new(Dir::new());
    let root = dir.write("theirs.crt", &theirs.pem());
    theirs.svid("/envoy").write(&dir, "own");
    let control = start(&format!(
        "ca: {{ trust_domain: mesh.test, lifetime: 10s, attest: {{ certificates: {} }} }}",
        root.display()
    ));
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    control.document("mesh.yaml", &document(echo.address(), nowhere, None));
    dir.write("join.token", &ok(&control, &["token", "join", "spiffe://mesh.test/web"]));
    let node = format!("node: {{ id: outrigger }}\nxds: {{ {} }}\n{}", at(&control), asks(&control));
    let outrigger = Proxy::start_in(dir.clone(), &node).await;
    let to_outrigger = outrigger.address("in-o");
    control.document("mesh.yaml", &document(echo.address(), to_outrigger, None));
    // Without secrets Envoy would never be ready.
    let envoy = envoy.run(&bootstrap(&control, &dir, way)).await;
    let (to_envoy, web) = (envoy.address_of("in-e"), envoy.address_of("web-e"));
    control.document("mesh.yaml", &document(echo.address(), to_outrigger, Some(to_envoy)));
    until("Envoy is believed", async || is_answered(web).await).await;
    until("Envoy believes", async || is_answered(outrigger.address("web-o")).await).await;
    // Nobody else is, by the one and by the other.
    for to in [to_envoy, to_outrigger] {
        assert_eq!(pki::status(to, None, "/").await, None);
        assert_eq!(pki::status(to, Some(&theirs.svid("/web")), "/").await, None);
    }
    // Renewed, and signed by another root once everybody believes it.
    let first = shown(to_envoy).await.unwrap();
    until_for(LONG, "another certificate", async || (shown(to_envoy).await? != first).then_some(())).await;
    ok(&control, &["ca", "rotate"]);
    let by_the_second = |shown: Vec<u8>| shown.windows(16).any(|text| text == b"mesh.test root 2");
    until_for(LONG, "the other root", async || by_the_second(shown(to_envoy).await?).then_some(())).await;
    until("Envoy is believed", async || is_answered(web).await).await;
    until("Envoy believes", async || is_answered(outrigger.address("web-o")).await).await;
    let issued = events(&control, "certificate.issued.v1");
    assert!(issued.iter().any(|event| event["subject"] == "spiffe://mesh.test/envoy"), "{issued:?}");
    let told = control.process().log() + &outrigger.log();
    assert!(!told.contains("PRIVATE KEY"));
}

#[tokio::test]
async fn envoy_proves_who_it_is_by_what_it_is_told() {
    proves_who_it_is("GRPC").await;
}

#[tokio::test]
async fn envoy_proves_who_it_is_by_what_it_is_told_incrementally() {
    proves_who_it_is("DELTA_GRPC").await;
}

/// A listener of Envoy's with a certificate that documents name.
async fn serves_with_a_secret(way: &str) {
    let Some(envoy) = Envoy::find().await else { return };
    let (echo, theirs, shop) =
        (Echo::start("app").await, Authority::new("mesh.test"), Authority::new("shop"));
    let dir = Arc::new(Dir::new());
    let root = dir.write("theirs.crt", &theirs.pem());
    theirs.svid("/envoy").write(&dir, "own");
    let renew = |dir: &Dir| {
        let svid = shop.named("shop.test");
        svid.write(dir, "shop");
        svid.certificates()[0].to_vec()
    };
    let first = renew(&dir);
    let control = start_in(
        dir.clone(),
        &format!(
            "ca: {{ trust_domain: mesh.test, attest: {{ certificates: {} }} }}
secrets: {{ shop: {{ certificate: shop.crt, private_key: shop.key, nodes: [\"spiffe://mesh.test/envoy\"] }} }}",
            root.display()
        ),
    );
    control.document(
        "shop.yaml",
        &format!(
            "listeners: {{ shop: {{ bind: 127.0.0.1:0, tls: {{ certificate: {{ secret: shop }} }}, routes: [{{ to: app }}] }} }}
clusters: {{ app: {{ endpoints: [\"{}\"] }} }}",
            echo.address()
        ),
    );
    let envoy = envoy.run(&bootstrap(&control, &dir, way)).await;
    let to = envoy.address_of("shop");
    until("Envoy shows it", async || (shown(to).await? == first).then_some(())).await;
    assert_eq!(pki::status(to, None, "/").await, Some(200));
    let second = renew(&dir);
    until("Envoy shows the next", async || (shown(to).await? == second).then_some(())).await;
}

#[tokio::test]
async fn envoy_serves_with_a_secret_that_documents_name() {
    serves_with_a_secret("GRPC").await;
}

#[tokio::test]
async fn envoy_serves_with_a_secret_that_documents_name_incrementally() {
    serves_with_a_secret("DELTA_GRPC").await;
}
