//! Bytes, passed on.

use super::super::super::generated::envoy::extensions::filters::network::tcp_proxy::v3 as pb;
use super::super::Cx;
use super::time;
use crate::model::{Destination, HeaderEdits, Name, Target, TcpFilter};

pub(super) fn proxy(
    cx: &mut Cx,
    name: &Name,
    filter: &TcpFilter,
    subsets: &mut Vec<String>,
) -> Option<pb::TcpProxy> {
    use pb::tcp_proxy::ClusterSpecifier;
    let TcpFilter { to, idle_timeout } = filter;
    let mut clusters = Vec::new();
    for target in &to.targets {
        let Target { to: Destination { cluster, subset }, weight, request_headers, response_headers } =
            target;
        if [request_headers, response_headers].into_iter().any(|edits| *edits != HeaderEdits::default()) {
            return cx.fail("weighted_clusters", "bytes are passed on, and have no header");
        }
        subsets.push(subset.as_ref().map_or_else(String::new, Name::to_string));
        clusters.push(pb::tcp_proxy::weighted_cluster::ClusterWeight {
            name: cluster.to_string(),
            weight: weight.get(),
        });
    }
    if subsets.iter().all(String::is_empty) {
        subsets.clear();
    }
    let cluster_specifier = match clusters.as_slice() {
        [only] if only.weight == 1 => ClusterSpecifier::Cluster(only.name.clone()),
        _ => ClusterSpecifier::WeightedClusters(pb::tcp_proxy::WeightedCluster { clusters }),
    };
    Some(pb::TcpProxy {
        stat_prefix: name.to_string(),
        cluster_specifier: Some(cluster_specifier),
        idle_timeout: time(*idle_timeout),
    })
}
