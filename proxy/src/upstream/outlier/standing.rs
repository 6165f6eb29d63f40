//! How one endpoint stands: what a request touches, on any worker, without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use outrigger_proto::model::{OutlierDetection, Percent};

use super::{Cause, Outcome, Verdict};

/// A probe without an answer for this long no longer keeps others from probing.
pub(super) const PROBE_LAPSE: Duration = Duration::from_secs(30);

/// Where an endpoint is in the diagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It takes requests.
    Healthy,
    /// It takes none until then, since the start of the process, and the sweep after it.
    Ejected {
        /// When it may be probed.
        until: Duration,
    },
    /// It takes one request: whose [`Standing::probe`] is first.
    HalfOpen,
    /// It has taken one.
    Probing {
        /// When.
        since: Duration,
    },
}

impl Phase {
    /// In one word: two bits that say which, and nanoseconds, enough for 146 years.
    fn pack(self) -> u64 {
        let nanos = |at: Duration| u64::try_from(at.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX >> 2) << 2;
        match self {
            Self::Healthy => 0,
            Self::Ejected { until } => nanos(until) | 1,
            Self::HalfOpen => 2,
            Self::Probing { since } => nanos(since) | 3,
        }
    }

    fn unpack(word: u64) -> Self {
        let at = Duration::from_nanos(word >> 2);
        match word & 3 {
            0 => Self::Healthy,
            1 => Self::Ejected { until: at },
            2 => Self::HalfOpen,
            _ => Self::Probing { since: at },
        }
    }
}

/// How one endpoint stands with its cluster; shared by all workers. No order is asked of its atomics: each is true by
/// itself, and a sample that is lost or counted late decides nothing.
#[derive(Debug, Default)]
pub struct Standing {
    /// A packed [`Phase`].
    phase: AtomicU64,
    failures: Streak,
    gateway: Streak,
    local: Streak,
    window: Window,
    /// Ejections that make the next one longer. Changed by the detector alone.
    ejections: AtomicU32,
    /// Neither ejected since the last sweep, nor at it. Changed by the detector alone.
    steady: AtomicBool,
}

impl Standing {
    #[cfg(test)]
    pub(super) fn at(phase: Phase) -> Self {
        Self { phase: AtomicU64::new(phase.pack()), ..Self::default() }
    }

    /// Where a test wants it.
    #[cfg(test)]
    pub(in crate::upstream) fn set(&self, phase: Phase) {
        self.phase.store(phase.pack(), Relaxed);
    }

    /// Whether it takes no request without a [`Self::probe`]. Asked at every pick.
    pub fn is_ejected(&self) -> bool {
        self.phase.load(Relaxed) != 0
    }

    /// Where it is in the diagram.
    pub fn phase(&self) -> Phase {
        Phase::unpack(self.phase.load(Relaxed))
    }

    /// The ejections that make its next one longer; one is forgotten in each interval that it is well.
    pub fn ejections(&self) -> u32 {
        self.ejections.load(Relaxed)
    }

    /// A request that went there without a probe has ended; `took` is the time to the head of its response.
    pub fn record(&self, outcome: Outcome, took: Duration, config: &OutlierDetection) -> Verdict {
        // What was under way when it was ejected says nothing new, and nothing of how it is when it comes back.
        if self.is_ejected() {
            return Verdict::Nothing;
        }
        let (failure, gateway, local) = match outcome {
            Outcome::Success => (false, false, false),
            Outcome::Status5xx { gateway } => (true, gateway, false),
            Outcome::NoResponse => (true, true, true),
        };
        if config.latency_factor > 0 || judges_shares(config) {
            self.window.add(failure, took);
        }
        // The narrowest first: where several are reached at once, it says the most.
        let rules = [
            (local, &self.local, config.consecutive_local, Cause::ConsecutiveLocal),
            (gateway, &self.gateway, config.consecutive_gateway, Cause::ConsecutiveGateway),
            (failure, &self.failures, config.consecutive_5xx, Cause::Consecutive5xx),
        ];
        let mut verdict = Verdict::Nothing;
        for (counts, streak, threshold, cause) in rules {
            if !counts {
                streak.end();
            } else if streak.grow(threshold) && verdict == Verdict::Nothing {
                verdict = Verdict::Eject(cause);
            }
        }
        verdict
    }

    /// Lets one request through to an endpoint that is half-open; `None` when it is not, or another is on its way. A
    /// balancer that comes across it asks before it turns to one that is well, or it would never come back.
    pub fn probe(self: &Arc<Self>, now: Duration) -> Option<Probe> {
        let seen = self.phase.load(Relaxed);
        let free = match Phase::unpack(seen) {
            Phase::Healthy | Phase::Ejected { until: _ } => false,
            Phase::HalfOpen => true,
            Phase::Probing { since } => now.saturating_sub(since) >= PROBE_LAPSE,
        };
        let taken = Phase::Probing { since: now }.pack();
        (free && self.turn(seen, taken)).then(|| Probe { standing: self.clone(), taken })
    }

    /// Against other requests: of two that saw the same phase, one changes it.
    fn turn(&self, from: u64, to: u64) -> bool {
        self.phase.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
    }

    /// The detector leaves it out, for the length that is returned.
    pub(super) fn eject(&self, config: &OutlierDetection, now: Duration, random: u64) -> Duration {
        let Length { nth, length } = Length::of(self.ejections().saturating_add(1), config, random);
        self.ejections.store(nth, Relaxed);
        self.steady.store(false, Relaxed);
        self.forget();
        self.phase.store(Phase::Ejected { until: now.saturating_add(length) }.pack(), Relaxed);
        length
    }

