//! When a request is sent again, or twice at once.

use std::num::NonZeroU32;
use std::time::Duration;

use ::http::StatusCode;

use super::super::cx::Cx;
use super::super::generated::envoy::config::route::v3 as pb;
use crate::model::{Backoff, Hedge, HedgeAfter, Retry, RetryCondition};

/// What a connection of Envoy's keeps of a body where nothing is written.
pub(in super::super) const MAX_BODY: u64 = 1 << 20;
/// The first wait where none is written.
const BASE: Duration = Duration::from_millis(25);
/// The longest wait is so many times the first, where none is written.
const GROWTH: u32 = 10;

/// The waits where none are written.
pub(in super::super) fn default_backoff() -> Backoff {
    Backoff { base: BASE, max: BASE * GROWTH }
}

/// What is passed over by a further attempt.
pub(in super::super) const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";
/// The word that makes statuses count.
pub(in super::super) const STATUSES: &str = "retriable-status-codes";

/// All conditions that Envoy has a word for, statuses apart.
const WORDED: [RetryCondition; 11] = [
    RetryCondition::ServerError,
    RetryCondition::GatewayError,
    RetryCondition::ConnectFailure,
    RetryCondition::RefusedStream,
    RetryCondition::Reset,
    RetryCondition::Retriable4xx,
    RetryCondition::Grpc(1),
    RetryCondition::Grpc(4),
    RetryCondition::Grpc(8),
    RetryCondition::Grpc(13),
    RetryCondition::Grpc(14),
];

/// The word for a condition, if Envoy has one.
pub(in super::super) fn word(condition: RetryCondition) -> Option<&'static str> {
    Some(match condition {
        RetryCondition::ServerError => "5xx",
        RetryCondition::GatewayError => "gateway-error",
        RetryCondition::ConnectFailure => "connect-failure",
        RetryCondition::RefusedStream => "refused-stream",
        RetryCondition::Reset => "reset",
        RetryCondition::Retriable4xx => "retriable-4xx",
        RetryCondition::Status(_) => STATUSES,
        RetryCondition::Grpc(1) => "cancelled",
        RetryCondition::Grpc(4) => "deadline-exceeded",
        RetryCondition::Grpc(8) => "resource-exhausted",
        RetryCondition::Grpc(13) => "internal",
        RetryCondition::Grpc(14) => "unavailable",
        RetryCondition::Grpc(_) => return None,
    })
}

/// The condition of a word.
fn worded(text: &str) -> Option<RetryCondition> {
    WORDED.into_iter().find(|condition| word(*condition) == Some(text))
}

/// A condition in our own words, which say neither more nor less.
pub(in super::super) fn exact_word(condition: RetryCondition) -> String {
    match (condition, word(condition)) {
        (RetryCondition::Status(status), _) => format!("status-{}", status.as_u16()),
        (RetryCondition::Grpc(code), _) => format!("grpc-{code}"),
        (_, word) => word.expect("Envoy has one for all others").to_owned(),
    }
}

/// A condition in our own words.
pub(super) fn exactly(text: &str) -> Option<RetryCondition> {
    if let Some(status) = text.strip_prefix("status-") {
        return StatusCode::from_bytes(status.as_bytes()).ok().map(RetryCondition::Status);
    }
    if let Some(code) = text.strip_prefix("grpc-") {
        return code.parse().ok().filter(|code| (1..=16).contains(code)).map(RetryCondition::Grpc);
    }
    worded(text)
}

