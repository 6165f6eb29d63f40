//! How many requests a route takes in a time. Refused here, before anything is done for them.

use http::header::{HeaderMap, RETRY_AFTER};

use crate::error::ProxyError;
use crate::http::call::{Call, Ledger};
use crate::http::caller::Caller;
use crate::policy::limiter::{Announcement, RateLimiter, retry_after};

/// Counts a request.
///
/// # Errors
/// It is one too many.
pub fn rate_limit(call: &mut Call) -> Result<(), ProxyError> {
    let ledger = &call.ledger;
    let Some(limiter) = limiter(ledger) else { return Ok(()) };
    // When the request came is as good as now, and has been asked for.
    let now = ledger.trip().started().duration_since(ledger.conn().worker().shared().epoch);
    let quota = limiter.take(Caller::of(call, limiter.per()).key(), now);
    ledger.set_quota(quota);
    if quota.granted { Ok(()) } else { Err(ProxyError::RateLimited(limiter.exceeded())) }
}

fn limiter(ledger: &Ledger) -> Option<&RateLimiter> {
    ledger.limits()?.rate.as_deref()
}

/// What a caller who was counted is told with the answer.
pub fn announcement(ledger: &Ledger) -> Option<Announcement> {
    Some(limiter(ledger)?.announcement(ledger.quota()?))
}

/// Says to a caller who was refused when it is worth coming back.
pub fn refuse(ledger: &Ledger, headers: &mut HeaderMap) {
    if let Some(quota) = ledger.quota().filter(|quota| !quota.granted) {
        headers.insert(RETRY_AFTER, retry_after(&quota));
    }
}
