//! What is noted of a request on its way upstream: for metrics and logs, and so that a further attempt knows of those
//! before it.

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use outrigger_proto::model::Priority;
use tokio::time::Instant;

use super::cluster::ClusterView;
use super::endpoint::Endpoint;
use super::outlier::Probe;
use super::pool::PoolKey;
use crate::body::{Body, bodiless};
use crate::io::spelling::Spelling;

/// What is noted on the way, for metrics and logs.
#[derive(Debug)]
pub struct Trip {
    pub(super) started: Instant,
    /// When it was first about to be sent.
    ready: Cell<Instant>,
    pub(super) attempts: Cell<u32>,
    pub(super) tried: RefCell<Tried>,
    /// Whose limits hold for it.
    priority: Cell<Priority>,
    /// What of the request decides its endpoint.
    pub(super) hash: Cell<Option<u64>>,
    lot: OnceCell<u64>,
    /// Where its connection was going before it was redirected.
    pub(super) redirected: Cell<Option<SocketAddr>>,
    /// Its connection is one of ours, which was redirected to us.
    pub(super) comes_back: Cell<bool>,
    /// The endpoint that is named, of a cluster whose endpoints are.
    pub(super) named: Cell<Option<SocketAddr>>,
    /// Somebody comes back for the request, and sends it again when it has to be.
    pub(super) kept: Cell<bool>,
    /// It may be carried out twice, whatever it is.
    pub(super) harmless: Cell<bool>,
    /// It was sent on a connection that turned out to be dead, and nothing can have come of it.
    pub(super) stale: Cell<bool>,
    /// The last two attempts, each in the place that its number gives: a request that is hedged has two under way.
    recent: RefCell<[Attempt; 2]>,
    /// The number of the attempt that was answered; before that, of the last.
    last: Cell<u32>,
    pub(super) connect: Cell<Option<Duration>>,
    pub(super) first_byte: Cell<Option<Duration>>,
    /// How the client has spelt the names of its fields, and the upstream those of its answer.
    spelling: OnceCell<Spelling>,
    answer_spelling: RefCell<Option<Spelling>>,
}

impl Trip {
    /// A request that began at `started`.
    pub fn new(started: Instant) -> Self {
        Self {
            started,
            ready: Cell::new(started),
            attempts: Cell::new(0),
            tried: RefCell::default(),
            priority: Cell::default(),
            hash: Cell::new(None),
            lot: OnceCell::new(),
            redirected: Cell::new(None),
            comes_back: Cell::new(false),
            named: Cell::new(None),
            kept: Cell::new(false),
            harmless: Cell::new(false),
            stale: Cell::new(false),
            recent: RefCell::default(),
            last: Cell::new(0),
            connect: Cell::new(None),
            first_byte: Cell::new(None),
            spelling: OnceCell::new(),
            answer_spelling: RefCell::default(),
        }
    }

    /// The same, with names of fields that are spelt so, where that differs from lower case.
    #[must_use]
    pub fn spelt(self, spelling: Option<Spelling>) -> Self {
        if let Some(spelling) = spelling {
            let _ = self.spelling.set(spelling);
        }
        self
    }

    /// How the names of its fields are spelt, where that differs from lower case.
    pub fn spelling(&self) -> Option<Spelling> {
        self.spelling.get().cloned()
    }

    pub(super) fn note_answer_spelling(&self, spelling: Option<Spelling>) {
        self.answer_spelling.replace(spelling);
    }

    /// How those of its answer are.
    pub fn take_answer_spelling(&self) -> Option<Spelling> {
        self.answer_spelling.take()
    }

    /// The same, on a connection that was going there before it was redirected; or that is one of ours, and comes back.
    #[must_use]
    pub fn redirected(self, from: Option<SocketAddr>, comes_back: bool) -> Self {
        self.redirected.set(from);
        self.comes_back.set(comes_back);
        self
    }

    /// When the next attempt begins: now; for the first that is when the request was ready, as the clock was read then.
    pub fn next_begins(&self) -> Instant {
        if self.attempts.get() == 0 { self.ready.get() } else { Instant::now() }
    }

    /// It was held up until now, which is nobody's fault upstream.
    pub fn held_up(&self, until: Instant) {
        self.ready.set(until);
    }

