//! Failures made on purpose: a request is held up, or answered in place of the upstream.
//!
//! What is held up spends its deadline meanwhile, as it would with an upstream that is slow: a delay that is
//! longer ends in the answer of a timeout, and the upstream sees nothing of it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use outrigger_proto::model::AbortWith;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::{Layer, Service};

use super::{Outcome, timeout};
use crate::body::Body;
use crate::error::ProxyError;
use crate::http::call::Call;
use crate::policy::fault::{Injection, decide};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct FaultLayer;

impl<S> Layer<S> for FaultLayer {
    type Service = Faults<S>;

    fn layer(&self, inner: S) -> Faults<S> {
        Faults { inner }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Faults<S> {
    inner: S,
}

impl<S> Service<Call> for Faults<S>
where
    S: Service<Call, Response = Response<Body>, Error = ProxyError> + Clone,
{
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Faulted<S, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Faulted<S, S::Future> {
        match inject(&call) {
            Injection { delay: None, abort: None } => Faulted::on(self.inner.call(call)),
            Injection { delay: None, abort: Some(with) } => Faulted::off(abort(&call, with)),
            Injection { delay: Some(delay), abort } => {
                count(&call, "delay");
                call.ledger.set_delayed();
                let end = call.ledger.trip().started() + delay;
                let late = timeout::deadline(&call).filter(|deadline| *deadline <= end);
                let sleep = sleep_until(late.unwrap_or(end));
                let next = if late.is_some() { Next::Late } else { Next::Goes { abort } };
                Faulted::held(Held { sleep, next, call: Some(call), service: self.inner.clone() })
            }
        }
    }
}

fn inject(call: &Call) -> Injection {
    match call.ledger.route().and_then(|route| route.fault.as_deref()) {
        None => Injection::default(),
        Some(fault) => {
            let upstream = call.ledger.conn().worker().upstream();
            decide(fault, call.request.headers(), || upstream.random())
        }
    }
}

fn abort(call: &Call, with: AbortWith) -> ProxyError {
    count(call, "abort");
    ProxyError::FaultAbort(with)
}

fn count(call: &Call, kind: &'static str) {
    call.ledger.view().state.stats.fault(kind);
}

pin_project! {
    /// See the module.
    #[derive(Debug)]
    pub struct Faulted<S, F> {
        #[pin]
        on: Option<F>,
        off: Option<ProxyError>,
        // Boxed: few are held up, and all would carry it.
        held: Option<Pin<Box<Held<S>>>>,
    }
}

pin_project! {
    #[derive(Debug)]
    struct Held<S> {
        #[pin]
        sleep: Sleep,
        next: Next,
        call: Option<Call>,
        service: S,
    }
}

/// What becomes of a request that was held up.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// It goes on, or is aborted.
    Goes { abort: Option<AbortWith> },
    /// Its deadline has passed.
    Late,
}

impl<S, F> Faulted<S, F> {
    fn on(inner: F) -> Self {
        Self { on: Some(inner), off: None, held: None }
    }

    fn off(error: ProxyError) -> Self {
        Self { on: None, off: Some(error), held: None }
    }

    fn held(held: Held<S>) -> Self {
        Self { on: None, off: None, held: Some(Box::pin(held)) }
    }
}

impl<S, F> Future for Faulted<S, F>
where
    S: Service<Call, Future = F>,
    F: Future<Output = Outcome>,
{
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let mut this = self.project();
        if let Some(held) = this.held {
            let held = held.as_mut().project();
            ready!(held.sleep.poll(cx));
            let call = held.call.take().expect("a request is held up once");
            call.ledger.trip().held_up(Instant::now());
            match *held.next {
                Next::Late => *this.off = Some(ProxyError::Timeout),
                Next::Goes { abort: Some(with) } => *this.off = Some(abort(&call, with)),
                Next::Goes { abort: None } => this.on.set(Some(held.service.call(call))),
            }
            *this.held = None;
        }
        match this.on.as_pin_mut() {
            Some(inner) => inner.poll(cx),
            None => Poll::Ready(Err(this.off.expect("a request goes on, or it does not"))),
        }
    }
}
