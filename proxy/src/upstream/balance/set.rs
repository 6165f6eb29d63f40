//! The endpoints of a cluster at one moment, by level, and the way from a request to one of them.

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::model::{Balance, Cluster, Percent};

use super::super::endpoint::{Availability, Endpoint};
use super::draw::{Draw, is_open};
use super::failover::{self, ALL, Count};
use super::hash::mix;
use super::level::Level;

/// How a cluster balances; a change is a new set.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// How one of several endpoints is chosen.
    pub balance: &'a Balance,
    /// How long the share of an endpoint grows that is new, or was away. Hash balancers have no use for it: a key has
    /// one endpoint.
    pub slow_start: Duration,
    /// When less than this share of a level is available, and all levels together are not well enough to do without
    /// it, all of its endpoints are used. [`Percent::ZERO`] never does that.
    pub panic_threshold: Percent,
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Self { balance: &Balance::PeakEwma, slow_start: Duration::ZERO, panic_threshold: Percent::ZERO }
    }
}

impl<'a> From<&'a Cluster> for Settings<'a> {
    fn from(cluster: &'a Cluster) -> Self {
        Self {
            balance: &cluster.balance,
            slow_start: cluster.slow_start,
            panic_threshold: cluster.panic_threshold,
        }
    }
}

/// What a pick depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickFacts<'a> {
    /// Since the process started.
    pub now: Duration,
    /// What of the request decides its endpoint ([`hash_of`](super::hash_of)); without it, hash balancers pick at
    /// random, and others do not look at it.
    pub hash: Option<u64>,
    /// Endpoints, by their ids, that were tried already and are not tried again.
    pub tried: &'a [u64],
}

/// The endpoint for a request.
#[derive(Clone, Copy, Debug)]
pub struct Picked<'a> {
    /// Where it goes.
    pub endpoint: &'a Arc<Endpoint>,
    /// Too few are available, so that nobody looked whether this one is.
    pub panic: bool,
}

/// A level, for those who watch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelHealth {
    /// Its priority.
    pub priority: u8,
    /// Its endpoints.
    pub endpoints: usize,
    /// Those that were available when it was last looked.
    pub available: usize,
    /// Its share of the requests, from 0 to 1.
    pub load: f64,
    /// All of its endpoints are used, available or not.
    pub panic: bool,
}

/// The endpoints of a cluster at one moment, with what choosing needs worked out ahead.
#[derive(Debug)]
pub struct EndpointSet {
    /// Level by level, in each in the order they were given.
    endpoints: Vec<Arc<Endpoint>>,
    /// The first to be used first; none is empty.
    levels: Box<[Level]>,
    slow_start: Duration,
    panic_threshold: Percent,
    hashes: bool,
}

impl Default for EndpointSet {
    fn default() -> Self {
        Self::new(Vec::new(), Settings::default())
    }
}

impl EndpointSet {
    /// Priorities and weights are read once: where they change, a new set is made.
    pub fn new(mut endpoints: Vec<Arc<Endpoint>>, settings: Settings<'_>) -> Self {
        let Settings { balance, slow_start, panic_threshold } = settings;
        endpoints.sort_by_key(|endpoint| endpoint.priority());
        let mut first = 0;
        let level = |members: &[Arc<Endpoint>]| {
            let level = Level::new(first, members, balance);
            first += members.len();
            level
        };
        let levels = endpoints.chunk_by(|a, b| a.priority() == b.priority()).map(level).collect();
        let hashes = matches!(balance, Balance::RingHash(_) | Balance::Maglev(_));
        let set = Self { endpoints, levels, slow_start, panic_threshold, hashes };
        set.refresh();
        set
    }

    /// The endpoints, those of the first level first.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Counts who is available, and shares the requests out to the levels accordingly. To be called when the health of
    /// an endpoint changes, and now and then by a sweep: it looks at every endpoint, may run in several threads at once,
    /// and the one that ends last may have begun first. What it leaves is a hint.
    pub fn refresh(&self) {
        let counts: Vec<Count> =
            self.levels.iter().map(|level| level.count(level.of(&self.endpoints))).collect();
        let mut until = 0;
        for (level, share) in self.levels.iter().zip(failover::shares(&counts, self.panic_threshold)) {
            until += share.load;
            level.set_share(until, share.panic);
        }
    }

    /// The levels, as [`Self::refresh`] last found them.
    pub fn levels(&self) -> impl Iterator<Item = LevelHealth> {
        self.levels.iter().scan(0, |from, level| {
            let load = level.until().saturating_sub(*from) as f64 / ALL as f64;
            *from = level.until();
            Some(LevelHealth {
                priority: level.priority(),
                endpoints: level.of(&self.endpoints).len(),
                available: level.available(),
                load,
                panic: level.panics(),
            })
        })
    }

    /// The endpoint for a request; `None` when nobody may take it.
    ///
    /// `claim` is asked about an endpoint that is half open, and says whether this request wins a permit to probe it.
    /// Once it says yes, that endpoint is the one: no permit is ever taken in vain. In between it may be asked about
    /// several, and about one more than once.
    pub fn pick<'s>(
        &'s self,
        facts: &PickFacts<'_>,
        mut random: impl FnMut() -> u64,
        claim: impl FnMut(&Arc<Endpoint>) -> bool,
    ) -> Option<Picked<'s>> {
        let hash = match (self.hashes, facts.hash) {
            (true, Some(hash)) => hash,
            (true, None) => random(),
            (false, _) => 0,
        };
        let drawn = self.level(hash, &mut random)?;
        let mut draw =
            Draw { now: facts.now, hash, tried: facts.tried, slow_start: self.slow_start, random, claim };
        let mut ask = |level: &'s Level, panic: bool| {
            let members = level.of(&self.endpoints);
            draw.from(level, members, panic).map(|position| Picked { endpoint: &members[position], panic })
        };
        if let Some(picked) = ask(drawn, drawn.panics()) {
            return Some(picked);
        }
        // The counts are behind, or all of this level have been tried.
        let others = || self.levels.iter().filter(|level| !std::ptr::eq(*level, drawn));
        if let Some(picked) = others().find_map(|level| ask(level, level.panics())) {
            return Some(picked);
        }
        if self.panic_threshold == Percent::ZERO || self.any_available() {
            return None;
        }
        std::iter::once(drawn).chain(others()).find_map(|level| ask(level, true))
    }

    /// Whether [`Self::pick`] would find an endpoint but for those that were tried, without a permit to probe one.
    pub fn has_any(&self, tried: &[u64]) -> bool {
        let may =
            |level: &Level, panic: bool| level.of(&self.endpoints).iter().any(|e| is_open(e, tried, panic));
        self.levels.iter().any(|level| may(level, level.panics()))
            || self.panic_threshold > Percent::ZERO
                && !self.any_available()
                && self.levels.iter().any(|level| may(level, true))
    }

    /// The level whose turn it is. A key stays with its level while shares stay: the hash decides, but not with the
    /// bits that decide within the level.
    fn level(&self, hash: u64, mut random: impl FnMut() -> u64) -> Option<&Level> {
        let first = self.levels.first()?;
        if self.levels.len() == 1 || first.until() >= ALL {
            return Some(first);
        }
        let point = if self.hashes { mix(hash ^ ALL) } else { random() } >> 32;
        Some(self.levels.iter().find(|level| point < level.until()).unwrap_or(first))
    }

    fn any_available(&self) -> bool {
        self.endpoints.iter().any(|e| e.availability() == Availability::Available)
    }
}
