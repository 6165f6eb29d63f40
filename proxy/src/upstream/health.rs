//! What the checks of an endpoint come to: whether it is given requests, and when it is asked again. Pure: an outcome,
//! the settings and random numbers in, a state and a time out. Who asks is [`crate::health`]'s business.
//!
//! An endpoint that nobody has asked yet is used while nothing better is known: after a start all of a cluster's are
//! unknown, and to wait for the first answers would turn away the first requests. Beside one that *has* passed a
//! check, a new one is awaited: it is used from its first success on, so that a pod that is listed before it can serve
//! costs no request. Once known, an endpoint changes sides only after several outcomes in a row.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outrigger_proto::model::HealthCheck;

/// What is thought of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It is not checked, or not yet often enough. It is used.
    #[default]
    Unknown,
    /// It came when others were known to be well, and has not passed a check yet. It is not used.
    Awaited,
    /// It passes. It is used.
    Healthy,
    /// It fails. It is not used.
    Unhealthy,
}

impl Health {
    /// Whether it is given requests.
    pub fn is_usable(self) -> bool {
        match self {
            Self::Unknown | Self::Healthy => true,
            Self::Awaited | Self::Unhealthy => false,
        }
    }

    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Awaited => "awaited",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What one check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is well.
    Passed,
    /// Nobody listens there.
    Refused,
    /// No connection: another reason.
    Unreachable,
    /// TLS did not come about, or with somebody else.
    Tls,
    /// No whole answer within the check's `timeout`.
    TimedOut,
    /// The connection ended before the answer did.
    Closed,
    /// The answer was not of the protocol that was asked in.
    Protocol,
    /// An HTTP status that is not from 200 to 299.
    Status(u16),
    /// A gRPC status that is not 0.
    Grpc(u16),
    /// A `ServingStatus` of `grpc.health.v1` that is not SERVING.
    NotServing(u16),
    /// We could not ask, for want of something of our own: it says nothing of the endpoint.
    NotAsked,
}

/// gRPC status of a method that the server does not have.
const UNIMPLEMENTED: u16 = 12;
/// gRPC status by which a health service says that it does not know the service asked for.
const NOT_FOUND: u16 = 5;

impl Outcome {
    /// A short name, for metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::TimedOut => "timeout",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::Status(_) => "status",
            Self::Grpc(_) => "grpc_status",
            Self::NotServing(_) => "not_serving",
            Self::NotAsked => "not_asked",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("ok"),
            Self::Refused => f.write_str("connection refused"),
            Self::Unreachable => f.write_str("no connection"),
            Self::Tls => f.write_str("no TLS, or somebody else's"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Closed => f.write_str("the connection was closed before an answer"),
            Self::Protocol => f.write_str("the answer is not of the protocol that was asked in"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Grpc(UNIMPLEMENTED) => {
                f.write_str("gRPC status 12: it has no service grpc.health.v1.Health")
            }
            Self::Grpc(NOT_FOUND) => f.write_str("gRPC status 5: it does not know this service"),
            Self::Grpc(status) => write!(f, "gRPC status {status}"),
            Self::NotServing(0) => f.write_str("UNKNOWN"),
            Self::NotServing(2) => f.write_str("NOT_SERVING"),
            Self::NotServing(3) => f.write_str("SERVICE_UNKNOWN"),
            Self::NotServing(status) => write!(f, "serving status {status}"),
            Self::NotAsked => f.write_str("we could not ask: short of descriptors, ports, memory or time"),
        }
    }
}

/// What an endpoint's checks came to so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What is thought of it.
    pub health: Health,
    /// Outcomes in a row that speak against `health`.
    pub against: u32,
    /// What the last check found; `None` before the first.
    pub last: Option<Outcome>,
}

impl Record {
    /// A new endpoint, beside others that are known to be well.
    pub const AWAITED: Self = Self { health: Health::Awaited, against: 0, last: None };

