//! A token bucket that all workers take from, exact and without a lock: the generic cell rate algorithm (ITU-T I.371),
//! whose whole state is one number, changed by compare-and-swap.
//!
//! The number is the time at which the bucket will be full again, in nanoseconds since the process began. A token is
//! worth the time that it takes to come; it is there when taking it moves that time no further ahead of now than the
//! bucket is deep. An idle bucket has nothing to be refilled, no timer and no task.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use outrigger_proto::model::RateLimit;

/// No bucket takes longer than this to fill (some 146 years), so that no sum overflows.
const DEEPEST: u64 = u64::MAX / 4;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds that a token takes to come. Rounded up: a bucket may be slower than what was configured, by less
    /// than a nanosecond a token, and is never faster.
    step: u64,
    /// Nanoseconds from empty to full.
    depth: u64,
}

/// What came of taking a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Whether there was one.
    pub granted: bool,
    /// Whole tokens that are left.
    pub left: u32,
    next: u64,
}

impl Quota {
    /// Until there is one more token than are left.
    pub fn next(&self) -> Duration {
        Duration::from_nanos(self.next)
    }
}

impl Rate {
    /// What the configuration means.
    pub fn new(config: &RateLimit) -> Self {
        let every = nanos(config.every).min(DEEPEST);
        let step = every.div_ceil(u64::from(config.tokens.get())).max(1);
        let tokens = u64::from(config.burst.get()).min(DEEPEST / step).max(1);
        Self { step, depth: tokens * step }
    }

    /// Takes a token out of the bucket that is full at `full_at`; when it will be full from now on, and what to say.
    pub(super) fn take(self, full_at: u64, now: u64) -> (u64, Quota) {
        let Self { step, depth } = self;
        let after = full_at.max(now).saturating_add(step);
        let end = now.saturating_add(depth);
        if after > end {
            return (full_at, Quota { granted: false, left: 0, next: after - end });
        }
        let room = end - after;
        let left = u32::try_from(room / step).unwrap_or(u32::MAX);
        (after, Quota { granted: true, left, next: step - room % step })
    }
}

/// A bucket; full at first.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// Takes a token, if there is one. `now` is the time since the process began; one that is a little behind that of
    /// others grants less, never more.
    pub fn take(&self, rate: Rate, now: Duration) -> Quota {
        let now = nanos(now);
        // The number stands for nothing but itself, so nothing must be seen in order with it.
        let mut full_at = self.0.load(Relaxed);
        loop {
            let (after, quota) = rate.take(full_at, now);
            if !quota.granted {
                return quota;
            }
            match self.0.compare_exchange_weak(full_at, after, Relaxed, Relaxed) {
                Ok(_) => return quota,
                Err(other) => full_at = other,
            }
        }
    }
}

