//! Limits of requests that are counted here.

use super::super::super::generated::envoy::config::core::v3::RuntimeFractionalPercent;
use super::super::super::generated::envoy::extensions::filters::http::local_ratelimit::v3 as local;
use super::super::super::generated::envoy::r#type::v3::fractional_percent::DenominatorType;
use super::super::super::generated::envoy::r#type::v3::{FractionalPercent, TokenBucket};
use super::super::super::generated::outrigger::extensions::v1 as ext;
use super::super::listener::time;
use crate::model::{LimitKey, RateLimit};

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
