//! A request that failed is tried again, as its route says and its cluster's budget allows; and a request that is slow
//! gets a second attempt beside the first (hedging).
//!
//! The first attempt is polled where it lies, as a request of a route that asks for neither; what follows it is boxed. An
//! attempt ends with the head of its response: once that is passed on there is no way back.

use std::fmt;
use std::future::{Future, poll_fn};
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue, Request, Response};
use outrigger_proto::model::{Hedge, HedgeAfter, Retry as Policy};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::Outcome;
use super::detour::Inner;
use crate::body::Body;
use crate::error::ProxyError;
use crate::http::call::{Call, Ledger, Wanted};
use crate::http::headers::{X_OUTRIGGER_ATTEMPT, X_OUTRIGGER_RETRIED};
use crate::http::peek;
use crate::http::replay::Replay;
use crate::policy::retry::{self as decide, Skipped};
use crate::upstream::{ClusterView, Counted, Limit, UpstreamError};

/// For gRPC servers: attempts before this one (gRPC proposal A6).
const GRPC_PREVIOUS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// Whether a field says which attempt this is.
pub(super) fn is_mark(name: &HeaderName) -> bool {
    *name == X_OUTRIGGER_ATTEMPT || *name == GRPC_PREVIOUS
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct RetryLayer;

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry { inner }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Retry<S> {
    inner: S,
}

impl<S: Inner> Service<Call> for Retry<S> {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Attempted<S, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut call: Call) -> Attempted<S, S::Future> {
        let wanted = call.ledger.forward().is_some_and(|to| to.retry.is_some() || to.hedge.is_some());
        // A tunnel is not a request that could be repeated.
        let attempts = (wanted && call.tunnel == Wanted::Nothing).then(|| {
            let attempts = Attempts::new(self.inner.clone(), &mut call);
            attempts.mark(&mut call.request);
            Box::new(attempts)
        });
        Attempted { first: Some(self.inner.call(call)), attempts, further: None }
    }
}

pin_project! {
    /// The first attempt, where it lies; and what may follow it.
    pub struct Attempted<S, F> {
        #[pin]
        first: Option<F>,
        // Where there may be another one.
        attempts: Option<Box<Attempts<S, F>>>,
        // Boxed: few get there.
        further: Option<Pin<Box<dyn Future<Output = Outcome>>>>,
    }
}

impl<S: Inner> Future for Attempted<S, S::Future> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.project();
        if let Some(further) = this.further {
            return further.as_mut().poll(cx);
        }
        let Some(attempts) = this.attempts else {
            return this.first.as_pin_mut().expect("there is a first attempt").poll(cx);
        };
        let outcome = ready!(attempts.poll_attempt(this.first, cx));
        match this.attempts.take_if(|attempts| !attempts.is_good(&outcome)) {
            None => Poll::Ready(outcome),
            Some(attempts) => this.further.insert(Box::pin(attempts.go_on(outcome))).as_mut().poll(cx),
        }
    }
}

impl<S, F> fmt::Debug for Attempted<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempted").field("further", &self.further.is_some()).finish_non_exhaustive()
    }
}

/// All that is known of a request while it is attempted.
struct Attempts<S, F> {
    inner: S,
    ledger: Rc<Ledger>,
    replay: Replay,
    idempotent: bool,
    /// Whether gRPC statuses count.
    grpc: bool,
    /// The number of the last attempt, those of whoever asked us included.
    number: u32,
    /// Of the attempt that is under way.
    limit: TryLimit,
    /// When another one is due beside it.
    hedge_at: Option<Instant>,
    second: Option<Second<F>>,
}

/// How long an attempt may take.
#[derive(Clone, Copy)]
struct TryLimit {
    until: Option<Instant>,
    /// Which attempt of ours it is.
    of: u32,
}

/// The second of two attempts that are under way.
struct Second<F> {
    sending: Pin<Box<F>>,
    limit: TryLimit,
    _permit: Counted,
}

