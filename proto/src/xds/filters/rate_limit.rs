//! Limits that a service counts.

use std::num::NonZeroU32;

use http::HeaderName;

use super::super::cx::Cx;
use super::super::generated::envoy::config::route::v3 as route;
use super::super::generated::envoy::config::route::v3::rate_limit::action::{
    ActionSpecifier, GenericKey, RequestHeaders,
};
use super::super::generated::envoy::extensions::filters::http::ratelimit::v3::RateLimitPerRoute;
use super::super::generated::outrigger::extensions::v1 as ext;
use crate::model::{DescriptorEntry, GlobalRateLimit, Name, OnFailure};

/// What a request counts as at the most, and refusals that are remembered: as in a file.
const MOST: u32 = 1_000_000;

/// What is counted, and by whom: Envoy says the first at the route and the second at the listener.
pub(super) fn of_route(
    cx: &mut Cx,
    counted: Option<RateLimitPerRoute>,
    service: Option<ext::GlobalRateLimit>,
) -> Option<Option<GlobalRateLimit>> {
    let (counted, service) = match (counted, service) {
        (None, None) => return Some(None),
        (Some(counted), Some(service)) => (counted, service),
        (Some(_), None) => {
            return cx.fail(
                "typed_per_filter_config",
                format!("which service counts is said by a RoutePolicy under `{}`", super::super::any::OURS),
            );
        }
        (None, Some(_)) => {
            return cx
                .fail("typed_per_filter_config", "what a service counts is said by a RateLimitPerRoute");
        }
    };
    cx.within("typed_per_filter_config", |cx| {
        let RateLimitPerRoute { domain, rate_limits } = counted;
        if domain.is_empty() {
            return cx.fail("domain", "this is empty");
        }
        let mut hits = None;
        let descriptors = cx.each("rate_limits", rate_limits, |cx, limit| {
            let (entries, of_this) = descriptor(cx, limit)?;
            if *hits.get_or_insert(of_this) != of_this {
                return cx.fail("hits_addend", "a request counts as much in each");
            }
            Some(entries)
        })?;
        let hits = cx.required("rate_limits", hits)?;
        let ext::GlobalRateLimit { cluster, timeout, allow_on_failure, cache } = service;
        let cluster = Name::new(&cluster).or_else(|| cx.fail("cluster", "this is not the name of a cluster"));
        let on_failure = if allow_on_failure { OnFailure::Allow } else { OnFailure::Deny };
        if cache > MOST {
            return cx.fail("cache", format!("it is {MOST} at the most"));
        }
        let timeout = cx.time("timeout", timeout)?;
        let timeout = cx.required("timeout", timeout)?;
        let domain = domain.into();
        Some(Some(GlobalRateLimit {
            cluster: cluster?,
            domain,
            descriptors,
            timeout,
            on_failure,
            hits,
            cache,
        }))
    })
}

fn descriptor(cx: &mut Cx, limit: route::RateLimit) -> Option<(Vec<DescriptorEntry>, NonZeroU32)> {
    let route::RateLimit { actions, hits_addend } = limit;
    let number = hits_addend.and_then(|route::rate_limit::HitsAddend { number }| number).unwrap_or(1);
    let hits = u32::try_from(number).ok().filter(|hits| *hits <= MOST).and_then(NonZeroU32::new);
    let hits = hits.or_else(|| cx.fail("hits_addend.number", format!("it is between 1 and {MOST}")))?;
    if actions.is_empty() {
        return cx.fail("actions", "there is none");
    }
    let entries =
        cx.each("actions", actions, |cx, route::rate_limit::Action { action_specifier }| {
            match cx.required("action_specifier", action_specifier)? {
                ActionSpecifier::RemoteAddress(_) => Some(DescriptorEntry::Source),
                ActionSpecifier::RequestHeaders(RequestHeaders { header_name, descriptor_key }) => {
                    let Ok(name) = HeaderName::from_bytes(header_name.as_bytes()) else {
                        return cx.fail(
                            "request_headers.header_name",
                            format!("`{header_name}` is not supported"),
                        );
                    };
                    if descriptor_key != name.as_str() {
                        return cx
                            .fail("request_headers.descriptor_key", "a field is counted under its own name");
                    }
                    Some(DescriptorEntry::Header(name))
                }
                ActionSpecifier::GenericKey(GenericKey { descriptor_value, descriptor_key }) => {
                    if descriptor_value.is_empty() {
                        return cx.fail("generic_key.descriptor_value", "this is empty");
                    }
                    let key =
                        if descriptor_key.is_empty() { "generic_key".to_owned() } else { descriptor_key };
                    Some(DescriptorEntry::Fixed { key: key.into(), value: descriptor_value.into() })
                }
            }
        })?;
    Some((entries, hits))
}
