//! One request's way to an upstream: an endpoint is picked, a connection found or made, the request sent, and sent
//! once more where the connection turned out to be dead and nothing can have come of the first time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use http::{Method, Request, Version};
use http_body::Body as _;
use outrigger_proto::model::Protocol;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::cluster::ClusterView;
use super::connect::{Dial, dial};
use super::endpoint::{Endpoint, Lease};
use super::error::UpstreamError;
use super::h1::{self, Answer, Failure};
use super::h2;
use super::pool::Pools;
use crate::body::Body;
use crate::io::activity::Ticks;
use crate::io::stream::Stream;

/// A worker's way to all upstreams.
#[derive(Debug)]
pub struct Upstream {
    pools: Rc<Pools>,
    ticks: Ticks,
    epoch: Instant,
    rng: RefCell<fastrand::Rng>,
    dialing: RefCell<HashMap<u64, Rc<Dialing>>>,
}

/// What is noted on the way, for metrics and logs.
#[derive(Debug)]
pub struct Trip {
    started: Instant,
    endpoint: RefCell<Option<Arc<Endpoint>>>,
    connect: Cell<Option<Duration>>,
    first_byte: Cell<Option<Duration>>,
}

/// A response, or a tunnel, and the lease that counts it as in flight.
#[derive(Debug)]
pub struct Sent {
    /// What came.
    pub answer: Answer,
    /// To be kept until the response has been passed on.
    pub lease: Lease,
}

impl Trip {
    /// A request that began at `started`.
    pub fn new(started: Instant) -> Self {
        Self { started, endpoint: RefCell::new(None), connect: Cell::new(None), first_byte: Cell::new(None) }
    }

    /// When the request began.
    pub fn started(&self) -> Instant {
        self.started
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
}

/// A request that got no response.
#[derive(Debug)]
struct Unanswered {
    error: UpstreamError,
    /// The request, where the endpoint has certainly seen nothing of it.
    unsent: Option<Box<Request<Body>>>,
}

impl From<UpstreamError> for Unanswered {
    fn from(error: UpstreamError) -> Self {
        Self { error, unsent: None }
    }
}

/// Endpoints that a request could not be sent to.
#[derive(Debug, Default)]
struct Tried {
    ids: [u64; Self::MOST],
    len: usize,
}

impl Tried {
    /// Enough to get past a node that died with its endpoints; not a search through a cluster that is down.
    const MOST: usize = 3;

    fn add(&mut self, id: u64) {
        self.ids[self.len] = id;
        self.len += 1;
    }

    fn ids(&self) -> &[u64] {
        &self.ids[..self.len]
    }

    fn is_full(&self) -> bool {
        self.len == Self::MOST
    }
}

/// Which protocol a request is sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    H1,
    H2,
}

impl Upstream {
    /// `epoch` is when the process started: latencies of all workers are compared.
    pub fn new(ticks: Ticks, epoch: Instant) -> Self {
        Self {
            pools: Rc::default(),
            ticks,
            epoch,
            rng: RefCell::new(fastrand::Rng::new()),
            dialing: RefCell::default(),
        }
    }

    /// A random number, from the worker's own source.
    pub fn random(&self) -> u64 {
        self.rng.borrow_mut().u64(..)
    }

    /// The worker's connections.
    pub fn pools(&self) -> &Rc<Pools> {
        &self.pools
    }

