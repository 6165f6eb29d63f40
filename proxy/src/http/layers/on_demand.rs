//! A host whose routes a control plane tells on demand: the first request for it waits until they have come.
//!
//! Only requests that no route takes wait, and only where the table says that there is more: the others pay a branch.

use tokio::time::Instant;

use super::Outcome;
use super::detour::{Detour, Fork, Inner};
use crate::demand::Demand;
use crate::error::ProxyError;
use crate::http::call::Call;
use crate::http::headers;
use crate::routing::canonical_host;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct OnDemandFork;

impl Fork for OnDemandFork {
    fn send<S: Inner>(self, inner: &mut S, call: Call) -> Detour<S::Future> {
        match asked(&call) {
            None => Detour::straight(inner.call(call)),
            Some(demand) => Detour::around(awaited(inner.clone(), call, demand)),
        }
    }
}

/// Whom to ask, if a route may yet come.
fn asked(call: &Call) -> Option<Demand> {
    let routes = call.ledger.http().1;
    if !routes.are_on_demand() {
        return None;
    }
    if let Some(position) = routes.find(&headers::head(&call.request)?) {
        // It need not be looked for again.
        call.ledger.set_route(position);
        return None;
    }
    call.ledger.conn().worker().shared().demand.get().cloned()
}

async fn awaited<S: Inner>(mut inner: S, call: Call, demand: Demand) -> Outcome {
    let host = headers::host(&call.request).map(canonical_host).unwrap_or_default();
    let (http, _) = call.ledger.http();
    if demand.ask(&http.routes, &host).await.ok_or(ProxyError::RouteAwaited)? {
        call.ledger.renew();
    }
    // What the wait has cost is not the endpoint's, which is yet to be asked.
    call.ledger.trip().held_up(Instant::now());
    inner.call(call).await
}
