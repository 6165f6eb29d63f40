//! One request's way to an upstream: an endpoint is picked, a connection found or made, the request sent, and sent
//! once more where the connection turned out to be dead and nothing can have come of the first time.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use http::header::HOST;
use http::{HeaderMap, Method, Request, Version};
use http_body::Body as _;
use outrigger_proto::model::{Original, Protocol, Source};
use tokio::time::Instant;

use super::balance::PickFacts;
use super::breaker::{Counted, Limit, Overflow};
use super::cluster::ClusterView;
use super::dialled::Dialled;
use super::endpoint::{Availability, Endpoint, Lease};
use super::error::UpstreamError;
use super::h1::{Answer, Failure};
use super::open::Dialing;
use super::original;
use super::outlier::{Outcome, Probe};
use super::pool::{PoolKey, Pools, Reclaim};
use super::tls::Speak;
use super::trip::{GivenUp, Going, Tried, Trip};
use crate::body::Body;
use crate::io::activity::Ticks;
use crate::io::stream::Stream;
use crate::policy::retry::grpc_status;

/// A worker's way to all upstreams.
#[derive(Debug)]
pub struct Upstream {
    pub(super) worker: usize,
    pub(super) pools: Rc<Pools>,
    pub(super) reclaim: Arc<Reclaim>,
    pub(super) dialled: Arc<Dialled>,
    pub(super) ticks: Ticks,
    epoch: Instant,
    rng: RefCell<fastrand::Rng>,
    pub(super) dialing: RefCell<HashMap<PoolKey, Rc<Dialing>>>,
}

/// A response, or a tunnel.
#[derive(Debug)]
pub struct Sent {
    /// What came.
    pub answer: Answer,
    /// To be kept until the response has been passed on.
    pub flight: Flight,
}

/// What counts a request as in flight, at its endpoint and in its cluster.
#[derive(Debug)]
pub struct Flight {
    _lease: Lease,
    _counted: Counted,
}

/// A request that got no response.
#[derive(Debug)]
struct Unanswered {
    error: UpstreamError,
    /// The endpoint has certainly seen nothing of the request, which is as it was.
    unsent: bool,
    /// The connection was dead already, and whoever keeps the request is to send it on a fresh one.
    stale: bool,
}

