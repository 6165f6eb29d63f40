//! A control plane that is not ours drives the proxy: PyPI's grpcio, with the messages of xds-protos.

mod envoys;
mod hostile;
mod ignored;
mod kept;

use outrigger_tests::{Echo, Proxy, until};
use serde_json::{Value, json};

use super::ext_authz::python_with_messages;
use super::{Running, script};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

pub(super) fn at(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

/// A cluster whose endpoints come from the stream.
pub(super) fn cluster(name: &str, more: &Value) -> Value {
    let mut cluster = json!({
        "name": name, "type": "EDS",
        "eds_cluster_config": { "eds_config": { "ads": {}, "resource_api_version": "V3" } },
    });
    cluster.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    cluster
}

pub(super) fn endpoints(cluster: &str, ports: &[u16]) -> Value {
    let each = ports.iter().map(|port| json!({ "endpoint": { "address": at(*port) } }));
    json!({ "cluster_name": cluster, "endpoints": [{ "lb_endpoints": each.collect::<Vec<_>>() }] })
}

pub(super) fn listener(name: &str, table: &str) -> Value {
    let manager = json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": name,
        "rds": { "config_source": { "ads": {}, "resource_api_version": "V3" }, "route_config_name": table },
        "http_filters": [{ "name": "router", "typed_config": { "@type": format!("{TYPES}.filters.http.router.v3.Router") } }],
    });
    json!({ "name": name, "address": at(0), "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }] })
}

pub(super) fn routes(name: &str, routes: &Value) -> Value {
    json!({ "name": name, "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] })
}

pub(super) fn to(path: &Value, cluster: &str) -> Value {
    json!({ "match": path, "route": { "cluster": cluster } })
}

/// What is served at first: one listener, one route, one cluster of these endpoints.
pub(super) fn state(version: &str, ports: &[u16]) -> Value {
    json!({
        "version": version,
        "Cluster": [cluster("app", &json!({}))],
        "ClusterLoadAssignment": [endpoints("app", ports)],
        "Listener": [listener("web", "table")],
        "RouteConfiguration": [routes("table", &json!([to(&json!({ "prefix": "/" }), "app")]))],
    })
}

/// How a control plane says what there is.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Way {
    /// All of it, each time.
    Sotw,
    /// What has changed.
    Delta,
}

/// The control plane, with this state, on this port or any. It speaks in this way alone.
pub(super) async fn control(python: &std::path::Path, way: Way, port: u16, state: &Value) -> (Running, u16) {
    let way = if way == Way::Delta { "delta" } else { "sotw" };
    let mut control = Running::start(python, &[&script("xds_server.py"), &port.to_string(), way]);
    let port = control.port().await;
    control.tell(&state.to_string()).await;
    (control, port)
}

/// A file that says who the proxy is and whom it asks.
pub(super) fn file(port: u16) -> String {
    format!("node: {{ id: proxy-1, cluster: web }}\nxds: {{ server: \"http://127.0.0.1:{port}\" }}\n")
}

/// What it is asked next of this kind.
pub(super) async fn asked(control: &mut Running, kind: &str) -> Value {
    let line = control.line_with(&format!("\"kind\": \"{kind}\"")).await;
    serde_json::from_str(line.strip_prefix("ASKED ").unwrap()).unwrap()
}

pub(super) async fn answered_by(proxy: &Proxy, origin: &str) {
    until(origin, async || {
        let reply = proxy.get("web", "/").await;
        (reply.status == 200 && outrigger_tests::Report::parse(&reply.body).origin == origin).then_some(())
    })
    .await;
}

async fn says_what_is_served(way: Way) {
    let Some(python) = python_with_messages().await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let (mut control, port) = control(&python, way, 0, &state("1", &[one.address().port()])).await;
    let proxy = Proxy::start(&file(port)).await;
    assert_eq!(asked(&mut control, "Cluster").await["node"], "proxy-1");
    answered_by(&proxy, "one").await;
    proxy.wait_metric("outrigger_xds_connected", |n| n == 1.0).await;
    // Endpoints touch nothing else: the configuration is the one that it was.
    let version = proxy.version().await;
    if way == Way::Delta {
        control.line_with("SENT|RouteConfiguration|table|").await;
    }
    control.tell(&state("2", &[two.address().port()]).to_string()).await;
    answered_by(&proxy, "two").await;
    if way == Way::Delta {
        assert_eq!(control.line_with("SENT|").await, "SENT|ClusterLoadAssignment|app|");
    }
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
async fn a_control_plane_that_is_not_ours_says_what_is_served() {
    says_what_is_served(Way::Sotw).await;
}

#[tokio::test]
async fn a_control_plane_that_is_not_ours_says_what_is_served_incrementally() {
    says_what_is_served(Way::Delta).await;
}

async fn refused_by_name(way: Way) {
    let Some(python) = python_with_messages().await else { return };
    let echo = Echo::start("one").await;
    let port = echo.address().port();
    let (mut control, address) = control(&python, way, 0, &state("1", &[port])).await;
    let proxy = Proxy::start(&file(address)).await;
    answered_by(&proxy, "one").await;
    let mut next = state("2", &[port]);
    next["Cluster"] = json!([
        cluster("app", &json!({ "upstream_bind_config": {}, "lb_policy": "CLUSTER_PROVIDED" })),
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
    if way == Way::Sotw {
        assert_eq!(refused["version"], "1", "the version that is in force");
    }
    let said = refused["error"].as_str().unwrap();
    assert!(said.contains("Cluster[app].upstream_bind_config: not supported"), "{said}");
    assert!(said.contains("Cluster[app].lb_policy: CLUSTER_PROVIDED is not supported"), "{said}");
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
async fn what_is_refused_is_named_and_its_neighbours_go_on() {
    refused_by_name(Way::Sotw).await;
}

#[tokio::test]
async fn what_is_refused_is_named_and_its_neighbours_go_on_incrementally() {
    refused_by_name(Way::Delta).await;
}

async fn goes_on_without(way: Way) {
    let Some(python) = python_with_messages().await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let (first, port) = control(&python, way, 0, &state("1", &[one.address().port()])).await;
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
    let (_second, _) = control(&python, way, port, &state("2", &[two.address().port()])).await;
    answered_by(&proxy, "two").await;
    proxy.wait_metric("outrigger_xds_connected", |n| n == 1.0).await;
}

#[tokio::test]
async fn without_its_control_plane_it_goes_on_and_finds_it_again() {
    goes_on_without(Way::Sotw).await;
}

#[tokio::test]
async fn without_its_control_plane_it_goes_on_and_finds_it_again_incrementally() {
    goes_on_without(Way::Delta).await;
}

/// A file and a control plane that say something of the same names: a listener, a table of routes and a cluster.
async fn the_file_wins(way: Way) {
    let Some(python) = python_with_messages().await else { return };
    let echoes = [Echo::start("own").await, Echo::start("first").await, Echo::start("second").await];
    let [own, first, second] = &echoes;
    let said = |version: &str, app: &Echo, more: Option<&str>| {
        let mut said = state(version, &[app.address().port()]);
        // The table of a listener of the file is called as that.
        let names = ["web", "other"].into_iter().chain(more);
        said["Listener"] = names.map(|name| listener(name, "web")).collect();
        let path = json!({ "match": { "path": "/told" }, "direct_response": { "status": 204 } });
        said["RouteConfiguration"] =
            json!([routes("web", &json!([path, to(&json!({ "prefix": "/" }), "app")]))]);
        said
    };
    let (mut control, port) = control(&python, way, 0, &said("1", first, None)).await;
    let route = "{ match: { path: /own }, respond: { status: 418 } }";
    let listeners = format!("listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{route}, {{ to: app }}] }}\n");
    let clusters = format!("clusters:\n  app: {{ endpoints: [\"{}\"] }}\n", own.address());
    let proxy = Proxy::start(&format!("{}{listeners}{clusters}", file(port))).await;
    // What a listener answers to the path of the file's route, to that of the other's, and who is behind it.
    let seen = async |listener: &str| {
        let own = proxy.get(listener, "/own").await.status;
        let told = proxy.get(listener, "/told").await.status;
        let reply = proxy.get(listener, "/").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        (own, told, outrigger_tests::Report::parse(&reply.body).origin)
    };
    let (of_file, of_both, of_none) = ((418, 200, "own"), (200, 204, "own"), (200, 204, "second"));
    let is = async |listener: &str, (own, told, origin): (u16, u16, &str)| {
        assert_eq!(seen(listener).await, (own, told, origin.to_owned()), "{listener}");
    };
    proxy.wait_log("listening listener=other").await;
    is("web", of_file).await;
    is("other", of_file).await;
    // Another version of the same is no reason to take its word.
    control.tell(&said("2", second, Some("third")).to_string()).await;
    proxy.wait_log("listening listener=third").await;
    for listener in ["web", "other", "third"] {
        is(listener, of_file).await;
    }
    // What the file says no longer is the control plane's, name by name, as it was said last; and back.
    for _ in 0..2 {
        proxy.reload(&format!("{}{clusters}", file(port))).await;
        is("web", of_both).await;
        is("other", of_both).await;
        proxy.reload(&file(port)).await;
        is("web", of_none).await;
        proxy.reload(&format!("{}{listeners}{clusters}", file(port))).await;
        is("web", of_file).await;
        is("other", of_file).await;
    }
    assert_eq!(first.requests(), 0);
}

#[tokio::test]
async fn of_one_name_the_file_wins() {
    the_file_wins(Way::Sotw).await;
}

#[tokio::test]
async fn of_one_name_the_file_wins_incrementally() {
    the_file_wins(Way::Delta).await;
}

#[tokio::test]
async fn without_a_control_plane_at_the_start_the_file_is_served() {
    let own = "listeners:\n  own: { bind: 127.0.0.1:0, routes: [{ respond: { status: 418 } }] }\n";
    let proxy = Proxy::start(&(file(1) + own)).await;
    assert_eq!(proxy.get("own", "/").await.status, 418);
    proxy.wait_log("the control plane is away").await;
}

/// As a container is started: nothing is written, all is in the environment.
#[tokio::test]
async fn without_a_file_the_environment_says_whom_to_follow() {
    let Some(python) = python_with_messages().await else { return };
    let one = Echo::start("one").await;
    let (mut control, port) = control(&python, Way::Delta, 0, &state("1", &[one.address().port()])).await;
    let server = format!("http://127.0.0.1:{port}");
    let env = [("OUTRIGGER_XDS_SERVER", server.as_str()), ("OUTRIGGER_NODE_ID", "from-outside")];
    let proxy = Proxy::spawn_without_file(&env);
    assert_eq!(asked(&mut control, "Cluster").await["node"], "from-outside");
    answered_by(&proxy, "one").await;
}

#[tokio::test]
async fn the_control_plane_is_told_the_metadata() {
    let Some(python) = python_with_messages().await else { return };
    let one = Echo::start("one").await;
    let (mut control, port) = control(&python, Way::Sotw, 0, &state("1", &[one.address().port()])).await;
    let metadata = "metadata: { team: a, shards: [1, 2.5], on_call: true, of: { deep: '1' } }";
    let proxy = Proxy::start(&file(port).replace("cluster: web", metadata)).await;
    let told = json!({ "team": "a", "shards": [1.0, 2.5], "on_call": true, "of": { "deep": "1" } });
    assert_eq!(asked(&mut control, "Cluster").await["metadata"], told);
    answered_by(&proxy, "one").await;
}

/// A filter of HTTP before the others.
fn first(mut listener: Value, name: &str, kind: &str, config: Value) -> Value {
    let mut config = config;
    config["@type"] = format!("{TYPES}.filters.http.{kind}").into();
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    let filters = manager["http_filters"].as_array_mut().unwrap();
    filters.insert(0, json!({ "name": name, "typed_config": config }));
    listener
}

/// Copies, questions and counts that lead to a cluster that is refused, or never comes.
#[tokio::test]
async fn what_leads_to_a_cluster_that_nobody_has_fails_as_it_says() {
    let Some(python) = python_with_messages().await else { return };
    let one = Echo::start("one").await;
    let mut said = state("1", &[one.address().port()]);
    said["Cluster"]
        .as_array_mut()
        .unwrap()
        .push(cluster("refused", &json!({ "max_requests_per_connection": 5 })));
    let service = |cluster: &str| json!({ "envoy_grpc": { "cluster_name": cluster } });
    let asks = json!({ "grpc_service": service("refused"), "transport_api_version": "V3" });
    let counts = |denies: bool| {
        json!({
            "domain": "d", "failure_mode_deny": denies,
            "rate_limit_service": { "grpc_service": service("never"), "transport_api_version": "V3" },
        })
    };
    let limited = |name: &str, denies| {
        first(
            listener(name, "counted"),
            "envoy.filters.http.ratelimit",
            "ratelimit.v3.RateLimit",
            counts(denies),
        )
    };
    said["Listener"] = json!([
        listener("web", "table"),
        first(listener("asks", "table"), "envoy.filters.http.ext_authz", "ext_authz.v3.ExtAuthz", asks),
        limited("counts", false),
        limited("denies", true),
    ]);
    let mut copied = to(&json!({ "prefix": "/" }), "app");
    copied["route"]["request_mirror_policies"] = json!([{ "cluster": "never" }]);
    let mut counted = to(&json!({ "prefix": "/" }), "app");
    counted["route"]["rate_limits"] = json!([{ "actions": [{ "source_cluster": {} }] }]);
    said["RouteConfiguration"] =
        json!([routes("table", &json!([copied])), routes("counted", &json!([counted]))]);
    let (mut control, port) = control(&python, Way::Delta, 0, &said).await;
    let proxy = Proxy::start(&file(port)).await;
    answered_by(&proxy, "one").await;
    let statuses = async || {
        let mut out = Vec::new();
        for listener in ["web", "asks", "counts", "denies"] {
            out.push(proxy.get(listener, "/").await.status);
        }
        out
    };
    assert_eq!(statuses().await, [200, 503, 200, 503]);
    proxy.wait_log("something leads to a cluster that nobody has").await;
    // Once it is there and well, it is asked.
    said["version"] = "2".into();
    said["Cluster"] = json!([cluster("app", &json!({})), cluster("never", &json!({}))]);
    let all = [endpoints("app", &[one.address().port()]), endpoints("never", &[one.address().port()])];
    said["ClusterLoadAssignment"] = json!(all);
    control.tell(&said.to_string()).await;
    until("copies are sent", async || {
        assert_eq!(proxy.get("web", "/").await.status, 200);
        (proxy.metric("outrigger_upstream_mirrors_total{cluster=\"never\"}").await >= 1.0).then_some(())
    })
    .await;
}

/// What is given a time to live, and is not said again.
async fn lapses(way: Way) {
    let Some(python) = python_with_messages().await else { return };
    let one = Echo::start("one").await;
    let mut said = state("1", &[one.address().port()]);
    said["Listener"].as_array_mut().unwrap().push(listener("short", "table"));
    said["Cluster"].as_array_mut().unwrap().push(cluster("brief", &json!({})));
    said["ClusterLoadAssignment"].as_array_mut().unwrap().push(endpoints("brief", &[one.address().port()]));
    let routes_to = json!([to(&json!({ "path": "/brief" }), "brief"), to(&json!({ "prefix": "/" }), "app")]);
    said["RouteConfiguration"] = json!([routes("table", &routes_to)]);
    said["Ttl"] = json!({ "Listener": { "short": 1500, "web": 600_000 }, "Cluster": { "brief": 1500 } });
    let (control, port) = control(&python, way, 0, &said).await;
    let proxy = Proxy::start(&file(port)).await;
    answered_by(&proxy, "one").await;
    proxy.address("short");
    // It does not need its control plane for that.
    drop(control);
    proxy.wait_log("Listener[short]: not said again in its time to live, and gone").await;
    proxy.wait_log("no longer listening listener=short").await;
    // Routes to it do not wait for it.
    proxy.wait_log("Cluster[brief]: not said again in its time to live, and gone").await;
    until("it is gone", async || (proxy.get("web", "/brief").await.status == 503).then_some(())).await;
    answered_by(&proxy, "one").await;
}

#[tokio::test]
async fn what_is_not_said_again_in_its_time_is_gone() {
    lapses(Way::Sotw).await;
}

#[tokio::test]
async fn what_is_not_said_again_in_its_time_is_gone_incrementally() {
    lapses(Way::Delta).await;
}

/// What the kernel says of its memory, under this name.
fn kib(proxy: &Proxy, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let of =
        |line: &str| line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse().ok();
    status.lines().find_map(of).unwrap()
}

/// One that lies: bytes that are no message, and answers that no memory should be spent on.
async fn goes_on_against(way: Way) {
    let Some(python) = python_with_messages().await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let good = |version: &str, origin: &Echo| state(version, &[origin.address().port()]);
    let (mut control, port) = control(&python, way, 0, &good("1", &one)).await;
    let proxy = Proxy::start(&file(port)).await;
    answered_by(&proxy, "one").await;
    let version = proxy.version().await;
    // Half a message, a length of eternity, groups without an end, a name without a cluster, nothing.
    let lies = ["CgVo", "Cv////8P", "CwsLCw==", "CgR3aWxk/wc=", ""];
    let mut lying = good("2", &one);
    lying["Garbage"] = json!({ "Cluster": lies, "Listener": lies, "RouteConfiguration": lies, "ClusterLoadAssignment": lies });
    control.tell(&lying.to_string()).await;
    // Of each of the four kinds.
    let all = lies.len() as f64 * 4.0;
    proxy.wait_metric("outrigger_xds_refused_total", |n| n >= all).await;
    answered_by(&proxy, "one").await;
    assert_eq!(proxy.version().await, version);
    let mut endless = good("3", &two);
    endless["Pad"] = json!(100 << 20);
    control.tell(&endless.to_string()).await;
    proxy.wait_log("OutOfRange").await;
    answered_by(&proxy, "one").await;
    let peak = kib(&proxy, "VmHWM");
    assert!(peak < 100 << 10, "{peak} KiB at its most");
    control.tell(&good("4", &two).to_string()).await;
    answered_by(&proxy, "two").await;
}

#[tokio::test]
async fn a_control_plane_that_lies_changes_nothing() {
    goes_on_against(Way::Sotw).await;
}

#[tokio::test]
async fn a_control_plane_that_lies_changes_nothing_incrementally() {
    goes_on_against(Way::Delta).await;
}

/// The subset stands here under upstream's names and numbers, and what is left out of it is listed.
#[tokio::test]
async fn the_subset_is_upstreams() {
    let Some(python) = python_with_messages().await else { return };
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/proto");
    let said = super::run(&python, &[&script("subset.py"), root], b"").await.ok();
    let counts: Vec<usize> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(said.lines().count() == 1 && counts[0] >= 150 && counts[1] >= 500, "{said}");
}

#[tokio::test]
async fn hosts_come_on_demand_by_whatever_name_they_are_asked_for() {
    let Some(python) = python_with_messages().await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let mut state = state("1", &[one.address().port()]);
    let ads = json!({ "config_source": { "ads": {}, "resource_api_version": "V3" } });
    state["RouteConfiguration"] = json!([{ "name": "table", "vhds": ads, "virtual_hosts": [] }]);
    let host = |domain: &str, cluster: &str| json!({ "name": "table/shop", "domains": [domain], "routes": [to(&json!({ "prefix": "/" }), cluster)] });
    state["VirtualHost"] = json!([host("*.shop.test", "app")]);
    state["Aliases"] = json!({ "table/shop": ["table/a.shop.test", "table/b.shop.test"] });
    let (mut control, port) = control(&python, Way::Delta, 0, &state).await;
    let proxy = Proxy::start(&file(port)).await;
    let call = async |host: &str| {
        let mut client = proxy.client("web").await;
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        client.reply().await
    };
    let reply = call("a.shop.test").await;
    assert_eq!((reply.status, outrigger_tests::Report::parse(&reply.body).origin.as_str()), (200, "one"));
    control.line_with("SENT|VirtualHost|table/shop|").await;
    // What has come is for its domain, whoever asked for it.
    assert_eq!(call("c.shop.test").await.status, 200);
    assert_eq!(call("elsewhere.test").await.status, 404);
    control.line_with("SENT|VirtualHost|table/elsewhere.test").await;
    // It is another, under its own name.
    state["version"] = "2".into();
    state["VirtualHost"] = json!([host("*.shop.test", "other")]);
    state["Cluster"] = json!([cluster("app", &json!({})), cluster("other", &json!({}))]);
    state["ClusterLoadAssignment"] =
        json!([endpoints("app", &[one.address().port()]), endpoints("other", &[two.address().port()])]);
    control.tell(&state.to_string()).await;
    until("it leads elsewhere", async || {
        let reply = call("b.shop.test").await;
        (reply.status == 200 && outrigger_tests::Report::parse(&reply.body).origin == "two").then_some(())
    })
    .await;
}
