//! The endpoints of a cluster at one moment, by level, and the way from a request to one of them.

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::model::{Balance, Cluster, Percent};

use super::super::endpoint::Endpoint;
use super::draw::{Draw, is_open};
use super::failover::{self, ALL, Part};
use super::group::Group;
use super::hash::mix;
use super::zone::{Placed, Zone, ZoneWeights};

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
    /// What the zones of a level weigh, whatever their numbers of endpoints. One that is not named weighs 1. Without
    /// it, a zone is but a label.
    pub zone_weights: Option<&'a ZoneWeights>,
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Self {
            balance: &Balance::PeakEwma,
            slow_start: Duration::ZERO,
            panic_threshold: Percent::ZERO,
            zone_weights: None,
        }
    }
}

impl<'a> From<&'a Cluster> for Settings<'a> {
    fn from(cluster: &'a Cluster) -> Self {
        Self {
            balance: &cluster.balance,
            slow_start: cluster.slow_start,
            panic_threshold: cluster.panic_threshold,
            zone_weights: Some(&cluster.zone_weights).filter(|weights| !weights.is_empty()),
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

/// A level, for those who watch. Endpoints of zones that weigh nothing are no part of it.
#[derive(Clone, Debug, PartialEq)]
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
    /// Its zones, where they are weighed.
    pub zones: Vec<ZoneHealth>,
}

/// A zone of a level, for those who watch.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneHealth {
    /// Its name; `None` for those who stand nowhere.
    pub name: Option<Box<str>>,
    /// Its weight.
    pub weight: u32,
    /// Its endpoints.
    pub endpoints: usize,
    /// Those of them that are available now.
    pub available: usize,
    /// Its share of the requests of the cluster, from 0 to 1. Of a balancer by hash, the share of keys that its
    /// endpoints own.
    pub load: f64,
}

/// The endpoints of a cluster at one moment, with what choosing needs worked out ahead.
#[derive(Debug)]
pub struct EndpointSet {
    /// Level by level, in each by zone where zones are weighed, and else in the order they were given.
    endpoints: Vec<Arc<Endpoint>>,
    /// The first level to be used first, and those of a level side by side; none is empty.
    groups: Box<[Group]>,
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
    /// Priorities, zones and weights are read once: where they change, a new set is made.
    pub fn new(endpoints: Vec<Arc<Endpoint>>, settings: Settings<'_>) -> Self {
        let Settings { balance, slow_start, panic_threshold, zone_weights } = settings;
        let hashes = matches!(balance, Balance::RingHash(_) | Balance::Maglev(_));
        let mut placed: Vec<_> = endpoints.into_iter().map(|e| Placed::new(e, zone_weights)).collect();
        placed.sort_by(Placed::order);
        // A key is looked up among all zones: it must not move when their shares do.
        let beside = |a: &Placed, b: &Placed| match hashes {
            true => a.priority() == b.priority() && a.is_unused() == b.is_unused(),
            false => a.is_beside(b),
        };
        let mut first = 0;
        let group = |members: &[Placed]| {
            let group = (!members[0].is_unused()).then(|| Group::new(first, members, balance));
            first += members.len();
            group
        };
        let groups = placed.chunk_by(beside).filter_map(group).collect();
        let endpoints = placed.into_iter().map(|placed| placed.endpoint).collect();
        let set = Self { endpoints, groups, slow_start, panic_threshold, hashes };
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
        let part = |group: &Group| Part {
            weight: group.zone_weight(),
            count: group.count(group.of(&self.endpoints)),
        };
        let parts: Vec<Vec<Part>> = self.by_level().map(|groups| groups.iter().map(part).collect()).collect();
        let counts: Vec<_> = parts.iter().map(|parts| failover::sum(parts)).collect();
        let shares = failover::shares(&counts, self.panic_threshold);
        let mut from = 0;
        for ((groups, parts), share) in self.by_level().zip(&parts).zip(shares) {
            for (group, end) in groups.iter().zip(failover::divide(share, parts)) {
                group.set_share(from + end, share.panic);
            }
            from += share.load;
        }
    }

