//! Under the worst pressure a request is answered before anything is spent on it.

use std::task::{Context, Poll};

use http::Response;
use tower::{Layer, Service};

use super::Admitted;
use crate::body::Body;
use crate::error::ProxyError;
use crate::http::call::Call;
use crate::overload::Level;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct ShedLayer;

impl<S> Layer<S> for ShedLayer {
    type Service = Shed<S>;

    fn layer(&self, inner: S) -> Shed<S> {
        Shed { inner }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Shed<S> {
    inner: S,
}

impl<S: Service<Call, Response = Response<Body>, Error = ProxyError>> Service<Call> for Shed<S> {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Admitted<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Admitted<S::Future> {
        if call.ledger.conn().worker().shared().pressure.sheds(Level::Requests) {
            return Admitted::off(ProxyError::Overloaded);
        }
        Admitted::on(self.inner.call(call))
    }
}
