//! Who may do what: a filter that denies, one that allows, and one that only logs.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::super::super::expression::write as of_pattern;
use super::super::super::filters::request::{AND_BELOW, HOST_IN, PORT};
use super::super::super::filters::{claims, rbac};
use super::super::super::generated::envoy::config::rbac::v3 as pb;
use super::super::super::generated::envoy::config::rbac::v3::permission::Rule as P;
use super::super::super::generated::envoy::config::rbac::v3::principal::Identifier as I;
use super::super::super::generated::envoy::config::rbac::v3::rbac::Action;
use super::super::super::generated::envoy::config::route::v3::HeaderMatcher;
use super::super::super::generated::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use super::super::super::generated::envoy::r#type::matcher::v3 as matcher;
use super::super::super::generated::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use super::{expression, network, text as matching};
use crate::model::{
    Authorization, Effect, HeaderRule, HostPattern, PathPattern, Pattern, PeerPattern, Rule, StringMatch,
    When,
};

/// A filter of rules.
#[derive(Debug)]
pub(in super::super) struct Written {
    /// What its rules do.
    pub(in super::super) word: &'static str,
    pub(in super::super) rules: Option<pb::Rbac>,
    pub(in super::super) shadow_rules: Option<pb::Rbac>,
}

/// What no rule fits is refused: so where any decides, there is a filter that allows, though it be nobody.
pub(in super::super) fn write(authorization: &Authorization) -> Vec<Written> {
    let Authorization { rules } = authorization;
    let mut policies = Vec::new();
    for (place, rule) in rules.iter().enumerate() {
        let Rule { name, effect, dry_run, when } = rule;
        let name = name.as_ref().map_or_else(String::new, |name| format!(".{name}"));
        policies.push((*effect, *dry_run, format!("{}{place:05}{name}", rbac::PLACE), policy(when)));
    }
    let of = |action: Action, wanted: Effect, dry: bool| {
        let policies = policies.iter().filter(|(effect, dry_run, ..)| *effect == wanted && (dry || !dry_run));
        let policies: BTreeMap<_, _> =
            policies.map(|(_, _, name, policy)| (name.clone(), policy.clone())).collect();
        pb::Rbac { action: action.into(), policies }
    };
    let decides = rules.iter().any(Rule::decides);
    let mut all = Vec::new();
    for (word, action, effect) in
        [("deny", Action::Deny, Effect::Deny), ("allow", Action::Allow, Effect::Allow)]
    {
        let enforced = of(action, effect, false);
        let is_there = !enforced.policies.is_empty() || (decides && effect == Effect::Allow);
        // Those that only show, beside those that decide.
        let shows = rules.iter().any(|rule| rule.effect == effect && rule.dry_run);
        if is_there || shows {
            let shadow_rules = shows.then(|| of(action, effect, true));
            all.push(Written { word, rules: is_there.then_some(enforced), shadow_rules });
        }
    }
    let audits = of(Action::Log, Effect::Audit, true);
    if !audits.policies.is_empty() {
        all.push(Written { word: "log", rules: Some(audits), shadow_rules: None });
    }
    all
}

fn policy(when: &When) -> pb::Policy {
    let When { peers, source, sni, ports, methods, hosts, paths, headers, claims } = when;
    let mut what = Vec::new();
    what.extend(any_rule(ports.iter().map(|port| P::DestinationPort((*port).into()))));
    what.extend(any_rule(sni.iter().map(|host| P::RequestedServerName(server_name(host)))));
    let method =
        |method: &http::Method| header(":method", matching(MatchPattern::Exact(method.as_str().to_owned())));
    what.extend(any_rule(methods.iter().map(method).map(P::Header)));
    what.extend(any_rule(hosts.iter().flat_map(with_port).map(|host| P::Header(header(":authority", host)))));
    what.extend(any_rule(paths.iter().map(path_of).map(P::UrlPath)));
    what.extend(headers.iter().map(|rule| permission(P::Header(header_of(rule)))));
    let mut who = Vec::new();
    let peer = |peer| I::Authenticated(pb::principal::Authenticated { principal_name: Some(named(peer)) });
    who.extend(any_id(peers.iter().map(peer)));
    who.extend(any_id(source.iter().map(network).map(I::RemoteIp)));
    who.extend(claims.iter().map(|rule| principal(I::Metadata(claims::written(rule)))));
    let what = if what.is_empty() { P::Any(true) } else { P::AndRules(pb::permission::Set { rules: what }) };
    let who = if who.is_empty() { I::Any(true) } else { I::AndIds(pb::principal::Set { ids: who }) };
    pb::Policy { permissions: vec![permission(what)], principals: vec![principal(who)] }
}

