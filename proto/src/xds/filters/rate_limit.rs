//! Limits that a service counts.

use std::num::NonZeroU32;
use std::time::Duration;

use http::HeaderName;

use super::super::cx::Cx;
use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use super::super::generated::envoy::config::ratelimit::v3::RateLimitServiceConfig;
use super::super::generated::envoy::config::route::v3 as route;
use super::super::generated::envoy::config::route::v3::rate_limit::action as pb;
use super::super::generated::envoy::config::route::v3::rate_limit::action::ActionSpecifier;
use super::super::generated::envoy::extensions::filters::http::ratelimit::v3::rate_limit_per_route::VhRateLimitsOptions;
use super::super::generated::envoy::extensions::filters::http::ratelimit::v3::{
    RateLimit, RateLimitPerRoute,
};
use super::super::generated::envoy::r#type::v3::HttpStatus;
use super::super::generated::outrigger::extensions::v1 as ext;
use super::super::route::{decoded_parameter, header};
use crate::model::{
    Absent, DescriptorEntry, GlobalRateLimit, Name, OnFailure, Only, OnlyOf, RateLimitService,
};

/// What a request counts as at the most, and refusals that are remembered: as in a file.
const MOST: u32 = 1_000_000;

/// One number stands beside all descriptors of a question.
const SAME: &str = "a request counts as much in each: write the same `hits_addend`";

/// For an answer, where nothing is said: Envoy's.
const TIMEOUT: Duration = Duration::from_millis(20);

/// By which value is counted where no key is written: Envoy's.
pub(in crate::xds) const HEADER_MATCH: &str = "header_match";
/// The same of parameters.
pub(in crate::xds) const QUERY_MATCH: &str = "query_match";

/// A service that counts, at a listener; so many of its refusals are remembered.
pub(super) fn filter(cx: &mut Cx, filter: RateLimit, cache: u32) -> Option<RateLimitService> {
    let RateLimit {
        domain,
        stage,
        request_type,
        timeout,
        failure_mode_deny,
        // What a call of gRPC is told is one thing here.
        rate_limited_as_resource_exhausted: _,
        rate_limit_service,
        // There is none to be disabled.
        disable_x_envoy_ratelimited_header: _,
        status_on_error,
    } = filter;
    if domain.is_empty() {
        return cx.fail("domain", "this is empty");
    }
    if stage != 0 {
        return cx.fail("stage", "0 alone is supported");
    }
    if !matches!(&*request_type, "" | "both") {
        return cx.fail("request_type", "requests of both kinds are counted: write `both`");
    }
    if status_on_error.is_some_and(|HttpStatus { code }| code != 503) {
        return cx.fail("status_on_error", "503 alone is supported");
    }
    if cache > MOST {
        return cx.fail("rate_limit_service", format!("refusals that are remembered are {MOST} at the most"));
    }
    let timeout = match timeout {
        None => TIMEOUT,
        written => cx.time("timeout", written)?.or_else(|| cx.fail("timeout", "there must be one"))?,
    };
    let on_failure = if failure_mode_deny { OnFailure::Deny } else { OnFailure::Allow };
    let service = cx.required("rate_limit_service", rate_limit_service)?;
    let cluster = cx.within("rate_limit_service", |cx| cluster(cx, service))?;
    Some(RateLimitService { cluster, domain: domain.into(), timeout, on_failure, cache })
}

fn cluster(cx: &mut Cx, service: RateLimitServiceConfig) -> Option<Name> {
    let RateLimitServiceConfig { grpc_service, transport_api_version } = service;
    // Whatever is not V3 is nothing that is spoken any more, here or there.
    if transport_api_version == i32::from(core::ApiVersion::V2) {
        return cx.fail("transport_api_version", "V3 alone is spoken");
    }
    let core::GrpcService { target_specifier, timeout } = cx.required("grpc_service", grpc_service)?;
    if timeout.is_some() {
        return cx.fail("grpc_service.timeout", "the filter has a `timeout`: write it there");
    }
    let TargetSpecifier::EnvoyGrpc(EnvoyGrpc { cluster_name }) =
        cx.required("grpc_service.envoy_grpc", target_specifier)?;
    let cluster = Name::new(&cluster_name);
    cluster.or_else(|| cx.fail("grpc_service.envoy_grpc.cluster_name", "this is not the name of a cluster"))
}

/// What a request counts as, and how much.
pub(in crate::xds) type Limit = (Vec<DescriptorEntry>, NonZeroU32);

