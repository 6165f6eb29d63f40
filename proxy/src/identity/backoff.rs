//! How long to wait before one tries again: at random up to a bound that doubles, so that many who lost the same server do
//! not come back at once. Pure: chance is an argument.

use std::time::Duration;

/// The waits between tries.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    bound: Duration,
}

impl Backoff {
    /// The first bound, and the last.
    pub fn new((base, max): (Duration, Duration)) -> Self {
        Self { base, max, bound: base }
    }

    /// It went well.
    pub fn reset(&mut self) {
        self.bound = self.base;
    }

    /// How long to wait now; at least half of the first bound. What would be less is not raised to that: of those who wait
    /// for the first time, half would come back in the same moment.
    pub fn next(&mut self, random: u64) -> Duration {
        let bound = self.bound;
        self.bound = (bound * 2).min(self.max);
        let share = f64::from(u32::try_from(random >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        let least = self.base / 2;
        least + (bound - least).mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_and_stay() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new((ms(100), ms(500)));
        let waits: Vec<_> = (0..5).map(|_| backoff.next(u64::MAX)).collect();
        assert_eq!(waits, [ms(100), ms(200), ms(400), ms(500), ms(500)]);
        assert_eq!(backoff.next(0), ms(50));
        backoff.reset();
        assert_eq!(backoff.next(u64::MAX), ms(100));
    }

    #[test]
    fn those_who_wait_alike_are_spread() {
        let ms = Duration::from_millis;
        let waits = (0..1000).map(|share| {
            let mut backoff = Backoff::new((ms(100), ms(500)));
            backoff.next((u64::MAX / 1000) * share)
        });
        let mut in_each = [0; 5];
        for wait in waits {
            in_each[usize::try_from((wait - ms(50)).as_millis() / 10).unwrap()] += 1;
        }
        assert!(in_each.iter().all(|some| (199..=201).contains(some)), "{in_each:?}");
    }
}
