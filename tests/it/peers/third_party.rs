//! A control plane that people run drives the proxy: go-control-plane, the library that Envoy's own project keeps and that most
//! control planes are built on, out of Debian. `go_control_plane` beside this file holds what any user of it writes. Its ways of
//! answering are not those of our other one: it says nothing until all it has of a kind is asked for, gives all kinds one
//! version, and says at once again what was refused.

use outrigger_tests::peer::{peer, skip};
use outrigger_tests::pki::Authority;
use outrigger_tests::{Dir, Echo, Proxy, Reply, Report, until};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::xds::{Way, answered_by, asked, cluster, endpoints, file, listener, routes, state, to};
use super::xds_tls::{certificate, curl_believes, refused, served};
use super::{Running, python};

/// It, with this state, on this port or any. It can say what has changed, or cannot.
async fn plane(way: Way, port: u16, state: &Value) -> Option<(Running, u16)> {
    let program = python(&[]).await?.with_file_name("go-control-plane");
    if !program.is_file() {
        skip("go-control-plane is not built");
        return None;
    }
    let way = if way == Way::Delta { "delta" } else { "sotw" };
    let mut plane = Running::start(program, &[&port.to_string(), way]);
    let port = plane.port().await;
    plane.tell(&state.to_string()).await;
    Some((plane, port))
}

/// Who has answered.
fn by(reply: &Reply) -> String {
    Report::parse(&reply.body).origin
}

async fn says_what_is_served(way: Way) {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let Some((mut plane, port)) = plane(way, 0, &state("1", &[one.address().port()])).await else { return };
    let proxy = Proxy::start(&file(port)).await;
    assert_eq!(asked(&mut plane, "Cluster").await["node"], "proxy-1");
    answered_by(&proxy, "one").await;
    proxy.wait_metric("outrigger_xds_connected", |n| n == 1.0).await;
    // Endpoints touch nothing else, though all kinds have one version.
    let version = proxy.version().await;
    plane.tell(&state("2", &[two.address().port()]).to_string()).await;
    answered_by(&proxy, "two").await;
    assert_eq!(proxy.version().await, version);
    // Another cluster, and a route to it: first one, then the other, and nobody has to reconnect.
    let mut client = proxy.client("web").await;
    assert_eq!(client.get("/").await.status, 200);
    let mut next = state("3", &[two.address().port()]);
    next["Cluster"] = json!([cluster("app", &json!({})), cluster("more", &json!({}))]);
    next["ClusterLoadAssignment"] =
        json!([endpoints("app", &[two.address().port()]), endpoints("more", &[one.address().port()])]);
    let all = to(&json!({ "prefix": "/" }), "app");
    next["RouteConfiguration"] =
        json!([routes("table", &json!([to(&json!({ "path": "/more" }), "more"), all]))]);
    next["Listener"].as_array_mut().unwrap().push(listener("second", "table"));
    plane.tell(&next.to_string()).await;
    proxy.wait_log("listening listener=second").await;
    until("the route", async || (by(&client.get("/more").await) == "one").then_some(())).await;
    assert_eq!(by(&client.get("/").await), "two");
    assert_eq!(proxy.get("second", "/").await.status, 200);
    // And back.
    plane.tell(&state("4", &[two.address().port()]).to_string()).await;
    proxy.wait_log("no longer listening listener=second").await;
    until("the end of the route", async || (by(&client.get("/more").await) == "two").then_some(())).await;
    assert_eq!(proxy.metric("outrigger_xds_refused_total").await, 0.0);
}

#[tokio::test]
async fn a_control_plane_of_others_says_what_is_served() {
    says_what_is_served(Way::Sotw).await;
}

#[tokio::test]
async fn a_control_plane_of_others_says_what_is_served_incrementally() {
    says_what_is_served(Way::Delta).await;
}

