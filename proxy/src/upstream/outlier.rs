//! Which endpoints are left out for a while, by how they answer: outlier detection. Pure: outcomes, the time and
//! random numbers in, verdicts out.
//!
//! ```text
//!             failures in a row, or a sweep finds it worse than the others
//!  Healthy -----------------------------------------------------------------> Ejected
//!     ^                                                                       |   ^
//!     |                                          its time is over, at a sweep |   |
//!     |                                                                       v   |
//!     |                                                                HalfOpen   |
//!     |                                                one request takes |  ^     |
//!     |                                                        the probe |  | cancelled
//!     |  the probe succeeds                                              v  |     |
//!     '------------------------------------------------------------- Probing -----'
//!                                                            the probe fails: for longer
//! ```
//!
//! Whoever is out also becomes healthy when others have left and too many are out, and when detection is turned off.
//!
//! [`Standing`] is what a request touches, on any worker: atomics, no lock. [`Detector`] looks at all endpoints of a
//! cluster, and its `&mut self` asks for a lock, which a request takes only when it is told to eject. Endpoints are
//! handed in at each call, so they may come and go.
//!
//! The rules mean what they mean in Envoy, except: an endpoint comes back through one request at a time, not all at
//! once; the largest share is never exceeded, and where it binds the worst go first; failures are judged by share in
//! clusters of any size; scatter that chance explains is no deviation; latency is judged at all.

mod judge;
mod standing;

use std::time::Duration;

use outrigger_proto::model::{OutlierDetection, Percent};

use self::judge::{samples, suspects};
use self::standing::judges_shares;
pub use self::standing::{Phase, Probe, Standing};

/// How a request ended, as far as its endpoint is to blame. What our own limits refused, and what the client
/// cancelled, says nothing of an endpoint and is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response below 500.
    Success,
    /// A status of 500 or above.
    Status5xx {
        /// 502, 503 or 504.
        gateway: bool,
    },
    /// No connection, a reset, or nothing in time.
    NoResponse,
}

/// Why an endpoint is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Statuses of 500 and above, or no response, one after the other.
    Consecutive5xx,
    /// 502, 503 or 504, or no response, one after the other.
    ConsecutiveGateway,
    /// No response, one after the other.
    ConsecutiveLocal,
    /// It failed too large a share of its requests.
    FailurePercent,
    /// It succeeds less often than the others.
    SuccessRate,
    /// It is slower than the others.
    Latency,
    /// It failed its probe.
    Probe,
}

impl Cause {
    /// As a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGateway => "consecutive_gateway",
            Self::ConsecutiveLocal => "consecutive_local",
            Self::FailurePercent => "failure_percent",
            Self::SuccessRate => "success_rate",
            Self::Latency => "latency",
            Self::Probe => "probe",
        }
    }
}

/// What is to be done after an outcome was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Nothing.
    Nothing,
    /// [`Detector::eject`], now. Said once for each time that a threshold is reached.
    Eject(Cause),
    /// Its return is to be noted: a probe has brought the endpoint back.
    Returned,
}

/// All that a verdict about one endpoint of a cluster depends on.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// All endpoints of the cluster.
    pub endpoints: &'a [&'a Standing],
    /// By which rules.
    pub config: &'a OutlierDetection,
    /// Since the start of the process.
    pub now: Duration,
}

/// What the detector has changed about an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is left out.
    Ejected {
        /// Why.
        cause: Cause,
        /// For so long.
        length: Duration,
    },
    /// It would be, but no more may be left out: it takes requests. Who has failed its probe does so again.
    Spared(Cause),
    /// It may be probed.
    HalfOpen,
    /// It takes requests again: too many were left out, or detection is off.
    Returned,
}

/// Changes, each with its endpoint's place in the slice that was handed in.
pub type Changes = Vec<(usize, Change)>;

/// The only one who ejects; one for each cluster, behind a lock, or the largest share could be exceeded.
#[derive(Debug)]
pub struct Detector {
    swept: Duration,
}

impl Detector {
    /// The first interval begins now.
    pub fn new(now: Duration) -> Self {
        Self { swept: now }
    }

    /// When [`Self::sweep`] is due.
    pub fn due(&self, interval: Duration) -> Duration {
        self.swept.saturating_add(interval)
    }

