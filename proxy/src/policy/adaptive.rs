//! A concurrency limit that follows the latency of the answers: lowered while they take longer than without a crowd,
//! raised while they do not.
//!
//! What answers take *without a crowd* is never measured on purpose, as that would hold up requests for the sake of a
//! number. It is learned from the traffic there is:
//! - Faster answers than were known are believed at once.
//! - Slower ones are believed slowly, and only while there is room: nobody waits for anybody then.
//! - When the limit was halved and answers are hardly faster, the crowd was not what made them slow (with the same work
//!   done at once, half the crowd waits half as long: Little's law). Then this is what they take from now on, and what
//!   was taken away in vain is given back.
//! - Where it is always crowded, halving goes on now and then until it is in vain: that is the one thing done for the
//!   sake of the number, and at its worst it costs half of what the service can do for two windows.
//!
//! Time and samples come from the caller; deciding takes place once a [`WINDOW`], by whoever ends it.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outrigger_proto::model::Adaptive as Config;

/// The limit changes so often at the most.
const WINDOW: Duration = Duration::from_millis(250);
/// Fewer answers than this say nothing.
const ENOUGH: u32 = 20;
/// The limit to begin with: low enough to learn what answers take, and doubled until they take longer.
const FIRST: u32 = 20;
/// No window lowers the limit by more than this factor: what halving it does is looked at first.
const STEEPEST: f64 = 0.5;
/// Answers that with half of the limit take more than this share of what they took are not slow because of a crowd; the
/// less it was lowered, the larger the share.
const IN_VAIN: f64 = 0.75;
/// After so many crowded windows what is known is doubted, and looked at anew.
const DOUBT: u32 = 120;
/// So much of a difference is believed in one window: of faster answers, and of slower ones.
const FASTER: f64 = 0.5;
const SLOWER: f64 = 0.05;

/// A limit as it lives; shared by all workers.
#[derive(Debug)]
pub struct Adaptive {
    answers: AtomicU32,
    /// What they took together, in nanoseconds.
    nanos: AtomicU64,
    /// The most that were under way at once.
    most: AtomicU32,
    /// When the window ends, in nanoseconds since the process began.
    ends: AtomicU64,
    /// What answers take without a crowd, in nanoseconds; 0 while that is not known.
    alone: AtomicU64,
    gradient: Mutex<Gradient>,
}

/// How long an answer took, until its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// So long.
    Exactly(Duration),
    /// Longer than this: it was not waited for, or failed.
    MoreThan(Duration),
}

impl Adaptive {
    /// A limit of at most `max`, which goes on from what was learned `before` it, under other settings.
    pub fn new(config: Config, max: NonZeroU32, before: Option<&Self>) -> Self {
        let gradient = Gradient::new(config, max, before.map(|before| *before.lock()));
        Self {
            answers: AtomicU32::new(0),
            nanos: AtomicU64::new(0),
            most: AtomicU32::new(0),
            ends: AtomicU64::new(0),
            alone: AtomicU64::new(gradient.alone.map_or(0, |alone| alone as u64)),
            gradient: Mutex::new(gradient),
        }
    }

    /// The limit to begin with.
    pub fn first(&self) -> u32 {
        self.lock().limit as u32
    }

    /// An answer came, or is not waited for any more; so many requests were under way, and `now` is the time since the
    /// process began. When a window is over, `apply` is called with the limit from now on.
    pub fn answered(&self, took: Took, under_way: u32, now: Duration, apply: impl FnOnce(u32)) {
        let nanos = match took {
            Took::Exactly(took) => super::bucket::nanos(took),
            // What did not take longer than usual says nothing: most failures are fast.
            Took::MoreThan(took) => {
                let nanos = super::bucket::nanos(took);
                let alone = self.alone.load(Relaxed);
                if alone == 0 || nanos <= alone {
                    return;
                }
                nanos
            }
        };
        let answers = self.answers.fetch_add(1, Relaxed) + 1;
        self.nanos.fetch_add(nanos, Relaxed);
        self.most.fetch_max(under_way, Relaxed);
        let (now, ends) = (super::bucket::nanos(now), self.ends.load(Relaxed));
        if answers < ENOUGH || now < ends {
            return;
        }
        // Whoever moves the end decides; the others go on.
        let next = now.saturating_add(super::bucket::nanos(WINDOW));
        if self.ends.compare_exchange(ends, next, Relaxed, Relaxed).is_err() {
            return;
        }
        let answers = self.answers.swap(0, Relaxed).max(1);
        let mean = self.nanos.swap(0, Relaxed) as f64 / f64::from(answers);
        let most = self.most.swap(0, Relaxed);
        // Not before those that are let in now have come back.
        self.ends.fetch_max(now.saturating_add(mean as u64), Relaxed);
        let mut gradient = self.lock();
        let limit = gradient.next(mean, most);
        self.alone.store(gradient.alone.map_or(0, |alone| alone as u64), Relaxed);
        // Under the lock, or a window that was held up could undo the next one.
        apply(limit);
    }

