//! Clusters and endpoints as control planes write them that know nothing of ours, and how each fault is named.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use prost_types::Any;

use super::super::generated::envoy::config::cluster::v3 as pb;
use super::super::generated::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, LbConfig, LbPolicy,
};
use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::config::endpoint::v3 as endpoint;
use super::super::generated::envoy::config::route::v3::route_action as route;
use super::super::generated::envoy::extensions::load_balancing_policies as policies;
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
fn balancers_are_read_in_either_way() {
    let policy = |any| pb::load_balancing_policy::Policy {
        typed_extension_config: Some(core::TypedExtensionConfig {
            name: String::new(),
            typed_config: Some(any),
        }),
    };
    let list =
        |policies: Vec<Any>| pb::LoadBalancingPolicy { policies: policies.into_iter().map(policy).collect() };
    let slow = policies::common::v3::SlowStartConfig { slow_start_window: seconds(9), ..Default::default() };
    let least = policies::least_request::v3::LeastRequest {
        choice_count: Some(2),
        slow_start_config: Some(slow),
        ..Default::default()
    };
    let zones = policies::wrr_locality::v3::WrrLocality {
        endpoint_picking_policy: Some(list(vec![
            other("x.Y"),
            packed(&policies::random::v3::Random::default()),
        ])),
    };
    let nine = Duration::from_secs(9);
    let none = Duration::ZERO;
    for (first, balance, slow_start) in [
        (packed(&policies::round_robin::v3::RoundRobin::default()), Balance::RoundRobin, none),
        (packed(&least), Balance::LeastRequest, nine),
        (packed(&policies::ring_hash::v3::RingHash::default()), Balance::RingHash([].into()), none),
        (packed(&policies::maglev::v3::Maglev::default()), Balance::Maglev([].into()), none),
        (packed(&zones), Balance::Random, none),
    ] {
        let later = packed(&policies::maglev::v3::Maglev::default());
        let list = list(vec![other("not.Known"), first, later]);
        let read = model(|cluster| cluster.load_balancing_policy = Some(list));
        assert_eq!((read.balance, read.slow_start), (balance, slow_start));
    }
    for (policy, balance) in [
        (LbPolicy::RoundRobin, Balance::RoundRobin),
        (LbPolicy::LeastRequest, Balance::LeastRequest),
        (LbPolicy::Random, Balance::Random),
        (LbPolicy::RingHash, Balance::RingHash([].into())),
        (LbPolicy::Maglev, Balance::Maglev([].into())),
    ] {
        assert_eq!(model(|cluster| cluster.lb_policy = policy.into()).balance, balance);
    }
    let at = "load_balancing_policy.policies";
    refused(&format!("{at}: none of them is supported"), |cluster| {
        cluster.load_balancing_policy = Some(list(vec![other("not.Known")]));
    });
    let three = policies::least_request::v3::LeastRequest { choice_count: Some(3), ..Default::default() };
    let expected = format!("{at}[1].typed_extension_config.typed_config.choice_count: 2 alone is supported");
    refused(&expected, |cluster| {
        cluster.load_balancing_policy = Some(list(vec![other("not.Known"), packed(&three)]));
    });
    let within =
        policies::wrr_locality::v3::WrrLocality { endpoint_picking_policy: Some(list(vec![packed(&zones)])) };
    let inner = "[0].typed_extension_config.typed_config";
    let expected = format!("{at}{inner}.endpoint_picking_policy.policies{inner}: zones are weighed already");
    refused(&expected, |cluster| cluster.load_balancing_policy = Some(list(vec![packed(&within)])));
}

