//! A part of a cluster, by the labels of its endpoints: chosen among by itself, while load, health, connections and budgets
//! are those of the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use outrigger_proto::model::{self, Labels, Name, SubsetFallback};

use super::balance::EndpointSet;
use super::endpoint::Endpoint;

/// The subsets of a cluster.
pub(super) type Subsets = BTreeMap<Name, Arc<Subset>>;

/// A part of a cluster.
#[derive(Debug, Default)]
pub struct Subset {
    endpoints: ArcSwap<EndpointSet>,
}

impl Subset {
    /// Its endpoints now.
    pub(super) fn endpoints(&self) -> arc_swap::Guard<Arc<EndpointSet>> {
        self.endpoints.load()
    }
}

/// The subsets that `config` wants of these endpoints of the cluster. Those that were there stay, as requests hold them.
pub(super) fn make(
    config: &model::Cluster,
    endpoints: &[Arc<Endpoint>],
    old: Option<&Subsets>,
) -> Option<Arc<Subsets>> {
    let subset = |(name, wanted): (&Name, &Labels)| {
        let subset = old.and_then(|old| old.get(name)).cloned().unwrap_or_default();
        let mut members: Vec<_> = endpoints.iter().filter(|e| e.has_labels(wanted)).cloned().collect();
        // Who stands in a zone that weighs nothing is never chosen.
        let may_be_chosen =
            |e: &Arc<Endpoint>| e.zone().and_then(|zone| config.zone_weights.get(&zone).copied()) != Some(0);
        if config.subset_fallback == SubsetFallback::Any && !members.iter().any(may_be_chosen) {
            members = endpoints.to_vec();
        }
        subset.endpoints.store(Arc::new(EndpointSet::new(members, config.into())));
        (name.clone(), subset)
    };
    let subsets: Subsets = config.subsets.iter().map(subset).collect();
    (!subsets.is_empty()).then(|| Arc::new(subsets))
}