fn permission(rule: P) -> pb::Permission {
    pb::Permission { rule: Some(rule) }
}

fn principal(identifier: I) -> pb::Principal {
    pb::Principal { identifier: Some(identifier) }
}

/// Nothing where nothing is asked for.
fn any_rule(rules: impl Iterator<Item = P>) -> Option<pb::Permission> {
    let rules: Vec<_> = rules.map(permission).collect();
    (!rules.is_empty()).then(|| permission(P::OrRules(pb::permission::Set { rules })))
}

fn any_id(ids: impl Iterator<Item = I>) -> Option<pb::Principal> {
    let ids: Vec<_> = ids.map(principal).collect();
    (!ids.is_empty()).then(|| principal(I::OrIds(pb::principal::Set { ids })))
}

fn named(peer: &PeerPattern) -> matcher::StringMatcher {
    matching(match peer {
        PeerPattern::Exact(id) => MatchPattern::Exact(id.to_string()),
        PeerPattern::Below(above) => MatchPattern::Prefix(above.to_string()),
    })
}

fn server_name(host: &HostPattern) -> matcher::StringMatcher {
    let pattern = match host {
        HostPattern::Exact(host) => MatchPattern::Exact(host.to_string()),
        HostPattern::Suffix(domain) => MatchPattern::Suffix(domain.to_string()),
    };
    matcher::StringMatcher { ignore_case: true, ..matching(pattern) }
}

/// In the head a port may stand behind a host.
fn with_port(host: &HostPattern) -> [matcher::StringMatcher; 2] {
    let with = match host {
        HostPattern::Exact(host) => {
            let pattern = matching(MatchPattern::Prefix(format!("{host}:")));
            matcher::StringMatcher { ignore_case: true, ..pattern }
        }
        HostPattern::Suffix(domain) => {
            matching(expression(format!("{HOST_IN}{}{PORT}", regex::escape(domain))))
        }
    };
    [server_name(host), with]
}

fn header(name: &str, text: matcher::StringMatcher) -> HeaderMatcher {
    let header_match_specifier = Some(HeaderMatchSpecifier::StringMatch(text));
    HeaderMatcher { name: name.to_owned(), invert_match: false, header_match_specifier }
}

fn header_of(rule: &HeaderRule) -> HeaderMatcher {
    let HeaderRule { name, value } = rule;
    let pattern = match value {
        StringMatch::Present => Err(true),
        StringMatch::Absent => Err(false),
        StringMatch::Exact(text) => Ok(MatchPattern::Exact(text.to_string())),
        StringMatch::Prefix(text) => Ok(MatchPattern::Prefix(text.to_string())),
        StringMatch::Regex(pattern) => Ok(anywhere(pattern)),
    };
    let specifier = match pattern {
        Ok(pattern) => HeaderMatchSpecifier::StringMatch(matching(pattern)),
        Err(there) => HeaderMatchSpecifier::PresentMatch(there),
    };
    HeaderMatcher { name: name.to_string(), invert_match: false, header_match_specifier: Some(specifier) }
}

/// There, an expression is for the whole of a text.
fn anywhere(pattern: &Pattern) -> MatchPattern {
    expression(of_pattern(pattern))
}

fn path_of(path: &PathPattern) -> matcher::PathMatcher {
    let pattern = match path {
        PathPattern::Exact(path) => MatchPattern::Exact(path.to_string()),
        PathPattern::Below(above) => MatchPattern::Prefix(above.to_string()),
        PathPattern::Prefix(path) => expression(format!("{}{AND_BELOW}", regex::escape(path))),
        PathPattern::Regex(pattern) => anywhere(pattern),
    };
    matcher::PathMatcher { rule: Some(matcher::path_matcher::Rule::Path(matching(pattern))) }
}
