//! Limits that are counted here.

use std::num::NonZeroU32;
use std::time::Duration;

use http::HeaderName;

use super::super::cx::Cx;
use super::super::generated::envoy::config::core::v3::RuntimeFractionalPercent;
use super::super::generated::envoy::extensions::filters::http::local_ratelimit::v3 as pb;
use super::super::generated::envoy::r#type::v3::TokenBucket;
use super::super::generated::outrigger::extensions::v1 as ext;
use super::fault::percent;
use crate::model::{LimitKey, Percent, RateLimit};

/// Times in which tokens come, shortest first.
const TIMES: [u64; 3] = [1, 60, 3600];
/// Tokens, at the most: as in a file.
const MOST: u32 = 1_000_000_000;
/// Buckets, at the most: as in a file.
const MOST_KEYS: u32 = 1_000_000;

/// That of a listener, which only makes room for those of routes.
pub(super) fn filter(cx: &mut Cx, filter: pb::LocalRateLimit) -> Option<()> {
    // The prefix is for Envoy's metrics; without a bucket there is nothing to turn on.
    let pb::LocalRateLimit { stat_prefix: _, token_bucket, filter_enabled: _, filter_enforced: _ } = filter;
    if token_bucket.is_some() {
        return cx.fail("token_bucket", "limits are a route's: write them in its `typed_per_filter_config`");
    }
    Some(())
}

pub(super) fn of_route(cx: &mut Cx, limit: pb::LocalRateLimit) -> Option<Option<RateLimit>> {
    let pb::LocalRateLimit { stat_prefix: _, token_bucket, filter_enabled, filter_enforced } = limit;
    let bucket = cx.required("token_bucket", token_bucket)?;
    let is_on = all_or_none(cx, "filter_enabled", filter_enabled)?
        & all_or_none(cx, "filter_enforced", filter_enforced)?;
    let limit = cx.within("token_bucket", |cx| of_bucket(cx, bucket))?;
    Some(is_on.then_some(limit))
}

fn all_or_none(cx: &mut Cx, field: &str, share: Option<RuntimeFractionalPercent>) -> Option<bool> {
    let RuntimeFractionalPercent { default_value, runtime_key: _ } = share.unwrap_or_default();
    match percent(cx, &format!("{field}.default_value"), default_value)? {
        Percent::ZERO => Some(false),
        Percent::ALL => Some(true),
        _ => cx.fail(field, "it is all or none"),
    }
}

/// Tokens that come in a time of another length are as many in a second, a minute or an hour.
fn of_bucket(cx: &mut Cx, bucket: TokenBucket) -> Option<RateLimit> {
    let TokenBucket { max_tokens, tokens_per_fill, fill_interval } = bucket;
    let some = |number: u32| NonZeroU32::new(number).filter(|_| number <= MOST);
    let burst = some(max_tokens).or_else(|| cx.fail("max_tokens", format!("it is between 1 and {MOST}")));
    let per_fill = some(tokens_per_fill.unwrap_or(1))
        .or_else(|| cx.fail("tokens_per_fill", format!("it is between 1 and {MOST}")));
    let interval = cx.time("fill_interval", fill_interval)?;
    let interval = cx.required("fill_interval", interval)?;
    let (burst, per_fill) = (burst?, per_fill?);
    let scaled = |seconds: u64| {
        let every = Duration::from_secs(seconds);
        let tokens = u128::from(per_fill.get()) * every.as_nanos();
        let whole = (tokens.is_multiple_of(interval.as_nanos())).then(|| tokens / interval.as_nanos())?;
        Some((some(u32::try_from(whole).ok()?)?, every))
    };
    let as_said = TIMES.into_iter().find(|seconds| Duration::from_secs(*seconds) == interval);
    let Some((tokens, every)) = as_said.into_iter().chain(TIMES).find_map(scaled) else {
        return cx.fail("fill_interval", "that is no whole number in a second, a minute or an hour");
    };
    Some(RateLimit { tokens, every, burst, per: LimitKey::All, keys: RateLimit::KEYS })
}

/// One that is counted by caller.
pub(super) fn of_caller(cx: &mut Cx, limit: ext::RateLimit) -> Option<RateLimit> {
    cx.within(format_args!("typed_per_filter_config[{}].rate_limit", super::super::any::OURS), |cx| {
        use ext::rate_limit::Per;
        let ext::RateLimit { tokens, every, burst, keys, per } = limit;
        let some = |cx: &mut Cx, field: &str, number: u32, most: u32| {
            let number = NonZeroU32::new(number).filter(|number| number.get() <= most);
            number.or_else(|| cx.fail(field, format!("it is between 1 and {most}")))
        };
        let per = match per {
            None => LimitKey::All,
            Some(Per::Header(name)) => match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => LimitKey::Header(name),
                Err(_) => return cx.fail("header", format!("`{name}` is not a header name")),
            },
            Some(Per::Source(true)) => LimitKey::Source,
            Some(Per::Identity(true)) => LimitKey::Identity,
            Some(Per::Source(false) | Per::Identity(false)) => return cx.fail("per", "it can only be true"),
        };
        if !TIMES.contains(&every.into()) {
            return cx.fail("every", "it is 1, 60 or 3600");
        }
        Some(RateLimit {
            tokens: some(cx, "tokens", tokens, MOST)?,
            every: Duration::from_secs(every.into()),
            burst: some(cx, "burst", burst, MOST)?,
            per,
            keys: some(cx, "keys", keys, MOST_KEYS)?,
        })
    })
}
