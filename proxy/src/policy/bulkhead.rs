//! How many requests of a route may be under way at once, all together or of each caller: a bulkhead. Whoever finds it
//! full waits in a line that has an end.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use outrigger_proto::model::{Concurrency, LimitKey};

use crate::gate::{Entry, Gate};

/// So that workers seldom wait for each other.
const SHARDS: usize = 16;
/// A shard with more callers than this, and twice as many as were left the last time, looks who has gone.
const TIDY: usize = 64;

/// A concurrency limit as it lives.
#[derive(Debug)]
pub struct Bulkhead {
    config: Concurrency,
    /// For those who have no key of their own.
    common: Arc<Gate>,
    each: Option<Callers>,
}

impl Bulkhead {
    /// Nobody is in. The secret must be random.
    pub fn new(config: Concurrency, secret: RandomState) -> Self {
        let each = match config.per {
            LimitKey::All => None,
            LimitKey::Header(_) | LimitKey::Source => {
                Some(Callers { secret, shards: std::array::from_fn(|_| Mutex::default()) })
            }
        };
        Self { common: Gate::new(config.max.get()), each, config }
    }

    /// What was configured.
    pub fn config(&self) -> &Concurrency {
        &self.config
    }

    /// Enters for this caller, or for all together when there is `None`; or joins the line, as a request of this worker.
    /// Also tells how many were in.
    pub fn enter(&self, caller: Option<&[u8]>, worker: usize) -> (Entry, u32) {
        let Concurrency { max, queue, wait: _, per: _ } = self.config;
        let gate = match (caller, &self.each) {
            (Some(caller), Some(each)) => each.gate(caller, max.get()),
            (_, _) => self.common.clone(),
        };
        let entry = gate.enter((worker, 0), queue);
        (entry, gate.used())
    }
}

/// A gate for each caller who has a request under way; those who have none are forgotten.
#[derive(Debug)]
struct Callers {
    secret: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    /// By two hashes of the caller's key under the secret: who does not know that finds no two keys with the same.
    gates: HashMap<(u64, u64), Weak<Gate>>,
    tidied: usize,
}

impl Callers {
    fn gate(&self, caller: &[u8], max: u32) -> Arc<Gate> {
        let key = (self.secret.hash_one((0_u8, caller)), self.secret.hash_one((1_u8, caller)));
        let shard = &self.shards[key.0 as usize % SHARDS];
        // Nothing is done under this lock that could leave the table half changed.
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if shard.gates.len() > TIDY.max(2 * shard.tidied) {
            shard.gates.retain(|_, gate| gate.strong_count() > 0);
            shard.tidied = shard.gates.len();
        }
        let place = shard.gates.entry(key).or_default();
        place.upgrade().unwrap_or_else(|| {
            let gate = Gate::new(max);
            *place = Arc::downgrade(&gate);
            gate
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn bulkhead(max: u32, queue: u32, per: LimitKey) -> Bulkhead {
        let config = Concurrency { queue, per, ..Concurrency::new(NonZeroU32::new(max).unwrap()) };
        Bulkhead::new(config, RandomState::new())
    }

    fn is_in(entry: &(Entry, u32)) -> bool {
        matches!(entry.0, Entry::In(_))
    }

    #[test]
    fn it_is_full_when_it_is_full() {
        let all = bulkhead(2, 1, LimitKey::All);
        let held = [all.enter(None, 0), all.enter(Some(b"a"), 0)];
        assert!(held.iter().all(is_in));
        let line = all.enter(None, 0);
        assert!(matches!(line, (Entry::Line(_), 2)));
        assert!(matches!(all.enter(None, 0), (Entry::Full, 2)));
        drop((held, line));
        assert!(is_in(&all.enter(None, 0)));
    }

    #[test]
    fn callers_do_not_crowd_each_other_out_and_are_forgotten() {
        let each = bulkhead(1, 0, LimitKey::Source);
        let held = [each.enter(Some(b"a"), 0), each.enter(Some(b"b"), 0), each.enter(None, 0)];
        assert!(held.iter().all(is_in));
        assert!(matches!(each.enter(Some(b"a"), 0), (Entry::Full, 1)));
        for caller in 0..100_000_u32 {
            assert!(is_in(&each.enter(Some(&caller.to_ne_bytes()), 0)));
        }
        let callers = each.each.as_ref().unwrap();
        let kept: usize = callers.shards.iter().map(|shard| shard.lock().unwrap().gates.len()).sum();
        assert!(kept <= SHARDS * (TIDY + 2), "{kept}");
        assert!(matches!(each.enter(Some(b"b"), 0), (Entry::Full, 1)), "who is in stays known");
    }
}
