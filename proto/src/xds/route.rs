//! Routes.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue, Method, StatusCode};

use super::cx::Cx;
use super::filters::{self, RoutePolicies};
use super::generated::envoy::config::core::v3 as core;
use super::generated::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use super::generated::envoy::config::route::v3 as pb;
use super::generated::envoy::r#type::matcher::v3 as matcher;
use crate::model::{
    Action, Forward, HeaderEdits, HeaderMatch, HostPattern, Match, Name, PathMatch, PathRewrite, Pattern,
    QueryMatch, Respond, Retry, RetryCondition, Rewrite, Route, RouteTable, Split, StringMatch, Target,
};
use crate::yaml::canonical_path;

/// What Envoy grants where nothing is written.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A host is chosen first, then the first of its routes that matches; where none does, there is nothing elsewhere either.
pub(super) fn table(cx: &mut Cx, table: pb::RouteConfiguration) -> Option<RouteTable> {
    let mut taken = HashSet::new();
    let routes = cx.each("virtual_hosts", table.virtual_hosts, |cx, host| {
        let pb::VirtualHost { name: _, domains, routes } = host;
        if domains.is_empty() {
            return cx.fail("domains", "there is none");
        }
        let hosts = cx.each("domains", domains, |cx, domain| {
            let host = domain_of(cx, &domain)?;
            if !taken.insert(host.clone()) {
                return cx.fail("", format!("`{domain}` is taken already; a port makes no other host"));
            }
            Some(host)
        })?;
        // All hosts, or those.
        let hosts: Vec<_> =
            if hosts.contains(&None) { Vec::new() } else { hosts.into_iter().flatten().collect() };
        let mut routes = cx.each("routes", routes, |cx, written| route(cx, written, &hosts))?;
        let nothing = Respond { status: StatusCode::NOT_FOUND, body: Box::default() };
        let rest = Match { hosts, ..Match::default() };
        routes.push(Route::new(rest, Action::Respond(nothing)));
        Some(routes)
    })?;
    Some(RouteTable { routes: routes.into_iter().flatten().collect() })
}

/// A host, or a domain; `None` inside for all.
fn domain_of(cx: &mut Cx, domain: &str) -> Option<Option<HostPattern>> {
    if domain == "*" {
        return Some(None);
    }
    // A port is not looked at, as in a file.
    let bare = match domain.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.ends_with(':') => host,
        Some(_) | None => domain,
    };
    let host = bare.to_ascii_lowercase();
    if host.is_empty() {
        return cx.fail("", "this is empty");
    }
    match host.strip_prefix('*') {
        Some(suffix) if suffix.len() > 1 && suffix.starts_with('.') && !suffix.contains('*') => {
            Some(Some(HostPattern::Suffix(suffix.into())))
        }
        None if !host.contains('*') => Some(Some(HostPattern::Exact(host.into()))),
        Some(_) | None => {
            cx.fail("", format!("`{domain}` is not supported: write a host, `*.domain`, or `*`"))
        }
    }
}

fn route(cx: &mut Cx, route: pb::Route, hosts: &[HostPattern]) -> Option<Route> {
    let pb::Route {
        name: _,
        r#match: matched,
        action,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
    } = route;
    let matched = cx.required("match", matched);
    let matched = matched.and_then(|matched| cx.within("match", |cx| matches(cx, matched, hosts)));
    let action = cx.required("action", action);
    let action = action.zip(matched.as_ref()).and_then(|(action, matched)| match action {
        pb::route::Action::Route(to) => {
            cx.within("route", |cx| forward(cx, to, matched)).map(Action::Forward)
        }
        pb::route::Action::DirectResponse(answer) => {
            cx.within("direct_response", |cx| respond(cx, answer)).map(Action::Respond)
        }
    });
    let request_headers = edits(cx, "request_headers", (request_headers_to_add, request_headers_to_remove));
    let response_headers =
        edits(cx, "response_headers", (response_headers_to_add, response_headers_to_remove));
    let RoutePolicies { jwt, external_authorization, rate_limit, global_rate_limit, fault } =
        filters::of_route(cx, typed_per_filter_config)?;
    Some(Route {
        jwt,
        external_authorization,
        rate_limit,
        global_rate_limit,
        fault,
        request_headers: request_headers?,
        response_headers: response_headers?,
        ..Route::new(matched?, action?)
    })
}