/// What the words of `retry_on` come to, each condition once.
///
/// # Errors
/// The word that is not supported.
pub(in super::super) fn conditions(
    retry_on: &str,
    statuses: &[StatusCode],
) -> Result<Vec<RetryCondition>, String> {
    use RetryCondition as C;
    let mut all = Vec::new();
    for word in retry_on.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word {
            // Whoever gave no answer at all is as bad as a gateway that says so: Envoy has it so.
            "gateway-error" => all.extend([C::GatewayError, C::ConnectFailure, C::RefusedStream, C::Reset]),
            "reset" => all.extend([C::Reset, C::ConnectFailure, C::RefusedStream]),
            // Before anything of the request is sent nothing is there but the connection.
            "reset-before-request" => all.push(C::ConnectFailure),
            // Of HTTP/3, which is not spoken.
            "http3-post-connect-failure" => {}
            STATUSES => all.extend(statuses.iter().copied().map(C::Status)),
            word => all.push(worded(word).ok_or_else(|| word.to_owned())?),
        }
    }
    let mut seen = Vec::new();
    all.retain(|condition| {
        let first = !seen.contains(condition);
        seen.push(*condition);
        first
    });
    Ok(all)
}

/// A policy; one without conditions retries nothing.
pub(super) fn retry(cx: &mut Cx, policy: pb::RetryPolicy, max_body: Option<u64>) -> Option<Retry> {
    let pb::RetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        retry_host_predicate,
        host_selection_retry_max_attempts: _,
        retriable_status_codes,
        retry_back_off,
    } = policy;
    let statuses = cx.each("retriable_status_codes", retriable_status_codes, |cx, status| {
        let status = u16::try_from(status).ok().filter(|status| (100..600).contains(status));
        status
            .and_then(|status| StatusCode::from_u16(status).ok())
            .or_else(|| cx.fail("", "this is not a status"))
    });
    let conditions = statuses.and_then(|statuses| match conditions(&retry_on, &statuses) {
        Ok(conditions) => Some(conditions),
        Err(word) => cx.fail("retry_on", format!("`{word}` is not supported")),
    });
    let per_try_timeout = cx.time("per_try_timeout", per_try_timeout);
    let hosts = cx.each("retry_host_predicate", retry_host_predicate, |cx, predicate| {
        let pb::retry_policy::RetryHostPredicate { name, config_type } = predicate;
        let named = config_type.is_some() || name == PREVIOUS_HOSTS;
        if named { Some(()) } else { cx.fail("name", format!("`{name}` is not supported")) }
    });
    let backoff = match retry_back_off {
        None => Some(default_backoff()),
        Some(waits) => cx.within("retry_back_off", |cx| backoff(cx, waits)),
    };
    hosts?;
    Some(Retry {
        attempts: NonZeroU32::MIN.saturating_add(num_retries.unwrap_or(1)),
        conditions: conditions?,
        per_try_timeout: per_try_timeout?,
        backoff: backoff?,
        // Whatever the method: who asks for retries there, means all.
        non_idempotent: true,
        max_body: max_body.unwrap_or(MAX_BODY),
    })
}

fn backoff(cx: &mut Cx, waits: pb::retry_policy::RetryBackOff) -> Option<Backoff> {
    let pb::retry_policy::RetryBackOff { base_interval, max_interval } = waits;
    let Some(base) = cx.time("base_interval", base_interval)? else {
        return cx.fail("base_interval", "this is zero, or missing");
    };
    let written = max_interval.is_some();
    match cx.time("max_interval", max_interval)? {
        Some(max) if max < base => cx.fail("max_interval", "this is below `base_interval`"),
        Some(max) => Some(Backoff { base, max }),
        None if written => cx.fail("max_interval", "this is zero"),
        None => Some(Backoff { base, max: base.saturating_mul(GROWTH) }),
    }
}

/// A second attempt when the time of the first has run out: that one is not given up then.
pub(super) fn hedge(
    cx: &mut Cx,
    policy: pb::HedgePolicy,
    retry: Option<&mut Retry>,
) -> Option<Option<Hedge>> {
    let pb::HedgePolicy { initial_requests, hedge_on_per_try_timeout } = policy;
    if initial_requests.is_some_and(|requests| requests != 1) {
        return cx.fail("initial_requests", "a request is sent once at first");
    }
    // It is one of the further attempts: without any there is none.
    let retry = retry.filter(|retry| hedge_on_per_try_timeout && retry.attempts > NonZeroU32::MIN);
    let after = retry.and_then(|retry| retry.per_try_timeout.take());
    Some(after.map(|after| Hedge { after: HedgeAfter::Fixed(after) }))
}