async fn is_told_what_is_refused(way: Way) {
    let echo = Echo::start("one").await;
    let port = echo.address().port();
    let Some((mut plane, address)) = plane(way, 0, &state("1", &[port])).await else { return };
    let proxy = Proxy::start(&file(address)).await;
    answered_by(&proxy, "one").await;
    let mut wrong = state("2", &[port]);
    wrong["Cluster"] =
        json!([cluster("app", &json!({ "lb_policy": "CLUSTER_PROVIDED" })), cluster("other", &json!({})),]);
    wrong["ClusterLoadAssignment"] = json!([endpoints("app", &[port]), endpoints("other", &[port])]);
    let elsewhere = to(&json!({ "path": "/other" }), "other");
    wrong["RouteConfiguration"] =
        json!([routes("table", &json!([elsewhere, to(&json!({ "prefix": "/" }), "app")]))]);
    let begun = Instant::now();
    plane.tell(&wrong.to_string()).await;
    let said = refused(&mut plane, "Cluster").await;
    assert!(said.contains("Cluster[app].lb_policy: CLUSTER_PROVIDED is not supported"), "{said}");
    // The good ones are there, and the bad one as it was.
    let by = "outrigger_upstream_requests_total{cluster=\"other\",code=\"2xx\"}";
    until("its neighbour", async || {
        proxy.get("web", "/other").await;
        (proxy.metric(by).await >= 1.0).then_some(())
    })
    .await;
    answered_by(&proxy, "one").await;
    // In the state of the world it says the same again as soon as it is refused: that is no reason to hurry, nor to log it.
    let refused = "outrigger_xds_refused_total";
    if way == Way::Sotw {
        proxy.wait_metric(refused, |n| n >= 3.0).await;
    }
    assert!(proxy.metric(refused).await <= begun.elapsed().as_secs_f64() + 2.0);
    assert_eq!(proxy.log().matches("refused by xDS").count(), 1, "{}", proxy.log());
    // What is put right is taken.
    let two = Echo::start("two").await;
    plane.tell(&state("3", &[two.address().port()]).to_string()).await;
    answered_by(&proxy, "two").await;
}

#[tokio::test]
async fn a_control_plane_of_others_is_told_what_is_refused() {
    is_told_what_is_refused(Way::Sotw).await;
}

#[tokio::test]
async fn a_control_plane_of_others_is_told_what_is_refused_incrementally() {
    is_told_what_is_refused(Way::Delta).await;
}

async fn goes_on_without(way: Way) {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let first = state("1", &[one.address().port()]);
    let Some((before, port)) = plane(way, 0, &first).await else { return };
    let proxy = Proxy::start(&file(port)).await;
    answered_by(&proxy, "one").await;
    proxy.wait_metric("outrigger_xds_connected", |n| n == 1.0).await;
    let version = proxy.version().await;
    drop(before);
    proxy.wait_metric("outrigger_xds_connected", |n| n == 0.0).await;
    assert_eq!(proxy.get("web", "/").await.status, 200);
    // It is back with what it had: that is nothing new.
    let (mut after, _) = plane(way, port, &first).await.expect("it was there");
    let again = asked(&mut after, "Cluster").await;
    if way == Way::Delta {
        let known: Vec<_> = again["version"].as_object().unwrap().keys().collect();
        assert_eq!(known, ["app"], "it says what it has");
    } else {
        assert_eq!(again["version"], "1");
    }
    proxy.wait_metric("outrigger_xds_connected", |n| n == 1.0).await;
    assert_eq!(proxy.version().await, version);
    after.tell(&state("2", &[two.address().port()]).to_string()).await;
    answered_by(&proxy, "two").await;
}

#[tokio::test]
async fn without_a_control_plane_of_others_it_goes_on_and_finds_it_again() {
    goes_on_without(Way::Sotw).await;
}

#[tokio::test]
async fn without_a_control_plane_of_others_it_goes_on_and_finds_it_again_incrementally() {
    goes_on_without(Way::Delta).await;
}

async fn shows_what_it_is_told(way: Way) {
    let Some(curl) = peer("curl") else { return };
    let (curl, dir) = (curl.path(), Dir::new());
    let echo = Echo::start("app").await;
    let app = echo.address().port();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let begun = served("1", app, &json!([certificate("web", &old.named("localhost"))]));
    let Some((mut plane, port)) = plane(way, 0, &begun).await else { return };
    let proxy = Proxy::start(&file(port)).await;
    let web = proxy.address("web");
    assert_eq!(asked(&mut plane, "Secret").await["names"], json!(["web"]));
    until("the certificate", async || curl_believes(curl, &dir, &old, web).await.then_some(())).await;
    let next = served("2", app, &json!([certificate("web", &new.named("localhost"))]));
    plane.tell(&next.to_string()).await;
    until("the other certificate", async || curl_believes(curl, &dir, &new, web).await.then_some(())).await;
    assert!(!curl_believes(curl, &dir, &old, web).await);
}

#[tokio::test]
async fn a_control_plane_of_others_tells_secrets() {
    shows_what_it_is_told(Way::Sotw).await;
}

#[tokio::test]
async fn a_control_plane_of_others_tells_secrets_incrementally() {
    shows_what_it_is_told(Way::Delta).await;
}
