//! A control plane that is not ours drives the proxy: PyPI's grpcio, with the messages of xds-protos.

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

#[tokio::test]
async fn without_a_control_plane_at_the_start_the_file_is_served() {
    let own = "listeners:\n  own: { bind: 127.0.0.1:0, routes: [{ respond: { status: 418 } }] }\n";
    let proxy = Proxy::start(&(file(1) + own)).await;
    assert_eq!(proxy.get("own", "/").await.status, 418);
    proxy.wait_log("the control plane is away").await;
}

/// A file that says beside that where what the control plane says is kept.
fn keeping(port: u16) -> String {
    file(port).replace("\" }", "\", cache: kept.xds }")
}

/// Starts it again where it was, without waiting.
fn again(dir: &std::sync::Arc<outrigger_tests::Dir>, port: u16) -> Proxy {
    let file = dir.write("outrigger.yaml", &outrigger_tests::proxy::with_admin(&keeping(port)));
    Proxy::spawn(dir.clone(), &file, &[])
}

async fn is_kept(dir: &outrigger_tests::Dir, before: &[u8]) -> Vec<u8> {
    until("it is kept", async || std::fs::read(dir.file("kept.xds")).ok().filter(|kept| kept != before)).await
}

/// Killed while its control plane is away, it serves what that said last; and what that says when it comes back.
async fn starts_without(way: Way) {
    let Some(python) = python_with_messages().await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let mut said = state("1", &[one.address().port()]);
    said["Cluster"].as_array_mut().unwrap().push(cluster("old", &json!({})));
    said["ClusterLoadAssignment"].as_array_mut().unwrap().push(endpoints("old", &[one.address().port()]));
    said["Listener"].as_array_mut().unwrap().push(listener("old", "table"));
    let (first, port) = control(&python, way, 0, &said).await;
    let dir = std::sync::Arc::new(outrigger_tests::Dir::new());
    let proxy = Proxy::start_in(dir.clone(), &keeping(port)).await;
    answered_by(&proxy, "one").await;
    assert_eq!(proxy.metric("outrigger_xds_cached").await, 0.0);
    is_kept(&dir, b"").await;
    drop((first, proxy));

    let begun = tokio::time::Instant::now();
    let proxy = again(&dir, port);
    proxy.address("web");
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(2),
        "it waits for nobody: {:?}",
        begun.elapsed()
    );
    answered_by(&proxy, "one").await;
    proxy.wait_log("serving what the control plane said last").await;
    assert_eq!(proxy.metric("outrigger_xds_cached").await, 1.0);
    let (mut second, _) = control(&python, way, port, &state("2", &[two.address().port()])).await;
    let asked = asked(&mut second, "Cluster").await;
    if way == Way::Delta {
        let versions: Vec<_> = asked["version"].as_object().unwrap().keys().collect();
        assert_eq!(versions, ["app", "old"], "it says what it has");
    }
    answered_by(&proxy, "two").await;
    proxy.wait_log("no longer listening listener=old").await;
    let left = proxy.ask_json("/clusters").await;
    assert!(!left.to_string().contains("\"old\""), "{left}");
    assert_eq!(proxy.metric("outrigger_xds_cached").await, 0.0);
}

#[tokio::test]
async fn a_start_without_the_control_plane_serves_what_it_said_last() {
    starts_without(Way::Sotw).await;
}

#[tokio::test]
async fn a_start_without_the_control_plane_serves_what_it_said_last_incrementally() {
    starts_without(Way::Delta).await;
}

