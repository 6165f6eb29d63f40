//! Routes.
//!
//! In our own tables a request falls through to less specific hosts where none of a host's routes takes it; a client of xDS
//! chooses a host once. So each host is written with its own routes and, behind them, those of the hosts that cover it.

mod extension;
mod forward;
mod matches;
mod respond;

pub(super) use self::matches::{decoded_parameter, header};

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use super::super::generated::envoy::config::route::v3 as pb;
use super::super::generated::outrigger::extensions::v1 as ours;
use super::super::route::{nothing, takes_all};
use super::{Cx, filters, hash, noted, packed, stream, time};
use crate::model::{Action, HeaderEdits, HostPattern, Name, Respond, Route, RouteTable};

/// The longest answer that Envoy takes where no other length is written.
const LONGEST_ANSWER: usize = 4096;

pub(super) fn table(cx: &mut Cx, name: &Name, table: &RouteTable) -> Option<pb::RouteConfiguration> {
    let RouteTable { routes, on_demand } = table;
    let written = cx.each("routes", routes.iter().collect(), route)?;
    let virtual_hosts = virtual_hosts(routes).into_iter().map(|(domains, places)| pb::VirtualHost {
        name: domains.first().cloned().unwrap_or_default(),
        domains,
        routes: places.into_iter().map(|place| written[place].clone()).collect(),
        ..pb::VirtualHost::default()
    });
    let longest = routes.iter().map(|route| match &route.action {
        Action::Respond(Respond { status: _, body }) => body.len(),
        Action::Forward(_) | Action::Redirect(_) => 0,
    });
    let longest = longest.max().filter(|longest| *longest > LONGEST_ANSWER);
    Some(pb::RouteConfiguration {
        name: name.to_string(),
        virtual_hosts: virtual_hosts.collect(),
        max_direct_response_body_size_bytes: longest
            .map(|longest| u32::try_from(longest).unwrap_or(u32::MAX)),
        ignore_port_in_host_matching: true,
        vhds: on_demand.then(|| pb::Vhds { config_source: Some(stream()) }),
        ..pb::RouteConfiguration::default()
    })
}

/// The one host of a table that has no other.
pub(super) fn host(cx: &mut Cx, name: &Name, table: &RouteTable) -> Option<pb::VirtualHost> {
    let mut hosts = self::table(cx, name, table)?.virtual_hosts;
    match hosts.pop() {
        Some(host) if hosts.is_empty() => Some(pb::VirtualHost { name: name.to_string(), ..host }),
        Some(_) | None => cx.fail("domains", "these are not the routes of one host"),
    }
}

/// The routes of each host, by their places; `None` for those of all.
type ByHost<'r> = HashMap<Option<Cow<'r, HostPattern>>, Vec<usize>>;

/// The domains of each virtual host, and the places of its routes. Hosts whose routes are the same share one.
fn virtual_hosts(routes: &[Route]) -> Vec<(Vec<String>, Vec<usize>)> {
    let (by_host, patterns) = by_host(routes);
    let mut hosts: Vec<(Vec<String>, Vec<usize>)> = Vec::new();
    let mut known: HashMap<Vec<usize>, usize> = HashMap::new();
    for pattern in patterns {
        let places = of_host(routes, &by_host, Some(pattern));
        let domain = match pattern {
            HostPattern::Exact(host) => host.to_string(),
            HostPattern::Suffix(suffix) => format!("*{suffix}"),
        };
        let at = *known.entry(places.clone()).or_insert(hosts.len());
        match hosts.get_mut(at) {
            Some((domains, _)) => domains.push(domain),
            None => hosts.push((vec![domain], places)),
        }
    }
    // Without routes it would answer as no host does.
    let rest = of_host(routes, &by_host, None);
    if !rest.is_empty() {
        hosts.push((vec!["*".to_owned()], rest));
    }
    hosts
}

/// The routes that a host has, whoever they are written for, in the order in which they are tried.
pub(in super::super) fn routes_of<'r>(routes: &'r [Route], host: &HostPattern) -> Vec<&'r Route> {
    let (by_host, _) = by_host(routes);
    of_host(routes, &by_host, Some(host)).into_iter().map(|place| &routes[place]).collect()
}

/// By host, and the hosts in the order in which they come.
fn by_host(routes: &[Route]) -> (ByHost<'_>, Vec<&HostPattern>) {
    let mut by_host = ByHost::from([(None, Vec::new())]);
    let mut patterns: Vec<&HostPattern> = Vec::new();
    for (place, route) in routes.iter().enumerate() {
        let hosts = &route.matches.hosts;
        for host in hosts {
            by_host.entry(Some(Cow::Borrowed(host))).or_insert_with(|| {
                patterns.push(host);
                Vec::new()
            });
        }
        let keys = hosts.iter().map(|host| Some(Cow::Borrowed(host))).chain(hosts.is_empty().then_some(None));
        for key in keys {
            by_host.entry(key).or_default().push(place);
        }
    }
    (by_host, patterns)
}

