//! A listener: where connections arrive, and what is done with them.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use super::super::cursor::{Cx, Fields};
use super::super::fault::{Fault, show};
use super::super::scalar;
use super::super::tree::{Node, View};
use super::authorization::{self, Around};
use super::{
    address, chains, count, external_authorization, global_rate_limit, jwt, route, some_time, split, tls,
};
use crate::model::{
    Address, DestinationSource, Direction, DownstreamTls, Filter, FilterChain, HttpFilter, Limits, Listener,
    Name, RouteTable, TcpFilter,
};

/// Below this, ordinary browsers with ordinary cookies are turned away.
const MIN_HEADER_BYTES: u64 = 8 << 10;

/// What a header map of the `http` crate can be relied on to hold, with room to spare.
pub(in super::super) const MAX_HEADERS: u64 = 10_000;

/// A listener, and its route table when that is written in place.
pub(super) fn listener<'a>(
    cx: &mut Cx<'a>,
    name: &Name,
    node: Node<'a>,
) -> Option<(Listener, Option<RouteTable>)> {
    let mut m = cx.fields(node, "listener")?;
    m.exactly_one(&["routes", "tcp", "chains"]);
    let bind = m.required("bind", address);
    let directions = [("inbound", Direction::Inbound), ("outbound", Direction::Outbound)];
    let direction = m.optional("direction", |cx, node| cx.word(node, &directions)).unwrap_or_default();
    let destinations = [("none", DestinationSource::Bound), ("redirect", DestinationSource::Redirected)];
    let destination =
        m.optional("original_destination", |cx, node| cx.word(node, &destinations)).unwrap_or_default();
    if destination == DestinationSource::Redirected && matches!(bind, Some(Address::Unix(_))) {
        m.refuse("original_destination", || {
            Fault::new("connections to a unix socket are not redirected")
                .hint("remove it, or bind to an address")
        });
    }
    let read = if m.has("chains") {
        chains::chains(&mut m).map(|chains| (chains, None))
    } else {
        let read = chain(&mut m, Some(name)).map(|(chain, table)| (chain.into(), table));
        m.optional("chains", |_, _| None::<()>);
        m.optional("rest", |_, _| None::<()>);
        m.refuse("rest", || {
            Fault::new("without `chains`, there is nothing that they would leave").hint("write `chains` too")
        });
        read
    };
    m.finish();
    let (chains, table) = read?;
    Some((Listener { bind: bind?, direction, destination, chains }, table))
}

/// What is done with connections, and its route table when that is written in place, as only that of a listener can be.
pub(super) fn chain(
    m: &mut Fields<'_, '_>,
    inline: Option<&Name>,
) -> Option<(FilterChain, Option<RouteTable>)> {
    let tls = tls::downstream(m);
    let jwt = m.optional("jwt", jwt::issuers);
    let around = Around {
        http: m.has("routes"),
        claims: m.has("jwt"),
        identified: matches!(tls, Some(DownstreamTls::Mutual(_))),
        tls: tls.is_some(),
    };
    let authorization =
        m.optional("authorization", |cx, node| authorization::authorization(cx, node, around));
    let external = m.optional("external_authorization", external_authorization::of_listener);
    let counts = m.optional("global_rate_limit", global_rate_limit::of_listener);
    // Without it, what was meant to be guarded would stand open.
    let unguarded = (m.has("authorization") && authorization.is_none())
        || (m.has("jwt") && jwt.is_none())
        || (m.has("external_authorization") && external.is_none())
        || (m.has("global_rate_limit") && counts.is_none());
    let limits = m.optional("limits", limits).unwrap_or_default();
    let idle_timeout = limits.idle_timeout;
    let trusted = m.optional("trusted_proxies", |cx, node| {
        cx.list(node, "a list of networks, as `[10.0.0.0/8]`", |cx, node| {
            cx.parsed(node, "a network, as `10.0.0.0/8`", scalar::network)
        })
    });
    let merge_slashes = m.optional("merge_slashes", Cx::boolean).unwrap_or(true);
    let routes = m.optional("routes", |cx, node| routes(cx, inline, node));
    let tcp = m.optional("tcp", |cx, node| tcp(cx, node, idle_timeout));
    if m.has("tcp") && !m.has("routes") {
        refuse_http(m);
    }
    if unguarded {
        return None;
    }
    let (filter, table) = match (routes, tcp) {
        (Some((routes, table)), _) => {
            let trusted_proxies = trusted.unwrap_or_default();
            let jwt = jwt.unwrap_or_default();
            let http = HttpFilter {
                jwt,
                external_authorization: external,
                rate_limit_service: counts,
                routes,
                trusted_proxies,
                merge_slashes,
            };
            (Filter::Http(http), table)
        }
        (None, tcp) => (Filter::Tcp(tcp?), None),
    };
    Some((FilterChain { tls, authorization, limits, filter }, table))
}