    /// Whoever calls this may come back for the [request](Self::take_request), and where it [went stale](Self::is_stale)
    /// sends it again, which is no further attempt. To be called before it is sent for the first time to a cluster.
    pub fn keep(&self) {
        self.kept.set(true);
        // What is left of another cluster's attempts.
        self.named.set(None);
        self.stale.set(false);
    }

    /// The request as it was last sent, without its body, if it is [kept](Self::keep).
    pub fn take_request(&self) -> Option<Box<Request<Body>>> {
        self.recent.borrow_mut().iter_mut().find_map(|attempt| attempt.request.take())
    }

    /// One like it, while it may be under way.
    pub fn copy_request(&self) -> Option<Box<Request<Body>>> {
        self.recent.borrow().iter().find_map(|attempt| attempt.request.as_deref().map(bodiless))
    }

    /// Nobody comes back for it any more.
    pub fn forget_request(&self) {
        self.kept.set(false);
        self.recent.borrow_mut().iter_mut().for_each(|attempt| attempt.request = None);
    }

    /// It does nothing to be sent twice, whatever its method and its body.
    pub fn set_harmless(&self) {
        self.harmless.set(true);
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

    /// The limits of this class hold for it.
    pub fn set_priority(&self, priority: Priority) {
        self.priority.set(priority);
    }

    /// Whose limits hold for it.
    pub fn priority(&self) -> Priority {
        self.priority.get()
    }

    /// What of the request decides its endpoint, for clusters that balance by hash.
    pub fn set_hash(&self, hash: Option<u64>) {
        self.hash.set(hash);
    }

    /// A random number that stays the same for as long as the request lives.
    pub fn lot(&self, random: impl FnOnce() -> u64) -> u64 {
        *self.lot.get_or_init(random)
    }

    /// The endpoint that answered, or was tried last.
    pub fn endpoint(&self) -> Option<Arc<Endpoint>> {
        self.recent.borrow()[place(self.last.get())].endpoint.clone()
    }

    /// How long a connection took, if one had to be made.
    pub fn connect(&self) -> Option<Duration> {
        self.connect.get()
    }

    /// From the request's beginning to the response's head.
    pub fn first_byte(&self) -> Option<Duration> {
        self.first_byte.get()
    }

    /// Counts an attempt.
    pub(super) fn begin_attempt(&self) -> Going<'_> {
        let began = self.next_begins();
        self.attempts.set(self.attempts.get() + 1);
        self.go(began)
    }

    /// The attempt that was counted last begins.
    pub(super) fn go(&self, began: Instant) -> Going<'_> {
        Going { trip: self, number: self.attempts.get(), began: Cell::new(began) }
    }

    /// Nothing more is waited for of an attempt: its endpoint is tried no more, where another one is left. `None` where
    /// it waits for nobody but us.
    pub(super) fn give_up(&self, number: u32) -> Option<GivenUp> {
        let attempt = &mut self.recent.borrow_mut()[place(number)];
        let since = attempt.since.take()?;
        let endpoint = attempt.endpoint.clone()?;
        self.tried.borrow_mut().add(endpoint.id());
        Some(GivenUp { endpoint, probe: attempt.probe.take(), since })
    }

    /// Endpoints that were tried, and the one that another attempt is at.
    pub(super) fn others(&self, going: &Going<'_>) -> Tried {
        let mut tried = *self.tried.borrow();
        let beside = &self.recent.borrow()[place(going.number + 1)];
        if let (Some(_), Some(endpoint)) = (beside.since, &beside.endpoint) {
            tried.add(endpoint.id());
        }
        tried
    }
}

/// An attempt that was given up.
#[derive(Debug)]
pub(super) struct GivenUp {
    /// Where it was.
    pub(super) endpoint: Arc<Endpoint>,
    /// To be told, if it was to find out how that endpoint is.
    pub(super) probe: Option<Probe>,
    /// Since when the endpoint had it.
    pub(super) since: Instant,
}

/// One time that a request was sent.
#[derive(Debug, Default)]
struct Attempt {
    endpoint: Option<Arc<Endpoint>>,
    /// It finds out how its endpoint is, which was ejected.
    probe: Option<Probe>,
    /// Since when the endpoint is waited for; `None` before, as in a line of ours, and after.
    since: Option<Instant>,
    /// What is sent: until its head has been, or somebody may come back for it.
    request: Option<Box<Request<Body>>>,
}

