use outrigger_proto::model::{Address, Assignment};
use outrigger_proto::xds::loads;

use super::*;

const ALL: Wanted =
    Wanted { all: true, clusters: Vec::new(), listeners: true, interval: Duration::from_secs(1) };

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn assignment(of: &[(u16, &str)]) -> Assignment {
    let endpoint = |(port, zone): &(u16, &str)| {
        let mut made = outrigger_proto::model::Endpoint::new(Address::Ip(([127, 0, 0, 1], *port).into()));
        made.zone = (!zone.is_empty()).then(|| (*zone).into());
        made
    };
    Assignment { endpoints: of.iter().map(endpoint).collect() }
}

/// Cluster, zone, good, failed, begun, under way.
fn shown(report: &[ClusterStats]) -> Vec<String> {
    let show = |stats: &ClusterStats| {
        let name = stats.cluster_name.clone();
        let group = move |of: &UpstreamLocalityStats| {
            let zone = of.locality.as_ref().map_or("-", |place| place.zone.as_str());
            let (good, failed) = (of.total_successful_requests, of.total_error_requests);
            let (begun, active) = (of.total_issued_requests, of.total_requests_in_progress);
            format!("{name} {zone} {good} {failed} {begun} {active}")
        };
        stats.upstream_locality_stats.iter().map(group).collect::<Vec<_>>()
    };
    report.iter().flat_map(show).collect()
}

#[test]
fn each_request_is_told_once() {
    let (registry, start) = (Registry::default(), Instant::now());
    let clusters = Arc::new(Clusters::new(registry.clone(), start));
    let app = clusters.get_or_make(&name("app"));
    clusters.assign(&app, &assignment(&[(1, "a"), (2, "b"), (3, "")]));
    let mut figures = Figures::new(clusters.clone(), registry);
    assert!(figures.report(&ALL, start).is_empty());
    let endpoints = app.endpoints().endpoints().to_vec();
    let under_way = endpoints[0].lease();
    drop(endpoints[0].lease());
    drop(endpoints[1].lease());
    endpoints[1].note_fault();
    assert_eq!(shown(&figures.report(&ALL, start)), ["app a 1 0 2 1", "app b 0 1 1 0"]);
    assert_eq!(shown(&figures.report(&ALL, start)), ["app a 0 0 0 1"]);
    // What ends after its endpoint has left, and even its cluster, is told all the same.
    clusters.assign(&app, &assignment(&[(2, "b")]));
    clusters.retain(|_| false);
    drop(under_way);
    drop(endpoints[1].lease());
    endpoints[1].failed(Duration::ZERO);
    assert_eq!(shown(&figures.report(&ALL, start)), ["app a 1 0 0 0", "app b 0 1 1 0"]);
    assert!(figures.report(&ALL, start).is_empty() && figures.endpoints.is_empty());
}

#[test]
fn only_what_is_wanted_is_told() {
    let (registry, start) = (Registry::default(), Instant::now());
    let clusters = Arc::new(Clusters::new(registry.clone(), start));
    for (called, port) in [("a", 1), ("b", 2)] {
        let cluster = clusters.get_or_make(&name(called));
        clusters.assign(&cluster, &assignment(&[(port, "")]));
        drop(cluster.endpoints().endpoints()[0].lease());
        cluster.stats().overflow("max_requests");
    }
    let web = registry.listener("web");
    web.request(200, Duration::from_millis(3));
    web.request(503, Duration::from_millis(300));
    // Nobody waited for it any more.
    web.request(0, Duration::from_secs(30));
    let mut figures = Figures::new(clusters, registry);
    figures.since = start;
    let wanted = Wanted { all: false, clusters: vec!["b".to_owned()], listeners: true, ..ALL };
    let report = figures.report(&wanted, start + Duration::from_secs(2));
    assert_eq!(shown(&report), ["b  1 0 1 0", "outrigger/listeners/web - 1 1 2 0"]);
    assert_eq!(
        (report[0].total_dropped_requests, report[0].dropped_requests[0].category.as_str()),
        (1, "max_requests")
    );
    assert_eq!(report[0].load_report_interval.map(|since| since.seconds), Some(2));
    let took = vec![(0.005, 1), (0.5, 1), (f64::INFINITY, 1)];
    assert_eq!(loads::served(&report), Served { good: 1, failed: 1, took });
    // Even that there was nothing is told, of listeners.
    let report = figures.report(&wanted, start + Duration::from_secs(4));
    assert_eq!(shown(&report), ["outrigger/listeners/web - 0 0 0 0"]);
    assert_eq!(figures.report(&Wanted { listeners: false, ..wanted }, start), []);
}

#[test]
fn how_often_is_asked_for_within_bounds() {
    let of = |seconds| {
        Wanted::of(LoadStatsResponse {
            clusters: vec![LISTENERS.to_owned()],
            load_reporting_interval: Some(loads::Duration { seconds, nanos: 0 }),
            ..LoadStatsResponse::default()
        })
    };
    assert_eq!(
        (of(5).interval, of(0).interval, of(-1).interval),
        (Duration::from_secs(5), SHORTEST, SHORTEST)
    );
    // Whoever counts on from there must not run out of numbers.
    assert_eq!(of(i64::MAX).interval, LONGEST);
    assert!(of(5).listeners && !of(5).all);
}
