//! Clusters while they live: their endpoints and figures, kept over every change of configuration that does not name
//! them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use outrigger_proto::model::{
    self, Address, Assignment, BreakerLimits, Destination, DnsUse, Name, OutlierDetection, Priority, Source,
};
use outrigger_proto::xds::events::{EndpointEjected, EndpointReturned, What};
use tokio::time::Instant;

use super::balance::{EndpointSet, Settings};
use super::breaker::Breaker;
use super::endpoint::Endpoint;
use super::health::{Health, Record};
use super::latencies::Latencies;
use super::original::{Common, Originals};
use super::outlier::{Cause, Change, Detector, Scene, Standing, Verdict};
use super::subset::{self, Subset, Subsets};
use super::tls::ClientTls;
use crate::observe::{ClusterStats, Registry};

/// Live state of a cluster, shared by all workers.
#[derive(Debug)]
pub struct Cluster {
    name: Name,
    /// Those among which there is a choice. Who is named is not among them: a request that began while there was one may
    /// choose later than others name.
    pub(super) endpoints: ArcSwap<EndpointSet>,
    pub(super) originals: Originals,
    pub(super) common: Arc<Common>,
    subsets: ArcSwapOption<Subsets>,
    stats: OnceLock<Arc<ClusterStats>>,
    breaker: Arc<Breaker>,
    /// That of requests with a higher priority; there from the first of them on.
    high: OnceLock<Arc<Breaker>>,
    latencies: OnceLock<Box<Latencies>>,
    /// As it was last configured; held while the set of endpoints is made anew.
    pub(super) config: Mutex<Option<Arc<model::Cluster>>>,
    detector: Mutex<Detector>,
    registry: Registry,
    /// A control plane has told it, and not the process's own file.
    told: AtomicBool,
}

impl Cluster {
    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Whether a control plane has told it.
    pub fn set_told(&self, told: bool) {
        self.told.store(told, Relaxed);
    }

    /// Whether it may not go to this address: who tells clusters from afar is not to ask what the operator alone may.
    pub(super) fn is_kept_from(&self, address: &Address) -> bool {
        self.told.load(Relaxed) && self.common.leads_to_admin(address)
    }

    /// Its endpoints now, under the configuration in force: those that are named, where they are.
    pub fn endpoints(&self) -> arc_swap::Guard<Arc<EndpointSet>> {
        if self.originals.are_in_force() { self.originals.set() } else { self.endpoints.load() }
    }

    /// A part of it. One that is not configured has no endpoint.
    pub fn subset(&self, name: &Name) -> Arc<Subset> {
        self.subsets.load().as_ref().and_then(|subsets| subsets.get(name)).cloned().unwrap_or_default()
    }

    /// Counts anew who is available, in all of it and in each part. To be called when the health of an endpoint changes.
    pub fn refresh(&self) {
        self.endpoints.load().refresh();
        self.originals.set().refresh();
        if let Some(subsets) = &*self.subsets.load() {
            subsets.values().for_each(|subset| subset.endpoints().refresh());
        }
    }

    /// What it is burdened with by a class of requests; `None` by one of which there has never been any.
    pub fn breaker(&self, priority: Priority) -> Option<&Arc<Breaker>> {
        match priority {
            Priority::Default => Some(&self.breaker),
            Priority::High => self.high.get(),
        }
    }

    fn breaker_or_new(&self, priority: Priority) -> &Arc<Breaker> {
        match priority {
            Priority::Default => &self.breaker,
            Priority::High => self.high.get().unwrap_or_else(|| {
                // Under the lock until it is there, or it could miss a configuration that comes just now.
                let config = guard(&self.config);
                let limits = config.as_deref().map(|config| config.circuit_breaker).unwrap_or_default();
                self.high.get_or_init(|| Breaker::new(priority, limits.of(priority)))
            }),
        }
    }

    /// How long its responses lately took; noted from the first time that somebody asks.
    pub fn latencies(&self) -> &Latencies {
        self.latencies.get_or_init(Box::default)
    }

    /// The head of a response came.
    pub(super) fn answered(&self, took: Duration, now: Duration) {
        if let Some(latencies) = self.latencies.get() {
            latencies.record(took, now);
        }
    }

