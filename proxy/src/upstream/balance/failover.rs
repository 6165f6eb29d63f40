//! How the levels of a set share its requests, by how many of their endpoints are available: Envoy's rule for
//! priorities, its overprovisioning factor and its panic threshold.

use outrigger_proto::model::Percent;

/// All requests of a set, where shares of them are numbers.
pub(super) const ALL: u64 = 1 << 32;

/// A level keeps all of its share until less than 10/14 of its endpoints are available: as much as that is provided
/// beyond need. Envoy's default of 140 %.
const OVERPROVISIONED: (u64, u64) = (14, 10);

/// How many endpoints of a level may take requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    /// Those that may.
    pub(super) available: usize,
    /// All of them; never 0.
    pub(super) all: usize,
}

/// What a level gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Of [`ALL`].
    pub(super) load: u64,
    /// All of its endpoints are used, available or not.
    pub(super) panic: bool,
}

/// Each level's share, the first level first: it takes what its health allows, the next one of what is left, and so
/// on. Where all of them together are not well enough, they share in proportion to their health; only then may one
/// panic, when less than `threshold` of it is available. With nothing available at all, the levels share by their
/// size if they panic; if they may not, the first is named, and will have no endpoint to give.
pub(super) fn shares(levels: &[Count], threshold: Percent) -> Vec<Share> {
    let sum: u64 = levels.iter().map(|level| health(*level)).sum();
    let total = sum.min(ALL);
    if total == 0 {
        return unavailable(levels, threshold);
    }
    let mut left = ALL;
    let share = |level: &Count| {
        let load = scaled(health(*level), ALL, total).min(left);
        left -= load;
        Share { load, panic: total < ALL && is_below(*level, threshold) }
    };
    levels.iter().map(share).collect()
}

fn unavailable(levels: &[Count], threshold: Percent) -> Vec<Share> {
    let panic = threshold > Percent::ZERO;
    let endpoints: u64 = levels.iter().map(|level| level.all as u64).sum();
    let load = |(i, level): (usize, &Count)| match (panic, i) {
        (true, _) => scaled(ALL, level.all as u64, endpoints),
        (false, 0) => ALL,
        (false, _) => 0,
    };
    levels.iter().enumerate().map(|level| Share { load: load(level), panic }).collect()
}

/// From 0 to [`ALL`].
fn health(level: Count) -> u64 {
    let (over, one) = OVERPROVISIONED;
    scaled(ALL, level.available as u64 * over, level.all as u64 * one).min(ALL)
}

fn is_below(level: Count, threshold: Percent) -> bool {
    level.available as u64 * u64::from(Percent::ALL.millionths())
        < level.all as u64 * u64::from(threshold.millionths())
}

/// `number` x `by` / `of`.
fn scaled(number: u64, by: u64, of: u64) -> u64 {
    (u128::from(number) * u128::from(by) / u128::from(of)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(percent: usize) -> Count {
        Count { available: percent, all: 100 }
    }

    /// Of levels of a hundred endpoints each: how many are available, and what each gets, in per cent.
    #[track_caller]
    fn check(available: &[usize], loads: &[f64]) {
        let counts: Vec<Count> = available.iter().copied().map(count).collect();
        let shares = shares(&counts, Percent::ZERO);
        for (share, load) in shares.iter().zip(loads) {
            let got = share.load as f64 * 100.0 / ALL as f64;
            assert!((got - load).abs() < 0.7, "{available:?}: {shares:?}, not {loads:?}");
            assert!(!share.panic);
        }
    }

    #[test]
    fn levels_share_as_in_envoy() {
        check(&[100, 100], &[100.0, 0.0]);
        check(&[72, 100], &[100.0, 0.0]);
        check(&[71, 100], &[99.0, 1.0]);
        check(&[50, 100], &[70.0, 30.0]);
        check(&[25, 100], &[35.0, 65.0]);
        check(&[0, 100], &[0.0, 100.0]);
        check(&[72, 72], &[100.0, 0.0]);
        check(&[71, 71], &[99.0, 1.0]);
        check(&[50, 60], &[70.0, 30.0]);
        check(&[25, 25], &[50.0, 50.0]);
        check(&[25, 25, 100], &[35.0, 35.0, 30.0]);
        check(&[25, 25, 20], &[36.0, 36.0, 28.0]);
        check(&[0, 0], &[100.0, 0.0]);
    }

    #[track_caller]
    fn check_panic(available: &[usize], threshold: u32, panics: &[bool]) {
        let counts: Vec<Count> = available.iter().copied().map(count).collect();
        let shares = shares(&counts, Percent::whole(threshold));
        assert!(
            shares.iter().map(|share| share.panic).eq(panics.iter().copied()),
            "{available:?} {shares:?}"
        );
    }

    #[test]
    fn a_level_panics_only_below_the_threshold_and_when_the_others_do_not_suffice() {
        check_panic(&[72, 72], 50, &[false, false]);
        check_panic(&[25, 100], 50, &[false, false]);
        check_panic(&[50, 60], 50, &[false, false]);
        check_panic(&[25, 25], 50, &[true, true]);
        check_panic(&[5, 65], 50, &[true, false]);
        check_panic(&[0, 0], 50, &[true, true]);
        check_panic(&[0, 0], 0, &[false, false]);
        check_panic(&[49], 50, &[true]);
        check_panic(&[50], 50, &[false]);
    }

    #[test]
    fn with_nothing_available_and_panic_allowed_levels_share_by_size() {
        let levels = [Count { available: 0, all: 30 }, Count { available: 0, all: 10 }];
        let loads: Vec<u64> = shares(&levels, Percent::whole(1)).iter().map(|share| share.load).collect();
        assert_eq!(loads, [ALL / 4 * 3, ALL / 4]);
    }

    proptest! {
        #[test]
        fn shares_are_of_one_whole(levels in prop::collection::vec((0_usize..50, 1_usize..50), 1..6), threshold in 0_u32..=100) {
            let counts: Vec<Count> =
                levels.iter().map(|(available, all)| Count { available: *available.min(all), all: *all }).collect();
            let shares = shares(&counts, Percent::whole(threshold));
            let sum: u64 = shares.iter().map(|share| share.load).sum();
            // What is lost in rounding goes to the first level.
            prop_assert!(sum <= ALL && ALL - sum < 8, "{sum}");
            for (count, share) in counts.iter().zip(&shares) {
                prop_assert!(count.available > 0 || share.load == 0 || counts.iter().all(|c| c.available == 0));
                prop_assert!(!share.panic || threshold > 0);
            }
        }
    }
}
