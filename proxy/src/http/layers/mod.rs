//! The parts of the stack, each named after what it takes care of. A layer wraps; what is to be decided, a plain
//! function decides.

pub mod admit;
pub mod authenticate;
pub mod authorize;
pub mod check;
pub mod concurrency;
pub mod edit;
pub mod external_authorization;
pub mod fallback;
pub mod fault;
pub mod forward;
pub mod global_rate_limit;
pub mod mirror;
pub mod observe;
pub mod rate_limit;
pub mod retry;
pub mod route;
pub mod stale;
pub mod timeout;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use pin_project_lite::pin_project;

use crate::body::Body;
use crate::error::ProxyError;

/// What a layer of the stack comes to.
pub type Outcome = Result<Response<Body>, ProxyError>;

pin_project! {
    /// The common road through a layer, or a rare one that is boxed so that the common one stays small.
    pub struct Detour<F> {
        #[pin]
        straight: Option<F>,
        around: Option<Pin<Box<dyn Future<Output = Outcome>>>>,
    }
}

impl<F> Detour<F> {
    /// The common road.
    fn straight(inner: F) -> Self {
        Self { straight: Some(inner), around: None }
    }

    /// The rare one.
    fn around(inner: impl Future<Output = Outcome> + 'static) -> Self {
        Self { straight: None, around: Some(Box::pin(inner)) }
    }
}

impl<F: Future<Output = Outcome>> Future for Detour<F> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.project();
        match this.straight.as_pin_mut() {
            Some(inner) => inner.poll(cx),
            None => this.around.as_mut().expect("a request takes one road or the other").as_mut().poll(cx),
        }
    }
}

impl<F> std::fmt::Debug for Detour<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Detour").field("around", &self.around.is_some()).finish()
    }
}
