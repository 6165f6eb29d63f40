//! Clusters and endpoints as control planes write them that know nothing of ours, and how each fault is named.

mod original;
mod policy;

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use prost_types::Any;

use super::super::generated::envoy::config::cluster::v3 as pb;
use super::super::generated::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, LbPolicy,
};
use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::config::endpoint::v3 as endpoint;
use super::super::generated::envoy::extensions::upstreams::http::v3 as http;
use super::super::generated::envoy::r#type::v3 as kinds;
use super::super::generated::outrigger::extensions::v1 as ours;
use super::super::{ClusterResource, EndpointSource, Kind, Resource, read};
use crate::model::*;

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn packed<M: Message + prost::Name>(message: &M) -> Any {
    Any { type_url: format!("type.googleapis.com/{}", M::full_name()), value: message.encode_to_vec() }
}

fn other(name: &str) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: b"\x0a\x01x".to_vec() }
}

fn one(last: u8) -> endpoint::LbEndpoint {
    let socket = core::SocketAddress {
        address: format!("10.0.0.{last}"),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(80)),
        ..Default::default()
    };
    let address = Some(core::Address { address: Some(core::address::Address::SocketAddress(socket)) });
    let of = endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint { address });
    endpoint::LbEndpoint { host_identifier: Some(of), ..Default::default() }
}

fn group(zone: &str, weight: Option<u32>, of: &[u8]) -> endpoint::LocalityLbEndpoints {
    endpoint::LocalityLbEndpoints {
        locality: Some(core::Locality {
            region: "r".to_owned(),
            zone: zone.to_owned(),
            sub_zone: String::new(),
        }),
        load_balancing_weight: weight,
        lb_endpoints: of.iter().map(|last| one(*last)).collect(),
        priority: 0,
    }
}

fn set(endpoints: Vec<endpoint::LocalityLbEndpoints>) -> endpoint::ClusterLoadAssignment {
    endpoint::ClusterLoadAssignment { cluster_name: "app".to_owned(), endpoints, policy: None }
}

fn base() -> pb::Cluster {
    let load_assignment = Some(set(vec![group("a", None, &[1])]));
    pb::Cluster { name: "app".to_owned(), load_assignment, ..Default::default() }
}

fn with(change: impl FnOnce(&mut pb::Cluster)) -> pb::Cluster {
    let mut cluster = base();
    change(&mut cluster);
    cluster
}

fn read_cluster(cluster: &pb::Cluster) -> Result<ClusterResource, String> {
    match read(Kind::Cluster, &packed(cluster)) {
        Ok((_, Resource::Cluster(cluster))) => Ok(*cluster),
        Ok(other) => panic!("{other:?}"),
        Err(refused) => Err(refused.to_string()),
    }
}

fn read_set(set: &endpoint::ClusterLoadAssignment) -> Result<Assignment, String> {
    match read(Kind::Endpoints, &packed(set)) {
        Ok((_, Resource::Endpoints(set))) => Ok(set),
        Ok(other) => panic!("{other:?}"),
        Err(refused) => Err(refused.to_string()),
    }
}

#[track_caller]
fn model(change: impl FnOnce(&mut pb::Cluster)) -> Cluster {
    let read = read_cluster(&with(change)).unwrap_or_else(|refused| panic!("{refused}"));
    Cluster::clone(&read.cluster)
}

/// It is refused, with just this.
#[track_caller]
fn refused(expected: &str, change: impl FnOnce(&mut pb::Cluster)) {
    assert_eq!(read_cluster(&with(change)).map(|_| ()), Err(format!("Cluster[app].{expected}")));
}

#[test]
fn a_cluster_of_which_little_is_said_is_as_envoy_has_it() {
    let cluster = model(|_| {});
    let limits = BreakerLimits { max_retries: 3, ..BreakerLimits::default() };
    let expected = Cluster {
        balance: Balance::RoundRobin,
        protocol: Protocol::Http1,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(3600),
        retry_budget: RetryBudget { percent: Percent::ALL, min: 1_000_000 },
        circuit_breaker: limits.into(),
        panic_threshold: Percent::whole(50),
        ..Cluster::new(Source::Static)
    };
    assert_eq!(cluster, expected);
}

/// What the client spoke, with as many streams as anybody could want.
fn as_the_client() -> Any {
    use http::http_protocol_options as options;
    let downstream = options::UseDownstreamHttpConfig {
        http_protocol_options: Some(core::Http1ProtocolOptions {}),
        http2_protocol_options: Some(core::Http2ProtocolOptions { max_concurrent_streams: Some(1 << 30) }),
    };
    packed(&http::HttpProtocolOptions {
        upstream_protocol_options: Some(options::UpstreamProtocolOptions::UseDownstreamProtocolConfig(
            downstream,
        )),
        ..Default::default()
    })
}

