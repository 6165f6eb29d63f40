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

/// No sooner than this after the last one, even where less is left; but for certificates that live for seconds.
const SOON: Duration = Duration::from_secs(1);

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
    /// For a certificate that was just got: after 45 to 55 % of what is left of it, by chance. Of what is left, as its
    /// beginning says little: authorities put it into the past, by an hour and more, for the sake of clocks that differ.
    pub(super) fn new(Validity { not_before, not_after }: Validity, now: SystemTime, random: u64) -> Self {
        let lifetime = not_after.duration_since(not_before).unwrap_or_default();
        let share =
            0.45 + 0.1 * f64::from(u32::try_from(random >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        let left = not_after.duration_since(now).unwrap_or_default().min(lifetime);
        let after = left.mul_f64(share);
        let pause = lifetime / 10;
        Self { at: now + after, after, pause: after.clamp(pause.min(SOON), pause.min(LOOK)) }
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
    }

    /// What was left, and after how much of it one is due, and looked at first.
    #[track_caller]
    fn check_late(age: f64, left: Duration, due: Duration, first: Duration) {
        let validity = Validity { not_before: at(-age), not_after: at(0.0) + left };
        let plan = Plan::new(validity, at(0.0), 0);
        let early = due - Duration::from_millis(1);
        assert_eq!(plan.wait(at(0.0), Duration::ZERO), Some(first));
        assert!(plan.wait(at(0.0) + early, early).is_some());
        assert_eq!(plan.wait(at(0.0) + due, due), None);
        assert!(plan.longest_wait() <= first);
    }

    #[test]
    fn what_is_left_counts_and_not_what_is_past() {
        let seconds = Duration::from_secs;
        // Its beginning was put into the past.
        check_late(1.0, seconds(600), seconds(270), LOOK);
        // It was signed a while ago, or our clock is ahead.
        check_late(9.0, HOUR, HOUR.mul_f64(0.45), LOOK);
        check_late(24.0, seconds(10), Duration::from_millis(4500), Duration::from_millis(4500));
        // Hardly anything is left, and will not be of the next one either.
        check_late(24.0, Duration::from_millis(100), SOON, SOON);
    }

    /// How often a proxy asks within so many hours, and the least that was ever left of its certificate by the
    /// authority's clock. `set` is when the proxy's wall clock is set, and by how much it is off from then on.
    fn live(hours: f64, lifetime: f64, backdated: f64, set: &[(f64, f64)]) -> (u32, f64) {
        let (mut asked, mut least) = (0, f64::INFINITY);
        let (mut now, mut held) = (0.0, None);
        let wall = |now: f64| {
            let off = set.iter().rev().find(|(from, _)| now >= *from).map_or(0.0, |(_, off)| *off);
            at(now + off)
        };
        while now < hours {
            let validity = Validity { not_before: at(now - backdated), not_after: at(now + lifetime) };
            asked += 1;
            let good = (validity.not_before..=validity.not_after).contains(&wall(now));
            if !good {
                // It is refused; another try.
                now += LOOK.as_secs_f64() / 3600.0;
                continue;
            }
            least = held.map_or(least, |until: f64| least.min(until - now));
            held = Some(now + lifetime);
            let (plan, begun) = (Plan::new(validity, wall(now), u64::from(asked) << 62), now);
            while let Some(wait) = plan.wait(wall(now), HOUR.mul_f64(now - begun)) {
                now += wait.as_secs_f64() / 3600.0;
            }
        }
        (asked, least)
    }

    /// No more is asked than this, and no less was left.
    #[track_caller]
    fn check_days((asked, left): (u32, f64), most: u32, least: f64) {
        assert!(asked <= most && left >= least, "asked {asked} times, {left} h were left");
    }

    #[test]
    fn days_go_by() {
        check_days(live(96.0, 24.0, 0.0, &[]), 9, 10.0);
        check_days(live(24.0, 1.0, 1.0, &[]), 54, 0.4);
        check_days(live(24.0, 0.2, 1.0, &[]), 267, 0.08);
        // Ahead: it asks more often, as less seems to be left.
        check_days(live(48.0, 24.0, 0.0, &[(1.0, 5.0)]), 8, 10.0);
        check_days(live(48.0, 24.0, 0.0, &[(1.0, 23.0)]), 106, 10.0);
        // Behind, of an authority that puts beginnings into the past: it asks later.
        check_days(live(48.0, 24.0, 6.0, &[(1.0, -5.0)]), 6, 8.0);
        // Of another one: nothing is good until the clock is set, and that is asked for once a minute.
        check_days(live(48.0, 24.0, 0.0, &[(1.0, -5.0), (20.0, 0.0)]), 9 * 60, 3.0);
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
