//! One request's draw among the endpoints of a group: every balancer's way past those that may not take it.
//!
//! Each draws a bounded number of times, as most endpoints are well at most times, and then looks at all, so that
//! whoever can take the request does.

use std::sync::Arc;
use std::time::Duration;

use super::super::endpoint::{Availability, Endpoint};
use super::group::{Group, How, Keys};
use super::hash::mix;
use super::weights::{Schedule, below};

/// Pairs that are drawn before all are looked at: with half of a group down, that is 1 pick in 256.
const PAIRS: usize = 4;
/// Single endpoints that are drawn before that.
const DRAWS: usize = 16;
/// Owners of a key, and those that follow, before that; one may come several times.
const STEPS: usize = 64;
/// The least share of an endpoint that has just begun.
const LEAST: f64 = 0.1;
/// How much cheaper the second of two must be where weights differ. The first was drawn by its weight, and a small
/// difference, as of latencies that measure the same, must not take that back.
const CLEARLY: f64 = 1.5;

/// What a request needs of an endpoint, and what chance there is.
pub(super) struct Draw<'a, R, C> {
    pub(super) now: Duration,
    pub(super) hash: u64,
    pub(super) tried: &'a [u64],
    pub(super) slow_start: Duration,
    pub(super) random: R,
    pub(super) claim: C,
}

/// What becomes of an endpoint that was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It takes the request: a permit to probe it has been won.
    Must,
    /// It can.
    May,
    /// It can, but is new, and lets others go first this time.
    Yields,
    /// It cannot.
    No,
}

impl<R: FnMut() -> u64, C: FnMut(&Arc<Endpoint>) -> bool> Draw<'_, R, C> {
    /// The position of one of `members`, which are the group's. In panic, whether they are available does not count.
    pub(super) fn from(&mut self, group: &Group, members: &[Arc<Endpoint>], panic: bool) -> Option<usize> {
        let mut among = Among { group, members, panic, draw: self };
        match &group.how {
            // Who could not be sent to would take the turn of the next request as well, were turns used for this one.
            How::RoundRobin(_) if !among.draw.tried.is_empty() => among.at_random(),
            How::RoundRobin(schedule) => among.in_turn(schedule),
            How::Random => among.at_random(),
            How::PeakEwma => among.cheaper(|endpoint, now, share| endpoint.cost(now, share)),
            How::LeastRequest => among.cheaper(|endpoint, now, share| endpoint.load(now, share)),
            How::Ring(ring, keys) => among.first_of(ring.owners(among.draw.hash), keys),
            How::Maglev(table, keys) => among.first_of(table.owners(among.draw.hash), keys),
        }
    }
}

/// A draw among the endpoints of a group.
struct Among<'a, 'd, 't, R, C> {
    group: &'a Group,
    members: &'a [Arc<Endpoint>],
    panic: bool,
    draw: &'d mut Draw<'t, R, C>,
}

