//! The route's timeout: from the request's head to the last byte of its answer. A route without one has no timer.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::Response;
use outrigger_proto::model::Action;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::Outcome;
use crate::body::Body;
use crate::error::ProxyError;
use crate::http::call::{Call, Ledger};

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
        let timeout = match call.ledger.route().map(|route| &route.action) {
            Some(Action::Forward(forward)) => forward.timeout,
            Some(Action::Redirect(_) | Action::Respond(_)) | None => None,
        };
        let ledger = timeout.map(|timeout| {
            call.ledger.set_deadline(call.ledger.trip().started() + timeout);
            call.ledger.clone()
        });
        Timed { inner: self.inner.call(call), ledger }
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
            Some(ledger) if ledger.is_late(cx) => Poll::Ready(Err(ProxyError::Timeout)),
            Some(_) | None => Poll::Pending,
        }
    }
}
