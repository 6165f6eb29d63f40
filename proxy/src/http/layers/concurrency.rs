//! How many requests of a route are under way at once, until the last byte of their answer. A request that finds it full
//! waits for its turn, but never past its own deadline. Of a limit that follows the latency, this is also where it is
//! measured: from being let in to the head of the answer.

use std::task::{Context, Poll};

use http::Response;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::{Detour, Outcome};
use crate::body::Body;
use crate::error::ProxyError;
use crate::gate::{Call as Turn, Entry, Waiting};
use crate::http::call::{Call, Ledger};
use crate::http::caller::Caller;
use crate::http::layers::timeout;
use crate::policy::bulkhead::Bulkhead;
use crate::upstream::UpstreamError;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct ConcurrencyLayer;

impl<S> Layer<S> for ConcurrencyLayer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Limited<S> {
    inner: S,
}

impl<S> Service<Call> for Limited<S>
where
    S: Service<Call, Response = Response<Body>, Error = ProxyError> + Clone + 'static,
{
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Detour<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Detour<S::Future> {
        let Some(bulkhead) = bulkhead(&call.ledger) else { return Detour::straight(self.inner.call(call)) };
        let caller = Caller::of(&call, &bulkhead.config().per);
        match bulkhead.enter(caller.key(), call.ledger.conn().worker().id()) {
            Entry::In(permit) => {
                call.ledger.set_place(permit);
                if bulkhead.is_adaptive() {
                    return Detour::around(measured(self.inner.clone(), call));
                }
                Detour::straight(self.inner.call(call))
            }
            Entry::Full => {
                let error = ProxyError::Crowded(bulkhead.crowd(caller.key()));
                Detour::around(std::future::ready(Err(error)))
            }
            Entry::Line(waiting) => Detour::around(in_line(self.inner.clone(), call, waiting)),
        }
    }
}

fn bulkhead(ledger: &Ledger) -> Option<&Bulkhead> {
    ledger.limits()?.concurrency.as_deref()
}

async fn in_line<S>(inner: S, call: Call, waiting: Waiting) -> Outcome
where
    S: Service<Call, Response = Response<Body>, Error = ProxyError>,
{
    let bulkhead = bulkhead(&call.ledger).expect("looked at before");
    let end = Instant::now() + bulkhead.config().wait;
    let late = timeout::deadline(&call).filter(|deadline| *deadline < end);
    match tokio::time::timeout_at(late.unwrap_or(end), waiting).await {
        Ok(Turn::In(permit)) => {
            call.ledger.set_place(permit);
            call.ledger.trip().held_up(Instant::now());
        }
        // Nothing is ever handed over here.
        Ok(Turn::Look) => {}
        Err(_) if late.is_some() => return Err(ProxyError::Timeout),
        Err(_) => {
            let caller = Caller::of(&call, &bulkhead.config().per);
            return Err(ProxyError::WaitedTooLong(bulkhead.crowd(caller.key())));
        }
    }
    measured(inner, call).await
}

/// A request that has been let in. A limit that follows the latency is told what its answer took.
async fn measured<S>(mut inner: S, call: Call) -> Outcome
where
    S: Service<Call, Response = Response<Body>, Error = ProxyError>,
{
    let (ledger, began) = (call.ledger.clone(), Instant::now());
    // Boxed, as it is moved with the future around it.
    let outcome = Box::pin(inner.call(call)).await;
    if let Some(bulkhead) = bulkhead(&ledger)
        && is_telling(&outcome)
        && ledger.is_plain()
    {
        bulkhead.answered(began.elapsed(), ledger.conn().worker().shared().epoch.elapsed());
    }
    outcome
}

/// Whether an outcome says how much there is to do. Failures do not: they come faster than answers, or later.
fn is_telling(outcome: &Outcome) -> bool {
    match outcome {
        Ok(response) => !response.status().is_server_error(),
        Err(ProxyError::Timeout | ProxyError::Upstream(UpstreamError::TooSlow)) => true,
        Err(_) => false,
    }
}