    /// The record after one more check.
    #[must_use]
    pub fn after(self, outcome: Outcome, check: &HealthCheck) -> Self {
        let next = match outcome {
            Outcome::NotAsked => self,
            Outcome::Passed => self.passed(check.healthy_after.get()),
            // Nobody listens: to ask again would only lose time.
            Outcome::Refused => self.failed(u32::MAX, check.unhealthy_after.get()),
            Outcome::Unreachable
            | Outcome::Tls
            | Outcome::TimedOut
            | Outcome::Closed
            | Outcome::Protocol
            | Outcome::Status(_)
            | Outcome::Grpc(_)
            | Outcome::NotServing(_) => self.failed(1, check.unhealthy_after.get()),
        };
        Self { last: Some(outcome), ..next }
    }

    fn passed(self, needed: u32) -> Self {
        match self.health {
            // Nothing spoke against it but that it was new.
            Health::Unknown | Health::Awaited => Self { health: Health::Healthy, against: 0, ..self },
            Health::Healthy => Self { against: 0, ..self },
            Health::Unhealthy => self.spoken_against(1, needed, Health::Healthy),
        }
    }

    fn failed(self, counts: u32, needed: u32) -> Self {
        match self.health {
            Health::Unknown | Health::Awaited | Health::Healthy => {
                self.spoken_against(counts, needed, Health::Unhealthy)
            }
            Health::Unhealthy => Self { against: 0, ..self },
        }
    }

    fn spoken_against(self, counts: u32, needed: u32, other: Health) -> Self {
        match self.against.saturating_add(counts) {
            against if against >= needed => Self { health: other, against: 0, ..self },
            against => Self { against, ..self },
        }
    }
}

/// An endpoint's record, and what workers see of it: whether they may use it, without a lock. Only whoever checks
/// writes, and only admin reads the rest.
#[derive(Debug)]
pub struct HealthCell {
    usable: AtomicBool,
    checked: Mutex<(Record, Duration)>,
}

impl HealthCell {
    /// A new endpoint's.
    pub fn new(record: Record) -> Self {
        Self {
            usable: AtomicBool::new(record.health.is_usable()),
            checked: Mutex::new((record, Duration::ZERO)),
        }
    }

    /// Whether it is given requests.
    pub fn is_usable(&self) -> bool {
        self.usable.load(Relaxed)
    }

    /// What its checks came to.
    pub fn record(&self) -> Record {
        self.lock().0
    }

    /// When the last check ended, measured from the process's epoch; means nothing before the first.
    pub fn checked_at(&self) -> Duration {
        self.lock().1
    }

    /// A check ended now.
    pub fn checked(&self, record: Record, now: Duration) {
        *self.lock() = (record, now);
        self.usable.store(record.health.is_usable(), Relaxed);
    }

    /// It is checked no longer, and what was found holds no longer.
    pub fn forget(&self) {
        self.checked(Record::default(), Duration::ZERO);
    }

    fn lock(&self) -> MutexGuard<'_, (Record, Duration)> {
        // Whole values are put in: nothing can be half changed.
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for HealthCell {
    fn default() -> Self {
        Self::new(Record::default())
    }
}

/// The mean distance of the first checks of endpoints that come together.
const SPACING: Duration = Duration::from_millis(2);

/// How long a new endpoint waits for its first check, when so many come together: at random, so that a thousand are
/// not asked in one instant, and none waits longer than it would between two checks.
pub fn first_check(together: usize, check: &HealthCheck, random: u64) -> Duration {
    let together = u32::try_from(together).unwrap_or(u32::MAX);
    SPACING.saturating_mul(together).min(check.interval).mul_f64(fraction(random))
}

/// How long until an endpoint is asked again, once a check has ended: what is configured, or up to a tenth less, so
/// that checks that began together drift apart. `idle`: its cluster has no traffic.
///
/// Only of an endpoint that is well is less wanted to be known while nobody uses it. One that is not must not wait for
/// traffic: when all are out, requests are turned away and there is none.
pub fn next_check(record: Record, check: &HealthCheck, idle: bool, random: u64) -> Duration {
    let most = match record.health {
        Health::Unknown | Health::Awaited | Health::Unhealthy => check.unhealthy_interval,
        // In doubt.
        Health::Healthy if record.against > 0 => check.interval.min(check.unhealthy_interval),
        Health::Healthy if idle => check.idle_interval,
        Health::Healthy => check.interval,
    };
    most - (most / 10).mul_f64(fraction(random))
}

/// From 0 up to but not 1.
pub fn fraction(random: u64) -> f64 {
    f64::from((random >> 32) as u32) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