    /// The detector brings it back.
    pub(super) fn restore(&self) {
        self.forget();
        self.phase.store(Phase::Healthy.pack(), Relaxed);
    }

    /// As restored, and without a past.
    pub(super) fn pardon(&self) {
        self.restore();
        self.ejections.store(0, Relaxed);
    }

    /// Whether its time is over; then it may be probed.
    pub(super) fn half_open(&self, config: &OutlierDetection, now: Duration) -> bool {
        let until = match self.phase() {
            // A reload may have shortened what is the longest.
            Phase::Ejected { until } => until.min(now.saturating_add(config.max_ejection)),
            Phase::Healthy | Phase::HalfOpen | Phase::Probing { since: _ } => return false,
        };
        let over = until <= now;
        let phase = if over { Phase::HalfOpen } else { Phase::Ejected { until } };
        self.phase.store(phase.pack(), Relaxed);
        over
    }

    /// Takes what was counted since the last time: requests, failures among them, and what the others took together,
    /// in nanoseconds.
    pub(super) fn take(&self) -> (u32, u32, u64) {
        self.window.take()
    }

    fn forget(&self) {
        self.failures.end();
        self.gateway.end();
        self.local.end();
        self.window.take();
    }

    /// An interval has ended. One in which it came back does not count as one that it was well.
    pub(super) fn settle(&self) {
        let healthy = !self.is_ejected();
        if self.steady.swap(healthy, Relaxed) && healthy {
            self.ejections.store(self.ejections().saturating_sub(1), Relaxed);
        }
    }
}

/// A request that finds out how a half-open endpoint is. Dropped unrecorded, as when it was cancelled, it leaves the
/// finding out to the next.
#[derive(Debug)]
pub struct Probe {
    standing: Arc<Standing>,
    taken: u64,
}

impl Probe {
    /// Whose it is.
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// The request has ended; `took` is the time to the head of its response.
    pub fn record(self, outcome: Outcome, took: Duration, config: &OutlierDetection) -> Verdict {
        let standing = &self.standing;
        if is_failure(outcome, config) {
            // Out at once, that no other goes there before the detector has said for how long.
            if standing.turn(self.taken, Phase::Ejected { until: Duration::ZERO }.pack()) {
                return Verdict::Eject(Cause::Probe);
            }
        } else {
            // Also when it came late and another has been let through: an answer is an answer.
            let seen = standing.phase.load(Relaxed);
            let open = matches!(Phase::unpack(seen), Phase::HalfOpen | Phase::Probing { since: _ });
            if open && standing.turn(seen, Phase::Healthy.pack()) {
                return Verdict::Returned;
            }
        }
        // It has become a request like any other.
        standing.record(outcome, took, config)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.standing.turn(self.taken, Phase::HalfOpen.pack());
    }
}

/// Failures one after the other.
#[derive(Debug, Default)]
struct Streak(AtomicU32);

impl Streak {
    /// Whether it has reached `threshold` by one more. It then begins anew: exactly one thread is told, and is told
    /// again if the endpoint could not be ejected, or the threshold was lowered below what was counted.
    fn grow(&self, threshold: u32) -> bool {
        let next = |count: u32| if count.saturating_add(1) >= threshold { 0 } else { count + 1 };
        threshold > 0 && next(self.0.update(Relaxed, Relaxed, next)) == 0
    }

    /// A success costs a load, not a write.
    fn end(&self) {
        if self.0.load(Relaxed) != 0 {
            self.0.store(0, Relaxed);
        }
    }
}

/// What is counted from one sweep to the next.
#[derive(Debug, Default)]
struct Window {
    /// Requests in the lower half, failures in the upper: one addition, so that they never contradict each other.
    counts: AtomicU64,
    /// What successes took. An endpoint that fails fast must not make the others look slow.
    nanos: AtomicU64,
}

impl Window {
    fn add(&self, failure: bool, took: Duration) {
        self.counts.fetch_add(1 | u64::from(failure) << 32, Relaxed);
        if !failure {
            self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        }
    }

    fn take(&self) -> (u32, u32, u64) {
        let counts = self.counts.swap(0, Relaxed);
        (counts as u32, (counts >> 32) as u32, self.nanos.swap(0, Relaxed))
    }
}

struct Length {
    /// The number that it counts as.
    nth: u32,
    length: Duration,
}

impl Length {
    fn of(nth: u32, config: &OutlierDetection, random: u64) -> Self {
        let (base, max) = (config.base_ejection, config.max_ejection);
        // Counted no further than lengths grow, or it would take longer to be forgotten than to be earned.
        let last = max.as_nanos().div_ceil(base.as_nanos().max(1)).max(1);
        let nth = nth.min(u32::try_from(last).unwrap_or(u32::MAX));
        let whole = base.saturating_mul(nth);
        let tenth = (whole / 10).mul_f64((random >> 32) as f64 / f64::from(u32::MAX));
        Self { nth, length: whole.saturating_add(tenth).min(max) }
    }
}

/// Whether a rule looks at the share of failures.
pub(super) fn judges_shares(config: &OutlierDetection) -> bool {
    config.failure_percent > Percent::ZERO || config.success_rate_deviations > 0
}

/// Whether a probe that ended so has failed: a status that no rule looks at is as good an answer as any.
fn is_failure(outcome: Outcome, config: &OutlierDetection) -> bool {
    match outcome {
        Outcome::Success => false,
        Outcome::Status5xx { gateway } => {
            config.consecutive_5xx > 0 || judges_shares(config) || gateway && config.consecutive_gateway > 0
        }
        Outcome::NoResponse => true,
    }
}
