//! What befalls proxies, in the control plane's log of events.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use outrigger_tests::{Control, Dir, Proxy, until};
use serde_json::Value;

use super::attestation::{self, asks};
use super::file;
use crate::outlier::Patient;

/// A listener `web`, and a cluster `app` of two endpoints that is left out of at the first failure.
async fn ward() -> ([Patient; 2], String) {
    let patients = [Patient::start().await, Patient::start().await];
    let [one, two] = patients.each_ref().map(|patient| patient.origin.address().to_owned());
    let document = format!(
        "listeners:
  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}
clusters:
  app: {{ endpoints: [\"{one}\", \"{two}\"], balance: round-robin, outlier_detection: {{ consecutive_5xx: 1, interval: 200ms, base_ejection: 1s }} }}
"
    );
    (patients, document)
}

/// Calls until one of the endpoints is left out.
async fn call(proxy: &Proxy) {
    let ejections = "outrigger_upstream_ejections_total{cluster=\"app\",cause=\"consecutive_5xx\"}";
    until("an endpoint is left out", async || {
        let status = proxy.get("web", "/").await.status;
        (status == 500 && proxy.metric(ejections).await > 0.0).then_some(())
    })
    .await;
}

/// The first event of this kind that a node told of.
async fn told(control: &Control, kind: &str, node: &str) -> Value {
    let find = async || control.events(kind).into_iter().find(|event| event["data"]["node"] == node);
    until(kind, find).await
}

#[tokio::test]
async fn an_endpoint_that_is_ejected_is_told_and_that_it_returns() {
    let (patients, document) = ward().await;
    let control = Control::start("", &[("web.yaml", &document)]);
    let proxy = Proxy::start(&file(&control, "a")).await;
    let silent = Proxy::start(&file(&control, "b").replace("\" }", "\", events: false }")).await;
    for proxy in [&silent, &proxy] {
        proxy.wait_log("listening listener=web").await;
    }
    patients[0].ill.store(true, SeqCst);
    call(&silent).await;
    call(&proxy).await;
    let ejected = told(&control, "endpoint.ejected.v1", "a").await;
    let address = patients[0].origin.address();
    assert_eq!(ejected["subject"], format!("cluster/app/{address}"));
    let data = &ejected["data"];
    assert_eq!((&data["cluster"], &data["endpoint"]), (&"app".into(), &address.into()));
    assert_eq!(data["cause"], "consecutive_5xx");
    assert!((1000..=1100).contains(&data["length_ms"].as_u64().unwrap()), "{data}");
    patients[0].ill.store(false, SeqCst);
    until("it is well again", async || {
        proxy.get("web", "/").await;
        control.events("endpoint.returned.v1").into_iter().find(|event| event["data"]["node"] == "a")
    })
    .await;
    // Who is not to tell does not.
    let by_silent = |event: &Value| event["data"]["node"] == "b";
    assert!(!control.events("endpoint.ejected.v1").iter().any(by_silent));
}

#[tokio::test]
async fn what_happens_while_nobody_hears_is_told_later() {
    let (patients, document) = ward().await;
    let control = Control::start("", &[("web.yaml", &document)]);
    let proxy = Proxy::start(&file(&control, "a")).await;
    proxy.wait_log("listening listener=web").await;
    let (dir, xds) = (control.dir().clone(), control.xds().to_string());
    control.process().kill();
    patients[1].ill.store(true, SeqCst);
    call(&proxy).await;
    let control = Control::start_in(dir, &xds, "");
    let ejected = told(&control, "endpoint.ejected.v1", "a").await;
    assert_eq!(ejected["data"]["endpoint"], patients[1].origin.address());
}

/// A proxy says so of its own; of whom nobody hears any more the control plane does.
#[tokio::test]
async fn a_certificate_that_is_not_renewed_is_told() {
    const GONE: &str = "spiffe://mesh.test/gone";
    let control = attestation::start("ca: { trust_domain: mesh.test, lifetime: 16s }");
    let ok = |args: &[&str]| attestation::ok(&control, args);
    let dir = Arc::new(Dir::new());
    dir.write("join.token", &ok(&["token", "join", "spiffe://mesh.test/here", "--once"]));
    let node = format!("node: {{ id: here }}\nxds: {{ {} }}\n", attestation::at(&control));
    let proxy = Proxy::start_in(dir.clone(), &(node + &asks(&control))).await;
    until("it is somebody", async || (proxy.ask("/ready").await.status == 200).then_some(())).await;
    // Its one certificate.
    dir.write("gone.token", &ok(&["token", "join", GONE]));
    let server = format!("https://localhost:{}", control.xds().port());
    let [trust, token, out] = [control.dir().file("ca.crt"), dir.file("gone.token"), dir.file("gone")]
        .map(|path| path.display().to_string());
    let asked =
        control.run(&["identity", "--server", &server, "--trust", &trust, "--token", &token, "--out", &out]);
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let joins = ok(&["token", "joins"]);
    let here = joins.lines().find(|line| line.contains("mesh.test/here")).unwrap();
    ok(&["token", "unjoin", here.split_whitespace().next().unwrap()]);
    let events = |kind: &str, whose: &str| {
        let all = attestation::events(&control, kind).into_iter();
        all.filter(|event| event["subject"] == whose).collect::<Vec<_>>()
    };
    let first = async |kind: &str, whose: &str| until(kind, async || events(kind, whose).pop()).await;
    let by_here = async |kind: &str| {
        let own = |event: &Value| event["data"]["node"] == "here";
        let said = || events(kind, "spiffe://mesh.test/here").into_iter().find(own);
        until(kind, async || said()).await
    };
    let own = by_here("certificate.expiring.v1").await;
    let issued = events("certificate.issued.v1", "spiffe://mesh.test/here");
    assert_eq!(own["data"]["serial"], issued.last().unwrap()["data"]["serial"]);
    let why = own["data"]["why"].as_str().unwrap();
    assert!(why.contains("this join token was taken back"), "{why}");
    let gone = first("certificate.expiring.v1", GONE).await;
    assert_eq!(gone["data"]["not_after"], events("certificate.issued.v1", GONE)[0]["data"]["not_after"]);
    assert!(gone["data"]["node"].is_null());
    // It could not be renewed at all, and says so too.
    assert_eq!(by_here("certificate.expired.v1").await["data"]["serial"], own["data"]["serial"]);
    first("certificate.expired.v1", GONE).await;
    assert_eq!(events("certificate.expiring.v1", GONE).len(), 1);
}
