//! Whether a token is good (RFC 7515, 7519; the advice of RFC 8725). Pure: token, keys and time in, claims out.
//!
//! The signatures are aws-lc's to check, which TLS uses too; around them stands a parser that takes one form only. A
//! library for tokens would bring a second one for signatures, and would have to be kept from being generous: with members
//! that stand twice, with padding, with algorithms that the key is not for, with keys that the token itself names.

mod keys;
mod seen;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use outrigger_proto::model::{JwtAlgorithm, JwtIssuer, JwtUse, KeySet, json};
use serde_json::{Map, Value};

pub use self::seen::{Keys, Seen, Tokens};
use crate::facts::Claims;

/// Bytes of a token. What needs more does not belong into a header.
const MAX_TOKEN: usize = 8 << 10;

/// Why a token is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JwtError {
    /// There is none, and there must be.
    Missing,
    /// There is more than one.
    Several,
    /// It is longer than any needs to be.
    TooLong,
    /// It is no token, or one that could be read in two ways.
    Malformed,
    /// It wants something understood that we do not understand.
    Critical,
    /// It is signed in a way that is not allowed.
    Algorithm,
    /// It is of somebody whose tokens nobody takes.
    UnknownIssuer,
    /// The issuer's keys are not there yet.
    NoKeys,
    /// It is signed with a key that the issuer does not have, or that is not for this.
    UnknownKey,
    /// The signature is not good.
    BadSignature,
    /// Its time is over, or it does not say when that is.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It is for somebody else.
    Audience,
    /// A claim cannot be passed on as a header.
    Claim,
}

impl JwtError {
    /// A word for it, for logs and labels.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "jwt_missing",
            Self::Several => "jwt_several",
            Self::TooLong => "jwt_too_long",
            Self::Malformed => "jwt_malformed",
            Self::Critical => "jwt_critical",
            Self::Algorithm => "jwt_algorithm",
            Self::UnknownIssuer => "jwt_unknown_issuer",
            Self::NoKeys => "jwt_no_keys",
            Self::UnknownKey => "jwt_unknown_key",
            Self::BadSignature => "jwt_bad_signature",
            Self::Expired => "jwt_expired",
            Self::NotYetValid => "jwt_not_yet_valid",
            Self::Audience => "jwt_audience",
            Self::Claim => "jwt_claim",
        }
    }
}

/// A token's parts, before anything is believed.
struct Parts<'a> {
    header: Map<String, Value>,
    claims: Map<String, Value>,
    /// What is signed.
    signed: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn read(token: &'a str) -> Result<Self, JwtError> {
        if token.len() > MAX_TOKEN {
            return Err(JwtError::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed);
        let object = |part: &str| json::object(&decode(part)?).ok_or(JwtError::Malformed);
        Ok(Self {
            header: object(header)?,
            claims: object(claims)?,
            signed: signed.as_bytes(),
            signature: decode(signature)?,
        })
    }

    fn algorithm(&self, allowed: &[JwtAlgorithm]) -> Result<JwtAlgorithm, JwtError> {
        let named = self.header.get("alg").and_then(Value::as_str).and_then(JwtAlgorithm::named);
        named.filter(|algorithm| allowed.contains(algorithm)).ok_or(JwtError::Algorithm)
    }

    /// What kind of thing it is, if it says so (RFC 8725 section 3.11), and what it wants understood (RFC 7515 section
    /// 4.1.11).
    fn check_header(&self) -> Result<(), JwtError> {
        if self.header.contains_key("crit") {
            return Err(JwtError::Critical);
        }
        match self.header.get("typ") {
            None => Ok(()),
            Some(Value::String(kind)) if is_token(kind) => Ok(()),
            Some(_) => Err(JwtError::Malformed),
        }
    }
}

fn is_token(kind: &str) -> bool {
    let kind = kind
        .get(..12)
        .filter(|start| start.eq_ignore_ascii_case("application/"))
        .map_or(kind, |_| &kind[12..]);
    kind.eq_ignore_ascii_case("jwt") || kind.eq_ignore_ascii_case("at+jwt")
}

/// What is wanted of a request's token where these are the issuers, and its route says this.
///
/// # Errors
/// It wants one, and nobody's are taken.
pub fn wanted(issuers: &[JwtIssuer], of_route: Option<JwtUse>) -> Result<JwtUse, JwtError> {
    if issuers.is_empty() {
        // A table of a control plane may want tokens under a listener that takes nobody's.
        let is_required = of_route == Some(JwtUse::Required);
        return if is_required { Err(JwtError::UnknownIssuer) } else { Ok(JwtUse::None) };
    }
    let required = issuers.iter().any(|issuer| issuer.required);
    Ok(of_route.unwrap_or(if required { JwtUse::Required } else { JwtUse::Optional }))
}

/// What becomes of a request without a token, where this is wanted.
///
/// # Errors
/// It must have one.
pub fn without(wanted: JwtUse) -> Result<(), JwtError> {
    match wanted {
        JwtUse::Required => Err(JwtError::Missing),
        JwtUse::Optional | JwtUse::None => Ok(()),
    }
}

/// The claims of a token that one of these issuers has signed, and which it is; the keys of each are asked for by its
/// place.
///
/// # Errors
/// Why it is not good.
pub fn verify(
    token: &str,
    issuers: &[JwtIssuer],
    keys_of: impl FnOnce(usize) -> Option<Arc<KeySet>>,
    now: SystemTime,
) -> Result<(usize, Claims), JwtError> {
    let parts = Parts::read(token)?;
    parts.check_header()?;
    let said = parts.claims.get("iss").and_then(Value::as_str).ok_or(JwtError::UnknownIssuer)?;
    // Not believed yet: it says whose keys to try.
    let place = issuers.iter().position(|issuer| *issuer.issuer == *said).ok_or(JwtError::UnknownIssuer)?;
    let issuer = &issuers[place];
    let algorithm = parts.algorithm(&issuer.algorithms)?;
    let set = keys_of(place).ok_or(JwtError::NoKeys)?;
    let kid = match parts.header.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.as_str()),
        Some(_) => return Err(JwtError::Malformed),
    };
    let key = set.find(kid, algorithm).ok_or(JwtError::UnknownKey)?;
    if !keys::verifies(key, algorithm, parts.signed, &parts.signature) {
        return Err(JwtError::BadSignature);
    }
    check_claims(&parts.claims, issuer, now)?;
    Ok((place, Claims(parts.claims)))
}

fn check_claims(claims: &Map<String, Value>, issuer: &JwtIssuer, now: SystemTime) -> Result<(), JwtError> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64();
    let leeway = issuer.leeway.as_secs_f64();
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().filter(|time| time.is_finite()).map(Some).ok_or(JwtError::Malformed),
    };
    // A token without an end would be good for ever.
    if time("exp")?.is_none_or(|expires| now >= expires + leeway) {
        return Err(JwtError::Expired);
    }
    for begins in [time("nbf")?, time("iat")?].into_iter().flatten() {
        if begins > now + leeway {
            return Err(JwtError::NotYetValid);
        }
    }
    let meant = |audience: &str| issuer.audiences.iter().any(|ours| **ours == *audience);
    let is_for_us = match claims.get("aud") {
        Some(Value::String(audience)) => meant(audience),
        Some(Value::Array(audiences)) => audiences.iter().filter_map(Value::as_str).any(meant),
        Some(_) | None => false,
    };
    if is_for_us { Ok(()) } else { Err(JwtError::Audience) }
}
