//! Endpoints that were named, by their addresses. They are found without a lock, and what one more costs hardly grows with how
//! many there are: strangers may name many.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::endpoint::Endpoint;

/// Of the most that there may be, a thousand are in each, which is copied when one of them comes or goes.
const SHARDS: usize = 64;

type Shard = HashMap<SocketAddr, Arc<Known>>;

/// See the module. Who changes it holds the lock of its cluster.
#[derive(Debug, Default)]
pub(super) struct KnownEndpoints {
    /// There from the first of them on: most clusters have none.
    shards: OnceLock<Box<[ArcSwap<Shard>]>>,
    hasher: RandomState,
    len: AtomicUsize,
}

impl KnownEndpoints {
    /// The one at this address.
    pub(super) fn get(&self, address: &SocketAddr) -> Option<Arc<Endpoint>> {
        let shard = &self.shards.get()?[self.place(address)];
        shard.load().get(address).map(|known| known.endpoint.clone())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// All of them, the oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Known>> {
        let shards = self.shards.get().into_iter().flatten();
        let mut all: Vec<_> =
            shards.flat_map(|shard| shard.load().values().cloned().collect::<Vec<_>>()).collect();
        all.sort_unstable_by_key(|known| known.endpoint.id());
        all
    }

    /// One more, in use since now.
    pub(super) fn add(&self, address: SocketAddr, endpoint: Arc<Endpoint>, now: Duration) {
        let used = (now.as_nanos() as u64).into();
        let known = Arc::new(Known { address, endpoint, requests: 0.into(), used });
        let shards = self.shards.get_or_init(|| (0..SHARDS).map(|_| ArcSwap::default()).collect());
        self.change(&shards[self.place(&address)], |shard| {
            shard.insert(address, known);
        });
    }

    /// These are known no longer, and are retired.
    pub(super) fn forget(&self, gone: &[SocketAddr]) {
        let Some(shards) = self.shards.get() else { return };
        let gone: HashSet<_> = gone.iter().collect();
        for shard in shards.iter().filter(|shard| shard.load().keys().any(|known| gone.contains(known))) {
            self.change(shard, |shard| {
                shard.retain(|address, known| {
                    let stays = !gone.contains(address);
                    if !stays {
                        known.endpoint.retire();
                    }
                    stays
                });
            });
        }
    }

    fn change(&self, shard: &ArcSwap<Shard>, change: impl FnOnce(&mut Shard)) {
        let before = shard.load();
        let mut after = Shard::clone(&before);
        change(&mut after);
        self.len.store(self.len() + after.len() - before.len(), Relaxed);
        shard.store(Arc::new(after));
    }

    fn place(&self, address: &SocketAddr) -> usize {
        self.hasher.hash_one(address) as usize % SHARDS
    }
}

/// An endpoint, and when it was last seen in use.
#[derive(Debug)]
pub(super) struct Known {
    /// What it is known by.
    pub(super) address: SocketAddr,
    /// The endpoint itself.
    pub(super) endpoint: Arc<Endpoint>,
    /// Requests that it had had when it was last looked.
    requests: AtomicU64,
    /// In nanoseconds.
    used: AtomicU64,
}

impl Known {
    /// Whether nothing was sent there for so long.
    pub(super) fn is_unused(&self, now: Duration, cleanup: Duration) -> bool {
        let requests = self.endpoint.requests();
        if self.requests.swap(requests, Relaxed) != requests || self.endpoint.active() > 0 {
            self.used.store(now.as_nanos() as u64, Relaxed);
        }
        now.saturating_sub(Duration::from_nanos(self.used.load(Relaxed))) >= cleanup
    }
}

#[cfg(test)]
mod tests {
    use outrigger_proto::model::Address;

    use super::*;

    #[test]
    fn as_many_are_known_as_came_and_have_not_gone() {
        const MANY: u16 = 5000;
        let known = KnownEndpoints::default();
        let at = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        known.forget(&[at(1)]);
        assert_eq!((known.len(), known.all().len(), known.get(&at(1)).is_some()), (0, 0, false));
        for port in 1..=MANY {
            let endpoint = Endpoint::new(port.into(), Address::Ip(at(port)), 1);
            known.add(at(port), Arc::new(endpoint), Duration::ZERO);
        }
        let ids = |all: Vec<Arc<Known>>| all.iter().map(|known| known.endpoint.id()).collect::<Vec<_>>();
        assert_eq!(ids(known.all()), (1..=u64::from(MANY)).collect::<Vec<_>>());
        let before = known.all();
        let gone: Vec<_> = (1..=MANY).filter(|port| port % 3 != 0).map(at).chain([at(MANY + 1)]).collect();
        known.forget(&gone);
        assert_eq!(ids(known.all()), (1..=u64::from(MANY)).filter(|id| id % 3 == 0).collect::<Vec<_>>());
        assert_eq!(known.len(), known.all().len());
        for known_before in before {
            let Known { address, endpoint, requests: _, used: _ } = &*known_before;
            let stays = endpoint.id() % 3 == 0;
            assert_eq!((known.get(address).is_some(), endpoint.is_retired()), (stays, !stays), "{address}");
        }
    }
}
