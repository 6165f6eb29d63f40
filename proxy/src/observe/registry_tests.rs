use std::time::{Duration, UNIX_EPOCH};

use super::*;

/// The lines of the registry that begin with one of these, without what the kernel says.
fn lines(registry: &Registry, beginnings: &[&str]) -> Vec<String> {
    let wanted = |line: &&str| beginnings.iter().any(|beginning| line.starts_with(beginning));
    registry.render().lines().filter(wanted).map(str::to_owned).collect()
}

#[track_caller]
fn check(registry: &Registry, beginnings: &[&str], expected: &[&str]) {
    assert_eq!(lines(registry, beginnings), expected);
}

#[test]
fn the_whole_text() {
    let registry = Registry::default();
    assert!(registry.set_buckets(stats::DOWNSTREAM_DURATION, &[1.0, 0.1, f64::NAN, 1.0]));
    assert!(registry.set_buckets(stats::UPSTREAM_DURATION, &[0.5]));
    let web = registry.listener("web");
    web.connections.increment(3);
    web.connections_total.increment(4);
    web.requests_active.set(2);
    web.request(200, Duration::from_millis(100));
    web.request(404, Duration::from_millis(1500));
    web.request(0, Duration::from_millis(20));
    web.limit("headers");
    web.fault("delay");
    web.rate_limit_service("ok");
    web.external_authorization("error");
    web.error("no_route");
    web.error("no_route");
    web.bytes(10, 1234);
    let cart = registry.cluster("a \"b\"\\c");
    cart.request(503, Duration::from_millis(250));
    cart.request(700, Duration::from_millis(250));
    cart.active.increment(1);
    cart.connections.increment(2);
    cart.connections_total.increment(5);
    cart.idle.increment(1);
    cart.replays.increment(1);
    cart.connect_failure("timeout");
    cart.connect_failure("refused");
    cart.bytes(7, 8);
    cart.health_check("ok");
    cart.health_check("refused");
    cart.endpoints_healthy(Some(3));
    cart.retry_skipped("budget");
    let process = registry.process();
    process.workers.set(2);
    process.config_loaded(7, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    process.config_refused();
    process.access_log_dropped.increment(9);
    process.overload_level.set(1);
    assert!(process.xds_ignored("a.B.c"));
    assert!(!process.xds_ignored("a.B.c"));
    process.stale_bytes.store(4096, Ordering::Relaxed);
    process.shed.requests.increment(3);
    process.identity(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let text: String = registry
        .render()
        .split_inclusive('\n')
        .filter(|line| !line.contains("process_"))
        .collect::<String>()
        .replace(env!("CARGO_PKG_VERSION"), "VERSION");
    assert_eq!(text, include_str!("registry_golden.txt"));
}

#[test]
fn what_the_kernel_says_is_there() {
    let found = lines(&Registry::default(), &["process_"]);
    let names: Vec<_> = found.iter().filter_map(|line| line.split(' ').next()).collect();
    let expected = [
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ];
    assert_eq!(names, expected);
}

#[test]
fn the_facade_works() {
    let registry = Registry::default();
    metrics::with_local_recorder(&registry, || {
        metrics::describe_counter!("jobs.done", "Jobs\nthat ended.");
        metrics::counter!("jobs.done", "queue" => "b", "le" => "x").increment(2);
        metrics::counter!("jobs.done", "queue" => "a", "le" => "x").increment(1);
        metrics::gauge!("heat").set(1.5);
        metrics::gauge!("heat").decrement(2.0);
        metrics::histogram!("took").record(Duration::from_millis(3));
    });
    registry.counter("jobs.done", &[("le", "x"), ("queue", "a")]).increment(1);
    let jobs = [
        "# HELP jobs_done Jobs\\nthat ended.",
        "# TYPE jobs_done counter",
        "jobs_done{exported_le=\"x\",queue=\"a\"} 2",
        "jobs_done{exported_le=\"x\",queue=\"b\"} 2",
    ];
    check(&registry, &["# HELP jobs", "# TYPE jobs", "jobs"], &jobs);
    check(&registry, &["# HELP heat", "# TYPE heat", "heat"], &["# TYPE heat gauge", "heat -0.5"]);
    let took =
        ["took_bucket{le=\"0.0025\"} 0", "took_bucket{le=\"0.005\"} 1", "took_sum 0.003", "took_count 1"];
    check(
        &registry,
        &["took_bucket{le=\"0.0025", "took_bucket{le=\"0.005\"", "took_sum", "took_count"],
        &took,
    );
    assert!(!registry.set_buckets("took", &[1.0]), "in use");
}

#[test]
fn a_name_has_one_kind() {
    let registry = Registry::default();
    registry.counter("x", &[]).increment(1);
    registry.gauge("x", &[]).set(5.0);
    registry.counter("outrigger_workers", &[]).increment(5);
    registry.gauge("process_open_fds", &[]).set(-5.0);
    check(&registry, &["x", "outrigger_workers", "process_open_fds -"], &["outrigger_workers 0", "x 1"]);
}

#[test]
fn above_the_cap_is_other() {
    let registry = Registry::new(2);
    for (name, by) in [("a", 1), ("b", 2), ("c", 4), ("d", 8), ("a", 16)] {
        registry.cluster(name).replays.increment(by);
        registry.counter("hits", &[("who", name), ("how", "x")]).increment(by);
    }
    let expected = [
        "hits{how=\"other\",who=\"other\"} 12",
        "hits{how=\"x\",who=\"a\"} 17",
        "hits{how=\"x\",who=\"b\"} 2",
        "outrigger_metrics_folded_total 4",
        "outrigger_upstream_replays_total{cluster=\"a\"} 17",
        "outrigger_upstream_replays_total{cluster=\"b\"} 2",
        "outrigger_upstream_replays_total{cluster=\"other\"} 12",
    ];
    let names = ["hits", "outrigger_metrics_folded_total", "outrigger_upstream_replays_total"];
    check(&registry, &names, &expected);

    registry.retire("cluster", "b");
    registry.cluster("e").replays.increment(1);
    registry.cluster("f").replays.increment(1);
    let expected = [
        "outrigger_upstream_replays_total{cluster=\"a\"} 17",
        "outrigger_upstream_replays_total{cluster=\"e\"} 1",
        "outrigger_upstream_replays_total{cluster=\"other\"} 13",
    ];
    check(&registry, &["outrigger_upstream_replays_total"], &expected);
}

#[test]
fn what_is_gone_is_retired() {
    let registry = Registry::default();
    let old = registry.cluster("cart");
    old.replays.increment(5);
    assert!(Arc::ptr_eq(&old, &registry.cluster("cart")));
    registry.cluster("cart2").replays.increment(1);
    registry.listener("cart").connections_total.increment(1);
    registry.counter("hits", &[("cluster", "cart"), ("x", "y")]).increment(1);
    registry.counter("hits", &[("cluster", ",cluster=\"cart\"")]).increment(2);
    registry.retire("cluster", "cart");
    registry.retire("cluster", "never there");
    registry.retire("cluster", "other");
    old.replays.increment(1);
    let names = ["outrigger_upstream_replays_total", "outrigger_downstream_connections_total", "hits"];
    let expected = [
        "hits{cluster=\",cluster=\\\"cart\\\"\"} 2",
        "outrigger_downstream_connections_total{listener=\"cart\"} 1",
        "outrigger_upstream_replays_total{cluster=\"cart2\"} 1",
    ];
    check(&registry, &names, &expected);
    registry.cluster("cart").replays.increment(1);
    assert_eq!(lines(&registry, &["outrigger_upstream_replays_total{cluster=\"cart\"}"]).len(), 1);
}

#[test]
fn threads_register_and_record() {
    let registry = Registry::new(5);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..1000_u32 {
                    let cluster = registry.cluster(&format!("c{}", round % 10));
                    cluster.request(200, Duration::from_millis(1));
                    if round % 250 == 0 {
                        registry.render();
                    }
                }
            });
        }
    });
    let counts = lines(&registry, &["outrigger_upstream_request_duration_seconds_count"]);
    let total: u64 = counts.iter().filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum();
    assert_eq!((counts.len(), total), (6, 4000));
}
