//! Whether who asks may have what it asks for. What is looked at here are the same bytes that are sent on.

use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Response;
use tower::{Layer, Service};

use super::Admitted;
use crate::body::Body;
use crate::error::ProxyError;
use crate::facts::{Caller, ReqHead};
use crate::http::call::Call;
use crate::http::headers;
use crate::policy::authz::{Asked, Decision, Rules};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct AuthorizeLayer;

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        Authorize { inner }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Authorize<S> {
    inner: S,
}

impl<S: Service<Call, Response = Response<Body>, Error = ProxyError>> Service<Call> for Authorize<S> {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Admitted<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Admitted<S::Future> {
        match authorize(&call) {
            Ok(()) => Admitted::on(self.inner.call(call)),
            Err(error) => Admitted::off(error),
        }
    }
}

fn authorize(call: &Call) -> Result<(), ProxyError> {
    let ledger = &call.ledger;
    // Also where no rule is: what it has proven may not be believed any more.
    if ledger.conn().watch().is_unwelcome() {
        return Err(ProxyError::Unwelcome);
    }
    let Some(rules) = &ledger.view().authorization else { return Ok(()) };
    let decision = decide(call, rules).ok_or(ProxyError::Host)?;
    decision.words().for_each(|word| ledger.view().state.stats.authorization(word));
    if decision != Decision::default() {
        ledger.set_decision(decision);
    }
    match decision.denied {
        Some(_) => Err(ProxyError::Denied),
        None => Ok(()),
    }
}

fn decide(call: &Call, rules: &Arc<Rules>) -> Option<Decision> {
    let Call { request, tunnel: _, ledger } = call;
    let head = ReqHead {
        host: headers::host(request)?,
        path: request.uri().path(),
        query: request.uri().query(),
        method: request.method(),
        headers: request.headers(),
    };
    let asked = Asked { head, claims: ledger.claims() };
    let conn = ledger.conn();
    let source = headers::client(request, conn, &ledger.http().0.trusted_proxies);
    if source == peer(conn.peer()) {
        return Some(conn.with_fitting(rules, |fitting| rules.decide(fitting, Some(&asked))));
    }
    // A proxy that is believed speaks for somebody else, and for another one each time.
    let caller = Caller { source, ..conn.caller() };
    Some(rules.decide(&rules.fitting(&caller), Some(&asked)))
}

fn peer(peer: Option<std::net::SocketAddr>) -> Option<IpAddr> {
    peer.map(|peer| peer.ip().to_canonical())
}
