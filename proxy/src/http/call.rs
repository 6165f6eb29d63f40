//! One request on its way, and what is written down about it.

mod log;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use http::{HeaderValue, Request, Uri, Version};
use outrigger_proto::model::{Action, Filter, Forward, HttpFilter, Route, Target};
use tokio::time::Instant;

use self::log::Logged;
use super::peek::is_grpc;
use crate::body::{Body, BodyError, Meter, Side};
use crate::conn::{Conn, patience};
use crate::error::ProxyError;
use crate::facts::Claims;
use crate::gate::Permit;
use crate::io::framing::Violation;
use crate::io::spelling::Spelling;
use crate::live::{FilterView, ListenerView, RouteExtras, Routes};
use crate::observe::ListenerStats;
use crate::policy::authz::Decision;
use crate::policy::bucket::Quota;
use crate::policy::fields::Change;
use crate::policy::limits::RouteLimits;
use crate::timer::Timer;
use crate::upstream::{ClusterView, Counted, Flight, Trip, Tunnelled};
use crate::watch::StreamWatch;
use crate::worker::WatchedStream;

/// A request on its way through the stack.
#[derive(Debug)]
pub struct Call {
    /// The request. Boxed: it is passed from hand to hand many times, and moved whole only into the connection.
    pub request: Box<Request<Body>>,
    /// Whether it asks for a tunnel.
    pub tunnel: Wanted,
    /// What is written down about it.
    pub ledger: Rc<Ledger>,
}

/// Whether a request asks for a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It does not.
    Nothing,
    /// To another protocol, by `upgrade` (RFC 9110 section 7.8) or by extended CONNECT (RFC 8441).
    Upgrade(HeaderValue),
    /// To another host, by CONNECT (RFC 9110 section 9.3.6).
    Connect,
}

/// What is written down about one request while it lives; closed, and its figures recorded, when the last part of it
/// is gone: the request is answered and read, or somebody has given up.
#[derive(Debug)]
pub struct Ledger {
    conn: Rc<Conn>,
    view: Arc<ListenerView>,
    /// As it was configured when a route that was waited for had come.
    renewed: OnceCell<Arc<ListenerView>>,
    trip: Trip,
    version: Version,
    grpc: bool,
    route: Cell<Option<usize>>,
    /// Which share of its split it goes to.
    share: Cell<usize>,
    /// It goes to the route's fallback instead.
    fallen_back: Cell<bool>,
    /// It has been made one for its destination.
    is_shaped: Cell<bool>,
    cluster: RefCell<Option<Arc<ClusterView>>>,
    flight: RefCell<Option<Flight>>,
    /// Its place among those of its route that are under way.
    place: RefCell<Option<Permit>>,
    quota: Cell<Option<Quota>>,
    /// What services that were asked about it change about the answer; in order.
    service_changes: RefCell<Vec<Change>>,
    /// What it asks for, as the answer is kept; only where answers are.
    asked: RefCell<Option<Rc<[u8]>>>,
    unframed: Cell<bool>,
    /// It has said whose it is, even if it says so no longer.
    known: Cell<bool>,
    delayed: Cell<bool>,
    /// Somebody measures what its answer takes.
    timed: Cell<bool>,
    /// When its body was whole; noted for whoever measures.
    received_at: Cell<Option<Instant>>,
    status: Cell<u16>,
    error: Cell<Option<ProxyError>>,
    whole: Cell<bool>,
    received: Cell<u64>,
    sent: Cell<u64>,
    /// When the last byte of its answer is due.
    deadline: Cell<Option<Instant>>,
    /// HTTP/2 only: an HTTP/1 request has that of its connection, which is the same task.
    timer: Timer,
    /// HTTP/2 only: an HTTP/1 request is watched with its connection.
    stream: Option<WatchedStream>,
    /// Counts it as a retry.
    retry: RefCell<Option<Counted>>,
    fallback: Cell<&'static str>,
    /// How often it was sent, where that is to be told with an answer of ours.
    retried: RefCell<Option<HeaderValue>>,
    tunnel: RefCell<Option<Box<Tunnelled>>>,
    tunnel_request: RefCell<Option<Body>>,
    logged: Option<RefCell<Logged>>,
    /// What became of it by the listener's rules, where that is worth a word.
    decision: Cell<Decision>,
    /// What its token says.
    claims: OnceCell<Rc<Claims>>,
}

