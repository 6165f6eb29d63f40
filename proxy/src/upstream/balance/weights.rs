//! Shares by weight: at random, or in turns.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Longest schedule of a weighted round robin; weights are scaled down to fit.
const SCHEDULE: u64 = 4096;

/// Weights, for drawing.
#[derive(Debug)]
pub(super) struct Weights {
    len: usize,
    /// Running sum of the weights; empty when they are all equal.
    sums: Box<[u64]>,
    /// Their mean.
    mean: f64,
}

impl Weights {
    /// Of one or more.
    pub(super) fn new(weights: &[u32]) -> Self {
        let sums: Box<[u64]> = weights
            .iter()
            .scan(0, |sum, weight| {
                *sum += u64::from(*weight);
                Some(*sum)
            })
            .collect();
        let mean = sums.last().map_or(1.0, |sum| *sum as f64 / weights.len() as f64);
        Self { len: weights.len(), sums: if all_equal(weights) { Box::default() } else { sums }, mean }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether they are all the same.
    pub(super) fn are_equal(&self) -> bool {
        self.sums.is_empty()
    }

    /// A weight over the mean of all.
    pub(super) fn share(&self, weight: u32) -> f64 {
        if self.are_equal() { 1.0 } else { f64::from(weight.max(1)) / self.mean }
    }

    /// A position, by weight.
    pub(super) fn draw(&self, random: u64) -> usize {
        match self.sums.last() {
            None => below(random, self.len as u64) as usize,
            Some(sum) => self.at(below(random, *sum)),
        }
    }

    /// Two positions that differ, by weight; there must be two.
    pub(super) fn draw_two(&self, mut random: impl FnMut() -> u64) -> (usize, usize) {
        let bits = random();
        match self.sums.last() {
            None => {
                let n = self.len as u64;
                // Two halves of one number: each is even to one part in 2^32.
                let first = below(bits << 32, n);
                let second = first + 1 + below(bits & !u64::from(u32::MAX), n - 1);
                (first as usize, if second < n { second } else { second - n } as usize)
            }
            Some(sum) => {
                let first = self.at(below(bits, *sum));
                let from = if first == 0 { 0 } else { self.sums[first - 1] };
                let own = self.sums[first] - from;
                // The first one's piece is cut out.
                let point = below(random(), sum - own);
                (first, self.at(if point < from { point } else { point + own }))
            }
        }
    }

    fn at(&self, point: u64) -> usize {
        self.sums.partition_point(|sum| *sum <= point)
    }
}

/// Turns, in which weights are interleaved.
#[derive(Debug)]
pub(super) struct Schedule {
    len: usize,
    /// Whose each turn is; empty when weights are all equal.
    turns: Box<[u32]>,
    next: AtomicUsize,
}

impl Schedule {
    /// For one or more weights.
    pub(super) fn new(weights: &[u32]) -> Self {
        let turns = if all_equal(weights) { Box::default() } else { interleave(weights) };
        Self { len: weights.len(), turns, next: AtomicUsize::new(0) }
    }

    /// Whose turn it is.
    pub(super) fn next(&self) -> usize {
        let turn = self.next.fetch_add(1, Relaxed);
        if self.turns.is_empty() { turn % self.len } else { self.turns[turn % self.turns.len()] as usize }
    }
}

/// A number below `n`, evenly, without a division.
pub(super) fn below(random: u64, n: u64) -> u64 {
    ((u128::from(random) * u128::from(n)) >> 64) as u64
}

fn all_equal(weights: &[u32]) -> bool {
    weights.windows(2).all(|pair| pair[0] == pair[1])
}

/// Smooth weighted round robin: in each turn everyone gains its weight, and who has most goes, and pays the sum.
fn interleave(weights: &[u32]) -> Box<[u32]> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let weights: Vec<u64> = weights.iter().map(|weight| u64::from(weight / divisor)).collect();
    let sum: u64 = weights.iter().sum();
    let weights: Vec<u64> = match sum {
        0..=SCHEDULE => weights,
        _ => weights.iter().map(|weight| (weight * SCHEDULE / sum).max(1)).collect(),
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
        richest as u32
    };
    (0..sum).map(turn).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn turns_are_exact_and_interleaved() {
        let turns = |weights: &[u32]| {
            let schedule = Schedule::new(weights);
            (0..8).map(|_| schedule.next()).collect::<Vec<_>>()
        };
        assert_eq!(turns(&[1, 1, 1]), [0, 1, 2, 0, 1, 2, 0, 1]);
        assert_eq!(turns(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0, 0]);
        assert_eq!(turns(&[u32::MAX, u32::MAX]), [0, 1, 0, 1, 0, 1, 0, 1]);
    }

    proptest! {
        #[test]
        fn a_schedule_gives_everyone_a_turn(weights in prop::collection::vec(1_u32..100_000, 2..40)) {
            let turns = interleave(&weights);
            let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            prop_assert!(turns.len() as u64 <= SCHEDULE + weights.len() as u64 || sum <= SCHEDULE);
            for i in 0..weights.len() as u32 {
                prop_assert!(turns.contains(&i));
            }
        }

        #[test]
        fn two_are_never_the_same(weights in prop::collection::vec(prop_oneof![1_u32..4, Just(u32::MAX)], 2..10), seed: u64) {
            let mut rng = fastrand::Rng::with_seed(seed);
            for weights in [weights.clone(), vec![1; weights.len()]] {
                let weights = Weights::new(&weights);
                for _ in 0..50 {
                    let (first, second) = weights.draw_two(|| rng.u64(..));
                    prop_assert!(first != second && first.max(second) < weights.len());
                }
            }
        }
    }
}