fn matches(cx: &mut Cx, matched: pb::RouteMatch, hosts: &[HostPattern]) -> Option<Match> {
    let pb::RouteMatch { path_specifier, headers, query_parameters } = matched;
    let path = cx.required("path_specifier", path_specifier).and_then(|path| path_of(cx, path));
    let mut methods = Vec::new();
    let headers = cx.each("headers", headers, |cx, header| {
        let pb::HeaderMatcher { name, invert_match, header_match_specifier } = header;
        if invert_match {
            return cx.fail("invert_match", "not supported");
        }
        let wanted = match header_match_specifier {
            None => None,
            Some(pb::header_matcher::HeaderMatchSpecifier::PresentMatch(there)) => Some(Wanted::There(there)),
            Some(pb::header_matcher::HeaderMatchSpecifier::StringMatch(text)) => Some(Wanted::Text(text)),
            Some(_) => return cx.fail("", "write `string_match`"),
        };
        let value = text_of(cx, wanted)?;
        if name == ":method" {
            let StringMatch::Exact(method) = &value else {
                return cx.fail("string_match", "a method is matched exactly");
            };
            let Ok(method) = Method::from_bytes(method.as_bytes()) else {
                return cx.fail("string_match.exact", "this is not a method");
            };
            methods.push(method);
            return Some(None);
        }
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            return cx.fail("name", format!("`{name}` is not supported"));
        };
        if name == ::http::header::HOST {
            return cx.fail("name", "a host is matched by `domains`");
        }
        Some(Some(HeaderMatch { name, value }))
    });
    let query = cx.each("query_parameters", query_parameters, |cx, parameter| {
        let pb::QueryParameterMatcher { name, query_parameter_match_specifier } = parameter;
        let value = text_of(
            cx,
            query_parameter_match_specifier.map(|of| match of {
                pb::query_parameter_matcher::QueryParameterMatchSpecifier::PresentMatch(there) => {
                    Wanted::There(there)
                }
                pb::query_parameter_matcher::QueryParameterMatchSpecifier::StringMatch(text) => {
                    Wanted::Text(text)
                }
            }),
        )?;
        Some(QueryMatch { name: name.into(), value })
    });
    let headers = headers?.into_iter().flatten().collect();
    if methods.len() > 1 {
        return cx.fail("headers", "a request has one method");
    }
    Some(Match { hosts: hosts.to_vec(), path: path?, methods, headers, query: query? })
}

fn path_of(cx: &mut Cx, path: pb::route_match::PathSpecifier) -> Option<PathMatch> {
    use pb::route_match::PathSpecifier as P;
    let canonical = |cx: &mut Cx, field: &str, path: &str| match canonical_path(path) {
        Ok(()) => Some(()),
        Err(why) => cx.fail(field, why),
    };
    match path {
        P::Prefix(prefix) if prefix == "/" => Some(PathMatch::Any),
        // At a `/` or not.
        P::Prefix(prefix) => {
            canonical(cx, "prefix", &prefix)?;
            pattern(cx, "prefix", &format!("^{}", regex::escape(&prefix))).map(PathMatch::Regex)
        }
        P::Path(path) => {
            canonical(cx, "path", &path)?;
            Some(PathMatch::Exact(path.into()))
        }
        P::PathSeparatedPrefix(prefix) => {
            canonical(cx, "path_separated_prefix", &prefix)?;
            if prefix.ends_with('/') {
                return cx.fail("path_separated_prefix", "this ends with `/`");
            }
            Some(PathMatch::Prefix(prefix.into()))
        }
        P::SafeRegex(expression) => whole(cx, "safe_regex", &expression).map(PathMatch::Regex),
    }
}

/// An expression for the whole of a text.
fn whole(cx: &mut Cx, field: &str, expression: &matcher::RegexMatcher) -> Option<Pattern> {
    pattern(cx, &format!("{field}.regex"), &format!("^(?:{})$", expression.regex))
}

fn pattern(cx: &mut Cx, field: &str, expression: &str) -> Option<Pattern> {
    Pattern::new(expression).map_or_else(
        |error| {
            let said = error.to_string();
            let reason = said.lines().last().unwrap_or_default().trim_start_matches("error: ");
            cx.fail(field, format!("this is not a regular expression: {reason}"))
        },
        Some,
    )
}

