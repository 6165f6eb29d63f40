//! Every answer that is ours and not an upstream's, and why: one enum, one exhaustive mapping.

use std::fmt;

use http::StatusCode;

use crate::body::BodyError;
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
    /// No route takes the request.
    NoRoute,
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
    /// DEADLINE_EXCEEDED.
    DeadlineExceeded = 4,
    /// RESOURCE_EXHAUSTED.
    ResourceExhausted = 8,
    /// UNIMPLEMENTED.
    Unimplemented = 12,
    /// INTERNAL.
    Internal = 13,
    /// UNAVAILABLE.
    Unavailable = 14,
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
            Self::NoRoute => (404, GrpcCode::Unimplemented, "NR", "no_route"),
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
            Self::Path(_) | Self::Host | Self::Head(_) | Self::TargetTooLong | Self::NoRoute => None,
            Self::Timeout | Self::ClientGone | Self::Upstream(_) | Self::ResponseBroken => None,
        }
    }
}

fn upstream(error: UpstreamError) -> Answer {
    let (status, grpc, flag) = match error {
        UpstreamError::NoEndpoint => (503, GrpcCode::Unavailable, "UH"),
        UpstreamError::ConnectRefused | UpstreamError::ConnectFailed => (503, GrpcCode::Unavailable, "UF"),
        UpstreamError::ConnectTimeout => (504, GrpcCode::Unavailable, "UF"),
        UpstreamError::Closed => (502, GrpcCode::Unavailable, "UC"),
        UpstreamError::Refused | UpstreamError::Reset => (502, GrpcCode::Unavailable, "UR"),
        UpstreamError::Protocol => (502, GrpcCode::Unavailable, "UPE"),
        UpstreamError::RequestBody => (400, GrpcCode::Cancelled, "DPE"),
        UpstreamError::NoTunnel => (501, GrpcCode::Unimplemented, "UPE"),
    };
    let reason = match error {
        UpstreamError::NoEndpoint => "upstream_no_endpoint",
        UpstreamError::ConnectRefused => "upstream_connect_refused",
        UpstreamError::ConnectTimeout => "upstream_connect_timeout",
        UpstreamError::ConnectFailed => "upstream_connect_failed",
        UpstreamError::Closed => "upstream_closed",
        UpstreamError::Refused => "upstream_refused_stream",
        UpstreamError::Reset => "upstream_reset",
        UpstreamError::Protocol => "upstream_protocol",
        UpstreamError::RequestBody => "request_body_broken",
        UpstreamError::NoTunnel => "upstream_no_tunnel",
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
            Self::NoRoute => f.write_str("no route takes this request"),
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
    use super::*;

    const ALL: [ProxyError; 23] = [
        ProxyError::Path(PathError::Backslash),
        ProxyError::Host,
        ProxyError::Head("obs_fold"),
        ProxyError::HeaderTimeout,
        ProxyError::HeadTooLarge,
        ProxyError::TooManyHeaders,
        ProxyError::TargetTooLong,
        ProxyError::BodyTooLarge,
        ProxyError::NoRoute,
        ProxyError::Timeout,
        ProxyError::IdleTimeout,
        ProxyError::ClientGone,
        ProxyError::ResponseBroken,
        ProxyError::Upstream(UpstreamError::NoEndpoint),
        ProxyError::Upstream(UpstreamError::ConnectRefused),
        ProxyError::Upstream(UpstreamError::ConnectTimeout),
        ProxyError::Upstream(UpstreamError::ConnectFailed),
        ProxyError::Upstream(UpstreamError::Closed),
        ProxyError::Upstream(UpstreamError::Refused),
        ProxyError::Upstream(UpstreamError::Reset),
        ProxyError::Upstream(UpstreamError::Protocol),
        ProxyError::Upstream(UpstreamError::RequestBody),
        ProxyError::Upstream(UpstreamError::NoTunnel),
    ];

    #[test]
    fn every_answer_has_a_reason_of_its_own_and_an_error_status() {
        let mut reasons: Vec<_> = ALL.iter().map(|e| e.answer().reason).collect();
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), ALL.len());
        assert!(ALL.iter().all(|e| e.answer().status.as_u16() >= 400));
    }
}
