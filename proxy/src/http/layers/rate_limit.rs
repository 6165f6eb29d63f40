//! How many requests a route takes in a time. Refused here, before anything is done for them.

use http::header::{HeaderMap, HeaderName, RETRY_AFTER};

use crate::error::ProxyError;
use crate::http::call::{Call, Ledger};
use crate::http::caller::Caller;
use crate::policy::limiter::{RateLimiter, retry_after, service_limit};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const SERVICE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

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

/// Tells a caller who was counted what it has left, whatever the answer is. What an upstream says of its own limits
/// stays beside it.
pub fn announce(ledger: &Ledger, headers: &mut HeaderMap) {
    let (Some(quota), Some(limiter)) = (ledger.quota(), limiter(ledger)) else { return };
    headers.append(POLICY, limiter.policy().clone());
    headers.append(SERVICE_LIMIT, service_limit(&quota));
    if !quota.granted {
        headers.insert(RETRY_AFTER, retry_after(&quota));
    }
}
