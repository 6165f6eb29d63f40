//! Whether a request is worth another attempt, whether one may be made, and how long to wait before it. What an attempt
//! came to is plain facts here; `http/layers/retry` makes the attempts.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use outrigger_proto::model::{Backoff, Retry, RetryCondition};

/// A server that wants to be left alone for longer than this is left alone: its answer is passed on.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(5);

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No connection.
    NoConnection,
    /// The upstream said that it did not look at the request.
    NotLookedAt,
    /// The connection or the stream ended without a response.
    NoResponse,
    /// `per_try_timeout` ran out.
    TooSlow,
    /// A response.
    Response {
        /// Its status.
        status: StatusCode,
        /// Its gRPC status, where that is known and not 0.
        grpc: Option<u8>,
    },
    /// What we ourselves refused, or what another attempt cannot mend.
    Final,
}

/// Why a request that was worth another attempt did not get one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// It may have been processed, and doing it twice may not be the same as once.
    NotIdempotent,
    /// It has had all its attempts.
    Attempts,
    /// The cluster's retry budget is empty.
    Budget,
    /// The cluster has as many retries in flight as `circuit_breaker.max_retries` allows.
    MaxRetries,
    /// Its body is larger than what is kept of it.
    BodyTooLarge,
    /// The wait would have gone past its deadline.
    Deadline,
    /// Whoever answered has tried again already: retries of retries multiply.
    RetriedBelow,
    /// We have more to do than we have room for.
    Overload,
    /// The server asked for a longer wait than a client should be made to have.
    RetryAfter,
}

impl Skipped {
    /// A short name, for metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotIdempotent => "not_idempotent",
            Self::Attempts => "attempts",
            Self::Budget => "budget",
            Self::MaxRetries => "max_retries",
            Self::BodyTooLarge => "body_too_large",
            Self::Deadline => "deadline",
            Self::RetriedBelow => "retried_below",
            Self::Overload => "overload",
            Self::RetryAfter => "retry_after",
        }
    }
}

/// Whether another attempt is wanted: `None` when not, an error when it is and must not be made.
pub fn judge(policy: &Retry, outcome: Outcome, idempotent: bool) -> Option<Result<(), Skipped>> {
    let mut met = policy.conditions.iter().filter(|condition| is_met(**condition, outcome)).peekable();
    met.peek()?;
    let safe = match outcome {
        // Nobody has seen it.
        Outcome::NoConnection | Outcome::NotLookedAt => true,
        // Every gRPC call is a POST: its method says nothing, and who writes a gRPC status says that calls which end so
        // can be repeated.
        Outcome::Response { .. } if met.any(|met| matches!(met, RetryCondition::Grpc(_))) => true,
        Outcome::NoResponse | Outcome::TooSlow | Outcome::Response { .. } => {
            idempotent || policy.non_idempotent
        }
        Outcome::Final => false,
    };
    Some(if safe { Ok(()) } else { Err(Skipped::NotIdempotent) })
}

fn is_met(condition: RetryCondition, outcome: Outcome) -> bool {
    let status = match outcome {
        Outcome::Response { status, .. } => Some(status.as_u16()),
        Outcome::TooSlow => Some(504),
        Outcome::NoConnection | Outcome::NotLookedAt | Outcome::NoResponse | Outcome::Final => None,
    };
    match condition {
        RetryCondition::ConnectFailure => outcome == Outcome::NoConnection,
        RetryCondition::Reset => matches!(outcome, Outcome::NoResponse | Outcome::TooSlow),
        RetryCondition::RefusedStream => outcome == Outcome::NotLookedAt,
        // As in Envoy, no answer is an answer of this class.
        RetryCondition::ServerError => match status {
            Some(status) => (500..600).contains(&status),
            None => outcome != Outcome::Final,
        },
        RetryCondition::GatewayError => matches!(status, Some(502..=504)),
        RetryCondition::Retriable4xx => status == Some(409),
        RetryCondition::Status(wanted) => status == Some(wanted.as_u16()),
        RetryCondition::Grpc(wanted) => {
            matches!(outcome, Outcome::Response { grpc: Some(code), .. } if code == wanted)
        }
    }
}

/// Whether gRPC statuses are to be looked for.
pub fn wants_grpc(policy: &Retry) -> bool {
    policy.conditions.iter().any(|condition| matches!(condition, RetryCondition::Grpc(_)))
}

/// The wait before the `n`-th further attempt (from 1): anything up to a bound that doubles each time, so that those who
/// failed together do not come back together (full jitter).
pub fn wait(backoff: Backoff, n: u32, random: u64) -> Duration {
    let Backoff { base, max } = backoff;
    let bound = base.saturating_mul(1_u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX)).min(max);
    bound.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}

/// How long a response asks to be left alone (RFC 9110 section 10.2.3), if it does.
///
/// # Errors
/// [`Skipped::RetryAfter`] when that is too long to wait for.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Result<Duration, Skipped> {
    let Some(value) = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()) else {
        return Ok(Duration::ZERO);
    };
    let wait = match value.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        // A date that cannot be read asks for nothing.
        Err(_) => httpdate::parse_http_date(value.trim())
            .map_or(Duration::ZERO, |date| date.duration_since(now).unwrap_or_default()),
    };
    if wait <= MOST_RETRY_AFTER { Ok(wait) } else { Err(Skipped::RetryAfter) }
}

