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

use crate::body::Body;
use crate::error::ProxyError;

/// What a layer of the stack comes to.
pub type Outcome = Result<Response<Body>, ProxyError>;

pin_project! {
    /// A request that goes on, or one that was refused on the way.
    #[derive(Debug)]
    pub struct Admitted<F> {
        #[pin]
        on: Option<F>,
        off: Option<ProxyError>,
    }
}

impl<F> Admitted<F> {
    /// It goes on.
    fn on(inner: F) -> Self {
        Self { on: Some(inner), off: None }
    }

    /// It ends here.
    fn off(error: ProxyError) -> Self {
        Self { on: None, off: Some(error) }
    }
}

impl<F: Future<Output = Outcome>> Future for Admitted<F> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.project();
        match this.on.as_pin_mut() {
            Some(inner) => inner.poll(cx),
            None => Poll::Ready(Err(this.off.expect("a request goes on, or it does not"))),
        }
    }
}
