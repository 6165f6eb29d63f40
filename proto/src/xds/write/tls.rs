//! TLS around what is sent.

use super::Cx;
use crate::model::UpstreamTls;

/// Around connections to a cluster.
pub(super) fn transport_socket(cx: &mut Cx, tls: &Option<UpstreamTls>) -> Option<()> {
    match tls {
        None => Some(()),
        Some(_) => cx.fail("transport_socket", "TLS towards endpoints cannot be written yet"),
    }
}
