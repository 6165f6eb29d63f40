//! Every answer that is ours and not an upstream's, and why: one enum, one exhaustive mapping.

use std::fmt;

use http::StatusCode;
use outrigger_proto::model::AbortWith;

use crate::body::BodyError;
use crate::policy::bulkhead::Crowd;
use crate::policy::jwt::JwtError;
use crate::policy::limiter::Exceeded;
use crate::routing::RewriteError;
use crate::routing::path::PathError;
use crate::upstream::UpstreamError;

/// Why a request was not answered by an upstream, or its answer broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// The path cannot be understood in one way only.
    Path(PathError),
    /// The host is missing, or there is more than one, or it is not a host.
    Host,
    /// The head breaks the protocol; seen before the request reached the stack.
    Head(&'static str),
    /// The head did not come whole within `limits.header_timeout`.
    HeaderTimeout,
    /// The head is larger than `limits.header_bytes`.
    HeadTooLarge,
    /// The head has more fields than `limits.headers`.
    TooManyHeaders,
    /// The request's target is too long.
    TargetTooLong,
    /// The body is larger than `limits.body`.
    BodyTooLarge,
    /// The process has no room for more (`overload`).
    Overloaded,
    /// No route takes the request.
    NoRoute,
    /// What the route makes of the path cannot be sent on.
    Rewrite(RewriteError),
    /// The control plane has not said in time whether there is one.
    RouteAwaited,
    /// Its token is not good, or there is none.
    Unauthenticated(JwtError),
    /// The listener's `authorization` refuses it. By which rule is for the log alone.
    Denied,
    /// The service of the listener's `external_authorization` refuses it. The answer is that service's.
    DeniedExternally,
    /// That service did not answer, and nobody is let in without its word.
    AuthorizationUnavailable,
    /// The body is larger than what that service is shown.
    AuthorizationBody(u32),
    /// Who asks would not be let in any longer: a policy has changed, or what it has proven is not believed any more.
    Unwelcome,
    /// The route's rate limit was exceeded.
    RateLimited(Exceeded),
    /// The service of the route's global rate limit refused the request.
    RateLimitedGlobally,
    /// That service did not answer, and the route takes nothing without its word.
    RateLimitUnavailable,
    /// The route aborts some requests on purpose.
    FaultAbort(AbortWith),
    /// The route has as many requests under way as its `concurrency.max` allows, and as many in line.
    Crowded(Crowd),
    /// The request waited for its turn for the route's `concurrency.wait`.
    WaitedTooLong(Crowd),
    /// The route's timeout ran out.
    Timeout,
    /// Nothing moved for `limits.idle_timeout`.
    IdleTimeout,
    /// The client went away before its answer was complete.
    ClientGone,
    /// The upstream gave no response.
    Upstream(UpstreamError),
    /// The upstream's response broke off.
    ResponseBroken,
}

/// How an answer of ours looks, and how it is named in logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The status for a gRPC caller.
    pub grpc: GrpcCode,
    /// Envoy's response flag.
    pub flag: &'static str,
    /// A name of its own, for metrics and for `x-outrigger-reason`.
    pub reason: &'static str,
}

/// The gRPC codes that we answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GrpcCode {
    /// CANCELLED.
    Cancelled = 1,
    /// UNKNOWN.
    Unknown = 2,
    /// INVALID_ARGUMENT.
    InvalidArgument = 3,
    /// DEADLINE_EXCEEDED.
    DeadlineExceeded = 4,
    /// NOT_FOUND.
    NotFound = 5,
    /// ALREADY_EXISTS.
    AlreadyExists = 6,
    /// PERMISSION_DENIED.
    PermissionDenied = 7,
    /// RESOURCE_EXHAUSTED.
    ResourceExhausted = 8,
    /// FAILED_PRECONDITION.
    FailedPrecondition = 9,
    /// ABORTED.
    Aborted = 10,
    /// OUT_OF_RANGE.
    OutOfRange = 11,
    /// UNIMPLEMENTED.
    Unimplemented = 12,
    /// INTERNAL.
    Internal = 13,
    /// UNAVAILABLE.
    Unavailable = 14,
    /// DATA_LOSS.
    DataLoss = 15,
    /// UNAUTHENTICATED.
    Unauthenticated = 16,
}

