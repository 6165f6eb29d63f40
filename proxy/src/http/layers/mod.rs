//! The parts of the stack, each named after what it takes care of. A layer wraps; what is to be decided, a plain
//! function decides.

pub mod admit;
pub mod edit;
pub mod forward;
pub mod observe;
pub mod route;
pub mod timeout;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use pin_project_lite::pin_project;

use super::error::ProxyError;
use crate::body::Body;

/// What a layer of the stack comes to.
pub type Outcome = Result<Response<Body>, ProxyError>;

pin_project! {
    /// A request that goes on, or one that was refused on the way.
    #[project = AdmittedProjection]
    #[derive(Debug)]
    pub enum Admitted<F> {
        /// It goes on.
        On { #[pin] inner: F },
        /// It ends here.
        Off { error: ProxyError },
    }
}

impl<F: Future<Output = Outcome>> Future for Admitted<F> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        match self.project() {
            AdmittedProjection::On { inner } => inner.poll(cx),
            AdmittedProjection::Off { error } => Poll::Ready(Err(*error)),
        }
    }
}
