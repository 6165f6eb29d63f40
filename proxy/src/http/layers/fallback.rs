//! When a cluster gave no answer, or a bad one, and nothing is left to be tried: what its route has instead. What is
//! served so is marked in header, log and metric, since somebody has to know.

use std::ops::ControlFlow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};
use outrigger_proto::model::Instead;

use super::Outcome;
use super::detour::{Detour, Fork, Inner};
use super::stale::Asked;
use crate::body::{Body, bodiless, text};
use crate::error::ProxyError;
use crate::http::call::{Call, Ledger, Wanted};
use crate::http::peek::is_grpc;
use crate::http::replay::Replay;
use crate::policy::retry::grpc_status;
use crate::upstream::UpstreamError;

/// Says that an answer is the fallback, and which.
pub(super) const MARK: HeaderName = HeaderName::from_static("x-outrigger-fallback");
/// Bytes of a request's body that are kept for the fallback's cluster.
const MAX_BODY: u64 = 64 * 1024;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct FallbackFork;

impl Fork for FallbackFork {
    fn send<S: Inner>(self, inner: &mut S, call: Call) -> Detour<S::Future> {
        let fallback = call.ledger.forward().and_then(|to| to.fallback.as_deref());
        let Some(fallback) = fallback.filter(|_| call.tunnel == Wanted::Nothing) else {
            return Detour::straight(inner.call(call));
        };
        let asked = Asked::of(&call.request, &call.ledger);
        if let Some(Instead::To(_)) = fallback.instead() {
            return Detour::around(to_other_cluster(inner.clone(), call, asked));
        }
        let ledger = call.ledger.clone();
        Detour::then(inner.call(call), move |outcome| with_what_is_here(outcome, asked, &ledger))
    }
}

/// What a route has itself: what was kept, or what it says instead.
fn with_what_is_here(outcome: Outcome, mut asked: Option<Box<Asked>>, ledger: &Ledger) -> Outcome {
    let outcome = match settled(outcome, &mut asked, ledger) {
        ControlFlow::Break(outcome) => return outcome,
        ControlFlow::Continue(outcome) => outcome,
    };
    let Some(Instead::Respond(respond)) = instead(ledger) else { return outcome };
    note(ledger, outcome);
    ledger.fell_back("response");
    // What we say instead is not late.
    ledger.set_deadline(None);
    let response = text(respond.status, Bytes::copy_from_slice(respond.body.as_bytes()));
    Ok(marked(response, HeaderValue::from_static("response")))
}

async fn to_other_cluster<S: Inner>(mut inner: S, call: Call, mut asked: Option<Box<Asked>>) -> Outcome {
    let Call { mut request, tunnel: _, ledger } = call;
    let replay = Replay::of(request.body_mut(), MAX_BODY);
    // What is sent becomes one of the first cluster's.
    let mut second = bodiless(&request);
    let mut send = |request| inner.call(Call { request, tunnel: Wanted::Nothing, ledger: ledger.clone() });
    let outcome = match settled(send(request).await, &mut asked, &ledger) {
        ControlFlow::Break(outcome) => return outcome,
        ControlFlow::Continue(outcome) => outcome,
    };
    // Past its deadline a request has no time for another cluster.
    if matches!(outcome, Err(ProxyError::Timeout)) {
        return outcome;
    }
    if !replay.is_whole() {
        ledger.destination().1.live.stats().retry_skipped("fallback_body_too_large");
        return outcome;
    }
    note(&ledger, outcome);
    ledger.fell_back("cluster");
    ledger.redirect_to_fallback();
    *second.body_mut() = replay.body();
    let response = send(second).await?;
    if let Some(asked) = asked {
        asked.answered_elsewhere(response.status());
    }
    Ok(marked(response, HeaderValue::from_static("cluster")))
}

/// What the route has in place of its cluster, whatever that answered before.
fn instead(ledger: &Ledger) -> Option<&Instead> {
    ledger.forward()?.fallback.as_deref()?.instead()
}

/// Breaks with what is answered, where the cluster has answered, now or before. Otherwise there is only what became of
/// the request.
fn settled(
    outcome: Outcome,
    asked: &mut Option<Box<Asked>>,
    ledger: &Ledger,
) -> ControlFlow<Outcome, Outcome> {
    if !failed(&outcome) {
        return ControlFlow::Break(match asked.take() {
            Some(asked) => outcome.map(|response| asked.answered(response)),
            None => outcome,
        });
    }
    let Some(response) = asked.as_ref().and_then(|asked| asked.before()) else {
        return ControlFlow::Continue(outcome);
    };
    note(ledger, outcome);
    ledger.fell_back("stale");
    // What is here is not late.
    ledger.set_deadline(None);
    ControlFlow::Break(Ok(marked(response, HeaderValue::from_static("stale"))))
}

/// Writes down what the cluster itself came to.
fn note(ledger: &Ledger, outcome: Outcome) {
    if let Err(error) = &outcome {
        ledger.count_error(*error);
    }
    let status = outcome.map_or(0, |response| response.status().as_u16());
    ledger.leave_cluster(status);
}

fn marked(mut response: Response<Body>, with: HeaderValue) -> Response<Body> {
    response.headers_mut().insert(MARK, with);
    response
}

/// Whether an outcome is as good as none. What the client did wrong, it did wrong.
fn failed(outcome: &Outcome) -> bool {
    match outcome {
        Ok(response) if is_grpc(response.headers()) => {
            // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, in a head that is all there is.
            matches!(grpc_status(response.headers()), Some(2 | 4 | 13 | 14))
        }
        Ok(response) => response.status().is_server_error(),
        Err(ProxyError::Upstream(UpstreamError::RequestBody | UpstreamError::NoTunnel)) => false,
        Err(ProxyError::Upstream(_) | ProxyError::Timeout) => true,
        Err(_) => false,
    }
}
