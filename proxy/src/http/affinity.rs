//! What of a request decides its endpoint, for clusters that balance by hash: the same client, user or session comes to
//! the same endpoint, on every proxy.

use std::borrow::Cow;

use http::header::{self, HeaderValue};
use http::{Request, Response};
use outrigger_proto::model::{Balance, HashKey, HashOn, MadeCookie};

use super::call::Ledger;
use crate::body::Body;
use crate::routing::{Plus, query_value};
use crate::upstream::{ClusterView, cookie_value, hash_of};

/// A cookie that the client does not have yet, and gets with its answer.
#[derive(Debug)]
pub struct NewCookie(HeaderValue);

/// Notes the request's hash; a cookie that is asked for and not there is made.
pub fn choose(request: &Request<Body>, cluster: &ClusterView, ledger: &Ledger) -> Option<NewCookie> {
    let (Balance::RingHash(own) | Balance::Maglev(own)) = &cluster.config.balance else { return None };
    // As in Envoy: what a cluster says of itself counts before what routes say.
    let keys = match (own.is_empty(), ledger.forward()) {
        (true, Some(forward)) => &forward.hash,
        (true, None) | (false, _) => own,
    };
    let mut new = None;
    let mut parts: Vec<Cow<'_, [u8]>> = Vec::with_capacity(keys.len());
    for HashKey { on, terminal } in keys {
        match on {
            HashOn::Header(name) => parts.extend(request.headers().get(name).map(|v| v.as_bytes().into())),
            HashOn::Source => parts.push(ledger.conn().peer_value().as_bytes().into()),
            HashOn::Query(name) => {
                parts.extend(request.uri().query().and_then(|query| query_value(query, name, Plus::Space)));
            }
            HashOn::Cookie { name, made } => match (cookie(request, name), made) {
                (Some(value), _) => parts.push(value.into()),
                (None, Some(made)) => {
                    // The same one for every attempt.
                    let upstream = ledger.conn().worker().upstream();
                    let value = format!("{:016x}", ledger.trip().lot(|| upstream.random()));
                    new = set_cookie(name, &value, made, ledger.conn().is_secure());
                    parts.push(value.into_bytes().into());
                }
                (None, None) => {}
            },
        }
        if *terminal && !parts.is_empty() {
            break;
        }
    }
    ledger.trip().set_hash(hash_of(parts.iter().map(|part| &**part)));
    new
}

/// Gives the client its cookie.
pub fn give(cookie: Option<NewCookie>, response: &mut Response<Body>) {
    if let Some(NewCookie(value)) = cookie {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

fn cookie<'r>(request: &'r Request<Body>, name: &str) -> Option<&'r [u8]> {
    let mut fields = request.headers().get_all(header::COOKIE).iter();
    fields.find_map(|field| cookie_value(field.as_bytes(), name)).filter(|value| !value.is_empty())
}

fn set_cookie(name: &str, value: &str, made: &MadeCookie, secure: bool) -> Option<NewCookie> {
    let MadeCookie { ttl, path } = made;
    // A session cookie where it has no time to live.
    let age = if ttl.is_zero() { String::new() } else { format!("; Max-Age={}", ttl.as_secs().max(1)) };
    let secure = if secure { "; Secure" } else { "" };
    let path = path.as_deref().map(|path| format!("; Path={path}")).unwrap_or_default();
    let text = format!("{name}={value}{path}{age}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(text).ok().map(NewCookie)
}
