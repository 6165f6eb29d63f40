//! One endpoint while we know it: how busy, how fast, whether it is still ours. It outlives configurations.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use outrigger_proto::model::{Address, Labels};

use super::dialled::Ours;
use super::health::{HealthCell, Record};
use super::outlier::{Phase, Standing};
use super::pool::PoolKey;
use crate::facts::Proof;
use crate::gate::{Gate, Permit};
use crate::identity::Identity;
use crate::identity::verify::Usage;
use crate::observe::ClusterStats;

/// How long a latency is remembered: after this much time without news, a third of it still counts.
const MEMORY: Duration = Duration::from_secs(10);
/// What a failed connection counts for: slow enough to be avoided while others answer, forgotten with the rest.
const FAILURE: Duration = Duration::from_secs(2);

/// How long an endpoint that failed is avoided while others are there.
const SUSPICION: Duration = Duration::from_secs(3);

/// Whether an endpoint may take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Any.
    Available,
    /// One that wins a permit to probe it.
    HalfOpen,
    /// None.
    Unavailable,
}

/// Where an endpoint is.
#[derive(Debug)]
pub struct At {
    /// Its address.
    pub address: Address,
    /// The same as text.
    pub label: Box<str>,
}

impl At {
    fn new(address: Address) -> Self {
        Self { label: address.to_string().into(), address }
    }
}

/// Live state of an endpoint, shared by all workers.
#[derive(Debug)]
pub struct Endpoint {
    id: u64,
    at: ArcSwap<At>,
    weight: AtomicU32,
    priority: AtomicU8,
    zone: Mutex<Option<Box<str>>>,
    labels: Mutex<Labels>,
    /// Since when it is in use without a break, in nanoseconds.
    since: AtomicU64,
    standing: Arc<Standing>,
    retired: AtomicBool,
    active: AtomicU32,
    connections: AtomicU32,
    requests: AtomicU64,
    failures: AtomicU64,
    faults: AtomicU64,
    /// When the last request got no response, in nanoseconds; 0 once one did.
    failed_at: AtomicU64,
    latency: Latency,
    health: HealthCell,
}

impl Endpoint {
    /// `id` is never used twice in a process.
    pub fn new(id: u64, address: Address, weight: u32) -> Self {
        Self {
            id,
            at: ArcSwap::from_pointee(At::new(address)),
            weight: AtomicU32::new(weight),
            priority: AtomicU8::new(0),
            zone: Mutex::default(),
            labels: Mutex::default(),
            since: AtomicU64::new(0),
            standing: Arc::default(),
            retired: AtomicBool::new(false),
            active: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            failed_at: AtomicU64::new(0),
            latency: Latency::default(),
            health: HealthCell::default(),
        }
    }

    /// The same, with this health to begin with.
    #[must_use]
    pub fn with_health(self, record: Record) -> Self {
        Self { health: HealthCell::new(record), ..self }
    }

    /// What its checks came to.
    pub fn health(&self) -> &HealthCell {
        &self.health
    }

    /// Whether its checks let it have requests; always, where nobody checks.
    pub fn is_healthy(&self) -> bool {
        self.health.is_usable()
    }

    /// Distinguishes it from every other endpoint this process ever had.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where it is; of one that has moved, where connections are made from now on.
    pub fn at(&self) -> arc_swap::Guard<Arc<At>> {
        self.at.load()
    }

    /// It is elsewhere. Connections that it has stay, and are used.
    pub fn move_to(&self, address: &Address) {
        if self.at.load().address != *address {
            self.at.store(Arc::new(At::new(address.clone())));
        }
    }

    /// Its share of the load, relative to the others'.
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Changes its share.
    pub fn set_weight(&self, weight: u32) {
        self.weight.store(weight, Relaxed);
    }

    /// Its level: 0 is used first.
    pub fn priority(&self) -> u8 {
        self.priority.load(Relaxed)
    }

    /// Moves it to another level; for the next set.
    pub fn set_priority(&self, priority: u8) {
        self.priority.store(priority, Relaxed);
    }

    /// Where it stands, for those who look.
    pub fn zone(&self) -> Option<Box<str>> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It stands there.
    pub fn set_zone(&self, zone: Option<&str>) {
        *self.zone.lock().unwrap_or_else(PoisonError::into_inner) = zone.map(Box::from);
    }

    /// Its labels, for those who look.
    pub fn labels(&self) -> Labels {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it has all of these.
    pub fn has_labels(&self, wanted: &Labels) -> bool {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner).has_all(wanted)
    }

    /// It has these. Subsets are made anew for it to count.
    pub fn set_labels(&self, labels: &Labels) {
        *self.labels.lock().unwrap_or_else(PoisonError::into_inner) = labels.clone();
    }

    /// Since when it is in use without a break (since the process started): what a slow start is measured from.
    pub fn since(&self) -> Duration {
        Duration::from_nanos(self.since.load(Relaxed))
    }

