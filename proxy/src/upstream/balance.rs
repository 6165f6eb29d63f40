//! Which endpoint takes a request. Pure: the set, the time and random numbers in, a position out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use outrigger_proto::model::Balance;

use super::endpoint::Endpoint;

/// Longest schedule of a weighted round robin; weights are scaled down to fit.
const SCHEDULE: u64 = 4096;

/// The endpoints of a cluster at one moment, with what their weights need worked out ahead.
#[derive(Debug, Default)]
pub struct EndpointSet {
    endpoints: Vec<Arc<Endpoint>>,
    /// Running sum of the weights; empty when they are all equal.
    sums: Vec<u64>,
    /// Turns in which weights are interleaved; empty when weights are all equal.
    schedule: Vec<u16>,
    turn: AtomicUsize,
}

impl EndpointSet {
    /// Weights are read once: a changed weight is a new set.
    pub fn new(endpoints: Vec<Arc<Endpoint>>) -> Self {
        let weights: Vec<u64> = endpoints.iter().map(|e| u64::from(e.weight())).collect();
        if weights.windows(2).all(|pair| pair[0] == pair[1]) {
            return Self { endpoints, ..Self::default() };
        }
        let sums = weights
            .iter()
            .scan(0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        Self { schedule: interleave(&weights), endpoints, sums, turn: AtomicUsize::new(0) }
    }

    /// The endpoints.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The endpoint for the next request; `None` when there is none at all.
    pub fn pick(
        &self,
        balance: Balance,
        now: Duration,
        random: impl FnMut() -> u64,
    ) -> Option<&Arc<Endpoint>> {
        let position = match self.endpoints.len() {
            0 => return None,
            1 => 0,
            n => match balance {
                Balance::PeakEwma => self.cheaper_of_two(n, random, |e| e.cost(now)),
                Balance::LeastRequest => self.cheaper_of_two(n, random, |e| e.load(now)),
                Balance::RoundRobin => self.next_turn(n),
                Balance::Random => self.at_random(n, random),
            },
        };
        Some(&self.endpoints[position])
    }

    /// An endpoint that is not among these, for a request that could not be sent to them: any of the others, evenly.
    pub fn pick_other(&self, tried: &[u64], mut random: impl FnMut() -> u64) -> Option<&Arc<Endpoint>> {
        let others = || self.endpoints.iter().filter(|e| !tried.contains(&e.id()));
        match others().count() {
            0 => None,
            n => others().nth(below(random() as u32, n)),
        }
    }

    fn cheaper_of_two(
        &self,
        n: usize,
        mut random: impl FnMut() -> u64,
        cost: impl Fn(&Endpoint) -> f64,
    ) -> usize {
        let bits = random();
        let first = below(bits as u32, n);
        // One of the others: never the same twice.
        let second = (first + 1 + below((bits >> 32) as u32, n - 1)) % n;
        if cost(&self.endpoints[second]) < cost(&self.endpoints[first]) { second } else { first }
    }

    fn next_turn(&self, n: usize) -> usize {
        let turn = self.turn.fetch_add(1, Relaxed);
        if self.schedule.is_empty() {
            turn % n
        } else {
            usize::from(self.schedule[turn % self.schedule.len()])
        }
    }

    fn at_random(&self, n: usize, mut random: impl FnMut() -> u64) -> usize {
        match self.sums.last() {
            None => below(random() as u32, n),
            Some(total) => {
                let point = random() % total;
                self.sums.partition_point(|sum| *sum <= point)
            }
        }
    }
}

/// A number below `n`, evenly, without a division.
fn below(random: u32, n: usize) -> usize {
    ((u64::from(random) * n as u64) >> 32) as usize
}

/// Smooth weighted round robin: in each turn everyone gains its weight, and who has most goes, and pays the sum.
fn interleave(weights: &[u64]) -> Vec<u16> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let sum: u64 = weights.iter().map(|w| w / divisor).sum();
    let weights: Vec<u64> = match sum {
        0..=SCHEDULE => weights.iter().map(|w| w / divisor).collect(),
        _ => weights.iter().map(|w| (w / divisor * SCHEDULE / sum).max(1)).collect(),
    };
    let sum: u64 = weights.iter().sum();
    let mut credit = vec![0_i64; weights.len()];
    let turn = |_| {
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            *credit += *weight as i64;
        }
        let (richest, _) =
            credit.iter().enumerate().max_by_key(|(i, c)| (**c, std::cmp::Reverse(*i))).expect("not empty");
        credit[richest] -= sum as i64;
        richest as u16
    };
    (0..sum).map(turn).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use outrigger_proto::model::Address;
    use proptest::prelude::*;

    use super::*;

    fn set(weights: &[u32]) -> EndpointSet {
        let endpoint = |(i, weight): (usize, &u32)| {
            let address = Address::Ip(([127, 0, 0, 1], i as u16 + 1).into());
            Arc::new(Endpoint::new(i as u64, address, *weight))
        };
        EndpointSet::new(weights.iter().enumerate().map(endpoint).collect())
    }

    fn counts(set: &EndpointSet, balance: Balance, picks: usize) -> Vec<usize> {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut counts = vec![0; set.endpoints().len()];
        for _ in 0..picks {
            let picked = set.pick(balance, Duration::ZERO, || rng.u64(..)).expect("not empty");
            counts[picked.id() as usize] += 1;
        }
        counts
    }

    #[test]
    fn an_empty_set_has_no_pick() {
        assert!(set(&[]).pick(Balance::PeakEwma, Duration::ZERO, || 0).is_none());
    }

    #[test]
    fn round_robin_is_exact_and_interleaved() {
        assert_eq!(counts(&set(&[1, 1, 1]), Balance::RoundRobin, 9), [3, 3, 3]);
        assert_eq!(counts(&set(&[5, 1, 2]), Balance::RoundRobin, 16), [10, 2, 4]);
        assert_eq!(interleave(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn least_request_avoids_the_busy_one() {
        let set = set(&[1, 1]);
        let _busy = set.endpoints()[0].lease();
        assert_eq!(counts(&set, Balance::LeastRequest, 100), [0, 100]);
    }

    #[test]
    fn peak_ewma_avoids_the_slow_one() {
        let set = set(&[1, 1]);
        set.endpoints()[0].answered(Duration::from_millis(100), Duration::ZERO);
        set.endpoints()[1].answered(Duration::from_millis(1), Duration::ZERO);
        assert_eq!(counts(&set, Balance::PeakEwma, 100), [0, 100]);
    }

    proptest! {
        #[test]
        fn random_follows_the_weights(weights in prop::collection::vec(1_u32..10, 1..8)) {
            let picks = 20_000;
            let counts = counts(&set(&weights), Balance::Random, picks);
            let sum: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                let expected = picks as f64 * f64::from(*weight) / f64::from(sum);
                prop_assert!((*count as f64 - expected).abs() < 6.0 * expected.sqrt() + 1.0, "{counts:?} {weights:?}");
            }
        }

        #[test]
        fn a_schedule_gives_everyone_a_turn(weights in prop::collection::vec(1_u64..100_000, 2..40)) {
            let schedule = interleave(&weights);
            prop_assert!(schedule.len() as u64 <= SCHEDULE + weights.len() as u64 || weights.iter().sum::<u64>() <= SCHEDULE);
            for i in 0..weights.len() {
                prop_assert!(schedule.contains(&(i as u16)));
            }
        }

        #[test]
        fn two_choices_are_always_members(n in 2_usize..20, seed: u64) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let set = set(&vec![1; n]);
            for balance in [Balance::PeakEwma, Balance::LeastRequest, Balance::RoundRobin, Balance::Random] {
                prop_assert!(set.pick(balance, Duration::ZERO, || rng.u64(..)).is_some());
            }
        }
    }
}
