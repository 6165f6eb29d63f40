//! Endpoints, by where they stand and how urgently they are used.
//!
//! What a zone weighs is the cluster's to say in the model, and stands beside its endpoints in xDS. Where both are one
//! resource, one is read as the other. Where the endpoints come by themselves (EDS), the cluster's word for it is not known:
//! weights that say no more than those of the endpoints are accepted, others refused.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU32;

use prost_types::value::Kind;

use super::super::cx::Cx;
use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::config::endpoint::v3 as endpoint;
use super::super::generated::outrigger::extensions::v1 as ours;
use super::any;
use crate::model::{Address, Assignment, Endpoint, Labels};

/// Under which of an endpoint's metadata its labels stand.
pub(in super::super) const LABELS: &str = "envoy.lb";
/// What the weights of zones are, beside endpoints that a cluster states.
pub(super) enum Zones {
    /// Zones share nothing out, as far as Envoy goes; these are the weights of ours.
    Unweighed(BTreeMap<Box<str>, u32>),
    /// By the weights that stand there.
    Weighed,
    /// By the weights that stand there, which are these.
    Known(BTreeMap<Box<str>, u32>),
}

/// Endpoints that stand together.
struct Group {
    zone: Option<Box<str>>,
    priority: u8,
    weight: Option<u32>,
    /// The weights of its endpoints, those that are not well included.
    sum: u64,
    /// Each with its place, where it has one.
    endpoints: Vec<(Option<u32>, Endpoint)>,
}

/// Endpoints that come by themselves.
pub(in super::super) fn assignment(cx: &mut Cx, set: endpoint::ClusterLoadAssignment) -> Option<Assignment> {
    let groups = groups(cx, set)?;
    if let Some(index) = outweighed(&groups) {
        let field = format!("endpoints[{index}].load_balancing_weight");
        return cx.fail(
            &field,
            "what zones weigh is not supported here, unless it is as much as their endpoints do",
        );
    }
    Some(flat(groups))
}

/// Endpoints that stand beside their cluster, and what zones weigh.
pub(super) fn stated(
    cx: &mut Cx,
    set: endpoint::ClusterLoadAssignment,
    zones: Zones,
) -> Option<(Assignment, BTreeMap<Box<str>, u32>)> {
    let groups = groups(cx, set)?;
    let weights = match zones {
        Zones::Unweighed(weights) => weights,
        Zones::Weighed if outweighed(&groups).is_none() => BTreeMap::new(),
        Zones::Weighed => found(cx, &groups)?,
        Zones::Known(weights) => {
            let same =
                |group: &Group| group.weight.unwrap_or(0) == weight_of(&weights, group.zone.as_deref());
            if let Some(other) = groups.iter().position(|group| !same(group)) {
                let field = format!("endpoints[{other}].load_balancing_weight");
                return cx.fail(&field, "this is not what `zone_weights` beside the cluster says");
            }
            weights
        }
    };
    Some((flat(groups), weights))
}

/// What a zone weighs: 1 where nobody names it.
pub(in super::super) fn weight_of(weights: &BTreeMap<Box<str>, u32>, zone: Option<&str>) -> u32 {
    zone.and_then(|zone| weights.get(zone)).copied().unwrap_or(1)
}

/// Weights of ours, by zone.
pub(super) fn zone_weights(cx: &mut Cx, weights: BTreeMap<String, u32>) -> Option<BTreeMap<Box<str>, u32>> {
    let field = "metadata.typed_filter_metadata[outrigger].zone_weights";
    if !weights.is_empty() && weights.values().all(|weight| *weight == 0) {
        return cx.fail(field, "every weight is 0: no endpoint could be used");
    }
    Some(weights.into_iter().map(|(zone, weight)| (zone.into(), weight)).collect())
}