/// A gRPC status out of a head or trailers; `None` when there is none, or it is 0.
pub fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    let status: u8 = headers.get("grpc-status").map(HeaderValue::as_bytes).and_then(number)?;
    (status != 0).then_some(status)
}

fn number(text: &[u8]) -> Option<u8> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, grpc: u8) -> Outcome {
        let status = StatusCode::from_u16(status).unwrap();
        Outcome::Response { status, grpc: (grpc != 0).then_some(grpc) }
    }

    #[track_caller]
    fn check(conditions: &[RetryCondition], outcome: Outcome, expected: [Option<Result<(), Skipped>>; 2]) {
        let policy = Retry { conditions: conditions.to_vec(), ..Retry::default() };
        let found = [judge(&policy, outcome, true), judge(&policy, outcome, false)];
        assert_eq!(found, expected, "{conditions:?} {outcome:?}");
    }

    #[test]
    fn conditions() {
        use RetryCondition::*;
        const ALWAYS: [Option<Result<(), Skipped>>; 2] = [Some(Ok(())), Some(Ok(()))];
        const IDEMPOTENT: [Option<Result<(), Skipped>>; 2] =
            [Some(Ok(())), Some(Err(Skipped::NotIdempotent))];
        const NEVER: [Option<Result<(), Skipped>>; 2] = [None, None];
        let teapot = StatusCode::IM_A_TEAPOT;
        check(&[ConnectFailure], Outcome::NoConnection, ALWAYS);
        check(&[ConnectFailure], Outcome::NoResponse, NEVER);
        check(&[RefusedStream], Outcome::NotLookedAt, ALWAYS);
        check(&[Reset], Outcome::NotLookedAt, NEVER);
        check(&[Reset], Outcome::NoResponse, IDEMPOTENT);
        check(&[Reset], Outcome::TooSlow, IDEMPOTENT);
        check(&[GatewayError], Outcome::TooSlow, IDEMPOTENT);
        check(&[GatewayError], Outcome::NoResponse, NEVER);
        check(&[GatewayError], response(503, 0), IDEMPOTENT);
        check(&[GatewayError], response(500, 0), NEVER);
        check(&[ServerError], response(500, 0), IDEMPOTENT);
        check(&[ServerError], response(404, 0), NEVER);
        check(&[ServerError], Outcome::NoConnection, ALWAYS);
        check(&[ServerError], Outcome::NoResponse, IDEMPOTENT);
        check(&[ServerError, Reset, ConnectFailure], Outcome::Final, NEVER);
        check(&[Retriable4xx], response(409, 0), IDEMPOTENT);
        check(&[Retriable4xx], response(429, 0), NEVER);
        check(&[Status(teapot)], response(418, 0), IDEMPOTENT);
        check(&[Grpc(14)], response(200, 14), ALWAYS);
        check(&[Grpc(14)], response(200, 13), NEVER);
        check(&[Status(StatusCode::OK), Grpc(14)], response(200, 13), IDEMPOTENT);
        check(&[], response(503, 14), NEVER);
    }

    #[test]
    fn told_so_what_is_not_idempotent_is_sent_again() {
        let policy = Retry { non_idempotent: true, ..Retry::default() };
        assert_eq!(judge(&policy, response(503, 0), false), Some(Ok(())));
    }

    #[test]
    fn waits_double_up_to_their_bound() {
        let backoff = Backoff { base: Duration::from_millis(25), max: Duration::from_millis(250) };
        for (n, bound) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (40, 250)] {
            let longest = wait(backoff, n, u64::MAX);
            let bound = Duration::from_millis(bound);
            assert!(longest <= bound && longest > bound.mul_f64(0.99), "{n}: {longest:?}");
            assert_eq!(wait(backoff, n, 0), Duration::ZERO);
        }
    }

    #[test]
    fn servers_may_ask_for_a_wait() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let rows = [
            (None, Ok(0)),
            (Some("2"), Ok(2)),
            (Some(" 0 "), Ok(0)),
            (Some("6"), Err(Skipped::RetryAfter)),
            (Some("Sun, 06 Nov 1994 08:49:40 GMT"), Ok(3)),
            (Some("Sun, 06 Nov 1994 08:49:30 GMT"), Ok(0)),
            (Some("Sun, 06 Nov 1994 09:49:37 GMT"), Err(Skipped::RetryAfter)),
            (Some("soon"), Ok(0)),
        ];
        for (value, expected) in rows {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static(value));
            }
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{value:?}");
        }
    }

    #[test]
    fn grpc_statuses() {
        for (value, expected) in [("14", Some(14)), ("0", None), ("", None), ("999", None), ("x", None)] {
            let headers = HeaderMap::from_iter([(
                header::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static(value),
            )]);
            assert_eq!(grpc_status(&headers), expected, "{value:?}");
        }
        assert_eq!(grpc_status(&HeaderMap::new()), None);
    }
}
