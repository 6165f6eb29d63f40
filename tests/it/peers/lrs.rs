//! Load reports, heard by somebody else's server, and told by somebody else's proxy.

use std::collections::BTreeMap;

use outrigger_tests::{Client, Control, Echo, Proxy, until};
use serde_json::Value;

use super::ext_authz::python_with_messages;
use super::{Running, script};

/// Numbers of 64 bits are text in JSON.
fn number(of: &Value) -> u64 {
    of.as_str().map_or(0, |text| text.parse().unwrap())
}

#[tokio::test]
async fn a_server_of_grpcios_hears_of_each_request_once() {
    let Some(python) = python_with_messages().await else { return };
    let mut server = Running::start(&python, &[&script("lrs_server.py")]);
    let port = server.port().await;
    let echo = Echo::start("one").await;
    let proxy = Proxy::start(&format!(
        "node: {{ id: proxy-1 }}\nxds: {{ server: \"http://127.0.0.1:{port}\" }}\n\
         listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ match: {{ path: {{ prefix: /gone }} }}, to: dead }}, {{ to: app }}] }}\n\
         clusters:\n  app: {{ endpoints: [{{ address: \"{}\", zone: a }}] }}\n  dead: {{ endpoints: [127.0.0.1:1] }}\n",
        echo.address()
    ))
    .await;
    assert_eq!(server.line_with("NODE").await, "NODE proxy-1 envoy.lrs.supports_send_all_clusters");
    // What came before somebody wanted to hear of it is nobody's: so first there is a report.
    server.line_with("REPORT").await;
    for _ in 0..10 {
        assert_eq!(proxy.get("web", "/").await.status, 200);
    }
    for _ in 0..3 {
        assert_eq!(proxy.get("web", "/gone").await.status, 503);
    }
    let mut sums: BTreeMap<(String, String), [u64; 3]> = BTreeMap::new();
    let all = [(("app", "a"), [10, 10, 0]), (("dead", ""), [3, 0, 3])];
    let all = all.map(|((cluster, zone), sum)| ((cluster.to_owned(), zone.to_owned()), sum));
    while sums != BTreeMap::from(all.clone()) {
        let report = server.line_with("REPORT").await;
        let report: Value = serde_json::from_str(report.strip_prefix("REPORT ").unwrap()).unwrap();
        for cluster in report["cluster_stats"].as_array().into_iter().flatten() {
            let name = cluster["cluster_name"].as_str().unwrap();
            assert!(!name.contains("listener"), "nobody has asked for that: {report}");
            for group in cluster["upstream_locality_stats"].as_array().unwrap() {
                let zone = group["locality"]["zone"].as_str().unwrap_or_default();
                let sum = sums.entry((name.to_owned(), zone.to_owned())).or_default();
                let fields = ["total_issued_requests", "total_successful_requests", "total_error_requests"];
                for (sum, field) in sum.iter_mut().zip(fields) {
                    *sum += number(&group[field]);
                }
            }
        }
        assert!(sums.values().all(|sum| sum[0] <= 10), "told twice: {sums:?}");
    }
}

#[tokio::test]
async fn envoy_tells_our_control_plane() {
    let Some(envoy) = super::envoy::Envoy::find().await else { return };
    let echo = Echo::start("one").await;
    let document = format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\nclusters:\n  app: {{ endpoints: [\"{}\"] }}\n",
        echo.address()
    );
    let settings = "rollout: { steps: [50%], watch: 1s }";
    let control = Control::start(settings, &[("web.yaml", &document)]);
    let envoy = envoy.run(&super::envoy::node("envoy", control.xds(), "DELTA_GRPC")).await;
    until("it says what it was asked", async || {
        assert_eq!(Client::connect(envoy.address_of("web")).await.get("/").await.status, 200);
        let load = &control.status()["nodes"][0]["load"];
        (load["requests_per_second"].as_f64()? > 0.0 && load["failed_percent"] == 0.0).then_some(())
    })
    .await;
}
