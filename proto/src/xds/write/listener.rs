//! Listeners.

use super::super::ListenerResource;
use super::super::generated::envoy::config::listener::v3 as pb;
use super::Cx;
use crate::model::Name;

pub(super) fn listener(cx: &mut Cx, _name: &Name, _listener: &ListenerResource) -> Option<pb::Listener> {
    cx.fail("", "TODO")
}