    /// Does what outlier detection wants after an outcome at an endpoint was recorded. Takes a lock, but only where there
    /// is something to be done.
    pub(super) fn obey(
        &self,
        verdict: Verdict,
        endpoint: &Endpoint,
        (rules, now): (&OutlierDetection, Duration),
        random: impl FnOnce() -> u64,
    ) {
        let change = match verdict {
            Verdict::Nothing => return,
            Verdict::Returned => Some(Change::Returned),
            Verdict::Eject(cause) => {
                let mut detector = guard(&self.detector);
                // Under the lock, or the share that may be out could be counted of a set that is no more.
                let endpoints = self.endpoints();
                let scene = Scene { endpoints: &standings(&endpoints), config: rules, now };
                detector.eject(endpoint.standing(), cause, scene, random())
            }
        };
        if let Some(change) = change {
            self.note(endpoint, change, now);
            self.refresh();
        }
    }

    /// Endpoints are gone: of fewer, fewer may be left out.
    fn fit(&self, rules: &OutlierDetection, now: Duration) {
        let endpoints = self.endpoints();
        let changes = guard(&self.detector).fit(&standings(&endpoints), rules);
        self.note_all(&endpoints, &changes, now);
        self.refresh();
    }

    fn note_all(&self, endpoints: &EndpointSet, changes: &[(usize, Change)], now: Duration) {
        for (position, change) in changes {
            self.note(&endpoints.endpoints()[*position], *change, now);
        }
    }

    fn note(&self, endpoint: &Endpoint, change: Change, now: Duration) {
        let at = endpoint.at();
        let label = &*at.label;
        match change {
            Change::Ejected { cause, length } => {
                let cause = cause.as_str();
                self.stats().ejected(cause);
                tracing::info!(cluster = %self.name, endpoint = label, cause, ?length, "endpoint ejected");
                // Who has failed its probe has not returned.
                if cause != Cause::Probe.as_str() {
                    let (cluster, endpoint) = (self.name.to_string(), label.to_owned());
                    let (cause, length) = (cause.to_owned(), length.try_into().ok());
                    self.tell(What::Ejected(EndpointEjected { cluster, endpoint, cause, length }));
                }
            }
            Change::Spared(cause) => {
                self.stats().spared.increment(1);
                // It was out until its probe failed.
                if cause == Cause::Probe {
                    self.note(endpoint, Change::Returned, now);
                }
            }
            Change::HalfOpen => {}
            Change::Returned => {
                endpoint.set_since(now);
                tracing::info!(cluster = %self.name, endpoint = label, "endpoint returned");
                self.tell_returned(endpoint, false);
            }
        }
    }

    fn tell_returned(&self, endpoint: &Endpoint, gone: bool) {
        let (cluster, endpoint) = (self.name.to_string(), endpoint.at().label.to_string());
        self.tell(What::Returned(EndpointReturned { cluster, endpoint, gone }));
    }

    /// An endpoint has left it.
    fn retire(&self, endpoint: &Endpoint) {
        if endpoint.standing().is_ejected() {
            self.tell_returned(endpoint, true);
        }
        endpoint.retire();
    }

    fn tell(&self, what: What) {
        self.registry.journal().note(what, SystemTime::now());
    }

    /// Its figures, if anybody has used them.
    pub fn stats_in_use(&self) -> Option<&Arc<ClusterStats>> {
        self.stats.get()
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
    pub config: Arc<model::Cluster>,
    /// Its live state.
    pub live: Arc<Cluster>,
    /// TLS towards its endpoints, with its material loaded.
    pub tls: Option<Arc<ClientTls>>,
    /// The part of it that is meant; all of it without one.
    pub subset: Option<Arc<Subset>>,
}

impl ClusterView {
    /// The endpoints to choose from, now. Those that are named are none of them, not even where the cluster has become one
    /// whose endpoints are: whoever sees it so under this configuration has named nothing.
    pub fn endpoints(&self) -> arc_swap::Guard<Arc<EndpointSet>> {
        match &self.subset {
            None => self.live.endpoints.load(),
            Some(subset) => subset.endpoints(),
        }
    }
}

impl ClusterView {
    /// What counts the requests of a class, and what limits them.
    pub fn breaker(&self, priority: Priority) -> (&Arc<Breaker>, &BreakerLimits) {
        (self.live.breaker_or_new(priority), self.config.circuit_breaker.of(priority))
    }
}

/// All clusters that live, by name. Management changes it; workers hold the clusters themselves.
#[derive(Debug)]
pub struct Clusters {
    registry: Registry,
    /// When the process started.
    epoch: Instant,
    by_name: Mutex<HashMap<Name, Arc<Cluster>>>,
    common: Arc<Common>,
}

impl Clusters {
    /// None yet; `epoch` is when the process started.
    pub fn new(registry: Registry, epoch: Instant) -> Self {
        Self { registry, epoch, by_name: Mutex::default(), common: Arc::default() }
    }