/// As Istio's pilot writes the outbound cluster of a service.
#[test]
fn a_service_of_istio_is_read() {
    let weighted = pb::cluster::common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(
        pb::cluster::common_lb_config::LocalityWeightedLbConfig {},
    );
    let unlimited = pb::circuit_breakers::Thresholds {
        max_connections: Some(u32::MAX),
        max_pending_requests: Some(u32::MAX),
        max_requests: Some(u32::MAX),
        max_retries: Some(u32::MAX),
        ..Default::default()
    };
    let read = read_cluster(&with(|cluster| {
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into()));
        cluster.load_assignment = None;
        let ads = core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {});
        cluster.eds_cluster_config = Some(pb::cluster::EdsClusterConfig {
            eds_config: Some(core::ConfigSource { config_source_specifier: Some(ads), ..Default::default() }),
            service_name: "outbound|80||shop".to_owned(),
        });
        cluster.connect_timeout = seconds(10);
        cluster.lb_policy = LbPolicy::LeastRequest.into();
        cluster.circuit_breakers = Some(pb::CircuitBreakers { thresholds: vec![unlimited] });
        cluster.outlier_detection = Some(pb::OutlierDetection {
            consecutive_5xx: Some(7),
            interval: seconds(300),
            enforcing_success_rate: Some(0),
            max_ejection_percent: Some(100),
            ..Default::default()
        });
        cluster.common_lb_config = Some(pb::cluster::CommonLbConfig {
            healthy_panic_threshold: Some(kinds::Percent { value: 0.0 }),
            locality_config_specifier: Some(weighted),
        });
        cluster.typed_extension_protocol_options.insert(super::HTTP_OPTIONS.to_owned(), as_the_client());
        let mut metadata = core::Metadata::default();
        metadata.filter_metadata.insert("istio".to_owned(), prost_types::Struct::default());
        metadata.typed_filter_metadata.insert("theirs".to_owned(), other("a.Message"));
        cluster.metadata = Some(metadata);
    }));
    let ClusterResource { cluster, endpoints } = read.unwrap();
    assert_eq!(endpoints, EndpointSource::Eds(Name::new("outbound|80||shop").unwrap()));
    assert_eq!((&cluster.balance, cluster.protocol), (&Balance::LeastRequest, Protocol::Auto));
    assert_eq!(cluster.circuit_breaker.default.max_requests.get(), u32::MAX);
    assert_eq!(cluster.circuit_breaker.of(Priority::High).max_retries, 3);
    let outliers = OutlierDetection {
        consecutive_5xx: 7,
        consecutive_local: 0,
        interval: Duration::from_secs(300),
        max_ejected: Percent::ALL,
        ..OutlierDetection::default()
    };
    assert_eq!(cluster.outlier_detection, Some(outliers));
    assert_eq!(cluster.panic_threshold, Percent::ZERO);
    // Its localities weigh what their endpoints do.
    let endpoints = read_set(&set(vec![group("a", Some(2), &[1, 2]), group("b", Some(1), &[3])])).unwrap();
    let zones: Vec<_> = endpoints.endpoints.iter().map(|endpoint| endpoint.zone.as_deref()).collect();
    assert_eq!(zones, [Some("a"), Some("a"), Some("b")]);
}

#[test]
fn zones_that_a_cluster_weighs_are_weighed() {
    let weighed = |groups: Vec<endpoint::LocalityLbEndpoints>| {
        move |cluster: &mut pb::Cluster| {
            use pb::cluster::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};
            let weighted = LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {});
            cluster.common_lb_config = Some(pb::cluster::CommonLbConfig {
                locality_config_specifier: Some(weighted),
                ..Default::default()
            });
            cluster.load_assignment = Some(set(groups));
        }
    };
    let weights = |rows: &[(&str, u32)]| -> BTreeMap<Box<str>, u32> {
        rows.iter().map(|(zone, weight)| ((*zone).into(), *weight)).collect()
    };
    let groups = || vec![group("a", Some(80), &[1]), group("b", Some(20), &[2, 3]), group("c", None, &[4])];
    assert_eq!(model(weighed(groups())).zone_weights, weights(&[("a", 80), ("b", 20), ("c", 0)]));
    let alike = vec![group("a", Some(10), &[1]), group("b", Some(20), &[2, 3])];
    assert_eq!(model(weighed(alike)).zone_weights, weights(&[]));
    // Where nobody weighs, weights have no effect.
    let unweighed = model(|cluster| cluster.load_assignment = Some(set(groups())));
    assert_eq!(unweighed.zone_weights, weights(&[]));
    let at = "load_assignment.endpoints";
    let twice = vec![group("a", Some(80), &[1]), group("a", Some(20), &[2]), group("b", Some(20), &[3])];
    refused(
        &format!("{at}[1].load_balancing_weight: one zone has one weight, on all levels"),
        weighed(twice),
    );
    let nowhere = vec![group("a", Some(80), &[1]), group("", Some(20), &[2])];
    refused(&format!("{at}[1].locality: zones are weighed, and this is none"), weighed(nowhere));
    let none = read_set(&set(groups())).unwrap_err();
    let expected = "ClusterLoadAssignment[app].endpoints[1].load_balancing_weight: what zones weigh is not \
                    supported here, unless it is as much as their endpoints do";
    assert_eq!(none, expected);
}

