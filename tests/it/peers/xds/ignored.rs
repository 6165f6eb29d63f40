//! What is accepted without effect can be seen: in the series, and once in the log.

use std::collections::BTreeMap;

use outrigger_tests::{Echo, Proxy};
use serde_json::json;

use super::{TYPES, Way, answered_by, cluster, control, endpoints, file, python_with_messages, state};

const SERIES: &str = "outrigger_xds_ignored_fields_total";
const STAT_NAME: &str = "envoy.config.cluster.v3.Cluster.alt_stat_name";

/// How often each field was accepted.
async fn counted(proxy: &Proxy) -> BTreeMap<String, u64> {
    let text = proxy.ask("/metrics").await.text();
    let samples = text.lines().filter_map(|line| {
        let (field, count) = line.strip_prefix(SERIES)?.strip_prefix("{field=\"")?.split_once("\"} ")?;
        Some((field.to_owned(), count.parse().unwrap()))
    });
    samples.collect()
}

async fn is_counted_and_said_once(way: Way) {
    let Some(python) = python_with_messages().await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let notes = json!({ "filter_metadata": { "theirs": { "revision": "7" } } });
    let named = json!({ "alt_stat_name": "a", "metadata": notes });
    let mut said = state("1", &[one.address().port()]);
    said["Cluster"] = json!([cluster("app", &named)]);
    let lua = json!({ "@type": format!("{TYPES}.filters.http.lua.v3.Lua"), "default_source_code": {} });
    let lua = json!({ "name": "lua", "is_optional": true, "typed_config": lua });
    said["Listener"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        .as_array_mut()
        .unwrap()
        .insert(0, lua);
    let (mut control, port) = control(&python, way, 0, &said).await;
    let proxy = Proxy::start(&file(port)).await;
    answered_by(&proxy, "one").await;
    let manager = "envoy.extensions.filters.network.http_connection_manager.v3";
    let expected = [
        (STAT_NAME.to_owned(), 1),
        ("envoy.config.core.v3.Metadata.filter_metadata".to_owned(), 1),
        (format!("{manager}.HttpConnectionManager.stat_prefix"), 1),
        (format!("{manager}.HttpFilter.typed_config"), 1),
    ];
    assert_eq!(counted(&proxy).await, expected.clone().into());
    proxy.wait_log(&format!("accepted, without effect: {STAT_NAME}, first in Cluster[app]")).await;
    // Another that has it is counted, and one that is refused is not.
    said = state("2", &[two.address().port()]);
    let bad = json!({ "alt_stat_name": "c", "upstream_bind_config": {} });
    said["Cluster"] = json!([
        cluster("app", &json!({})),
        cluster("bad", &bad),
        cluster("more", &json!({ "alt_stat_name": "b" }))
    ]);
    said["ClusterLoadAssignment"].as_array_mut().unwrap().push(endpoints("more", &[one.address().port()]));
    control.tell(&said.to_string()).await;
    answered_by(&proxy, "two").await;
    proxy.wait_metric("outrigger_xds_refused_total", |n| n >= 1.0).await;
    assert_eq!(counted(&proxy).await[STAT_NAME], 2);
    for (field, _) in expected {
        let lines = proxy.log().matches(&format!("accepted, without effect: {field},")).count();
        // Every control plane says these.
        let expected = usize::from(!field.ends_with(".stat_prefix"));
        assert_eq!(lines, expected, "{}", proxy.log());
    }
}

#[tokio::test]
async fn what_has_no_effect_is_counted_and_said_once() {
    is_counted_and_said_once(Way::Sotw).await;
}

#[tokio::test]
async fn what_has_no_effect_is_counted_and_said_once_incrementally() {
    is_counted_and_said_once(Way::Delta).await;
}