#[test]
fn sizes_and_choices_that_would_not_be_honoured_are_refused() {
    use pb::cluster::{LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig};
    let ring = |minimum_ring_size, maximum_ring_size, hash_function| {
        let config = RingHashLbConfig { minimum_ring_size, hash_function, maximum_ring_size };
        (LbPolicy::RingHash, LbConfig::RingHashLbConfig(config))
    };
    let slow = |aggression: f64, least: f64| {
        let config = pb::cluster::SlowStartConfig {
            slow_start_window: seconds(1),
            aggression: Some(core::RuntimeDouble { default_value: aggression, runtime_key: "k".to_owned() }),
            min_weight_percent: Some(kinds::Percent { value: least }),
        };
        let config = RoundRobinLbConfig { slow_start_config: Some(config) };
        (LbPolicy::RoundRobin, LbConfig::RoundRobinLbConfig(config))
    };
    let maglev = |table_size| (LbPolicy::Maglev, LbConfig::MaglevLbConfig(MaglevLbConfig { table_size }));
    let least = |choice_count| {
        let config = LeastRequestLbConfig { choice_count, ..Default::default() };
        (LbPolicy::LeastRequest, LbConfig::LeastRequestLbConfig(config))
    };
    for (policy, config) in
        [ring(Some(1024), Some(8 << 20), 0), maglev(Some(65_537)), least(Some(2)), slow(1.0, 10.0)]
    {
        model(|cluster| (cluster.lb_policy, cluster.lb_config) = (policy.into(), Some(config)));
    }
    for ((policy, config), expected) in [
        (
            ring(Some(4096), None, 0),
            "ring_hash_lb_config.minimum_ring_size: the default, 1024, alone is supported",
        ),
        (
            ring(None, Some(9), 0),
            "ring_hash_lb_config.maximum_ring_size: the default, 8388608, alone is supported",
        ),
        (ring(None, None, 1), "ring_hash_lb_config.hash_function: XX_HASH alone is supported"),
        (maglev(Some(7)), "maglev_lb_config.table_size: the default, 65537, alone is supported"),
        (least(Some(5)), "least_request_lb_config.choice_count: 2 alone is supported"),
        (slow(2.0, 10.0), "round_robin_lb_config.slow_start_config.aggression: 1 alone is supported"),
        (slow(1.0, 5.0), "round_robin_lb_config.slow_start_config.min_weight_percent: 10 alone is supported"),
    ] {
        refused(expected, |cluster| (cluster.lb_policy, cluster.lb_config) = (policy.into(), Some(config)));
    }
}

#[test]
fn what_is_hashed_stands_with_what_is_spoken() {
    use route::hash_policy::{ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter};
    let cookie = |ttl, path: &str| {
        PolicySpecifier::Cookie(Cookie { name: "c".to_owned(), ttl, path: path.to_owned() })
    };
    let header = |name: &str| PolicySpecifier::Header(Header { header_name: name.to_owned() });
    let source = |source_ip| PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip });
    let query = |name: &str| PolicySpecifier::QueryParameter(QueryParameter { name: name.to_owned() });
    let options = |on: Vec<PolicySpecifier>| {
        use http::http_protocol_options as options;
        let version = options::explicit_http_config::ProtocolConfig::Http2ProtocolOptions(Default::default());
        let explicit = options::ExplicitHttpConfig { protocol_config: Some(version) };
        let policy = |of| route::HashPolicy { policy_specifier: Some(of) };
        let options = http::HttpProtocolOptions {
            upstream_protocol_options: Some(options::UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
            hash_policy: on.into_iter().map(policy).collect(),
            common_http_protocol_options: Some(core::HttpProtocolOptions {
                idle_timeout: seconds(30),
                max_headers_count: None,
            }),
        };
        packed(&options)
    };
    let hashed = |on| {
        move |cluster: &mut pb::Cluster| {
            cluster.lb_policy = LbPolicy::Maglev.into();
            let options = options(on);
            cluster.typed_extension_protocol_options.insert(super::HTTP_OPTIONS.to_owned(), options);
        }
    };
    let on = vec![header("X-User"), cookie(seconds(0), "/"), cookie(None, ""), source(true), query("q")];
    let cluster = model(hashed(on));
    let cookie_of = |ttl| HashOn::Cookie { name: "c".into(), ttl };
    let expected = [
        HashOn::Header(::http::HeaderName::from_static("x-user")),
        cookie_of(Some(Duration::ZERO)),
        cookie_of(None),
        HashOn::Source,
        HashOn::Query("q".into()),
    ];
    assert_eq!(cluster.balance, Balance::Maglev(expected.into()));
    assert_eq!((cluster.protocol, cluster.idle_timeout), (Protocol::Http2, Duration::from_secs(30)));
    let at = format!("typed_extension_protocol_options[{}].hash_policy[0]", super::HTTP_OPTIONS);
    for (on, expected) in [
        (header(":path"), "header.header_name: this is not the name of a header field"),
        (cookie(None, "/a"), "cookie.path: `/` alone is supported"),
        (source(false), "connection_properties: nothing is hashed: write `source_ip`"),
        (query(""), "query_parameter.name: a name is empty"),
    ] {
        refused(&format!("{at}.{expected}"), hashed(vec![on]));
    }
}

