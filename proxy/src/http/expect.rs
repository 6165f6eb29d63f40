//! `expect: 100-continue` (RFC 9110 section 10.1.1): the upstream decides whether it wants the body, and the client is
//! told to go on only when it does. The client is told as soon as the body is first asked for; so it is not asked for before.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::body::{Body, BodyError};
use crate::upstream::Expected;

/// An upstream that does not know the expectation says nothing; after this long the body is sent all the same.
const PATIENCE: Duration = Duration::from_secs(1);

/// Makes the body of a request that expects a `100` wait for it.
pub fn prepare(request: &mut Request<Body>) {
    if !request.headers().contains_key(header::EXPECT) {
        return;
    }
    if request.version() == Version::HTTP_2 || request.body().is_end_stream() {
        request.headers_mut().remove(header::EXPECT);
        return;
    }
    let (expected, gate) = Expected::new();
    request.extensions_mut().insert(expected);
    let body = std::mem::replace(request.body_mut(), Body::empty());
    let gate = Gate::Waiting(gate, Box::pin(tokio::time::sleep(PATIENCE)));
    *request.body_mut() = Body::source(Box::pin(Gated { body, gate }));
}

struct Gated {
    body: Body,
    gate: Gate,
}

enum Gate {
    Waiting(oneshot::Receiver<()>, Pin<Box<Sleep>>),
    Open,
    /// The upstream has given its final answer: it does not want the body.
    Shut,
}

impl Gate {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Waiting(told, patience) = self {
            *self = match Pin::new(told).poll(cx) {
                Poll::Ready(Ok(())) => Self::Open,
                Poll::Ready(Err(_)) => Self::Shut,
                Poll::Pending if patience.as_mut().poll(cx).is_ready() => Self::Open,
                Poll::Pending => return Poll::Pending,
            };
        }
        match self {
            Self::Open => Poll::Ready(()),
            Self::Waiting(..) | Self::Shut => Poll::Pending,
        }
    }
}

impl http_body::Body for Gated {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        ready!(this.gate.poll(cx));
        Pin::new(&mut this.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
