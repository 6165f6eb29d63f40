//! How many requests of a route may be under way at once, all together or of each caller: a bulkhead. Whoever finds it
//! full waits in a line that has an end.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outrigger_proto::model::{Concurrency, LimitKey};

use super::adaptive::{Adaptive, Took};
use super::kept::Kept;
use super::keyed::digest;
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
    each: Option<Arc<Callers>>,
    adaptive: Option<Adaptive>,
}

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// Its value.
    pub max: u32,
    /// What was counted, the one that was refused included.
    pub seen: u32,
    /// Whether its value follows the latency.
    pub adaptive: bool,
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { max, seen: _, adaptive } = self;
        match adaptive {
            true => write!(f, "concurrency.adaptive is at {max}"),
            false => write!(f, "concurrency.max is {max}"),
        }
    }
}

impl Bulkhead {
    /// The secret must be random. Who is in is known already, and what was learned, where it takes the place of one that
    /// was `before` it, under other settings.
    pub fn new(config: Concurrency, secret: RandomState, before: Option<&Self>) -> Self {
        let callers = || Callers { secret, shards: std::array::from_fn(|_| Mutex::default()) };
        let each = match config.per {
            LimitKey::All => None,
            LimitKey::Header(_) | LimitKey::Source | LimitKey::Identity => {
                let before = before.filter(|before| before.config.per == config.per);
                let known = before.and_then(|before| before.each.clone());
                Some(known.unwrap_or_else(|| Arc::new(callers())))
            }
        };
        let learned = before.and_then(|before| before.adaptive.as_ref());
        let adaptive = config.adaptive.map(|adaptive| Adaptive::new(adaptive, config.max, learned));
        let max = adaptive.as_ref().map_or(config.max.get(), Adaptive::first);
        let common = before.map_or_else(|| Gate::new(max), |before| before.common.clone());
        common.set_max(max);
        Self { common, each, adaptive, config }
    }

    /// What was configured.
    pub fn config(&self) -> &Concurrency {
        &self.config
    }

    /// Whether callers are counted apart.
    pub fn counts_each(&self) -> bool {
        self.each.is_some()
    }

    /// What counts all together.
    pub fn common(&self) -> &Gate {
        &self.common
    }

    /// Whether the limit follows the latency, and wants to be told of it.
    pub fn is_adaptive(&self) -> bool {
        self.adaptive.is_some()
    }

    /// Enters for this caller, or for all together when there is `None`; or joins the line, as a request of this worker.
    pub fn enter(&self, caller: Option<&[u8]>, worker: usize) -> Entry {
        self.at_gate(caller, |gate| gate.enter((worker, 0), self.config.queue))
    }

    /// The limit that this caller has reached.
    pub fn crowd(&self, caller: Option<&[u8]>) -> Crowd {
        self.at_gate(caller, |gate| {
            let max = gate.max();
            // Somebody may have left since.
            Crowd { max, seen: gate.used().max(max).saturating_add(1), adaptive: self.is_adaptive() }
        })
    }

    fn at_gate<T>(&self, caller: Option<&[u8]>, f: impl FnOnce(&Arc<Gate>) -> T) -> T {
        match (caller, &self.each) {
            (Some(caller), Some(each)) => f(&each.gate(caller, self.config.max.get())),
            (_, _) => f(&self.common),
        }
    }