#[test]
fn budgets_are_read_as_far_as_they_mean_the_same() {
    use pb::circuit_breakers::Thresholds;
    let budget = |percent: f64, min| pb::circuit_breakers::thresholds::RetryBudget {
        budget_percent: Some(kinds::Percent { value: percent }),
        min_retry_concurrency: min,
    };
    let of = |thresholds| {
        move |cluster: &mut pb::Cluster| {
            cluster.circuit_breakers = Some(pb::CircuitBreakers { thresholds });
        }
    };
    let high = core::RoutingPriority::High.into();
    let first =
        Thresholds { retry_budget: Some(budget(25.0, None)), max_retries: Some(9), ..Default::default() };
    let second = Thresholds { max_requests: Some(1), ..Default::default() };
    let cluster = model(of(vec![first, second]));
    assert_eq!(cluster.retry_budget, RetryBudget { percent: Percent::whole(25), min: 3 });
    // As in Envoy the budget stands in place of it, and the first of a priority counts.
    assert_eq!(cluster.circuit_breaker.default.max_retries, u32::MAX);
    assert_eq!(cluster.circuit_breaker.default.max_requests.get(), 1024);
    let urgent = Thresholds { priority: high, ..Default::default() };
    let expected = "circuit_breakers.thresholds[1].retry_budget: \
                    there is one budget for all priorities: write the same for each";
    refused(expected, of(vec![first, urgent]));
    let none = Thresholds { max_connections: Some(0), ..Default::default() };
    refused("circuit_breakers.thresholds[0].max_connections: nothing could go on with 0", of(vec![none]));
    let more = Thresholds { retry_budget: Some(budget(101.0, None)), ..Default::default() };
    refused("circuit_breakers.thresholds[0].retry_budget.budget_percent: expected 0 to 100", of(vec![more]));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a flat table")]
fn outliers_are_judged_as_in_envoy_or_not_at_all() {
    use pb::OutlierDetection as Written;
    type Row = (fn(&mut Written), &'static str);
    let of = |change: fn(&mut Written)| {
        move |cluster: &mut pb::Cluster| {
            let mut written = Written::default();
            change(&mut written);
            cluster.outlier_detection = Some(written);
        }
    };
    let base = OutlierDetection {
        consecutive_local: 0,
        success_rate_deviations: 19,
        min_requests: 100.try_into().unwrap(),
        max_ejected: Percent::whole(10),
        ..OutlierDetection::default()
    };
    assert_eq!(model(of(|_| {})).outlier_detection, Some(base));
    let failures = model(of(|it| {
        it.enforcing_success_rate = Some(0);
        it.enforcing_failure_percentage = Some(100);
        it.failure_percentage_minimum_hosts = Some(0);
        it.base_ejection_time = seconds(600);
    }));
    let expected = OutlierDetection {
        success_rate_deviations: 0,
        failure_percent: Percent::whole(85),
        min_requests: 50.try_into().unwrap(),
        base_ejection: Duration::from_secs(600),
        max_ejection: Duration::from_secs(600),
        ..base
    };
    assert_eq!(failures.outlier_detection, Some(expected));
    let split = model(of(|it| {
        it.split_external_local_origin_errors = true;
        it.enforcing_consecutive_5xx = Some(0);
        it.enforcing_success_rate = Some(0);
        it.enforcing_local_origin_success_rate = Some(0);
        it.consecutive_local_origin_failure = Some(2);
    }));
    let split = split.outlier_detection.unwrap();
    assert_eq!((split.consecutive_5xx, split.consecutive_local, split.consecutive_gateway), (0, 2, 0));
    // Nothing is ever ejected.
    assert_eq!(model(of(|it| it.max_ejection_percent = Some(0))).outlier_detection, None);
    let rows: [Row; 13] = [
        (
            |it| it.enforcing_consecutive_5xx = Some(50),
            "enforcing_consecutive_5xx: 0 and 100 alone are supported",
        ),
        (|it| it.success_rate_minimum_hosts = Some(3), "success_rate_minimum_hosts: 5 alone is supported"),
        (
            |it| it.success_rate_stdev_factor = Some(1950),
            "success_rate_stdev_factor: expected 100 to 10000, in steps of 100",
        ),
        (
            |it| {
                it.enforcing_failure_percentage = Some(100);
                it.failure_percentage_minimum_hosts = Some(1);
            },
            "failure_percentage_request_volume: for both rules as many are needed: \
             write what `success_rate_request_volume` is",
        ),
        (
            |it| {
                it.enforcing_success_rate = Some(0);
                it.enforcing_failure_percentage = Some(100);
            },
            "failure_percentage_minimum_hosts: it is judged in clusters of any size: write 0 or 1",
        ),
        (
            |it| it.split_external_local_origin_errors = true,
            "enforcing_consecutive_5xx: with `split_external_local_origin_errors`, 0 alone is supported",
        ),
        (|it| it.interval = seconds(0), "interval: 0 is no time: expected more"),
        (
            |it| it.max_ejection_time = seconds(1),
            "max_ejection_time: this is shorter than `base_ejection_time`",
        ),
        (
            |it| it.max_ejection_time_jitter = seconds(1),
            "max_ejection_time_jitter: not supported: it is a tenth, always",
        ),
        (|it| it.max_ejection_percent = Some(101), "max_ejection_percent: expected 0 to 100"),
        (
            |it| it.always_eject_one_host = Some(false),
            "always_eject_one_host: it is not supported to eject none where one would be too many",
        ),
        (
            |it| it.successful_active_health_check_uneject_host = Some(true),
            "successful_active_health_check_uneject_host: it is not supported: \
             who is ejected comes back when its time is over",
        ),
        (|it| it.success_rate_request_volume = Some(0), "success_rate_request_volume: expected at least 1"),
    ];
    for (change, expected) in rows {
        refused(&format!("outlier_detection.{expected}"), of(change));
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a flat table")]
fn endpoints_are_asked_as_envoy_asks_them() {
    use core::health_check::{GrpcHealthCheck, HealthChecker, HttpHealthCheck, TcpHealthCheck};
    let written = |checker| core::HealthCheck {
        timeout: seconds(2),
        interval: seconds(3),
        unhealthy_threshold: Some(4),
        healthy_threshold: Some(5),
        health_checker: Some(checker),
        ..Default::default()
    };
    let http = |change: fn(&mut HttpHealthCheck)| {
        let mut asked = HttpHealthCheck { path: "/ok?a=b".to_owned(), ..Default::default() };
        change(&mut asked);
        written(HealthChecker::HttpHealthCheck(asked))
    };
    let of = |check| move |cluster: &mut pb::Cluster| cluster.health_checks = vec![check];
    let expected = HealthCheck {
        interval: Duration::from_secs(3),
        unhealthy_interval: Duration::from_secs(3),
        idle_interval: Duration::from_secs(60),
        timeout: Duration::from_secs(2),
        unhealthy_after: 4.try_into().unwrap(),
        healthy_after: 5.try_into().unwrap(),
        probe: Probe::Http("/ok?a=b".into()),
    };
    assert_eq!(*model(of(http(|_| {}))).health_check.unwrap(), expected);
    let tcp = written(HealthChecker::TcpHealthCheck(TcpHealthCheck {}));
    let idle =
        core::HealthCheck { no_traffic_interval: seconds(7), unhealthy_interval: seconds(1), ..tcp.clone() };
    let read = *model(of(idle)).health_check.unwrap();
    let times = (read.probe, read.unhealthy_interval.as_secs(), read.idle_interval.as_secs());
    assert_eq!(times, (Probe::Tcp, 1, 7));
    let grpc = written(HealthChecker::GrpcHealthCheck(GrpcHealthCheck { service_name: "s".to_owned() }));
    assert_eq!(model(of(grpc)).health_check.unwrap().probe, Probe::Grpc("s".into()));
    let at = "health_checks[0]";
    for (check, expected) in [
        (core::HealthCheck { timeout: None, ..tcp.clone() }, "timeout: this is missing"),
        (core::HealthCheck { interval: None, ..tcp.clone() }, "interval: this is missing"),
        (core::HealthCheck { health_checker: None, ..tcp.clone() }, "health_checker: this is missing"),
        (
            core::HealthCheck { unhealthy_threshold: None, ..tcp.clone() },
            "unhealthy_threshold: this is missing",
        ),
        (
            core::HealthCheck { healthy_threshold: Some(0), ..tcp.clone() },
            "healthy_threshold: expected at least 1",
        ),
        (
            core::HealthCheck { unhealthy_edge_interval: seconds(9), ..tcp.clone() },
            "unhealthy_edge_interval: as `unhealthy_interval` alone is supported",
        ),
        (
            http(|it| it.expected_statuses = vec![kinds::Int64Range { start: 200, end: 201 }]),
            "http_health_check.expected_statuses: 200 to 299 alone is supported: write 200 and 300",
        ),
        (
            http(|it| it.path = "ok".to_owned()),
            "http_health_check.path: this is not a path that can be asked for",
        ),
        (
            http(|it| it.method = core::RequestMethod::Head.into()),
            "http_health_check.method: HEAD is not supported: GET alone is",
        ),
        (
            http(|it| it.codec_client_type = kinds::CodecClientType::Http2.into()),
            "http_health_check.codec_client_type: HTTP2 is not what is spoken with the cluster",
        ),
    ] {
        refused(&format!("{at}.{expected}"), of(check));
    }
    refused("health_checks: one is supported", |cluster| cluster.health_checks = vec![tcp.clone(), tcp]);
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
    let original = dns(|cluster| {
        let kind = DiscoveryType::OriginalDst.into();
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind));
    });
    refused("type: ORIGINAL_DST is not supported", original);
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