/// A group whose weight says other than those of its endpoints, beside the others of its level.
fn outweighed(groups: &[Group]) -> Option<usize> {
    let mut first: HashMap<u8, (u128, u128)> = HashMap::new();
    for (index, group) in used(groups) {
        let (weight, sum) = (u128::from(group.weight.unwrap_or(0)), u128::from(group.sum));
        let (other_weight, other_sum) = *first.entry(group.priority).or_insert((weight, sum));
        if weight * other_sum != other_weight * sum {
            return Some(index);
        }
    }
    None
}

/// What zones weigh, as their groups have it: the same on every level. One that says nothing is not used.
fn found(cx: &mut Cx, groups: &[Group]) -> Option<BTreeMap<Box<str>, u32>> {
    let mut weights = BTreeMap::new();
    for (index, group) in used(groups) {
        let weight = group.weight.unwrap_or(0);
        let Some(zone) = &group.zone else {
            return cx.fail(&format!("endpoints[{index}].locality"), "zones are weighed, and this is none");
        };
        if *weights.entry(zone.clone()).or_insert(weight) != weight {
            let field = format!("endpoints[{index}].load_balancing_weight");
            return cx.fail(&field, "one zone has one weight, on all levels");
        }
    }
    if weights.values().all(|weight| *weight == 0) {
        return cx.fail("endpoints", "no zone has a weight: no endpoint could be used");
    }
    Some(weights)
}

/// Groups with endpoints: others get nothing, whatever they weigh.
fn used(groups: &[Group]) -> impl Iterator<Item = (usize, &Group)> {
    groups.iter().enumerate().filter(|(_, group)| group.sum > 0)
}

fn groups(cx: &mut Cx, set: endpoint::ClusterLoadAssignment) -> Option<Vec<Group>> {
    let endpoint::ClusterLoadAssignment { cluster_name: _, endpoints, policy: shared } = set;
    let shared = policy(cx, shared);
    let groups = cx.each("endpoints", endpoints, group);
    shared?;
    groups
}

/// How levels share the load.
pub(super) fn policy(cx: &mut Cx, policy: Option<endpoint::cluster_load_assignment::Policy>) -> Option<()> {
    let endpoint::cluster_load_assignment::Policy { overprovisioning_factor } = policy.unwrap_or_default();
    match overprovisioning_factor {
        None | Some(140) => Some(()),
        Some(_) => cx.fail("policy.overprovisioning_factor", "140 alone is supported"),
    }
}

/// In their order, each once: who says the same twice means no more.
fn flat(groups: Vec<Group>) -> Assignment {
    let mut all: Vec<_> = groups.into_iter().flat_map(|group| group.endpoints).collect();
    // Those without a place stay behind those with one, in the order of their groups.
    all.sort_by_key(|(place, _)| place.unwrap_or(u32::MAX));
    let mut seen = HashSet::new();
    let mut endpoints: Vec<_> = all.into_iter().map(|(_, endpoint)| endpoint).collect();
    endpoints.retain(|endpoint| seen.insert(endpoint.address.clone()));
    // It was made in the room of what was larger.
    endpoints.shrink_to_fit();
    Assignment { endpoints }
}

fn group(cx: &mut Cx, group: endpoint::LocalityLbEndpoints) -> Option<Group> {
    let endpoint::LocalityLbEndpoints { locality, lb_endpoints, load_balancing_weight, priority } = group;
    let Some(priority) = u8::try_from(priority).ok().filter(|priority| *priority <= 127) else {
        return cx.fail("priority", "this is more than 127");
    };
    let zone = locality.map(|locality| locality.zone).filter(|zone| !zone.is_empty());
    let zone: Option<Box<str>> = zone.map(Into::into);
    let mut sum = 0;
    let endpoints = cx.each("lb_endpoints", lb_endpoints, |cx, one| {
        let (is_used, place, found) = one_of(cx, one)?;
        sum += u64::from(found.weight.get());
        Some(is_used.then(|| (place, Endpoint { priority, zone: zone.clone(), ..found })))
    })?;
    let endpoints = endpoints.into_iter().flatten().collect();
    Some(Group { zone, priority, weight: load_balancing_weight, sum, endpoints })
}

