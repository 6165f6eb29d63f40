//! Clusters, and their endpoints.

mod balance;
mod endpoints;
mod health;
mod original;
mod outlier;
mod protocol;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use self::endpoints::assignment;
use super::super::cluster::{ClusterResource, EndpointSource, HTTP_OPTIONS, NO_BUDGET};
use super::super::generated::envoy::config::cluster::v3 as pb;
use super::super::generated::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::r#type::v3 as kinds;
use super::super::generated::outrigger::extensions::v1 as ours;
use super::{Cx, noted, packed, stream, time, tls};
use crate::model::{
    Balance, BreakerLimits, CircuitBreaker, Cluster, DnsUse, Labels, Name, Percent, RetryBudget, Source,
    SubsetFallback,
};

pub(super) fn cluster(cx: &mut Cx, name: &Name, resource: &ClusterResource) -> Option<pb::Cluster> {
    let ClusterResource { cluster, endpoints } = resource;
    let Cluster {
        source,
        balance,
        protocol,
        tls,
        connect_timeout,
        idle_timeout,
        retry_budget,
        circuit_breaker,
        outlier_detection,
        health_check,
        slow_start,
        panic_threshold,
        zone_weights,
        subsets,
        subset_fallback,
    } = &**cluster;
    let tls = tls::transport_socket(cx, tls);
    let named = original::of(source);
    let (policy, config, slow_start_beside) = match named {
        Some(named) => original::balance(named),
        None => balance::balance(cx, balance, *slow_start)?,
    };
    let (outlier_detection, more_of_outliers) = match *outlier_detection {
        Some(outliers) => outlier::outlier_detection(cx, outliers).map(|(of, more)| (Some(of), more))?,
        None => (None, None),
    };
    let health_checks = health_check.as_deref().map(|check| health::health_check(cx, check, *protocol));
    let circuit_breakers = circuit_breakers(circuit_breaker, *retry_budget);
    let options = packed(&protocol::options(cx, *protocol, *idle_timeout, balance)?);
    let stated = matches!(endpoints, EndpointSource::Stated(_));
    let common = balance::common(*panic_threshold, stated && !zone_weights.is_empty());
    let beside = ours::Cluster {
        peak_ewma: named.is_none() && *balance == Balance::PeakEwma,
        slow_start: slow_start_beside,
        zone_weights: zone_weights.iter().map(|(zone, weight)| (zone.to_string(), *weight)).collect(),
        subsets: subsets.iter().map(|(name, labels)| (name.to_string(), subset(labels))).collect(),
        keep_max_retries: keeps_max_retries(circuit_breaker, *retry_budget),
        high_stated: circuit_breaker.high == Some(circuit_breaker.default),
        outlier_detection: more_of_outliers,
        max_endpoints: named.map_or(0, original::max_endpoints),
    };
    let mut cluster = pb::Cluster {
        name: name.to_string(),
        connect_timeout: Some(time(cx, "connect_timeout", *connect_timeout)?),
        lb_policy: policy.into(),
        health_checks: health_checks.into_iter().collect::<Option<_>>()?,
        circuit_breakers: Some(circuit_breakers),
        typed_extension_protocol_options: BTreeMap::from([(HTTP_OPTIONS.to_owned(), options)]),
        outlier_detection,
        lb_subset_config: subset_config(subsets, *subset_fallback),
        lb_config: config,
        common_lb_config: named.is_none().then_some(common),
        metadata: noted(beside),
        ..pb::Cluster::default()
    };
    place(cx, name, (source, endpoints), zone_weights, &mut cluster)?;
    cluster.transport_socket = tls?;
    Some(cluster)
}

