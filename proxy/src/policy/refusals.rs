//! What a rate limit service refused and would refuse again: whoever is over its limit and goes on asking costs no call.

use std::collections::hash_map::RandomState;
use std::num::NonZeroU32;
use std::time::Duration;

use super::bucket::nanos;
use super::keyed::Keyed;

/// No refusal is remembered for longer, so that a limit that was raised is soon seen to be.
const MOST: Duration = Duration::from_secs(1);

/// Questions that were answered with no, for as long as the answer holds. Shared by all workers.
#[derive(Debug)]
pub struct Refusals(Keyed);

impl Refusals {
    /// Room for so many. The secret must be random.
    pub fn new(most: NonZeroU32, secret: RandomState) -> Self {
        Self(Keyed::new(most, secret))
    }

    /// Whether this question is known to be refused; `now` is the time since the process began.
    pub fn hold(&self, question: &[u8], now: Duration) -> bool {
        self.0.noted(question).is_some_and(|until| nanos(now) < until)
    }

    /// It was refused, and nothing changes about that before `reset` has passed.
    pub fn note(&self, question: &[u8], now: Duration, reset: Duration) {
        self.0.note(question, nanos(now + reset.min(MOST)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(most: u32) -> Refusals {
        Refusals::new(NonZeroU32::new(most).unwrap(), RandomState::new())
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_refusal_holds_until_its_reset_and_never_longer_than_a_second() {
        let refusals = refusals(10);
        let long = [7; 300];
        refusals.note(b"a", ms(100), ms(50));
        refusals.note(&long, ms(100), ms(60_000));
        for (question, now, holds) in [
            (&b"a"[..], 100, true),
            (b"a", 149, true),
            (b"a", 150, false),
            (b"b", 100, false),
            (&long, 1_099, true),
            (&long, 1_100, false),
            (&long[1..], 100, false),
        ] {
            assert_eq!(refusals.hold(question, ms(now)), holds, "{now} {question:?}");
        }
    }

    #[test]
    fn the_one_asked_longest_ago_is_forgotten_and_asking_alone_takes_no_place() {
        let refusals = refusals(2);
        refusals.note(b"a", ms(0), ms(1_000));
        refusals.note(b"b", ms(0), ms(1_000));
        for other in 0..100_u8 {
            assert!(!refusals.hold(&[other, 0], ms(1)));
        }
        assert!(refusals.hold(b"a", ms(1)));
        refusals.note(b"c", ms(1), ms(1_000));
        assert_eq!([b"a", b"b", b"c"].map(|question| refusals.hold(question, ms(2))), [true, false, true]);
    }
}
