//! Listeners.

mod chains;
mod limits;
mod manager;
mod tcp;
#[cfg(test)]
mod tests;

use prost_types::Any;

pub(super) use self::chains::table_of;
pub(super) use self::limits::{Fields, of_manager};

use super::any::{decode, decoded, is, ours, type_of};
use super::cluster::address;
use super::cx::Cx;
use super::filters::{Ours, rbac};
use super::generated::envoy::config::core::v3::TrafficDirection;
use super::generated::envoy::config::listener::v3 as pb;
use super::generated::envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit;
use super::generated::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use super::generated::envoy::extensions::filters::network::rbac::v3::Rbac;
use super::generated::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use super::tls;
use crate::model::{Address, DestinationSource, Direction, FilterChain, Limits, Listener, Name, RouteTable};

/// A listener, and where its routes come from.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerResource {
    /// The listener.
    pub listener: Listener,
    /// Of each of its chains, in their order.
    pub routes: Box<[RouteSource]>,
}

impl ListenerResource {
    /// The tables that come from elsewhere.
    pub fn tables(&self) -> impl Iterator<Item = &Name> {
        self.routes.iter().filter_map(|source| match source {
            RouteSource::Rds(table) => Some(table),
            RouteSource::None | RouteSource::Stated(_) => None,
        })
    }

    /// The tables that stand with it, as they are called among all, if it has this name.
    pub fn stated(&self, name: &Name) -> impl Iterator<Item = (Name, &RouteTable)> {
        let sources = self.routes.iter().enumerate();
        sources.filter_map(|(place, source)| match source {
            RouteSource::Stated(table) => Some((table_of(name, place, self.routes.len()), table)),
            RouteSource::None | RouteSource::Rds(_) => None,
        })
    }
}

/// Where routes come from.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteSource {
    /// There are none: the listener passes bytes.
    None,
    /// They stand with the listener.
    Stated(RouteTable),
    /// The resource of this name says.
    Rds(Name),
}

pub(super) fn listener(cx: &mut Cx, name: &Name, listener: pb::Listener) -> Option<ListenerResource> {
    let pb::Listener {
        name: _,
        address: bind,
        filter_chains,
        default_filter_chain,
        traffic_direction,
        listener_filters,
        metadata,
        bind_to_port,
    } = listener;
    let bind = address(cx, bind);
    let direction = match TrafficDirection::try_from(traffic_direction).unwrap_or_default() {
        TrafficDirection::Outbound => Direction::Outbound,
        TrafficDirection::Inbound | TrafficDirection::Unspecified => Direction::Inbound,
    };
    if bind_to_port == Some(false) {
        return cx.fail("bind_to_port", "a listener that does not listen is not supported");
    }
    let said = ours(cx, metadata)?;
    let destination = tls::inspectors(cx, listener_filters)?;
    if destination == DestinationSource::Redirected && matches!(bind, Some(Address::Unix(_))) {
        return cx.fail("listener_filters", "connections to a unix socket are not redirected");
    }
    let (chains, routes) = chains::chains(cx, name, (filter_chains, default_filter_chain), said)?;
    let listener = Listener { bind: bind?, direction, destination, chains };
    Some(ListenerResource { listener, routes })
}

/// What is ours to say of the last filter.
struct Said {
    of_http: Ours,
    subsets: Vec<String>,
}

/// What guards connections, and then what they are.
fn chain_of(
    cx: &mut Cx,
    table: &Name,
    filters: Vec<pb::Filter>,
    said: Said,
) -> Option<(FilterChain, RouteSource)> {
    let mut filters = cx.each("filters", filters, |cx, filter| {
        let pb::Filter { name: _, config_type } = filter;
        let pb::filter::ConfigType::TypedConfig(any) = cx.required("typed_config", config_type)?;
        Some(any)
    })?;
    let Some(last) = filters.pop() else {
        return cx.fail("filters", "there is none: the last one is to be for HTTP, or for TCP");
    };
    let place = filters.len();
    let mut guards = Guards::default();
    cx.each("filters", filters, |cx, any| cx.within("typed_config", |cx| guards.add(cx, &any)))?;
    let Guards { connections, rules } = guards;
    let Said { of_http, subsets } = said;
    let (filter, authorization, read, routes) =
        cx.within(format_args!("filters[{place}].typed_config"), |cx| {
            if is::<HttpConnectionManager>(&last) {
                if rules.is_some() {
                    return cx.fail("", "before it no `rbac` is supported: write that of HTTP");
                }
                let manager = decode(cx, &last)?;
                manager::manager(cx, table, manager, of_http)
            } else if is::<TcpProxy>(&last) {
                let proxy = decode(cx, &last)?;
                let filter = tcp::proxy(cx, proxy, &subsets)?;
                let rules = rules.and_then(rbac::Gathered::finish);
                Some((filter, rules, Limits::default(), RouteSource::None))
            } else {
                cx.fail("", format!("`{}` is no filter of connections", type_of(&last)))
            }
        })?;
    let limits = Limits { connections: connections.unwrap_or(read.connections), ..read };
    Some((FilterChain { tls: None, authorization, limits, filter }, routes))
}

/// What stands before a connection is looked into.
#[derive(Default)]
struct Guards {
    connections: Option<std::num::NonZeroU32>,
    rules: Option<rbac::Gathered>,
}

impl Guards {
    fn add(&mut self, cx: &mut Cx, any: &Any) -> Option<()> {
        if is::<ConnectionLimit>(any) {
            let limit = decoded(cx, any, limits::connections)?;
            if self.connections.replace(limit).is_some() {
                return cx.fail("", "there are two of these");
            }
            return Some(());
        }
        if is::<Rbac>(any) {
            // The prefix is for Envoy's metrics.
            let Rbac { rules, shadow_rules, stat_prefix: _ } = decode(cx, any)?;
            let around = rbac::Around { http: false, trusts: false };
            return self.rules.get_or_insert_default().add(cx, around, (rules, shadow_rules));
        }
        cx.fail("", format!("`{}` is not supported before the last one", type_of(any)))
    }
}
