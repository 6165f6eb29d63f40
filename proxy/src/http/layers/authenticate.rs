//! Whether the token that a request carries is good, and what it says (RFC 6750 section 2.1).

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::{Request, header};
use outrigger_proto::model::JwtUse;
use serde_json::Value;

use crate::body::Body;
use crate::error::ProxyError;
use crate::facts::Claims;
use crate::http::call::{Call, Ledger};
use crate::policy::jwt::{self, JwtError, Tokens};

/// See the module.
///
/// # Errors
/// It is not good, or there is none and must be.
pub fn authenticate(call: &mut Call) -> Result<(), ProxyError> {
    let Call { request, tunnel: _, ledger } = call;
    let Some(tokens) = &ledger.view().tokens else {
        let wanted = jwt::wanted(&[], of_route(ledger));
        return wanted.map(|_| ()).map_err(ProxyError::Unauthenticated);
    };
    let result = look(request, ledger, tokens);
    let stats = &ledger.view().state.stats;
    match result {
        Ok(true) => stats.jwt("good"),
        Ok(false) => {}
        Err(error) => stats.jwt(error.reason()),
    }
    result.map(|_| ()).map_err(ProxyError::Unauthenticated)
}

fn of_route(ledger: &Ledger) -> Option<JwtUse> {
    ledger.route()?.jwt
}

/// Whether there was a token, and it was good.
fn look(request: &mut Request<Body>, ledger: &Ledger, tokens: &Arc<Tokens>) -> Result<bool, JwtError> {
    let wanted = jwt::wanted(&tokens.issuers, of_route(ledger))?;
    if wanted == JwtUse::None {
        return Ok(false);
    }
    let Some(token) = bearer(request.headers())? else {
        return jwt::without(wanted).map(|()| false);
    };
    let seen = ledger.conn().worker().tokens();
    let (place, claims) = seen.verify(token, tokens, SystemTime::now())?;
    let passed_on = &tokens.issuers[place].claims_to_headers;
    let fields = passed_on.iter().filter_map(|(claim, name)| field(&claims, claim, name).transpose());
    let fields: Vec<_> = fields.collect::<Result<_, _>>()?;
    for (name, value) in fields {
        request.headers_mut().insert(name, value);
    }
    ledger.set_claims(Rc::clone(&claims));
    Ok(true)
}

/// The one bearer token, if there is any. Of two, who stands behind us might take the other.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, JwtError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(JwtError::Several);
    }
    let Some((scheme, rest)) = value.as_bytes().split_at_checked(6) else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Ok(None);
    }
    match rest {
        [b' ', token @ ..] => {
            let token = std::str::from_utf8(token).map_err(|_| JwtError::Malformed)?;
            Ok(Some(token.trim_matches(' ')))
        }
        // No token to us, and perhaps one to who stands behind us.
        [] | [b'\t', ..] => Err(JwtError::Malformed),
        // Another scheme, whose name begins like this one's.
        [_, ..] => Ok(None),
    }
}

/// Whether a request carries a token at all, one that could be read or not.
pub fn carries_token(headers: &HeaderMap) -> bool {
    !matches!(bearer(headers), Ok(None))
}

/// A claim as a field: texts, numbers and truth as they are, other things as JSON. What a field cannot carry is refused,
/// not mangled.
fn field(
    Claims(claims): &Claims,
    claim: &str,
    name: &HeaderName,
) -> Result<Option<(HeaderName, HeaderValue)>, JwtError> {
    let value = match claims.get(claim) {
        None | Some(Value::Null) => return Ok(None),
        // Whoever reads a field cuts these off (RFC 9110 section 5.5), and would see somebody else.
        Some(Value::String(text)) if text.trim_matches([' ', '\t']) != text => return Err(JwtError::Claim),
        Some(Value::String(text)) => HeaderValue::from_str(text),
        Some(other) => HeaderValue::from_str(&other.to_string()),
    };
    value.map(|value| Some((name.clone(), value))).map_err(|_| JwtError::Claim)
}

/// What a caller without a good token is told (RFC 6750 section 3).
pub fn challenge(error: JwtError, headers: &mut HeaderMap) {
    let value = match error {
        JwtError::Missing => "Bearer",
        _ => "Bearer error=\"invalid_token\"",
    };
    headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(value));
}
