//! Routes.

use super::super::generated::envoy::config::route::v3 as pb;
use super::Cx;
use crate::model::{Name, RouteTable};

pub(super) fn table(cx: &mut Cx, _name: &Name, _table: &RouteTable) -> Option<pb::RouteConfiguration> {
    cx.fail("", "TODO")
}
