//! The choice of a target by weight.

use outrigger_proto::model::Split;

/// Position in `split.targets` of the target that `random`, drawn evenly from all of `u64`, falls on.
///
/// Each target is chosen as often as its weight says, to within one part in 2^64 of the sum of weights.
pub fn pick_target(split: &Split, random: u64) -> usize {
    let [_, _, ..] = &*split.targets else { return 0 };
    let total: u64 = split.targets.iter().map(|target| u64::from(target.weight.get())).sum();
    // Scaling instead of a remainder: no division, and no bias towards the first.
    let mut point = (u128::from(random) * u128::from(total)) >> 64;
    for (position, target) in split.targets.iter().enumerate() {
        let weight = u128::from(target.weight.get());
        if point < weight {
            return position;
        }
        point -= weight;
    }
    split.targets.len() - 1
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use outrigger_proto::model::{Name, Target};
    use proptest::prelude::*;

    use super::*;

    fn split(weights: &[u32]) -> Split {
        let target = |weight: &u32| Target::new(Name::new("c").unwrap(), NonZeroU32::new(*weight).unwrap());
        Split { targets: weights.iter().map(target).collect() }
    }

    #[track_caller]
    fn check(weights: &[u32], random: u64, expected: usize) {
        assert_eq!(pick_target(&split(weights), random), expected, "{weights:?} at {random:#x}");
    }

    #[test]
    fn borders() {
        check(&[7], 0, 0);
        check(&[7], u64::MAX, 0);
        check(&[1, 1], (1 << 63) - 1, 0);
        check(&[1, 1], 1 << 63, 1);
        check(&[1, 3], (1 << 62) - 1, 0);
        check(&[1, 3], 1 << 62, 1);
        check(&[1, 3], u64::MAX, 1);
        check(&[u32::MAX, u32::MAX, 1], 0, 0);
        check(&[u32::MAX, u32::MAX, 1], u64::MAX, 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn shares_follow_weights(weights in prop::collection::vec(1u32..50, 1..8)) {
            let split = split(&weights);
            let total: u32 = weights.iter().sum();
            let mut seen = vec![0; weights.len()];
            for i in 0..total {
                // The middle of each of `total` equal parts.
                let random = ((u128::from(i) * 2 + 1) << 63) / u128::from(total);
                seen[pick_target(&split, u64::try_from(random).unwrap())] += 1;
            }
            prop_assert_eq!(seen, weights);
        }
    }
}