/// Where its endpoints come from.
fn place(
    cx: &mut Cx,
    name: &Name,
    from: (&Source, &EndpointSource),
    zone_weights: &BTreeMap<Box<str>, u32>,
    cluster: &mut pb::Cluster,
) -> Option<()> {
    let kind = match from {
        (Source::Static, EndpointSource::Stated(set)) => {
            let weights = (!zone_weights.is_empty()).then_some(zone_weights);
            let set = cx.within("load_assignment", |cx| endpoints::stated(cx, name, set, weights))?;
            cluster.load_assignment = Some(set);
            DiscoveryType::Static
        }
        (Source::Static, EndpointSource::Eds(set)) => {
            let service_name = if set == name { String::new() } else { set.to_string() };
            let eds_config = Some(stream());
            cluster.eds_cluster_config = Some(pb::cluster::EdsClusterConfig { eds_config, service_name });
            DiscoveryType::Eds
        }
        (Source::Dns { host, port, uses }, EndpointSource::Dns) => {
            cluster.load_assignment = Some(endpoints::dns(name, host, *port));
            cluster.respect_dns_ttl = true;
            cluster.dns_lookup_family = pb::cluster::DnsLookupFamily::All.into();
            match uses {
                DnsUse::All => DiscoveryType::StrictDns,
                DnsUse::First => DiscoveryType::LogicalDns,
            }
        }
        (Source::Original(named), EndpointSource::Original) => {
            cluster.cleanup_interval = Some(time(cx, "cleanup_interval", named.cleanup)?);
            DiscoveryType::OriginalDst
        }
        (Source::Static, EndpointSource::Dns | EndpointSource::Original)
        | (
            Source::Dns { .. },
            EndpointSource::Stated(_) | EndpointSource::Eds(_) | EndpointSource::Original,
        )
        | (Source::Original(_), EndpointSource::Stated(_) | EndpointSource::Eds(_) | EndpointSource::Dns) => {
            return cx.fail("type", "two things are said of where endpoints come from");
        }
    };
    cluster.ignore_health_on_host_removal = !cluster.health_checks.is_empty();
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind.into()));
    Some(())
}

fn percent(share: Percent) -> kinds::Percent {
    kinds::Percent { value: f64::from(share.millionths()) / 10_000.0 }
}

/// Envoy counts the limits of each class apart, and has its own for one of which nothing is said.
fn circuit_breakers(breaker: &CircuitBreaker, budget: RetryBudget) -> pb::CircuitBreakers {
    let CircuitBreaker { default, high } = breaker;
    let classes = [
        (core::RoutingPriority::Default, default),
        (core::RoutingPriority::High, high.as_ref().unwrap_or(default)),
    ];
    let thresholds = |(priority, limits): (core::RoutingPriority, &BreakerLimits)| {
        let BreakerLimits { max_connections, max_pending, max_requests, max_retries } = *limits;
        let RetryBudget { percent: share, min } = budget;
        let retry_budget = pb::circuit_breakers::thresholds::RetryBudget {
            budget_percent: Some(percent(share)),
            min_retry_concurrency: Some(min),
        };
        pb::circuit_breakers::Thresholds {
            priority: priority.into(),
            max_connections: Some(max_connections.get()),
            max_pending_requests: Some(max_pending),
            max_requests: Some(max_requests.get()),
            max_retries: Some(max_retries),
            retry_budget: (budget != NO_BUDGET).then_some(retry_budget),
        }
    };
    pb::CircuitBreakers { thresholds: classes.into_iter().map(thresholds).collect() }
}

/// Whether `max_retries` is more than what a budget makes of it.
fn keeps_max_retries(breaker: &CircuitBreaker, budget: RetryBudget) -> bool {
    let CircuitBreaker { default, high } = breaker;
    let limited = |limits: &BreakerLimits| limits.max_retries != u32::MAX;
    budget != NO_BUDGET && (limited(default) || high.as_ref().is_some_and(limited))
}

fn subset(labels: &Labels) -> ours::cluster::Subset {
    let Labels(labels) = labels;
    let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    ours::cluster::Subset { labels: labels.collect() }
}

/// Requests that name no subset go anywhere; of those that do, the selectors say who takes what nobody is there for.
fn subset_config(
    subsets: &BTreeMap<Name, Labels>,
    fallback: SubsetFallback,
) -> Option<pb::cluster::LbSubsetConfig> {
    use pb::cluster::lb_subset_config::LbSubsetFallbackPolicy;
    use pb::cluster::lb_subset_config::lb_subset_selector::LbSubsetSelectorFallbackPolicy;
    let fallback = match fallback {
        SubsetFallback::None => LbSubsetSelectorFallbackPolicy::NoFallback,
        SubsetFallback::Any => LbSubsetSelectorFallbackPolicy::AnyEndpoint,
    };
    let all: BTreeSet<Vec<&str>> =
        subsets.values().map(|Labels(labels)| labels.keys().map(|key| &**key).collect()).collect();
    let selector = |keys: Vec<&str>| pb::cluster::lb_subset_config::LbSubsetSelector {
        keys: keys.into_iter().map(str::to_owned).collect(),
        fallback_policy: fallback.into(),
    };
    (!all.is_empty()).then(|| pb::cluster::LbSubsetConfig {
        fallback_policy: LbSubsetFallbackPolicy::AnyEndpoint.into(),
        subset_selectors: all.into_iter().map(selector).collect(),
    })
}