/// What is wanted of a text.
enum Wanted {
    There(bool),
    Text(matcher::StringMatcher),
}

/// Nothing said wants it to be there.
fn text_of(cx: &mut Cx, wanted: Option<Wanted>) -> Option<StringMatch> {
    use matcher::string_matcher::MatchPattern as M;
    match wanted {
        None | Some(Wanted::There(true)) => Some(StringMatch::Present),
        Some(Wanted::There(false)) => Some(StringMatch::Absent),
        Some(Wanted::Text(matcher::StringMatcher { match_pattern: _, ignore_case: true })) => {
            cx.fail("string_match.ignore_case", "not supported")
        }
        Some(Wanted::Text(matcher::StringMatcher { match_pattern, ignore_case: false })) => {
            match cx.required("string_match", match_pattern)? {
                M::Exact(text) => Some(StringMatch::Exact(text.into())),
                M::Prefix(text) => Some(StringMatch::Prefix(text.into())),
                M::Suffix(_) | M::Contains(_) => cx.fail("string_match", "not supported"),
                M::SafeRegex(expression) => {
                    whole(cx, "string_match.safe_regex", &expression).map(StringMatch::Regex)
                }
            }
        }
    }
}

fn forward(cx: &mut Cx, to: pb::RouteAction, matched: &Match) -> Option<Forward> {
    let pb::RouteAction { cluster_specifier, timeout, prefix_rewrite, host_rewrite_specifier, retry_policy } =
        to;
    let split = cx.required("cluster_specifier", cluster_specifier).and_then(|to| split(cx, to));
    let timeout = match timeout {
        None => Some(Some(TIMEOUT)),
        written => cx.time("timeout", written),
    };
    let path = match prefix_rewrite.as_str() {
        "" => Some(None),
        _ if !matches!(matched.path, PathMatch::Prefix(_)) => {
            cx.fail("prefix_rewrite", "only where the match is a `path_separated_prefix`")
        }
        path => match canonical_path(path) {
            Ok(()) => Some(Some(PathRewrite::Prefix(path.trim_end_matches('/').into()))),
            Err(why) => cx.fail("prefix_rewrite", why),
        },
    };
    let host = match host_rewrite_specifier {
        None => Some(None),
        Some(pb::route_action::HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            match HeaderValue::from_str(&host).ok().filter(|_| !host.is_empty()) {
                Some(host) => Some(Some(host)),
                None => cx.fail("host_rewrite_literal", "this is not a host"),
            }
        }
    };
    let retry = match retry_policy {
        None => Some(None),
        Some(policy) => cx.within("retry_policy", |cx| retry(cx, policy)),
    };
    Some(Forward {
        rewrite: Rewrite { path: path?, host: host? },
        timeout: timeout?,
        retry: retry?.map(Box::new),
        ..Forward::new(split?)
    })
}

fn split(cx: &mut Cx, to: pb::route_action::ClusterSpecifier) -> Option<Split> {
    use pb::route_action::ClusterSpecifier as C;
    let name = |cx: &mut Cx, field: &str, name: &str| {
        Name::new(name).or_else(|| cx.fail(field, "this is not the name of a cluster"))
    };
    match to {
        C::Cluster(cluster) => name(cx, "cluster", &cluster).map(Split::one),
        C::WeightedClusters(pb::WeightedCluster { clusters }) => cx.within("weighted_clusters", |cx| {
            let targets = cx.each("clusters", clusters, |cx, share| {
                let cluster = name(cx, "name", &share.name)?;
                // Without a weight it has none.
                Some(
                    NonZeroU32::new(share.weight.unwrap_or_default())
                        .map(|weight| Target::new(cluster, weight)),
                )
            })?;
            let targets: Vec<_> = targets.into_iter().flatten().collect();
            if targets.is_empty() {
                return cx.fail("clusters", "no cluster has a weight");
            }
            Some(Split { targets })
        }),
    }
}

