//! Envoy as a second opinion on what a control plane that is not ours says.

use outrigger_tests::{Echo, Proxy};
use serde_json::{Value, json};

use super::{Way, cluster, control, endpoints, file, listener, to};
use crate::peers::ext_authz::python_with_messages;

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
    let (Some(python), Some(envoy)) =
        (python_with_messages().await, crate::peers::envoy::Envoy::find().await)
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
    let envoy = envoy.run(&crate::peers::envoy::node("envoy", ([127, 0, 0, 1], port).into(), "GRPC")).await;
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
