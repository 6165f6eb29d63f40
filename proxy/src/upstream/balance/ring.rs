//! A ring of points (Karger et al., 1997): each endpoint stands at many places, and a key belongs to the first one after
//! its hash. When an endpoint leaves, its keys alone move.

use super::hash::mix;

/// Points of a ring at the most, but that every endpoint has one: 96 KiB.
const MOST: u64 = 8192;
/// Points of a weight of one at the most, as a power of two: enough to share evenly, to a few per cent.
const MOST_EACH: u32 = 8;
/// Between an endpoint's points before they are mixed: odd, so that they differ.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The points in the order of their hashes, and whose they are.
#[derive(Debug)]
pub(super) struct Ring {
    hashes: Box<[u64]>,
    owners: Box<[u32]>,
}

impl Ring {
    /// `keys` and `weights` of the endpoints. How many points a weight of one gets is a power of two, and the same for
    /// any small ring, so that every point of those that stay, stays. Once the ring would grow too large half of the
    /// points go, and more keys move, once for each time that the sum of weights doubles.
    pub(super) fn new(keys: &[u64], weights: &[u32]) -> Self {
        let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut points: Vec<(u64, u32)> = Vec::new();
        for ((owner, key), weight) in (0..).zip(keys).zip(weights) {
            let own = points_of(u64::from(*weight), sum);
            points.extend((0..own).map(|i| (mix(key.wrapping_add(i.wrapping_mul(STEP))), owner)));
        }
        // Two that fall on one place are told apart by what all proxies know, not by the order they heard of them.
        points.sort_unstable_by_key(|(hash, owner)| (*hash, keys[*owner as usize]));
        let (hashes, owners): (Vec<u64>, Vec<u32>) = points.into_iter().unzip();
        Self { hashes: hashes.into(), owners: owners.into() }
    }

    /// Who owns a key, then who follows on the ring; once around, so that one may come several times.
    pub(super) fn owners(&self, hash: u64) -> impl Iterator<Item = usize> {
        let first = self.hashes.partition_point(|point| *point < hash);
        let (before, from) = self.owners.split_at(first);
        from.iter().chain(before).map(|owner| *owner as usize)
    }
}

/// How many points a weight gets: at least one.
fn points_of(weight: u64, sum: u64) -> u64 {
    let own = if sum <= MOST {
        weight << (MOST / sum).ilog2().min(MOST_EACH)
    } else {
        let halvings = sum.div_ceil(MOST).next_power_of_two().ilog2();
        weight >> halvings
    };
    own.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_large_but_not_too_large() {
        for n in 1..300 {
            let keys: Vec<u64> = (0..n).map(mix).collect();
            let points = Ring::new(&keys, &vec![1; keys.len()]).hashes.len() as u64;
            assert!(((256 * n).min(MOST / 2)..=MOST).contains(&points), "{n}: {points}");
        }
        let keys: Vec<u64> = (0..20_000).map(mix).collect();
        assert_eq!(Ring::new(&keys, &vec![7; 20_000]).hashes.len(), 20_000);
        assert!(Ring::new(&keys[..2], &[u32::MAX, 1]).hashes.len() <= 1 + MOST as usize);
    }

    #[test]
    fn every_point_is_passed_once_and_the_order_of_endpoints_does_not_matter() {
        let keys: Vec<u64> = (0..20).map(mix).collect();
        let back: Vec<u64> = keys.iter().rev().copied().collect();
        let (ring, other) = (Ring::new(&keys, &[1; 20]), Ring::new(&back, &[1; 20]));
        for hash in [0, 1, u64::MAX / 3, u64::MAX] {
            assert_eq!(ring.owners(hash).count(), ring.owners.len());
            assert!(ring.owners(hash).map(|i| keys[i]).eq(other.owners(hash).map(|i| back[i])));
        }
    }
}
