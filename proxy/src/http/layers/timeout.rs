//! The request's deadline: the route's timeout, or what a gRPC caller grants (`grpc-timeout`), whichever is nearer. From
//! the request's head to the last byte of its answer. A request without one has no timer.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use outrigger_proto::model::Name;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::Outcome;
use crate::body::Body;
use crate::error::ProxyError;
use crate::http::call::{Call, Ledger};
use crate::policy::deadline as grpc;
use crate::upstream::CallError;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutLayer;

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout { inner }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Timeout<S> {
    inner: S,
}

impl<S: Service<Call, Response = Response<Body>, Error = ProxyError>> Service<Call> for Timeout<S> {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Timed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Timed<S::Future> {
        let ledger = deadline(&call).map(|at| {
            call.ledger.set_deadline(Some(at));
            call.ledger.clone()
        });
        Timed { inner: self.inner.call(call), ledger }
    }
}

/// When the last byte of a request's answer is due, if ever: for whoever holds it up on the way here, too.
pub fn deadline(call: &Call) -> Option<Instant> {
    let granted = || call.ledger.is_grpc().then(|| grpc::asked(call.request.headers()))?;
    let forward = call.ledger.forward()?;
    let whole = match (forward.timeout, granted()) {
        (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
        (ours, theirs) => ours.or(theirs),
    };
    whole.map(|whole| call.ledger.trip().started() + whole)
}

/// How long something may take that a request waits for: as long as it is given, or as the request has left; whether it
/// is the latter.
pub fn patience(call: &Call, given: Duration) -> (Duration, bool) {
    let left = deadline(call).map(|at| at.saturating_duration_since(Instant::now()));
    match left {
        Some(left) if left < given => (left, true),
        Some(_) | None => (given, false),
    }
}

/// What a service that was asked for so long has decided; `None` when it decides nothing, and the request's own time is
/// not what has run out.
pub fn decided<T>(
    answer: Result<Option<T>, CallError>,
    own: bool,
    cluster: &Name,
) -> Result<Option<T>, ProxyError> {
    match answer {
        Ok(decision) => Ok(decision),
        Err(CallError::Late) if own => Err(ProxyError::Timeout),
        Err(error) => {
            tracing::debug!(%cluster, %error, "no decision of the service that was asked");
            Ok(None)
        }
    }
}

pin_project! {
    /// See the module.
    #[derive(Debug)]
    pub struct Timed<F> {
        #[pin]
        inner: F,
        // Present when there is a deadline; it goes on to hold for the answer's body.
        ledger: Option<Rc<Ledger>>,
    }
}

impl<F: Future<Output = Outcome>> Future for Timed<F> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.project();
        if let Poll::Ready(outcome) = this.inner.poll(cx) {
            return Poll::Ready(outcome);
        }
        match this.ledger {
            Some(ledger) if ledger.is_late(cx) => {
                ledger.conn().worker().upstream().gave_up(ledger.destination().1, ledger.trip());
                Poll::Ready(Err(ProxyError::Timeout))
            }
            Some(_) | None => Poll::Pending,
        }
    }
}
