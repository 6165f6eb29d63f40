//! A control plane that is not ours drives the proxy: PyPI's grpcio, with the messages of xds-protos.

use outrigger_tests::{Echo, Proxy, until};
use serde_json::{Value, json};

use super::ext_authz::python_with_messages;
use super::{Running, script};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

fn at(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

/// A cluster whose endpoints come from the stream.
fn cluster(name: &str, more: &Value) -> Value {
    let mut cluster = json!({
        "name": name, "type": "EDS",
        "eds_cluster_config": { "eds_config": { "ads": {}, "resource_api_version": "V3" } },
    });
    cluster.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    cluster
}

fn endpoints(cluster: &str, ports: &[u16]) -> Value {
    let each = ports.iter().map(|port| json!({ "endpoint": { "address": at(*port) } }));
    json!({ "cluster_name": cluster, "endpoints": [{ "lb_endpoints": each.collect::<Vec<_>>() }] })
}

fn listener(name: &str, table: &str) -> Value {
    let manager = json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": name,
        "rds": { "config_source": { "ads": {}, "resource_api_version": "V3" }, "route_config_name": table },
        "http_filters": [{ "name": "router", "typed_config": { "@type": format!("{TYPES}.filters.http.router.v3.Router") } }],
    });
    json!({ "name": name, "address": at(0), "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }] })
}

fn routes(name: &str, routes: &Value) -> Value {
    json!({ "name": name, "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] })
}

fn to(path: &Value, cluster: &str) -> Value {
    json!({ "match": path, "route": { "cluster": cluster } })
}

/// What is served at first: one listener, one route, one cluster of these endpoints.
fn state(version: &str, ports: &[u16]) -> Value {
    json!({
        "version": version,
        "Cluster": [cluster("app", &json!({}))],
        "ClusterLoadAssignment": [endpoints("app", ports)],
        "Listener": [listener("web", "table")],
        "RouteConfiguration": [routes("table", &json!([to(&json!({ "prefix": "/" }), "app")]))],
    })
}

/// The control plane, with this state, on this port or any.
async fn control(python: &std::path::Path, port: u16, state: &Value) -> (Running, u16) {
    let mut control = Running::start(python, &[&script("xds_server.py"), &port.to_string()]);
    let port = control.port().await;
    control.tell(&state.to_string()).await;
    (control, port)
}

/// A file that says who the proxy is and whom it asks.
fn file(port: u16) -> String {
    format!("node: {{ id: proxy-1, cluster: web }}\nxds: {{ server: \"http://127.0.0.1:{port}\" }}\n")
}

/// What it is asked next of this kind.
async fn asked(control: &mut Running, kind: &str) -> Value {
    let line = control.line_with(&format!("\"kind\": \"{kind}\"")).await;
    serde_json::from_str(line.strip_prefix("ASKED ").unwrap()).unwrap()
}

async fn answered_by(proxy: &Proxy, origin: &str) {
    until(origin, async || {
        let reply = proxy.get("web", "/").await;
        (reply.status == 200 && outrigger_tests::Report::parse(&reply.body).origin == origin).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_control_plane_that_is_not_ours_says_what_is_served() {
    let Some(python) = python_with_messages().await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let (mut control, port) = control(&python, 0, &state("1", &[one.address().port()])).await;
    let proxy = Proxy::start(&file(port)).await;
    assert_eq!(asked(&mut control, "Cluster").await["node"], "proxy-1");
    answered_by(&proxy, "one").await;
    proxy.wait_metric("outrigger_xds_connected", |n| n == 1.0).await;
    // Endpoints touch nothing else: the configuration is the one that it was.
    let version = proxy.version().await;
    control.tell(&state("2", &[two.address().port()]).to_string()).await;
    answered_by(&proxy, "two").await;
    assert_eq!(proxy.version().await, version);
    // Routes do, and nobody has to reconnect.
    let mut client = proxy.client("web").await;
    assert_eq!(client.get("/").await.status, 200);
    let mut next = state("3", &[two.address().port()]);
    let fixed = json!({ "match": { "path": "/fixed" }, "direct_response": { "status": 418, "body": { "inline_string": "tea" } } });
    next["RouteConfiguration"] =
        json!([routes("table", &json!([fixed, to(&json!({ "prefix": "/" }), "app")]))]);
    control.tell(&next.to_string()).await;
    until("the route", async || (client.get("/fixed").await.status == 418).then_some(())).await;
    assert_eq!(client.get("/").await.status, 200);
    // A cluster that is gone, and a route that still leads there.
    next["version"] = json!("4");
    next["Cluster"] = json!([]);
    control.tell(&next.to_string()).await;
    until("the end of it", async || (client.get("/").await.status == 503).then_some(())).await;
    assert_eq!(client.get("/fixed").await.status, 418);
}

#[tokio::test]
async fn what_is_refused_is_named_and_its_neighbours_go_on() {
    let Some(python) = python_with_messages().await else { return };
    let echo = Echo::start("one").await;
    let port = echo.address().port();
    let (mut control, address) = control(&python, 0, &state("1", &[port])).await;
    let proxy = Proxy::start(&file(address)).await;
    answered_by(&proxy, "one").await;
    let mut next = state("2", &[port]);
    next["Cluster"] = json!([
        cluster("app", &json!({ "outlier_detection": {}, "lb_policy": "MAGLEV" })),
        cluster("other", &json!({})),
    ]);
    next["ClusterLoadAssignment"] = json!([endpoints("app", &[port]), endpoints("other", &[port])]);
    let elsewhere = to(&json!({ "path_separated_prefix": "/other" }), "other");
    next["RouteConfiguration"] =
        json!([routes("table", &json!([elsewhere, to(&json!({ "prefix": "/" }), "app")]))]);
    control.tell(&next.to_string()).await;
    let refused = loop {
        let asked = asked(&mut control, "Cluster").await;
        if asked["error"] != "" {
            break asked;
        }
    };
    assert_eq!(refused["version"], "1", "the version that is in force");
    let said = refused["error"].as_str().unwrap();
    assert!(said.contains("Cluster[app].outlier_detection: not supported"), "{said}");
    assert!(said.contains("Cluster[app].lb_policy: MAGLEV is not supported"), "{said}");
    proxy.wait_metric("outrigger_xds_refused_total", |n| n == 1.0).await;
    // The good one is there, and the bad one as it was.
    let by = "outrigger_upstream_requests_total{cluster=\"other\",code=\"2xx\"}";
    until("its neighbour", async || {
        proxy.get("web", "/other").await;
        (proxy.metric(by).await >= 1.0).then_some(())
    })
    .await;
    answered_by(&proxy, "one").await;
}

#[tokio::test]
async fn without_its_control_plane_it_goes_on_and_finds_it_again() {
    let Some(python) = python_with_messages().await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let (first, port) = control(&python, 0, &state("1", &[one.address().port()])).await;
    // What the file says of a name is what is served under it.
    let own = "listeners:\n  own: { bind: 127.0.0.1:0, routes: [{ to: own }] }\nclusters:\n";
    let own = format!("{}{own}  own: {{ endpoints: [\"{}\"] }}\n", file(port), two.address());
    let proxy = Proxy::start(&own).await;
    answered_by(&proxy, "one").await;
    drop(first);
    proxy.wait_metric("outrigger_xds_connected", |n| n == 0.0).await;
    for listener in ["web", "own"] {
        assert_eq!(proxy.get(listener, "/").await.status, 200, "{listener}");
    }
    // A reload of the file takes nothing away of what it does not say.
    proxy.reload(&own.replace("routes: [{ to: own }]", "routes: [{ respond: { status: 418 } }]")).await;
    assert_eq!(proxy.get("own", "/").await.status, 418);
    answered_by(&proxy, "one").await;
    let (_second, _) = control(&python, port, &state("2", &[two.address().port()])).await;
    answered_by(&proxy, "two").await;
    proxy.wait_metric("outrigger_xds_connected", |n| n == 1.0).await;
}

#[tokio::test]
async fn without_a_control_plane_at_the_start_the_file_is_served() {
    let own = "listeners:\n  own: { bind: 127.0.0.1:0, routes: [{ respond: { status: 418 } }] }\n";
    let proxy = Proxy::start(&(file(1) + own)).await;
    assert_eq!(proxy.get("own", "/").await.status, 418);
    proxy.wait_log("the control plane is away").await;
}
