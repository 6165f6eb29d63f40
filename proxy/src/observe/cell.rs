//! The atomics behind every series. Recording is a relaxed add or two: no lock, no allocation, no sample kept.
//!
//! They are plain fields of the blocks in [`stats`](super::stats), not handles: a cluster's whole block is one short
//! run of memory, so 10,000 clusters in use cost megabytes less than a handle, a key and an allocation per series.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Upper bounds of the default buckets, in seconds: what a proxied call takes, from half a millisecond up.
pub const LATENCY: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

const NANOS: f64 = 1e9;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `by`.
    pub fn increment(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// What it has counted.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A whole number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `by`.
    pub fn increment(&self, by: i64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Takes `by` away.
    pub fn decrement(&self, by: i64) {
        self.0.fetch_sub(by, Ordering::Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One unit of a gauge, given back on drop, so that no way out forgets it.
///
/// The owner is whatever keeps the gauge alive: a reference, an `Rc`, an `Arc`.
pub struct Held<T> {
    owner: T,
    gauge: fn(&T) -> &Gauge,
}

impl<T> Held<T> {
    /// Adds one to the gauge that `gauge` finds in `owner`.
    pub fn new(owner: T, gauge: fn(&T) -> &Gauge) -> Self {
        gauge(&owner).increment(1);
        Self { owner, gauge }
    }

    /// What keeps the gauge alive.
    pub fn owner(&self) -> &T {
        &self.owner
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        (self.gauge)(&self.owner).decrement(1);
    }
}

impl<T> fmt::Debug for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

/// How values are spread: a count per bucket, and their sum.
#[derive(Debug)]
pub struct Histogram {
    bounds: Arc<[f64]>,
    /// One for each bound, and one for what is above the last.
    counts: Box<[AtomicU64]>,
    // The sum is kept in two integers because an add of a float is a loop that workers would fight over.
    whole: AtomicU64,
    nanos: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spread {
    /// (upper bound, values at or below it), ascending.
    pub(super) buckets: Vec<(f64, u64)>,
    pub(super) sum: f64,
    pub(super) count: u64,
}

impl Histogram {
    /// `bounds` are upper bounds, inclusive, ascending.
    pub(super) fn new(bounds: Arc<[f64]>) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, whole: AtomicU64::new(0), nanos: AtomicU64::new(0) }
    }

    /// Records a time, in seconds.
    pub fn record(&self, took: Duration) {
        self.add(took.as_secs_f64(), took.as_secs(), took.subsec_nanos().into());
    }

    fn add(&self, value: f64, whole: u64, nanos: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        if whole > 0 {
            self.whole.fetch_add(whole, Ordering::Relaxed);
        }
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The count is the sum of the buckets that were read, so that one scrape never contradicts itself.
    pub(super) fn read(&self) -> Spread {
        let mut count = 0;
        let mut running = |cell: &AtomicU64| {
            count += cell.load(Ordering::Relaxed);
            count
        };
        let (last, below) = self.counts.split_last().expect("there is one bucket more than bounds");
        let buckets = self.bounds.iter().zip(below).map(|(bound, cell)| (*bound, running(cell))).collect();
        let count = running(last);
        let nanos = self.nanos.load(Ordering::Relaxed) as f64 / NANOS;
        Spread { buckets, sum: self.whole.load(Ordering::Relaxed) as f64 + nanos, count }
    }
}

impl metrics::HistogramFn for Histogram {
    /// What is negative or not a finite number has no place in a sum that only grows: it is not recorded.
    fn record(&self, value: f64) {
        if value.is_finite() && value >= 0.0 {
            let nanos = (value.fract() * NANOS).round();
            self.add(value, value.trunc() as u64, nanos as u64);
        }
    }
}

/// Counters by name, made at first use. The names are those that the program states, so they are few.
///
/// A list that only grows: finding a name that was seen before takes no lock.
#[derive(Debug, Default)]
pub struct Named {
    first: OnceLock<Box<Node>>,
}

#[derive(Debug)]
struct Node {
    name: &'static str,
    count: Counter,
    next: OnceLock<Box<Node>>,
}

impl Named {
    /// The counter of `name`.
    pub fn of(&self, name: &'static str) -> &Counter {
        let mut at = &self.first;
        loop {
            let node =
                at.get_or_init(|| Box::new(Node { name, count: Counter::default(), next: OnceLock::new() }));
            if node.name == name {
                return &node.count;
            }
            at = &node.next;
        }
    }

    /// What was counted, by name.
    pub(super) fn read(&self) -> Vec<(&'static str, u64)> {
        let nodes = std::iter::successors(self.first.get(), |node| node.next.get());
        let mut all: Vec<_> = nodes.map(|node| (node.name, node.count.get())).collect();
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use metrics::HistogramFn;

    use super::*;

    #[track_caller]
    fn check(values: &[f64], buckets: &[(f64, u64)], sum: f64, count: u64) {
        let histogram = Histogram::new(Arc::from([0.5, 1.0, 2.0]));
        for value in values {
            HistogramFn::record(&histogram, *value);
        }
        assert_eq!(histogram.read(), Spread { buckets: buckets.to_vec(), sum, count }, "{values:?}");
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        check(&[], &[(0.5, 0), (1.0, 0), (2.0, 0)], 0.0, 0);
        check(&[0.0], &[(0.5, 1), (1.0, 1), (2.0, 1)], 0.0, 1);
        check(&[0.5], &[(0.5, 1), (1.0, 1), (2.0, 1)], 0.5, 1);
        check(&[0.500_000_1], &[(0.5, 0), (1.0, 1), (2.0, 1)], 0.500_000_1, 1);
        check(&[2.0], &[(0.5, 0), (1.0, 0), (2.0, 1)], 2.0, 1);
        check(&[2.5, 7.25], &[(0.5, 0), (1.0, 0), (2.0, 0)], 9.75, 2);
        check(&[-1.0, f64::NAN, f64::INFINITY], &[(0.5, 0), (1.0, 0), (2.0, 0)], 0.0, 0);
    }

    #[test]
    fn times_are_in_seconds() {
        let histogram = Histogram::new(Arc::from(LATENCY));
        histogram.record(Duration::from_micros(500));
        histogram.record(Duration::from_millis(1500));
        let Spread { buckets, sum, count } = histogram.read();
        assert_eq!((buckets[0], sum, count), ((0.0005, 1), 1.5005, 2));
        assert_eq!(buckets[10..12], [(1.0, 1), (2.5, 2)]);
    }

    #[test]
    fn a_gauge_is_given_back() {
        let gauge = Arc::new(Gauge::default());
        let held = Held::new(Arc::clone(&gauge), |gauge| gauge);
        let borrowed = Held::new(&*gauge, |gauge| gauge);
        assert_eq!(gauge.get(), 2);
        drop(held);
        assert_eq!(borrowed.owner().get(), 1);
        drop(borrowed);
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn threads_agree() {
        let named = Named::default();
        let histogram = Histogram::new(Arc::from([1.0]));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for name in ["b", "a", "c"].into_iter().cycle().take(3000) {
                        named.of(name).increment(1);
                        histogram.record(Duration::from_millis(1250));
                    }
                });
            }
        });
        assert_eq!(named.read(), [("a", 4000), ("b", 4000), ("c", 4000)]);
        assert_eq!(histogram.read(), Spread { buckets: vec![(1.0, 0)], sum: 15_000.0, count: 12_000 });
    }
}
