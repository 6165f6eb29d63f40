//! The layer of whatever few requests need. The others go straight on, and pay a branch; those whose outcome alone is looked at
//! go straight on as well.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::Outcome;
use crate::body::Body;
use crate::error::ProxyError;
use crate::http::call::Call;

/// What is further in: it is cloned for the requests that have to keep it for a while.
pub trait Inner: Service<Call, Response = Response<Body>, Error = ProxyError> + Clone + 'static {}

impl<S: Service<Call, Response = Response<Body>, Error = ProxyError> + Clone + 'static> Inner for S {}

/// Where the roads part.
pub trait Fork: Copy {
    /// Sends a request on its road.
    fn send<S: Inner>(self, inner: &mut S, call: Call) -> Detour<S::Future>;
}

/// Sends each request on the road that a [`Fork`] says.
#[derive(Clone, Copy, Debug)]
pub struct DetourLayer<F>(F);

impl<F: Fork> DetourLayer<F> {
    /// The layer of this fork.
    pub fn new(fork: F) -> Self {
        Self(fork)
    }
}

impl<S, F: Copy> Layer<S> for DetourLayer<F> {
    type Service = Forked<S, F>;

    fn layer(&self, inner: S) -> Forked<S, F> {
        Forked { inner, fork: self.0 }
    }
}

/// See [`DetourLayer`].
#[derive(Clone, Debug)]
pub struct Forked<S, F> {
    inner: S,
    fork: F,
}

impl<S: Inner, F: Fork> Service<Call> for Forked<S, F> {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Detour<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Detour<S::Future> {
        self.fork.send(&mut self.inner, call)
    }
}

pin_project! {
    /// The common road through a layer, or a rare one that is boxed so that the common one stays small.
    pub struct Detour<F> {
        #[pin]
        straight: Option<F>,
        beside: Beside,
    }
}

/// What a request takes with it, or instead.
enum Beside {
    Nothing,
    /// The rare road.
    Around(Pin<Box<dyn Future<Output = Outcome>>>),
    /// What its outcome becomes.
    After(Box<dyn FnOnce(Outcome) -> Outcome>),
}

impl<F> Detour<F> {
    /// The common road.
    pub fn straight(inner: F) -> Self {
        Self { straight: Some(inner), beside: Beside::Nothing }
    }

    /// The common road, with a look at what it comes to. `after` is dropped with a request that comes to nothing.
    pub fn then(inner: F, after: impl FnOnce(Outcome) -> Outcome + 'static) -> Self {
        Self { straight: Some(inner), beside: Beside::After(Box::new(after)) }
    }

    /// The rare one.
    pub fn around(inner: impl Future<Output = Outcome> + 'static) -> Self {
        Self { straight: None, beside: Beside::Around(Box::pin(inner)) }
    }
}

impl<F: Future<Output = Outcome>> Future for Detour<F> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.project();
        let Some(inner) = this.straight.as_pin_mut() else {
            let Beside::Around(road) = this.beside else {
                unreachable!("a request takes one road or the other")
            };
            return road.as_mut().poll(cx);
        };
        let outcome = ready!(inner.poll(cx));
        Poll::Ready(match std::mem::replace(this.beside, Beside::Nothing) {
            Beside::After(after) => after(outcome),
            Beside::Nothing | Beside::Around(_) => outcome,
        })
    }
}

impl<F> fmt::Debug for Detour<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detour")
            .field("around", &matches!(self.beside, Beside::Around(_)))
            .finish_non_exhaustive()
    }
}
