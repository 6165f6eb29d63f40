//! Listeners.

mod chains;
mod manager;
mod tcp;

use std::time::Duration;

use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::config::listener::v3 as pb;
use super::super::generated::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use super::super::generated::envoy::extensions::filters::network;
use super::super::generated::outrigger::extensions::v1 as ext;
use super::super::listener::{Fields, of_manager, table_of};
use super::super::{ListenerResource, RouteSource};
use super::filters::rbac;
use super::{Cx, address, downstream_tls, noted, packed};
use crate::model::{
    Authorization, DestinationSource, Direction, Filter, FilterChain, Limits, Listener, Name,
};

pub(super) fn listener(cx: &mut Cx, name: &Name, resource: &ListenerResource) -> Option<pb::Listener> {
    let ListenerResource { listener: Listener { bind, direction, destination, chains }, routes } = resource;
    let count = chains.each().count();
    if routes.len() != count {
        return cx.fail("filter_chains", "of each it is to be said where its routes come from");
    }
    let traffic_direction = match direction {
        Direction::Inbound => core::TrafficDirection::Inbound,
        Direction::Outbound => core::TrafficDirection::Outbound,
    };
    let mut written = pb::Listener {
        name: name.to_string(),
        address: Some(address(cx, "address", bind)?),
        traffic_direction: traffic_direction.into(),
        listener_filters: match destination {
            DestinationSource::Bound => Vec::new(),
            DestinationSource::Redirected => vec![restorer()],
        },
        ..pb::Listener::default()
    };
    if let Some(only) = chains.only() {
        let (filter_chains, inspectors, said) = cx.within("filter_chains[0]", |cx| {
            let (chain, said) = chain(cx, (name, name), only, &routes[0])?;
            let (chains, inspectors) = downstream_tls::chains(cx, only, chain)?;
            Some((chains, inspectors, said))
        })?;
        written.listener_filters.extend(inspectors);
        return Some(pb::Listener { filter_chains, metadata: noted(said), ..written });
    }
    let mut sources = routes.iter().enumerate();
    for (matches, model) in chains.iter() {
        let (place, source) = sources.next()?;
        let table = table_of(name, place, count);
        let field = match matches {
            Some(_) => format!("filter_chains[{place}]"),
            None => "default_filter_chain".to_owned(),
        };
        let chain = cx.within(field, |cx| {
            let (chain, said) = chain(cx, (name, &table), model, source)?;
            downstream_tls::around(cx, model, pb::FilterChain { metadata: noted(said), ..chain })
        })?;
        match matches.map(chains::matches) {
            Some(matches) => {
                written.filter_chains.push(pb::FilterChain { filter_chain_match: Some(matches), ..chain });
            }
            None => written.default_filter_chain = Some(chain),
        }
    }
    let looks = chains.some().iter().any(|(matches, _)| matches.looks_into_tls());
    written.listener_filters.extend(looks.then(downstream_tls::inspector));
    Some(written)
}

/// A chain but for TLS, which is written around all the rest, and what is ours to say of it.
fn chain(
    cx: &mut Cx,
    (name, table): (&Name, &Name),
    model: &FilterChain,
    routes: &RouteSource,
) -> Option<(pb::FilterChain, ext::Listener)> {
    let FilterChain { tls: _, authorization, limits, filter } = model;
    let mut said = ext::Listener::default();
    let mut filters = vec![filter_of("connection_limit", &connection_limit(name, limits))];
    match filter {
        Filter::Http(http) => {
            let routes = (table, routes);
            let manager =
                manager::manager(cx, name, (http, routes), (authorization.as_ref(), limits), &mut said)?;
            filters.push(filter_of("http_connection_manager", &manager));
        }
        Filter::Tcp(tcp) => {
            filters.extend(authorization.iter().flat_map(|authorization| guards(name, authorization)));
            if *routes != RouteSource::None {
                return cx.fail("filters", "a listener that passes bytes has no routes");
            }
            said.limits = unsaid(limits, &Limits::default())?;
            let proxy = tcp::proxy(cx, name, tcp, &mut said.subsets)?;
            filters.push(filter_of("tcp_proxy", &proxy));
        }
    }
    Some((pb::FilterChain { filters, ..pb::FilterChain::default() }, said))
}

