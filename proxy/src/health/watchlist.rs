//! Which endpoints are checked, by whose settings, and who is next. Pure: `now` and chance are arguments; what a check
//! finds is reported.
//!
//! One list for the whole process, ordered by time: an endpoint costs it some hundred bytes and no timer, and whoever
//! has waited longest goes first when many are due at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::model::{HealthCheck, Name, Protocol};

use crate::upstream::health::{Health, Outcome, first_check, fraction, next_check};
use crate::upstream::tls::ClientTls;
use crate::upstream::{Cluster, Endpoint, EndpointSet};

/// A cluster whose endpoints are to be checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whose.
    pub cluster: Arc<Cluster>,
    /// How.
    pub check: HealthCheck,
    /// What is spoken with the cluster.
    pub protocol: Protocol,
    /// TLS around it.
    pub tls: Option<Arc<ClientTls>>,
}

/// An endpoint that is due.
#[derive(Clone, Debug)]
pub struct Job {
    /// Who is asked.
    pub endpoint: Arc<Endpoint>,
    /// How.
    pub plan: Arc<Plan>,
}

/// A check after which something else is thought of an endpoint.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its cluster.
    pub cluster: Name,
    /// Whose health it is.
    pub endpoint: Arc<Endpoint>,
    /// What was thought before.
    pub from: Health,
    /// What is thought now.
    pub to: Health,
    /// What the check found.
    pub why: Outcome,
}

/// Random numbers.
pub type Random<'a> = &'a mut dyn FnMut() -> u64;

/// All that is checked.
#[derive(Debug, Default)]
pub struct Watchlist {
    clusters: HashMap<Name, Watched>,
    /// By the endpoint's id.
    entries: HashMap<u64, Entry>,
    due: BTreeSet<(Duration, u64)>,
}

#[derive(Debug)]
struct Watched {
    plan: Arc<Plan>,
    /// As they were when they were last looked at.
    endpoints: Arc<EndpointSet>,
    /// Of them, those that may be used.
    usable: usize,
    /// Requests that they had had by then.
    requests: u64,
    /// When there was traffic last.
    busy: Option<Duration>,
}

#[derive(Debug)]
struct Entry {
    endpoint: Arc<Endpoint>,
    cluster: Name,
    /// `None` while it is being checked.
    due: Option<Duration>,
}

impl Watchlist {
    /// From now on these clusters are checked, and no others. An endpoint keeps its state under other settings;
    /// without any it is well again.
    pub fn follow(&mut self, plans: Vec<Plan>, now: Duration, random: Random<'_>) {
        let mut old = std::mem::take(&mut self.clusters);
        for plan in plans {
            let name = plan.cluster.name().clone();
            let is_known = old.get(&name).is_some_and(|k| Arc::ptr_eq(&k.plan.cluster, &plan.cluster));
            let known = if is_known { old.remove(&name) } else { None };
            let changed = known.as_ref().is_some_and(|known| !same(&known.plan, &plan));
            let mut watched = match known {
                Some(watched) => Watched { plan: Arc::new(plan), ..watched },
                None => Watched::new(plan),
            };
            self.sync(&mut watched, now, random);
            if changed {
                let endpoints = watched.endpoints.endpoints();
                for endpoint in endpoints {
                    let wait = first_check(endpoints.len(), &watched.plan.check, random());
                    self.bring_forward(endpoint.id(), now + wait);
                }
            }
            self.clusters.insert(name, watched);
        }
        old.values().for_each(|watched| self.drop_cluster(watched));
    }

    /// Finds endpoints that have come and gone, and clusters whose traffic has begun again.
    pub fn look(&mut self, now: Duration, random: Random<'_>) {
        let mut clusters = std::mem::take(&mut self.clusters);
        for watched in clusters.values_mut() {
            self.sync(watched, now, random);
            if !watched.has_traffic() {
                continue;
            }
            let was_idle = watched.is_idle(now);
            watched.busy = Some(now);
            if was_idle {
                for endpoint in watched.endpoints.endpoints() {
                    let wait = watched.plan.check.interval.mul_f64(fraction(random()));
                    self.bring_forward(endpoint.id(), now + wait);
                }
            }
        }
        self.clusters = clusters;
    }

    /// When the next check is due; measured from the process's epoch, as all times here.
    pub fn next(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Whether nothing is checked.
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty()
    }

    /// Whether this endpoint is still checked.
    pub fn holds(&self, endpoint: u64) -> bool {
        self.entries.contains_key(&endpoint)
    }

    /// The check to begin now, if one is due. Its endpoint is not due again before [`Self::done`].
    pub fn begin(&mut self, now: Duration) -> Option<Job> {
        let (_, id) = *self.due.first().filter(|(at, _)| *at <= now)?;
        self.due.pop_first();
        let entry = self.entries.get_mut(&id).expect("what is due is on the list");
        entry.due = None;
        let plan = self.clusters.get(&entry.cluster).expect("entries go with their cluster").plan.clone();
        Some(Job { endpoint: entry.endpoint.clone(), plan })
    }

