//! The layer of whatever looks at a request once, on its way in, and lets it go on or refuses it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::Outcome;
use crate::body::Body;
use crate::error::ProxyError;
use crate::http::call::Call;

/// Holds each request against a check, a plain function: what it returns an error for ends here.
#[derive(Clone, Copy, Debug)]
pub struct CheckLayer<C>(C);

impl<C: Fn(&mut Call) -> Result<(), ProxyError>> CheckLayer<C> {
    /// The layer of this check.
    pub fn new(check: C) -> Self {
        Self(check)
    }
}

impl<S, C: Clone> Layer<S> for CheckLayer<C> {
    type Service = Check<S, C>;

    fn layer(&self, inner: S) -> Check<S, C> {
        Check { inner, check: self.0.clone() }
    }
}

/// See [`CheckLayer`].
#[derive(Clone, Debug)]
pub struct Check<S, C> {
    inner: S,
    check: C,
}

impl<S, C> Service<Call> for Check<S, C>
where
    S: Service<Call, Response = Response<Body>, Error = ProxyError>,
    C: Fn(&mut Call) -> Result<(), ProxyError>,
{
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Checked<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut call: Call) -> Checked<S::Future> {
        match (self.check)(&mut call) {
            Ok(()) => Checked { on: Some(self.inner.call(call)), off: None },
            Err(error) => Checked { on: None, off: Some(error) },
        }
    }
}

pin_project! {
    /// A request that goes on, or one that was refused on the way.
    #[derive(Debug)]
    pub struct Checked<F> {
        #[pin]
        on: Option<F>,
        off: Option<ProxyError>,
    }
}

impl<F: Future<Output = Outcome>> Future for Checked<F> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.project();
        match this.on.as_pin_mut() {
            Some(inner) => inner.poll(cx),
            None => Poll::Ready(Err(this.off.expect("a request goes on, or it does not"))),
        }
    }
}
