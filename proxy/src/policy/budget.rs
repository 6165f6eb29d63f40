//! What of a cluster's requests may be further attempts: a retry budget. It is what keeps retries from making a bad day
//! worse: when everything fails, traffic grows by the budget's share and no more.
//!
//! Each request deposits a share of an attempt, each further attempt withdraws a whole one. A floor of so many attempts
//! a second is lent where there is too little traffic to have earned them, and paid back out of later deposits, so that
//! above the floor's rate the share alone counts.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use outrigger_proto::model::RetryBudget;

/// One attempt, in millionths.
const ONE: i64 = 1_000_000;
/// Attempts that can be saved up: a few for the requests that were under way when an endpoint died, so few that they do
/// not show in what a longer failure adds to the load.
const SAVINGS: i64 = 5 * ONE;

/// The balance of one cluster, shared by all workers.
#[derive(Debug, Default)]
pub struct Budget {
    /// In millionths of an attempt; below zero while the floor is owed.
    balance: AtomicI64,
    /// The second, and the attempts that were granted in it.
    second: AtomicU64,
}

impl Budget {
    /// A request is sent for the first time.
    pub fn deposit(&self, policy: RetryBudget) {
        // Most of the time nothing fails and the balance is full: then nothing is written.
        if self.balance.load(Relaxed) < SAVINGS {
            let share = i64::from(policy.percent.millionths());
            let add = |balance: i64| Some((balance + share).min(SAVINGS));
            let _ = self.balance.fetch_update(Relaxed, Relaxed, add);
        }
    }

    /// Whether another attempt may be made at `now` (since the process started); it is paid for when it may.
    pub fn withdraw(&self, policy: RetryBudget, now: Duration) -> bool {
        let take = |balance: i64| (balance >= ONE).then_some(balance - ONE);
        if self.balance.fetch_update(Relaxed, Relaxed, take).is_ok() {
            self.count(u32::MAX, now);
            return true;
        }
        if !self.count(policy.min, now) {
            return false;
        }
        let owed = -i64::from(policy.min) * ONE;
        let _ = self.balance.fetch_update(Relaxed, Relaxed, |balance| Some((balance - ONE).max(owed)));
        true
    }

    /// Counts an attempt in its second, unless that has had `most` already.
    fn count(&self, most: u32, now: Duration) -> bool {
        let second = now.as_secs() & 0xffff_ffff;
        let one_more = |packed: u64| {
            let granted = if packed >> 32 == second { packed & 0xffff_ffff } else { 0 };
            (granted < u64::from(most)).then_some(second << 32 | (granted + 1))
        };
        self.second.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use outrigger_proto::model::Percent;
    use proptest::prelude::*;

    use super::*;

    const POLICY: RetryBudget = RetryBudget { percent: Percent::whole(20), min: 3 };

    /// Attempts granted when so many requests a second all fail for so many seconds, each wanting `wanted` more.
    fn storm(rate: u64, seconds: u64, wanted: u32, policy: RetryBudget) -> u64 {
        let budget = Budget::default();
        let mut granted = 0;
        for i in 0..rate * seconds {
            let now = Duration::from_nanos(i * 1_000_000_000 / rate);
            budget.deposit(policy);
            granted += (0..wanted).filter(|_| budget.withdraw(policy, now)).count() as u64;
        }
        granted
    }

    #[test]
    fn a_storm_is_as_large_as_the_share() {
        // (requests a second, seconds, attempts granted at the least and at the most)
        let rows = [(1000, 10, 1990, 2010), (100, 10, 195, 205), (15, 10, 27, 33), (1, 10, 8, 30)];
        for (rate, seconds, least, most) in rows {
            let granted = storm(rate, seconds, 2, POLICY);
            assert!((least..=most).contains(&granted), "{rate}/s: {granted}");
        }
    }

    #[test]
    fn the_floor_is_there_without_any_traffic() {
        let budget = Budget::default();
        let granted = |now| (0..10).filter(|_| budget.withdraw(POLICY, Duration::from_secs(now))).count();
        assert_eq!([granted(5), granted(5), granted(6), granted(100)], [3, 0, 3, 3]);
    }

    #[test]
    fn what_is_saved_up_is_bounded() {
        let budget = Budget::default();
        (0..100_000).for_each(|_| budget.deposit(POLICY));
        let granted = (0..1000).filter(|_| budget.withdraw(POLICY, Duration::ZERO)).count();
        assert_eq!(granted as i64, SAVINGS / ONE);
    }

    #[test]
    fn no_budget_grants_nothing() {
        assert_eq!(storm(1000, 2, 2, RetryBudget { percent: Percent::ZERO, min: 0 }), 0);
    }

    proptest! {
        /// Whatever happens, attempts never exceed the share of all requests so far plus what the floor lends.
        #[test]
        fn the_share_is_never_exceeded(steps in prop::collection::vec((0_u64..50, any::<bool>()), 1..400), percent in 0_u32..=100, min in 0_u32..5) {
            let policy = RetryBudget { percent: Percent::whole(percent), min };
            let budget = Budget::default();
            let (mut requests, mut attempts, mut now) = (0_u64, 0_u64, Duration::ZERO);
            for (wait, request) in steps {
                now += Duration::from_millis(wait);
                if request {
                    requests += 1;
                    budget.deposit(policy);
                } else if budget.withdraw(policy, now) {
                    attempts += 1;
                }
                let seconds = now.as_secs() + 1;
                let allowed = requests * u64::from(percent) / 100 + u64::from(min) * seconds;
                prop_assert!(attempts <= allowed, "{attempts} > {allowed}");
            }
        }
    }

    #[test]
    fn exact_over_threads() {
        let budget = Budget::default();
        (0..50).for_each(|_| budget.deposit(POLICY));
        let policy = RetryBudget { min: 0, ..POLICY };
        let granted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mine = (0..1000).filter(|_| budget.withdraw(policy, Duration::ZERO)).count();
                    granted.fetch_add(mine as u64, Relaxed);
                });
            }
        });
        assert_eq!(granted.load(Relaxed) as i64, SAVINGS / ONE);
    }
}
