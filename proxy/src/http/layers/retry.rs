//! A request that failed is tried again, as its route says and its cluster's budget allows; and a request that is slow
//! gets a second attempt beside the first (hedging).
//!
//! Only routes that ask for it take this road, which is boxed: the others pay a branch. An attempt ends with the head of
//! its response: once that is passed on there is no way back.

use std::future::Future;
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue, Request};
use outrigger_proto::model::{Hedge, HedgeAfter, Retry as Policy};
use tokio::time::Instant;

use super::Outcome;
use super::detour::{Detour, Fork, Inner};
use crate::body::Body;
use crate::error::ProxyError;
use crate::http::call::{Call, Ledger, Wanted};
use crate::http::headers::{X_OUTRIGGER_ATTEMPT, X_OUTRIGGER_RETRIED};
use crate::http::peek::{self, Either, race};
use crate::http::replay::Replay;
use crate::policy::retry::{self as decide, Outcome as Attempted, Skipped};
use crate::upstream::{ClusterView, Counted, Limit, UpstreamError};

/// For gRPC servers: attempts before this one (gRPC proposal A6).
const GRPC_PREVIOUS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// Whether a field says which attempt this is.
pub(super) fn is_mark(name: &HeaderName) -> bool {
    *name == X_OUTRIGGER_ATTEMPT || *name == GRPC_PREVIOUS
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct RetryFork;

impl Fork for RetryFork {
    fn send<S: Inner>(self, inner: &mut S, call: Call) -> Detour<S::Future> {
        let wanted = call.ledger.forward().is_some_and(|to| to.retry.is_some() || to.hedge.is_some());
        // A tunnel is not a request that could be repeated.
        if !wanted || call.tunnel != Wanted::Nothing {
            return Detour::straight(inner.call(call));
        }
        let Call { mut request, tunnel: _, ledger } = call;
        let attempts = Attempts::new(inner.clone(), ledger, &mut request);
        Detour::around(attempts.run(request))
    }
}

/// All that is known of a request while it is attempted.
struct Attempts<S> {
    inner: S,
    ledger: Rc<Ledger>,
    replay: Replay,
    cluster: Arc<ClusterView>,
    /// For requests that are hedged and not retried: what has failed stays failed.
    never: Option<Policy>,
    idempotent: bool,
    /// Whether gRPC statuses count.
    grpc: bool,
    /// The number of the next attempt, those of whoever asked us included.
    number: u32,
}

impl<S: Inner> Attempts<S> {
    fn new(inner: S, ledger: Rc<Ledger>, request: &mut Request<Body>) -> Self {
        let retry = ledger.forward().and_then(|forward| forward.retry.as_deref());
        let never = || Policy { attempts: NonZeroU32::MIN, conditions: Vec::new(), ..Policy::default() };
        let never = if retry.is_some() { None } else { Some(never()) };
        let policy = retry.or(never.as_ref()).expect("one or the other");
        let grpc = decide::wants_grpc(policy) && ledger.is_grpc();
        let max_body = policy.max_body;
        ledger.trip().keep();
        let marked =
            request.headers().get(X_OUTRIGGER_ATTEMPT).and_then(|mark| mark.to_str().ok()?.parse().ok());
        Self {
            inner,
            cluster: ledger.destination().1.clone(),
            never,
            idempotent: request.method().is_idempotent(),
            grpc,
            // Whoever retries this on the other side has it multiplied no further.
            number: marked.unwrap_or(1).max(1),
            replay: Replay::of(request.body_mut(), max_body),
            ledger,
        }
    }

    fn policy(&self) -> &Policy {
        let retry = self.ledger.forward().and_then(|forward| forward.retry.as_deref());
        retry.or(self.never.as_ref()).expect("one or the other")
    }

    async fn run(mut self, mut request: Box<Request<Body>>) -> Outcome {
        let mut made = 1;
        let mut permit;
        loop {
            let result = self.attempt(request).await;
            if matches!(result, Err(ProxyError::Upstream(UpstreamError::Closed)))
                && self.ledger.trip().is_stale()
            {
                // It was sent on a connection that was dead already: on a fresh one it is as good as the first time.
                let Some(again) = self.again() else { return result };
                request = again;
                self.cluster.live.stats().replays.increment(1);
                continue;
            }
            let (result, attempted) = self.look(result).await;
            let next = match decide::judge(self.policy(), attempted, self.idempotent) {
                None => return result,
                Some(Err(skipped)) => Err(skipped),
                Some(Ok(())) => self.may_go_on(made, &result),
            };
            let wait;
            (wait, permit) = match next {
                Ok(next) => next,
                Err(skipped) => {
                    self.cluster.live.stats().retry_skipped(skipped.code());
                    return self.given_up(skipped, result);
                }
            };
            // What can be tried again was sent, and so is there.
            let Some(again) = self.again() else { return result };
            request = again;
            drop(result);
            self.ledger.set_flight(None);
            tokio::time::sleep(wait).await;
            self.cluster.live.stats().retries.increment(1);
            self.ledger.set_retry(permit);
            made += 1;
            self.number += 1;
        }
    }

    /// The request once more, as it was sent.
    fn again(&self) -> Option<Box<Request<Body>>> {
        let mut request = self.ledger.trip().take_request()?;
        *request.body_mut() = self.replay.body();
        Some(request)
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
        if self.number >= self.policy().attempts.get() {
            return Err(Skipped::Attempts);
        }
        if !self.replay.is_whole() {
            return Err(Skipped::BodyTooLarge);
        }
        let random = self.ledger.conn().worker().upstream().random();
        let mut wait = decide::wait(self.policy().backoff, made, random);
        if let Ok(response) = result {
            wait = wait.max(decide::retry_after(response.headers(), SystemTime::now())?);
        }
        if self.ledger.deadline().at().is_some_and(|deadline| Instant::now() + wait >= deadline) {
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
        let (breaker, limits) = self.cluster.breaker(self.ledger.trip().priority());
        let permit = breaker.count(Limit::Retries, limits);
        let permit = permit.map_err(|_| Skipped::MaxRetries)?;
        let now = shared.epoch.elapsed();
        if breaker.budget().withdraw(self.cluster.config.retry_budget, now) {
            Ok(permit)
        } else {
            Err(Skipped::Budget)
        }
    }

    /// One attempt, with another one beside it when it takes long.
    async fn attempt(&mut self, request: Box<Request<Body>>) -> Outcome {
        let began = Instant::now();
        let place = self.next_place();
        let first = self.send(request);
        let limit = self.policy().per_try_timeout;
        let after = self.hedge_after().filter(|after| limit.is_none_or(|limit| *after < limit));
        let Some(after) = after else {
            return within(limit.map(|limit| began + limit), first, (&self.ledger, place)).await;
        };
        let mut first = first;
        let ledger = self.ledger.clone();
        let woken = ledger.deadline().woken_by(began + after);
        let outcome = tokio::time::timeout_at(began + after, &mut first).await;
        drop(woken);
        match outcome {
            Ok(outcome) => outcome,
            // Boxed: few get here.
            Err(_) => Box::pin(self.hedge((first, place), limit.map(|limit| began + limit))).await,
        }
    }

    /// Goes on with an attempt, and with another one beside it.
    async fn hedge(&mut self, (first, place): (Pin<Box<S::Future>>, u32), until: Option<Instant>) -> Outcome {
        let ledger = self.ledger.clone();
        let mut first = pin!(within(until, first, (&ledger, place)));
        let _permit = match self.pay() {
            Ok(permit) => permit,
            Err(skipped) => {
                let why = if skipped == Skipped::Overload { skipped.code() } else { "hedge_budget" };
                self.cluster.live.stats().retry_skipped(why);
                return first.await;
            }
        };
        // It has been sent, or waits to be.
        let Some(request) = ledger.trip().copy_request() else { return first.await };
        self.cluster.live.stats().hedges.increment(1);
        self.number += 1;
        let place = self.next_place();
        let second = self.send(request);
        let until = self.policy().per_try_timeout.map(|limit| Instant::now() + limit);
        let mut second = pin!(within(until, second, (&ledger, place)));
        // The first of them that is good counts; where one fails, the other may still be.
        match race(first.as_mut(), second.as_mut()).await {
            Either::First(outcome) if is_bad(&outcome) => second.await,
            Either::Second(outcome) if is_bad(&outcome) => first.await,
            Either::First(outcome) | Either::Second(outcome) => outcome,
        }
    }

    /// When a second attempt is due: never for what must not be done twice, or has a body to be read twice at once.
    fn hedge_after(&self) -> Option<Duration> {
        let Hedge { after } = self.ledger.forward()?.hedge?;
        if !(self.idempotent || self.policy().non_idempotent) || !self.replay.is_bodiless() {
            return None;
        }
        match after {
            HedgeAfter::Fixed(after) => Some(after),
            HedgeAfter::Percentile(percent) => self.cluster.live.latencies().percentile(percent),
        }
    }

    /// The number that the next attempt is going to have among ours.
    fn next_place(&self) -> u32 {
        self.ledger.trip().attempts() + 1
    }

    /// Boxed, so that nothing that waits for it is large.
    fn send(&mut self, mut request: Box<Request<Body>>) -> Pin<Box<S::Future>> {
        if self.number > 1 {
            let headers = request.headers_mut();
            headers.insert(X_OUTRIGGER_ATTEMPT, HeaderValue::from(self.number));
            if self.ledger.is_grpc() {
                headers.insert(GRPC_PREVIOUS, HeaderValue::from(self.number - 1));
            }
        }
        let call = Call { request, tunnel: Wanted::Nothing, ledger: self.ledger.clone() };
        Box::pin(self.inner.call(call))
    }

    /// What an attempt came to.
    async fn look(&self, result: Outcome) -> (Outcome, Attempted) {
        let response = match result {
            Ok(response) => response,
            Err(error) => return (Err(error), attempted(error)),
        };
        // Boxed: few look, and what they read is held meanwhile.
        let (response, grpc) =
            if self.grpc { Box::pin(peek::grpc(response)).await } else { (response, None) };
        let status = response.status();
        (Ok(response), Attempted::Response { status, grpc })
    }
}

impl<S> Drop for Attempts<S> {
    fn drop(&mut self) {
        self.ledger.trip().forget_request();
    }
}

/// An attempt, given up by then; its endpoint is to blame. `place` is the attempt's number among ours.
async fn within<F>(
    until: Option<Instant>,
    mut sending: Pin<Box<F>>,
    (ledger, place): (&Ledger, u32),
) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let Some(until) = until else { return sending.await };
    let _woken = ledger.deadline().woken_by(until);
    if let Ok(outcome) = tokio::time::timeout_at(until, &mut sending).await {
        return outcome;
    }
    // As long as it is under way: then it is known where.
    ledger.conn().worker().upstream().gave_up_attempt(ledger.destination().1, ledger.trip(), place);
    Err(UpstreamError::TooSlow.into())
}

/// Whether an attempt of two is not the one to pass on while the other is still under way.
fn is_bad(outcome: &Outcome) -> bool {
    match outcome {
        Ok(response) => response.status().is_server_error(),
        Err(_) => true,
    }
}

fn attempted(error: ProxyError) -> Attempted {
    match error {
        ProxyError::Upstream(error) => match error {
            UpstreamError::ConnectRefused | UpstreamError::ConnectTimeout | UpstreamError::ConnectFailed => {
                Attempted::NoConnection
            }
            UpstreamError::Tls(_) | UpstreamError::TlsHandshake => Attempted::NoConnection,
            UpstreamError::Refused => Attempted::NotLookedAt,
            UpstreamError::Closed | UpstreamError::Reset | UpstreamError::Protocol => Attempted::NoResponse,
            UpstreamError::TooSlow => Attempted::TooSlow,
            // Nothing gets better by asking again for what is not there, or what we have no room for.
            UpstreamError::NoEndpoint | UpstreamError::NoSecret => Attempted::Final,
            UpstreamError::NoOriginalDestination | UpstreamError::BadOriginalDestination => Attempted::Final,
            UpstreamError::OwnAddress | UpstreamError::TooManyEndpoints(_) => Attempted::Final,
            UpstreamError::RequestBody | UpstreamError::NoTunnel => Attempted::Final,
            UpstreamError::Overflow(_) | UpstreamError::NoConnectionFree(_) => Attempted::Final,
        },
        _ => Attempted::Final,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::layers::forward::forward;

    /// It is moved whenever a request takes this road: it must not grow unseen.
    #[test]
    fn the_future_of_attempts_stays_small() {
        fn size<S, F: Future>(_: &S, _: impl Fn(Attempts<S>) -> F) -> usize {
            size_of::<F>()
        }
        let size =
            size(&tower::service_fn(forward), |attempts| attempts.run(Box::new(Request::new(Body::empty()))));
        assert!(size <= 1600, "{size} bytes");
    }
}
