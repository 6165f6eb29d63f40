//! `ORIGINAL_DST`: connections and requests name their endpoints.

use super::super::super::generated::envoy::config::cluster::v3::cluster as pb;
use super::super::super::generated::envoy::config::cluster::v3::cluster::{LbConfig, LbPolicy};
use crate::model::{Original, Source};

/// What endpoints are named by, where they are.
pub(super) fn of(source: &Source) -> Option<&Original> {
    match source {
        Source::Original(named) => Some(named),
        Source::Static | Source::Dns { .. } => None,
    }
}

/// In the place of how an endpoint is chosen: by what it is named.
pub(super) fn balance(
    Original { header, port, cleanup: _, max_endpoints: _ }: &Original,
) -> (LbPolicy, Option<LbConfig>, Option<prost_types::Duration>) {
    let config = pb::OriginalDstLbConfig {
        use_http_header: header.is_some(),
        http_header_name: header.as_ref().map(ToString::to_string).unwrap_or_default(),
        upstream_port_override: port.map(|port| port.get().into()),
    };
    (LbPolicy::ClusterProvided, Some(LbConfig::OriginalDstLbConfig(config)), None)
}

/// What Envoy has no field for, as it bounds them not; 0 says nothing.
pub(super) fn max_endpoints(named: &Original) -> u32 {
    if named.max_endpoints == Original::default().max_endpoints { 0 } else { named.max_endpoints.get() }
}
