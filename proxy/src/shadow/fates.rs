//! What would become of a request by a chain that is on trial, in the order in which it is decided in force: the route, whose
//! it is, what it may.

use outrigger_proto::model::{HttpFilter, JwtIssuer, JwtUse, Name, Route, Split};

use super::fate::{Fate, Follows, Unproven};
use super::trial::{Chain, Http, Way};
use crate::facts::{Caller, Claims, ReqHead};
use crate::policy::authz::{Asked, Denial, Fitting};
use crate::policy::ext_authz::is_asked;
use crate::policy::jwt::{self, JwtError};

/// What a chain on trial does with a request, as far as its route decides. Found before anything in force has changed it.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// It has this route.
    Route(usize),
    /// It has none.
    None,
    /// It would be waited for.
    Awaited,
    /// It is not read.
    Bytes,
}

/// What is known in force of the token of a request.
#[derive(Clone, Copy, Debug)]
pub enum Token<'a> {
    /// It carries none.
    None,
    /// It carries one at which nobody looks.
    Unlooked,
    /// To these issuers it is wrong.
    Bad(&'a [JwtIssuer], JwtError),
    /// To these issuers it is good, and says this.
    Good(&'a [JwtIssuer], &'a Claims),
}

/// What is known in force of a request.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its head.
    pub head: ReqHead<'a>,
    /// Its token.
    pub token: Token<'a>,
    /// Who it comes from.
    pub caller: Caller<'a>,
    /// What rules of the trial its connection fits, where it comes from nobody else.
    pub fitting: Option<&'a Fitting>,
}

/// The service that is asked about requests of a listener, and of this route.
pub fn asks<'a>(http: &'a HttpFilter, route: &Route) -> Option<&'a Name> {
    asks_of(http).filter(|_| is_asked(route.external_authorization.as_deref()))
}

pub(super) fn asks_of(http: &HttpFilter) -> Option<&Name> {
    http.external_authorization.as_ref().map(|asked| &asked.cluster)
}

impl Chain {
    /// The route that takes a request.
    pub fn find(&self, head: &ReqHead<'_>) -> Found {
        let Way::Http(http) = &self.way else { return Found::Bytes };
        let (table, index) = &*http.routes;
        match index.find(table, head) {
            Some(route) => Found::Route(route),
            None if table.on_demand => Found::Awaited,
            None => Found::None,
        }
    }

    /// What becomes of a request whose route was found so; `None` where that cannot be told.
    pub fn fate(&self, found: Found, facts: &Facts<'_>) -> Option<Fate<'_>> {
        let (http, route) = match (&self.way, found) {
            (_, Found::Awaited) => return None,
            (Way::Bytes(split), _) => return Some(self.of_bytes(split, facts)),
            (Way::Http(_), Found::None | Found::Bytes) => return Some(Fate::NoRoute),
            (Way::Http(http), Found::Route(place)) => (http, &http.routes.0.routes[place]),
        };
        let claims = match http.claims(route, facts.token) {
            Ok(claims) => claims,
            Err(Some(why)) => return Some(Fate::Unproven(why)),
            Err(None) => return None,
        };
        let Facts { head, token: _, caller, fitting } = facts;
        let denied = self.denial(Some(&Asked { head: *head, claims }), (caller, *fitting));
        Some(match denied {
            Some(denied) => denied,
            None => {
                let asks = http.asks.as_ref();
                let asks = asks.filter(|_| is_asked(route.external_authorization.as_deref()));
                Fate::Follows(Follows { route, asks })
            }
        })
    }

    /// What becomes of a connection whose bytes are passed on in force.
    pub fn fate_of_connection(&self, caller: &Caller<'_>) -> Fate<'_> {
        match &self.way {
            Way::Http(_) => Fate::Read,
            Way::Bytes(split) => self.denial(None, (caller, None)).unwrap_or(Fate::Bytes(split)),
        }
    }

    fn of_bytes<'a>(&'a self, split: &'a Split, facts: &Facts<'_>) -> Fate<'a> {
        self.denial(None, (&facts.caller, facts.fitting)).unwrap_or(Fate::Bytes(split))
    }

    fn denial(
        &self,
        asked: Option<&Asked<'_>>,
        (caller, fitting): (&Caller<'_>, Option<&Fitting>),
    ) -> Option<Fate<'_>> {
        let rules = self.rules.as_ref()?;
        let decision = match fitting {
            Some(fitting) => rules.decide(fitting, asked),
            None => rules.decide(&rules.fitting(caller), asked),
        };
        decision.denied.map(|denial: Denial| Fate::Denied(rules, denial))
    }
}

impl Http {
    /// What rules may know of a token; why it keeps the request out; or nothing, where nobody can tell.
    fn claims<'a>(&self, route: &Route, token: Token<'a>) -> Result<Option<&'a Claims>, Option<Unproven>> {
        let unproven = |error| Some(Unproven::Error(error));
        let wanted = jwt::wanted(&self.issuers, route.jwt).map_err(unproven)?;
        if wanted == JwtUse::None {
            return Ok(None);
        }
        match token {
            Token::None => jwt::without(wanted).map(|()| None).map_err(unproven),
            Token::Unlooked => Err(Some(Unproven::Unlooked)),
            Token::Bad(issuers, error) if *issuers == *self.issuers => Err(unproven(error)),
            Token::Bad(..) => Err(None),
            Token::Good(issuers, claims) => {
                let said = claims.0.get("iss").and_then(|issuer| issuer.as_str()).unwrap_or_default();
                let one = |of: &'_ [JwtIssuer]| of.iter().position(|issuer| *issuer.issuer == *said);
                match (one(issuers), one(&self.issuers)) {
                    (Some(known), Some(place)) if is_as_good(&issuers[known], &self.issuers[place]) => {
                        Ok(Some(claims))
                    }
                    (_, Some(_)) => Err(None),
                    (_, None) => Err(unproven(JwtError::UnknownIssuer)),
                }
            }
        }
    }
}

/// Whether a token that is good to the one is good to the other.
fn is_as_good(one: &JwtIssuer, other: &JwtIssuer) -> bool {
    let JwtIssuer {
        issuer,
        keys,
        audiences,
        // Of the listener, and asked for there.
        required: _,
        algorithms,
        leeway,
        // It changes nothing about the token.
        claims_to_headers: _,
    } = one;
    *issuer == other.issuer
        && *keys == other.keys
        && *audiences == other.audiences
        && *algorithms == other.algorithms
        && *leeway == other.leeway
}
