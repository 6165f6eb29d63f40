//! Many short lists of routes in two allocations.

/// Lists of positions, each ascending. Frozen: compact beats growable here.
#[derive(Debug)]
pub(super) struct Lists {
    /// List `i` is `routes[starts[i]..starts[i + 1]]`.
    starts: Box<[u32]>,
    routes: Box<[u32]>,
}

impl Lists {
    /// From `(list, route)` pairs; the order of pairs is the order within each of the `count` lists.
    pub(super) fn new(count: usize, mut pairs: Vec<(u32, u32)>) -> Self {
        pairs.sort_by_key(|&(list, _)| list);
        let start = |list: usize| pairs.partition_point(|&(l, _)| (l as usize) < list);
        let starts = (0..=count).map(|list| u32::try_from(start(list)).expect("fewer than 2^32 entries"));
        Self { starts: starts.collect(), routes: pairs.iter().map(|&(_, route)| route).collect() }
    }

    /// The routes of one list; none for a list that does not exist.
    pub(super) fn get(&self, list: u32) -> &[u32] {
        let list = list as usize;
        match self.starts.get(list..).and_then(|starts| starts.first_chunk()) {
            Some(&[start, end]) => &self.routes[start as usize..end as usize],
            None => &[],
        }
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.routes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_their_order() {
        let lists = Lists::new(4, vec![(2, 0), (0, 1), (2, 3), (0, 4)]);
        assert_eq!(lists.get(0), [1, 4]);
        assert_eq!(lists.get(1), [0; 0]);
        assert_eq!(lists.get(2), [0, 3]);
        assert_eq!(lists.get(3), [0; 0]);
        assert_eq!(lists.get(4), [0; 0]);
        assert_eq!(Lists::new(0, vec![]).get(0), [0; 0]);
    }
}