    /// Sends a request to the cluster. An endpoint that cannot be connected to has seen nothing of the request, so
    /// another one is tried.
    ///
    /// # Errors
    /// Why there is no response.
    pub async fn send(
        &self,
        to: &ClusterView,
        mut request: Box<Request<Body>>,
        trip: &Trip,
    ) -> Result<Sent, UpstreamError> {
        let wire = wire(to.config.protocol, &request);
        let mut tried = Tried::default();
        loop {
            let lease = self.pick(to, trip, &tried)?;
            let endpoint = lease.endpoint();
            let result = match wire {
                Wire::H1 => self.send_h1(to, endpoint, request, trip).await,
                Wire::H2 => self.send_h2(to, endpoint, request, trip).await,
            };
            let took = trip.started.elapsed();
            let now = trip.started.duration_since(self.epoch) + took;
            match result {
                Ok(answer) => {
                    trip.first_byte.set(Some(took));
                    endpoint.answered(took, now);
                    return Ok(Sent { answer, lease });
                }
                Err(Unanswered { error, unsent }) => {
                    if error.blames_endpoint() {
                        endpoint.failed(now);
                    }
                    tried.add(endpoint.id());
                    request = match unsent {
                        Some(unsent) if self.has_other(to, &tried) => unsent,
                        Some(_) | None => return Err(error),
                    };
                }
            }
        }
    }

