use outrigger_proto::model::{LimitKey, RateLimit};
use proptest::prelude::*;

use super::*;

/// One token an hour: who is granted a second one was forgotten in between.
fn rate() -> Rate {
    Rate::new(&RateLimit {
        tokens: NonZeroU32::MIN,
        every: Duration::from_secs(3600),
        burst: NonZeroU32::MIN,
        per: LimitKey::Source,
        keys: RateLimit::KEYS,
    })
}

fn table(keys: u32) -> Keyed {
    Keyed::new(NonZeroU32::new(keys).unwrap(), RandomState::new())
}

impl Keyed {
    fn granted(&self, key: &[u8]) -> bool {
        self.take(key, rate(), Duration::ZERO).granted
    }

    /// Entries, after a look at whether all hangs together.
    fn checked_len(&self) -> usize {
        let shards = self.shards.iter().map(|shard| shard.lock().unwrap());
        shards.map(|shard| shard.checked_len()).sum()
    }

    /// Bytes on the heap.
    fn size(&self) -> usize {
        let shards = self.shards.iter().map(|shard| shard.lock().unwrap());
        shards
            .map(|shard| {
                let keys: usize = shard.entries.iter().map(|entry| entry.key.len()).sum();
                shard.places.allocation_size() + shard.entries.capacity() * size_of::<Entry>() + keys
            })
            .sum()
    }
}

impl Shard {
    fn checked_len(&self) -> usize {
        let (mut newer, mut at, mut seen) = (NONE, self.newest, 0);
        while at != NONE {
            let entry = &self.entries[at as usize];
            assert_eq!(entry.newer, newer);
            assert_eq!(self.find(entry.hash, &entry.key), Some(at));
            (newer, at, seen) = (at, entry.older, seen + 1);
        }
        assert_eq!((self.oldest, seen), (newer, self.entries.len()));
        assert_eq!(self.places.len(), seen);
        seen
    }
}

#[test]
fn each_key_has_its_own_bucket() {
    let table = table(1000);
    for key in ["", "a", "b", "ab"] {
        assert!(table.granted(key.as_bytes()), "{key:?}");
        assert!(!table.granted(key.as_bytes()), "{key:?}");
    }
    assert_eq!(table.checked_len(), 4);
}

#[test]
fn as_many_keys_as_are_allowed_are_kept() {
    for keys in [1, 2, 3, 255, 256, 1000, 10_000] {
        let table = table(keys);
        for round in [true, false] {
            assert!((0..keys).all(|key| table.granted(&key.to_ne_bytes()) == round), "{keys}");
        }
        assert_eq!(table.checked_len(), keys as usize);
    }
}

#[test]
fn the_one_used_longest_ago_is_forgotten() {
    let table = table(3);
    for key in [b"a", b"b", b"c"] {
        assert!(table.granted(key));
    }
    assert!(!table.granted(b"a"), "used again");
    assert!(table.granted(b"d"), "in place of b");
    assert!(!table.granted(b"a") && !table.granted(b"c") && !table.granted(b"d"));
    assert!(table.granted(b"b"), "it was forgotten; now in place of a");
    assert!(!table.granted(b"c") && !table.granted(b"d") && !table.granted(b"b"));
    assert!(table.granted(b"a"));
}

/// Whoever sends a key of its own with each request gets nothing but its own buckets, and the memory stays.
#[test]
fn a_million_keys_take_no_more_room_than_was_allowed() {
    let table = table(10_000);
    let regular = *b"somebody who comes again and again";
    assert!(table.granted(&regular));
    for key in 0_u32..1_000_000 {
        assert!(table.granted(&key.to_ne_bytes()));
        if key % 1000 == 0 {
            assert!(!table.granted(&regular), "{key}");
        }
    }
    assert_eq!(table.checked_len(), 10_000);
    let each = table.size() / 10_000;
    assert!(each <= 100, "{each} bytes a key");
}

#[test]
fn long_keys_are_told_apart_and_take_no_room() {
    let table = table(1000);
    let long = |end: u8| [vec![b'x'; 60_000], vec![end]].concat();
    for end in 0..100 {
        assert!(table.granted(&long(end)));
    }
    for end in 0..100 {
        assert!(!table.granted(&long(end)));
    }
    assert!(table.size() / 100 <= 150, "{}", table.size());
}

#[test]
fn threads_together_get_one_each() {
    let table = table(2000);
    let granted = |offset: u32| {
        let keys = (0..2000_u32).map(|key| (key + offset) % 2000);
        keys.filter(|key| table.granted(&key.to_ne_bytes())).count()
    };
    let all: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || granted(n * 250))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(all, 2000);
    assert_eq!(table.checked_len(), 2000);
}

proptest! {
    /// With one shard it is exactly a list of the last used.
    #[test]
    fn it_forgets_as_a_plain_list_does(keys in 1_u32..12, asked in prop::collection::vec(0_u8..20, 1..200)) {
        let (table, mut list) = (table(keys), Vec::new());
        for key in asked {
            let known = list.iter().position(|k| *k == key).map(|at| list.remove(at));
            prop_assert_eq!(table.granted(&[key]), known.is_none());
            list.push(key);
            if list.len() > keys as usize {
                list.remove(0);
            }
            prop_assert_eq!(table.checked_len(), list.len());
        }
    }
}
