//! A request is brought into one canonical form before anything is decided about it: one host, one path, no fields of
//! the client's own hop, no forged ones; and what is too large by its own word is refused before it is read.

use std::borrow::Cow;
use std::rc::Rc;

use http::{Method, header};
use http_body::Body as _;

use super::external_authorization;
use crate::body::{Body, Side};
use crate::error::ProxyError;
use crate::http::call::Call;
use crate::http::headers;
use crate::routing::path::{self, PathError};

/// See the module.
///
/// # Errors
/// It is not taken.
pub fn admit(call: &mut Call) -> Result<(), ProxyError> {
    let Call { request, tunnel, ledger } = call;
    let shared = ledger.conn().worker().shared();
    // First of all: what is refused is to cost nothing.
    if shared.pressure.is_overloaded() {
        shared.stats.shed.requests.increment(1);
        return Err(ProxyError::Overloaded);
    }
    let (config, _) = ledger.http();
    if request.headers().len() > ledger.view().chain.limits.headers.get() {
        return Err(ProxyError::TooManyHeaders);
    }
    headers::checked_host(request).ok_or(ProxyError::Host)?;
    // An extended CONNECT has a path like any other request (RFC 8441 section 4).
    let has_path =
        *request.method() != Method::CONNECT || request.extensions().get::<h2::ext::Protocol>().is_some();
    if has_path && !is_asterisk(request) {
        let canonical = match path::canonical(request.uri().path(), config.merge_slashes) {
            Ok(Cow::Borrowed(_)) => None,
            Ok(Cow::Owned(path)) => Some(path),
            Err(error) => return Err(ProxyError::Path(error)),
        };
        if let Some(path) = canonical {
            if !headers::set_path(request, &path) {
                return Err(ProxyError::Path(PathError::NotEncoded));
            }
            ledger.set_target(request.uri());
        }
    }
    *tunnel = headers::strip_request(request)?;
    headers::forward(request, ledger.conn(), &config.trusted_proxies);
    // What we say of a caller by its token nobody else may have said, whatever becomes of the token: routes look too.
    if let Some(tokens) = &ledger.view().tokens {
        let passed_on = tokens.issuers.iter().flat_map(|issuer| &issuer.claims_to_headers);
        headers::take_away(request.headers_mut(), passed_on.map(|(_, name)| name));
    }
    if let Some(asked) = &config.external_authorization {
        external_authorization::strip(request.headers_mut(), asked);
    }
    if let Some(limit) = ledger.view().chain.limits.body
        && request.body().size_hint().lower() > limit.get()
    {
        return Err(ProxyError::BodyTooLarge);
    }
    if !request.body().is_end_stream() {
        let body = std::mem::replace(request.body_mut(), Body::empty());
        *request.body_mut() = body.metered(Rc::clone(ledger) as _, Side::Request);
    }
    Ok(())
}

fn is_asterisk(request: &http::Request<Body>) -> bool {
    *request.method() == Method::OPTIONS
        && request.uri().path() == "*"
        && !request.headers().contains_key(header::UPGRADE)
}
