//! Clusters, and their endpoints.

use super::super::ClusterResource;
use super::super::generated::envoy::config::cluster::v3 as pb;
use super::super::generated::envoy::config::endpoint::v3 as endpoint;
use super::Cx;
use crate::model::{Assignment, Name};

pub(super) fn cluster(cx: &mut Cx, _name: &Name, _cluster: &ClusterResource) -> Option<pb::Cluster> {
    cx.fail("", "TODO")
}

pub(super) fn assignment(_name: &Name, _set: &Assignment) -> endpoint::ClusterLoadAssignment {
    endpoint::ClusterLoadAssignment::default()
}