    /// Connects to an endpoint of the cluster, for bytes; to another one where that fails.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn connect(
        &self,
        to: &ClusterView,
        trip: &Trip,
    ) -> Result<(Stream, Lease, super::Open), UpstreamError> {
        let mut tried = Tried::default();
        loop {
            let lease = self.pick(to, trip, &tried)?;
            let dialled = self.dial(to, lease.endpoint(), trip).await;
            let took = trip.started.elapsed();
            let now = trip.started.duration_since(self.epoch) + took;
            match dialled {
                Ok((stream, open)) => {
                    lease.endpoint().answered(took, now);
                    return Ok((stream, lease, open));
                }
                Err(error) => {
                    lease.endpoint().failed(now);
                    tried.add(lease.endpoint().id());
                    if !self.has_other(to, &tried) {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn pick(&self, to: &ClusterView, trip: &Trip, tried: &Tried) -> Result<Lease, UpstreamError> {
        let endpoints = to.live.endpoints();
        let now = trip.started.duration_since(self.epoch);
        let random = || self.random();
        let endpoint = match tried.ids() {
            [] => endpoints.pick(to.config.balance, now, random),
            ids => endpoints.pick_other(ids, random),
        };
        let endpoint = endpoint.ok_or(UpstreamError::NoEndpoint)?;
        trip.endpoint.replace(Some(endpoint.clone()));
        Ok(endpoint.lease())
    }

    fn has_other(&self, to: &ClusterView, tried: &Tried) -> bool {
        !tried.is_full() && to.live.endpoints().pick_other(tried.ids(), || 0).is_some()
    }

    async fn dial(
        &self,
        to: &ClusterView,
        endpoint: &Arc<Endpoint>,
        trip: &Trip,
    ) -> Result<(Stream, super::Open), UpstreamError> {
        let start = Instant::now();
        let how = Dial { timeout: to.config.connect_timeout, ticks: self.ticks.clone() };
        let stats = to.live.stats();
        let result = dial(endpoint, stats, how).await;
        trip.connect.set(Some(start.elapsed()));
        if let Err(error) = &result {
            stats.connect_failure(error.code());
        }
        result
    }

    async fn send_h1(
        &self,
        to: &ClusterView,
        endpoint: &Arc<Endpoint>,
        mut request: Box<Request<Body>>,
        trip: &Trip,
    ) -> Result<Answer, Unanswered> {
        while let Some(conn) = self.pools.take_h1(endpoint.id()) {
            let copy = replayable(&request);
            let failure = match conn.exchange(&self.pools, request).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            match (failure.unsent, copy) {
                (Some(unsent), _) => request = unsent,
                // The upstream closed the connection while it was idle, just as we used it: a fresh one tells.
                (None, Some(copy)) if failure.error == UpstreamError::Closed && !failure.answered => {
                    to.live.stats().replays.increment(1);
                    request = copy;
                    break;
                }
                (None, _) => return Err(failure.error.into()),
            }
        }
        // Boxed, as most requests find a connection: dialling is rare, and its future large.
        let conn = Box::pin(async {
            let (stream, open) = self.dial(to, endpoint, trip).await?;
            h1::Conn::new(stream, open, to.config.idle_timeout).await
        });
        match conn.await {
            Ok(conn) => conn.exchange(&self.pools, request).await.map_err(|failure| failure.error.into()),
            Err(error) => Err(Unanswered { error, unsent: Some(request) }),
        }
    }

    async fn send_h2(
        &self,
        to: &ClusterView,
        endpoint: &Arc<Endpoint>,
        mut request: Box<Request<Body>>,
        trip: &Trip,
    ) -> Result<Answer, Unanswered> {
        loop {
            let conn = match self.pools.find_h2(endpoint.id()) {
                Some(conn) => conn,
                None => match Box::pin(self.open_h2(to, endpoint, trip)).await {
                    Ok(conn) => conn,
                    Err(error) => return Err(Unanswered { error, unsent: Some(request) }),
                },
            };
            match conn.exchange(request).await {
                Ok(answer) => return Ok(answer),
                // The connection was about to end, and took nothing: another one will.
                Err(Failure { unsent: Some(unsent), .. }) => request = unsent,
                Err(failure) => return Err(failure.error.into()),
            }
        }
    }

    /// An HTTP/2 connection with room, opened by this request or by one that came before it.
    async fn open_h2(
        &self,
        to: &ClusterView,
        endpoint: &Arc<Endpoint>,
        trip: &Trip,
    ) -> Result<Rc<h2::Conn>, UpstreamError> {
        loop {
            let dialing = self.dialing.borrow().get(&endpoint.id()).cloned();
            let settling = self.pools.settling_h2(endpoint.id());
            if let Some(dialing) = dialing {
                dialing.done.notified().await;
                if let Some(error) = dialing.error.get() {
                    return Err(error);
                }
            } else if let Some(settling) = settling {
                settling.settled().await;
            } else {
                // Whoever opens a connection uses it, even if it turns out to have no room for others.
                return self.dial_h2(to, endpoint, trip).await;
            }
            if let Some(conn) = self.pools.find_h2(endpoint.id()) {
                return Ok(conn);
            }
        }
    }

    /// Opens an HTTP/2 connection for all who wait for one.
    async fn dial_h2(
        &self,
        to: &ClusterView,
        endpoint: &Arc<Endpoint>,
        trip: &Trip,
    ) -> Result<Rc<h2::Conn>, UpstreamError> {
        let dialing = Rc::new(Dialing::default());
        self.dialing.borrow_mut().insert(endpoint.id(), dialing.clone());
        let turn = Turn { upstream: self, endpoint: endpoint.id(), dialing };
        let result = async {
            let (stream, open) = self.dial(to, endpoint, trip).await?;
            h2::Conn::new(stream, open, to.config.idle_timeout).await
        };
        match result.await {
            Ok(conn) => {
                self.pools.put_h2(conn.clone());
                Ok(conn)
            }
            Err(error) => {
                turn.dialing.error.set(Some(error));
                Err(error)
            }
        }
    }
}

/// A connection being opened, and who waits for it.
#[derive(Debug, Default)]
struct Dialing {
    done: Notify,
    error: Cell<Option<UpstreamError>>,
}

/// Whoever opens a connection for others; when it is cancelled, they are told to open their own.
struct Turn<'a> {
    upstream: &'a Upstream,
    endpoint: u64,
    dialing: Rc<Dialing>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.upstream.dialing.borrow_mut().remove(&self.endpoint);
        self.dialing.done.notify_waiters();
    }
}

fn wire(protocol: Protocol, request: &Request<Body>) -> Wire {
    match protocol {
        Protocol::Http1 => Wire::H1,
        Protocol::Http2 => Wire::H2,
        Protocol::Auto if request.version() == Version::HTTP_2 && request.method() != Method::CONNECT => {
            Wire::H2
        }
        Protocol::Auto => Wire::H1,
    }
}

/// A copy to send again, when doing it twice is the same as once (RFC 9110 section 9.2.2) and there is no body.
fn replayable(request: &Request<Body>) -> Option<Box<Request<Body>>> {
    if !request.method().is_idempotent() || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Box::new(Request::new(Body::empty()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
