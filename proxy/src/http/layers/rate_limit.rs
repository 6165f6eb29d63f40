//! How many requests a route takes in a time. Refused here, before anything is done for them.

use std::task::{Context, Poll};

use http::Response;
use http::header::{HeaderMap, HeaderName, RETRY_AFTER};
use tower::{Layer, Service};

use super::Admitted;
use crate::body::Body;
use crate::error::ProxyError;
use crate::http::call::{Call, Ledger};
use crate::http::caller::Caller;
use crate::policy::limiter::{RateLimiter, retry_after, service_limit};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const SERVICE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct RateLimitLayer;

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimited<S>;

    fn layer(&self, inner: S) -> RateLimited<S> {
        RateLimited { inner }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct RateLimited<S> {
    inner: S,
}

impl<S: Service<Call, Response = Response<Body>, Error = ProxyError>> Service<Call> for RateLimited<S> {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Admitted<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Admitted<S::Future> {
        let refused = match limiter(&call.ledger) {
            Some(limiter) => take(&call, limiter),
            None => None,
        };
        match refused {
            None => Admitted::on(self.inner.call(call)),
            Some(error) => Admitted::off(error),
        }
    }
}

fn limiter(ledger: &Ledger) -> Option<&RateLimiter> {
    ledger.limits()?.rate.as_deref()
}

/// Counts a request; why it is refused, if it is.
fn take(call: &Call, limiter: &RateLimiter) -> Option<ProxyError> {
    let ledger = &call.ledger;
    // When the request came is as good as now, and has been asked for.
    let now = ledger.trip().started().duration_since(ledger.conn().worker().shared().epoch);
    let quota = limiter.take(Caller::of(call, limiter.per()).key(), now);
    ledger.set_quota(quota);
    (!quota.granted).then(|| ProxyError::RateLimited(limiter.exceeded()))
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