/// An endpoint, without its group: whether it is used, its place, and itself.
fn one_of(cx: &mut Cx, one: endpoint::LbEndpoint) -> Option<(bool, Option<u32>, Endpoint)> {
    let endpoint::LbEndpoint { host_identifier, health_status, metadata, load_balancing_weight } = one;
    let Some(weight) = NonZeroU32::new(load_balancing_weight.unwrap_or(1)) else {
        return cx.fail("load_balancing_weight", "a weight is at least 1");
    };
    let labels = labels(cx, metadata.as_ref());
    let placed = metadata.as_ref().is_some_and(|it| it.typed_filter_metadata.contains_key(any::OURS));
    let ours::Endpoint { place } = any::ours(cx, metadata)?;
    let of = host_identifier.map(|endpoint::lb_endpoint::HostIdentifier::Endpoint(of)| of);
    let of = cx.required("endpoint", of)?;
    let address = cx.within("endpoint", |cx| reachable(cx, of.address))?;
    let found = Endpoint { weight, labels: labels?, ..Endpoint::new(address) };
    Some((is_used(health_status), placed.then_some(place), found))
}

/// Whether a control plane thinks well enough of an endpoint.
pub(super) fn is_used(status: i32) -> bool {
    use core::HealthStatus as H;
    match H::try_from(status).unwrap_or_default() {
        H::Unknown | H::Healthy | H::Degraded => true,
        H::Unhealthy | H::Draining | H::Timeout => false,
    }
}

fn labels(cx: &mut Cx, metadata: Option<&core::Metadata>) -> Option<Labels> {
    let Some(written) = metadata.and_then(|metadata| metadata.filter_metadata.get(LABELS)) else {
        return Some(Labels::default());
    };
    let mut labels = BTreeMap::new();
    for (name, value) in &written.fields {
        let Some(Kind::StringValue(text)) = &value.kind else {
            let field = format!("metadata.filter_metadata[{LABELS}].{name}");
            return cx.fail(&field, "labels are texts: nothing else is supported");
        };
        labels.insert(name.as_str().into(), text.as_str().into());
    }
    Some(Labels(labels))
}

/// An address that can be connected to.
fn reachable(cx: &mut Cx, written: Option<core::Address>) -> Option<Address> {
    match address(cx, written)? {
        Address::Ip(ip) if ip.port() == 0 => {
            cx.fail("address.socket_address.port_value", "nothing can be reached at port 0")
        }
        found @ (Address::Ip(_) | Address::Unix(_)) => Some(found),
    }
}

/// An IP address and a port, or a unix socket.
pub(in super::super) fn address(cx: &mut Cx, address: Option<core::Address>) -> Option<Address> {
    let address = cx.required("address", address.and_then(|address| address.address))?;
    cx.within("address", |cx| match address {
        core::address::Address::SocketAddress(socket) => cx.within("socket_address", |cx| {
            if core::socket_address::Protocol::try_from(socket.protocol)
                != Ok(core::socket_address::Protocol::Tcp)
            {
                return cx.fail("protocol", "TCP alone is supported");
            }
            let Ok(ip) = socket.address.parse::<IpAddr>() else {
                return cx.fail("address", format!("`{}` is not an IP address", socket.address));
            };
            let port = port(&socket);
            let port = cx.required("port_value", port)?;
            Some(Address::Ip((ip, port).into()))
        }),
        core::address::Address::Pipe(core::Pipe { path }) if path.starts_with('/') => {
            Some(Address::Unix(path.into()))
        }
        core::address::Address::Pipe(_) => cx.fail("pipe.path", "this is not an absolute path"),
    })
}

pub(super) fn port(socket: &core::SocketAddress) -> Option<u16> {
    match socket.port_specifier {
        Some(core::socket_address::PortSpecifier::PortValue(port)) => u16::try_from(port).ok(),
        None => None,
    }
}
