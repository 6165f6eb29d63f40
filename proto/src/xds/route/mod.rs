//! Routes.
//!
//! A host is chosen first, then the first of its routes that matches; where none does, there is nothing elsewhere either.
//! In our own tables a request falls through to less specific hosts: so each host here ends with an answer of 404.

mod edits;
mod extension;
mod forward;
mod matches;
mod query;
mod respond;
mod retry;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use ::http::StatusCode;
use prost::Message;

use self::edits::{Both, Levels};
pub(super) use self::edits::{then, touch_alike};

use self::forward::{Beside, Defaults};
pub(super) use self::matches::{decoded_parameter, header, prefix_of};
pub(super) use self::query::encode;
pub(super) use self::retry::{
    MAX_BODY, PREVIOUS_HOSTS, STATUSES, conditions, default_backoff, exact_word, word,
};
use super::any;
use super::cluster::ads;
use super::cx::Cx;
use super::filters::{self, RoutePolicies, rate_limit};
use super::generated::envoy::config::core::v3 as core;
use super::generated::envoy::config::route::v3 as pb;
use super::generated::envoy::r#type::v3 as kind;
use super::generated::outrigger::extensions::v1 as ours;
use crate::model::{
    Action, HeaderEdits, HostPattern, Match, Name, PathMatch, PathRewrite, Percent, Respond, Route,
    RouteTable,
};

/// The number of `RouteConfiguration.virtual_hosts`.
pub(super) const HOSTS: u32 = 2;

/// A table that stands within something else.
pub(super) fn table(cx: &mut Cx, mut table: pb::RouteConfiguration) -> Option<RouteTable> {
    let hosts = std::mem::take(&mut table.virtual_hosts);
    of_hosts(cx, table, hosts, |_, host| Some(host))
}

/// A table with its hosts in bytes. They are decoded one by one: the messages of ten thousand take fifty times the room of
/// what they mean.
pub(super) fn large_table(
    cx: &mut Cx,
    table: pb::RouteConfiguration,
    hosts: Vec<&[u8]>,
) -> Option<RouteTable> {
    of_hosts(cx, table, hosts, |cx, bytes| match pb::VirtualHost::decode(bytes) {
        Ok(host) => Some(host),
        Err(error) => cx.fail("", error.to_string()),
    })
}

fn of_hosts<H>(
    cx: &mut Cx,
    table: pb::RouteConfiguration,
    hosts: Vec<H>,
    mut decode: impl FnMut(&mut Cx, H) -> Option<pb::VirtualHost>,
) -> Option<RouteTable> {
    let pb::RouteConfiguration {
        name: _,
        virtual_hosts: _,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        most_specific_header_mutations_wins,
        // Of what is written there, every length is fine.
        max_direct_response_body_size_bytes: _,
        request_mirror_policies,
        // It always is.
        ignore_port_in_host_matching: _,
        vhds,
    } = table;
    let on_demand = vhds.is_some();
    if let Some(pb::Vhds { config_source }) = vhds {
        cx.within("vhds", |cx| ads(cx, "config_source", config_source));
    }
    let request = (request_headers_to_add, request_headers_to_remove);
    let response = (response_headers_to_add, response_headers_to_remove);
    let edits = edits::both(cx, request, response);
    let mirror = forward::mirror(cx, request_mirror_policies, "");
    let around = Around {
        levels: Levels {
            host: Both::default(),
            table: edits.unwrap_or_default(),
            innermost_wins: most_specific_header_mutations_wins,
        },
        defaults: Defaults { mirror: mirror.flatten(), ..Defaults::default() },
        limits: Vec::new(),
    };
    if on_demand && (around.levels.table != Both::default() || around.defaults.mirror.is_some()) {
        // They come on their own, and would go without.
        return cx.fail("vhds", "what is said around all hosts is not supported for hosts on demand");
    }
    let (mut taken, mut routes) = (HashSet::new(), Vec::new());
    cx.each("virtual_hosts", hosts, |cx, host| {
        let host = decode(cx, host)?;
        routes.extend(virtual_host(cx, host, (&around, &mut taken))?);
        Some(())
    })?;
    Some(RouteTable { routes: routes.into(), on_demand })
}

/// A host that comes on its own.
pub(super) fn host(cx: &mut Cx, host: pb::VirtualHost) -> Option<RouteTable> {
    let levels = Levels { host: Both::default(), table: Both::default(), innermost_wins: false };
    let around = Around { levels, defaults: Defaults::default(), limits: Vec::new() };
    let routes = virtual_host(cx, host, (&around, &mut HashSet::new()))?;
    Some(RouteTable { routes: routes.into(), on_demand: false })
}

/// What is said around a route.
struct Around {
    levels: Levels,
    defaults: Defaults,
    /// What requests count as.
    limits: Vec<rate_limit::Limit>,
}

