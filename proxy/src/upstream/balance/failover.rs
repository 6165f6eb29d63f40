//! How the levels of a set share its requests, and the zones of a level those of the level, by how many of their
//! endpoints are available: Envoy's rules for priorities and for localities that are weighed, its overprovisioning
//! factor and its panic threshold.

use outrigger_proto::model::Percent;

/// All requests of a set, where shares of them are numbers.
pub(super) const ALL: u64 = 1 << 32;

/// A level or a zone keeps all of its share until less than 10/14 of its endpoints are available: as much as that is provided
/// beyond need. Envoy's default of 140 %.
const OVERPROVISIONED: (u64, u64) = (14, 10);

/// How many endpoints of a level, or of one zone of it, may take requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    /// Those that may.
    pub(super) available: usize,
    /// Those that may take one, to find out how they are.
    pub(super) half_open: usize,
    /// All of them; never 0.
    pub(super) all: usize,
}

/// A zone of a level.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Relative to the other zones'; never 0.
    pub(super) weight: u32,
    /// Its endpoints.
    pub(super) count: Count,
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

/// The endpoints of all zones of a level.
pub(super) fn sum(parts: &[Part]) -> Count {
    let sum = |of: fn(&Count) -> usize| parts.iter().map(|part| of(&part.count)).sum();
    Count {
        available: sum(|count| count.available),
        half_open: sum(|count| count.half_open),
        all: sum(|count| count.all),
    }
}

/// Where the share of each zone of a level ends, counted from where the level's begins: in proportion to weight x
/// health, so that a zone gives away what it cannot carry. In panic, and with nothing available, by weight alone.
pub(super) fn divide(share: Share, parts: &[Part]) -> Vec<u64> {
    let by_health = !share.panic && parts.iter().any(|part| health(part.count) > 0);
    let effective = |part: &Part| {
        // No sum of 32-bit weights of any number of zones that fits into memory overflows this.
        u128::from(part.weight) * u128::from(if by_health { health(part.count) } else { 1 })
    };
    let whole: u128 = parts.iter().map(effective).sum();
    let mut until = 0;
    let end = |part: &Part| {
        until += effective(part);
        (u128::from(share.load) * until / whole) as u64
    };
    parts.iter().map(end).collect()
}

/// From 0 to [`ALL`]. Where nobody is available, those that are to be probed stand for what they may turn out to be:
/// without a share they would never be asked while others are there. All but one of their requests go on to those.
fn health(level: Count) -> u64 {
    let (over, one) = OVERPROVISIONED;
    let hopeful = if level.available == 0 { level.half_open } else { level.available };
    scaled(ALL, hopeful as u64 * over, level.all as u64 * one).min(ALL)
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
        Count { available: percent, half_open: 0, all: 100 }
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

    /// Of a level that gets everything: weights, how many of a hundred endpoints are available, and shares in per cent.
    #[track_caller]
    fn check_zones(panic: bool, zones: &[(u32, usize)], expected: &[f64]) {
        let part = |(weight, available): &(u32, usize)| Part { weight: *weight, count: count(*available) };
        let parts: Vec<Part> = zones.iter().map(part).collect();
        let ends = divide(Share { load: ALL, panic }, &parts);
        let mut from = 0;
        for (end, expected) in ends.iter().zip(expected) {
            let got = (end - from) as f64 * 100.0 / ALL as f64;
            assert!((got - expected).abs() < 1e-6, "{zones:?}: {got}, not {expected:?}");
            from = *end;
        }
        assert_eq!(from, ALL);
    }

    #[test]
    fn zones_share_as_in_envoy() {
        check_zones(false, &[(80, 100), (20, 100)], &[80.0, 20.0]);
        check_zones(false, &[(80, 72), (20, 72)], &[80.0, 20.0]);
        // Half of it carries 0.7 of its weight: 56 of 56 + 20.
        check_zones(false, &[(80, 50), (20, 100)], &[5600.0 / 76.0, 2000.0 / 76.0]);
        check_zones(false, &[(1, 100), (1, 50)], &[100.0 / 1.7, 70.0 / 1.7]);
        check_zones(false, &[(80, 50), (20, 50)], &[80.0, 20.0]);
        check_zones(false, &[(80, 0), (15, 100), (5, 100)], &[0.0, 75.0, 25.0]);
        check_zones(false, &[(80, 0), (20, 1)], &[0.0, 100.0]);
        check_zones(false, &[(80, 0), (20, 0)], &[80.0, 20.0]);
        check_zones(true, &[(80, 10), (20, 100)], &[80.0, 20.0]);
        check_zones(false, &[(7, 30)], &[100.0]);
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
        let levels = [30, 10].map(|all| Count { available: 0, half_open: 0, all });
        let loads: Vec<u64> = shares(&levels, Percent::whole(1)).iter().map(|share| share.load).collect();
        assert_eq!(loads, [ALL / 4 * 3, ALL / 4]);
    }

    #[test]
    fn who_is_to_be_probed_is_asked_where_nobody_is_well() {
        let probed = Count { available: 0, half_open: 1, all: 1 };
        let level = |counts: &[Count]| shares(counts, Percent::ZERO)[0].load;
        assert_eq!(level(&[probed, count(100)]), ALL);
        // Beside one that is well it has its turn there.
        assert_eq!(level(&[Count { available: 1, half_open: 9, all: 10 }, count(100)]), ALL * 14 / 100);
        let share = Share { load: ALL, panic: false };
        let parts = [Part { weight: 80, count: probed }, Part { weight: 20, count: count(100) }];
        assert_eq!(divide(share, &parts)[0], (u128::from(ALL) * 80 / 100) as u64);
    }

    proptest! {
        #[test]
        fn shares_are_of_one_whole(levels in prop::collection::vec((0_usize..50, 1_usize..50), 1..6), threshold in 0_u32..=100) {
            let counts: Vec<Count> =
                levels.iter().map(|(available, all)| Count { available: *available.min(all), half_open: 0, all: *all }).collect();
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
