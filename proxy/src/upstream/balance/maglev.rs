//! Maglev's table (Eisenbud et al., NSDI 2016, section 3.4): endpoints take turns, each taking the next free slot of an
//! order of its own. Shares are exact to about a per cent, a look-up is one read; when an endpoint leaves, its keys and
//! a few others move.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::hash::mix;
use super::weights::below;

/// Primes, so that every step passes all slots, each for up to so many endpoints: at a hundred slots for each, shares
/// are exact to a per cent. 4, 32 and 128 KiB. A set that grows or shrinks past such a bound moves most keys, once.
const SIZES: [(usize, u64); 3] = [(20, 2039), (160, 16_381), (usize::MAX, 65_537)];
const FREE: u16 = u16::MAX;
/// Endpoints past these have no slots: a table of that many cannot share them out by weight anyway.
const MOST: usize = u16::MAX as usize;

/// Whose each slot is.
#[derive(Debug)]
pub(super) struct Maglev {
    slots: Box<[u16]>,
}

impl Maglev {
    /// `keys` and `weights` of the endpoints, of which there is at least one.
    ///
    /// Equal weights, release build, of one core: 3 endpoints 0.03 ms, 100 0.5 ms, 1,000 4.6 ms.
    pub(super) fn new(keys: &[u64], weights: &[u32]) -> Self {
        let (_, size) =
            SIZES[SIZES.iter().position(|(most, _)| keys.len() <= *most).expect("the last has no bound")];
        let mut slots = vec![FREE; size as usize];
        let mut orders: Vec<Order> = keys.iter().take(MOST).map(|key| Order::new(*key, size)).collect();
        // The k-th turn of a weight is due at k / weight. Those due at once go in the order of their keys, which is
        // the same for all proxies.
        let due = |turn: u32, owner: usize| {
            (Reverse((f64::from(turn) / f64::from(weights[owner].max(1))).to_bits()), Reverse(keys[owner]))
        };
        let mut turns: BinaryHeap<_> = (0..orders.len()).map(|owner| (due(1, owner), owner, 1)).collect();
        for _ in 0..size {
            let mut next = turns.peek_mut().expect("at least one endpoint");
            let (at, owner, turn) = &mut *next;
            let slot = orders[*owner].find(|slot| slots[*slot] == FREE).expect("as many slots as turns");
            slots[slot] = *owner as u16;
            *turn += 1;
            *at = due(*turn, *owner);
        }
        Self { slots: slots.into() }
    }

    /// Who owns a key, then the owners of the slots that follow; once around, so that one may come several times.
    pub(super) fn owners(&self, hash: u64) -> impl Iterator<Item = usize> {
        let first = below(hash, self.slots.len() as u64);
        let (before, from) = self.slots.split_at(first as usize);
        from.iter().chain(before).map(|owner| usize::from(*owner))
    }
}

/// The slots in the order in which an endpoint wants them.
struct Order {
    next: u64,
    step: u64,
    size: u64,
}

impl Order {
    fn new(key: u64, size: u64) -> Self {
        Self { next: key % size, step: mix(key) % (size - 1) + 1, size }
    }
}

impl Iterator for Order {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let slot = self.next;
        self.next += self.step;
        if self.next >= self.size {
            self.next -= self.size;
        }
        Some(slot as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(n: u64) -> Vec<u64> {
        (1..=n).map(mix).collect()
    }

    fn counts(table: &Maglev, n: usize) -> Vec<usize> {
        let mut counts = vec![0; n];
        for owner in &table.slots {
            counts[usize::from(*owner)] += 1;
        }
        counts
    }

    #[test]
    fn slots_are_shared_exactly_by_weight() {
        for n in [1, 3, 20, 21, 160, 161, 1000] {
            let table = Maglev::new(&keys(n), &vec![5; n as usize]);
            let counts = counts(&table, n as usize);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{n}: {least} {most}");
        }
        let table = Maglev::new(&keys(3), &[1, 2, 7]);
        for (count, weight) in counts(&table, 3).iter().zip([1, 2, 7]) {
            assert!(count.abs_diff(2039 * weight / 10) <= 1, "{count} {weight}");
        }
        assert_eq!(counts(&Maglev::new(&keys(2), &[u32::MAX, 1]), 2), [2039, 0]);
    }

    #[test]
    fn the_order_of_endpoints_does_not_matter() {
        let (keys, weights): (Vec<u64>, Vec<u32>) = (keys(30), (1..31).collect());
        let back: Vec<u64> = keys.iter().rev().copied().collect();
        let heavy_first: Vec<u32> = weights.iter().rev().copied().collect();
        let (table, other) = (Maglev::new(&keys, &weights), Maglev::new(&back, &heavy_first));
        for hash in [0, 1, u64::MAX / 3, u64::MAX] {
            assert!(table.owners(hash).map(|i| keys[i]).eq(other.owners(hash).map(|i| back[i])));
        }
    }
}