impl<S: Inner> Attempts<S, S::Future> {
    fn new(inner: S, call: &mut Call) -> Self {
        let Call { request, tunnel: _, ledger } = call;
        let policy = policy(ledger);
        let grpc = ledger.is_grpc() && decide::wants_grpc(policy);
        let max_body = policy.max_body;
        ledger.trip().keep();
        // Nobody else's has come so far.
        let is_trusted = ledger.conn().is_from(&ledger.http().0.trusted_proxies);
        let marked = if is_trusted { request.headers().get(X_OUTRIGGER_ATTEMPT) } else { None };
        let mut attempts = Self {
            inner,
            idempotent: request.method().is_idempotent(),
            grpc,
            // Whoever retries this on the other side has it multiplied no further.
            number: marked.and_then(|mark| mark.to_str().ok()?.parse().ok()).unwrap_or(1).max(1),
            replay: Replay::of(request.body_mut(), max_body),
            limit: TryLimit { until: None, of: 1 },
            hedge_at: None,
            second: None,
            ledger: ledger.clone(),
        };
        attempts.begin();
        attempts
    }

    fn cluster(&self) -> &ClusterView {
        self.ledger.destination().1
    }

    /// An attempt begins.
    fn begin(&mut self) {
        let now = self.ledger.trip().next_begins();
        self.limit = self.limit_from(now);
        let after = self.hedge_after().map(|after| now + after);
        self.hedge_at = after.filter(|at| self.limit.until.is_none_or(|until| *at < until));
    }

    fn limit_from(&self, now: Instant) -> TryLimit {
        let until = policy(&self.ledger).per_try_timeout.map(|limit| now + limit);
        TryLimit { until, of: self.ledger.trip().attempts() + 1 }
    }

    /// What an attempt comes to; with another one beside it when it takes long. The first of them that is good counts;
    /// where one fails, the other may still be.
    fn poll_attempt(
        &mut self,
        mut first: Pin<&mut Option<S::Future>>,
        cx: &mut Context<'_>,
    ) -> Poll<Outcome> {
        if let Some(sending) = first.as_mut().as_pin_mut() {
            let mut polled = sending.poll(cx);
            if polled.is_pending() && self.hedge_at.is_some_and(|at| self.ledger.is_past(at, cx)) {
                self.hedge_at = None;
                self.second = self.hedge();
            }
            // Until the hedge is due, the limit is not.
            if polled.is_pending() && self.hedge_at.is_none() {
                polled = self.limit.poll(&self.ledger, cx);
            }
            if let Poll::Ready(outcome) = polled {
                first.set(None);
                if self.second.is_none() || !is_bad(&outcome) {
                    self.second = None;
                    return Poll::Ready(outcome);
                }
            }
        }
        let Some(Second { sending, limit, _permit }) = &mut self.second else { return Poll::Pending };
        let polled = sending.as_mut().poll(cx);
        let outcome = ready!(if polled.is_pending() { limit.poll(&self.ledger, cx) } else { polled });
        self.second = None;
        if first.is_some() && is_bad(&outcome) {
            return Poll::Pending;
        }
        first.set(None);
        Poll::Ready(outcome)
    }

    /// Whether nothing but the head has to be looked at to see that nothing is left to be done.
    fn is_good(&self, outcome: &Outcome) -> bool {
        let Ok(response) = outcome else { return false };
        let attempted = decide::Outcome::Response { status: response.status(), grpc: None };
        !self.grpc && decide::judge(policy(&self.ledger), attempted, self.idempotent).is_none()
    }

    /// What is done about an attempt that was not good.
    async fn go_on(mut self: Box<Self>, mut result: Outcome) -> Outcome {
        let mut made = 1;
        let mut permit;
        loop {
            let request;
            if matches!(result, Err(ProxyError::Upstream(UpstreamError::Closed)))
                && self.ledger.trip().is_stale()
            {
                // It was sent on a connection that was dead already: on a fresh one it is as good as the first time.
                let Some(again) = self.again() else { return result };
                request = again;
                // What it waited for there, nobody has to answer for.
                self.ledger.trip().held_up(Instant::now());
                self.cluster().live.stats().replays.increment(1);
            } else {
                let (looked, attempt) = self.look(result).await;
                result = looked;
                let next = match decide::judge(policy(&self.ledger), attempt, self.idempotent) {
                    None => return result,
                    Some(Err(skipped)) => Err(skipped),
                    Some(Ok(())) => self.may_go_on(made, &result),
                };
                let wait;
                (wait, permit) = match next {
                    Ok(next) => next,
                    Err(skipped) => {
                        self.cluster().live.stats().retry_skipped(skipped.code());
                        return self.given_up(skipped, result);
                    }
                };
                // What can be tried again was sent, and so is there.
                let Some(again) = self.again() else { return result };
                request = again;
                drop(result);
                self.ledger.set_flight(None);
                tokio::time::sleep(wait).await;
                self.cluster().live.stats().retries.increment(1);
                self.ledger.set_retry(permit);
                made += 1;
                self.number += 1;
            }
            self.begin();
            let mut sending = pin!(Some(self.send(request)));
            result = poll_fn(|cx| self.poll_attempt(sending.as_mut(), cx)).await;
        }
    }

