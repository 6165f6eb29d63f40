//! How many requests of a route are under way at once, until the last byte of their answer. A request that finds it full
//! waits for its turn, but never past its own deadline.

use std::task::{Context, Poll};
use std::time::Duration;

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
        let max = bulkhead.config().max.get();
        let caller = Caller::of(&call, &bulkhead.config().per);
        match bulkhead.enter(caller.key(), call.ledger.conn().worker().id()) {
            (Entry::In(permit), _) => {
                call.ledger.set_place(permit);
                Detour::straight(self.inner.call(call))
            }
            (Entry::Full, seen) => {
                let error = ProxyError::Crowded { max, seen: seen.saturating_add(1) };
                Detour::around(std::future::ready(Err(error)))
            }
            (Entry::Line(waiting), _) => {
                let wait = bulkhead.config().wait;
                Detour::around(in_line(self.inner.clone(), call, waiting, (wait, max)))
            }
        }
    }
}

fn bulkhead(ledger: &Ledger) -> Option<&Bulkhead> {
    ledger.limits()?.concurrency.as_deref()
}

async fn in_line<S>(mut inner: S, call: Call, waiting: Waiting, (wait, max): (Duration, u32)) -> Outcome
where
    S: Service<Call, Response = Response<Body>, Error = ProxyError>,
{
    let end = Instant::now() + wait;
    let late = timeout::deadline(&call).filter(|deadline| *deadline < end);
    match tokio::time::timeout_at(late.unwrap_or(end), waiting).await {
        Ok(Turn::In(permit)) => {
            call.ledger.set_place(permit);
            call.ledger.trip().held_up(Instant::now());
        }
        // Nothing is ever handed over here.
        Ok(Turn::Look) => {}
        Err(_) if late.is_some() => return Err(ProxyError::Timeout),
        Err(_) => return Err(ProxyError::WaitedTooLong { max }),
    }
    Box::pin(inner.call(call)).await
}
