//! How long a cluster's responses lately took, for whoever needs a percentile of it: counts in buckets that grow by a
//! fifth, halved now and then so that what was long ago fades.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets; the last one begins above half an hour.
const BUCKETS: usize = 96;
/// Upper bound of the first, microseconds.
const FIRST: f64 = 50.0;
/// Each bound is so many times the one before.
const STEP: f64 = 1.2;
/// How often counts are halved.
const FADE: u64 = 10;
/// Fewer responses than this say nothing.
const ENOUGH: u64 = 20;

/// The counts of one cluster, shared by all workers.
#[derive(Debug)]
pub struct Latencies {
    counts: [AtomicU32; BUCKETS],
    /// When counts were last halved, in units of [`FADE`] seconds.
    faded: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU32::new(0)), faded: AtomicU64::new(0) }
    }
}

impl Latencies {
    /// The head of a response came `took` after its request was sent.
    pub fn record(&self, took: Duration, now: Duration) {
        let turn = now.as_secs() / FADE;
        let before = self.faded.load(Relaxed);
        if turn > before && self.faded.compare_exchange(before, turn, Relaxed, Relaxed).is_ok() {
            // Two halvings or more have been missed: what is there is old.
            let shift = (turn - before).min(31) as u32;
            for count in &self.counts {
                count.store(count.load(Relaxed) >> shift, Relaxed);
            }
        }
        self.counts[bucket(took)].fetch_add(1, Relaxed);
    }

    /// What this per cent of them took at the most, within a fifth; `None` while there are too few to say.
    pub fn percentile(&self, percent: u8) -> Option<Duration> {
        let counts: [u64; BUCKETS] = std::array::from_fn(|i| self.counts[i].load(Relaxed).into());
        let total: u64 = counts.iter().sum();
        if total < ENOUGH {
            return None;
        }
        let rank = (total * u64::from(percent)).div_ceil(100);
        let mut seen = 0;
        let position = counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        Some(Duration::from_micros((FIRST * STEP.powi(position? as i32)) as u64))
    }
}

fn bucket(took: Duration) -> usize {
    let steps = (took.as_secs_f64() * 1e6 / FIRST).max(1.0).ln() / STEP.ln();
    (steps.ceil() as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_within_a_step() {
        let latencies = Latencies::default();
        assert_eq!(latencies.percentile(95), None);
        (1..=1000).for_each(|i| latencies.record(Duration::from_micros(i * 100), Duration::ZERO));
        for percent in [50, 90, 95, 99] {
            let found = latencies.percentile(percent).expect("there are enough").as_micros() as f64;
            let exact = f64::from(percent) * 1000.0;
            assert!(found >= exact && found <= exact * STEP * 1.01, "p{percent}: {found}");
        }
    }

    #[test]
    fn what_was_long_ago_fades() {
        let latencies = Latencies::default();
        (0..100).for_each(|_| latencies.record(Duration::from_secs(1), Duration::ZERO));
        (0..30).for_each(|_| latencies.record(Duration::from_millis(1), Duration::from_secs(100)));
        assert!(latencies.percentile(95).expect("there are enough") < Duration::from_millis(2));
    }
}
