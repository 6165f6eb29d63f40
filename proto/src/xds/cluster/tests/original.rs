//! `ORIGINAL_DST`: what of it is read, and what beside it is refused.

use std::num::{NonZeroU16, NonZeroU32};

use super::*;

/// A cluster of that type, as a control plane writes it.
fn original(cluster: &mut pb::Cluster) {
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into()));
    cluster.lb_policy = LbPolicy::ClusterProvided.into();
    cluster.load_assignment = None;
}

fn config(of: pb::cluster::OriginalDstLbConfig) -> Option<pb::cluster::LbConfig> {
    Some(pb::cluster::LbConfig::OriginalDstLbConfig(of))
}

fn noted(of: &ours::Cluster) -> Option<core::Metadata> {
    let mut metadata = core::Metadata::default();
    metadata.typed_filter_metadata.insert("outrigger".to_owned(), packed(of));
    Some(metadata)
}

#[test]
fn endpoints_are_named_by_who_comes() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut pb::Cluster), expected: Original) {
        let cluster = with(|cluster| {
            original(cluster);
            change(cluster);
        });
        let read = read_cluster(&cluster).unwrap_or_else(|refused| panic!("{refused}"));
        assert_eq!(read.endpoints, EndpointSource::Original);
        assert_eq!(read.cluster.source, Source::Original(expected));
        assert_eq!(
            (&read.cluster.balance, read.cluster.panic_threshold),
            (&Balance::default(), Percent::ZERO)
        );
    }
    use pb::cluster::OriginalDstLbConfig;
    let default = Original::default;
    check(|_| {}, default());
    check(|cluster| cluster.common_lb_config = Some(Default::default()), default());
    check(|cluster| cluster.lb_config = config(Default::default()), default());
    // That of a policy which is not used.
    let other = pb::cluster::LbConfig::MaglevLbConfig(Default::default());
    check(|cluster| cluster.lb_config = Some(other), default());
    let header = OriginalDstLbConfig { use_http_header: true, ..Default::default() };
    check(
        |cluster| cluster.lb_config = config(header),
        Original { header: Some(Original::HEADER), ..default() },
    );
    let all = OriginalDstLbConfig {
        use_http_header: true,
        http_header_name: "X-To".to_owned(),
        upstream_port_override: Some(8080),
    };
    check(
        |cluster| {
            cluster.lb_config = config(all);
            cluster.cleanup_interval = seconds(7);
            cluster.metadata = noted(&ours::Cluster { max_endpoints: 3, ..Default::default() });
        },
        Original {
            header: Some(::http::HeaderName::from_static("x-to")),
            port: NonZeroU16::new(8080),
            cleanup: Duration::from_secs(7),
            max_endpoints: NonZeroU32::new(3).unwrap(),
        },
    );
}

#[test]
fn what_has_no_meaning_beside_it_is_refused() {
    use pb::cluster::OriginalDstLbConfig;
    let wrong = |expected: &str, change: &dyn Fn(&mut pb::Cluster)| {
        refused(expected, |cluster| {
            original(cluster);
            change(cluster);
        });
    };
    let one = "with ORIGINAL_DST each connection or request names its one endpoint";
    let provided = "lb_policy: with ORIGINAL_DST this is CLUSTER_PROVIDED";
    wrong(provided, &|cluster| cluster.lb_policy = LbPolicy::RoundRobin.into());
    wrong(provided, &|cluster| cluster.load_balancing_policy = Some(Default::default()));
    wrong(&format!("load_assignment: {one}"), &|cluster| cluster.load_assignment = Some(set(Vec::new())));
    wrong(&format!("health_checks: {one}"), &|cluster| cluster.health_checks = vec![Default::default()]);
    wrong(&format!("lb_subset_config: {one}"), &|cluster| {
        cluster.lb_subset_config = Some(Default::default())
    });
    wrong(&format!("common_lb_config: {one}"), &|cluster| {
        let healthy_panic_threshold = Some(kinds::Percent { value: 50.0 });
        let common = pb::cluster::CommonLbConfig { healthy_panic_threshold, ..Default::default() };
        cluster.common_lb_config = Some(common);
    });
    let no_eds = "eds_cluster_config: the cluster's endpoints do not come from EDS";
    wrong(no_eds, &|cluster| cluster.eds_cluster_config = Some(Default::default()));
    wrong("cleanup_interval: 0 is no time: expected more", &|cluster| cluster.cleanup_interval = seconds(0));
    for (expected, of) in [
        (
            "http_header_name: no header is used: write `use_http_header` too",
            OriginalDstLbConfig { http_header_name: "x".to_owned(), ..Default::default() },
        ),
        (
            "http_header_name: `x y` is not the name of a header",
            OriginalDstLbConfig {
                use_http_header: true,
                http_header_name: "x y".to_owned(),
                ..Default::default()
            },
        ),
        (
            "upstream_port_override: it is between 1 and 65535",
            OriginalDstLbConfig { upstream_port_override: Some(0), ..Default::default() },
        ),
    ] {
        wrong(&format!("original_dst_lb_config.{expected}"), &|cluster| {
            cluster.lb_config = config(of.clone());
        });
    }
    let at = "metadata.typed_filter_metadata[outrigger]";
    let slow = ours::Cluster { slow_start: seconds(1), ..Default::default() };
    wrong(&format!("{at}.slow_start: {one}"), &|cluster| cluster.metadata = noted(&slow));
    let many = ours::Cluster { max_endpoints: 65_537, ..Default::default() };
    wrong(&format!("{at}.max_endpoints: it is at most 65536"), &|cluster| cluster.metadata = noted(&many));
    let not = "the cluster's type is not ORIGINAL_DST";
    refused(&format!("original_dst_lb_config: {not}"), |cluster| {
        cluster.lb_config = config(OriginalDstLbConfig::default());
    });
    let some = ours::Cluster { max_endpoints: 1, ..Default::default() };
    refused(&format!("{at}.max_endpoints: {not}"), |cluster| cluster.metadata = noted(&some));
    let provided = "lb_policy: CLUSTER_PROVIDED is not supported";
    refused(provided, |cluster| cluster.lb_policy = LbPolicy::ClusterProvided.into());
    // What says nothing of it has no effect.
    assert_eq!(model(|cluster| cluster.cleanup_interval = seconds(9)), model(|_| {}));
}

/// The walk over the bytes finds it: the subset has no such field.
#[test]
fn an_address_in_metadata_is_refused() {
    let mut any = packed(&with(original));
    // original_dst_lb_config { metadata_key {} }
    any.value.extend([0x92, 0x02, 0x02, 0x22, 0x00]);
    let refused = read(Kind::Cluster, &any).unwrap_err().to_string();
    assert_eq!(refused, "Cluster[app].original_dst_lb_config.metadata_key: not supported");
}