/// What is said of limits beside a route's filters.
#[derive(Clone, Copy, Debug)]
pub(in crate::xds) struct Around<'a> {
    /// By the route itself.
    pub(in crate::xds) own: &'a [Limit],
    /// By its host.
    pub(in crate::xds) host: &'a [Limit],
    /// Whether those of the host count beside its own.
    pub(in crate::xds) both: bool,
    /// Whether its requests are sent on.
    pub(in crate::xds) sent: bool,
}

impl Around<'_> {
    /// Nothing.
    #[cfg(test)]
    pub(super) const NONE: Self = Self { own: &[], host: &[], both: false, sent: true };

    /// What counts: as in Envoy those of the host do where the route has none.
    fn together(self, option: VhRateLimitsOptions) -> Vec<Limit> {
        let Self { own, host, both, sent: _ } = self;
        match (both, option) {
            (true, _) | (_, VhRateLimitsOptions::Include) => [own, host].concat(),
            (false, VhRateLimitsOptions::Override) if own.is_empty() => host.to_vec(),
            (false, VhRateLimitsOptions::Override | VhRateLimitsOptions::Ignore) => own.to_vec(),
        }
    }
}

/// What is counted, and by whom: Envoy says the first at the route and the second at the listener.
///
/// As in Envoy, what is not sent on counts as nothing, but where it is ours to say that it does.
pub(super) fn of_route(
    cx: &mut Cx,
    (counted, ours): (Option<RateLimitPerRoute>, (Option<ext::GlobalRateLimit>, bool)),
    around: Around<'_>,
) -> Option<Option<GlobalRateLimit>> {
    let (service, counts_answers) = ours;
    if counted.is_none() && (service.is_some() || counts_answers) {
        return cx.fail("typed_per_filter_config", "what a service counts is said by a RateLimitPerRoute");
    }
    let RateLimitPerRoute { vh_rate_limits, domain, rate_limits } = counted.unwrap_or_default();
    let option = VhRateLimitsOptions::try_from(vh_rate_limits).unwrap_or_default();
    let here = cx.within("typed_per_filter_config", |cx| limits(cx, "rate_limits", rate_limits))?;
    if !around.sent && !counts_answers && service.is_none() {
        return Some(None);
    }
    // What stands there stands in place of all others.
    let limits = if here.is_empty() { around.together(option) } else { here };
    let hits = limits.first().map(|(_, hits)| *hits);
    if limits.iter().any(|(_, of_this)| Some(*of_this) != hits) {
        return cx.fail("route.rate_limits", format!("beside those of its host, {SAME}"));
    }
    cx.within("typed_per_filter_config", |cx| {
        let service = match service {
            Some(service) => Some(self::service(cx, domain, service)?),
            None if !domain.is_empty() => {
                return cx.fail("domain", "the listener says where its service counts");
            }
            None if limits.is_empty() => return Some(None),
            None => None,
        };
        let hits = cx.required("rate_limits", hits)?;
        let descriptors = limits.into_iter().map(|(entries, _)| entries).collect();
        Some(Some(GlobalRateLimit { service, descriptors, hits }))
    })
}

fn service(cx: &mut Cx, domain: String, service: ext::GlobalRateLimit) -> Option<RateLimitService> {
    if domain.is_empty() {
        return cx.fail("domain", "this is empty");
    }
    let ext::GlobalRateLimit { cluster, timeout, allow_on_failure, cache } = service;
    let cluster = Name::new(&cluster).or_else(|| cx.fail("cluster", "this is not the name of a cluster"));
    let on_failure = if allow_on_failure { OnFailure::Allow } else { OnFailure::Deny };
    if cache > MOST {
        return cx.fail("cache", format!("it is {MOST} at the most"));
    }
    let timeout = cx.time("timeout", timeout)?;
    let timeout = cx.required("timeout", timeout)?;
    Some(RateLimitService { cluster: cluster?, domain: domain.into(), timeout, on_failure, cache })
}

/// What requests count as, in a list.
pub(in crate::xds) fn limits(cx: &mut Cx, field: &str, limits: Vec<route::RateLimit>) -> Option<Vec<Limit>> {
    let limits = cx.each(field, limits, descriptor)?;
    let differ = limits.iter().zip(limits.iter().skip(1)).any(|((_, one), (_, next))| one != next);
    if differ { cx.fail(field, SAME) } else { Some(limits) }
}

