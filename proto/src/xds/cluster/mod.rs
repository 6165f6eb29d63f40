//! Clusters, and their endpoints.
//!
//! What a field says that is absent is Envoy's to say: its defaults hold, not those of the YAML form. Where Envoy has a
//! default that cannot be meant here, what comes nearest is meant, and a field that says it in so many words is refused; the
//! subset's `.proto` files tell which these are.

mod balance;
mod breakers;
mod endpoints;
mod health;
mod original;
mod outlier;
mod policies;
mod protocol;
mod source;
mod subsets;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use prost_types::Any;

pub(super) use self::breakers::NO_BUDGET;
pub(super) use self::endpoints::{LABELS, address, assignment, weight_of};
pub(super) use self::protocol::HTTP_OPTIONS;
pub(super) use self::source::ads;
use super::any;
use super::cx::Cx;
use super::generated::envoy::config::cluster::v3 as pb;
use super::generated::envoy::r#type::v3 as kinds;
use super::generated::outrigger::extensions::v1 as ours;
use super::tls;
use crate::model::{Assignment, Balance, Cluster, Name, Percent};

/// A cluster, and where its endpoints come from.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterResource {
    /// The cluster; shared, as whoever follows a control plane holds it as long as whoever serves it does.
    pub cluster: Arc<Cluster>,
    /// Its endpoints.
    pub endpoints: EndpointSource,
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq)]
pub enum EndpointSource {
    /// They stand beside the cluster.
    Stated(Arc<Assignment>),
    /// The resource of this name says.
    Eds(Name),
    /// DNS says.
    Dns,
    /// Connections and requests name them.
    Original,
}

/// What is asked or looked at more often than this costs more than it tells.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

#[expect(clippy::too_many_lines, reason = "a flat translation")]
pub(super) fn cluster(cx: &mut Cx, mut cluster: pb::Cluster) -> Option<ClusterResource> {
    let named = original::take(cx, &mut cluster)?;
    let pb::Cluster {
        name,
        cluster_discovery_type,
        eds_cluster_config,
        connect_timeout,
        lb_policy,
        load_assignment,
        health_checks,
        circuit_breakers,
        typed_extension_protocol_options,
        transport_socket,
        dns_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        outlier_detection,
        // Of ORIGINAL_DST, which has taken it.
        cleanup_interval: _,
        lb_subset_config,
        lb_config,
        common_lb_config,
        load_balancing_policy,
        metadata,
        // As it always is.
        ignore_health_on_host_removal: _,
    } = cluster;
    let ours::Cluster {
        peak_ewma,
        slow_start,
        zone_weights,
        subsets,
        keep_max_retries,
        high_stated,
        outlier_detection: more_of_outliers,
        max_endpoints,
    } = any::ours(cx, metadata)?;
    let connect_timeout = limit(cx, "connect_timeout", connect_timeout, Duration::from_secs(5));
    let panic_threshold = match &named {
        Some(_) => Some(Percent::ZERO),
        None => balance::panic_threshold(cx, common_lb_config.as_ref()),
    };
    let written = balance::Written { policy: lb_policy, config: lb_config, list: load_balancing_policy };
    let named = original::with_ours(cx, named, max_endpoints)?;
    let balancing = match &named {
        Some(_) => Some(balance::Read::new(Balance::default(), Duration::ZERO, false)),
        None => balance::read(cx, written, common_lb_config, lb_subset_config.is_some()),
    };
    if named.is_some() && slow_start.is_some() {
        let at = "metadata.typed_filter_metadata[outrigger].slow_start";
        return cx.fail(at, "with ORIGINAL_DST each connection or request names its one endpoint");
    }
    let balancing = balancing.and_then(|read| balance::with_ours(cx, read, peak_ewma, slow_start));
    let hashes = balancing.as_ref().is_some_and(balance::Read::hashes);
    let spoken = protocol::protocol(cx, typed_extension_protocol_options, hashes);
    let burdens = breakers::circuit_breakers(cx, circuit_breakers, (keep_max_retries, high_stated));
    let outlier_detection = outlier::outlier_detection(cx, outlier_detection, more_of_outliers);
    let health_check = health::health_check(cx, health_checks, spoken.as_ref().map(|spoken| spoken.protocol));
    let zone_weights = endpoints::zone_weights(cx, zone_weights);
    let weighs = balancing.as_ref().is_some_and(|balancing| balancing.weighs_zones);
    let from = source::From {
        name: &name,
        kind: cluster_discovery_type,
        eds: eds_cluster_config,
        set: load_assignment,
        dns: (dns_refresh_rate, respect_dns_ttl, dns_lookup_family),
        named,
    };
    let found = zone_weights.and_then(|weights| source::source(cx, from, weighs, weights));
    let tls = tls::upstream(cx, transport_socket);
    let subsets = subsets::subsets(cx, lb_subset_config, subsets);
    let (found, spoken, balancing, (circuit_breaker, retry_budget)) = (found?, spoken?, balancing?, burdens?);
    let (subsets, subset_fallback) = subsets?;
    if found.endpoints == EndpointSource::Dns && !subsets.is_empty() {
        return cx.fail("lb_subset_config", "endpoints that a name is resolved to have no labels");
    }
    let cluster = Cluster {
        source: found.source,
        balance: balancing.by(spoken.hash),
        protocol: spoken.protocol,
        tls: tls?,
        connect_timeout: connect_timeout?,
        idle_timeout: spoken.idle_timeout,
        retry_budget,
        circuit_breaker,
        outlier_detection: outlier_detection?,
        health_check: health_check?,
        slow_start: balancing.slow_start,
        panic_threshold: panic_threshold?,
        zone_weights: found.zone_weights,
        subsets,
        subset_fallback,
    };
    Some(ClusterResource { cluster: Arc::new(cluster), endpoints: found.endpoints })
}

/// A message of any type, where it is of this one.
fn of_any<M: Message + prost::Name + Default>(any: &Any) -> Option<Result<M, prost::DecodeError>> {
    let is = any.type_url.rsplit('/').next() == Some(&M::full_name());
    is.then(|| M::decode(any.value.as_slice()))
}

/// A time that something is waited for; 0 is none.
fn limit(
    cx: &mut Cx,
    field: &str,
    time: Option<prost_types::Duration>,
    default: Duration,
) -> Option<Duration> {
    if time.is_none() {
        return Some(default);
    }
    let time = cx.time(field, time)?;
    time.or_else(|| cx.fail(field, "0 is no time: expected more"))
}

/// A time between two looks.
fn often(
    cx: &mut Cx,
    field: &str,
    time: Option<prost_types::Duration>,
    default: Duration,
) -> Option<Duration> {
    let time = limit(cx, field, time, default)?;
    if time < MIN_INTERVAL {
        return cx.fail(field, "this is too short: expected at least 10 ms");
    }
    Some(time)
}

/// A share that stands in per cent.
fn percent(cx: &mut Cx, field: &str, share: Option<kinds::Percent>, default: Percent) -> Option<Percent> {
    let Some(kinds::Percent { value }) = share else { return Some(default) };
    if !(0.0..=100.0).contains(&value) {
        return cx.fail(field, "expected 0 to 100");
    }
    Percent::from_millionths((value * 10_000.0).round() as u32)
}