impl GrpcCode {
    /// In the order of their numbers, from 1.
    const ALL: [Self; 16] = [
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The code of this number; one that has no meaning is UNKNOWN, as clients take it.
    fn from_number(number: u8) -> Self {
        let at = usize::from(number).checked_sub(1);
        at.and_then(|at| Self::ALL.get(at)).copied().unwrap_or(Self::Unknown)
    }

    /// What a gRPC client makes of an HTTP status (gRPC's `http-grpc-status-mapping.md`).
    pub fn from_status(status: StatusCode) -> Self {
        match status.as_u16() {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502..=504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }

    /// What another client is told. gRPC has no table for this way; this is that of `google/rpc/code.proto`.
    fn status(self) -> u16 {
        match self {
            Self::Cancelled => 499,
            Self::InvalidArgument | Self::FailedPrecondition | Self::OutOfRange => 400,
            Self::DeadlineExceeded => 504,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::Aborted => 409,
            Self::PermissionDenied => 403,
            Self::ResourceExhausted => 429,
            Self::Unimplemented => 501,
            Self::Unknown | Self::Internal | Self::DataLoss => 500,
            Self::Unavailable => 503,
            Self::Unauthenticated => 401,
        }
    }
}

impl ProxyError {
    /// The answer that the client gets.
    pub fn answer(self) -> Answer {
        let (status, grpc, flag, reason) = match self {
            Self::Path(_) => (400, GrpcCode::Internal, "DPE", "bad_path"),
            Self::Host => (400, GrpcCode::Internal, "DPE", "bad_host"),
            Self::Head(reason) => (400, GrpcCode::Internal, "DPE", reason),
            Self::HeaderTimeout => (408, GrpcCode::DeadlineExceeded, "DT", "header_timeout"),
            Self::HeadTooLarge => (431, GrpcCode::ResourceExhausted, "DPE", "header_bytes"),
            Self::TooManyHeaders => (431, GrpcCode::ResourceExhausted, "DPE", "headers"),
            Self::TargetTooLong => (414, GrpcCode::ResourceExhausted, "DPE", "target_too_long"),
            Self::BodyTooLarge => (413, GrpcCode::ResourceExhausted, "DPE", "body_too_large"),
            Self::Overloaded => (503, GrpcCode::Unavailable, "OM", "overload"),
            Self::NoRoute => (404, GrpcCode::Unimplemented, "NR", "no_route"),
            Self::RouteAwaited => (503, GrpcCode::Unavailable, "NR", "route_awaited"),
            Self::Rewrite(RewriteError::DotSegment) => {
                (400, GrpcCode::Internal, "DPE", "rewrite_dot_segment")
            }
            Self::Rewrite(RewriteError::NoPath(_)) => (500, GrpcCode::Internal, "NR", "rewrite_no_path"),
            Self::Unauthenticated(error) => (401, GrpcCode::Unauthenticated, "UAEX", error.reason()),
            Self::Denied => (403, GrpcCode::PermissionDenied, "UAEX", "authorization_denied"),
            Self::DeniedExternally => {
                (403, GrpcCode::PermissionDenied, "UAEX", "external_authorization_denied")
            }
            Self::AuthorizationUnavailable => {
                (503, GrpcCode::Unavailable, "UAEX", "external_authorization_unavailable")
            }
            Self::AuthorizationBody(_) => {
                (413, GrpcCode::ResourceExhausted, "UAEX", "external_authorization_body")
            }
            Self::Unwelcome => (403, GrpcCode::PermissionDenied, "UAEX", "authorization_withdrawn"),
            Self::RateLimited(_) => (429, GrpcCode::ResourceExhausted, "RL", "rate_limited"),
            Self::RateLimitedGlobally => (429, GrpcCode::ResourceExhausted, "RL", "rate_limited_globally"),
            Self::RateLimitUnavailable => (503, GrpcCode::Unavailable, "RLSE", "rate_limit_unavailable"),
            Self::FaultAbort(with) => {
                let (status, grpc) = abort(with);
                (status, grpc, "FI", "fault_abort")
            }
            Self::Crowded(_) => (503, GrpcCode::Unavailable, "UO", "concurrency"),
            Self::WaitedTooLong(_) => (503, GrpcCode::Unavailable, "UO", "concurrency_wait"),
            Self::Timeout => (504, GrpcCode::DeadlineExceeded, "UT", "timeout"),
            Self::IdleTimeout => (504, GrpcCode::DeadlineExceeded, "SI", "idle_timeout"),
            Self::ClientGone => (499, GrpcCode::Cancelled, "DC", "client_gone"),
            Self::Upstream(error) => return upstream(error),
            Self::ResponseBroken => (502, GrpcCode::Unavailable, "UC", "response_broken"),
        };
        answer(status, grpc, flag, reason)
    }

    /// The name of the limit that was hit, if one was.
    pub fn limit(self) -> Option<&'static str> {
        match self {
            Self::HeaderTimeout => Some("header_timeout"),
            Self::HeadTooLarge => Some("header_bytes"),
            Self::TooManyHeaders => Some("headers"),
            Self::BodyTooLarge => Some("body"),
            Self::IdleTimeout => Some("idle_timeout"),
            Self::Upstream(UpstreamError::Overflow(overflow) | UpstreamError::NoConnectionFree(overflow)) => {
                Some(overflow.key())
            }
            Self::Upstream(UpstreamError::TooManyEndpoints(_)) => Some("max_endpoints"),
            Self::RateLimited(_) => Some("rate_limit"),
            Self::RateLimitedGlobally => Some("global_rate_limit"),
            Self::Crowded(_) | Self::WaitedTooLong(_) => Some("concurrency"),
            Self::Path(_) | Self::Host | Self::Head(_) | Self::TargetTooLong | Self::NoRoute => None,
            Self::RouteAwaited | Self::Rewrite(_) => None,
            Self::AuthorizationBody(_) => Some("external_authorization_body"),
            Self::Unauthenticated(_) | Self::Denied | Self::Unwelcome => None,
            Self::DeniedExternally | Self::AuthorizationUnavailable => None,
            Self::Overloaded | Self::FaultAbort(_) | Self::Timeout | Self::RateLimitUnavailable => None,
            Self::ClientGone | Self::Upstream(_) | Self::ResponseBroken => None,
        }
    }
}

/// Both forms of what a route aborts requests with.
fn abort(with: AbortWith) -> (u16, GrpcCode) {
    match with {
        AbortWith::Status(status) => (status.as_u16(), GrpcCode::from_status(status)),
        AbortWith::Grpc(number) => {
            let code = GrpcCode::from_number(number);
            (code.status(), code)
        }
    }
}

fn upstream(error: UpstreamError) -> Answer {
    let (status, grpc, flag) = match error {
        UpstreamError::NoEndpoint
        | UpstreamError::NoOriginalDestination
        | UpstreamError::BadOriginalDestination
        | UpstreamError::OwnAddress => (503, GrpcCode::Unavailable, "UH"),
        UpstreamError::TooManyEndpoints(_) => (503, GrpcCode::Unavailable, "UO"),
        UpstreamError::ConnectRefused | UpstreamError::ConnectFailed => (503, GrpcCode::Unavailable, "UF"),
        UpstreamError::ConnectTimeout => (504, GrpcCode::Unavailable, "UF"),
        UpstreamError::Tls(_) | UpstreamError::TlsHandshake => (503, GrpcCode::Unavailable, "UF"),
        UpstreamError::NoSecret => (503, GrpcCode::Unavailable, "UF"),
        UpstreamError::Closed => (502, GrpcCode::Unavailable, "UC"),
        UpstreamError::Refused | UpstreamError::Reset => (502, GrpcCode::Unavailable, "UR"),
        UpstreamError::Protocol => (502, GrpcCode::Unavailable, "UPE"),
        UpstreamError::RequestBody => (400, GrpcCode::Cancelled, "DPE"),
        UpstreamError::NoTunnel => (501, GrpcCode::Unimplemented, "UPE"),
        UpstreamError::TooSlow => (504, GrpcCode::DeadlineExceeded, "UT"),
        UpstreamError::Overflow(_) | UpstreamError::NoConnectionFree(_) => (503, GrpcCode::Unavailable, "UO"),
    };
    let reason = match error {
        UpstreamError::NoEndpoint => "upstream_no_endpoint",
        UpstreamError::NoOriginalDestination => "no_original_destination",
        UpstreamError::BadOriginalDestination => "bad_original_destination",
        UpstreamError::OwnAddress => "own_address",
        UpstreamError::TooManyEndpoints(_) => "max_endpoints",
        UpstreamError::ConnectRefused => "upstream_connect_refused",
        UpstreamError::ConnectTimeout => "upstream_connect_timeout",
        UpstreamError::ConnectFailed => "upstream_connect_failed",
        UpstreamError::Tls(error) => error.upstream_reason(),
        UpstreamError::TlsHandshake => "upstream_tls_handshake",
        UpstreamError::NoSecret => "upstream_no_secret",
        UpstreamError::Closed => "upstream_closed",
        UpstreamError::Refused => "upstream_refused_stream",
        UpstreamError::Reset => "upstream_reset",
        UpstreamError::Protocol => "upstream_protocol",
        UpstreamError::RequestBody => "request_body_broken",
        UpstreamError::NoTunnel => "upstream_no_tunnel",
        UpstreamError::TooSlow => "per_try_timeout",
        UpstreamError::Overflow(overflow) => overflow.limit.key(),
        UpstreamError::NoConnectionFree(_) => "no_connection_free",
    };
    answer(status, grpc, flag, reason)
}

fn answer(status: u16, grpc: GrpcCode, flag: &'static str, reason: &'static str) -> Answer {
    Answer { status: StatusCode::from_u16(status).expect("a status of ours"), grpc, flag, reason }
}

impl From<UpstreamError> for ProxyError {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(error)
    }
}