/// The places of a host's routes and then of those of all that cover it, up to the first that leaves nothing to others; and
/// without one that answers as if there were none.
fn of_host(routes: &[Route], by_host: &ByHost<'_>, host: Option<&HostPattern>) -> Vec<usize> {
    let mut places = Vec::new();
    let mut seen = HashSet::new();
    for key in host.map(Cow::Borrowed).into_iter().chain(covering(host)).map(Some).chain([None]) {
        for &place in by_host.get(&key).into_iter().flatten() {
            // What stands there for a more specific host takes no other request for it.
            if !seen.insert(place) {
                continue;
            }
            let route = &routes[place];
            let is_last = takes_all(&route.matches);
            if !(is_last && is_nothing(route)) {
                places.push(place);
            }
            if is_last {
                return places;
            }
        }
    }
    places
}

/// The patterns that take all hosts that another does and more, the most specific first.
fn covering(host: Option<&HostPattern>) -> impl Iterator<Item = Cow<'_, HostPattern>> {
    let text = match host {
        None => "",
        Some(HostPattern::Exact(host) | HostPattern::Suffix(host)) => host,
    };
    let dots = text.match_indices('.').map(|(dot, _)| dot).filter(|dot| *dot > 0);
    dots.map(|dot| Cow::Owned(HostPattern::Suffix(text[dot..].into())))
}

/// Whether a route answers as if there were none.
fn is_nothing(route: &Route) -> bool {
    matches!(route.action, Action::Respond(_))
        && *route == Route::new(route.matches.clone(), nothing().action)
}

fn route(cx: &mut Cx, route: &Route) -> Option<pb::Route> {
    let Route {
        matches,
        action,
        jwt: _,
        external_authorization: _,
        rate_limit: _,
        global_rate_limit: _,
        concurrency,
        fault: _,
        request_headers,
        response_headers,
    } = route;
    let mut beside = ours::Route::default();
    if let Some(limit) = concurrency {
        beside.concurrency = Some(extension::concurrency(cx, limit)?);
    }
    let mut out = pb::Route { r#match: Some(matches::matches(matches, action)), ..pb::Route::default() };
    let (mut request, mut response) = (request_headers.clone(), response_headers.clone());
    out.action = Some(match action {
        Action::Forward(forward) => {
            out.request_body_buffer_limit = forward::kept(forward);
            let to = forward::forward(cx, forward, &matches.path, (&mut request, &mut beside))?;
            pb::route::Action::Route(to)
        }
        Action::Redirect(redirect) => match respond::redirect(redirect) {
            Some(action) => pb::route::Action::Redirect(action),
            None => {
                beside.redirect = true;
                pb::route::Action::DirectResponse(respond::disguised(cx, redirect, &mut response)?)
            }
        },
        Action::Respond(answer) => pb::route::Action::DirectResponse(respond::respond(answer)),
    });
    (out.request_headers_to_add, out.request_headers_to_remove) = edits(cx, "request_headers", &request)?;
    (out.response_headers_to_add, out.response_headers_to_remove) = edits(cx, "response_headers", &response)?;
    out.metadata = noted(beside);
    out.typed_per_filter_config = filters::of_route(route);
    Some(out)
}

/// Changes to header fields, in the order in which they are made.
fn edits(
    cx: &mut Cx,
    field: &str,
    edits: &HeaderEdits,
) -> Option<(Vec<core::HeaderValueOption>, Vec<String>)> {
    let HeaderEdits { remove, set, add } = edits;
    let set = set.iter().map(|edit| (edit, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = add.iter().map(|edit| (edit, HeaderAppendAction::AppendIfExistsOrAdd));
    let names = set.clone().chain(add.clone()).map(|((name, _), _)| name).chain(remove);
    if names.into_iter().any(|name| *name == ::http::header::HOST) {
        return cx.fail(field, "the host of a message is not changed as a header field there");
    }
    let added = cx.each(field, set.chain(add).collect(), |cx, ((name, value), action)| {
        let Ok(text) = std::str::from_utf8(value.as_bytes()) else {
            return cx.fail("", format!("the value of `{name}` is not text"));
        };
        Some(core::HeaderValueOption {
            // There `%` begins a variable.
            header: Some(core::HeaderValue { key: name.to_string(), value: text.replace('%', "%%") }),
            append: None,
            append_action: action.into(),
            keep_empty_value: value.is_empty(),
        })
    })?;
    Some((added, remove.iter().map(ToString::to_string).collect()))
}
