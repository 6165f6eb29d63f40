//! What the route changes in messages: the target, the host, header fields.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, HeaderName, Request, Response};
use outrigger_proto::model::{Action, HeaderEdits, Route};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{Outcome, stale};
use crate::body::Body;
use crate::error::ProxyError;
use crate::http::call::{Call, Ledger};
use crate::http::headers;
use crate::routing::path::PathError;
use crate::routing::{RewriteError, rewritten};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct EditLayer;

impl<S> Layer<S> for EditLayer {
    type Service = Edit<S>;

    fn layer(&self, inner: S) -> Edit<S> {
        Edit { inner }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Edit<S> {
    inner: S,
}

impl<S: Service<Call, Response = Response<Body>, Error = ProxyError>> Service<Call> for Edit<S> {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Edited<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut call: Call) -> Edited<S::Future> {
        let Call { request, tunnel: _, ledger } = &mut call;
        let ledger = ledger.clone();
        let route = ledger.route().expect("the route is found before its changes are made");
        if let Err(error) = rewrite(request, route, &ledger) {
            return Edited { inner: None, refused: Some(ProxyError::Rewrite(error)), ledger };
        }
        apply(request.headers_mut(), &route.request_headers);
        Edited { inner: Some(self.inner.call(call)), refused: None, ledger }
    }
}

pin_project! {
    /// See the module.
    #[derive(Debug)]
    pub struct Edited<F> {
        #[pin]
        inner: Option<F>,
        refused: Option<ProxyError>,
        ledger: Rc<Ledger>,
    }
}

impl<F: Future<Output = Outcome>> Future for Edited<F> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            return Poll::Ready(Err(this.refused.take().expect("it is asked once")));
        };
        let mut response = ready!(inner.poll(cx))?;
        let route = this.ledger.route().expect("the route is found before its changes are made");
        apply(response.headers_mut(), &route.response_headers);
        Poll::Ready(Ok(response))
    }
}

fn rewrite(request: &mut Request<Body>, route: &Route, ledger: &Ledger) -> Result<(), RewriteError> {
    let Action::Forward(forward) = &route.action else { return Ok(()) };
    if forward.fallback.as_ref().is_some_and(|fallback| fallback.stale().is_some()) {
        // Answers are kept under what was asked for, and not under what it is rewritten to.
        ledger.set_asked(stale::key(request));
    }
    if let Some(path) = rewritten(route, request.uri().path())?
        && !headers::set_path(request, &path)
    {
        return Err(RewriteError::NoPath(PathError::NotEncoded));
    }
    if let Some(host) = &forward.rewrite.host {
        headers::set_host(request, host);
    }
    Ok(())
}

/// First removes, then sets, then adds.
pub fn apply(headers: &mut HeaderMap, edits: &HeaderEdits) {
    apply_to(headers, edits, |_| true);
}

/// The same, to these fields alone.
pub fn apply_to(headers: &mut HeaderMap, edits: &HeaderEdits, which: impl Fn(&HeaderName) -> bool) {
    for name in edits.remove.iter().filter(|name| which(name)) {
        headers.remove(name);
    }
    for (name, value) in edits.set.iter().filter(|(name, _)| which(name)) {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in edits.add.iter().filter(|(name, _)| which(name)) {
        headers.append(name.clone(), value.clone());
    }
}