impl From<BodyError> for ProxyError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Client => Self::ClientGone,
            BodyError::Upstream => Self::ResponseBroken,
            BodyError::TooLarge(_) => Self::BodyTooLarge,
            BodyError::Timeout => Self::Timeout,
        }
    }
}

impl fmt::Display for ProxyError {
    /// What the client is told: what was wrong, nothing about what stands behind us.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(error) => write!(f, "the path cannot be served: {error}"),
            Self::Host => f.write_str("the request must name exactly one valid host"),
            Self::Head(reason) => write!(f, "the request breaks HTTP: {reason}"),
            Self::HeaderTimeout => {
                f.write_str("the request's head did not come in time (limits.header_timeout)")
            }
            Self::HeadTooLarge => f.write_str("the request's head is too large (limits.header_bytes)"),
            Self::TooManyHeaders => f.write_str("the request has too many header fields (limits.headers)"),
            Self::TargetTooLong => f.write_str("the request's target is too long"),
            Self::BodyTooLarge => f.write_str("the request's body is too large (limits.body)"),
            Self::Overloaded => f.write_str("the proxy has more to do than it has room for; try again later"),
            Self::NoRoute => f.write_str("no route takes this request"),
            Self::Rewrite(error) => error.fmt(f),
            Self::RouteAwaited => {
                f.write_str("it is not known yet whether there is such a host; try again later")
            }
            Self::Unauthenticated(JwtError::Missing) => f.write_str("a token is needed"),
            Self::Unauthenticated(_) => f.write_str("the token is not good"),
            Self::Denied => f.write_str("this is not allowed to who asks"),
            Self::DeniedExternally => f.write_str("this is not allowed to who asks (external_authorization)"),
            Self::AuthorizationUnavailable => {
                f.write_str("it is not known whether this is allowed (external_authorization)")
            }
            Self::AuthorizationBody(most) => write!(
                f,
                "the request's body is larger than the {most} bytes that it is judged by \
                 (external_authorization.body.max)"
            ),
            Self::Unwelcome => f.write_str("who asks is no longer allowed here"),
            Self::RateLimited(limit) => write!(f, "this route takes {limit}, and no more (rate_limit)"),
            Self::RateLimitedGlobally => f.write_str("this route takes no more for now (global_rate_limit)"),
            Self::RateLimitUnavailable => {
                f.write_str("it is not known whether this route takes more (global_rate_limit)")
            }
            Self::FaultAbort(_) => f.write_str("the request was aborted on purpose (fault.abort)"),
            Self::Crowded(crowd) => write!(f, "{crowd}, and this would be {}", crowd.seen),
            Self::WaitedTooLong(crowd) => write!(f, "{crowd}, and no turn came within concurrency.wait"),
            Self::Timeout => f.write_str("no complete answer within the route's timeout"),
            Self::IdleTimeout => f.write_str("nothing moved for too long (limits.idle_timeout)"),
            Self::ClientGone => f.write_str("the client went away"),
            Self::Upstream(error) => error.fmt(f),
            Self::ResponseBroken => f.write_str("the upstream's response broke off"),
        }
    }
}