impl Ledger {
    /// A request has come, with names of fields that are spelt so where that is not in lower case.
    pub fn open(conn: Rc<Conn>, request: &Request<Body>, spelling: Option<Spelling>) -> Rc<Self> {
        let view = conn.view();
        conn.watch().begin();
        conn.worker().note_request();
        view.state.stats.requests_active.increment(1);
        let stream = (request.version() == Version::HTTP_2).then(|| {
            let worker = conn.worker();
            worker.watch_stream(StreamWatch::new(worker.ticks().clone(), patience(&view)))
        });
        let logged = conn.worker().logs().then(|| RefCell::new(Logged::new(request)));
        Rc::new(Self {
            trip: conn.trip(Instant::now()).spelt(spelling),
            conn,
            view,
            renewed: OnceCell::new(),
            version: request.version(),
            grpc: is_grpc(request.headers()),
            route: Cell::new(None),
            share: Cell::new(0),
            fallen_back: Cell::new(false),
            is_shaped: Cell::new(false),
            cluster: RefCell::new(None),
            flight: RefCell::new(None),
            place: RefCell::new(None),
            quota: Cell::new(None),
            service_changes: RefCell::default(),
            asked: RefCell::new(None),
            unframed: Cell::new(false),
            known: Cell::new(false),
            delayed: Cell::new(false),
            timed: Cell::new(false),
            received_at: Cell::new(None),
            status: Cell::new(0),
            error: Cell::new(None),
            whole: Cell::new(false),
            received: Cell::new(0),
            sent: Cell::new(0),
            deadline: Cell::new(None),
            timer: Timer::default(),
            stream,
            retry: RefCell::new(None),
            fallback: Cell::new(""),
            retried: RefCell::new(None),
            tunnel: RefCell::new(None),
            tunnel_request: RefCell::new(None),
            logged,
            decision: Cell::default(),
            claims: OnceCell::new(),
        })
    }

    /// The connection that it came on.
    pub fn conn(&self) -> &Rc<Conn> {
        &self.conn
    }

    /// The listener, as it was configured when the request came, or its routes did.
    pub fn view(&self) -> &Arc<ListenerView> {
        self.renewed.get().unwrap_or(&self.view)
    }

    /// A route has come that the request waited for: it lives under the configuration that has it.
    pub fn renew(&self) {
        let _ = self.renewed.set(self.conn.view());
    }

    /// The listener's HTTP settings and routes.
    pub fn http(&self) -> (&HttpFilter, &Routes) {
        let view = self.view();
        match (&view.chain.filter, &view.filter) {
            (Filter::Http(config), FilterView::Http(routes)) => (config, routes),
            (Filter::Tcp(_), _) | (_, FilterView::Tcp(_)) => {
                unreachable!("requests come from HTTP listeners")
            }
        }
    }

    /// Whether it is a gRPC call, as the client said.
    pub fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// What is noted upstream.
    pub fn trip(&self) -> &Trip {
        &self.trip
    }

    /// The request was brought into its canonical form; that is what the log shows, as it is what everybody else sees.
    pub fn set_target(&self, target: &Uri) {
        if let Some(logged) = &self.logged {
            logged.borrow_mut().set_target(target);
        }
    }

    /// The route was found.
    pub fn set_route(&self, position: usize) {
        self.route.set(Some(position));
    }

    /// The route's position, once it was found.
    pub fn position(&self) -> Option<usize> {
        self.route.get()
    }

