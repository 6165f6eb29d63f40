//! How clusters balance, what limits them, and how their endpoints are judged.

use super::super::super::generated::envoy::config::cluster::v3::cluster::LbConfig;
use super::super::super::generated::envoy::config::core::v3 as core;
use super::super::super::generated::envoy::config::route::v3::route_action as route;
use super::super::super::generated::envoy::extensions::load_balancing_policies as policies;
use super::super::super::generated::envoy::extensions::upstreams::http::v3 as http;
use super::*;

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
        let policy = |of| route::HashPolicy { policy_specifier: Some(of), terminal: true };
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
            cluster.typed_extension_protocol_options.insert(super::super::HTTP_OPTIONS.to_owned(), options);
        }
    };
    let on = vec![
        header("X-User"),
        cookie(seconds(0), "/"),
        cookie(seconds(1), ""),
        cookie(None, "a"),
        source(true),
        query("q"),
    ];
    let cluster = model(hashed(on));
    let cookie_of = |made| HashOn::Cookie { name: "c".into(), made };
    let expected = [
        HashOn::Header(::http::HeaderName::from_static("x-user")),
        cookie_of(Some(MadeCookie::new(Duration::ZERO))),
        cookie_of(Some(MadeCookie { ttl: Duration::from_secs(1), path: None })),
        cookie_of(None),
        HashOn::Source,
        HashOn::Query("q".into()),
    ];
    let expected = expected.map(|on| HashKey { on, terminal: true });
    assert_eq!(cluster.balance, Balance::Maglev(expected.into()));
    assert_eq!((cluster.protocol, cluster.idle_timeout), (Protocol::Http2, Duration::from_secs(30)));
    let at = format!("typed_extension_protocol_options[{}].hash_policy[0]", super::super::HTTP_OPTIONS);
    for (on, expected) in [
        (header(":path"), "header.header_name: this is not the name of a header field"),
        (cookie(seconds(1), "/a;b"), "cookie.path: this is not a cookie's path"),
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
