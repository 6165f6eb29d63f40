//! Clusters while they live: their endpoints and figures, kept over every change of configuration that does not name
//! them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use outrigger_proto::model::{Address, Assignment, Name};

use super::balance::EndpointSet;
use super::endpoint::Endpoint;
use crate::observe::{ClusterStats, Registry};

/// Live state of a cluster, shared by all workers.
#[derive(Debug)]
pub struct Cluster {
    name: Name,
    endpoints: ArcSwap<EndpointSet>,
    stats: OnceLock<Arc<ClusterStats>>,
    registry: Registry,
}

impl Cluster {
    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its endpoints now.
    pub fn endpoints(&self) -> arc_swap::Guard<Arc<EndpointSet>> {
        self.endpoints.load()
    }

    /// Its figures; their series exist from the first use on, so that idle clusters cost nothing.
    pub fn stats(&self) -> &Arc<ClusterStats> {
        self.stats.get_or_init(|| self.registry.cluster(self.name.as_str()))
    }
}

/// A cluster as one configuration wants it, and as it lives.
#[derive(Debug)]
pub struct ClusterView {
    /// What was configured.
    pub config: outrigger_proto::model::Cluster,
    /// Its live state.
    pub live: Arc<Cluster>,
}

/// All clusters that live, by name. Management changes it; workers hold the clusters themselves.
#[derive(Debug)]
pub struct Clusters {
    registry: Registry,
    by_name: Mutex<HashMap<Name, Arc<Cluster>>>,
    next_endpoint: AtomicU64,
}

impl Clusters {
    /// None yet.
    pub fn new(registry: Registry) -> Self {
        Self { registry, by_name: Mutex::default(), next_endpoint: AtomicU64::new(1) }
    }

    /// The cluster of this name, made now if there is none.
    pub fn get_or_make(&self, name: &Name) -> Arc<Cluster> {
        let make = || {
            Arc::new(Cluster {
                name: name.clone(),
                endpoints: ArcSwap::default(),
                stats: OnceLock::new(),
                registry: self.registry.clone(),
            })
        };
        self.lock().entry(name.clone()).or_insert_with(make).clone()
    }

    /// The endpoints of a cluster, from now on. Those it had before keep their state and their connections; those no
    /// longer named finish what they have.
    pub fn assign(&self, cluster: &Cluster, assignment: &Assignment) {
        let old = cluster.endpoints.load_full();
        let mut known: HashMap<&Address, &Arc<Endpoint>> =
            old.endpoints().iter().map(|e| (e.address(), e)).collect();
        let endpoint = |wanted: &outrigger_proto::model::Endpoint| match known.remove(&wanted.address) {
            Some(endpoint) => {
                endpoint.set_weight(wanted.weight.get());
                endpoint.clone()
            }
            None => {
                let id = self.next_endpoint.fetch_add(1, Relaxed);
                Arc::new(Endpoint::new(id, wanted.address.clone(), wanted.weight.get()))
            }
        };
        let new = EndpointSet::new(assignment.endpoints.iter().map(endpoint).collect());
        cluster.endpoints.store(Arc::new(new));
        for gone in known.into_values() {
            gone.retire();
        }
    }

    /// Forgets clusters that `keep` does not name, and their figures.
    pub fn retain(&self, keep: impl Fn(&Name) -> bool) {
        self.lock().retain(|name, cluster| {
            let kept = keep(name);
            if !kept {
                self.assign(cluster, &Assignment::default());
                self.registry.retire("cluster", name.as_str());
            }
            kept
        });
    }

    /// All of them, in the order of their names.
    pub fn all(&self) -> Vec<Arc<Cluster>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Arc<Cluster>>> {
        // Nothing is done under this lock that could leave the map half changed.
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn assignment(ports: &[u16]) -> Assignment {
        let endpoint = |port: &u16| outrigger_proto::model::Endpoint {
            address: Address::Ip(([127, 0, 0, 1], *port).into()),
            weight: NonZeroU32::MIN,
        };
        Assignment { endpoints: ports.iter().map(endpoint).collect() }
    }

    #[test]
    fn an_endpoint_that_stays_keeps_its_state_and_one_that_goes_is_retired() {
        let clusters = Clusters::new(Registry::default());
        let cluster = clusters.get_or_make(&Name::new("app").expect("a name"));
        clusters.assign(&cluster, &assignment(&[1, 2]));
        let before = cluster.endpoints.load_full();
        clusters.assign(&cluster, &assignment(&[2, 3]));
        let after = cluster.endpoints.load_full();
        assert!(Arc::ptr_eq(&before.endpoints()[1], &after.endpoints()[0]));
        assert!(before.endpoints()[0].is_retired() && !before.endpoints()[1].is_retired());
        assert_ne!(after.endpoints()[1].id(), before.endpoints()[0].id());
    }
}