fn refuse_http(m: &mut Fields<'_, '_>) {
    for key in ["trusted_proxies", "merge_slashes", "jwt", "external_authorization", "global_rate_limit"] {
        m.refuse(key, || {
            Fault::new("this is about HTTP, and the listener passes bytes")
                .hint("remove it, or write `routes`")
        });
    }
}

/// The name of a table, or the routes themselves: a table under the listener's name.
fn routes<'a>(cx: &mut Cx<'a>, inline: Option<&Name>, node: Node<'a>) -> Option<(Name, Option<RouteTable>)> {
    match inline {
        Some(listener) if matches!(node.view(), View::List) => {
            return Some((listener.clone(), Some(route::table(cx, listener, node)?)));
        }
        None if matches!(node.view(), View::List) => {
            let fault =
                Fault::new("a list of routes is a table under the listener's name, and here are several");
            return cx.fail(node, fault.hint("write it in `route_tables`, and its name here"));
        }
        Some(_) | None => {}
    }
    let text = cx.string(node, "a list of routes, or the name of a route table")?;
    if let Some((name, _)) = cx.tables.get_key_value(&*text) {
        let name = name.clone();
        cx.tables.insert(name.clone(), true);
        return Some((name, None));
    }
    let fault = Fault::new(format!("there is no route table {}", show(&text)));
    let fault =
        fault.choice(&text, cx.tables.keys().map(Name::as_str), "expected a list of routes, or one of");
    cx.fail(node, fault)
}

fn limits<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Limits> {
    let default = Limits::default();
    let count = |cx: &mut Cx<'a>, node| count(cx, node, u32::MAX);
    let mut m = cx.fields(node, "limits")?;
    let limits = Limits {
        connections: m.optional("connections", count).unwrap_or(default.connections),
        header_bytes: m.optional("header_bytes", header_bytes).unwrap_or(default.header_bytes),
        headers: m.optional("headers", headers).unwrap_or(default.headers),
        body: m.optional("body", body).or(default.body),
        header_timeout: m.optional("header_timeout", some_time).unwrap_or(default.header_timeout),
        idle_timeout: m.optional("idle_timeout", some_time).unwrap_or(default.idle_timeout),
        streams: m.optional("streams", count).unwrap_or(default.streams),
    };
    m.finish();
    Some(limits)
}

fn headers<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<NonZeroUsize> {
    let n = cx.whole(node, 1, MAX_HEADERS)?;
    NonZeroUsize::new(usize::try_from(n).ok()?)
}

const SIZE: &str = "a size, as `64KiB`";

fn header_bytes<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<NonZeroUsize> {
    cx.parsed(node, SIZE, |text| {
        let bytes = scalar::size(text)?;
        let fits = usize::try_from(bytes).ok().and_then(NonZeroUsize::new);
        fits.filter(|_| (MIN_HEADER_BYTES..=u32::MAX.into()).contains(&bytes)).ok_or_else(|| {
            Fault::new(format!("{} is out of range", show(text)))
                .hint("expected at least `8KiB`, below `4GiB`")
        })
    })
}

fn body<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<NonZeroU64> {
    cx.parsed(node, SIZE, |text| {
        NonZeroU64::new(scalar::size(text)?).ok_or_else(|| {
            Fault::new("zero makes no sense here: no request could have a body")
                .hint("leave the key out for no limit, or match on `methods`")
        })
    })
}

fn tcp<'a>(cx: &mut Cx<'a>, node: Node<'a>, idle_timeout: Duration) -> Option<TcpFilter> {
    let mut m = cx.fields(node, "tcp")?;
    let to = m.required("to", split::tcp);
    let idle_timeout = m.optional("idle_timeout", some_time).unwrap_or(idle_timeout);
    m.finish();
    Some(TcpFilter { to: to?, idle_timeout })
}