    /// Leaves an endpoint out, as a [`Verdict`] wants it; `None` when another was faster, or it has been brought back
    /// meanwhile.
    pub fn eject(
        &mut self,
        target: &Standing,
        cause: Cause,
        scene: Scene<'_>,
        random: u64,
    ) -> Option<Change> {
        let Scene { endpoints, config, now } = scene;
        // Who has failed a probe is out already, and must not be counted as one more.
        let again = cause == Cause::Probe;
        if target.is_ejected() != again {
            return None;
        }
        let others = endpoints.iter().filter(|e| e.is_ejected() && !std::ptr::eq(**e, target)).count();
        if others < allowed(endpoints.len(), config.max_ejected) {
            return Some(Change::Ejected { cause, length: target.eject(config, now, random) });
        }
        if again {
            target.restore();
        }
        Some(Change::Spared(cause))
    }

    /// Brings back what is more than may be left out, whoever had the least time left first. To be called when
    /// endpoints have left the cluster; a sweep does it for a share that was made smaller.
    pub fn fit(&mut self, endpoints: &[&Standing], config: &OutlierDetection) -> Changes {
        let left = |(place, endpoint): (usize, &&Standing)| match endpoint.phase() {
            Phase::Healthy => None,
            Phase::HalfOpen | Phase::Probing { since: _ } => Some((Duration::ZERO, place)),
            Phase::Ejected { until } => Some((until, place)),
        };
        let mut out: Vec<_> = endpoints.iter().enumerate().filter_map(left).collect();
        out.sort_unstable();
        out.truncate(out.len().saturating_sub(allowed(endpoints.len(), config.max_ejected)));
        let restore = |(_, place): (Duration, usize)| {
            endpoints[place].restore();
            (place, Change::Returned)
        };
        out.into_iter().map(restore).collect()
    }

    /// Ends ejections, and judges by shares and means; once an interval. `None`: detection is off.
    pub fn sweep(
        &mut self,
        endpoints: &[&Standing],
        config: Option<&OutlierDetection>,
        now: Duration,
        mut random: impl FnMut() -> u64,
    ) -> Changes {
        self.swept = now;
        let Some(config) = config.filter(|config| is_on(config)) else { return release(endpoints) };
        let mut changes = half_open(endpoints, config, now);
        changes.extend(self.fit(endpoints, config));
        let samples = samples(endpoints, config);
        let out = endpoints.iter().filter(|e| e.is_ejected()).count();
        let mut room = allowed(endpoints.len(), config.max_ejected).saturating_sub(out);
        for (place, cause) in suspects(&samples, config) {
            if room == 0 {
                changes.push((place, Change::Spared(cause)));
            } else {
                room -= 1;
                let length = endpoints[place].eject(config, now, random());
                changes.push((place, Change::Ejected { cause, length }));
            }
        }
        endpoints.iter().for_each(|e| e.settle());
        changes
    }
}

fn release(endpoints: &[&Standing]) -> Changes {
    let release = |(place, endpoint): (usize, &&Standing)| {
        let was_out = endpoint.is_ejected();
        endpoint.pardon();
        was_out.then_some((place, Change::Returned))
    };
    endpoints.iter().enumerate().filter_map(release).collect()
}

fn half_open(endpoints: &[&Standing], config: &OutlierDetection, now: Duration) -> Changes {
    let over = endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.half_open(config, now));
    over.map(|(place, _)| (place, Change::HalfOpen)).collect()
}

/// How many of `n` endpoints may be left out.
fn allowed(n: usize, share: Percent) -> usize {
    const WHOLE: u32 = Percent::ALL.millionths();
    match n {
        0 | 1 => 0,
        n => (n as u64 * u64::from(share.millionths()) / u64::from(WHOLE)).max(1) as usize,
    }
}

/// Whether any rule is there at all.
fn is_on(config: &OutlierDetection) -> bool {
    let consecutive = [config.consecutive_5xx, config.consecutive_gateway, config.consecutive_local];
    consecutive.iter().any(|n| *n > 0) || config.latency_factor > 0 || judges_shares(config)
}

#[cfg(test)]
mod tests;
