//! `/metrics`: well formed, complete, and right.

use outrigger_tests::peer::peer;
use outrigger_tests::wire::post;
use outrigger_tests::{Echo, Origin, Proxy};

use crate::web;

#[tokio::test]
async fn promtool_finds_nothing_to_complain_of() {
    let Some(promtool) = peer("promtool") else { return };
    let origin = Origin::ok("x").await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    for path in ["/", "/..", "/x"] {
        proxy.get("web", path).await;
    }
    let text = proxy.ask("/metrics").await.text();
    let ran = promtool.run_with(["check", "metrics"], text.as_bytes()).await;
    assert!(ran.success, "{}\n{}\n{text}", ran.stdout, ran.stderr);
}

#[tokio::test]
async fn counts_are_what_happened() {
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&web([echo.address()])).await;
    let mut client = proxy.client("web").await;
    for _ in 0..3 {
        client.send(post("/", "12345")).await;
        client.reply().await;
    }
    client.send("GET / HTTP/1.1\r\nHost: t\r\nX-Want: status=503,size=7\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 503);
    client.get("/x/../../y").await;
    let rows = [
        ("outrigger_downstream_requests_total{listener=\"web\",code=\"2xx\"}", 3.0),
        ("outrigger_downstream_requests_total{listener=\"web\",code=\"4xx\"}", 1.0),
        ("outrigger_downstream_requests_total{listener=\"web\",code=\"5xx\"}", 1.0),
        ("outrigger_upstream_requests_total{cluster=\"app\",code=\"2xx\"}", 3.0),
        ("outrigger_upstream_requests_total{cluster=\"app\",code=\"5xx\"}", 1.0),
        ("outrigger_downstream_errors_total{listener=\"web\",reason=\"bad_path\"}", 1.0),
        ("outrigger_downstream_received_bytes_total{listener=\"web\"}", 15.0),
        ("outrigger_upstream_sent_bytes_total{cluster=\"app\"}", 15.0),
        ("outrigger_downstream_request_duration_seconds_count{listener=\"web\"}", 5.0),
        ("outrigger_upstream_request_duration_seconds_count{cluster=\"app\"}", 4.0),
        ("outrigger_downstream_connections_total{listener=\"web\"}", 1.0),
        ("outrigger_downstream_requests_active{listener=\"web\"}", 0.0),
        ("outrigger_upstream_requests_active{cluster=\"app\"}", 0.0),
        ("outrigger_upstream_connections_total{cluster=\"app\"}", 1.0),
        ("outrigger_config_version", 1.0),
        ("outrigger_config_last_reload_successful", 1.0),
        ("outrigger_workers", 2.0),
        ("outrigger_draining", 0.0),
    ];
    for (series, expected) in rows {
        proxy.wait_metric(series, |value| value == expected).await;
    }
    let text = proxy.ask("/metrics").await.text();
    for series in
        ["process_cpu_seconds_total", "process_resident_memory_bytes", "outrigger_build_info{version="]
    {
        assert!(text.contains(series), "{series}");
    }
}

#[tokio::test]
async fn what_is_in_flight_is_shown_and_what_is_over_is_not() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let origin = Origin::start(move |mut conn| {
        let mut gate = gate.clone();
        async move {
            conn.request().await;
            let _ = gate.wait_for(|go| *go).await;
            conn.send(outrigger_tests::origin::ok("x")).await;
        }
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    client.send(outrigger_tests::wire::get("/")).await;
    origin.wait_requests(1).await;
    let gauges = [
        "outrigger_downstream_requests_active{listener=\"web\"}",
        "outrigger_upstream_requests_active{cluster=\"app\"}",
        "outrigger_downstream_connections{listener=\"web\"}",
        "outrigger_upstream_connections{cluster=\"app\"}",
    ];
    for gauge in gauges {
        proxy.wait_metric(gauge, |value| value == 1.0).await;
    }
    go.send(true).unwrap();
    client.reply().await;
    drop(client);
    origin.wait_closed(1).await;
    for gauge in gauges {
        proxy.wait_metric(gauge, |value| value == 0.0).await;
    }
}

#[tokio::test]
async fn labels_never_come_from_requests() {
    let origin = Origin::ok("x").await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    client
        .send("MARKERMETHOD /markerpath HTTP/1.1\r\nHost: markerhost\r\nUser-Agent: markeragent\r\n\r\n")
        .await;
    assert_eq!(client.reply().await.status, 200);
    let text = proxy.ask("/metrics").await.text().to_lowercase();
    assert!(!text.contains("marker"));
}

#[tokio::test]
async fn a_cluster_that_is_gone_takes_its_series_with_it() {
    let origin = Origin::ok("x").await;
    let config = web([origin.address()]);
    let proxy = Proxy::start(&config).await;
    proxy.get("web", "/").await;
    assert!(proxy.ask("/metrics").await.text().contains("cluster=\"app\""));
    proxy.reload(&config.replace("app", "other")).await;
    assert_eq!(proxy.get("web", "/").await.status, 200);
    let text = proxy.ask("/metrics").await.text();
    assert!(!text.contains("cluster=\"app\"") && text.contains("cluster=\"other\""), "{text}");
}