    /// It is in use from now on, or again.
    pub fn set_since(&self, since: Duration) {
        self.since.store(since.as_nanos() as u64, Relaxed);
    }

    /// How it stands with its cluster's outlier detection.
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Whether it may take a request.
    pub fn availability(&self) -> Availability {
        if !self.is_healthy() {
            return Availability::Unavailable;
        }
        match self.standing.phase() {
            Phase::Healthy => Availability::Available,
            Phase::HalfOpen | Phase::Probing { since: _ } => Availability::HalfOpen,
            Phase::Ejected { until: _ } => Availability::Unavailable,
        }
    }

    /// Makes it so, for tests of those who ask.
    #[cfg(test)]
    pub(super) fn set_availability(&self, to: Availability) {
        self.standing.set(match to {
            Availability::Available => Phase::Healthy,
            Availability::HalfOpen => Phase::HalfOpen,
            Availability::Unavailable => Phase::Ejected { until: Duration::MAX },
        });
    }

    /// It is no longer in its cluster: requests in flight finish, connections are not used again.
    pub fn retire(&self) {
        self.retired.store(true, Relaxed);
    }

    /// Whether it has left its cluster.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Relaxed)
    }

    /// Requests in flight, over all workers.
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Open connections, over all workers.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Requests sent so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Requests that got no response.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Requests that it answered with a fault of its own: 5xx, or what gRPC has for that.
    pub fn faults(&self) -> u64 {
        self.faults.load(Relaxed)
    }

    /// Its latency as the balancer sees it.
    pub fn latency(&self, now: Duration) -> Duration {
        Duration::from_nanos(self.latency.at(now) as u64)
    }

    /// What one more request there would cost: latency x requests in flight, those by its `share`: its weight over the
    /// mean of those it is compared with.
    pub fn cost(&self, now: Duration, share: f64) -> f64 {
        let waiting = f64::from(self.active()) / share;
        let latency = self.latency.at(now);
        // Nothing is known of its speed and an answer is awaited: others first, or a new endpoint would get all.
        if latency == 0.0 && waiting > 0.0 { 1e9 + waiting } else { latency * (waiting + 1.0) }
    }

    /// Whether it failed a moment ago, and has not answered since.
    pub fn is_suspect(&self, now: Duration) -> bool {
        match self.failed_at.load(Relaxed) {
            0 => false,
            at => now.saturating_sub(Duration::from_nanos(at)) < SUSPICION,
        }
    }

    /// How busy it is, by its `share` as above. One that fails at once is never busy, which must not make it attractive.
    pub fn load(&self, now: Duration, share: f64) -> f64 {
        let suspect = if self.is_suspect(now) { 1e6 } else { 0.0 };
        (f64::from(self.active()) + suspect) / share + 1.0
    }

    /// A request goes there; ended by [`Lease::drop`].
    pub fn lease(self: &Arc<Self>) -> Lease {
        self.active.fetch_add(1, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        Lease(self.clone())
    }

    /// The first byte of a response came `took` after the request was sent.
    pub fn answered(&self, took: Duration, now: Duration) {
        self.latency.observe(took, now);
        if self.failed_at.load(Relaxed) != 0 {
            self.failed_at.store(0, Relaxed);
        }
    }

    /// It answered with a fault of its own.
    pub fn note_fault(&self) {
        self.faults.fetch_add(1, Relaxed);
    }

    /// A request got no response.
    pub fn failed(&self, now: Duration) {
        self.failures.fetch_add(1, Relaxed);
        self.failed_at.store(now.as_nanos() as u64 | 1, Relaxed);
        self.latency.observe(FAILURE, now);
    }

    /// A connection for this pool was opened, as this permit allowed; closed by [`Open::drop`].
    pub fn opened(
        self: &Arc<Self>,
        stats: &Arc<ClusterStats>,
        (permit, pool): (Permit, PoolKey),
        proven: Option<Proven>,
    ) -> Open {
        self.connections.fetch_add(1, Relaxed);
        stats.connections.increment(1);
        stats.connections_total.increment(1);
        Open { endpoint: self.clone(), stats: stats.clone(), permit, pool, proven, _ours: None }
    }
}

/// A request in flight.
#[derive(Debug)]
pub struct Lease(Arc<Endpoint>);

impl Lease {
    /// Where it went.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Open {
    endpoint: Arc<Endpoint>,
    stats: Arc<ClusterStats>,
    permit: Permit,
    pool: PoolKey,
    proven: Option<Proven>,
    _ours: Option<Ours>,
}

/// What an endpoint has proven, and the version of what we believe by which that was last found good.
#[derive(Debug)]
pub struct Proven {
    proof: Proof,
    version: Cell<u64>,
}

impl Proven {
    /// It was found good just now.
    pub fn new(proof: Proof, identity: &Identity) -> Self {
        Self { proof, version: Cell::new(identity.trust_version()) }
    }

