//! Which requests a route takes.

use super::super::super::expression::write as expression;
use super::super::super::generated::envoy::config::route::v3 as pb;
use super::super::super::generated::envoy::r#type::matcher::v3 as matcher;
use super::super::super::route::{encode, prefix_of};
use crate::model::{Action, HeaderMatch, Match, PathMatch, PathRewrite, QueryMatch, StringMatch};

pub(super) fn matches(matches: &Match, action: &Action) -> pb::RouteMatch {
    let Match { hosts: _, path, methods, headers, query } = matches;
    let method = match &**methods {
        [] => None,
        [method] => Some(matcher::string_matcher::MatchPattern::Exact(method.to_string())),
        several => {
            let several: Vec<_> = several.iter().map(|method| regex::escape(method.as_str())).collect();
            Some(matcher::string_matcher::MatchPattern::SafeRegex(regex_of(several.join("|"))))
        }
    };
    let method = method.map(|of| pb::HeaderMatcher {
        name: ":method".to_owned(),
        header_match_specifier: Some(pb::header_matcher::HeaderMatchSpecifier::StringMatch(text(of))),
        invert_match: false,
    });
    pb::RouteMatch {
        path_specifier: Some(path_of(path, action)),
        headers: method.into_iter().chain(headers.iter().map(header)).collect(),
        query_parameters: query.iter().map(parameter).collect(),
        ..pb::RouteMatch::default()
    }
}

fn path_of(path: &PathMatch, action: &Action) -> pb::route_match::PathSpecifier {
    use pb::route_match::PathSpecifier as P;
    match path {
        PathMatch::Any => P::Prefix("/".to_owned()),
        PathMatch::Exact(path) => P::Path(path.to_string()),
        // What is replaced is the slash as well, as nothing can be replaced by nothing.
        PathMatch::Prefix(prefix) if prefix.is_empty() && replaces_prefix(action) => {
            P::Prefix("/".to_owned())
        }
        PathMatch::Prefix(prefix) if prefix.is_empty() => P::Prefix(String::new()),
        PathMatch::Prefix(prefix) => P::PathSeparatedPrefix(prefix.to_string()),
        PathMatch::Regex(pattern) => match prefix_of(pattern) {
            Some(prefix) => P::Prefix(prefix),
            None => P::SafeRegex(regex_of(expression(pattern))),
        },
    }
}

fn replaces_prefix(action: &Action) -> bool {
    match action {
        Action::Forward(forward) => matches!(forward.rewrite.path, Some(PathRewrite::Prefix(_))),
        Action::Redirect(_) | Action::Respond(_) => false,
    }
}

pub(in super::super) fn header(HeaderMatch { name, value }: &HeaderMatch) -> pb::HeaderMatcher {
    use pb::header_matcher::HeaderMatchSpecifier as H;
    let of = match wanted(value) {
        Wanted::There(there) => H::PresentMatch(there),
        Wanted::Text(text) => H::StringMatch(text),
    };
    let name = if *name == ::http::header::HOST { ":authority".to_owned() } else { name.to_string() };
    pb::HeaderMatcher { name, header_match_specifier: Some(of), invert_match: false }
}

/// One that is compared there with what is sent.
fn parameter(QueryMatch { name, value }: &QueryMatch) -> pb::QueryParameterMatcher {
    let sent = QueryMatch { name: encode(name, true).into(), value: as_sent(value) };
    decoded_parameter(&sent)
}

/// One that is compared there with what is decoded.
pub(in super::super) fn decoded_parameter(
    QueryMatch { name, value }: &QueryMatch,
) -> pb::QueryParameterMatcher {
    use pb::query_parameter_matcher::QueryParameterMatchSpecifier as Q;
    let of = match wanted(value) {
        Wanted::There(there) => Q::PresentMatch(there),
        Wanted::Text(text) => Q::StringMatch(text),
    };
    pb::QueryParameterMatcher { name: name.to_string(), query_parameter_match_specifier: Some(of) }
}

/// What a query holds is compared there as it stands in it.
fn as_sent(value: &StringMatch) -> StringMatch {
    match value {
        StringMatch::Exact(text) => StringMatch::Exact(encode(text, false).into()),
        StringMatch::Prefix(text) => StringMatch::Prefix(encode(text, false).into()),
        StringMatch::Present | StringMatch::Absent | StringMatch::Regex(_) => value.clone(),
    }
}

enum Wanted {
    There(bool),
    Text(matcher::StringMatcher),
}

fn wanted(value: &StringMatch) -> Wanted {
    use matcher::string_matcher::MatchPattern as M;
    match value {
        StringMatch::Present => Wanted::There(true),
        StringMatch::Absent => Wanted::There(false),
        StringMatch::Exact(exact) => Wanted::Text(text(M::Exact(exact.to_string()))),
        StringMatch::Prefix(prefix) => Wanted::Text(text(M::Prefix(prefix.to_string()))),
        StringMatch::Regex(pattern) => Wanted::Text(text(M::SafeRegex(regex_of(expression(pattern))))),
    }
}

fn text(of: matcher::string_matcher::MatchPattern) -> matcher::StringMatcher {
    matcher::StringMatcher { match_pattern: Some(of), ignore_case: false }
}

pub(super) fn regex_of(regex: String) -> matcher::RegexMatcher {
    matcher::RegexMatcher { regex }
}
