//! What is noted of a request on its way upstream: for metrics and logs, and so that a further attempt knows of those
//! before it.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::outlier::Probe;

/// What is noted on the way, for metrics and logs.
#[derive(Debug)]
pub struct Trip {
    pub(super) started: Instant,
    /// When it was first about to be sent.
    ready: Cell<Instant>,
    pub(super) attempts: Cell<u32>,
    pub(super) tried: RefCell<Tried>,
    /// What of the request decides its endpoint.
    pub(super) hash: Cell<Option<u64>>,
    lot: OnceCell<u64>,
    /// Somebody keeps the request, and sends it again when it has to be.
    pub(super) kept: Cell<bool>,
    /// It was sent on a connection that turned out to be dead, and nothing can have come of it.
    pub(super) stale: Cell<bool>,
    /// It finds out how an endpoint is that was ejected.
    pub(super) probe: RefCell<Option<Probe>>,
    pub(super) endpoint: RefCell<Option<Arc<Endpoint>>>,
    pub(super) connect: Cell<Option<Duration>>,
    pub(super) first_byte: Cell<Option<Duration>>,
}

impl Trip {
    /// A request that began at `started`.
    pub fn new(started: Instant) -> Self {
        Self {
            started,
            ready: Cell::new(started),
            attempts: Cell::new(0),
            tried: RefCell::default(),
            hash: Cell::new(None),
            lot: OnceCell::new(),
            kept: Cell::new(false),
            stale: Cell::new(false),
            probe: RefCell::new(None),
            endpoint: RefCell::new(None),
            connect: Cell::new(None),
            first_byte: Cell::new(None),
        }
    }

    /// It was held up until now, which is nobody's fault upstream.
    pub fn held_up(&self, until: Instant) {
        self.ready.set(until);
    }

    /// Whoever calls this keeps the request: no copy is made of it here, and where it [went stale](Self::is_stale) it is
    /// to be sent again, which is no further attempt.
    pub fn keep(&self) {
        self.kept.set(true);
    }

    /// Whether the last attempt was sent on a connection that was dead already. The next one is sent on a fresh one.
    pub fn is_stale(&self) -> bool {
        self.stale.get()
    }

    /// How often the request was sent, or was to be.
    pub fn attempts(&self) -> u32 {
        self.attempts.get()
    }

    /// When the request began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// What of the request decides its endpoint, for clusters that balance by hash.
    pub fn set_hash(&self, hash: Option<u64>) {
        self.hash.set(hash);
    }

    /// A random number that stays the same for as long as the request lives.
    pub fn lot(&self, random: impl FnOnce() -> u64) -> u64 {
        *self.lot.get_or_init(random)
    }

    /// The endpoint that was tried last.
    pub fn endpoint(&self) -> Option<Arc<Endpoint>> {
        self.endpoint.borrow().clone()
    }

    /// How long a connection took, if one had to be made.
    pub fn connect(&self) -> Option<Duration> {
        self.connect.get()
    }

    /// From the request's beginning to the response's head.
    pub fn first_byte(&self) -> Option<Duration> {
        self.first_byte.get()
    }

    /// Counts an attempt; tells when it began, to measure it from.
    pub(super) fn begin_attempt(&self) -> Instant {
        let before = self.attempts.replace(self.attempts.get() + 1);
        if before == 0 { self.ready.get() } else { Instant::now() }
    }
}

/// Endpoints that a request was, or could not be, sent to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tried {
    ids: [u64; Self::MOST],
    len: usize,
}

impl Tried {
    /// Enough to get past a node that died with its endpoints; not a search through a cluster that is down.
    const MOST: usize = 3;

    /// What does not fit is forgotten: it may be tried again.
    pub(super) fn add(&mut self, id: u64) {
        if !self.is_full() {
            self.ids[self.len] = id;
            self.len += 1;
        }
    }

    pub(super) fn ids(&self) -> &[u64] {
        &self.ids[..self.len]
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == Self::MOST
    }
}