fn place(number: u32) -> usize {
    number as usize % 2
}

/// An attempt that is under way, until this is dropped.
#[derive(Debug)]
pub(super) struct Going<'a> {
    /// Whose it is.
    pub(super) trip: &'a Trip,
    number: u32,
    began: Cell<Instant>,
}

impl Going<'_> {
    /// Which connections to an endpoint of this cluster it uses.
    pub(super) fn pool(&self, to: &ClusterView, endpoint: &Endpoint) -> PoolKey {
        PoolKey::new(endpoint, self.trip.priority(), to.tls.as_ref().map_or(0, |tls| tls.key()))
    }

    /// When it began: what its answer is measured from.
    pub(super) fn began(&self) -> Instant {
        self.began.get()
    }

    /// This is to be sent.
    pub(super) fn hold(&self, request: Box<Request<Body>>) {
        self.attempt().request = Some(request);
    }

    /// What is to be sent.
    pub(super) fn request(&self) -> RefMut<'_, Request<Body>> {
        RefMut::map(self.attempt(), |attempt| attempt.request.as_deref_mut().expect("it is held"))
    }

    /// The same, to be sent by somebody who wants it whole; without its body it stays, where somebody may come back for it.
    pub(super) fn take_request(&self) -> Box<Request<Body>> {
        let request = self.attempt().request.take().expect("it is held");
        if self.trip.kept.get() {
            self.hold(bodiless(&request));
        }
        request
    }

    fn attempt(&self) -> RefMut<'_, Attempt> {
        RefMut::map(self.trip.recent.borrow_mut(), |recent| &mut recent[place(self.number)])
    }

    /// It is to go to this endpoint; with a probe, if that one was ejected.
    pub(super) fn to(&self, endpoint: &Arc<Endpoint>, probe: Option<Probe>) {
        let mut attempt = self.attempt();
        (attempt.endpoint, attempt.probe, attempt.since) = (Some(endpoint.clone()), probe, None);
        self.trip.last.set(self.number);
    }

    /// It stood in a line of ours until now, which is nobody's fault.
    pub(super) fn waited(&self) {
        self.began.set(Instant::now());
    }

    /// From here on its endpoint is waited for.
    pub(super) fn depends_on_endpoint(&self) {
        self.attempt().since = Some(self.began.get());
    }

    /// Its probe, if it has one, to be told how it went.
    pub(super) fn take_probe(&self) -> Option<Probe> {
        self.attempt().probe.take()
    }

    /// It was answered.
    pub(super) fn answered(&self) {
        self.trip.last.set(self.number);
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        let mut attempt = self.attempt();
        (attempt.since, attempt.probe) = (None, None);
        if !self.trip.kept.get() {
            attempt.request = None;
        }
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

#[cfg(test)]
mod tests {
    use outrigger_proto::model::Address;

    use super::*;

    fn endpoint(id: u64) -> Arc<Endpoint> {
        Arc::new(Endpoint::new(id, Address::Ip(([127, 0, 0, 1], 1).into()), 1))
    }

    #[test]
    fn of_two_attempts_the_one_that_is_given_up_is_known() {
        let trip = Trip::new(Instant::now());
        let given_up = |number: u32| trip.give_up(number).map(|given_up| given_up.endpoint.id());
        let first = trip.begin_attempt();
        first.to(&endpoint(1), None);
        assert_eq!(given_up(1), None, "it has not come so far");
        first.depends_on_endpoint();
        let second = trip.begin_attempt();
        assert_eq!(trip.others(&second).ids(), [1], "two at once go to two");
        second.to(&endpoint(2), None);
        second.depends_on_endpoint();
        assert_eq!((given_up(1), given_up(1)), (Some(1), None), "once");
        first.answered();
        assert_eq!(
            trip.endpoint().map(|e| e.id()),
            Some(1),
            "who answers is the one, not who was asked last"
        );
        drop(second);
        assert_eq!(given_up(2), None, "it is under way no longer");
        assert_eq!(trip.tried.borrow().ids(), [1], "who was given up is not asked again at once");
    }
}
