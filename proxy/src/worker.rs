//! What one worker thread has: its connections, its way upstream, its view of the configuration, its clock.
//!
//! A worker is one thread with a runtime of its own. Nothing on a request's common way takes a lock or wakes another
//! thread; what is true for the whole process stands in [`Shared`] as atomics.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

use crate::demand::Demand;
use crate::h1::Dates;
use crate::identity::Identity;
use crate::io::activity::Ticks;
use crate::live::{Live, LiveCache, Snapshot};
use crate::observe::{Logger, ProcessStats};
use crate::policy::jwt::Seen;
use crate::policy::overload::Pressure;
use crate::shadow::Bench;
use crate::sys;
use crate::upstream::{Dialled, Reclaim, Upstream};
use crate::watch::{Leaving, Standing, StreamWatch, Watch};

/// How often connections are looked at: the coarseness of idle and header timeouts.
const SWEEP: Duration = Duration::from_millis(200);

/// Connections that are asked in one sweep whether they may stay.
const RECONSIDERED: usize = 200;

/// What all workers and management see.
#[derive(Debug)]
pub struct Shared {
    /// The configuration in force.
    pub live: Live,
    /// Open downstream connections of each worker.
    pub loads: Box<[AtomicU32]>,
    /// How hard pressed the process is.
    pub pressure: Pressure,
    /// What the process did.
    pub stats: Arc<ProcessStats>,
    /// How workers ask each other for idle connections.
    pub reclaim: Arc<Reclaim>,
    /// Connections of ours that could be redirected to us.
    pub dialled: Arc<Dialled>,
    /// Who the process is, and whom it believes.
    pub identity: Arc<Identity>,
    /// Where requests ask for hosts that a control plane tells on demand; with one alone.
    pub demand: OnceLock<Demand>,
    /// When the process started; what live state measures time from.
    pub epoch: Instant,
    leaving: AtomicU8,
    last_request: AtomicU64,
    /// Connections that have given memory back since it was last released to the system.
    freed: AtomicU32,
    /// How many times it was.
    releases: AtomicU32,
}

impl Shared {
    /// State for this many workers.
    pub fn new(workers: usize, stats: Arc<ProcessStats>) -> Self {
        Self {
            live: Live::default(),
            loads: (0..workers).map(|_| AtomicU32::new(0)).collect(),
            pressure: Pressure::default(),
            stats,
            reclaim: Arc::default(),
            dialled: Arc::default(),
            identity: Arc::default(),
            demand: OnceLock::new(),
            epoch: Instant::now(),
            leaving: AtomicU8::new(0),
            last_request: AtomicU64::new(0),
            freed: AtomicU32::new(0),
            releases: AtomicU32::new(0),
        }
    }

    /// How far the process is on its way out.
    pub fn leaving(&self) -> Leaving {
        match self.leaving.load(Relaxed) {
            0 => Leaving::No,
            1 => Leaving::Draining,
            2 => Leaving::Quiet,
            _ => Leaving::Over,
        }
    }

    /// Moves on; never back.
    pub fn leave(&self, leaving: Leaving) {
        self.leaving.fetch_max(leaving as u8, Relaxed);
    }

    /// A connection has given its memory back.
    pub fn note_freed(&self) {
        self.freed.fetch_add(1, Relaxed);
    }

    /// How many have, since this was last asked.
    pub fn take_freed(&self) -> u32 {
        self.freed.swap(0, Relaxed)
    }

    /// Memory that nothing uses goes back to the system: this thread's now, each worker's with its next sweep.
    pub fn release_memory(&self) {
        self.releases.fetch_add(1, Relaxed);
        sys::release_memory();
    }

    /// How long no worker has begun a request, at the least: of those since the last sweep nothing is known here yet.
    pub fn quiet_for(&self) -> Duration {
        let last = Duration::from_millis(self.last_request.load(Relaxed));
        self.epoch.elapsed().saturating_sub(last).saturating_sub(SWEEP + SWEEP / 4)
    }

    /// Open downstream connections of all workers.
    pub fn connections(&self) -> u32 {
        self.loads.iter().map(|load| load.load(Relaxed)).sum()
    }
}

