//! Who may do what. Pure: rules and facts in, a decision out.
//!
//! What a rule asks of the connection (who, from where, to which host and port) is the same for all its requests, so it
//! is looked at once: a [`Fitting`] holds the rules that are left, and a request is held against these alone.

#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;

use std::fmt;

use hashbrown::HashMap;
use http::HeaderMap;
use outrigger_proto::model::{
    Authorization, ClaimRule, Effect, HeaderRule, PathPattern, Rule, StringMatch, When,
};
use serde_json::Value;

use crate::facts::{Caller, Claims, ReqHead};
use crate::routing::host_fits;

/// The rules of a listener.
#[derive(Debug)]
pub struct Rules {
    rules: Box<[Rule]>,
    /// What each is called.
    names: Box<[Box<str>]>,
    /// Rules that are about paths which can be looked up, by path; those that are not stand in a [`Fitting`].
    by_path: HashMap<Box<str>, Vec<(Reach, u32)>>,
    /// Bytes of the longest of these paths: a path that is all slashes is not looked up all its length.
    longest: usize,
    /// Whether some only show what they would do.
    has_dry_runs: bool,
    /// Whether any decides at all.
    is_enforced: bool,
}

/// How far from a path a rule reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    This,
    Below,
    Both,
}

/// The rules that a connection fits, as far as it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitting {
    /// Those that each request is held against.
    always: Box<[u32]>,
    /// All of them, a bit for each rule.
    all: Box<[u64]>,
}

impl Fitting {
    fn has(&self, rule: u32) -> bool {
        self.all[rule as usize / 64] >> (rule % 64) & 1 == 1
    }

    fn places(&self) -> impl Iterator<Item = u32> {
        let of_word = |(word, bits): (usize, &u64)| {
            let bits = *bits;
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| (word * 64) as u32 + bit)
        };
        self.all.iter().enumerate().flat_map(of_word)
    }
}

/// What is decided about a request, or a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Why it is refused, if it is.
    pub denied: Option<Denial>,
    /// What it would be if rules that only show were enforced; `None` where that is the same.
    pub otherwise: Option<Otherwise>,
    /// An audit that it fits.
    pub audited: Option<u32>,
}

impl Decision {
    /// Words for it, for metrics: what is done, what would be done, whether somebody looks.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        let done = if self.denied.is_some() { "denied" } else { "allowed" };
        let otherwise = self.otherwise.map(|otherwise| match otherwise {
            Otherwise::Allowed => "would_allow",
            Otherwise::Denied(_) => "would_deny",
        });
        [Some(done), otherwise, self.audited.map(|_| "audit")].into_iter().flatten()
    }
}

/// Why something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// This rule denies it.
    Rule(u32),
    /// No rule allows it.
    Default,
}

/// What something would be that it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// Let pass.
    Allowed,
    /// Refused.
    Denied(Denial),
}

impl Rules {
    /// The rules as they are configured.
    pub fn new(authorization: &Authorization) -> Self {
        let rules = authorization.rules.clone();
        let name = |(place, rule): (usize, &Rule)| match &rule.name {
            Some(name) => format!("authorization[{place}] ({name})").into(),
            None => format!("authorization[{place}]").into(),
        };
        let by_path = by_path(&rules);
        Self {
            longest: by_path.keys().map(|path| path.len()).max().unwrap_or(0),
            by_path,
            names: rules.iter().enumerate().map(name).collect(),
            has_dry_runs: rules.iter().any(|rule| rule.dry_run),
            is_enforced: rules.iter().any(Rule::decides),
            rules,
        }
    }

    /// What a rule is called.
    pub fn name(&self, rule: u32) -> &str {
        self.names.get(rule as usize).map_or("authorization", |name| name)
    }

    /// The rules that this connection fits, as far as it goes.
    pub fn fitting(&self, caller: &Caller<'_>) -> Fitting {
        let mut all = vec![0_u64; self.rules.len().div_ceil(64)];
        let mut always = Vec::new();
        for (place, rule) in self.rules.iter().enumerate().filter(|(_, rule)| fits_caller(&rule.when, caller))
        {
            all[place / 64] |= 1 << (place % 64);
            if !is_looked_up(&rule.when) {
                always.push(number(place));
            }
        }
        Fitting { always: always.into(), all: all.into() }
    }

