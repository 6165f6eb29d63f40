//! A worker's connections to endpoints: those that wait for a request, and HTTP/2 ones that carry several.
//!
//! HTTP/1 connections are taken last in, first out: the one used last is the least likely to have been closed, and
//! those beyond what the load needs grow old and are closed.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use outrigger_proto::model::Priority;
use tokio::sync::Notify;

use super::endpoint::{Endpoint, Open, Proven};
use super::{h1, h2};
use crate::gate::Tag;
use crate::h1::Space;
use crate::identity::Identity;
use crate::io::leash::Leash;
use crate::io::stream::Stream;

/// Peers that are asked about at once when trust has changed: a certificate takes a while to check.
const RECONSIDERED: u32 = 100;

/// Asks every worker to let go of idle connections where somebody waits for leave to open one.
#[derive(Debug, Default)]
pub struct Reclaim(Mutex<Vec<Arc<Notify>>>);

impl Reclaim {
    /// One more worker to be asked.
    pub fn join(&self) -> Arc<Notify> {
        let asked = Arc::new(Notify::new());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
        asked
    }

    /// Asks all of them.
    pub fn ask(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|asked| asked.notify_one());
    }
}

/// Which pool: requests of one priority use connections that were opened for such, or one class could take all of
/// another's; and what was opened under other TLS settings was never shown who must answer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    class: u64,
    tls: u64,
}

impl PoolKey {
    /// That of an endpoint, for a class of requests, with these settings of TLS; 0 without.
    pub fn new(endpoint: &Endpoint, priority: Priority, tls: u64) -> Self {
        Self { class: endpoint.id() << 1 | u64::from(priority == Priority::High), tls }
    }

    /// Who waits on this worker for a connection of this pool.
    pub fn tag(self, worker: usize) -> Tag {
        (worker, self.class ^ self.tls)
    }
}

/// The connections of one worker.
#[derive(Debug)]
pub struct Pools {
    worker: usize,
    by_key: RefCell<HashMap<PoolKey, Pool>>,
    space: Space,
    /// Connections that carry bytes for somebody, by what their peer has proven.
    leashed: RefCell<Vec<(Proven, Weak<Leash>)>>,
}

#[derive(Debug, Default)]
struct Pool {
    #[expect(
        clippy::vec_box,
        reason = "a connection is handed from pool to request and back, and moved by its pointer"
    )]
    h1: Vec<Box<h1::Conn>>,
    /// So many have been called to take one of these, and have not come yet.
    called: usize,
    h2: Vec<Rc<h2::Conn>>,
}

impl Pools {
    /// None yet; `worker` is whose they are.
    pub fn new(worker: usize) -> Self {
        Self { worker, by_key: RefCell::default(), space: Space::default(), leashed: RefCell::default() }
    }

    /// What HTTP/1 connections read to and write from.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// An idle HTTP/1 connection.
    pub fn take_h1(&self, key: PoolKey) -> Option<Box<h1::Conn>> {
        let mut pools = self.by_key.borrow_mut();
        let conn = pools.get_mut(&key)?.h1.pop()?;
        conn.stats().idle.decrement(1);
        Some(conn)
    }

    /// A connection whose exchange is over; dropped unless it can serve another. Where its cluster has all that it may
    /// have, it goes to somebody who waits here for just this, or makes room for who waits elsewhere.
    pub fn put_h1(&self, conn: Box<h1::Conn>) {
        if !conn.is_ready() || conn.endpoint().is_retired() {
            return;
        }
        let (gate, key) = (conn.open().gate(), conn.open().pool());
        let is_waited_for = gate.waiting() > 0;
        if is_waited_for && !gate.hand_over(key.tag(self.worker)) {
            return;
        }
        conn.stats().idle.increment(1);
        let mut pools = self.by_key.borrow_mut();
        let pool = pools.entry(key).or_default();
        pool.called += usize::from(is_waited_for);
        pool.h1.push(conn);
    }

    /// Whoever was called to take an HTTP/1 connection has come, or never will.
    pub fn answer_call(&self, key: PoolKey) {
        if let Some(pool) = self.by_key.borrow_mut().get_mut(&key) {
            pool.called = pool.called.saturating_sub(1);
        }
    }

