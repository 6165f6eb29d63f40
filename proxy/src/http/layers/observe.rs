//! Every request is answered, and its figures are recorded: errors become answers here, and bodies are counted.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{Outcome, authenticate, rate_limit};
use crate::body::{Body, Side, text};
use crate::error::{Answer, ProxyError};
use crate::http::call::{Call, Ledger};
use crate::http::headers::X_OUTRIGGER_RETRIED;
use crate::watch::Leaving;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct ObserveLayer;

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe { inner }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Observe<S> {
    inner: S,
}

impl<S: Service<Call, Response = Response<Body>, Error = ProxyError>> Service<Call> for Observe<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Observed<S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Observed<S::Future> {
        let ledger = call.ledger.clone();
        let form = Form { grpc: ledger.is_grpc(), head: call.request.method() == Method::HEAD };
        Observed { inner: self.inner.call(call), ledger, form }
    }
}

/// What an answer of ours must look like for this caller.
#[derive(Clone, Copy, Debug)]
struct Form {
    grpc: bool,
    head: bool,
}

pin_project! {
    /// See the module.
    #[derive(Debug)]
    pub struct Observed<F> {
        #[pin]
        inner: F,
        ledger: Rc<Ledger>,
        form: Form,
    }
}

impl<F: Future<Output = Outcome>> Future for Observed<F> {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match ready!(this.inner.poll(cx)) {
            Ok(response) => response,
            Err(error) => {
                // A body that broke off knows better why than whoever was sending it.
                this.ledger.set_error(error);
                // What we say instead is not late.
                this.ledger.set_deadline(None);
                let mut response = reply(this.ledger.error().unwrap_or(error), this.form.grpc);
                if let Some(attempts) = this.ledger.take_retried() {
                    response.headers_mut().insert(X_OUTRIGGER_RETRIED, attempts);
                }
                rate_limit::refuse(this.ledger, response.headers_mut());
                response
            }
        };
        this.ledger.set_status(response.status());
        this.ledger.take_changes().into_iter().for_each(|change| change.apply(response.headers_mut()));
        let conn = this.ledger.conn();
        let shared = conn.worker().shared();
        let is_last = conn.watch().is_unwelcome() || conn.is_gone();
        if shared.leaving() != Leaving::No || shared.pressure.is_pressed() || is_last {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if this.form.head {
            *response.body_mut() = Body::empty();
        }
        let ledger = this.ledger.clone();
        Poll::Ready(Ok(response.map(|body| body.metered(ledger, Side::Response))))
    }
}

/// The answer to a request that no upstream answered.
fn reply(error: ProxyError, grpc: bool) -> Response<Body> {
    let Answer { status, grpc: code, flag: _, reason } = error.answer();
    let mut response = if grpc {
        // A trailers-only answer (gRPC over HTTP/2): the status stands in the head, and there is no body.
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(code as u16));
        let message = HeaderValue::try_from(format!("outrigger: {error}"));
        headers.insert("grpc-message", message.unwrap_or(HeaderValue::from_static("outrigger")));
        response
    } else {
        text(status, Bytes::from(format!("outrigger: {error}\n")))
    };
    if error == ProxyError::Overloaded {
        // Long enough to be looked at anew, short enough to miss nothing.
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if let ProxyError::Unauthenticated(error) = error {
        authenticate::challenge(error, response.headers_mut());
    }
    response.headers_mut().insert("x-outrigger-reason", HeaderValue::from_static(reason));
    if status == StatusCode::BAD_REQUEST || status == StatusCode::PAYLOAD_TOO_LARGE {
        // What is left of the request is not worth reading.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
