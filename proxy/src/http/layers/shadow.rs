//! What is on trial, held up against what is in force: of each request, once all is decided that both decide. It acts on
//! nothing, and where nothing is on trial it costs a branch.

use std::rc::Rc;

use http::{Method, Request};

use super::authenticate::carries_token;
use super::authorize::caller;
use crate::body::Body;
use crate::error::ProxyError;
use crate::http::call::Call;
use crate::http::headers;
use crate::policy::jwt::JwtError;
use crate::shadow::{Bench, Facts, Fate, Follows, Found, Held, Token, Unproven, asks};

/// Bytes of an example's host and path.
const LONGEST: usize = 200;

/// The check, held up against what is on trial.
pub fn beside_trial<C>(check: C) -> impl Fn(&mut Call) -> Result<(), ProxyError> + Clone
where
    C: Fn(&mut Call) -> Result<(), ProxyError> + Clone,
{
    move |call| match call.ledger.conn().on_trial() {
        None => check(call),
        Some((bench, held)) => hold_up(call, &check, (&bench, &held)),
    }
}

#[cold]
fn hold_up(
    call: &mut Call,
    check: impl FnOnce(&mut Call) -> Result<(), ProxyError>,
    (bench, held): (&Rc<Bench>, &Rc<Held>),
) -> Result<(), ProxyError> {
    let chain = bench.chain(held);
    // Before: what a token says becomes fields of the request, and routes are not looked for by these.
    let found = chain.zip(headers::head(&call.request)).map(|(chain, head)| chain.find(&head));
    let result = check(call);
    note(call, result, found, (bench, held));
    result
}

fn note(
    call: &Call,
    result: Result<(), ProxyError>,
    found: Option<Found>,
    (bench, held): (&Rc<Bench>, &Rc<Held>),
) -> Option<()> {
    let in_force = in_force(call, result)?;
    let caller = caller(call);
    let facts = Facts {
        head: headers::head(&call.request)?,
        token: token(call, result),
        caller: caller.unwrap_or_else(|| call.ledger.conn().caller()),
        fitting: held.fitting.as_ref().filter(|_| caller.is_none()),
    };
    let shadow = match bench.chain(held) {
        None => Fate::Closed,
        Some(chain) => chain.fate(found?, &facts)?,
    };
    bench.note(held, (&in_force, &shadow), facts.head.path, || example(&call.request));
    Some(())
}

/// What becomes of it; `None` where neither its route nor anybody's rules have decided that.
fn in_force(call: &Call, result: Result<(), ProxyError>) -> Option<Fate<'_>> {
    let ledger = &call.ledger;
    match result {
        Ok(()) => {
            let route = ledger.route()?;
            Some(Fate::Follows(Follows { route, asks: asks(ledger.http().0, route) }))
        }
        Err(ProxyError::NoRoute) => Some(Fate::NoRoute),
        Err(ProxyError::Unauthenticated(error)) => Some(Fate::Unproven(Unproven::Error(error))),
        Err(ProxyError::Denied) => {
            Some(Fate::Denied(ledger.view().authorization.as_ref()?, ledger.decision().denied?))
        }
        // Its connection is ended, or it could not be read.
        Err(_) => None,
    }
}

/// What is known of its token.
fn token(call: &Call, result: Result<(), ProxyError>) -> Token<'_> {
    let ledger = &call.ledger;
    let issuers = ledger.view().tokens.as_ref().map_or(&[][..], |tokens| &tokens.issuers);
    match (result, ledger.claims()) {
        (_, Some(claims)) => Token::Good(issuers, claims),
        (Err(ProxyError::Unauthenticated(error)), None)
            if error != JwtError::Missing && carries_token(call.request.headers()) =>
        {
            Token::Bad(issuers, error)
        }
        (_, None) if carries_token(call.request.headers()) => Token::Unlooked,
        (_, None) => Token::None,
    }
}

/// Words for a request.
fn example(request: &Request<Body>) -> String {
    let host = headers::host(request).unwrap_or_default();
    let path = if *request.method() == Method::CONNECT { "" } else { request.uri().path() };
    let mut out = format!("{} {host}{path}", request.method());
    if out.len() > LONGEST {
        out.truncate(out.floor_char_boundary(LONGEST));
        out.push_str("...");
    }
    out
}
