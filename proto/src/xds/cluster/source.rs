//! Where a cluster's endpoints come from.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use super::super::cx::Cx;
use super::super::generated::envoy::config::cluster::v3 as pb;
use super::super::generated::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily,
};
use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::config::endpoint::v3 as endpoint;
use super::endpoints::{self, Zones};
use super::{EndpointSource, limit};
use crate::model::{DnsUse, Name, Original, Source};

/// What is written of it.
pub(super) struct From<'c> {
    pub(super) name: &'c str,
    pub(super) kind: Option<ClusterDiscoveryType>,
    pub(super) eds: Option<pb::cluster::EdsClusterConfig>,
    pub(super) set: Option<endpoint::ClusterLoadAssignment>,
    /// `dns_refresh_rate`, `respect_dns_ttl`, `dns_lookup_family`.
    pub(super) dns: (Option<prost_types::Duration>, bool, i32),
    /// Of `ORIGINAL_DST`, and of no other.
    pub(super) named: Option<Original>,
}

/// What it means.
pub(super) struct Found {
    pub(super) source: Source,
    pub(super) endpoints: EndpointSource,
    pub(super) zone_weights: BTreeMap<Box<str>, u32>,
}

/// `weighs` is whether zones share the load by weights, and `weights` those of ours.
pub(super) fn source(
    cx: &mut Cx,
    from: From<'_>,
    weighs: bool,
    weights: BTreeMap<Box<str>, u32>,
) -> Option<Found> {
    let From { name, kind, eds: config, set, dns: how, named } = from;
    let ClusterDiscoveryType::Type(kind) =
        kind.unwrap_or(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
    let kind = DiscoveryType::try_from(kind).unwrap_or_default();
    if kind != DiscoveryType::Eds && config.is_some() {
        return cx.fail("eds_cluster_config", "the cluster's endpoints do not come from EDS");
    }
    match kind {
        DiscoveryType::Eds if set.is_some() => {
            cx.fail("load_assignment", "the cluster's endpoints come from EDS")
        }
        DiscoveryType::Eds => {
            let endpoints = EndpointSource::Eds(eds(cx, name, config)?);
            Some(Found { source: Source::Static, endpoints, zone_weights: weights })
        }
        DiscoveryType::Static => {
            let zones = match (weighs, weights.is_empty()) {
                (true, true) => Zones::Weighed,
                (true, false) => Zones::Known(weights),
                (false, _) => Zones::Unweighed(weights),
            };
            let set = set.unwrap_or_default();
            let (set, zone_weights) = cx.within("load_assignment", |cx| endpoints::stated(cx, set, zones))?;
            let endpoints = EndpointSource::Stated(Arc::new(set));
            Some(Found { source: Source::Static, endpoints, zone_weights })
        }
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
            let uses = if kind == DiscoveryType::LogicalDns { DnsUse::First } else { DnsUse::All };
            let set = cx.required("load_assignment", set)?;
            let asked = asked(cx, how);
            let source = cx.within("load_assignment", |cx| dns(cx, set, uses));
            asked?;
            if !weights.is_empty() {
                return cx.fail("metadata", "endpoints that a name is resolved to stand in no zone");
            }
            Some(Found { source: source?, endpoints: EndpointSource::Dns, zone_weights: weights })
        }
        DiscoveryType::OriginalDst if !weights.is_empty() => {
            cx.fail("metadata", "endpoints that are named by who comes stand in no zone")
        }
        DiscoveryType::OriginalDst => {
            let source = Source::Original(named.unwrap_or_default());
            Some(Found { source, endpoints: EndpointSource::Original, zone_weights: weights })
        }
    }
}

fn eds(cx: &mut Cx, cluster: &str, config: Option<pb::cluster::EdsClusterConfig>) -> Option<Name> {
    let pb::cluster::EdsClusterConfig { eds_config, service_name } =
        cx.required("eds_cluster_config", config)?;
    cx.within("eds_cluster_config", |cx| {
        ads(cx, "eds_config", eds_config)?;
        let name = if service_name.is_empty() { cluster } else { &service_name };
        Name::new(name).or_else(|| cx.fail("service_name", "this is not a name"))
    })
}

/// From the same stream, as all there is.
pub(in super::super) fn ads(cx: &mut Cx, field: &str, source: Option<core::ConfigSource>) -> Option<()> {
    match source.and_then(|source| source.config_source_specifier) {
        Some(core::config_source::ConfigSourceSpecifier::Ads(_)) => Some(()),
        None => cx.fail(field, "it does not come from the same stream: write `ads`"),
    }
}

/// How a name is asked for: by its TTL, and for all of its addresses.
fn asked(cx: &mut Cx, (every, by_ttl, family): (Option<prost_types::Duration>, bool, i32)) -> Option<()> {
    let written = every.is_some();
    limit(cx, "dns_refresh_rate", every, Duration::ZERO)?;
    if written && !by_ttl {
        return cx.fail("dns_refresh_rate", "names are asked for by their TTL: write `respect_dns_ttl` too");
    }
    let family = DnsLookupFamily::try_from(family).unwrap_or_default();
    match family {
        DnsLookupFamily::Auto | DnsLookupFamily::All => Some(()),
        DnsLookupFamily::V4Only | DnsLookupFamily::V6Only | DnsLookupFamily::V4Preferred => {
            let problem =
                format!("{} is not supported: all addresses are used, as with ALL", family.as_str_name());
            cx.fail("dns_lookup_family", problem)
        }
    }
}

/// The one name of a cluster in DNS.
fn dns(cx: &mut Cx, set: endpoint::ClusterLoadAssignment, uses: DnsUse) -> Option<Source> {
    let endpoint::ClusterLoadAssignment { cluster_name: _, endpoints, policy } = set;
    endpoints::policy(cx, policy)?;
    let mut all = endpoints.into_iter().flat_map(|group| group.lb_endpoints);
    let (Some(only), None) = (all.next(), all.next()) else {
        return cx.fail("endpoints", "not one name: so many are not supported");
    };
    if !endpoints::is_used(only.health_status) {
        return cx.fail("endpoints", "the one name is not to be used");
    }
    let address =
        only.host_identifier.and_then(|endpoint::lb_endpoint::HostIdentifier::Endpoint(of)| of.address);
    let Some(core::address::Address::SocketAddress(socket)) = address.and_then(|address| address.address)
    else {
        return cx.fail("endpoints", "there is no name and port");
    };
    let port = endpoints::port(&socket).and_then(NonZeroU16::new);
    match port {
        Some(port) if !socket.address.is_empty() => {
            Some(Source::Dns { host: socket.address.into(), port, uses })
        }
        _ => cx.fail("endpoints", "there is no name and port"),
    }
}
