//! Limits of requests: those that are counted here, and those that a service counts.

use super::super::super::generated::envoy::config::core::v3::RuntimeFractionalPercent;
use super::super::super::generated::envoy::config::route::v3 as route;
use super::super::super::generated::envoy::config::route::v3::rate_limit::action::{
    ActionSpecifier, GenericKey, RemoteAddress, RequestHeaders,
};
use super::super::super::generated::envoy::extensions::filters::http::local_ratelimit::v3 as local;
use super::super::super::generated::envoy::extensions::filters::http::ratelimit::v3::RateLimitPerRoute;
use super::super::super::generated::envoy::r#type::v3::fractional_percent::DenominatorType;
use super::super::super::generated::envoy::r#type::v3::{FractionalPercent, TokenBucket};
use super::super::super::generated::outrigger::extensions::v1 as ext;
use super::super::listener::time;
use crate::model::{DescriptorEntry, GlobalRateLimit, LimitKey, OnFailure, RateLimit};

/// For metrics of Envoy's, which wants one.
const STATS: &str = "rate_limit";

/// A limit that limits nothing.
pub(super) fn none() -> local::LocalRateLimit {
    local::LocalRateLimit { stat_prefix: STATS.to_owned(), ..local::LocalRateLimit::default() }
}

/// One of all requests together; none where it is counted by caller.
pub(super) fn of_all(limit: &RateLimit) -> Option<local::LocalRateLimit> {
    let RateLimit { tokens, every, burst, per, keys } = limit;
    if *per != LimitKey::All || *keys != RateLimit::KEYS {
        return None;
    }
    let all = || {
        let default_value =
            FractionalPercent { numerator: 100, denominator: DenominatorType::Hundred.into() };
        Some(RuntimeFractionalPercent { default_value: Some(default_value), runtime_key: String::new() })
    };
    let bucket = TokenBucket {
        max_tokens: burst.get(),
        tokens_per_fill: Some(tokens.get()),
        fill_interval: time(*every),
    };
    Some(local::LocalRateLimit {
        token_bucket: Some(bucket),
        filter_enabled: all(),
        filter_enforced: all(),
        ..none()
    })
}

pub(super) fn of_caller(limit: &RateLimit) -> ext::RateLimit {
    use ext::rate_limit::Per;
    let RateLimit { tokens, every, burst, per, keys } = limit;
    let per = match per {
        LimitKey::All => None,
        LimitKey::Header(name) => Some(Per::Header(name.to_string())),
        LimitKey::Source => Some(Per::Source(true)),
        LimitKey::Identity => Some(Per::Identity(true)),
    };
    // Never more than an hour.
    let every = u32::try_from(every.as_secs()).unwrap_or(u32::MAX);
    ext::RateLimit { tokens: tokens.get(), every, burst: burst.get(), per, keys: keys.get() }
}

/// What is counted, and who counts.
pub(super) fn of_service(limit: &GlobalRateLimit) -> (RateLimitPerRoute, ext::GlobalRateLimit) {
    let GlobalRateLimit { cluster, domain, descriptors, timeout, on_failure, hits, cache } = limit;
    // One is what is counted anyway.
    let number = (hits.get() > 1).then(|| hits.get().into());
    let hits_addend = number.map(|number| route::rate_limit::HitsAddend { number: Some(number) });
    let rate_limit = |entries: &Vec<DescriptorEntry>| route::RateLimit {
        actions: entries.iter().map(action).collect(),
        hits_addend,
    };
    let rate_limits = descriptors.iter().map(rate_limit).collect();
    let service = ext::GlobalRateLimit {
        cluster: cluster.to_string(),
        timeout: time(*timeout),
        allow_on_failure: *on_failure == OnFailure::Allow,
        cache: *cache,
    };
    (RateLimitPerRoute { domain: domain.to_string(), rate_limits }, service)
}

fn action(entry: &DescriptorEntry) -> route::rate_limit::Action {
    let specifier = match entry {
        DescriptorEntry::Source => ActionSpecifier::RemoteAddress(RemoteAddress {}),
        DescriptorEntry::Header(name) => ActionSpecifier::RequestHeaders(RequestHeaders {
            header_name: name.to_string(),
            descriptor_key: name.to_string(),
        }),
        DescriptorEntry::Fixed { key, value } => ActionSpecifier::GenericKey(GenericKey {
            descriptor_value: value.to_string(),
            descriptor_key: key.to_string(),
        }),
    };
    route::rate_limit::Action { action_specifier: Some(specifier) }
}