    /// A check has ended. What it found of an endpoint that has gone meanwhile does not count.
    pub fn done(&mut self, endpoint: u64, why: Outcome, now: Duration, random: Random<'_>) -> Option<Change> {
        let entry = self.entries.get_mut(&endpoint)?;
        let watched = self.clusters.get_mut(&entry.cluster).expect("entries go with their cluster");
        let Plan { cluster, check, protocol: _, tls: _ } = &*watched.plan;
        let from = entry.endpoint.health().record();
        let to = from.after(why, check);
        entry.endpoint.health().checked(to, now);
        cluster.stats().health_check(why.code());
        if from.health.is_usable() != to.health.is_usable() {
            if to.health.is_usable() {
                // It is as good as new: its share of the load begins to grow.
                entry.endpoint.set_since(now);
            }
            cluster.refresh();
        }
        let usable = watched.usable + usize::from(to.health.is_usable());
        watched.usable = usable - usize::from(from.health.is_usable());
        cluster.stats().endpoints_healthy(Some(watched.usable));
        let at = now + next_check(to, check, watched.is_idle(now), random());
        entry.due = Some(at);
        self.due.insert((at, endpoint));
        (from.health != to.health).then(|| Change {
            cluster: entry.cluster.clone(),
            endpoint: entry.endpoint.clone(),
            from: from.health,
            to: to.health,
            why,
        })
    }

    /// Takes note of the endpoints that a cluster has now.
    fn sync(&mut self, watched: &mut Watched, now: Duration, random: Random<'_>) {
        let endpoints = watched.plan.cluster.endpoints().clone();
        if Arc::ptr_eq(&endpoints, &watched.endpoints) {
            return;
        }
        for gone in watched.endpoints.endpoints().iter().filter(|endpoint| endpoint.is_retired()) {
            self.drop_endpoint(gone.id());
        }
        let new: Vec<_> = endpoints.endpoints().iter().filter(|e| !self.holds(e.id())).collect();
        for endpoint in &new {
            let at = now + first_check(new.len(), &watched.plan.check, random());
            let cluster = watched.plan.cluster.name().clone();
            let entry = Entry { endpoint: Arc::clone(endpoint), cluster, due: Some(at) };
            self.due.insert((at, endpoint.id()));
            self.entries.insert(endpoint.id(), entry);
        }
        watched.usable = endpoints.endpoints().iter().filter(|endpoint| endpoint.is_healthy()).count();
        watched.plan.cluster.stats().endpoints_healthy(Some(watched.usable));
        watched.requests = requests(&endpoints);
        watched.endpoints = endpoints;
    }

    fn bring_forward(&mut self, endpoint: u64, at: Duration) {
        let Some(due) = self.entries.get_mut(&endpoint).and_then(|entry| entry.due.as_mut()) else { return };
        if at < *due {
            self.due.remove(&(*due, endpoint));
            self.due.insert((at, endpoint));
            *due = at;
        }
    }

    fn drop_cluster(&mut self, watched: &Watched) {
        for endpoint in watched.endpoints.endpoints() {
            self.drop_endpoint(endpoint.id());
        }
        let cluster = &watched.plan.cluster;
        // Those that came since it was last looked at are not on the list, but may be awaited.
        for endpoint in cluster.endpoints().endpoints() {
            endpoint.health().forget();
        }
        cluster.refresh();
        cluster.stats().endpoints_healthy(None);
    }

    fn drop_endpoint(&mut self, endpoint: u64) {
        if let Some(at) = self.entries.remove(&endpoint).and_then(|entry| entry.due) {
            self.due.remove(&(at, endpoint));
        }
    }
}

impl Watched {
    fn new(plan: Plan) -> Self {
        // An empty set of its own: no cluster's is the same.
        Self { plan: Arc::new(plan), endpoints: Arc::default(), usable: 0, requests: 0, busy: None }
    }

    /// Whether requests are in flight, or have been since this was last asked.
    fn has_traffic(&mut self) -> bool {
        let before = std::mem::replace(&mut self.requests, requests(&self.endpoints));
        self.requests != before || self.endpoints.endpoints().iter().any(|endpoint| endpoint.active() > 0)
    }

    fn is_idle(&self, now: Duration) -> bool {
        self.busy.is_none_or(|busy| now.saturating_sub(busy) >= self.plan.check.interval)
    }
}

fn requests(set: &EndpointSet) -> u64 {
    set.endpoints().iter().map(|endpoint| endpoint.requests()).sum()
}

fn same(old: &Plan, new: &Plan) -> bool {
    let Plan { cluster: _, check, protocol, tls } = new;
    let key = |tls: &Option<Arc<ClientTls>>| tls.as_ref().map(|tls| tls.key());
    (&old.check, old.protocol, key(&old.tls)) == (check, *protocol, key(tls))
}

#[cfg(test)]
#[path = "watchlist_tests.rs"]
mod tests;