    /// The route, once it was found.
    pub fn route(&self) -> Option<&Route> {
        self.route.get().map(|position| self.http().1.route(position))
    }

    /// What the route forwards with, if it forwards.
    pub fn forward(&self) -> Option<&Forward> {
        match &self.route()?.action {
            Action::Forward(forward) => Some(forward),
            Action::Redirect(_) | Action::Respond(_) => None,
        }
    }

    /// The other clusters of the route, if it has any.
    pub fn extras(&self) -> Option<&RouteExtras> {
        self.http().1.extras(self.route.get()?)
    }

    /// What the route's limits count with, if it has any.
    pub fn limits(&self) -> Option<&RouteLimits> {
        self.route.get().and_then(|position| self.http().1.limits(position))
    }

    /// It was counted by the route's rate limit.
    pub fn set_quota(&self, quota: Quota) {
        self.quota.set(Some(quota));
    }

    /// What the route's rate limit has left for this caller.
    pub fn quota(&self) -> Option<Quota> {
        self.quota.get()
    }

    /// A service that was asked about it wants this changed about the answer.
    pub fn change_answer(&self, changes: Vec<Change>) {
        self.service_changes.borrow_mut().extend(changes);
    }

    /// What services want changed about the answer.
    pub fn take_changes(&self) -> Vec<Change> {
        self.service_changes.take()
    }

    /// It was let in by the route's concurrency limit.
    pub fn set_place(&self, permit: Permit) {
        *self.place.borrow_mut() = Some(permit);
    }

    /// Its answer may be kept, under this key.
    pub fn set_asked(&self, key: Option<Rc<[u8]>>) {
        *self.asked.borrow_mut() = key;
    }

    /// The key under which its answer may be kept.
    pub fn asked(&self) -> Option<Rc<[u8]>> {
        self.asked.borrow().clone()
    }

    /// Whether its answer may be kept.
    pub fn keeps_answers(&self) -> bool {
        self.asked.borrow().is_some()
    }

    /// Nobody can tell whether its answer is whole.
    pub fn set_unframed(&self) {
        self.unframed.set(true);
    }

    /// Whether nobody can tell whether its answer is whole.
    pub fn is_unframed(&self) -> bool {
        self.unframed.get()
    }

    /// It has said whose it is, or somebody has said it of it.
    pub fn set_known(&self) {
        self.known.set(true);
    }

    /// Whether it has said whose it is.
    pub fn is_known(&self) -> bool {
        self.known.get()
    }

    /// It was held up on purpose.
    pub fn set_delayed(&self) {
        self.delayed.set(true);
    }

    /// Whether its answer took what one request to its cluster takes: it was sent once, and did not fall back.
    pub fn is_plain(&self) -> bool {
        self.trip.attempts() <= 1 && self.fallback.get().is_empty()
    }

    /// Whether it was held up on purpose.
    pub fn is_delayed(&self) -> bool {
        self.delayed.get()
    }

    /// What its answer takes is measured.
    pub fn set_timed(&self) {
        self.timed.set(true);
    }

    /// When its body was whole, if it had one, is [timed](Self::set_timed), and the client has sent it by now.
    pub fn received_at(&self) -> Option<Instant> {
        self.received_at.get()
    }

    /// The share of the route's split was chosen.
    pub fn set_share(&self, share: usize) {
        self.share.set(share);
    }

    /// From now on it goes to the route's fallback.
    pub fn redirect_to_fallback(&self) {
        self.fallen_back.set(true);
        self.is_shaped.set(false);
    }

    /// Whether it has not been sent to its [destination](Self::destination) before; from now on it has.
    pub fn is_first_sent(&self) -> bool {
        !self.is_shaped.replace(true)
    }