    /// The request once more, as it was sent.
    fn again(&self) -> Option<Box<Request<Body>>> {
        let mut request = self.ledger.trip().take_request()?;
        *request.body_mut() = self.replay.body();
        Some(request)
    }

    fn send(&mut self, mut request: Box<Request<Body>>) -> S::Future {
        self.mark(&mut request);
        self.inner.call(Call { request, tunnel: Wanted::Nothing, ledger: self.ledger.clone() })
    }

    /// Says which attempt this is, where it is not the first.
    fn mark(&self, request: &mut Request<Body>) {
        if self.number == 1 {
            return;
        }
        let headers = request.headers_mut();
        headers.insert(X_OUTRIGGER_ATTEMPT, HeaderValue::from(self.number));
        if self.ledger.is_grpc() {
            headers.insert(GRPC_PREVIOUS, HeaderValue::from(self.number - 1));
        }
    }

    /// Nothing more is tried. Where that is for want of attempts or room, it would be wrong to try on this side of us either.
    fn given_up(&self, skipped: Skipped, mut result: Outcome) -> Outcome {
        let spent = match skipped {
            Skipped::Attempts | Skipped::Budget | Skipped::MaxRetries | Skipped::RetriedBelow => true,
            // Whoever tried again on the other side would come back to us.
            Skipped::Overload => true,
            Skipped::NotIdempotent | Skipped::BodyTooLarge | Skipped::Deadline | Skipped::RetryAfter => false,
        };
        if spent {
            let made = HeaderValue::from(self.ledger.trip().attempts());
            match &mut result {
                // Who has said so already tried more often than we did.
                Ok(response) => {
                    response.headers_mut().entry(X_OUTRIGGER_RETRIED).or_insert(made);
                }
                Err(_) => self.ledger.set_retried(made),
            }
        }
        result
    }

    /// Whether, and after which wait, another attempt may be made; it is paid for then.
    fn may_go_on(&self, made: u32, result: &Outcome) -> Result<(Duration, Counted), Skipped> {
        if result.as_ref().is_ok_and(|response| response.headers().contains_key(X_OUTRIGGER_RETRIED)) {
            return Err(Skipped::RetriedBelow);
        }
        if self.number >= policy(&self.ledger).attempts.get() {
            return Err(Skipped::Attempts);
        }
        if !self.replay.is_whole() {
            return Err(Skipped::BodyTooLarge);
        }
        let random = self.ledger.conn().worker().upstream().random();
        let mut wait = decide::wait(policy(&self.ledger).backoff, made, random);
        if let Ok(response) = result {
            wait = wait.max(decide::retry_after(response.headers(), SystemTime::now())?);
        }
        if self.ledger.deadline().is_some_and(|deadline| Instant::now() + wait >= deadline) {
            return Err(Skipped::Deadline);
        }
        self.pay().map(|permit| (wait, permit))
    }

    fn pay(&self) -> Result<Counted, Skipped> {
        let shared = self.ledger.conn().worker().shared();
        if shared.pressure.is_pressed() {
            shared.stats.shed.retries.increment(1);
            return Err(Skipped::Overload);
        }
        let (breaker, limits) = self.cluster().breaker(self.ledger.trip().priority());
        let permit = breaker.count(Limit::Retries, limits);
        let permit = permit.map_err(|_| Skipped::MaxRetries)?;
        let now = shared.epoch.elapsed();
        if breaker.budget().withdraw(self.cluster().config.retry_budget, now) {
            Ok(permit)
        } else {
            Err(Skipped::Budget)
        }
    }

    /// Begins a second attempt, if there may be one.
    fn hedge(&mut self) -> Option<Second<S::Future>> {
        let permit = match self.pay() {
            Ok(permit) => permit,
            Err(skipped) => {
                let why = if skipped == Skipped::Overload { skipped.code() } else { "hedge_budget" };
                self.cluster().live.stats().retry_skipped(why);
                return None;
            }
        };
        // It has been sent, or waits to be.
        let request = self.ledger.trip().copy_request()?;
        self.cluster().live.stats().hedges.increment(1);
        self.number += 1;
        let limit = self.limit_from(self.ledger.trip().next_begins());
        Some(Second { sending: Box::pin(self.send(request)), limit, _permit: permit })
    }

