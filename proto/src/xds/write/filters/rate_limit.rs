//! Limits of requests that a service counts.

use super::super::super::filters::rate_limit::{HEADER_MATCH, QUERY_MATCH};
use super::super::super::generated::envoy::config::core::v3 as core;
use super::super::super::generated::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use super::super::super::generated::envoy::config::ratelimit::v3::RateLimitServiceConfig;
use super::super::super::generated::envoy::config::route::v3 as route;
use super::super::super::generated::envoy::config::route::v3::rate_limit::action as pb;
use super::super::super::generated::envoy::config::route::v3::rate_limit::action::ActionSpecifier;
use super::super::super::generated::envoy::extensions::filters::http::ratelimit::v3 as ratelimit;
use super::super::super::generated::envoy::r#type::v3::HttpStatus;
use super::super::super::generated::outrigger::extensions::v1 as ext;
use super::super::listener::time;
use super::super::route::{decoded_parameter, header};
use crate::model::{Absent, DescriptorEntry, GlobalRateLimit, OnFailure, Only, OnlyOf, RateLimitService};

/// Of a listener.
pub(super) fn filter(service: &RateLimitService, remembered: &mut u32) -> ratelimit::RateLimit {
    let RateLimitService { cluster, domain, timeout, on_failure, cache } = service;
    *remembered = *cache;
    let target = TargetSpecifier::EnvoyGrpc(EnvoyGrpc { cluster_name: cluster.to_string() });
    ratelimit::RateLimit {
        domain: domain.to_string(),
        timeout: time(*timeout),
        failure_mode_deny: *on_failure == OnFailure::Deny,
        rate_limit_service: Some(RateLimitServiceConfig {
            grpc_service: Some(core::GrpcService { target_specifier: Some(target), timeout: None }),
            transport_api_version: core::ApiVersion::V3.into(),
        }),
        // As it is here.
        rate_limited_as_resource_exhausted: true,
        disable_x_envoy_ratelimited_header: true,
        status_on_error: Some(HttpStatus { code: 503 }),
        ..ratelimit::RateLimit::default()
    }
}

/// What is counted, and who counts, where it is not the listener's service.
pub(super) fn of_route(
    limit: &GlobalRateLimit,
) -> (ratelimit::RateLimitPerRoute, Option<ext::GlobalRateLimit>) {
    let GlobalRateLimit { service, descriptors, hits } = limit;
    // One is what is counted anyway.
    let number = (hits.get() > 1).then(|| hits.get().into());
    let hits_addend = number.map(|number| route::rate_limit::HitsAddend { number: Some(number) });
    let rate_limit = |entries: &Vec<DescriptorEntry>| route::RateLimit {
        actions: entries.iter().map(action).collect(),
        hits_addend,
        ..route::RateLimit::default()
    };
    let domain = service.as_ref().map(|service| service.domain.to_string()).unwrap_or_default();
    let service = service.as_ref().map(|service| {
        let RateLimitService { cluster, domain: _, timeout, on_failure, cache } = service;
        ext::GlobalRateLimit {
            cluster: cluster.to_string(),
            timeout: time(*timeout),
            allow_on_failure: *on_failure == OnFailure::Allow,
            cache: *cache,
        }
    });
    let rate_limits = descriptors.iter().map(rate_limit).collect();
    (ratelimit::RateLimitPerRoute { domain, rate_limits, ..ratelimit::RateLimitPerRoute::default() }, service)
}

fn action(entry: &DescriptorEntry) -> route::rate_limit::Action {
    let skips = |absent: &Absent| match absent {
        Absent::Descriptor => false,
        Absent::Entry => true,
    };
    let specifier = match entry {
        DescriptorEntry::Source => ActionSpecifier::RemoteAddress(pb::RemoteAddress {}),
        DescriptorEntry::SourceCluster => ActionSpecifier::SourceCluster(pb::SourceCluster {}),
        DescriptorEntry::DestinationCluster => ActionSpecifier::DestinationCluster(pb::DestinationCluster {}),
        DescriptorEntry::Header { name, key, absent } => {
            ActionSpecifier::RequestHeaders(pb::RequestHeaders {
                header_name: name.to_string(),
                descriptor_key: key.to_string(),
                skip_if_absent: skips(absent),
            })
        }
        DescriptorEntry::Query { name, key, absent } => {
            ActionSpecifier::QueryParameters(pb::QueryParameters {
                query_parameter_name: name.to_string(),
                descriptor_key: key.to_string(),
                skip_if_absent: skips(absent),
            })
        }
        DescriptorEntry::Fixed { key, value, only } => fixed(key, value, only.as_ref()),
    };
    route::rate_limit::Action { action_specifier: Some(specifier) }
}

fn fixed(key: &str, value: &str, only: Option<&Only>) -> ActionSpecifier {
    let descriptor_value = value.to_owned();
    let key_unless = |default: &str| if key == default { String::new() } else { key.to_owned() };
    let Some(Only { fits, of }) = only else {
        return ActionSpecifier::GenericKey(pb::GenericKey {
            descriptor_value,
            descriptor_key: key.to_owned(),
        });
    };
    let expect_match = (!fits).then_some(false);
    match of {
        OnlyOf::Headers(all) => ActionSpecifier::HeaderValueMatch(pb::HeaderValueMatch {
            descriptor_value,
            expect_match,
            headers: all.iter().map(header).collect(),
            descriptor_key: key_unless(HEADER_MATCH),
        }),
        OnlyOf::Query(all) => ActionSpecifier::QueryParameterValueMatch(pb::QueryParameterValueMatch {
            descriptor_value,
            expect_match,
            query_parameters: all.iter().map(decoded_parameter).collect(),
            descriptor_key: key_unless(QUERY_MATCH),
        }),
    }
}