    /// The cluster of this name, made now if there is none.
    pub fn get_or_make(&self, name: &Name) -> Arc<Cluster> {
        self.lock().entry(name.clone()).or_insert_with(|| self.make(name)).clone()
    }

    /// In place of a cluster, or a part of one, that something leads to and nobody has: without an endpoint, and none of
    /// those that live.
    pub fn absent(&self, to: &Destination) -> ClusterView {
        let config = Arc::new(model::Cluster::new(Source::Static));
        ClusterView { config, live: self.make(&to.cluster), tls: None, subset: None }
    }

    fn make(&self, name: &Name) -> Arc<Cluster> {
        Arc::new(Cluster {
            name: name.clone(),
            endpoints: ArcSwap::default(),
            originals: Originals::default(),
            common: self.common.clone(),
            subsets: ArcSwapOption::empty(),
            stats: OnceLock::new(),
            breaker: Breaker::new(Priority::Default, &BreakerLimits::default()),
            high: OnceLock::new(),
            latencies: OnceLock::new(),
            config: Mutex::default(),
            detector: Mutex::new(Detector::new(self.epoch.elapsed())),
            registry: self.registry.clone(),
            told: AtomicBool::new(false),
        })
    }

    /// A cluster is configured so, from now on. Its endpoints stay, and so do its subsets: which endpoints are in them is
    /// decided when it is next assigned some, as their labels may change together.
    pub fn configure(&self, cluster: &Cluster, config: &Arc<model::Cluster>) {
        let mut current = guard(&cluster.config);
        let same = |old: &model::Cluster| {
            (&old.balance, old.slow_start, old.panic_threshold, &old.zone_weights)
                == (&config.balance, config.slow_start, config.panic_threshold, &config.zone_weights)
        };
        let changed = !current.as_deref().is_some_and(same);
        *current = Some(config.clone());
        for priority in [Priority::Default, Priority::High] {
            if let Some(breaker) = cluster.breaker(priority) {
                breaker.configure(config.circuit_breaker.of(priority));
            }
        }
        if changed {
            let endpoints = cluster.endpoints.load().endpoints().to_vec();
            cluster.endpoints.store(Arc::new(EndpointSet::new(endpoints, (&**config).into())));
        }
        cluster.originals.configure(config);
    }

    /// The endpoints of a cluster, from now on. Those it had before keep their state and their connections; those no
    /// longer named finish what they have.
    pub fn assign(&self, cluster: &Cluster, assignment: &Assignment) {
        let config = guard(&cluster.config);
        let old = cluster.endpoints.load_full();
        let source = config.as_deref().map(|config| &config.source);
        if let (Some(Source::Dns { uses: DnsUse::First, .. }), [only], [wanted]) =
            (source, old.endpoints(), assignment.endpoints.as_slice())
            && !only.is_retired()
        {
            only.move_to(&wanted.address);
        }
        // Who was retired, as the endpoints were named meanwhile, does not come back.
        let old = old.endpoints().iter().filter(|e| !e.is_retired());
        let mut known: HashMap<Address, &Arc<Endpoint>> = old.map(|e| (e.at().address.clone(), e)).collect();
        let now = self.epoch.elapsed();
        let is_well = |e: &Endpoint| e.health().record().health == Health::Healthy;
        // Beside others that are known to be well, a new one first shows that it is.
        let beside_well =
            assignment.endpoints.iter().any(|w| known.get(&w.address).is_some_and(|e| is_well(e)));
        let health = if beside_well { Record::AWAITED } else { Record::default() };
        let endpoint = |wanted: &model::Endpoint| {
            let model::Endpoint { address, weight, priority, zone, labels } = wanted;
            let endpoint = known.remove(address).cloned().unwrap_or_else(|| {
                let id = self.common.next_endpoint();
                let endpoint = Endpoint::new(id, address.clone(), weight.get()).with_health(health);
                endpoint.set_since(now);
                Arc::new(endpoint)
            });
            endpoint.set_weight(weight.get());
            endpoint.set_priority(*priority);
            endpoint.set_zone(zone.as_deref());
            endpoint.set_labels(labels);
            endpoint
        };
        let endpoints = assignment.endpoints.iter().map(endpoint).collect();
        let settings = config.as_deref().map(Settings::from).unwrap_or_default();
        let new = Arc::new(EndpointSet::new(endpoints, settings));
        cluster.endpoints.store(new.clone());
        let subsets = |config: &Arc<model::Cluster>| {
            subset::make(config, new.endpoints(), cluster.subsets.load().as_deref())
        };
        cluster.subsets.store(config.as_ref().and_then(subsets));
        for gone in known.into_values() {
            cluster.retire(gone);
        }
        if let Some(rules) = config.as_ref().and_then(|config| config.outlier_detection.as_ref()) {
            cluster.fit(rules, now);
        }
    }