impl std::error::Error for ProxyError {}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use outrigger_proto::model::Priority;

    use super::*;
    use crate::identity::verify::PeerError;
    use crate::upstream::{Limit, Overflow};

    const ALL: [ProxyError; 54] = [
        ProxyError::Crowded(Crowd { max: 1, seen: 2, adaptive: false }),
        ProxyError::WaitedTooLong(Crowd { max: 1, seen: 2, adaptive: true }),
        ProxyError::Path(PathError::Backslash),
        ProxyError::Host,
        ProxyError::Head("obs_fold"),
        ProxyError::HeaderTimeout,
        ProxyError::HeadTooLarge,
        ProxyError::TooManyHeaders,
        ProxyError::TargetTooLong,
        ProxyError::BodyTooLarge,
        ProxyError::Overloaded,
        ProxyError::NoRoute,
        ProxyError::RouteAwaited,
        ProxyError::Rewrite(RewriteError::DotSegment),
        ProxyError::Rewrite(RewriteError::NoPath(PathError::NotAbsolute)),
        ProxyError::Unauthenticated(JwtError::Missing),
        ProxyError::Unauthenticated(JwtError::Expired),
        ProxyError::Denied,
        ProxyError::DeniedExternally,
        ProxyError::AuthorizationUnavailable,
        ProxyError::AuthorizationBody(8192),
        ProxyError::Unwelcome,
        ProxyError::RateLimited(Exceeded::SAMPLE),
        ProxyError::RateLimitedGlobally,
        ProxyError::RateLimitUnavailable,
        ProxyError::FaultAbort(AbortWith::Grpc(14)),
        ProxyError::Timeout,
        ProxyError::IdleTimeout,
        ProxyError::ClientGone,
        ProxyError::ResponseBroken,
        ProxyError::Upstream(UpstreamError::NoEndpoint),
        ProxyError::Upstream(UpstreamError::NoOriginalDestination),
        ProxyError::Upstream(UpstreamError::BadOriginalDestination),
        ProxyError::Upstream(UpstreamError::OwnAddress),
        ProxyError::Upstream(UpstreamError::TooManyEndpoints(NonZeroU32::MIN)),
        ProxyError::Upstream(UpstreamError::ConnectRefused),
        ProxyError::Upstream(UpstreamError::ConnectTimeout),
        ProxyError::Upstream(UpstreamError::ConnectFailed),
        ProxyError::Upstream(UpstreamError::Tls(PeerError::Expired)),
        ProxyError::Upstream(UpstreamError::Tls(PeerError::NotExpected)),
        ProxyError::Upstream(UpstreamError::TlsHandshake),
        ProxyError::Upstream(UpstreamError::NoSecret),
        ProxyError::Upstream(UpstreamError::Closed),
        ProxyError::Upstream(UpstreamError::Refused),
        ProxyError::Upstream(UpstreamError::Reset),
        ProxyError::Upstream(UpstreamError::Protocol),
        ProxyError::Upstream(UpstreamError::RequestBody),
        ProxyError::Upstream(UpstreamError::NoTunnel),
        ProxyError::Upstream(UpstreamError::TooSlow),
        ProxyError::Upstream(UpstreamError::Overflow(overflow(Limit::Connections))),
        ProxyError::Upstream(UpstreamError::Overflow(overflow(Limit::Pending))),
        ProxyError::Upstream(UpstreamError::Overflow(overflow(Limit::Requests))),
        ProxyError::Upstream(UpstreamError::Overflow(overflow(Limit::Retries))),
        ProxyError::Upstream(UpstreamError::NoConnectionFree(overflow(Limit::Connections))),
    ];

    const fn overflow(limit: Limit) -> Overflow {
        Overflow { limit, priority: Priority::Default, max: 1, seen: 2 }
    }

    #[test]
    fn every_answer_has_a_reason_of_its_own_and_an_error_status() {
        let mut reasons: Vec<_> = ALL.iter().map(|e| e.answer().reason).collect();
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), ALL.len());
        assert!(ALL.iter().all(|e| e.answer().status.as_u16() >= 400));
    }

    #[test]
    fn aborts_have_a_form_for_each_kind_of_caller() {
        let rows = [(400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (502, 14), (503, 14), (504, 14)];
        for (status, code) in rows.into_iter().chain([(418, 2), (500, 2), (501, 2), (599, 2)]) {
            let answer =
                ProxyError::FaultAbort(AbortWith::Status(StatusCode::from_u16(status).unwrap())).answer();
            assert_eq!((answer.status.as_u16(), answer.grpc as u8), (status, code));
        }
        let statuses = [499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];
        for (code, status) in (1_u8..).zip(statuses) {
            let answer = ProxyError::FaultAbort(AbortWith::Grpc(code)).answer();
            assert_eq!((answer.status.as_u16(), answer.grpc as u8), (status, code));
        }
    }

    /// Each request carries one, several times over.
    #[test]
    fn an_error_stays_small() {
        assert!(size_of::<ProxyError>() <= 24, "{}", size_of::<ProxyError>());
    }
}
