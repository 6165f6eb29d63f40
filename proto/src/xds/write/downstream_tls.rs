//! TLS of listeners.

use super::super::generated::envoy::config::listener::v3 as pb;
use super::Cx;
use crate::model::DownstreamTls;

/// Adds to a chain how its connections are unwrapped.
pub(super) fn wrap(
    cx: &mut Cx,
    chain: pb::FilterChain,
    tls: Option<&DownstreamTls>,
) -> Option<pb::FilterChain> {
    match tls {
        None => Some(chain),
        Some(_) => cx.fail("transport_socket", "TLS of a listener cannot be written yet"),
    }
}
