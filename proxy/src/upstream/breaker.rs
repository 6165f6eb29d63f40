//! What a cluster may be burdened with at once, exactly, over all workers: circuit breakers. Each count is a permit that
//! is given back when it is dropped, on every way out.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use outrigger_proto::model::{BreakerLimits, Priority};

use crate::gate::Gate;
use crate::policy::budget::Budget;

/// The counts of one cluster and class of requests. Limits come with each call: they are configuration.
#[derive(Debug)]
pub struct Breaker {
    priority: Priority,
    connections: Arc<Gate>,
    pending: Count,
    requests: Count,
    retries: Count,
    budget: Budget,
}

#[derive(Debug, Default)]
struct Count(AtomicU32);

/// Which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `circuit_breaker.max_connections`.
    Connections,
    /// `circuit_breaker.max_pending`.
    Pending,
    /// `circuit_breaker.max_requests`.
    Requests,
    /// `circuit_breaker.max_retries`.
    Retries,
}

impl Limit {
    /// Its key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::Pending => "max_pending",
            Self::Requests => "max_requests",
            Self::Retries => "max_retries",
        }
    }
}

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// Which.
    pub limit: Limit,
    /// Of which class of requests.
    pub priority: Priority,
    /// Its value.
    pub max: u32,
    /// What was counted, the one that was refused included.
    pub seen: u32,
}

impl Overflow {
    /// The key of the limit in the cluster's `circuit_breaker`.
    pub fn key(self) -> &'static str {
        match (self.priority, self.limit) {
            (Priority::Default, limit) => limit.key(),
            (Priority::High, Limit::Connections) => "high.max_connections",
            (Priority::High, Limit::Pending) => "high.max_pending",
            (Priority::High, Limit::Requests) => "high.max_requests",
            (Priority::High, Limit::Retries) => "high.max_retries",
        }
    }
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "circuit_breaker.{} is {}", self.key(), self.max)
    }
}

/// One that is counted.
#[derive(Debug)]
pub struct Counted {
    breaker: Arc<Breaker>,
    limit: Limit,
}

impl Breaker {
    /// Nothing is counted yet.
    pub fn new(priority: Priority, limits: &BreakerLimits) -> Arc<Self> {
        Arc::new(Self {
            priority,
            connections: Gate::new(limits.max_connections.get()),
            pending: Count::default(),
            requests: Count::default(),
            retries: Count::default(),
            budget: Budget::default(),
        })
    }

    /// The limits changed. Who is counted stays counted.
    pub fn configure(&self, limits: &BreakerLimits) {
        self.connections.set_max(limits.max_connections.get());
    }

    /// What is left for further attempts.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Too many connections.
    pub fn full(&self) -> Overflow {
        let max = self.connections.max();
        // Somebody may have left since.
        let seen = self.connections.used().max(max).saturating_add(1);
        Overflow { limit: Limit::Connections, priority: self.priority, max, seen }
    }

    /// Open connections.
    pub fn connections(&self) -> &Arc<Gate> {
        &self.connections
    }

    /// One more of a kind.
    ///
    /// # Errors
    /// The limit, when it has been reached.
    pub fn count(self: &Arc<Self>, limit: Limit, limits: &BreakerLimits) -> Result<Counted, Overflow> {
        let max = match limit {
            Limit::Connections => limits.max_connections.get(),
            Limit::Pending => limits.max_pending,
            Limit::Requests => limits.max_requests.get(),
            Limit::Retries => limits.max_retries,
        };
        let one_more = |count: u32| (count < max).then_some(count + 1);
        match self.of(limit).fetch_update(Relaxed, Relaxed, one_more) {
            Ok(_) => Ok(Counted { breaker: self.clone(), limit }),
            Err(seen) => Err(Overflow { limit, priority: self.priority, max, seen: seen.saturating_add(1) }),
        }
    }

    /// How many of a kind there are.
    pub fn seen(&self, limit: Limit) -> u32 {
        match limit {
            Limit::Connections => self.connections.used(),
            Limit::Pending | Limit::Requests | Limit::Retries => self.of(limit).load(Relaxed),
        }
    }

    fn of(&self, limit: Limit) -> &AtomicU32 {
        match limit {
            Limit::Connections => unreachable!("connections have a gate, as they can be waited for"),
            Limit::Pending => &self.pending.0,
            Limit::Requests => &self.requests.0,
            Limit::Retries => &self.retries.0,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.breaker.of(self.limit).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn limits(max: u32) -> BreakerLimits {
        let max = NonZeroU32::new(max).expect("not zero");
        BreakerLimits { max_requests: max, max_connections: max, max_pending: 0, max_retries: 1 }
    }

    #[test]
    fn an_overflow_says_which_limit_its_value_and_what_was_seen() {
        let breaker = Breaker::new(Priority::Default, &limits(2));
        let held: Vec<_> = (0..2).map(|_| breaker.count(Limit::Requests, &limits(2))).collect();
        let refused = breaker.count(Limit::Requests, &limits(2)).expect_err("two are in");
        assert_eq!(
            refused,
            Overflow { limit: Limit::Requests, priority: Priority::Default, max: 2, seen: 3 }
        );
        let refused = breaker.count(Limit::Pending, &limits(2)).expect_err("none may wait");
        assert_eq!((refused.max, refused.seen), (0, 1));
        drop(held);
        assert_eq!(breaker.seen(Limit::Requests), 0);
        // A limit that was lowered lets nobody in until there is room under it.
        let _held: Vec<_> = (0..2).map(|_| breaker.count(Limit::Requests, &limits(2))).collect();
        assert!(breaker.count(Limit::Requests, &limits(1)).is_err());
    }

    #[test]
    fn never_one_more_over_all_threads() {
        let (breaker, most) = (Breaker::new(Priority::Default, &limits(3)), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5000 {
                        if let Ok(_held) = breaker.count(Limit::Requests, &limits(3)) {
                            most.fetch_max(breaker.seen(Limit::Requests), Relaxed);
                        }
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
        assert_eq!(breaker.seen(Limit::Requests), 0);
    }
}