    /// Lets go of idle connections for whose cluster somebody waits.
    pub fn reclaim(&self) {
        let mut dropped = Vec::new();
        for pool in self.by_key.borrow_mut().values_mut() {
            let free = pool.h1.len().saturating_sub(pool.called);
            dropped.extend(pool.h1.extract_if(..free, |conn| conn.open().gate().waiting() > 0));
            pool.h2
                .iter()
                .filter(|conn| conn.is_idle() && conn.gate().waiting() > 0)
                .for_each(|conn| conn.close());
        }
        drop_idle(dropped);
    }

    /// An HTTP/2 connection with room for a stream.
    pub fn find_h2(&self, key: PoolKey) -> Option<Rc<h2::Conn>> {
        let pools = self.by_key.borrow();
        pools.get(&key)?.h2.iter().find(|conn| conn.has_room()).cloned()
    }

    /// An HTTP/2 connection that will soon know how much room it has.
    pub fn settling_h2(&self, key: PoolKey) -> Option<Rc<h2::Conn>> {
        let pools = self.by_key.borrow();
        pools.get(&key)?.h2.iter().find(|conn| conn.is_settling()).cloned()
    }

    /// Offers a new HTTP/2 connection to all requests.
    pub fn put_h2(&self, conn: Rc<h2::Conn>) {
        self.by_key.borrow_mut().entry(conn.pool()).or_default().h2.push(conn);
    }

    /// A connection that carries bytes from now on, and no requests: it ends when its peer is not believed any longer.
    pub fn watch_over(&self, stream: &mut Stream, open: &mut Open) {
        let Some(proven) = open.take_proven() else { return };
        let leash = Rc::<Leash>::default();
        self.leashed.borrow_mut().push((proven, Rc::downgrade(&leash)));
        stream.hold_by(leash);
    }

    /// Ends those whose peer is not believed any longer; of those that have to be asked about so many, as it takes a while.
    fn sweep_leashed(&self, identity: &Identity) {
        let mut left = RECONSIDERED;
        let mut cut = Vec::new();
        self.leashed.borrow_mut().retain(|(proven, leash)| {
            let Some(leash) = leash.upgrade() else { return false };
            if left == 0 || proven.is_known_to(identity) {
                return true;
            }
            left -= 1;
            let believed = proven.is_believed(identity);
            if !believed {
                cut.push(leash);
            }
            believed
        });
        // Outside the borrow: a connection's end may reach for it.
        for leash in cut {
            tracing::info!("a tunnel is cut: who is at its upstream end is not believed any longer");
            leash.cut();
        }
    }

    /// Closes connections that have been idle for too long, whose endpoint has left its cluster or is not believed any
    /// longer, or that the upstream has closed.
    pub fn sweep(&self, identity: &Identity) {
        self.sweep_leashed(identity);
        let mut dropped = Vec::new();
        self.by_key.borrow_mut().retain(|_, pool| {
            let keep = |conn: &mut Box<h1::Conn>| {
                conn.look(&self.space);
                let wanted = !conn.endpoint().is_retired()
                    && conn.open().proven().is_none_or(|proven| proven.is_believed(identity));
                !conn.is_stale() && wanted && conn.is_ready()
            };
            dropped.extend(pool.h1.extract_if(.., |conn| !keep(conn)));
            pool.h2.retain(|conn| {
                let gone = conn.endpoint().is_retired();
                if conn.is_stale() || (conn.is_idle() && gone) || conn.is_to_be_cut(identity) {
                    conn.close();
                }
                !conn.is_closed()
            });
            !pool.h1.is_empty() || !pool.h2.is_empty() || pool.called > 0
        });
        drop_idle(dropped);
    }
}

/// Done outside the pool's borrow: a connection's end may reach for it.
#[expect(clippy::vec_box, reason = "as the pool has them")]
fn drop_idle(dropped: Vec<Box<h1::Conn>>) {
    for conn in dropped {
        conn.stats().idle.decrement(1);
    }
}