/// What one worker thread has.
#[derive(Debug)]
pub struct Worker {
    id: usize,
    shared: Arc<Shared>,
    ticks: Ticks,
    dates: Dates,
    live: RefCell<LiveCache>,
    upstream: Upstream,
    watches: RefCell<Slab<Rc<Watch>>>,
    streams: RefCell<Slab<Rc<StreamWatch>>>,
    logger: RefCell<Option<Logger>>,
    /// When the last request began here.
    last_request: Cell<u64>,
    mirrors: Places,
    tokens: Seen,
    /// What is on trial.
    bench: RefCell<Option<Rc<Bench>>>,
    /// How many of the releases of memory this thread has seen.
    releases: Cell<u32>,
    /// The versions of policy and trust that connections are held against.
    decided_by: Cell<(u64, u64)>,
    /// Connections before this one, by the key of their watch, have been.
    reconsidered: Cell<usize>,
}

impl Worker {
    /// The worker of this thread.
    pub fn new(id: usize, shared: Arc<Shared>) -> Rc<Self> {
        let ticks = Ticks::default();
        Rc::new(Self {
            id,
            live: RefCell::new(shared.live.cache()),
            upstream: Upstream::new(
                id,
                ticks.clone(),
                (shared.epoch, shared.reclaim.clone(), shared.dialled.clone()),
            ),
            shared,
            ticks,
            dates: Dates::default(),
            watches: RefCell::default(),
            streams: RefCell::default(),
            logger: RefCell::default(),
            last_request: Cell::new(0),
            mirrors: Places::default(),
            tokens: Seen::default(),
            bench: RefCell::default(),
            releases: Cell::new(0),
            decided_by: Cell::default(),
            reconsidered: Cell::new(usize::MAX),
        })
    }

    /// Its number, from 0.
    pub fn id(&self) -> usize {
        self.id
    }

    /// What all workers see.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Tokens that were good.
    pub fn tokens(&self) -> &Seen {
        &self.tokens
    }

    /// Copies of requests under way.
    pub fn mirrors(&self) -> &Places {
        &self.mirrors
    }

    /// The coarse clock.
    pub fn ticks(&self) -> &Ticks {
        &self.ticks
    }

    /// The date, to be written into an answer.
    pub fn date(&self) -> [u8; 29] {
        self.dates.at(self.ticks.now())
    }

    /// The way upstream.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Reads the configuration in force.
    pub fn with_snapshot<T>(&self, read: impl FnOnce(&Snapshot) -> T) -> T {
        read(self.live.borrow_mut().load())
    }

    /// Writes an access log line, if there is a log.
    pub fn log(&self, write: impl FnOnce(&Logger)) {
        if let Some(logger) = &*self.logger.borrow() {
            write(logger);
        }
    }

    /// The worker that has the fewest connections; this one, when no other has fewer.
    pub fn fewest(&self) -> usize {
        let loads = &self.shared.loads;
        let mine = loads[self.id].load(Relaxed);
        let (other, load) = loads
            .iter()
            .map(|load| load.load(Relaxed))
            .enumerate()
            .min_by_key(|(_, load)| *load)
            .unwrap_or((self.id, mine));
        if load < mine { other } else { self.id }
    }

    /// Whether there is an access log.
    pub fn logs(&self) -> bool {
        self.logger.borrow().is_some()
    }

    /// From now on lines go there.
    pub fn set_logger(&self, logger: Option<Logger>) {
        self.log(Logger::flush);
        *self.logger.borrow_mut() = logger;
    }

    /// What is on trial, if anything is.
    pub fn on_trial(&self) -> Option<Rc<Bench>> {
        self.bench.borrow().clone()
    }

    /// From now on this is on trial.
    pub fn set_on_trial(&self, bench: Option<Bench>) {
        *self.bench.borrow_mut() = bench.map(Rc::new);
    }

    /// A request begins.
    pub fn note_request(&self) {
        self.last_request.set(self.ticks.now());
    }

