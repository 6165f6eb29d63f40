//! Endpoints, by where they stand and how urgently they are used. Those of one zone and level stand together, each such group
//! once, as gRPC's clients demand it; where that is not their order, each says its place.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU16;

use prost_types::Struct;
use prost_types::value::Kind;

use super::super::super::cluster::{LABELS, weight_of};
use super::super::super::generated::envoy::config::core::v3 as core;
use super::super::super::generated::envoy::config::endpoint::v3 as pb;
use super::super::super::generated::outrigger::extensions::v1 as ours;
use super::super::{address, packed, socket};
use super::Cx;
use crate::model::{Assignment, Endpoint, Labels, Name};

/// Endpoints that come by themselves.
pub(in super::super) fn assignment(
    cx: &mut Cx,
    name: &Name,
    set: &Assignment,
) -> Option<pb::ClusterLoadAssignment> {
    stated(cx, name, set, None)
}

/// With the weights of zones, where the cluster has any.
pub(super) fn stated(
    cx: &mut Cx,
    name: &Name,
    set: &Assignment,
    weights: Option<&BTreeMap<Box<str>, u32>>,
) -> Option<pb::ClusterLoadAssignment> {
    let Assignment { endpoints } = set;
    let groups = groups(endpoints);
    let in_order = groups.iter().flat_map(|group| &group.places).copied().eq(0..endpoints.len());
    let groups = groups.into_iter().enumerate();
    let groups = groups.map(|(index, Group { priority, zone, places })| {
        cx.within(format_args!("endpoints[{index}]"), |cx| {
            let one = |place: &usize| written(cx, &endpoints[*place], (!in_order).then_some(*place));
            let lb_endpoints = places.iter().map(one).collect::<Option<Vec<_>>>()?;
            let sum: u64 = places.iter().map(|place| u64::from(endpoints[*place].weight.get())).sum();
            let load_balancing_weight = match weights {
                // One of 0 is not used, as one that is not said.
                Some(weights) => Some(weight_of(weights, zone)).filter(|weight| *weight > 0),
                None => u32::try_from(sum).ok(),
            };
            let locality = core::Locality { zone: zone.unwrap_or_default().to_owned(), ..Default::default() };
            Some(pb::LocalityLbEndpoints {
                locality: Some(locality),
                lb_endpoints,
                load_balancing_weight,
                priority: priority.into(),
            })
        })
    });
    let mut groups = groups.collect::<Option<Vec<_>>>()?;
    if weights.is_none() && overflows(endpoints) {
        groups.iter_mut().for_each(|group| group.load_balancing_weight = None);
    }
    Some(pb::ClusterLoadAssignment { cluster_name: name.to_string(), endpoints: groups, policy: None })
}

/// Endpoints of one level and zone.
struct Group<'s> {
    priority: u8,
    zone: Option<&'s str>,
    /// Theirs, among all.
    places: Vec<usize>,
}

/// In the order in which each of them is met first.
fn groups(endpoints: &[Endpoint]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut known = HashMap::new();
    for (place, endpoint) in endpoints.iter().enumerate() {
        let (priority, zone) = (endpoint.priority, endpoint.zone.as_deref());
        let index = *known.entry((priority, zone)).or_insert_with(|| {
            groups.push(Group { priority, zone, places: Vec::new() });
            groups.len() - 1
        });
        groups[index].places.push(place);
    }
    groups
}

/// Whether the weights of all together are more than there may be of a level.
fn overflows(endpoints: &[Endpoint]) -> bool {
    endpoints.iter().map(|endpoint| u64::from(endpoint.weight.get())).sum::<u64>() > u64::from(u32::MAX)
}

/// A name that is resolved.
pub(super) fn dns(name: &Name, host: &str, port: NonZeroU16) -> pb::ClusterLoadAssignment {
    let socket = core::address::Address::SocketAddress(socket(host.to_owned(), port.get()));
    let address = Some(core::Address { address: Some(socket) });
    let of = pb::lb_endpoint::HostIdentifier::Endpoint(pb::Endpoint { address });
    let one = pb::LbEndpoint { host_identifier: Some(of), ..Default::default() };
    let group = pb::LocalityLbEndpoints { lb_endpoints: vec![one], ..Default::default() };
    pb::ClusterLoadAssignment { cluster_name: name.to_string(), endpoints: vec![group], policy: None }
}

fn written(cx: &mut Cx, endpoint: &Endpoint, place: Option<usize>) -> Option<pb::LbEndpoint> {
    let Endpoint { address: at, weight, priority: _, zone: _, labels: Labels(labels) } = endpoint;
    let mut metadata = core::Metadata::default();
    if !labels.is_empty() {
        let text = |value: &str| prost_types::Value { kind: Some(Kind::StringValue(value.to_owned())) };
        let fields = labels.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        metadata.filter_metadata.insert(LABELS.to_owned(), Struct { fields });
    }
    if let Some(place) = place {
        let place = u32::try_from(place).ok().or_else(|| cx.fail("lb_endpoints", "there are too many"))?;
        metadata
            .typed_filter_metadata
            .insert(super::super::OURS.to_owned(), packed(&ours::Endpoint { place }));
    }
    let address = Some(address(cx, "lb_endpoints", at)?);
    Some(pb::LbEndpoint {
        host_identifier: Some(pb::lb_endpoint::HostIdentifier::Endpoint(pb::Endpoint { address })),
        health_status: core::HealthStatus::Unknown.into(),
        metadata: (metadata != core::Metadata::default()).then_some(metadata),
        load_balancing_weight: Some(weight.get()),
    })
}
