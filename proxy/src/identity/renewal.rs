//! When a certificate is to be renewed: at about half of its life, at a time of one's own, so that a fleet that started
//! together does not come back together. Pure: both clocks and chance are arguments.
//!
//! Two clocks, as neither alone will do. The wall's is what certificates are written in, and may be set; the other one
//! only goes on. A wall clock that jumps ahead makes a certificate due at once, but not again and again; one that is set
//! back does not keep a certificate past half of its life by the other.

use std::time::{Duration, SystemTime};

use super::verify::Validity;

/// Looked at no later than this: in the meantime somebody may have set the clock.
pub(super) const LOOK: Duration = Duration::from_secs(60);

/// When to renew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// By the wall.
    at: SystemTime,
    /// After this much time.
    after: Duration,
    /// Not before this much time has passed, whatever the wall says.
    pause: Duration,
}

impl Plan {
    /// For a certificate that was just got: between 45 and 55 % of its life, by chance.
    pub(super) fn new(Validity { not_before, not_after }: Validity, now: SystemTime, random: u64) -> Self {
        let lifetime = not_after.duration_since(not_before).unwrap_or_default();
        let share =
            0.45 + 0.1 * f64::from(u32::try_from(random >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        let at = not_before + lifetime.mul_f64(share);
        // Of what is left: it may have been signed a while ago.
        let left = not_after.duration_since(now).unwrap_or_default().min(lifetime);
        let after = left.mul_f64(share);
        Self { at, after, pause: (lifetime / 10).min(LOOK) }
    }

    /// How long to wait before it is looked at again; `None` when it is due. `elapsed` is the time since it was made.
    pub(super) fn wait(&self, now: SystemTime, elapsed: Duration) -> Option<Duration> {
        let Self { at, after, pause } = *self;
        if elapsed < pause {
            return Some(pause - elapsed);
        }
        let by_wall = at.duration_since(now).unwrap_or_default();
        let left = by_wall.min(after.saturating_sub(elapsed));
        (!left.is_zero()).then_some(left.min(LOOK))
    }

    /// Between tries, when it could not be renewed: short beside what is left.
    pub(super) fn longest_wait(&self) -> Duration {
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(hours: f64) -> SystemTime {
        SystemTime::UNIX_EPOCH + HOUR.mul_f64(1000.0 + hours)
    }

    fn plan(random: u64) -> Plan {
        Plan::new(Validity { not_before: at(0.0), not_after: at(10.0) }, at(0.0), random)
    }

    #[test]
    fn it_is_due_at_about_half_of_its_life() {
        for (random, due) in [(0, 4.5), (u64::MAX / 2, 5.0), (u64::MAX, 5.5)] {
            let plan = plan(random);
            assert!(plan.wait(at(due - 0.01), HOUR.mul_f64(due - 0.01)).is_some(), "{random}");
            assert_eq!(plan.wait(at(due + 0.01), HOUR.mul_f64(due + 0.01)), None, "{random}");
        }
        assert_eq!(plan(0).wait(at(1.0), HOUR), Some(LOOK), "the clock may be set meanwhile");
    }

    #[test]
    fn a_clock_that_is_set_neither_storms_nor_forgets() {
        let plan = plan(u64::MAX / 2);
        // A jump ahead of hours: due, but not in the moment after it was got.
        assert_eq!(plan.wait(at(8.0), Duration::ZERO), Some(LOOK));
        assert_eq!(plan.wait(at(8.0), LOOK), None);
        // A jump back of hours: the other clock knows.
        assert_eq!(plan.wait(at(-20.0), HOUR), Some(LOOK));
        assert_eq!(plan.wait(at(-16.0), HOUR.mul_f64(5.01)), None);
        // One that was signed for a clock behind ours is due at once, by that clock again and again.
        let late = Plan::new(Validity { not_before: at(-9.0), not_after: at(1.0) }, at(0.0), 0);
        assert_eq!(late.wait(at(0.0), Duration::ZERO), Some(LOOK));
        assert_eq!(late.wait(at(0.1), LOOK), None);
    }

    #[test]
    fn short_lives_have_short_waits() {
        let seconds = Duration::from_secs;
        let validity = Validity { not_before: at(0.0), not_after: at(0.0) + seconds(10) };
        let plan = Plan::new(validity, at(0.0), 0);
        assert_eq!(plan.longest_wait(), seconds(1));
        assert_eq!(plan.wait(at(0.0) + seconds(1), seconds(1)), Some(Duration::from_millis(3500)));
        assert_eq!(plan.wait(at(0.0) + seconds(5), seconds(5)), None);
    }
}