    /// Where it goes: the cluster, and the share of the split with its changes; none belong to a fallback. Only for
    /// routes that forward.
    pub fn destination(&self) -> (Option<&Target>, &Arc<ClusterView>) {
        let position = self.route.get().expect("the route is found before it is followed");
        if self.fallen_back.get()
            && let Some(cluster) = self.extras().and_then(|extras| extras.fallback.as_ref())
        {
            return (None, cluster);
        }
        let share = self.share.get();
        let target = self.forward().map(|forward| &forward.to.targets[share]);
        (target, &self.http().1.clusters(position)[share])
    }

    /// It is sent to this cluster, not for the first time perhaps.
    pub fn enter_cluster(&self, cluster: &Arc<ClusterView>) {
        let mut current = self.cluster.borrow_mut();
        if current.is_none() {
            cluster.live.stats().active.increment(1);
            *current = Some(cluster.clone());
        }
    }

    /// It is done with its cluster, which answered with this status, or with nothing: 0.
    pub fn leave_cluster(&self, status: u16) {
        self.leave_cluster_after(status, self.trip.started().elapsed());
    }

    fn leave_cluster_after(&self, status: u16, took: Duration) {
        let Some(cluster) = self.cluster.take() else { return };
        let stats = cluster.live.stats();
        stats.active.decrement(1);
        // Seen from there, what the client sent is what the endpoint was sent.
        stats.bytes(self.sent.get(), self.received.get());
        stats.request(status, took);
        self.set_flight(None);
        self.set_retry_none();
    }

    /// It is in flight at an endpoint, or no longer.
    pub fn set_flight(&self, flight: Option<Flight>) {
        *self.flight.borrow_mut() = flight;
    }

    /// It is a retry, counted so.
    pub fn set_retry(&self, counted: Counted) {
        *self.retry.borrow_mut() = Some(counted);
    }

    fn set_retry_none(&self) {
        *self.retry.borrow_mut() = None;
    }

    /// All attempts have failed; an answer of ours says so.
    pub fn set_retried(&self, attempts: HeaderValue) {
        *self.retried.borrow_mut() = Some(attempts);
    }

    /// How often it was sent, where that is to be told with an answer of ours.
    pub fn take_retried(&self) -> Option<HeaderValue> {
        self.retried.take()
    }

    /// What it is answered with is the route's fallback, of this kind.
    pub fn fell_back(&self, kind: &'static str) {
        self.fallback.set(kind);
        self.view.state.stats.fallback(kind);
    }

    /// Counts an error that the client does not come to see.
    pub fn count_error(&self, error: ProxyError) {
        count(&self.view.state.stats, error);
    }

    /// What became of it by the listener's rules.
    pub fn set_decision(&self, decision: Decision) {
        self.decision.set(decision);
    }

    /// What became of it by the listener's rules.
    pub fn decision(&self) -> Decision {
        self.decision.get()
    }

    /// What its token says, if it had one that was good.
    pub fn claims(&self) -> Option<&Claims> {
        self.claims.get().map(|claims| &**claims)
    }

    /// Its token was good, and says this. To be called once.
    pub fn set_claims(&self, claims: Rc<Claims>) {
        let _ = self.claims.set(claims);
    }

    /// The status of the answer.
    pub fn set_status(&self, status: http::StatusCode) {
        self.status.set(status.as_u16());
    }

    /// Why the answer is ours, or broke off. The first cause counts.
    pub fn set_error(&self, error: ProxyError) {
        if self.error.get().is_none() {
            self.error.set(Some(error));
        }
    }

    /// Why the answer is ours, if it is.
    pub fn error(&self) -> Option<ProxyError> {
        self.error.get()
    }

    /// The upstream agreed to a tunnel.
    pub fn set_tunnel(&self, upstream: Box<Tunnelled>) {
        *self.tunnel.borrow_mut() = Some(upstream);
    }

    /// The tunnel that the upstream agreed to.
    pub fn take_tunnel(&self) -> Option<Box<Tunnelled>> {
        self.tunnel.take()
    }