/// What finds out where a connection was going.
fn restorer() -> pb::ListenerFilter {
    let config_type = Some(pb::listener_filter::ConfigType::TypedConfig(packed(&OriginalDst {})));
    pb::ListenerFilter { name: "envoy.filters.listener.original_dst".to_owned(), config_type }
}

/// A filter of connections, under the name that Envoy's own has.
fn filter_of<M: prost::Message + prost::Name>(name: &str, message: &M) -> pb::Filter {
    let config_type = Some(pb::filter::ConfigType::TypedConfig(packed(message)));
    pb::Filter { name: format!("envoy.filters.network.{name}"), config_type }
}

fn connection_limit(name: &Name, limits: &Limits) -> network::connection_limit::v3::ConnectionLimit {
    let max_connections = Some(limits.connections.get().into());
    network::connection_limit::v3::ConnectionLimit { stat_prefix: name.to_string(), max_connections }
}

/// Who may connect, where nobody looks into what is said.
fn guards(name: &Name, authorization: &Authorization) -> impl Iterator<Item = pb::Filter> {
    let filter = |rbac::Written { word: _, rules, shadow_rules }| {
        let stat_prefix = name.to_string();
        filter_of("rbac", &network::rbac::v3::Rbac { rules, shadow_rules, stat_prefix })
    };
    rbac::write(authorization).into_iter().map(filter)
}

/// What Envoy's fields say of limits, and what they do not.
fn of_limits(cx: &mut Cx, limits: &Limits) -> Option<(Fields, Option<ext::ListenerLimits>)> {
    /// The most that Envoy grants, in KiB.
    const MOST_KIB: usize = 8192;
    /// The most that HTTP/2 has.
    const MOST_STREAMS: u32 = (1 << 31) - 1;
    let Limits { connections: _, header_bytes, headers, body: _, header_timeout, idle_timeout, streams } =
        limits;
    let said = || Fields {
        kib: u32::try_from(header_bytes.get().div_ceil(1024).min(MOST_KIB)).ok(),
        headers_timeout: time(*header_timeout),
        stream_idle: time(*idle_timeout),
        common: Some(core::HttpProtocolOptions {
            idle_timeout: time(*idle_timeout),
            max_headers_count: u32::try_from(headers.get()).ok(),
        }),
        http2: Some(core::Http2ProtocolOptions {
            max_concurrent_streams: Some(streams.get().min(MOST_STREAMS)),
        }),
    };
    let read = of_manager(cx, said())?;
    Some((said(), unsaid(limits, &read)?))
}

/// What is to be said beside what is read anyway.
fn unsaid(limits: &Limits, read: &Limits) -> Option<Option<ext::ListenerLimits>> {
    let Limits { connections: _, header_bytes, headers, body, header_timeout, idle_timeout, streams } =
        limits;
    let unless = |same: bool| (!same).then_some(());
    let said = ext::ListenerLimits {
        header_bytes: unless(*header_bytes == read.header_bytes)
            .and_then(|()| u64::try_from(header_bytes.get()).ok()),
        headers: unless(*headers == read.headers).and_then(|()| u32::try_from(headers.get()).ok()),
        body: body.map(Into::into),
        header_timeout: unless(*header_timeout == read.header_timeout).and_then(|()| time(*header_timeout)),
        idle_timeout: unless(*idle_timeout == read.idle_timeout).and_then(|()| time(*idle_timeout)),
        streams: unless(*streams == read.streams).map(|()| streams.get()),
    };
    Some((said != ext::ListenerLimits::default()).then_some(said))
}

pub(super) fn time(time: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(time).ok()
}
