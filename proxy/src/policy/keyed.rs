//! A moment for each caller, as many as were configured and no more: whoever was seen longest ago is forgotten first.
//! For a bucket it is the time at which it will be full again, for a refusal the time until which it holds.
//!
//! Callers are spread over shards by a hash, each behind a lock that is held for a look-up. The hash is SipHash under a
//! secret of this process, so that nobody can choose keys that fall on each other. What is forgotten is the oldest of
//! one shard, which is nearly the oldest of all. A caller that was forgotten begins with a full bucket: `keys` below the
//! number of callers makes a limit that does not hold.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashTable;

use super::bucket::{Quota, Rate, nanos};

/// So that workers seldom wait for each other.
const MOST_SHARDS: usize = 16;
/// So that the oldest of a shard says something about the oldest of all.
const KEYS_IN_A_SHARD: usize = 256;
/// A longer key is kept as its digest, so that a table of tokens of many kilobytes stays small.
const LONGEST: usize = 64;

/// A key in sixteen bytes, by two values of a keyed hash: who does not know the secret finds no two keys with the same.
pub(super) fn digest(secret: &RandomState, key: &[u8]) -> (u64, u64) {
    (secret.hash_one((0_u8, key)), secret.hash_one((1_u8, key)))
}

/// Buckets by key.
#[derive(Debug)]
pub struct Keyed {
    secret: RandomState,
    shards: Box<[Mutex<Shard>]>,
    /// Places that any shard may take. Each has one of its own beside them, so that none has to take another's.
    free: AtomicUsize,
}

impl Keyed {
    /// Room for so many keys. The secret must be random.
    pub fn new(keys: NonZeroU32, secret: RandomState) -> Self {
        let keys = usize::try_from(keys.get()).unwrap_or(usize::MAX);
        let shards = (keys / KEYS_IN_A_SHARD).clamp(1, MOST_SHARDS);
        Self {
            secret,
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            free: AtomicUsize::new(keys - shards),
        }
    }

    /// Takes a token out of the key's bucket; `now` is the time since the process began.
    pub fn take(&self, key: &[u8], rate: Rate, now: Duration) -> Quota {
        self.with(key, |moment| {
            let (after, quota) = rate.take(*moment, nanos(now));
            *moment = after;
            quota
        })
    }

    /// Notes a moment of a key's, in place of its bucket.
    pub fn note(&self, key: &[u8], moment: u64) {
        self.with(key, |noted| *noted = moment);
    }

    /// The moment that was noted of a key; `None` when none was, or it is forgotten. To ask takes no place.
    pub fn noted(&self, key: &[u8]) -> Option<u64> {
        let mut digest = [0; 16];
        let key = self.short(key, &mut digest);
        let hash = self.secret.hash_one(key);
        let mut shard = self.shard(hash);
        let place = shard.find(hash, key)?;
        shard.touch(place);
        Some(shard.entries[place as usize].moment)
    }

    fn with<T>(&self, key: &[u8], f: impl FnOnce(&mut u64) -> T) -> T {
        let mut digest = [0; 16];
        let key = self.short(key, &mut digest);
        let hash = self.secret.hash_one(key);
        let mut shard = self.shard(hash);
        let place = match shard.find(hash, key) {
            Some(place) => place,
            None => {
                let grows = shard.entries.is_empty() || self.reserve();
                shard.add(hash, key, grows)
            }
        };
        shard.touch(place);
        f(&mut shard.entries[place as usize].moment)
    }

    /// A key as it is kept.
    fn short<'a>(&self, key: &'a [u8], digest: &'a mut [u8; 16]) -> &'a [u8] {
        if key.len() <= LONGEST {
            return key;
        }
        let (first, second) = self::digest(&self.secret, key);
        digest[..8].copy_from_slice(&first.to_ne_bytes());
        digest[8..].copy_from_slice(&second.to_ne_bytes());
        digest
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // Other bits than those by which the table within tells its entries apart.
        let shard = (hash >> 32) as usize % self.shards.len();
        // A panic under this lock could at worst leave a list in a wrong order.
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was a place left.
    fn reserve(&self) -> bool {
        let mut free = self.free.load(Relaxed);
        while free > 0 {
            match self.free.compare_exchange_weak(free, free - 1, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(other) => free = other,
            }
        }
        false
    }
}

/// No entry.
const NONE: u32 = u32::MAX;

/// Entries, found by their key, and in a list by when they were used. They are replaced, never removed.
#[derive(Debug)]
struct Shard {
    places: HashTable<u32>,
    entries: Vec<Entry>,
    newest: u32,
    oldest: u32,
}

impl Default for Shard {
    fn default() -> Self {
        Self { places: HashTable::new(), entries: Vec::new(), newest: NONE, oldest: NONE }
    }
}

#[derive(Debug)]
struct Entry {
    key: Box<[u8]>,
    hash: u64,
    /// In nanoseconds since the process began.
    moment: u64,
    newer: u32,
    older: u32,
}

impl Shard {
    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let is = |place: &u32| *self.entries[*place as usize].key == *key;
        self.places.find(hash, is).copied()
    }

    /// An entry with a full bucket: one more, or in place of the oldest. It stands in the list afterwards.
    fn add(&mut self, hash: u64, key: &[u8], grows: bool) -> u32 {
        let entry = Entry { key: key.into(), hash, moment: 0, newer: NONE, older: NONE };
        let place = if grows {
            let place = u32::try_from(self.entries.len()).expect("no more than `keys` entries");
            self.entries.push(entry);
            place
        } else {
            let place = self.oldest;
            self.unlink(place);
            let old = std::mem::replace(&mut self.entries[place as usize], entry);
            if let Ok(found) = self.places.find_entry(old.hash, |other| *other == place) {
                found.remove();
            }
            place
        };
        let Self { places, entries, newest: _, oldest: _ } = self;
        places.insert_unique(hash, place, |other| entries[*other as usize].hash);
        self.link(place);
        place
    }

    /// It was used last.
    fn touch(&mut self, place: u32) {
        if self.newest != place {
            self.unlink(place);
            self.link(place);
        }
    }

    fn link(&mut self, place: u32) {
        let second = std::mem::replace(&mut self.newest, place);
        let entry = &mut self.entries[place as usize];
        (entry.newer, entry.older) = (NONE, second);
        match second {
            NONE => self.oldest = place,
            second => self.entries[second as usize].newer = place,
        }
    }

    fn unlink(&mut self, place: u32) {
        let &Entry { key: _, hash: _, moment: _, newer, older } = &self.entries[place as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
    }
}

#[cfg(test)]
#[path = "keyed_tests.rs"]
mod tests;
