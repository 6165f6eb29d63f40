//! Bytes, passed on.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::cx::Cx;
use super::super::generated::envoy::extensions::filters::network::tcp_proxy::v3 as pb;
use crate::model::{Destination, Filter, Name, Split, Target, TcpFilter};

pub(super) fn proxy(cx: &mut Cx, proxy: pb::TcpProxy, subsets: &[String]) -> Option<Filter> {
    use pb::tcp_proxy::ClusterSpecifier;
    // The prefix is for Envoy's metrics.
    let pb::TcpProxy { stat_prefix: _, cluster_specifier, idle_timeout } = proxy;
    let idle_timeout = match idle_timeout {
        None => Some(Duration::from_secs(3600)),
        written => cx.time("idle_timeout", written)?.or_else(|| cx.fail("idle_timeout", "there must be one")),
    };
    let targets = match cx.required("cluster", cluster_specifier)? {
        ClusterSpecifier::Cluster(cluster) => {
            vec![target(cx, "cluster", &cluster, NonZeroU32::MIN)?]
        }
        ClusterSpecifier::WeightedClusters(pb::tcp_proxy::WeightedCluster { clusters }) => {
            cx.within("weighted_clusters", |cx| {
                cx.each("clusters", clusters, |cx, share| {
                    let pb::tcp_proxy::weighted_cluster::ClusterWeight { name, weight } = share;
                    let weight = NonZeroU32::new(weight).or_else(|| cx.fail("weight", "it is 1 or more"))?;
                    target(cx, "name", &name, weight)
                })
            })?
        }
    };
    if targets.is_empty() {
        return cx.fail("weighted_clusters.clusters", "there is none");
    }
    let targets = within(cx, targets, subsets)?;
    Some(Filter::Tcp(TcpFilter { to: Split { targets }, idle_timeout: idle_timeout? }))
}

fn target(cx: &mut Cx, field: &str, cluster: &str, weight: NonZeroU32) -> Option<Target> {
    let cluster = Name::new(cluster).or_else(|| cx.fail(field, "this is not the name of a cluster"))?;
    Some(Target::new(cluster, weight))
}

/// The parts of clusters that are meant, where any is.
fn within(cx: &mut Cx, targets: Vec<Target>, subsets: &[String]) -> Option<Vec<Target>> {
    if subsets.is_empty() {
        return Some(targets);
    }
    if subsets.len() != targets.len() {
        return cx.fail("weighted_clusters", "there are as many `subsets` as clusters, or none");
    }
    let named = |(target, subset): (Target, &String)| {
        let subset = match subset.as_str() {
            "" => None,
            name => Some(Name::new(name)?),
        };
        Some(Target { to: Destination { subset, ..target.to }, ..target })
    };
    let targets: Option<Vec<_>> = targets.into_iter().zip(subsets).map(named).collect();
    targets.or_else(|| cx.fail("weighted_clusters", "one of the `subsets` is not a name"))
}