    /// Whether nothing has changed since it was found good.
    pub fn is_known_to(&self, identity: &Identity) -> bool {
        self.version.get() == identity.trust_version()
    }

    /// Whether it is still believed.
    pub fn is_believed(&self, identity: &Identity) -> bool {
        let current = identity.trust_version();
        let believed = self.version.get() == current || identity.still_believes(&self.proof, Usage::Server);
        if believed {
            self.version.set(current);
        }
        believed
    }
}

impl Open {
    /// The same, known as one of ours for as long as it is open.
    pub(super) fn known_as(mut self, ours: Option<Ours>) -> Self {
        self._ours = ours;
        self
    }

    /// What whoever is at the other end has proven, if anything.
    pub fn proven(&self) -> Option<&Proven> {
        self.proven.as_ref()
    }

    /// The same, to be kept elsewhere.
    pub fn take_proven(&mut self) -> Option<Proven> {
        self.proven.take()
    }

    /// What counts the cluster's connections.
    pub fn gate(&self) -> &Arc<Gate> {
        self.permit.gate()
    }

    /// Whose requests it carries.
    pub fn pool(&self) -> PoolKey {
        self.pool
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The figures of its cluster.
    pub fn stats(&self) -> &ClusterStats {
        &self.stats
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.endpoint.connections.fetch_sub(1, Relaxed);
        self.stats.connections.decrement(1);
    }
}

/// Peak-EWMA: rises at once to a slower answer, falls slowly, and fades while there is no news, so that an endpoint
/// that was slow is tried again. Two workers that write at once may lose one sample; nothing depends on a single one.
#[derive(Debug, Default)]
struct Latency {
    nanos: AtomicU64,
    stamp: AtomicU64,
}

impl Latency {
    fn at(&self, now: Duration) -> f64 {
        let nanos = f64::from_bits(self.nanos.load(Relaxed));
        if nanos == 0.0 {
            return 0.0;
        }
        nanos * fading(now.as_nanos() as u64, self.stamp.load(Relaxed))
    }

    fn observe(&self, took: Duration, now: Duration) {
        let took = (took.as_nanos() as f64).max(1.0);
        let now = now.as_nanos() as u64;
        let stamp = self.stamp.swap(now, Relaxed);
        let old = f64::from_bits(self.nanos.load(Relaxed));
        let kept = fading(now, stamp);
        let new = if took > old { took } else { old * kept + took * (1.0 - kept) };
        self.nanos.store(new.to_bits(), Relaxed);
    }
}

fn fading(now: u64, stamp: u64) -> f64 {
    let since = now.saturating_sub(stamp);
    (-(since as f64) / MEMORY.as_nanos() as f64).exp()
}

#[cfg(test)]
mod tests {
    use outrigger_proto::model::Priority;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn endpoint() -> Arc<Endpoint> {
        Arc::new(Endpoint::new(1, Address::Ip(([127, 0, 0, 1], 1).into()), 1))
    }

    #[test]
    fn latency_peaks_at_once_and_falls_slowly() {
        let endpoint = endpoint();
        endpoint.answered(10 * MS, Duration::ZERO);
        assert_eq!(endpoint.latency(Duration::ZERO), 10 * MS);
        endpoint.answered(100 * MS, MS);
        assert_eq!(endpoint.latency(MS), 100 * MS);
        endpoint.answered(10 * MS, 1001 * MS);
        let later = endpoint.latency(1001 * MS);
        assert!(later > 85 * MS && later < 95 * MS, "{later:?}");
    }

    #[test]
    fn a_slow_endpoint_is_tried_again_when_nothing_is_heard_of_it() {
        let endpoint = endpoint();
        endpoint.failed(Duration::ZERO);
        assert!(endpoint.cost(Duration::from_secs(60), 1.0) < endpoint.cost(Duration::ZERO, 1.0) / 100.0);
    }

    #[test]
    fn an_endpoint_of_unknown_speed_is_cheap_once() {
        let endpoint = endpoint();
        assert_eq!(endpoint.cost(Duration::ZERO, 1.0), 0.0);
        let _lease = endpoint.lease();
        assert!(endpoint.cost(Duration::ZERO, 1.0) > 1e8);
    }

    #[test]
    fn leases_and_connections_are_given_back() {
        let endpoint = endpoint();
        let stats = crate::observe::Registry::default().cluster("app");
        let permit = Gate::new(1).try_enter().expect("there is room");
        let pool = PoolKey::new(&endpoint, Priority::Default, 0);
        let (lease, open) = (endpoint.lease(), endpoint.opened(&stats, (permit, pool), None));
        assert_eq!((endpoint.active(), endpoint.connections(), endpoint.requests()), (1, 1, 1));
        drop((lease, open));
        assert_eq!((endpoint.active(), endpoint.connections(), endpoint.requests()), (0, 0, 1));
    }
}