fn retry(cx: &mut Cx, policy: pb::RetryPolicy) -> Option<Option<Retry>> {
    let pb::RetryPolicy { retry_on, num_retries, per_try_timeout } = policy;
    let per_try_timeout = cx.time("per_try_timeout", per_try_timeout)?;
    let attempts = NonZeroU32::MIN.saturating_add(num_retries.unwrap_or(1).min(99));
    let words = retry_on.split(',').map(str::trim).filter(|word| !word.is_empty());
    let mut conditions = Vec::new();
    for word in words {
        conditions.push(match word {
            "5xx" => RetryCondition::ServerError,
            "gateway-error" => RetryCondition::GatewayError,
            "connect-failure" => RetryCondition::ConnectFailure,
            "refused-stream" => RetryCondition::RefusedStream,
            "reset" => RetryCondition::Reset,
            "retriable-4xx" => RetryCondition::Retriable4xx,
            "cancelled" => RetryCondition::Grpc(1),
            "deadline-exceeded" => RetryCondition::Grpc(4),
            "resource-exhausted" => RetryCondition::Grpc(8),
            "internal" => RetryCondition::Grpc(13),
            "unavailable" => RetryCondition::Grpc(14),
            other => return cx.fail("retry_on", format!("`{other}` is not supported")),
        });
        // Of these Envoy makes as much as of a 5xx.
        if word == "5xx" {
            conditions.extend([
                RetryCondition::ConnectFailure,
                RetryCondition::RefusedStream,
                RetryCondition::Reset,
            ]);
        }
    }
    if conditions.is_empty() {
        return Some(None);
    }
    let mut seen = Vec::new();
    conditions.retain(|condition| {
        let first = !seen.contains(condition);
        seen.push(*condition);
        first
    });
    // Whatever the method: who asks for retries there, means all.
    Some(Some(Retry { attempts, conditions, per_try_timeout, non_idempotent: true, ..Retry::default() }))
}

fn respond(cx: &mut Cx, answer: pb::DirectResponseAction) -> Option<Respond> {
    let pb::DirectResponseAction { status, body } = answer;
    let status = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
    let Some(status) = status.and_then(|status| StatusCode::from_u16(status).ok()) else {
        return cx.fail("status", "this is not the status of an answer");
    };
    use core::data_source::Specifier;
    let body = match body.and_then(|body| body.specifier) {
        None => String::new(),
        Some(Specifier::InlineString(text)) => text,
        Some(Specifier::InlineBytes(bytes)) => match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(_) => return cx.fail("body.inline_bytes", "this is not text"),
        },
    };
    if !body.is_empty() && matches!(status.as_u16(), 204 | 205 | 304) {
        return cx.fail("body", format!("an answer of {} has none", status.as_u16()));
    }
    Some(Respond { status, body: body.into() })
}

type Edits = (Vec<core::HeaderValueOption>, Vec<String>);

fn edits(cx: &mut Cx, field: &str, (add, remove): Edits) -> Option<HeaderEdits> {
    let name = |cx: &mut Cx, field: &str, name: &str| match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) if !frames(&name) => Some(name),
        Ok(_) | Err(_) => cx.fail(field, format!("`{name}` cannot be changed")),
    };
    let remove = cx.each(&format!("{field}_to_remove"), remove, |cx, text| name(cx, "", &text));
    let mut edits = HeaderEdits::default();
    let added = cx.each(&format!("{field}_to_add"), add, |cx, option| {
        let core::HeaderValueOption { header, append, append_action } = option;
        let header = cx.required("header", header)?;
        let key = name(cx, "header.key", &header.key)?;
        let Ok(value) = HeaderValue::from_str(&header.value) else {
            return cx.fail("header.value", "this is not the value of a header");
        };
        if header.value.contains('%') {
            return cx.fail("header.value", "`%` begins a variable there, and none is supported");
        }
        let action = HeaderAppendAction::try_from(append_action).unwrap_or_default();
        match (append, action) {
            (Some(true), _) | (None, HeaderAppendAction::AppendIfExistsOrAdd) => edits.add.push((key, value)),
            (Some(false), _) | (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => {
                edits.set.push((key, value))
            }
            (None, HeaderAppendAction::AddIfAbsent | HeaderAppendAction::OverwriteIfExists) => {
                return cx.fail("append_action", format!("{} is not supported", action.as_str_name()));
            }
        }
        Some(())
    });
    added?;
    edits.remove = remove?;
    Some(edits)
}

/// What is ours to write for each connection.
fn frames(name: &HeaderName) -> bool {
    const NAMES: [&str; 9] = [
        "host",
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.contains(&name.as_str())
}