impl<R: FnMut() -> u64, C: FnMut(&Arc<Endpoint>) -> bool> Among<'_, '_, '_, R, C> {
    /// The cheaper of two.
    fn cheaper(&mut self, cost: impl Fn(&Endpoint, Duration, f64) -> f64) -> Option<usize> {
        if self.members.len() == 1 {
            return self.any();
        }
        let mut spare = None;
        for _ in 0..PAIRS {
            let (first, second) = self.group.weights.draw_two(&mut self.draw.random);
            let verdict = self.verdict(first);
            if verdict == Verdict::Must {
                return Some(first);
            }
            match (verdict, self.verdict(second)) {
                (_, Verdict::Must) => return Some(second),
                (Verdict::May, Verdict::May) => {
                    let of =
                        |position: usize| cost(&self.members[position], self.draw.now, self.share(position));
                    let clearly = if self.group.weights.are_equal() { 1.0 } else { CLEARLY };
                    return Some(if of(second) * clearly < of(first) { second } else { first });
                }
                (Verdict::May, _) => return Some(first),
                (_, Verdict::May) => return Some(second),
                (Verdict::Yields, _) => spare = Some(first),
                (_, Verdict::Yields) => spare = Some(second),
                (Verdict::No | Verdict::Must, Verdict::No) => (),
            }
        }
        spare.or_else(|| self.any())
    }

    /// Whose turn it is, or the next one's.
    fn in_turn(&mut self, schedule: &Schedule) -> Option<usize> {
        self.first_drawn(|_| schedule.next())
    }

    /// One by weight.
    fn at_random(&mut self) -> Option<usize> {
        self.first_drawn(|among| among.group.weights.draw((among.draw.random)()))
    }

    /// The first of those drawn that takes the request.
    fn first_drawn(&mut self, mut draw: impl FnMut(&mut Self) -> usize) -> Option<usize> {
        let mut spare = None;
        for _ in 0..DRAWS {
            let position = draw(self);
            match self.verdict(position) {
                Verdict::Must | Verdict::May => return Some(position),
                Verdict::Yields => spare = Some(position),
                Verdict::No => (),
            }
        }
        spare.or_else(|| self.any())
    }

    /// The owner of the request's key, or the one who follows; past a good many, the one whom key and endpoint
    /// together hash to the most (rendezvous), so that even then every proxy chooses alike, and keys spread.
    fn first_of(&mut self, owners: impl Iterator<Item = usize>, keys: &Keys) -> Option<usize> {
        for position in owners.take(STEPS) {
            if self.takes(position) {
                return Some(position);
            }
        }
        let hash = self.draw.hash;
        let open = (0..self.members.len()).filter(|position| self.is_open(*position));
        open.max_by_key(|position| mix(hash ^ keys.0[*position])).or_else(|| self.probe())
    }

    /// Any that can, by weight, after looking at all. Taking the first from some place on would burden those who stand
    /// behind many that are down, just when few are left.
    fn any(&mut self) -> Option<usize> {
        let mut chosen = None;
        let mut sum = 0;
        for position in 0..self.members.len() {
            if !self.is_open(position) {
                continue;
            }
            // In thousandths, for the sake of those who are new.
            let weight = f64::from(self.members[position].weight().max(1)) * self.start(position) * 1000.0;
            let weight = (weight as u64).max(1);
            sum += weight;
            if below((self.draw.random)(), sum) < weight {
                chosen = Some(position);
            }
        }
        chosen.or_else(|| self.probe())
    }

    /// One that is half open and can be probed, when nobody is well.
    fn probe(&mut self) -> Option<usize> {
        let n = self.members.len();
        let first = below((self.draw.random)(), n as u64) as usize;
        (first..n).chain(0..first).find(|position| self.takes(*position))
    }

    fn takes(&mut self, position: usize) -> bool {
        self.admission(position) != Verdict::No
    }

    /// Whether it takes any request, without a permit.
    fn is_open(&self, position: usize) -> bool {
        is_open(&self.members[position], self.draw.tried, self.panic)
    }

    fn verdict(&mut self, position: usize) -> Verdict {
        let admission = self.admission(position);
        if admission == Verdict::May && self.yields(position) { Verdict::Yields } else { admission }
    }

    fn admission(&mut self, position: usize) -> Verdict {
        let endpoint = &self.members[position];
        if self.draw.tried.contains(&endpoint.id()) {
            return Verdict::No;
        }
        if self.panic {
            return Verdict::May;
        }
        match endpoint.availability() {
            Availability::Available => Verdict::May,
            // Its failures make it look slow: it would never be the cheaper one, and never be heard of again.
            Availability::HalfOpen if (self.draw.claim)(endpoint) => Verdict::Must,
            Availability::HalfOpen | Availability::Unavailable => Verdict::No,
        }
    }

    fn yields(&mut self, position: usize) -> bool {
        let start = self.start(position);
        start < 1.0 && (self.draw.random)() as f64 >= start * u64::MAX as f64
    }

    /// How far an endpoint has come with its slow start, from 0 to 1: as in Envoy with an aggression of 1 and a
    /// minimum of 10 %, but compared with the eldest. Where all are new, none has to wait for another. It lets others
    /// go first rather than to cost more: the costlier of two gets nothing at all while there is little to do, and a
    /// whole share at once when its time has come.
    fn start(&self, position: usize) -> f64 {
        if self.draw.slow_start.is_zero() {
            return 1.0;
        }
        let grown = |since: Duration| {
            let age = self.draw.now.saturating_sub(since);
            age.div_duration_f64(self.draw.slow_start).clamp(LEAST, 1.0)
        };
        grown(self.members[position].since()) / grown(self.group.eldest())
    }

    fn share(&self, position: usize) -> f64 {
        self.group.weights.share(self.members[position].weight())
    }
}

/// Whether an endpoint takes any request, without a permit.
pub(super) fn is_open(endpoint: &Endpoint, tried: &[u64], panic: bool) -> bool {
    !tried.contains(&endpoint.id()) && (panic || endpoint.availability() == Availability::Available)
}
