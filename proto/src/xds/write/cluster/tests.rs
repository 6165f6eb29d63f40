//! What is written is read again as what it was, whatever it is.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::super::{ClusterResource, EndpointSource, Kind, Resource, read, write};
use crate::model::random;
use crate::model::{
    Address, Assignment, Balance, BreakerLimits, CircuitBreaker, Cluster, DnsUse, Endpoint, HashKey, HashOn,
    MadeCookie, Name, OutlierDetection, Percent, RetryBudget, Source,
};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[track_caller]
fn check(of: &str, resource: &Resource) {
    let of = name(of);
    let written = write(&of, resource).unwrap_or_else(|refused| panic!("{refused}\n{resource:#?}"));
    let kind = match resource {
        Resource::Cluster(_) => Kind::Cluster,
        Resource::Endpoints(_) => Kind::Endpoints,
        other => panic!("{other:?}"),
    };
    assert_eq!(read(kind, &written), Ok((of, resource.clone())), "{resource:#?}");
}

fn cluster_of(cluster: Cluster, endpoints: EndpointSource) -> Resource {
    Resource::Cluster(Box::new(ClusterResource { cluster: Arc::new(cluster), endpoints }))
}

#[track_caller]
fn check_cluster(cluster: Cluster) {
    check("app", &cluster_of(cluster, EndpointSource::Eds(name("app"))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_written_is_read_again((mut cluster, set) in random::cluster_and_endpoints(), apart in any::<bool>()) {
        cluster.tls = None;
        check("a", &Resource::Endpoints(set.clone()));
        let endpoints = match (&cluster.source, apart) {
            (Source::Dns { .. }, _) => EndpointSource::Dns,
            (Source::Original(_), _) => EndpointSource::Original,
            (Source::Static, true) => EndpointSource::Eds(name("b")),
            (Source::Static, false) => EndpointSource::Stated(Arc::new(set)),
        };
        check("a", &cluster_of(cluster, endpoints));
    }
}

#[test]
fn endpoints_keep_their_order_and_each_group_stands_once() {
    let endpoint = |port: u16, priority, zone: Option<&str>| Endpoint {
        priority,
        zone: zone.map(Into::into),
        ..Endpoint::new(Address::Ip(([10, 0, 0, 1], port).into()))
    };
    let (a, b) = (Some("a"), Some("b"));
    for (rows, groups, placed) in [
        (vec![(0, a), (0, b), (1, a)], 3, false),
        (vec![(0, a), (0, a), (0, b)], 2, false),
        (vec![(0, a), (0, b), (0, a), (0, None), (0, b)], 3, true),
        (vec![(1, None), (0, None), (1, None)], 2, true),
        (vec![], 0, false),
    ] {
        let endpoints = rows
            .iter()
            .enumerate()
            .map(|(i, (priority, zone))| endpoint(u16::try_from(i).unwrap() + 1, *priority, *zone));
        let set = Assignment { endpoints: endpoints.collect() };
        check("app", &Resource::Endpoints(set.clone()));
        let mut cx = super::Cx::new(String::new());
        let written = super::assignment(&mut cx, &name("app"), &set).unwrap();
        let of_one = written.endpoints.iter().flat_map(|group| &group.lb_endpoints);
        assert_eq!(of_one.filter(|one| one.metadata.is_some()).count() > 0, placed, "{rows:?}");
        assert_eq!(written.endpoints.len(), groups, "{rows:?}");
    }
}

#[test]
fn what_is_as_good_as_a_default_is_kept() {
    let cluster = || Cluster::new(Source::Static);
    check_cluster(cluster());
    let limits = BreakerLimits { max_retries: 3, ..BreakerLimits::default() };
    for default in [limits, BreakerLimits { max_retries: u32::MAX, ..limits }] {
        for high in [None, Some(default), Some(limits)] {
            for percent in [Percent::ZERO, Percent::whole(20), Percent::ALL] {
                for min in [0, 3, 1_000_000] {
                    let (circuit_breaker, retry_budget) =
                        (CircuitBreaker { default, high }, RetryBudget { percent, min });
                    check_cluster(Cluster { circuit_breaker, retry_budget, ..cluster() });
                }
            }
        }
    }
    let made = MadeCookie { ttl: Duration::ZERO, path: None };
    let hash = [Some(made), None].map(|made| HashKey::from(HashOn::Cookie { name: "a".into(), made }));
    for on in [&hash[..], &[]] {
        let slow_start = Duration::from_secs(1);
        check_cluster(Cluster { balance: Balance::RingHash(on.into()), slow_start, ..cluster() });
        check_cluster(Cluster { balance: Balance::Maglev(on.into()), ..cluster() });
    }
}

#[test]
fn rules_by_failures_of_our_own_are_kept_beside_others_and_alone() {
    let off = OutlierDetection {
        consecutive_5xx: 0,
        consecutive_local: 0,
        failure_percent: Percent::ZERO,
        ..OutlierDetection::default()
    };
    for consecutive_5xx in [0, 5] {
        for consecutive_local in [0, 3] {
            for failure_percent in [Percent::ZERO, Percent::from_millionths(1).unwrap(), Percent::ALL] {
                for max_ejected in [Percent::ZERO, Percent::from_millionths(9_999).unwrap(), Percent::ALL] {
                    for latency_factor in [0, 20] {
                        let outlier_detection = Some(OutlierDetection {
                            consecutive_5xx,
                            consecutive_local,
                            failure_percent,
                            max_ejected,
                            latency_factor,
                            ..off
                        });
                        check_cluster(Cluster { outlier_detection, ..Cluster::new(Source::Static) });
                    }
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_said_is_refused() {
    let dns = Source::Dns { host: "a.b".into(), port: std::num::NonZeroU16::MIN, uses: DnsUse::All };
    let refused = write(&name("app"), &cluster_of(Cluster::new(dns), EndpointSource::Eds(name("app"))));
    assert!(refused.unwrap_err().to_string().starts_with("Cluster[app].type: "));
    let endless = Cluster { connect_timeout: Duration::MAX, ..Cluster::new(Source::Static) };
    let refused = write(&name("app"), &cluster_of(endless, EndpointSource::Eds(name("app"))));
    assert_eq!(refused.unwrap_err().to_string(), "Cluster[app].connect_timeout: this time is too long");
}