    /// Puts a connection under watch until the guard is dropped.
    pub fn watch(self: &Rc<Self>, watch: Rc<Watch>) -> Watched {
        let key = self.watches.borrow_mut().insert(watch);
        Watched { worker: self.clone(), key, _load: Load::new(&self.shared, self.id) }
    }

    /// Puts a stream under watch until the guard is dropped.
    pub fn watch_stream(self: &Rc<Self>, watch: StreamWatch) -> WatchedStream {
        let watch = Rc::new(watch);
        let key = self.streams.borrow_mut().insert(watch.clone());
        WatchedStream { worker: self.clone(), watch, key }
    }

    /// Looks after everything that waits, for as long as the worker lives.
    pub async fn sweep(self: Rc<Self>) {
        let mut interval = tokio::time::interval(SWEEP);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.ticks.advance(self.shared.epoch.elapsed().as_millis() as u64);
            self.shared.last_request.fetch_max(self.last_request.get(), Relaxed);
            let standing =
                Standing { leaving: self.shared.leaving(), crowded: self.shared.pressure.is_overloaded() };
            self.reconsider();
            for (_, watch) in &*self.watches.borrow() {
                watch.sweep(standing);
            }
            for (_, stream) in &*self.streams.borrow() {
                stream.sweep();
            }
            self.upstream.pools().sweep(&self.shared.identity);
            self.log(Logger::flush);
            if let Some(bench) = &*self.bench.borrow() {
                bench.hand_over();
            }
            let releases = self.shared.releases.load(Relaxed);
            if self.releases.replace(releases) != releases {
                sys::release_memory();
            }
        }
    }
}

impl Worker {
    /// Where a policy, or whom we believe, has changed, asks of each connection whether it may stay: so many at a time, as
    /// a certificate takes a while to check.
    fn reconsider(&self) {
        let version = self.with_snapshot(|snapshot| snapshot.version);
        let decides = (version, self.shared.identity.trust_version());
        if self.decided_by.replace(decides) != decides {
            self.reconsidered.set(0);
        }
        let watches = self.watches.borrow();
        let from = self.reconsidered.get();
        let next = from.saturating_add(RECONSIDERED).min(watches.capacity());
        (from..next).filter_map(|key| watches.get(key)).for_each(|watch| watch.reconsider());
        self.reconsidered.set(if next == watches.capacity() { usize::MAX } else { next });
    }
}

impl Worker {
    /// Lets go of idle connections when another worker asks for them.
    pub async fn reclaim(self: Rc<Self>) {
        let asked = self.shared.reclaim.join();
        loop {
            asked.notified().await;
            self.upstream.pools().reclaim();
        }
    }
}

/// Counts what is under way on one worker.
#[derive(Clone, Debug, Default)]
pub struct Places(Rc<Cell<u32>>);

/// One that is counted.
#[derive(Debug)]
pub struct Place(Places);

impl Places {
    /// One more, unless there are so many.
    pub fn enter(&self, most: u32) -> Option<Place> {
        (self.0.get() < most).then(|| {
            self.0.set(self.0.get() + 1);
            Place(self.clone())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self(Places(count)) = self;
        count.set(count.get() - 1);
    }
}

/// Counts a connection of a worker.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    worker: usize,
}

impl Load {
    /// One connection more.
    pub fn new(shared: &Arc<Shared>, worker: usize) -> Self {
        shared.loads[worker].fetch_add(1, Relaxed);
        Self { shared: shared.clone(), worker }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.loads[self.worker].fetch_sub(1, Relaxed);
    }
}

/// A connection under watch.
#[derive(Debug)]
pub struct Watched {
    worker: Rc<Worker>,
    key: usize,
    _load: Load,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.worker.watches.borrow_mut().remove(self.key);
        self.worker.shared.note_freed();
    }
}

/// A stream under watch.
#[derive(Debug)]
pub struct WatchedStream {
    worker: Rc<Worker>,
    watch: Rc<StreamWatch>,
    key: usize,
}

impl WatchedStream {
    /// Who watches over it.
    pub fn watch(&self) -> &StreamWatch {
        &self.watch
    }
}

impl Drop for WatchedStream {
    fn drop(&mut self) {
        self.worker.streams.borrow_mut().remove(self.key);
    }
}
