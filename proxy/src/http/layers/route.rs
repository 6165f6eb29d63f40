//! The route that takes a request.

use std::task::{Context, Poll};

use http::Response;
use tower::{Layer, Service};

use super::Admitted;
use crate::body::Body;
use crate::error::ProxyError;
use crate::facts::ReqHead;
use crate::http::call::{Call, Ledger};
use crate::http::headers;
use crate::routing::pick_target;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct RouteLayer;

impl<S> Layer<S> for RouteLayer {
    type Service = Routed<S>;

    fn layer(&self, inner: S) -> Routed<S> {
        Routed { inner }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Routed<S> {
    inner: S,
}

impl<S: Service<Call, Response = Response<Body>, Error = ProxyError>> Service<Call> for Routed<S> {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Admitted<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Admitted<S::Future> {
        match find(&call) {
            Some(position) => {
                call.ledger.set_route(position);
                choose(&call.ledger);
                Admitted::on(self.inner.call(call))
            }
            None => Admitted::off(ProxyError::NoRoute),
        }
    }
}

/// Once for a request: what is tried again is tried where it was sent.
fn choose(ledger: &Ledger) {
    if let Some(forward) = ledger.forward()
        && forward.to.targets.len() > 1
    {
        ledger.set_share(pick_target(&forward.to, ledger.conn().worker().upstream().random()));
    }
}

fn find(call: &Call) -> Option<usize> {
    let request = &call.request;
    let head = ReqHead {
        host: headers::host(request)?,
        path: request.uri().path(),
        query: request.uri().query(),
        method: request.method(),
        headers: request.headers(),
    };
    call.ledger.http().1.find(&head)
}
