//! The same, said without any cleverness: every rule is held against all facts, every time.

use http::HeaderValue;
use outrigger_proto::model::{Authorization, Effect, HostPattern, PathPattern, Rule, StringMatch, When};

use super::{Asked, Caller, Decision, Denial, Otherwise};

pub(super) fn decide(
    authorization: &Authorization,
    caller: &Caller<'_>,
    asked: Option<&Asked<'_>>,
) -> Decision {
    let fitting = |effect: Effect, dry: bool| {
        let rules = authorization.rules.iter().enumerate();
        let mut rules = rules.filter(move |(_, rule)| rule.effect == effect && (dry || !rule.dry_run));
        rules.find(|(_, rule)| fits(rule, caller, asked)).map(|(place, _)| place as u32)
    };
    let verdict = |dry: bool| {
        if let Some(rule) = fitting(Effect::Deny, dry) {
            return Some(Denial::Rule(rule));
        }
        if fitting(Effect::Allow, dry).is_some() { None } else { Some(Denial::Default) }
    };
    let decides = |rule: &Rule| rule.effect != Effect::Audit && !rule.dry_run;
    let denied = if authorization.rules.iter().any(decides) { verdict(false) } else { None };
    let otherwise = if authorization.rules.iter().any(|rule| rule.dry_run) {
        match (denied, verdict(true)) {
            (None, Some(denial)) => Some(Otherwise::Denied(denial)),
            (Some(_), None) => Some(Otherwise::Allowed),
            _ => None,
        }
    } else {
        None
    };
    Decision { denied, otherwise, audited: fitting(Effect::Audit, true) }
}

fn fits(rule: &Rule, caller: &Caller<'_>, asked: Option<&Asked<'_>>) -> bool {
    let When { peers, source, sni, ports, methods, hosts, paths, headers, claims } = &rule.when;
    if !peers.is_empty() && !peers.iter().any(|peer| caller.identity.is_some_and(|id| peer.matches(id))) {
        return false;
    }
    if !source.is_empty() && !source.iter().any(|net| caller.source.is_some_and(|ip| net.contains(&ip))) {
        return false;
    }
    if !sni.is_empty() && !sni.iter().any(|pattern| caller.sni.is_some_and(|sni| host(pattern, sni))) {
        return false;
    }
    if !ports.is_empty() && !ports.iter().any(|port| caller.port == Some(*port)) {
        return false;
    }
    let Some(Asked { head, claims: said }) = asked else { return true };
    if !methods.is_empty() && !methods.iter().any(|method| method == head.method) {
        return false;
    }
    if !hosts.is_empty() && !hosts.iter().any(|pattern| host(pattern, head.host)) {
        return false;
    }
    let path = |pattern: &PathPattern| match pattern {
        PathPattern::Exact(path) => head.path == &**path,
        PathPattern::Below(above) => head.path.starts_with(&**above),
        PathPattern::Prefix(path) => head.path == &**path || head.path.starts_with(&format!("{path}/")),
        PathPattern::Regex(pattern) => pattern.is_match(head.path),
    };
    if !paths.is_empty() && !paths.iter().any(path) {
        return false;
    }
    for rule_of_field in headers {
        let values: Vec<&HeaderValue> = head.headers.get_all(&rule_of_field.name).iter().collect();
        let one = |value: &&HeaderValue| match &rule_of_field.value {
            StringMatch::Present | StringMatch::Absent => unreachable!(),
            StringMatch::Exact(text) => value.as_bytes() == text.as_bytes(),
            StringMatch::Prefix(text) => value.as_bytes().starts_with(text.as_bytes()),
            StringMatch::Regex(pattern) => value.to_str().is_ok_and(|value| pattern.is_match(value)),
        };
        let good = match &rule_of_field.value {
            StringMatch::Present => !values.is_empty(),
            StringMatch::Absent => values.is_empty(),
            _ if rule.effect == Effect::Allow => !values.is_empty() && values.iter().all(one),
            _ => values.iter().any(one),
        };
        if !good {
            return false;
        }
    }
    claims.iter().all(|claim| {
        let text = said.and_then(|said| said.0.get(&*claim.name)).and_then(|value| value.as_str());
        text.is_some_and(|text| claim.values.iter().any(|value| text == &**value))
    })
}

fn host(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(exact) => host == &**exact,
        HostPattern::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
    }
}