    /// The groups of each level.
    fn by_level(&self) -> impl Iterator<Item = &[Group]> {
        self.groups.chunk_by(|a, b| a.priority() == b.priority())
    }

    /// The levels, as [`Self::refresh`] last found them.
    pub fn levels(&self) -> impl Iterator<Item = LevelHealth> {
        self.by_level().scan(0, |from, groups| {
            let mut level = LevelHealth {
                priority: groups[0].priority(),
                endpoints: 0,
                available: 0,
                load: 0.0,
                panic: groups[0].panics(),
                zones: Vec::new(),
            };
            for group in groups {
                let load = group.until().saturating_sub(*from) as f64 / ALL as f64;
                *from = group.until();
                level.endpoints += group.of(&self.endpoints).len();
                level.available += group.available();
                level.load += load;
                level.zones.extend(self.zones(group, load));
            }
            Some(level)
        })
    }

    /// The zones of a group that has this share of the requests.
    fn zones<'s>(&'s self, group: &'s Group, load: f64) -> impl Iterator<Item = ZoneHealth> + 's {
        let all: f64 = group.zones().iter().map(|zone| f64::from(zone.weight)).sum();
        group.zones().iter().map(move |Zone { name, weight, members }| {
            let members = &group.of(&self.endpoints)[members.clone()];
            ZoneHealth {
                name: name.clone(),
                weight: *weight,
                endpoints: members.len(),
                available: members.iter().filter(|e| is_open(e, &[], false)).count(),
                load: load * f64::from(*weight) / all,
            }
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
        let turn = self.turn(hash, &mut random)?;
        let drawn = &self.groups[turn];
        let mut draw =
            Draw { now: facts.now, hash, tried: facts.tried, slow_start: self.slow_start, random, claim };
        let mut ask = |group: &'s Group, panic: bool| {
            let members = group.of(&self.endpoints);
            draw.from(group, members, panic).map(|position| Picked { endpoint: &members[position], panic })
        };
        if let Some(picked) = ask(drawn, drawn.panics()) {
            return Some(picked);
        }
        // The counts are behind, or all of this group have been tried.
        let others = || {
            let is_near = |group: &&Group| group.priority() == drawn.priority();
            // From the next one on, or the first zone would get what all others cannot take.
            let zones = self.groups[turn + 1..].iter().chain(&self.groups[..turn]).filter(is_near);
            zones.chain(self.groups.iter().filter(move |group| !is_near(group)))
        };
        if let Some(picked) = others().find_map(|group| ask(group, group.panics())) {
            return Some(picked);
        }
        if self.panic_threshold == Percent::ZERO || self.any_available() {
            return None;
        }
        std::iter::once(drawn).chain(others()).find_map(|group| ask(group, true))
    }

    /// Whether [`Self::pick`] would find an endpoint but for those that were tried, without a permit to probe one.
    pub fn has_any(&self, tried: &[u64]) -> bool {
        let may =
            |group: &Group, panic: bool| group.of(&self.endpoints).iter().any(|e| is_open(e, tried, panic));
        self.groups.iter().any(|group| may(group, group.panics()))
            || self.panic_threshold > Percent::ZERO
                && !self.any_available()
                && self.groups.iter().any(|group| may(group, true))
    }

    /// The place of the group whose turn it is. A key stays with its level while shares stay: the hash decides, but not
    /// with the bits that decide within the level.
    fn turn(&self, hash: u64, mut random: impl FnMut() -> u64) -> Option<usize> {
        let first = self.groups.first()?;
        if self.groups.len() == 1 || first.until() >= ALL {
            return Some(0);
        }
        let point = if self.hashes { mix(hash ^ ALL) } else { random() } >> 32;
        Some(self.groups.iter().position(|group| point < group.until()).unwrap_or(0))
    }

    fn any_available(&self) -> bool {
        self.groups.iter().any(|group| group.of(&self.endpoints).iter().any(|e| is_open(e, &[], false)))
    }
}
