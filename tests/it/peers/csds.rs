//! What a control plane has told, asked of the proxy by somebody else's client.

use outrigger_tests::{Echo, Proxy};
use serde_json::{Value, json};

use super::ext_authz::python_with_messages;
use super::xds::{Way, answered_by, cluster, control, endpoints, file, listener, routes, to};
use super::{run, script};

async fn asked(python: &std::path::Path, proxy: &Proxy, more: &[&str]) -> [Value; 2] {
    let (script, port) = (script("csds_client.py"), proxy.admin().port().to_string());
    let out = run(python, &[&[script.as_str(), &port], more].concat(), b"").await.ok();
    let mut lines = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    [lines.next().unwrap(), lines.next().unwrap()]
}

/// Type, name, version (of which there is one or none), status and why it is refused.
fn shown(answer: &Value) -> Vec<String> {
    let show = |of: &Value| {
        let text = |key: &str| of[key].as_str().unwrap();
        let version = if text("version").is_empty() { "-" } else { "v" };
        let status = ["unknown", "requested", "none", "acked", "nacked"];
        let status = status[usize::try_from(of["status"].as_u64().unwrap()).unwrap()];
        format!("{} {} {version} {status} {}", text("type"), text("name"), text("error")).trim().to_owned()
    };
    answer["resources"].as_array().unwrap().iter().map(show).collect()
}

#[tokio::test]
async fn what_there_is_and_what_became_of_it_is_told() {
    let Some(python) = python_with_messages().await else { return };
    let one = Echo::start("one").await;
    let state = json!({
        "version": "1",
        "Cluster": [cluster("app", &json!({})), cluster("bad", &json!({ "max_requests_per_connection": 5 })), cluster("none", &json!({}))],
        "ClusterLoadAssignment": [endpoints("app", &[one.address().port()])],
        "Listener": [listener("web", "table")],
        "RouteConfiguration": [routes("table", &json!([to(&json!({ "prefix": "/" }), "app")]))],
    });
    let (_control, port) = control(&python, Way::Delta, 0, &state).await;
    let proxy = Proxy::start(&file(port)).await;
    // Of `none` no endpoints ever come.
    answered_by(&proxy, "one").await;
    let expected = [
        "Cluster app v acked",
        "Cluster none v acked",
        "Cluster bad - nacked Cluster[bad].max_requests_per_connection: not supported",
        "ClusterLoadAssignment app v acked",
        "ClusterLoadAssignment none - none",
        "Listener web v acked",
        "RouteConfiguration table v acked",
    ];
    let [fetched, streamed] = asked(&python, &proxy, &[]).await;
    assert_eq!(
        (shown(&fetched), &fetched["node"]),
        (expected.map(str::to_owned).to_vec(), &"proxy-1".into())
    );
    assert_eq!(fetched, streamed);
    let bytes = |answer: &Value| {
        answer["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|of| of["bytes"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert!(bytes(&fetched).iter().filter(|bytes| **bytes > 0).count() == 5, "{fetched}");
    let [bare, _] = asked(&python, &proxy, &["bare"]).await;
    assert!(bytes(&bare).iter().all(|bytes| *bytes == 0), "{bare}");
    // The pages beside it are what they were.
    assert_eq!(proxy.ask("/ready").await.status, 200);
}
