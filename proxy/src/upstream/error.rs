//! Why a request got no response from an upstream.

use std::fmt;
use std::num::NonZeroU32;

use super::breaker::Overflow;
use crate::identity::verify::PeerError;

/// Why a request got no response from an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamError {
    /// The cluster has no endpoint.
    NoEndpoint,
    /// Nothing names the endpoint: the connection was not redirected, or was going to the proxy itself.
    NoOriginalDestination,
    /// The header that names the endpoint holds no address.
    BadOriginalDestination,
    /// The endpoint that is named is the proxy itself.
    OwnAddress,
    /// The cluster knows as many endpoints as its `max_endpoints` allows, and not the one that is named.
    TooManyEndpoints(NonZeroU32),
    /// No connection: nobody listens there.
    ConnectRefused,
    /// No connection within the cluster's `connect_timeout`.
    ConnectTimeout,
    /// No connection: another reason.
    ConnectFailed,
    /// No connection: what the endpoint showed in the TLS handshake is not believed, or not of whom was meant.
    Tls(PeerError),
    /// No connection: the TLS handshake failed, or did not come to the protocol that is spoken with the cluster.
    TlsHandshake,
    /// No connection: a secret that TLS with it takes has not come from the control plane.
    NoSecret,
    /// The connection ended before a response came.
    Closed,
    /// The upstream reset the request's stream, or went away, without having looked at it (HTTP/2
    /// `REFUSED_STREAM`, or a GOAWAY below it): it is safe to send again.
    Refused,
    /// The upstream reset the request's stream (HTTP/2).
    Reset,
    /// The response was not what it should be: framing, head, size.
    Protocol,
    /// The request's body broke off, or was refused; the body's own error says why.
    RequestBody,
    /// The route's `per_try_timeout` ran out.
    TooSlow,
    /// A limit of the cluster's `circuit_breaker` was reached.
    Overflow(Overflow),
    /// No connection became free within `connect_timeout`, as the cluster has all that it may have.
    NoConnectionFree(Overflow),
    /// A tunnel was asked for that this upstream's protocol cannot carry.
    NoTunnel,
}

impl UpstreamError {
    /// Why a connection was not established, as a metric's label; `None` when that is not what happened.
    pub fn connect_failure(self) -> Option<&'static str> {
        match self {
            Self::ConnectRefused => Some("connect_refused"),
            Self::ConnectTimeout => Some("connect_timeout"),
            Self::ConnectFailed => Some("connect_failed"),
            Self::Tls(error) => Some(error.reason()),
            Self::TlsHandshake => Some("tls_handshake"),
            Self::NoSecret => Some("no_secret"),
            Self::NoEndpoint | Self::Closed | Self::Refused | Self::Reset | Self::Protocol => None,
            Self::RequestBody | Self::TooSlow | Self::NoTunnel => None,
            Self::NoOriginalDestination | Self::BadOriginalDestination => None,
            Self::OwnAddress | Self::TooManyEndpoints(_) => None,
            Self::Overflow(_) | Self::NoConnectionFree(_) => None,
        }
    }

    /// Whether the endpoint is to blame: the balancer avoids it for a while.
    pub fn blames_endpoint(self) -> bool {
        match self {
            Self::ConnectRefused
            | Self::ConnectTimeout
            | Self::ConnectFailed
            | Self::Tls(_)
            | Self::TlsHandshake
            | Self::Closed
            | Self::Reset => true,
            Self::Refused | Self::Protocol | Self::TooSlow => true,
            // What our own limits refuse says nothing of the endpoint.
            Self::NoEndpoint | Self::NoSecret | Self::RequestBody | Self::NoTunnel => false,
            Self::Overflow(_) | Self::NoConnectionFree(_) | Self::TooManyEndpoints(_) => false,
            Self::NoOriginalDestination | Self::BadOriginalDestination | Self::OwnAddress => false,
        }
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overflow(overflow) => return write!(f, "{overflow}, and this would be {}", overflow.seen),
            Self::NoConnectionFree(overflow) => {
                return write!(f, "{overflow}, and none became free in time");
            }
            Self::Tls(error) => return write!(f, "no TLS to the upstream: {error}"),
            Self::TooManyEndpoints(most) => {
                return write!(f, "there are {most} endpoints, and may be no more (max_endpoints)");
            }
            Self::NoOriginalDestination => {
                "no original destination: the connection was not redirected to the proxy"
            }
            Self::BadOriginalDestination => "the header that names the endpoint does not hold one address",
            Self::OwnAddress => "the request would come back to the proxy: its endpoint is the proxy itself",
            Self::TlsHandshake => "the TLS handshake with the upstream failed",
            Self::NoSecret => "a secret that the cluster needs has not come",
            Self::TooSlow => "no answer within the route's retry.per_try_timeout",
            Self::NoEndpoint => "the cluster has no endpoint",
            Self::ConnectRefused => "the upstream refused the connection",
            Self::ConnectTimeout => "no connection to the upstream within connect_timeout",
            Self::ConnectFailed => "no connection to the upstream",
            Self::Closed => "the upstream closed the connection before it answered",
            Self::Refused => "the upstream refused the stream",
            Self::Reset => "the upstream reset the stream",
            Self::Protocol => "the upstream's response broke the protocol",
            Self::RequestBody => "the request's body broke off",
            Self::NoTunnel => "the upstream's protocol cannot carry this tunnel",
        })
    }
}

impl std::error::Error for UpstreamError {}