    fn lock(&self) -> MutexGuard<'_, Gradient> {
        // Nothing is done under this lock that could leave it half changed.
        self.gradient.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known, and what follows from a window.
#[derive(Clone, Copy, Debug)]
struct Gradient {
    least: f64,
    max: f64,
    tolerance: f64,
    limit: f64,
    /// What answers take without a crowd, in nanoseconds, as far as it is known.
    alone: Option<f64>,
    /// Crowded windows since this was certain.
    unsure: u32,
    /// It has never been too high.
    begins: bool,
    /// The limit, and what answers took, when it began to be lowered.
    lowered: Option<(f64, f64)>,
    /// It has just been lowered: the next window is still full of those that were let in before.
    settles: bool,
}

impl Gradient {
    fn new(config: Config, max: NonZeroU32, before: Option<Self>) -> Self {
        let Config { min, tolerance } = config;
        let (least, max) = (f64::from(min.get()), f64::from(max.get()));
        let before = before.unwrap_or(Self {
            least,
            max,
            tolerance: 1.0,
            limit: f64::from(FIRST),
            alone: None,
            unsure: 0,
            begins: true,
            lowered: None,
            settles: false,
        });
        let tolerance = f64::from(tolerance) / 10.0;
        Self { least, max, tolerance, limit: before.limit.clamp(least, max), ..before }
    }

    /// Answers took `mean` nanoseconds, with at most so many requests under way. The limit that follows.
    fn next(&mut self, mean: f64, most: u32) -> u32 {
        if std::mem::take(&mut self.settles) {
            return self.limit as u32;
        }
        let crowded = f64::from(most) * 2.0 > self.limit;
        self.unsure = if crowded { self.unsure + 1 } else { 0 };
        let alone = self.learn(mean, crowded);
        let slower = mean / (alone * self.tolerance);
        // Once it is lowered in doubt, it is so for as long as that helps.
        let doubts = self.lowered.is_some() && self.unsure > DOUBT;
        if crowded && (slower > 1.0 || doubts) {
            let by = if self.unsure > DOUBT { STEEPEST } else { (1.0 / slower).max(STEEPEST) };
            self.lower(mean, by);
        } else {
            self.lowered = None;
            if crowded {
                // As far as a queue of its own square root does no harm; that is also how far it is explored.
                self.limit += if self.begins { self.limit } else { self.limit.sqrt() };
            }
        }
        self.limit = self.limit.clamp(self.least, self.max);
        self.limit as u32
    }

    fn learn(&mut self, mean: f64, crowded: bool) -> f64 {
        let alone = match self.alone {
            None => mean,
            Some(alone) if mean < alone => alone + (mean - alone) * FASTER,
            Some(alone) if !crowded => alone + (mean - alone) * SLOWER,
            Some(alone) => alone,
        };
        *self.alone.insert(alone)
    }

    fn lower(&mut self, mean: f64, by: f64) {
        self.begins = false;
        let (from, took) = *self.lowered.get_or_insert((self.limit, mean));
        let halved = self.limit <= (from / 2.0).max(self.least);
        if halved && self.limit < from {
            if mean > took * IN_VAIN * 2.0 * self.limit / from {
                (self.alone, self.limit) = (Some(mean), from);
                (self.lowered, self.unsure) = (None, 0);
                return;
            }
            self.lowered = Some((self.limit, mean));
        }
        if self.limit <= self.least {
            // There is no smaller crowd to compare with.
            self.alone = self.alone.map(|alone| alone + (mean - alone) * SLOWER);
            return;
        }
        self.limit *= by;
        self.settles = true;
    }
}

#[cfg(test)]
#[path = "adaptive_tests.rs"]
mod tests;