fn virtual_host(
    cx: &mut Cx,
    host: pb::VirtualHost,
    (table, taken): (&Around, &mut HashSet<Option<HostPattern>>),
) -> Option<Vec<Route>> {
    let pb::VirtualHost {
        name: _,
        domains,
        routes,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        retry_policy,
        hedge_policy,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies,
        rate_limits,
    } = host;
    let hosts = hosts_of(cx, domains, taken);
    let request = (request_headers_to_add, request_headers_to_remove);
    let response = (response_headers_to_add, response_headers_to_remove);
    let edits = edits::both(cx, request, response).unwrap_or_default();
    let retry =
        retry_policy.and_then(|policy| cx.within("retry_policy", |cx| retry::retry(cx, policy, None)));
    if let Some(policy) = hedge_policy {
        cx.within("hedge_policy", |cx| retry::hedge(cx, policy, None));
    }
    let mirror = forward::mirror(cx, request_mirror_policies, "").flatten();
    let around = Around {
        levels: Levels {
            host: edits,
            table: table.levels.table.clone(),
            innermost_wins: table.levels.innermost_wins,
        },
        defaults: Defaults {
            retry,
            hedge: hedge_policy,
            mirror: mirror.or_else(|| table.defaults.mirror.clone()),
            max_body: request_body_buffer_limit.or(per_request_buffer_limit_bytes.map(u64::from)),
        },
        limits: rate_limit::limits(cx, "rate_limits", rate_limits).unwrap_or_default(),
    };
    let routes = cx.each("routes", routes, |cx, written| route(cx, written, &around));
    let (mut routes, hosts) = (routes?, hosts?);
    if !routes.last().is_some_and(|last| takes_all(&last.matches)) {
        routes.push(nothing());
    }
    // Those of all hosts stand apart from those of one, as they are less specific.
    let (all, some): (Vec<_>, Vec<_>) = hosts.into_iter().partition(Option::is_none);
    let some: Vec<_> = some.into_iter().flatten().collect();
    let apart = [(!some.is_empty()).then_some(some), (!all.is_empty()).then(Vec::new)];
    let of = |hosts: Vec<HostPattern>| {
        routes.iter().map(move |route| {
            let matches = Match { hosts: hosts.clone(), ..route.matches.clone() };
            Route { matches, ..route.clone() }
        })
    };
    Some(apart.into_iter().flatten().flat_map(of).collect())
}

/// What a host without a route for a request answers.
pub(super) fn nothing() -> Route {
    let answer = Respond { status: StatusCode::NOT_FOUND, body: Box::default() };
    Route::new(Match::default(), Action::Respond(answer))
}

/// Whether nothing but the host decides.
pub(super) fn takes_all(matches: &Match) -> bool {
    let Match { hosts: _, path, methods, headers, query } = matches;
    *path == PathMatch::Any && methods.is_empty() && headers.is_empty() && query.is_empty()
}