    /// What becomes of a request; without one, of the connection.
    pub fn decide(&self, fitting: &Fitting, request: Option<&Asked<'_>>) -> Decision {
        let mut found = Found::default();
        let mut look = |place: u32| {
            let rule = &self.rules[place as usize];
            // What has come out already need not be asked for again.
            if !found.wants(place, rule) {
                return;
            }
            // A deny fires on any value of a field, an allow takes all of them.
            let any = rule.effect != Effect::Allow;
            if request.is_none_or(|request| fits_request(&rule.when, request, any)) {
                found.note(place, rule);
            }
        };
        match request {
            None => fitting.places().for_each(look),
            Some(request) => {
                fitting.always.iter().for_each(|place| look(*place));
                self.at(request.head.path, |place| {
                    if fitting.has(place) {
                        look(place);
                    }
                });
            }
        }
        let denied = if self.is_enforced { found.enforced.denial() } else { None };
        let otherwise = if self.has_dry_runs {
            match (denied, found.all.denial()) {
                (None, Some(denial)) => Some(Otherwise::Denied(denial)),
                (Some(_), None) => Some(Otherwise::Allowed),
                (None, None) | (Some(_), Some(_)) => None,
            }
        } else {
            None
        };
        Decision { denied, otherwise, audited: found.audited }
    }

    /// Whether any request of such a connection could still pass.
    pub fn could_pass(&self, fitting: &Fitting) -> bool {
        let fits = || fitting.places().map(|place| &self.rules[place as usize]).filter(|rule| rule.decides());
        let always_denied = fits().any(|rule| rule.effect == Effect::Deny && !rule.when.is_http());
        !self.is_enforced || (!always_denied && fits().any(|rule| rule.effect == Effect::Allow))
    }
}

impl Rules {
    /// The rules that can be looked up and reach this path: by the path itself, and by each that it is below.
    fn at(&self, path: &str, mut look: impl FnMut(u32)) {
        if self.by_path.is_empty() {
            return;
        }
        let cuts = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
        for cut in cuts.chain([path.len()]).take_while(|cut| *cut <= self.longest) {
            let Some(rules) = self.by_path.get(&path[..cut]) else { continue };
            let whole = cut == path.len();
            for (reach, place) in rules {
                let reaches = match reach {
                    Reach::This => whole,
                    Reach::Below => !whole,
                    Reach::Both => true,
                };
                if reaches {
                    look(*place);
                }
            }
        }
    }
}

/// Whether all that a rule says of paths can be looked up.
fn is_looked_up(when: &When) -> bool {
    !when.paths.is_empty() && when.paths.iter().all(|path| !matches!(path, PathPattern::Regex(_)))
}

fn by_path(rules: &[Rule]) -> HashMap<Box<str>, Vec<(Reach, u32)>> {
    let mut all: HashMap<Box<str>, Vec<(Reach, u32)>> = HashMap::new();
    for (place, rule) in rules.iter().enumerate().filter(|(_, rule)| is_looked_up(&rule.when)) {
        for path in &rule.when.paths {
            let (key, reach) = match path {
                PathPattern::Exact(path) => (&**path, Reach::This),
                PathPattern::Below(above) => (&above[..above.len() - 1], Reach::Below),
                PathPattern::Prefix(prefix) => (&**prefix, Reach::Both),
                PathPattern::Regex(_) => continue,
            };
            all.entry(key.into()).or_default().push((reach, number(place)));
        }
    }
    all
}

fn number(place: usize) -> u32 {
    u32::try_from(place).expect("rules are counted in thousands")
}

/// The rules that were found to fit.
#[derive(Debug, Default)]
struct Found {
    enforced: Verdict,
    /// Those that only show among them.
    all: Verdict,
    audited: Option<u32>,
}

#[derive(Debug, Default)]
struct Verdict {
    denied: Option<u32>,
    allowed: bool,
}

impl Verdict {
    fn denial(&self) -> Option<Denial> {
        match self.denied {
            Some(rule) => Some(Denial::Rule(rule)),
            None if self.allowed => None,
            None => Some(Denial::Default),
        }
    }

    fn wants(&self, place: u32, effect: Effect) -> bool {
        match effect {
            // Of several the one written first is named, in whatever order they are looked at.
            Effect::Deny => self.denied.is_none_or(|first| place < first),
            Effect::Allow => !self.allowed,
            Effect::Audit => false,
        }
    }

    fn note(&mut self, place: u32, effect: Effect) {
        match effect {
            Effect::Deny => self.denied = Some(self.denied.map_or(place, |first| first.min(place))),
            Effect::Allow => self.allowed = true,
            Effect::Audit => {}
        }
    }
}

impl Found {
    fn wants(&self, place: u32, rule: &Rule) -> bool {
        match rule.effect {
            Effect::Audit => self.audited.is_none_or(|first| place < first),
            effect if rule.dry_run => self.all.wants(place, effect),
            effect => self.enforced.wants(place, effect),
        }
    }

    fn note(&mut self, place: u32, rule: &Rule) {
        self.all.note(place, rule.effect);
        if !rule.dry_run {
            self.enforced.note(place, rule.effect);
        }
        if rule.effect == Effect::Audit {
            self.audited = Some(place);
        }
    }
}