/// What is kept and cannot be served is said, and is no reason not to start.
#[tokio::test]
async fn what_is_kept_is_served_whole_or_not_at_all() {
    let Some(python) = python_with_messages().await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let (first, port) = control(&python, Way::Delta, 0, &state("1", &[one.address().port()])).await;
    let dir = std::sync::Arc::new(outrigger_tests::Dir::new());
    let proxy = Proxy::start_in(dir.clone(), &keeping(port)).await;
    answered_by(&proxy, "one").await;
    let kept = is_kept(&dir, b"").await;
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(dir.file("kept.xds")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    drop((first, proxy));

    let mut damaged = kept.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let version = [&b"outrigger xds cache 9\n"[..], &kept[22..]].concat();
    let own = "listeners:\n  own: { bind: 127.0.0.1:0, routes: [{ respond: { status: 418 } }] }\n";
    let rows = [
        (damaged, "proxy-1", "it is damaged: its checksum does not fit"),
        (kept[..middle].to_vec(), "proxy-1", "it is damaged: its checksum does not fit"),
        (version, "proxy-1", "it is of another version, `9`"),
        (b"listeners: {}\n".to_vec(), "proxy-1", "it is not such a file"),
        (kept, "proxy-2", "it is that of another node, `proxy-1`"),
    ];
    for (bytes, node, why) in rows {
        let (_control, port) = control(&python, Way::Delta, 0, &state("2", &[two.address().port()])).await;
        std::fs::write(dir.file("kept.xds"), &bytes).unwrap();
        let proxy = Proxy::start_in(dir.clone(), &(keeping(port).replace("proxy-1", node) + own)).await;
        proxy.wait_log(&format!("what the control plane said last is not served: {why}")).await;
        assert_eq!(proxy.get("own", "/").await.status, 418);
        assert_eq!(proxy.metric("outrigger_xds_cached").await, 0.0);
        answered_by(&proxy, "two").await;
        // What is in force takes its place.
        is_kept(&dir, &bytes).await;
    }
}

/// Another has taken the port that was kept: what the file says is served all the same.
#[tokio::test]
async fn what_is_kept_and_cannot_come_into_force_keeps_nothing_from_starting() {
    let Some(python) = python_with_messages().await else { return };
    let one = Echo::start("one").await;
    let mut said = state("1", &[one.address().port()]);
    let taken = super::free_port();
    said["Listener"][0]["address"] = at(taken);
    let (first, port) = control(&python, Way::Delta, 0, &said).await;
    let dir = std::sync::Arc::new(outrigger_tests::Dir::new());
    let proxy = Proxy::start_in(dir.clone(), &keeping(port)).await;
    answered_by(&proxy, "one").await;
    is_kept(&dir, b"").await;
    drop((first, proxy));
    let _taken = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
    let own = "listeners:\n  own: { bind: 127.0.0.1:0, routes: [{ respond: { status: 418 } }] }\n";
    let proxy = Proxy::start_in(dir, &(keeping(port) + own)).await;
    assert_eq!(proxy.get("own", "/").await.status, 418);
    proxy.wait_log("refused by xDS: Listener[web]: cannot listen on").await;
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

/// What is given a time to live, and is not said again.
async fn lapses(way: Way) {
    let Some(python) = python_with_messages().await else { return };
    let one = Echo::start("one").await;
    let mut said = state("1", &[one.address().port()]);
    said["Listener"].as_array_mut().unwrap().push(listener("short", "table"));
    said["Ttl"] = json!({ "Listener": { "short": 1500, "web": 600_000 } });
    let (control, port) = control(&python, way, 0, &said).await;
    let proxy = Proxy::start(&file(port)).await;
    answered_by(&proxy, "one").await;
    proxy.address("short");
    // It does not need its control plane for that.
    drop(control);
    proxy.wait_log("Listener[short]: not said again in its time to live, and gone").await;
    proxy.wait_log("no longer listening listener=short").await;
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
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let peak: u64 = peak.unwrap().parse().unwrap();
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

/// Hosts, and routes of all the kinds that are honoured.
fn many_routes() -> Value {
    let exact = |text: &str| json!({ "exact": text });
    let header = |key: &str, value: &str, action: &str| json!({ "header": { "key": key, "value": value }, "append_action": action });
    let mut rewritten = to(&json!({ "path_separated_prefix": "/s" }), "one");
    rewritten["route"]["prefix_rewrite"] = json!("/t");
    let mut hosted = to(&json!({ "path": "/host" }), "one");
    hosted["route"]["host_rewrite_literal"] = json!("inner.test");
    let mut edited = to(&json!({ "path": "/edited" }), "two");
    edited["request_headers_to_add"] = json!([
        header("x-add", "1", "APPEND_IF_EXISTS_OR_ADD"),
        header("x-set", "1", "OVERWRITE_IF_EXISTS_OR_ADD"),
    ]);
    edited["request_headers_to_remove"] = json!(["x-gone"]);
    edited["response_headers_to_add"] = json!([header("x-told", "1", "APPEND_IF_EXISTS_OR_ADD")]);
    let matching = |key: &str, value: Value, cluster: &str| {
        let mut route = to(&json!({ "prefix": "/m" }), cluster);
        route["match"][key] = json!([value]);
        route
    };
    let fixed = |path: &str, status: u16| json!({ "match": { "path": path }, "direct_response": { "status": status, "body": { "inline_string": "said" } } });
    let a = json!([
        matching("headers", json!({ "name": ":method", "string_match": exact("PUT") }), "two"),
        matching("headers", json!({ "name": "x-v", "string_match": exact("1") }), "two"),
        matching("headers", json!({ "name": "x-w", "string_match": { "prefix": "ab" } }), "two"),
        matching(
            "headers",
            json!({ "name": "x-r", "string_match": { "safe_regex": { "regex": "a+b?" } } }),
            "two"
        ),
        matching("headers", json!({ "name": "x-here", "present_match": true }), "two"),
        matching("query_parameters", json!({ "name": "q", "string_match": exact("1") }), "two"),
        to(&json!({ "prefix": "/m" }), "one"),
        to(&json!({ "prefix": "/p" }), "one"),
        to(&json!({ "path": "/x" }), "two"),
        rewritten,
        to(&json!({ "safe_regex": { "regex": "/r[0-9]+" } }), "two"),
        hosted,
        edited,
        fixed("/fixed", 418),
        fixed("/gone", 410),
        to(&json!({ "path": "/lost" }), "nowhere"),
    ]);
    let all = |cluster: &str| json!([to(&json!({ "prefix": "/" }), cluster)]);
    json!({ "name": "table", "virtual_hosts": [
        { "name": "a", "domains": ["a.test"], "routes": a },
        { "name": "b", "domains": ["*.b.test", "*.c.b.test"], "routes": all("two") },
        { "name": "c", "domains": ["x.b.test"], "routes": all("one") },
        { "name": "rest", "domains": ["*"], "routes": all("one") },
    ]})
}

/// Requests whose answers tell which of those took them.
fn requests() -> Vec<String> {
    let a = |method: &str, target: &str, fields: &str| {
        format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")
    };
    let targets = "/p /p/1 /pq /x /x/ /s /s/1?q=2 /st /r1 /r12 /r /r1/2 /host /fixed /fixed?q=1 /gone /lost / /none /m /m?q=1 /m?q=2 /m?q /m?r=1&q=1";
    let mut all: Vec<String> = targets.split(' ').map(|target| a("GET", target, "")).collect();
    for fields in [
        "x-v: 1",
        "x-v: 2",
        "x-v: 11",
        "X-V: 1",
        "x-w: abc",
        "x-w: ab",
        "x-w: a",
        "x-r: aab",
        "x-r: aabc",
        "x-r: b",
        "x-here: 1",
        "x-here:",
        "x-other: 1",
    ] {
        all.push(a("GET", "/m", &format!("{fields}\r\n")));
    }
    all.push(a("PUT", "/m", "Content-Length: 0\r\n"));
    all.push(a("GET", "/edited", "x-add: 0\r\nx-set: 0\r\nx-gone: 0\r\n"));
    for host in "A.test x.b.test y.b.test y.c.b.test b.test z.y.b.test other.test 127.0.0.1".split(' ') {
        all.push(format!("GET /any HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    all
}

/// What came of a request: the status, who answered and what that was sent, and what the client was told.
async fn came_of(address: std::net::SocketAddr, request: &str) -> String {
    let mut client = outrigger_tests::Client::connect(address).await;
    client.send(request).await;
    let reply = client.reply().await;
    let told = reply.field("x-told").unwrap_or("-").to_owned();
    let Ok(report) = serde_json::from_slice::<Value>(&reply.body) else {
        // Of answers of its own a proxy says what it likes.
        let said = if reply.text() == "said" { "said" } else { "-" };
        return format!("{} {said}", reply.status);
    };
    let sent = ["x-add", "x-set", "x-gone"].map(|name| {
        let named = report["fields"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
        named.map(|pair| pair[1].as_str().unwrap()).collect::<Vec<_>>().join(",")
    });
    format!("{} {} {} {} {sent:?} {told}", reply.status, report["origin"], report["path"], report["host"])
}

/// Envoy as a second opinion: the same control plane, the same resources, the same requests.
#[tokio::test]
async fn what_is_served_is_what_envoy_serves() {
    let (Some(python), Some(envoy)) = (python_with_messages().await, super::envoy::Envoy::find().await)
    else {
        return;
    };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let state = json!({
        "version": "1",
        "Cluster": [cluster("one", &json!({ "lb_policy": "LEAST_REQUEST" })), cluster("two", &json!({ "connect_timeout": "1s" }))],
        "ClusterLoadAssignment": [endpoints("one", &[one.address().port()]), endpoints("two", &[two.address().port()])],
        "Listener": [listener("web", "table")],
        "RouteConfiguration": [many_routes()],
    });
    let (_control, port) = control(&python, Way::Sotw, 0, &state).await;
    let envoy = envoy.run(&super::envoy::node("envoy", ([127, 0, 0, 1], port).into(), "GRPC")).await;
    let proxy = Proxy::start(&file(port)).await;
    let all = requests();
    assert!(all.len() >= 45, "{}", all.len());
    let mut differ = Vec::new();
    for request in &all {
        let (ours, envoys) =
            (came_of(proxy.address("web"), request).await, came_of(envoy.address, request).await);
        if ours != envoys {
            differ.push(format!("{}\n  ours   {ours}\n  Envoy's {envoys}", request.replace("\r\n", " | ")));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));

    // The one that is meant to differ: the absolute spelling of a name is that name, so it cannot walk round its routes.
    let absolute = "GET /any HTTP/1.1\r\nHost: a.test.\r\n\r\n";
    assert_eq!(came_of(proxy.address("web"), absolute).await, "404 -");
    assert!(came_of(envoy.address, absolute).await.starts_with("200 \"one\""));
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
