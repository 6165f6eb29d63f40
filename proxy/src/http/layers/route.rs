//! The route that takes a request.

use std::task::{Context, Poll};

use http::Response;
use tower::{Layer, Service};

use super::Admitted;
use crate::body::Body;
use crate::error::ProxyError;
use crate::facts::ReqHead;
use crate::http::call::Call;
use crate::http::headers;

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
                Admitted::on(self.inner.call(call))
            }
            None => Admitted::off(ProxyError::NoRoute),
        }
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