/// A request as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its head.
    pub head: ReqHead<'a>,
    /// What its token says, if it had one that was good.
    pub claims: Option<&'a Claims>,
}

fn fits_caller(when: &When, caller: &Caller<'_>) -> bool {
    let Caller { identity, source, sni, port } = caller;
    (when.peers.is_empty() || identity.is_some_and(|id| when.peers.iter().any(|peer| peer.matches(id))))
        && (when.source.is_empty()
            || source.is_some_and(|source| when.source.iter().any(|network| network.contains(&source))))
        && (when.sni.is_empty() || sni.is_some_and(|sni| host_fits(&when.sni, sni)))
        && (when.ports.is_empty() || port.is_some_and(|port| when.ports.contains(&port)))
}

fn fits_request(when: &When, request: &Asked<'_>, any: bool) -> bool {
    let When { peers: _, source: _, sni: _, ports: _, methods, hosts, paths, headers, claims } = when;
    let Asked { head, claims: said } = request;
    (methods.is_empty() || methods.contains(head.method))
        && (paths.is_empty() || paths.iter().any(|pattern| path_fits(pattern, head.path)))
        && (hosts.is_empty() || host_fits(hosts, head.host))
        && headers.iter().all(|rule| header_fits(rule, head.headers, any))
        && claims.iter().all(|rule| said.is_some_and(|said| claim_fits(rule, said)))
}

fn path_fits(pattern: &PathPattern, path: &str) -> bool {
    match pattern {
        PathPattern::Exact(exact) => **exact == *path,
        PathPattern::Below(above) => path.starts_with(&**above),
        PathPattern::Prefix(prefix) => {
            path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathPattern::Regex(pattern) => pattern.is_match(path),
    }
}

/// Whether a value fits. Bytes that are no text fit every expression that denies and none that allows: nobody knows what
/// whoever stands behind us makes of them.
fn value_fits(wanted: &StringMatch, value: &[u8], denies: bool) -> bool {
    match wanted {
        StringMatch::Present => true,
        StringMatch::Absent => false,
        StringMatch::Exact(exact) => value == exact.as_bytes(),
        StringMatch::Prefix(prefix) => value.starts_with(prefix.as_bytes()),
        StringMatch::Regex(pattern) => str::from_utf8(value).map_or(denies, |value| pattern.is_match(value)),
    }
}

/// Of a field that is repeated, each value is looked at by itself: joined, they could be made to look like another.
fn header_fits(HeaderRule { name, value }: &HeaderRule, headers: &HeaderMap, any: bool) -> bool {
    let mut values = headers.get_all(name).into_iter().map(|value| value.as_bytes());
    match value {
        StringMatch::Present => values.next().is_some(),
        StringMatch::Absent => values.next().is_none(),
        StringMatch::Exact(_) | StringMatch::Prefix(_) | StringMatch::Regex(_) if any => {
            values.any(|one| value_fits(value, one, true))
        }
        StringMatch::Exact(_) | StringMatch::Prefix(_) | StringMatch::Regex(_) => {
            let mut there = false;
            values.all(|one| {
                there = true;
                value_fits(value, one, false)
            }) && there
        }
    }
}

fn claim_fits(ClaimRule { name, values }: &ClaimRule, Claims(claims): &Claims) -> bool {
    let is_one = |text: &str| values.iter().any(|value| **value == *text);
    match claims.get(&**name) {
        // `scope` is a list with spaces between its items (RFC 8693 section 4.2).
        Some(Value::String(text)) => is_one(text) || text.split(' ').any(is_one),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).any(is_one),
        Some(Value::Bool(value)) => is_one(if *value { "true" } else { "false" }),
        Some(Value::Number(number)) => is_one(&number.to_string()),
        Some(Value::Null | Value::Object(_)) | None => false,
    }
}

/// How a decision is told in a log: by the rule's name.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    rules: &'a Rules,
    decision: Decision,
}

impl Rules {
    /// The same, for a log.
    pub fn tell(&self, decision: Decision) -> Told<'_> {
        Told { rules: self, decision }
    }
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = |denial| match denial {
            Denial::Rule(rule) => self.rules.name(rule),
            Denial::Default => "no rule allows it",
        };
        let Decision { denied, otherwise, audited } = self.decision;
        let mut parts = Vec::new();
        parts.extend(denied.map(|denial| format!("denied: {}", why(denial))));
        parts.extend(otherwise.map(|otherwise| match otherwise {
            Otherwise::Allowed => "would be allowed".to_owned(),
            Otherwise::Denied(denial) => format!("would be denied: {}", why(denial)),
        }));
        parts.extend(audited.map(|rule| format!("audit: {}", self.rules.name(rule))));
        f.write_str(&parts.join("; "))
    }
}