#[test]
fn labels_and_what_stands_beside_endpoints_is_read_strictly() {
    let labelled = |name: &str, kind| {
        let mut one = one(1);
        let fields = [(name.to_owned(), prost_types::Value { kind: Some(kind) })].into();
        let mut metadata = core::Metadata::default();
        metadata.filter_metadata.insert("envoy.lb".to_owned(), prost_types::Struct { fields });
        metadata.filter_metadata.insert("istio".to_owned(), prost_types::Struct::default());
        one.metadata = Some(metadata);
        one
    };
    let of = |one| set(vec![endpoint::LocalityLbEndpoints { lb_endpoints: vec![one], ..Default::default() }]);
    let text = prost_types::value::Kind::StringValue("v1".to_owned());
    let read = read_set(&of(labelled("version", text))).unwrap();
    assert_eq!(read.endpoints[0].labels.0.get("version").map(|value| &**value), Some("v1"));
    let truth = prost_types::value::Kind::BoolValue(true);
    let at = "ClusterLoadAssignment[app].endpoints[0].lb_endpoints[0]";
    let expected = format!(
        "{at}.metadata.filter_metadata[envoy.lb].canary: labels are texts: nothing else is supported"
    );
    assert_eq!(read_set(&of(labelled("canary", truth))).unwrap_err(), expected);
    let mut foreign = one(1);
    let mut metadata = core::Metadata::default();
    let theirs = packed(&ours::Cluster::default());
    metadata.typed_filter_metadata.insert(super::any::OURS.to_owned(), theirs);
    foreign.metadata = Some(metadata);
    let expected = format!(
        "{at}.metadata.typed_filter_metadata[outrigger]: `outrigger.extensions.v1.Cluster` says nothing of this resource"
    );
    assert_eq!(read_set(&of(foreign)).unwrap_err(), expected);
    let mut nowhere = one(1);
    nowhere.load_balancing_weight = Some(0);
    let expected = format!("{at}.load_balancing_weight: a weight is at least 1");
    assert_eq!(read_set(&of(nowhere)).unwrap_err(), expected);
    let mut set = of(one(1));
    set.policy = Some(endpoint::cluster_load_assignment::Policy { overprovisioning_factor: Some(100) });
    let expected = "ClusterLoadAssignment[app].policy.overprovisioning_factor: 140 alone is supported";
    assert_eq!(read_set(&set).unwrap_err(), expected);
}

#[test]
fn subsets_have_names_from_ours_and_fallbacks_from_envoy() {
    use pb::cluster::lb_subset_config::LbSubsetSelector;
    let of = |whole: i32, selectors: Vec<(&str, i32)>, label: Option<&str>| {
        let selector = |(key, fallback_policy): (&str, i32)| LbSubsetSelector {
            keys: vec![key.to_owned()],
            fallback_policy,
        };
        let config = pb::cluster::LbSubsetConfig {
            fallback_policy: whole,
            subset_selectors: selectors.into_iter().map(selector).collect(),
        };
        let subset =
            |label: &str| ours::cluster::Subset { labels: [(label.to_owned(), "v1".to_owned())].into() };
        let subsets = label.map(|label| ("one".to_owned(), subset(label))).into_iter().collect();
        let beside = ours::Cluster { subsets, ..Default::default() };
        move |cluster: &mut pb::Cluster| {
            cluster.lb_subset_config = Some(config);
            let mut metadata = core::Metadata::default();
            metadata.typed_filter_metadata.insert(super::any::OURS.to_owned(), packed(&beside));
            cluster.metadata = Some(metadata);
        }
    };
    // Of another control plane's, which nobody can name: all requests go anywhere.
    assert!(model(of(1, vec![("version", 1)], None)).subsets.is_empty());
    for (fallback, expected) in
        [(0, SubsetFallback::Any), (1, SubsetFallback::None), (2, SubsetFallback::Any)]
    {
        let cluster = model(of(1, vec![("other", 1), ("version", fallback)], Some("version")));
        assert_eq!((cluster.subsets.len(), cluster.subset_fallback), (1, expected));
    }
    let at = "lb_subset_config";
    let expected = format!(
        "{at}.fallback_policy: NO_FALLBACK is not supported: requests that name no subset go anywhere"
    );
    refused(&expected, of(0, vec![("version", 1)], None));
    let expected = format!("{at}.subset_selectors[0].fallback_policy: KEYS_SUBSET is not supported");
    refused(&expected, of(1, vec![("version", 4)], None));
    let expected = format!("{at}: there is no selector for the labels of `one`");
    refused(&expected, of(1, vec![("version", 1)], Some("stage")));
}

