//! The endpoints among which one is drawn: those of one priority, and where zones are weighed, of one zone. How one of
//! them is chosen, and what is known of their health as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use outrigger_proto::model::Balance;

use super::super::endpoint::{Availability, Endpoint};
use super::failover::{ALL, Count};
use super::hash::xxh64;
use super::maglev::Maglev;
use super::ring::Ring;
use super::weights::{Schedule, Weights};
use super::zone::{self, Placed, Zone};

/// Endpoints of one priority, and of one zone where zones are weighed, unless keys are hashed. Positions are relative to
/// its first.
#[derive(Debug)]
pub(super) struct Group {
    priority: u8,
    /// Where its endpoints begin among those of the set.
    first: usize,
    /// Where zones are weighed: its own, or all of the level if keys are hashed.
    zones: Box<[Zone]>,
    pub(super) weights: Weights,
    pub(super) how: How,
    /// Where its share of the requests ends; it begins where that of the group before ends. Of [`ALL`].
    until: AtomicU64,
    panic: AtomicBool,
    available: AtomicUsize,
    /// Since when the oldest of those available is in use, in nanoseconds.
    eldest: AtomicU64,
}

/// How one of the endpoints is chosen.
#[derive(Debug)]
pub(super) enum How {
    PeakEwma,
    LeastRequest,
    RoundRobin(Schedule),
    Random,
    Ring(Ring, Keys),
    Maglev(Maglev, Keys),
}

/// A number for each endpoint that is the same for all proxies: the hash of its address as text.
#[derive(Debug)]
pub(super) struct Keys(pub(super) Box<[u64]>);

impl Group {
    /// Of `members`, at least one, the first of which stands at `first` in the set.
    pub(super) fn new(first: usize, members: &[Placed], balance: &Balance) -> Self {
        let zones = zone::zones(members);
        let weights = zone::weights(members);
        let key = |placed: &Placed| xxh64(placed.endpoint.at().label.as_bytes());
        let keys = || members.iter().map(key).collect::<Box<[u64]>>();
        let how = match balance {
            Balance::PeakEwma => How::PeakEwma,
            Balance::LeastRequest => How::LeastRequest,
            Balance::RoundRobin => How::RoundRobin(Schedule::new(&weights)),
            Balance::Random => How::Random,
            Balance::RingHash(_) => {
                let keys = keys();
                How::Ring(Ring::new(&keys, &zone::hashed_weights(members, &zones)), Keys(keys))
            }
            Balance::Maglev(_) => {
                let keys = keys();
                How::Maglev(Maglev::new(&keys, &zone::hashed_weights(members, &zones)), Keys(keys))
            }
        };
        Self {
            priority: members[0].priority(),
            first,
            zones,
            weights: Weights::new(&weights),
            how,
            until: AtomicU64::new(ALL),
            panic: AtomicBool::new(false),
            available: AtomicUsize::new(0),
            eldest: AtomicU64::new(0),
        }
    }

    /// Its endpoints, of those of the set.
    pub(super) fn of<'s>(&self, endpoints: &'s [Arc<Endpoint>]) -> &'s [Arc<Endpoint>] {
        &endpoints[self.first..self.first + self.weights.len()]
    }

    pub(super) fn priority(&self) -> u8 {
        self.priority
    }

    pub(super) fn zones(&self) -> &[Zone] {
        &self.zones
    }

    /// What its zone weighs; without one it stands beside no other.
    pub(super) fn zone_weight(&self) -> u32 {
        self.zones.first().map_or(1, |zone| zone.weight)
    }

    pub(super) fn until(&self) -> u64 {
        self.until.load(Relaxed)
    }

    pub(super) fn panics(&self) -> bool {
        self.panic.load(Relaxed)
    }

    pub(super) fn available(&self) -> usize {
        self.available.load(Relaxed)
    }

    pub(super) fn eldest(&self) -> Duration {
        Duration::from_nanos(self.eldest.load(Relaxed))
    }

    /// Counts `members`, which are its own.
    pub(super) fn count(&self, members: &[Arc<Endpoint>]) -> Count {
        let (mut available, mut half_open, mut eldest) = (0, 0, Duration::MAX);
        for endpoint in members {
            match endpoint.availability() {
                Availability::Available => {
                    available += 1;
                    eldest = eldest.min(endpoint.since());
                }
                Availability::HalfOpen => half_open += 1,
                Availability::Unavailable => {}
            }
        }
        let eldest = if available == 0 { Duration::ZERO } else { eldest };
        self.available.store(available, Relaxed);
        self.eldest.store(eldest.as_nanos() as u64, Relaxed);
        Count { available, half_open, all: members.len() }
    }

    pub(super) fn set_share(&self, until: u64, panic: bool) {
        self.until.store(until, Relaxed);
        self.panic.store(panic, Relaxed);
    }
}
