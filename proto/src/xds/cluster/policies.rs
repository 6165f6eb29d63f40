//! Policies of balancing that are messages of their own: of a list, the first that is known is taken, as by every client.

use prost::Message;
use prost_types::Any;

use super::super::cx::Cx;
use super::super::generated::envoy::config::cluster::v3 as pb;
use super::super::generated::envoy::extensions::load_balancing_policies as policies;
use super::balance::{self, Read, SlowStart};
use super::of_any;
use crate::model::Balance;
use policies::common::v3 as common;

/// `of_zones`: the list says how an endpoint of a zone is chosen, and may not speak of zones again.
pub(super) fn first(cx: &mut Cx, list: pb::LoadBalancingPolicy, of_zones: bool) -> Option<Read> {
    let pb::LoadBalancingPolicy { policies } = list;
    for (index, policy) in policies.into_iter().enumerate() {
        let pb::load_balancing_policy::Policy { typed_extension_config } = policy;
        let Some(any) = typed_extension_config.and_then(|config| config.typed_config) else {
            return cx.fail(&format!("policies[{index}].typed_extension_config"), "this is missing");
        };
        let at = format!("policies[{index}].typed_extension_config.typed_config");
        if let Some(read) = cx.within(at, |cx| known(cx, &any, of_zones)) {
            return read;
        }
    }
    cx.fail("policies", "none of them is supported")
}

/// `None` outside where it is not known, inside where something is wrong with it.
#[expect(clippy::option_option, reason = "the two say different things")]
fn known(cx: &mut Cx, any: &Any, of_zones: bool) -> Option<Option<Read>> {
    try_as(cx, any, round_robin)
        .or_else(|| try_as(cx, any, least_request))
        .or_else(|| try_as(cx, any, random))
        .or_else(|| try_as(cx, any, ring_hash))
        .or_else(|| try_as(cx, any, maglev))
        .or_else(|| try_as(cx, any, |cx, policy| wrr_locality(cx, policy, of_zones)))
}

#[expect(clippy::option_option, reason = "the two say different things")]
fn try_as<M: Message + prost::Name + Default>(
    cx: &mut Cx,
    any: &Any,
    read: impl FnOnce(&mut Cx, M) -> Option<Read>,
) -> Option<Option<Read>> {
    Some(match of_any(any)? {
        Ok(policy) => read(cx, policy),
        Err(_) => cx.fail("", "this is not a message of that type"),
    })
}

fn round_robin(cx: &mut Cx, policy: policies::round_robin::v3::RoundRobin) -> Option<Read> {
    let policies::round_robin::v3::RoundRobin { slow_start_config, locality_lb_config } = policy;
    let slow_start = balance::slow_start(cx, slow_start_config.map(parts))?;
    Some(Read::new(Balance::RoundRobin, slow_start, weighs(locality_lb_config)))
}

fn least_request(cx: &mut Cx, policy: policies::least_request::v3::LeastRequest) -> Option<Read> {
    use policies::least_request::v3::least_request::SelectionMethod;
    let policies::least_request::v3::LeastRequest {
        choice_count,
        active_request_bias,
        slow_start_config,
        locality_lb_config,
        selection_method,
    } = policy;
    if SelectionMethod::try_from(selection_method).unwrap_or_default() != SelectionMethod::NChoices {
        return cx.fail("selection_method", "N_CHOICES alone is supported");
    }
    balance::least_request(cx, choice_count, active_request_bias)?;
    let slow_start = balance::slow_start(cx, slow_start_config.map(parts))?;
    Some(Read::new(Balance::LeastRequest, slow_start, weighs(locality_lb_config)))
}

fn random(_: &mut Cx, policy: policies::random::v3::Random) -> Option<Read> {
    let policies::random::v3::Random { locality_lb_config } = policy;
    Some(Read::new(Balance::Random, std::time::Duration::ZERO, weighs(locality_lb_config)))
}

fn ring_hash(cx: &mut Cx, policy: policies::ring_hash::v3::RingHash) -> Option<Read> {
    use policies::ring_hash::v3::ring_hash::HashFunction;
    let policies::ring_hash::v3::RingHash {
        hash_function,
        minimum_ring_size,
        maximum_ring_size,
        locality_weighted_lb_config,
    } = policy;
    let xx_hash = match HashFunction::try_from(hash_function).unwrap_or_default() {
        HashFunction::DefaultHash | HashFunction::XxHash => true,
        HashFunction::MurmurHash2 => false,
    };
    balance::ring(cx, (minimum_ring_size, maximum_ring_size), xx_hash)?;
    let weighs_zones = locality_weighted_lb_config.is_some();
    Some(Read::new(Balance::RingHash(Box::default()), std::time::Duration::ZERO, weighs_zones))
}

fn maglev(cx: &mut Cx, policy: policies::maglev::v3::Maglev) -> Option<Read> {
    let policies::maglev::v3::Maglev { table_size, locality_weighted_lb_config } = policy;
    balance::table(cx, table_size)?;
    let weighs_zones = locality_weighted_lb_config.is_some();
    Some(Read::new(Balance::Maglev(Box::default()), std::time::Duration::ZERO, weighs_zones))
}

fn wrr_locality(
    cx: &mut Cx,
    policy: policies::wrr_locality::v3::WrrLocality,
    of_zones: bool,
) -> Option<Read> {
    let policies::wrr_locality::v3::WrrLocality { endpoint_picking_policy } = policy;
    if of_zones {
        return cx.fail("", "zones are weighed already");
    }
    let list = cx.required("endpoint_picking_policy", endpoint_picking_policy)?;
    let read = cx.within("endpoint_picking_policy", |cx| first(cx, list, true))?;
    Some(Read { weighs_zones: true, ..read })
}

fn weighs(config: Option<common::LocalityLbConfig>) -> bool {
    let common::LocalityLbConfig { locality_config_specifier } = config.unwrap_or_default();
    locality_config_specifier.is_some()
}

fn parts(config: common::SlowStartConfig) -> SlowStart {
    let common::SlowStartConfig { slow_start_window, aggression, min_weight_percent } = config;
    (slow_start_window, aggression, min_weight_percent)
}