/// 584 years fit.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use outrigger_proto::model::LimitKey;
    use proptest::prelude::*;

    use super::*;

    fn rate(tokens: u32, every: Duration, burst: u32) -> Rate {
        let not_zero = |n| NonZeroU32::new(n).unwrap();
        Rate::new(&RateLimit {
            tokens: not_zero(tokens),
            every,
            burst: not_zero(burst),
            per: LimitKey::All,
            keys: RateLimit::KEYS,
        })
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// Takes at these times, in milliseconds; what is said each time: tokens left, or what is missing, and
    /// milliseconds until the next.
    #[track_caller]
    fn check(rate: Rate, rows: &[(u64, Result<u32, ()>, u64)]) {
        let bucket = Bucket::default();
        for (at, expected, next) in rows {
            let quota = bucket.take(rate, Duration::from_millis(*at));
            let said = if quota.granted { Ok(quota.left) } else { Err(()) };
            let next_said = quota.next().as_nanos().div_ceil(1_000_000) as u64;
            assert_eq!((said, next_said), (*expected, *next), "at {at} ms");
        }
    }

    #[test]
    fn a_burst_then_the_rate() {
        let rows = [
            (0, Ok(2), 100),
            (0, Ok(1), 100),
            (0, Ok(0), 100),
            (0, Err(()), 100),
            (99, Err(()), 1),
            (100, Ok(0), 100),
            (250, Ok(0), 50),
            (299, Err(()), 1),
            (300, Ok(0), 100),
            // Idle for long: full, and no fuller.
            (10_000, Ok(2), 100),
            (10_000, Ok(1), 100),
            (10_000, Ok(0), 100),
            (10_000, Err(()), 100),
        ];
        check(rate(10, SECOND, 3), &rows);
    }

    #[test]
    fn a_bucket_of_one_token() {
        check(rate(1, SECOND, 1), &[(500, Ok(0), 1000), (1499, Err(()), 1), (1500, Ok(0), 1000)]);
    }

    #[test]
    fn whoever_is_behind_grants_no_more() {
        let (bucket, rate) = (Bucket::default(), rate(10, SECOND, 1));
        assert!(bucket.take(rate, SECOND).granted);
        assert!(!bucket.take(rate, SECOND - Duration::from_millis(500)).granted);
        assert!(bucket.take(rate, SECOND + Duration::from_millis(100)).granted);
    }

    #[test]
    fn the_ends_of_what_can_be_written() {
        let hour = Duration::from_secs(3600);
        for (tokens, every, burst) in
            [(1, hour, u32::MAX), (u32::MAX, SECOND, u32::MAX), (u32::MAX, SECOND, 1), (1, hour, 1)]
        {
            let (bucket, rate) = (Bucket::default(), rate(tokens, every, burst));
            for now in [Duration::ZERO, hour, Duration::from_secs(u64::from(u32::MAX))] {
                let quota = bucket.take(rate, now);
                assert!(quota.granted && quota.left < burst, "{tokens}/{every:?}, {burst}");
            }
        }
    }

    proptest! {
        /// The definition of a token bucket, seen from outside; and whoever waits as long as was said gets one.
        #[test]
        fn never_more_than_the_burst_and_the_rate_in_any_window(
            tokens in 1_u32..2000,
            every in prop::sample::select(vec![1_u64, 60, 3600]),
            burst in 1_u32..50,
            waits in prop::collection::vec((0_u64..4, 0_u64..1_000_000), 1..200),
        ) {
            let (bucket, rate) = (Bucket::default(), rate(tokens, Duration::from_secs(every), burst));
            let (mut now, mut granted) = (0_u64, Vec::new());
            for (steps, more) in waits {
                now += steps * rate.step / 2 + more;
                let quota = bucket.take(rate, Duration::from_nanos(now));
                if quota.granted {
                    granted.push(now);
                    continue;
                }
                now += quota.next;
                prop_assert!(bucket.take(rate, Duration::from_nanos(now)).granted, "starved");
                granted.push(now);
            }
            for (first, from) in granted.iter().enumerate() {
                for (last, to) in granted.iter().enumerate().skip(first) {
                    let come = u128::from(to - from) * u128::from(tokens) / u128::from(every * 1_000_000_000);
                    prop_assert!(((last - first) as u128) < u128::from(burst) + come);
                }
            }
        }

        /// As many as were said to be left are left.
        #[test]
        fn what_is_left_can_be_taken(tokens in 1_u32..2000, burst in 1_u32..50, take in 1_u32..60) {
            let (bucket, rate) = (Bucket::default(), rate(tokens, SECOND, burst));
            for n in 1..=take {
                let quota = bucket.take(rate, SECOND);
                prop_assert_eq!((quota.granted, quota.left), (n <= burst, burst.saturating_sub(n)));
            }
        }
    }

    /// All threads at the same moment: exactly the burst, whoever gets it. Then one step at a time: exactly one each.
    #[test]
    fn threads_together_get_exactly_what_there_is() {
        const THREADS: usize = 8;
        let (bucket, rate) = (Bucket::default(), rate(1000, SECOND, 1000));
        let granted_at = |now: Duration| -> usize {
            let start = std::sync::Barrier::new(THREADS);
            let take = || {
                start.wait();
                (0..1000).filter(|_| bucket.take(rate, now).granted).count()
            };
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(take)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            })
        };
        assert_eq!(granted_at(SECOND), 1000);
        for ms in 1..=20 {
            assert_eq!(granted_at(SECOND + Duration::from_millis(ms)), 1, "{ms}");
        }
        assert_eq!(granted_at(SECOND * 2), 980);
    }
}