fn descriptor(cx: &mut Cx, limit: route::RateLimit) -> Option<Limit> {
    // There is no runtime that could disable it.
    let route::RateLimit { stage, disable_key: _, actions, hits_addend } = limit;
    if stage.is_some_and(|stage| stage != 0) {
        return cx.fail("stage", "0 alone is supported");
    }
    let number = hits_addend.and_then(|route::rate_limit::HitsAddend { number }| number).unwrap_or(1);
    let hits = u32::try_from(number).ok().filter(|hits| *hits <= MOST).and_then(NonZeroU32::new);
    let hits = hits.or_else(|| cx.fail("hits_addend.number", format!("it is between 1 and {MOST}")))?;
    if actions.is_empty() {
        return cx.fail("actions", "there is none");
    }
    let entries = cx.each("actions", actions, |cx, route::rate_limit::Action { action_specifier }| {
        let action = cx.required("action_specifier", action_specifier)?;
        entry(cx, action)
    })?;
    Some((entries, hits))
}

fn entry(cx: &mut Cx, action: ActionSpecifier) -> Option<DescriptorEntry> {
    match action {
        ActionSpecifier::RemoteAddress(pb::RemoteAddress {}) => Some(DescriptorEntry::Source),
        ActionSpecifier::SourceCluster(pb::SourceCluster {}) => Some(DescriptorEntry::SourceCluster),
        ActionSpecifier::DestinationCluster(pb::DestinationCluster {}) => {
            Some(DescriptorEntry::DestinationCluster)
        }
        ActionSpecifier::RequestHeaders(action) => cx.within("request_headers", |cx| {
            let pb::RequestHeaders { header_name, descriptor_key, skip_if_absent } = action;
            let Ok(name) = HeaderName::from_bytes(header_name.as_bytes()) else {
                return cx.fail("header_name", format!("`{header_name}` is not supported"));
            };
            let key = some(cx, "descriptor_key", descriptor_key)?;
            Some(DescriptorEntry::Header { name, key, absent: absent(skip_if_absent) })
        }),
        ActionSpecifier::QueryParameters(action) => cx.within("query_parameters", |cx| {
            let pb::QueryParameters { query_parameter_name, descriptor_key, skip_if_absent } = action;
            let name = some(cx, "query_parameter_name", query_parameter_name);
            let key = some(cx, "descriptor_key", descriptor_key)?;
            Some(DescriptorEntry::Query { name: name?, key, absent: absent(skip_if_absent) })
        }),
        ActionSpecifier::GenericKey(action) => cx.within("generic_key", |cx| {
            let pb::GenericKey { descriptor_value, descriptor_key } = action;
            fixed(cx, (descriptor_key, "generic_key"), descriptor_value, None)
        }),
        ActionSpecifier::HeaderValueMatch(action) => cx.within("header_value_match", |cx| {
            let pb::HeaderValueMatch { descriptor_value, expect_match, headers, descriptor_key } = action;
            let of = OnlyOf::Headers(cx.each("headers", headers, header)?);
            let only = Only { fits: expect_match.unwrap_or(true), of };
            fixed(cx, (descriptor_key, HEADER_MATCH), descriptor_value, Some(only))
        }),
        ActionSpecifier::QueryParameterValueMatch(action) => cx.within("query_parameter_value_match", |cx| {
            let pb::QueryParameterValueMatch {
                descriptor_value,
                expect_match,
                query_parameters,
                descriptor_key,
            } = action;
            let of = OnlyOf::Query(cx.each("query_parameters", query_parameters, decoded_parameter)?);
            let only = Only { fits: expect_match.unwrap_or(true), of };
            fixed(cx, (descriptor_key, QUERY_MATCH), descriptor_value, Some(only))
        }),
    }
}

fn fixed(
    cx: &mut Cx,
    (key, default): (String, &str),
    value: String,
    only: Option<Only>,
) -> Option<DescriptorEntry> {
    let value = some(cx, "descriptor_value", value)?;
    let is_empty = |only: &Only| match &only.of {
        OnlyOf::Headers(all) => all.is_empty(),
        OnlyOf::Query(all) => all.is_empty(),
    };
    if only.as_ref().is_some_and(is_empty) {
        return cx.fail("", "nothing is asked for");
    }
    let key = if key.is_empty() { default.into() } else { key.into() };
    Some(DescriptorEntry::Fixed { key, value, only })
}

fn some(cx: &mut Cx, field: &str, text: String) -> Option<Box<str>> {
    if text.is_empty() { cx.fail(field, "this is empty") } else { Some(text.into()) }
}

fn absent(skips: bool) -> Absent {
    if skips { Absent::Entry } else { Absent::Descriptor }
}