/// Each once; `None` inside for all hosts.
fn hosts_of(
    cx: &mut Cx,
    domains: Vec<String>,
    taken: &mut HashSet<Option<HostPattern>>,
) -> Option<Vec<Option<HostPattern>>> {
    if domains.is_empty() {
        return cx.fail("domains", "there is none");
    }
    let mut own = HashSet::new();
    let hosts = cx.each("domains", domains, |cx, domain| {
        let host = domain_of(cx, &domain)?;
        // Control planes write a host with its port and without: here it is one, of whose routes there are no two kinds.
        if !own.insert(host.clone()) {
            return Some(None);
        }
        if !taken.insert(host.clone()) {
            return cx.fail("", format!("`{domain}` is taken already; a port makes no other host"));
        }
        Some(Some(host))
    })?;
    Some(hosts.into_iter().flatten().collect())
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

fn route(cx: &mut Cx, route: pb::Route, around: &Around) -> Option<Route> {
    let pb::Route {
        name: _,
        r#match: matched,
        mut action,
        metadata,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        typed_per_filter_config,
    } = route;
    let matched = cx.required("match", matched);
    let matched = matched.and_then(|matched| cx.within("match", |cx| matches::matches(cx, matched)));
    let beside = any::ours::<ours::Route>(cx, metadata);
    let limits = limits_of(cx, &mut action);
    let sent = matches!(action, Some(pb::route::Action::Route(_)));
    let limits = limits.map(|(own, both)| {
        let around = rate_limit::Around { own: &own, host: &around.limits, both, sent };
        filters::of_route(cx, typed_per_filter_config, around)
    });
    let policies = limits.flatten();
    let request = (request_headers_to_add, request_headers_to_remove);
    let response = (response_headers_to_add, response_headers_to_remove);
    let edits = edits::both(cx, request, response);
    let action = cx.required("action", action);
    let (mut beside, mut edits) = (beside?, edits?);
    let concurrency = match beside.concurrency.take() {
        None => Some(None),
        Some(limit) => cx.within("concurrency", |cx| extension::concurrency(cx, limit)).map(Some),
    };
    let limit = request_body_buffer_limit.or(per_request_buffer_limit_bytes.map(u64::from));
    let defaults = Defaults { max_body: limit.or(around.defaults.max_body), ..around.defaults.clone() };
    let mut matched = matched?;
    let read = action_of(cx, action?, (&matched, &defaults), (beside, &mut edits.response));
    let (mut action, shares) = read?;
    let targets = match &mut action {
        Action::Forward(forward) => {
            // What is replaced of `/` is a prefix, and all paths have it.
            if matched.path == PathMatch::Any && matches!(forward.rewrite.path, Some(PathRewrite::Prefix(_)))
            {
                matched.path = PathMatch::Prefix(Box::default());
            }
            forward.to.targets.iter_mut().zip(shares).collect()
        }
        Action::Redirect(_) | Action::Respond(_) => Vec::new(),
    };
    let Both { request, response } = around.levels.merge(&edits, targets);
    let RoutePolicies { jwt, external_authorization, rate_limit, global_rate_limit, fault } = policies?;
    Some(Route {
        jwt,
        external_authorization,
        rate_limit,
        global_rate_limit,
        concurrency: concurrency?.map(Box::new),
        fault,
        request_headers: request,
        response_headers: response,
        ..Route::new(matched, action)
    })
}

/// What requests count as, and whether that is beside what the host says.
fn limits_of(cx: &mut Cx, action: &mut Option<pb::route::Action>) -> Option<(Vec<rate_limit::Limit>, bool)> {
    match action {
        Some(pb::route::Action::Route(to)) => {
            let written = std::mem::take(&mut to.rate_limits);
            let own = cx.within("route", |cx| rate_limit::limits(cx, "rate_limits", written))?;
            Some((own, to.include_vh_rate_limits.unwrap_or(false)))
        }
        Some(pb::route::Action::Redirect(_) | pb::route::Action::DirectResponse(_)) | None => {
            Some((Vec::new(), false))
        }
    }
}

/// What becomes of requests, and the changes that each share of them makes.
fn action_of(
    cx: &mut Cx,
    action: pb::route::Action,
    (matched, defaults): (&Match, &Defaults),
    (beside, response): (ours::Route, &mut HeaderEdits),
) -> Option<(Action, Vec<Both>)> {
    let ours::Route { concurrency: _, fallback, hedge, retry, subsets, mirror_subset, redirect } = beside;
    let speaks_of_forward = fallback.is_some()
        || hedge.is_some()
        || retry.is_some()
        || !subsets.is_empty()
        || !mirror_subset.is_empty();
    match action {
        pb::route::Action::Route(_) | pb::route::Action::Redirect(_) if redirect => {
            cx.fail("metadata", "the extension calls this a redirect, and it is no `direct_response`")
        }
        pb::route::Action::Route(to) => {
            let beside = Beside { subsets, mirror_subset, hedge, retry, fallback };
            let read = |cx: &mut Cx| forward::forward(cx, to, (matched, defaults), beside);
            let (forward, shares) = cx.within("route", read)?;
            Some((Action::Forward(forward), shares))
        }
        pb::route::Action::Redirect(_) | pb::route::Action::DirectResponse(_) if speaks_of_forward => {
            cx.fail("metadata", "nothing is sent on by this route: the extension speaks of it")
        }
        pb::route::Action::Redirect(action) => {
            let redirect = cx.within("redirect", |cx| respond::redirect(cx, action))?;
            Some((Action::Redirect(redirect), Vec::new()))
        }
        pb::route::Action::DirectResponse(answer) => cx.within("direct_response", |cx| {
            let answer = respond::respond(cx, answer)?;
            let action = if redirect {
                Action::Redirect(respond::disguised(cx, &answer, response)?)
            } else {
                Action::Respond(answer)
            };
            Some((action, Vec::new()))
        }),
    }
}

/// The name of a cluster.
fn name(cx: &mut Cx, field: &str, name: &str) -> Option<Name> {
    Name::new(name).or_else(|| cx.fail(field, "this is not the name of a cluster"))
}

/// A share of requests; all, where none is written. There is no runtime that could say another.
fn percent(cx: &mut Cx, field: &str, share: Option<core::RuntimeFractionalPercent>) -> Option<Percent> {
    use kind::fractional_percent::DenominatorType as D;
    let Some(core::RuntimeFractionalPercent { default_value, runtime_key: _ }) = share else {
        return Some(Percent::ALL);
    };
    let Some(kind::FractionalPercent { numerator, denominator }) = default_value else {
        return cx.fail(&format!("{field}.default_value"), "this is missing");
    };
    let parts = match D::try_from(denominator).unwrap_or_default() {
        D::Hundred => 10_000,
        D::TenThousand => 100,
        D::Million => 1,
    };
    Percent::from_millionths(numerator.saturating_mul(parts)).or(Some(Percent::ALL))
}
