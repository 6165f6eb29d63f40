//! The route that takes a request.

use crate::error::ProxyError;
use crate::http::call::{Call, Ledger};
use crate::http::headers;
use crate::policy::stale::rules::is_known;
use crate::routing::pick_target;

/// See the module.
///
/// # Errors
/// There is none.
pub fn route(call: &mut Call) -> Result<(), ProxyError> {
    let position = call.ledger.position().or_else(|| find(call)).ok_or(ProxyError::NoRoute)?;
    call.ledger.set_route(position);
    let stale = call.ledger.forward().and_then(|forward| forward.fallback.as_deref()?.stale());
    // Before anybody takes away what it says of itself.
    if stale.is_some() && is_known(call.request.headers()) {
        call.ledger.set_known();
    }
    choose(&call.ledger);
    Ok(())
}

/// Once for a request: what is tried again is tried where it was sent.
fn choose(ledger: &Ledger) {
    if let Some(forward) = ledger.forward()
        && forward.to.targets.len() > 1
    {
        ledger.set_share(pick_target(&forward.to, ledger.conn().worker().upstream().random()));
    }
}

fn find(call: &Call) -> Option<usize> {
    call.ledger.http().1.find(&headers::head(&call.request)?)
}