    /// An answer came, or is not waited for any more; `now` is the time since the process began.
    pub fn answered(&self, took: Took, now: Duration) {
        if let Some(adaptive) = &self.adaptive {
            adaptive.answered(took, self.common.used(), now, |limit| self.common.set_max(limit));
        }
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
    /// By the digest of the caller's key.
    gates: Kept<(u64, u64), Gate>,
    tidied: usize,
}

impl Callers {
    fn gate(&self, caller: &[u8], max: u32) -> Arc<Gate> {
        let key = digest(&self.secret, caller);
        let shard = &self.shards[key.0 as usize % SHARDS];
        // Nothing is done under this lock that could leave the table half changed.
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if shard.gates.len() > TIDY.max(2 * shard.tidied) {
            shard.gates.forget();
            shard.tidied = shard.gates.len();
        }
        let gate = shard.gates.get_or_make(key, || Gate::new(max));
        // It may have been made before a reload.
        if gate.max() != max {
            gate.set_max(max);
        }
        gate
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn bulkhead(max: u32, queue: u32, per: LimitKey) -> Bulkhead {
        let config = Concurrency { queue, per, ..Concurrency::new(NonZeroU32::new(max).unwrap()) };
        Bulkhead::new(config, RandomState::new(), None)
    }

    fn is_in(entry: &Entry) -> bool {
        matches!(entry, Entry::In(_))
    }

    fn seen(bulkhead: &Bulkhead, caller: Option<&[u8]>) -> Option<u32> {
        matches!(bulkhead.enter(caller, 0), Entry::Full).then(|| bulkhead.crowd(caller).seen)
    }

    #[test]
    fn it_is_full_when_it_is_full() {
        let all = bulkhead(2, 1, LimitKey::All);
        let held = [all.enter(None, 0), all.enter(Some(b"a"), 0)];
        assert!(held.iter().all(is_in));
        let line = all.enter(None, 0);
        assert!(matches!(line, Entry::Line(_)));
        assert_eq!(seen(&all, None), Some(3));
        drop((held, line));
        assert!(is_in(&all.enter(None, 0)));
    }

    #[test]
    fn callers_do_not_crowd_each_other_out_and_are_forgotten() {
        let each = bulkhead(1, 0, LimitKey::Source);
        let held = [each.enter(Some(b"a"), 0), each.enter(Some(b"b"), 0), each.enter(None, 0)];
        assert!(held.iter().all(is_in));
        assert_eq!(seen(&each, Some(b"a")), Some(2));
        for caller in 0..100_000_u32 {
            assert!(is_in(&each.enter(Some(&caller.to_ne_bytes()), 0)));
        }
        let callers = each.each.as_ref().unwrap();
        let kept: usize = callers.shards.iter().map(|shard| shard.lock().unwrap().gates.len()).sum();
        assert!(kept <= SHARDS * (TIDY + 2), "{kept}");
        assert_eq!(seen(&each, Some(b"b")), Some(2), "who is in stays known");
    }

    #[test]
    fn other_settings_do_not_let_anybody_in_twice() {
        for per in [LimitKey::All, LimitKey::Source] {
            let old = bulkhead(2, 0, per.clone());
            let held = [old.enter(Some(b"a"), 0), old.enter(Some(b"a"), 0)];
            let config = Concurrency { queue: 7, per, ..Concurrency::new(NonZeroU32::new(3).unwrap()) };
            let new = Bulkhead::new(config, RandomState::new(), Some(&old));
            let third = new.enter(Some(b"a"), 0);
            assert!(held.iter().chain([&third]).all(is_in));
            assert!(matches!(new.enter(Some(b"a"), 0), Entry::Line(_)));
        }
    }

    #[test]
    fn other_settings_leave_what_was_learned() {
        let adaptive = |max| {
            let adaptive = Some(outrigger_proto::model::Adaptive::default());
            Concurrency { adaptive, ..Concurrency::new(NonZeroU32::new(max).unwrap()) }
        };
        let old = Bulkhead::new(adaptive(1000), RandomState::new(), None);
        assert_eq!(old.common().max(), 20);
        let held: Vec<_> = (0..20).map(|_| old.enter(None, 0)).collect();
        for _ in 0..20 {
            old.answered(Took::Exactly(Duration::from_millis(1)), Duration::from_secs(1));
        }
        assert_eq!((held.len(), old.common().max()), (20, 40));
        for (max, first) in [(2000, 40), (30, 30)] {
            let new = Bulkhead::new(adaptive(max), RandomState::new(), Some(&old));
            assert_eq!(new.common().max(), first);
        }
    }
}