impl From<UpstreamError> for Unanswered {
    fn from(error: UpstreamError) -> Self {
        Self { error, unsent: false, stale: false }
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
    pub fn new(
        worker: usize,
        ticks: Ticks,
        (epoch, reclaim, dialled): (Instant, Arc<Reclaim>, Arc<Dialled>),
    ) -> Self {
        Self {
            worker,
            pools: Rc::new(Pools::new(worker)),
            reclaim,
            dialled,
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

    /// Makes one attempt to have a request answered by the cluster. An endpoint that cannot be connected to has seen
    /// nothing of the request, so within the attempt another one is tried; further attempts prefer others yet.
    ///
    /// # Errors
    /// Why there is no response.
    pub async fn send(
        &self,
        to: &ClusterView,
        mut request: Box<Request<Body>>,
        trip: &Trip,
    ) -> Result<Sent, UpstreamError> {
        let (breaker, limits) = to.breaker(trip.priority());
        let counted = breaker.count(Limit::Requests, limits);
        let counted = counted.map_err(|overflow| overflowed(to, overflow))?;
        let wire = wire(to.config.protocol, &request);
        name(to, Some(request.headers_mut()), trip)?;
        let going = trip.begin_attempt();
        going.hold(request);
        trip.note_answer_spelling(None);
        if trip.attempts() == 1 && !trip.is_stale() {
            breaker.budget().deposit(to.config.retry_budget);
        }
        let mut unreachable = Tried::default();
        loop {
            let lease = self.pick(to, &going, &unreachable)?;
            let endpoint = lease.endpoint();
            let result = match wire {
                Wire::H1 => self.send_h1(to, endpoint, &going).await,
                Wire::H2 => self.send_h2(to, endpoint, &going).await,
            };
            let took = going.began().elapsed();
            let now = going.began().duration_since(self.epoch) + took;
            if let Err(Unanswered { error, unsent: _, stale: true }) = result {
                // It does not count, and the endpoint is not to blame: it may close what is idle.
                trip.stale.set(true);
                trip.attempts.set(trip.attempts.get() - 1);
                return Err(error);
            }
            trip.tried.borrow_mut().add(endpoint.id());
            match result {
                Ok(answer) => {
                    // The clock is read once for all that is to be known of it.
                    trip.first_byte.set(Some(now.saturating_sub(trip.started.duration_since(self.epoch))));
                    endpoint.answered(took, now);
                    to.live.answered(took, now);
                    going.answered();
                    let outcome = outcome(&answer);
                    if matches!(outcome, Outcome::Status5xx { gateway: _ }) {
                        endpoint.note_fault();
                    }
                    self.record(to, endpoint, going.take_probe(), (outcome, took, now));
                    return Ok(Sent { answer, flight: Flight { _lease: lease, _counted: counted } });
                }
                Err(Unanswered { error, unsent, stale: _ }) => {
                    if error.blames_endpoint() {
                        endpoint.failed(now);
                        self.record(to, endpoint, going.take_probe(), (Outcome::NoResponse, took, now));
                    }
                    unreachable.add(endpoint.id());
                    if !(unsent && error.blames_endpoint() && Self::has_other(to, &unreachable)) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// The request was given up before anything came of it, as it took too long. Who had most of that time is to blame;
    /// who was asked at last has had no chance.
    pub fn gave_up(&self, to: &ClusterView, trip: &Trip) {
        let half = trip.started.elapsed() / 2;
        let last = trip.attempts();
        for number in [last.wrapping_sub(1), last] {
            if let Some(given_up) = trip.give_up(number)
                && given_up.since.elapsed() >= half
            {
                self.blame(to, given_up);
            }
        }
    }

    /// One of the request's last two attempts, by its number, was given up as it took too long; its endpoint is to blame,
    /// if it got so far.
    pub fn gave_up_attempt(&self, to: &ClusterView, trip: &Trip, number: u32) {
        if let Some(given_up) = trip.give_up(number) {
            self.blame(to, given_up);
        }
    }

    fn blame(&self, to: &ClusterView, GivenUp { endpoint, probe, since }: GivenUp) {
        let now = self.epoch.elapsed();
        endpoint.failed(now);
        let took = now.saturating_sub(since.duration_since(self.epoch));
        self.record(to, &endpoint, probe, (Outcome::NoResponse, took, now));
    }

    /// Tells outlier detection, where there is one.
    fn record(
        &self,
        to: &ClusterView,
        endpoint: &Endpoint,
        probe: Option<Probe>,
        (outcome, took, now): (Outcome, Duration, Duration),
    ) {
        let Some(rules) = &to.config.outlier_detection else { return };
        let verdict = match probe {
            Some(probe) => probe.record(outcome, took, rules),
            None => endpoint.standing().record(outcome, took, rules),
        };
        to.live.obey(verdict, endpoint, (rules, now), || self.random());
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
        name(to, None, trip)?;
        let going = trip.go(trip.started);
        loop {
            let lease = self.pick(to, &going, &tried)?;
            let dialled = match self.admit(to, lease.endpoint(), &going).await {
                Ok(Some(permit)) => self.dial(to, lease.endpoint(), (&going, permit, Speak::Bytes)).await,
                Ok(None) => {
                    // Or it would be refused to itself.
                    drop(going.take_probe());
                    continue;
                }
                Err(error) => return Err(error),
            };
            let took = trip.started.elapsed();
            let now = trip.started.duration_since(self.epoch) + took;
            match dialled {
                Ok((mut stream, mut open)) => {
                    self.pools.watch_over(&mut stream, &mut open);
                    lease.endpoint().answered(took, now);
                    self.record(to, lease.endpoint(), going.take_probe(), (Outcome::Success, took, now));
                    return Ok((stream, lease, open));
                }
                Err(error) => {
                    lease.endpoint().failed(now);
                    self.record(to, lease.endpoint(), going.take_probe(), (Outcome::NoResponse, took, now));
                    tried.add(lease.endpoint().id());
                    trip.tried.borrow_mut().add(lease.endpoint().id());
                    if !Self::has_other(to, &tried) {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn pick(&self, to: &ClusterView, going: &Going<'_>, unreachable: &Tried) -> Result<Lease, UpstreamError> {
        if let Source::Original(original) = &to.config.source {
            return self.pick_named((to, original), going);
        }
        let endpoints = to.endpoints();
        let trip = going.trip;
        let tried = trip.others(going);
        let facts = PickFacts {
            now: trip.started.duration_since(self.epoch),
            hash: trip.hash.get(),
            tried: tried.ids(),
        };
        let random = || self.random();
        let mut probe = None;
        let mut claim = |endpoint: &Arc<Endpoint>| {
            probe = endpoint.standing().probe(facts.now);
            probe.is_some()
        };
        let mut picked = endpoints.pick(&facts, random, &mut claim);
        if picked.is_none() && !facts.tried.is_empty() {
            // All of them have been tried: then one that could be reached, once more.
            picked = endpoints.pick(&PickFacts { tried: unreachable.ids(), ..facts }, random, &mut claim);
        }
        let picked = picked.ok_or(UpstreamError::NoEndpoint)?;
        if picked.panic {
            to.live.stats().panics.increment(1);
        }
        going.to(picked.endpoint, probe);
        Ok(picked.endpoint.lease())
    }

    /// The one endpoint that is named, unless it is left out.
    fn pick_named(
        &self,
        (to, original): (&ClusterView, &Original),
        going: &Going<'_>,
    ) -> Result<Lease, UpstreamError> {
        let trip = going.trip;
        let address = trip.named.get().ok_or(UpstreamError::NoOriginalDestination)?;
        let now = trip.started.duration_since(self.epoch);
        let found = to.live.endpoint_at(original, address, now);
        let endpoint = found.inspect_err(|error| to.live.note_unnamed(*error, trip.redirected.get()))?;
        let probe = match endpoint.availability() {
            Availability::Available => None,
            Availability::HalfOpen => Some(endpoint.standing().probe(now).ok_or(UpstreamError::NoEndpoint)?),
            Availability::Unavailable => return Err(UpstreamError::NoEndpoint),
        };
        going.to(&endpoint, probe);
        Ok(endpoint.lease())
    }

    fn has_other(to: &ClusterView, tried: &Tried) -> bool {
        // Where endpoints are named, another one is not what was meant.
        !matches!(to.config.source, Source::Original(_))
            && !tried.is_full()
            && to.endpoints().has_any(tried.ids())
    }

    async fn send_h1(
        &self,
        to: &ClusterView,
        endpoint: &Arc<Endpoint>,
        going: &Going<'_>,
    ) -> Result<Answer, Unanswered> {
        let trip = going.trip;
        let mut fresh = trip.stale.take();
        let pool = going.pool(to, endpoint);
        loop {
            let pooled = if fresh { None } else { self.pools.take_h1(pool) };
            let Some(conn) = pooled else {
                // Boxed, as most requests find a connection: dialling is rare, and its future large.
                let conn = match Box::pin(self.open_h1(to, endpoint, going)).await {
                    Ok(Some(conn)) => conn,
                    Ok(None) => {
                        fresh = false;
                        continue;
                    }
                    Err(error) => return Err(Unanswered { error, unsent: true, stale: false }),
                };
                let answer = conn.exchange(&self.pools, going).await;
                return answer.map_err(|failure| failure.error.into());
            };
            going.depends_on_endpoint();
            let replayable = trip.harmless.get() || is_replayable(&going.request());
            let failure = match conn.exchange(&self.pools, going).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            // The upstream closed the connection while it was idle, just as we used it: a fresh one tells.
            let stale = replayable && failure.error == UpstreamError::Closed && !failure.answered;
            match (failure.is_whole, failure.sent) {
                (true, false) => {}
                (true, true) if stale && !trip.kept.get() => {
                    to.live.stats().replays.increment(1);
                    fresh = true;
                }
                (true, true) | (false, _) => {
                    let stale = stale && trip.kept.get();
                    return Err(Unanswered { error: failure.error, unsent: false, stale });
                }
            }
        }
    }

    async fn send_h2(
        &self,
        to: &ClusterView,
        endpoint: &Arc<Endpoint>,
        going: &Going<'_>,
    ) -> Result<Answer, Unanswered> {
        let pool = going.pool(to, endpoint);
        loop {
            let conn = match self.pools.find_h2(pool) {
                Some(conn) => conn,
                None => match Box::pin(self.open_h2(to, endpoint, going)).await {
                    Ok(conn) => conn,
                    Err(error) => return Err(Unanswered { error, unsent: true, stale: false }),
                },
            };
            going.depends_on_endpoint();
            match conn.exchange(going).await {
                Ok(answer) => return Ok(answer),
                // The connection was about to end, and took nothing: another one will.
                Err(Failure { sent: false, .. }) => {}
                Err(failure) => return Err(failure.error.into()),
            }
        }
    }
}

/// Finds out which endpoint is named, where they are. A header that names one has done so: sent on, it would name the same
/// one again wherever the request comes back from behind another address. Further attempts know it from the first.
fn name(to: &ClusterView, headers: Option<&mut HeaderMap>, trip: &Trip) -> Result<(), UpstreamError> {
    let Source::Original(original) = &to.config.source else { return Ok(()) };
    if trip.kept.get() && trip.named.get().is_some() {
        return Ok(());
    }
    let redirected = trip.redirected.get();
    let named = match trip.comes_back.get() {
        true => Err(UpstreamError::OwnAddress),
        false => original::named(original, headers.as_deref(), redirected),
    };
    let named = named.inspect_err(|error| to.live.note_unnamed(*error, redirected))?;
    trip.named.set(Some(named));
    // A request has a host, whatever else that is used for.
    if let Some((header, headers)) = original.header.as_ref().filter(|header| **header != HOST).zip(headers) {
        headers.remove(header);
    }
    Ok(())
}

/// What a response says of its endpoint. A gRPC server that fails does so with status 200.
fn outcome(answer: &Answer) -> Outcome {
    let Answer::Response(response) = answer else { return Outcome::Success };
    match response.status().as_u16() {
        status @ 500.. => Outcome::Status5xx { gateway: matches!(status, 502..=504) },
        _ => match grpc_status(response.headers()) {
            // UNAVAILABLE; UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, DATA_LOSS.
            Some(14) => Outcome::Status5xx { gateway: true },
            Some(2 | 4 | 13 | 15) => Outcome::Status5xx { gateway: false },
            Some(_) | None => Outcome::Success,
        },
    }
}

/// Refused by a breaker, which is counted.
pub(super) fn overflowed(to: &ClusterView, overflow: Overflow) -> UpstreamError {
    to.live.stats().overflow(overflow.key());
    UpstreamError::Overflow(overflow)
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

/// Whether a request may be sent again that was: when doing it twice is the same as once (RFC 9110 section 9.2.2), and
/// there is no body.
fn is_replayable(request: &Request<Body>) -> bool {
    request.method().is_idempotent() && request.body().is_end_stream()
}