    /// The configuration that a cluster was given last is in force: of what it was before, the rest goes. Not earlier, or
    /// requests that still begin under the one before would find nothing.
    pub fn settle(&self, cluster: &Cluster) {
        cluster.settle();
    }

    /// The process answers its operator there; clusters of a control plane do not lead there.
    pub fn admin_listens_on(&self, address: Option<Address>) {
        self.common.admin.store(address.map(Arc::new));
    }

    /// The process listens on these addresses, and on no others: no request is sent there that names its endpoint.
    pub fn listens_on(&self, addresses: Vec<SocketAddr>) {
        if self.common.own.set(addresses) {
            self.all().iter().for_each(|cluster| cluster.forget_own());
        }
    }

    /// Ends ejections, and judges endpoints by shares and means, where that is due. To be called more often than any
    /// interval.
    pub fn sweep(&self, mut random: impl FnMut() -> u64) {
        let now = self.epoch.elapsed();
        let all: Vec<_> = self.lock().values().cloned().collect();
        for cluster in all {
            let config = guard(&cluster.config).clone();
            if cluster.forget_unused(now)
                && let Some(rules) = config.as_ref().and_then(|config| config.outlier_detection.as_ref())
            {
                cluster.fit(rules, now);
            }
            let mut detector = guard(&cluster.detector);
            let endpoints = cluster.endpoints();
            let rules = config.as_ref().and_then(|config| config.outlier_detection);
            let out = || endpoints.endpoints().iter().any(|endpoint| endpoint.standing().is_ejected());
            let due = match &rules {
                Some(rules) => now >= detector.due(rules.interval),
                None => out(),
            };
            if due {
                let changes = detector.sweep(&standings(&endpoints), rules.as_ref(), now, &mut random);
                cluster.note_all(&endpoints, &changes, now);
            }
            drop(detector);
            // Elsewhere nothing changes by itself.
            if due || config.is_some_and(|config| config.health_check.is_some()) {
                cluster.refresh();
            }
        }
    }

    /// Forgets clusters that `keep` does not name, and their figures. A request that was routed before finds the endpoints
    /// that it was to find: it lives under one configuration from its start to its end.
    pub fn retain(&self, keep: impl Fn(&Name) -> bool) {
        self.lock().retain(|name, cluster| {
            let kept = keep(name);
            if !kept {
                cluster.endpoints.load().endpoints().iter().for_each(|endpoint| cluster.retire(endpoint));
                cluster.end_names();
                self.registry.retire("cluster", name.as_str());
            }
            kept
        });
    }

    /// How many requests and connections were led to the cluster of this name, and whether some are under way; `None` where
    /// there is none.
    pub fn used(&self, name: &Name) -> Option<(u64, bool)> {
        let cluster = self.lock().get(name).cloned()?;
        Some(cluster.stats_in_use().map(|stats| stats.used()).unwrap_or_default())
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

/// Nothing is done under these locks that could leave what they guard half changed.
pub(super) fn guard<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn standings(endpoints: &EndpointSet) -> Vec<&Standing> {
    endpoints.endpoints().iter().map(|endpoint| &**endpoint.standing()).collect()
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
