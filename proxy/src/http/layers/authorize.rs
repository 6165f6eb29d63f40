//! Whether who asks may have what it asks for. What is looked at here are the same bytes that are sent on.

use std::sync::Arc;

use crate::error::ProxyError;
use crate::facts::Caller;
use crate::http::call::Call;
use crate::http::headers;
use crate::policy::authz::{Asked, Decision, Rules};

/// See the module.
///
/// # Errors
/// It may not.
pub fn authorize(call: &mut Call) -> Result<(), ProxyError> {
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
    let asked = Asked { head: headers::head(&call.request)?, claims: call.ledger.claims() };
    Some(match caller(call) {
        None => call.ledger.conn().with_fitting(rules, |fitting| rules.decide(fitting, Some(&asked))),
        Some(caller) => rules.decide(&rules.fitting(&caller), Some(&asked)),
    })
}

/// Who a request comes from, where that is not who is at the other end of its connection: a proxy that is believed speaks
/// for somebody else, and for another one each time.
pub fn caller(call: &Call) -> Option<Caller<'_>> {
    let Call { request, tunnel: _, ledger } = call;
    let conn = ledger.conn();
    let source = headers::client(request, conn, &ledger.http().0.trusted_proxies);
    (source != conn.source()).then(|| Caller { source, ..conn.caller() })
}