    /// When a second attempt is due: never for what must not be done twice, or has a body to be read twice at once.
    fn hedge_after(&self) -> Option<Duration> {
        let Hedge { after } = self.ledger.forward()?.hedge?;
        if !(self.idempotent || policy(&self.ledger).non_idempotent) || !self.replay.is_bodiless() {
            return None;
        }
        match after {
            HedgeAfter::Fixed(after) => Some(after),
            HedgeAfter::Percentile(percent) => self.cluster().live.latencies().percentile(percent),
        }
    }

    /// What an attempt came to.
    async fn look(&self, result: Outcome) -> (Outcome, decide::Outcome) {
        let response = match result {
            Ok(response) => response,
            Err(error) => return (Err(error), came_to(error)),
        };
        // Boxed: few look, and what they read is held meanwhile.
        let (response, grpc) =
            if self.grpc { Box::pin(peek::grpc(response)).await } else { (response, None) };
        let status = response.status();
        (Ok(response), decide::Outcome::Response { status, grpc })
    }
}

impl<S, F> Drop for Attempts<S, F> {
    fn drop(&mut self) {
        self.ledger.trip().forget_request();
    }
}

/// What the route says of attempts. For requests that are hedged and not retried, what has failed stays failed.
fn policy(ledger: &Ledger) -> &Policy {
    static NEVER: LazyLock<Policy> =
        LazyLock::new(|| Policy { attempts: NonZeroU32::MIN, conditions: Vec::new(), ..Policy::default() });
    ledger.forward().and_then(|forward| forward.retry.as_deref()).unwrap_or_else(|| &NEVER)
}

impl TryLimit {
    /// What an attempt that is under way comes to when its time is over; its endpoint is to blame then.
    fn poll(self, ledger: &Ledger, cx: &mut Context<'_>) -> Poll<Outcome> {
        if !self.until.is_some_and(|until| ledger.is_past(until, cx)) {
            return Poll::Pending;
        }
        // As long as it is under way: then it is known where.
        ledger.conn().worker().upstream().gave_up_attempt(ledger.destination().1, ledger.trip(), self.of);
        Poll::Ready(Err(UpstreamError::TooSlow.into()))
    }
}

/// Whether an attempt of two is not the one to pass on while the other is still under way.
fn is_bad(outcome: &Outcome) -> bool {
    match outcome {
        Ok(response) => response.status().is_server_error(),
        Err(_) => true,
    }
}

fn came_to(error: ProxyError) -> decide::Outcome {
    match error {
        ProxyError::Upstream(error) => match error {
            UpstreamError::ConnectRefused | UpstreamError::ConnectTimeout | UpstreamError::ConnectFailed => {
                decide::Outcome::NoConnection
            }
            UpstreamError::Tls(_) | UpstreamError::TlsHandshake => decide::Outcome::NoConnection,
            UpstreamError::Refused => decide::Outcome::NotLookedAt,
            UpstreamError::Closed | UpstreamError::Reset | UpstreamError::Protocol => {
                decide::Outcome::NoResponse
            }
            UpstreamError::TooSlow => decide::Outcome::TooSlow,
            // Nothing gets better by asking again for what is not there, or what we have no room for.
            UpstreamError::NoEndpoint | UpstreamError::NoSecret => decide::Outcome::Final,
            UpstreamError::NoOriginalDestination | UpstreamError::BadOriginalDestination => {
                decide::Outcome::Final
            }
            UpstreamError::OwnAddress | UpstreamError::TooManyEndpoints(_) => decide::Outcome::Final,
            UpstreamError::RequestBody | UpstreamError::NoTunnel => decide::Outcome::Final,
            UpstreamError::Overflow(_) | UpstreamError::NoConnectionFree(_) => decide::Outcome::Final,
        },
        _ => decide::Outcome::Final,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::layers::forward::forward;

    /// Every request carries the one, whether it may be tried again or not, and moves the other if it may: neither must grow
    /// unseen.
    #[test]
    fn what_is_known_of_attempts_stays_small() {
        fn sizes<S: Inner>(_: S) -> [usize; 3] {
            [
                size_of::<S::Future>(),
                size_of::<Attempted<S, S::Future>>(),
                size_of::<Attempts<S, S::Future>>(),
            ]
        }
        let [straight, attempted, attempts] = sizes(tower::service_fn(|call| Box::pin(forward(call))));
        assert!(attempted <= straight + 32 && attempts <= 176, "{straight} {attempted} {attempts} bytes");
    }
}