    /// What the client sends into the tunnel that it asked for (HTTP/2).
    pub fn set_tunnel_request(&self, body: Body) {
        *self.tunnel_request.borrow_mut() = Some(body);
    }

    /// What the client sends into the tunnel that it asked for (HTTP/2).
    pub fn take_tunnel_request(&self) -> Option<Body> {
        self.tunnel_request.take()
    }

    /// When the last byte of its answer is due, if ever.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.get()
    }

    /// From now on its answer is due then; never, for `None`.
    pub fn set_deadline(&self, at: Option<Instant>) {
        self.deadline.set(at);
    }

    /// Whether its deadline has passed; `cx` is woken when it does.
    pub fn is_late(&self, cx: &mut Context<'_>) -> bool {
        self.deadline.get().is_some_and(|at| self.is_past(at, cx))
    }

    /// Whether this time has come; `cx`, which must be that of its task, is woken when it does.
    pub fn is_past(&self, at: Instant, cx: &mut Context<'_>) -> bool {
        let timer = if self.stream.is_some() { &self.timer } else { self.conn.timer() };
        timer.is_past(at, cx)
    }

    /// Whether its HTTP/2 stream has stood still for too long; `cx` is woken when that comes to be.
    pub fn is_idle(&self, cx: &Context<'_>) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.watch().poll_idle(cx))
    }

    fn violation(&self) -> Option<&'static str> {
        self.conn.watch().activity().violation().map(Violation::code)
    }

    fn close(&self) {
        let took = self.trip.started().elapsed();
        if !self.whole.get() && self.error.get().is_none() {
            self.error.set(Some(self.conn.ended().unwrap_or(ProxyError::ClientGone)));
        }
        let status = self.status.get();
        let stats = &self.view.state.stats;
        stats.requests_active.decrement(1);
        stats.request(status, took);
        stats.bytes(self.received.get(), self.sent.get());
        if let Some(error) = self.error.get() {
            count(stats, error);
        }
        let answered = self.trip.first_byte().is_some();
        self.leave_cluster_after(if answered { status } else { 0 }, took);
        self.conn.watch().end();
        self.log(took);
    }
}

fn count(stats: &ListenerStats, error: ProxyError) {
    stats.error(error.answer().reason);
    if let Some(limit) = error.limit() {
        stats.limit(limit);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.close();
    }
}

impl Meter for Ledger {
    fn poll_open(&self, side: Side, cx: &mut Context<'_>) -> Result<(), BodyError> {
        match side {
            Side::Response if self.is_late(cx) => Err(BodyError::Timeout),
            Side::Request | Side::Response => Ok(()),
        }
    }

    fn passed(&self, side: Side, bytes: usize) -> Result<(), BodyError> {
        if let Some(stream) = &self.stream {
            stream.watch().touch();
        }
        match side {
            Side::Response => {
                self.sent.set(self.sent.get() + bytes as u64);
                Ok(())
            }
            Side::Request => {
                let received = self.received.get() + bytes as u64;
                self.received.set(received);
                match self.view.chain.limits.body {
                    Some(limit) if received > limit.get() => Err(BodyError::TooLarge(limit.get())),
                    Some(_) | None => Ok(()),
                }
            }
        }
    }

    fn ended(&self, side: Side, result: Result<(), BodyError>) {
        match (side, result) {
            (Side::Response, Ok(())) => self.whole.set(true),
            (Side::Request, Ok(())) if self.timed.get() => self.received_at.set(Some(Instant::now())),
            (Side::Request, Ok(())) => {}
            // The framing of the request's body was refused.
            (Side::Request, Err(BodyError::Client)) if self.violation().is_some() => {
                self.set_error(self.violation().map_or(ProxyError::ClientGone, ProxyError::Head));
            }
            (Side::Request | Side::Response, Err(error)) => self.set_error(error.into()),
        }
    }
}
