//! How long to wait before one tries again: at random up to a bound that doubles ("full jitter"), so that many who lost
//! the same server do not come back at once. Pure: chance is an argument.

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

    /// How long to wait now; at least half of the first bound.
    pub fn next(&mut self, random: u64) -> Duration {
        let bound = self.bound;
        self.bound = (bound * 2).min(self.max);
        let share = f64::from(u32::try_from(random >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        bound.mul_f64(share).max(self.base / 2)
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
}