#[test]
fn a_name_in_dns_is_asked_for_as_it_is() {
    let dns = |change: fn(&mut pb::Cluster)| {
        move |cluster: &mut pb::Cluster| {
            cluster.cluster_discovery_type =
                Some(ClusterDiscoveryType::Type(DiscoveryType::StrictDns.into()));
            let mut named = one(1);
            let Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(of)) = &mut named.host_identifier else {
                return;
            };
            let address = of.address.as_mut().and_then(|address| address.address.as_mut());
            if let Some(core::address::Address::SocketAddress(socket)) = address {
                socket.address = "db.internal".to_owned();
            }
            let groups =
                vec![endpoint::LocalityLbEndpoints { lb_endpoints: vec![named], ..Default::default() }];
            cluster.load_assignment = Some(set(groups));
            change(cluster);
        }
    };
    let expected = |uses| Source::Dns { host: "db.internal".into(), port: 80.try_into().unwrap(), uses };
    let logical = dns(|cluster| {
        let kind = DiscoveryType::LogicalDns.into();
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind));
    });
    assert_eq!(model(logical).source, expected(DnsUse::First));
    let expected = expected(DnsUse::All);
    assert_eq!(model(dns(|_| {})).source, expected);
    let asked = model(dns(|cluster| {
        cluster.respect_dns_ttl = true;
        cluster.dns_refresh_rate = seconds(60);
        cluster.dns_lookup_family = DnsLookupFamily::All.into();
    }));
    assert_eq!(asked.source, expected);
    let expected = "dns_refresh_rate: names are asked for by their TTL: write `respect_dns_ttl` too";
    refused(expected, dns(|cluster| cluster.dns_refresh_rate = seconds(60)));
    let expected = "dns_lookup_family: V4_ONLY is not supported: all addresses are used, as with ALL";
    refused(expected, dns(|cluster| cluster.dns_lookup_family = DnsLookupFamily::V4Only.into()));
}

#[test]
fn what_is_ours_is_refused_where_it_says_nothing() {
    let beside = |ours: ours::Cluster| {
        move |cluster: &mut pb::Cluster| {
            let mut metadata = core::Metadata::default();
            metadata.typed_filter_metadata.insert(super::any::OURS.to_owned(), packed(&ours));
            cluster.metadata = Some(metadata);
        }
    };
    let at = "metadata.typed_filter_metadata[outrigger]";
    for (ours, expected) in [
        (
            ours::Cluster { peak_ewma: true, ..Default::default() },
            "peak_ewma: the cluster does not balance by LEAST_REQUEST",
        ),
        (
            ours::Cluster { zone_weights: [("a".to_owned(), 0)].into(), ..Default::default() },
            "zone_weights: every weight is 0: no endpoint could be used",
        ),
        (
            ours::Cluster {
                subsets: [("a/b".to_owned(), ours::cluster::Subset::default())].into(),
                ..Default::default()
            },
            "subsets[a/b]: this is not the name of a subset",
        ),
        (
            ours::Cluster { outlier_detection: Some(Default::default()), ..Default::default() },
            "outlier_detection: there is no `outlier_detection` beside it",
        ),
    ] {
        refused(&format!("{at}.{expected}"), beside(ours));
    }
    let stranger = read_cluster(&with(|cluster| {
        let mut metadata = core::Metadata::default();
        metadata.typed_filter_metadata.insert(super::any::OURS.to_owned(), other("not.Known"));
        cluster.metadata = Some(metadata);
    }));
    assert!(stranger.unwrap_err().contains("`not.Known` is not supported"));
}
