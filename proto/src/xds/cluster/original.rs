//! `ORIGINAL_DST`: connections and requests name their endpoints, so that there is nothing to choose from, and nothing to know
//! beforehand.
//!
//! What Envoy refuses beside it is refused, and so is what would have no meaning: it can hardly be meant.

use std::num::{NonZeroU16, NonZeroU32};

use http::HeaderName;

use super::super::cx::Cx;
use super::super::generated::envoy::config::cluster::v3 as pb;
use super::super::generated::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy,
};
use super::limit;
use crate::model::Original;

/// Takes what is said of it out of a cluster; `None` inside where the cluster is of another type.
pub(super) fn take(cx: &mut Cx, cluster: &mut pb::Cluster) -> Option<Option<Original>> {
    let is = ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into());
    let config = match cluster.lb_config.take() {
        Some(LbConfig::OriginalDstLbConfig(config)) => Some(config),
        other => {
            cluster.lb_config = other;
            None
        }
    };
    if cluster.cluster_discovery_type != Some(is) {
        return match config {
            Some(_) => cx.fail("original_dst_lb_config", "the cluster's type is not ORIGINAL_DST"),
            None => Some(None),
        };
    }
    // Another policy's has no effect, as in Envoy.
    cluster.lb_config = None;
    let provided = i32::from(LbPolicy::ClusterProvided);
    if std::mem::take(&mut cluster.lb_policy) != provided || cluster.load_balancing_policy.is_some() {
        return cx.fail("lb_policy", "with ORIGINAL_DST this is CLUSTER_PROVIDED");
    }
    let common = cluster.common_lb_config.take();
    let meaningless = [
        ("load_assignment", cluster.load_assignment.is_some()),
        ("health_checks", !cluster.health_checks.is_empty()),
        ("lb_subset_config", cluster.lb_subset_config.is_some()),
        ("common_lb_config", common.is_some_and(|common| common != pb::cluster::CommonLbConfig::default())),
    ];
    if let Some((field, _)) = meaningless.into_iter().find(|(_, written)| *written) {
        let problem = "with ORIGINAL_DST each connection or request names its one endpoint";
        return cx.fail(field, problem);
    }
    let default = Original::default();
    let cleanup = limit(cx, "cleanup_interval", cluster.cleanup_interval.take(), default.cleanup);
    let named = cx.within("original_dst_lb_config", |cx| named(cx, config.unwrap_or_default()));
    let ((header, port), cleanup) = (named?, cleanup?);
    Some(Some(Original { header, port, cleanup, ..default }))
}

type Named = (Option<HeaderName>, Option<NonZeroU16>);

fn named(cx: &mut Cx, config: pb::cluster::OriginalDstLbConfig) -> Option<Named> {
    let pb::cluster::OriginalDstLbConfig { use_http_header, http_header_name, upstream_port_override } =
        config;
    let header = match (use_http_header, http_header_name.as_str()) {
        (false, "") => None,
        (false, _) => return cx.fail("http_header_name", "no header is used: write `use_http_header` too"),
        (true, "") => Some(Original::HEADER),
        (true, name) => match name.parse() {
            Ok(header) => Some(header),
            Err(_) => return cx.fail("http_header_name", format!("`{name}` is not the name of a header")),
        },
    };
    let port = match upstream_port_override {
        None => None,
        Some(port) => match u16::try_from(port).ok().and_then(NonZeroU16::new) {
            Some(port) => Some(port),
            None => return cx.fail("upstream_port_override", "it is between 1 and 65535"),
        },
    };
    Some((header, port))
}

/// What is ours to say: how many endpoints there may be; 0 says nothing.
pub(super) fn with_ours(
    cx: &mut Cx,
    named: Option<Original>,
    max_endpoints: u32,
) -> Option<Option<Original>> {
    const AT: &str = "metadata.typed_filter_metadata[outrigger].max_endpoints";
    match (named, NonZeroU32::new(max_endpoints)) {
        (named, None) => Some(named),
        (None, Some(_)) => cx.fail(AT, "the cluster's type is not ORIGINAL_DST"),
        (Some(_), Some(most)) if most.get() > Original::MAX_ENDPOINTS => {
            cx.fail(AT, format!("it is at most {}", Original::MAX_ENDPOINTS))
        }
        (Some(named), Some(max_endpoints)) => Some(Some(Original { max_endpoints, ..named })),
    }
}
