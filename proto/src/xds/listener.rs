//! Listeners.

use std::time::Duration;

use prost::Message;
use prost_types::Any;

use super::cluster::{address, ads};
use super::cx::Cx;
use super::generated::envoy::config::core::v3::TrafficDirection;
use super::generated::envoy::config::listener::v3 as pb;
use super::generated::envoy::extensions::filters::http::router::v3::Router;
use super::generated::envoy::extensions::filters::network::http_connection_manager::v3 as http;
use super::generated::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use super::{route, tls};
use crate::model::{
    Direction, Filter, FilterChain, HttpFilter, Limits, Listener, Name, RouteTable, Split, TcpFilter,
};

const MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP_PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";

/// A listener, and where its routes come from.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerResource {
    /// The listener. If it is one for HTTP, its routes are in the table of this name.
    pub listener: Listener,
    /// That table.
    pub routes: RouteSource,
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
    let pb::Listener { name: _, address: bind, filter_chains, traffic_direction, listener_filters } =
        listener;
    let bind = address(cx, bind);
    let direction = match TrafficDirection::try_from(traffic_direction).unwrap_or_default() {
        TrafficDirection::Outbound => Direction::Outbound,
        TrafficDirection::Inbound | TrafficDirection::Unspecified => Direction::Inbound,
    };
    let (chain, tls) = tls::chain(cx, filter_chains, listener_filters)?;
    let (filter, routes) = cx.within("filter_chains[0]", |cx| {
        let [filter]: [pb::Filter; 1] = match chain.filters.try_into() {
            Ok(filters) => filters,
            Err(_) => return cx.fail("filters", "exactly one is supported: HTTP, or TCP"),
        };
        let pb::filter::ConfigType::TypedConfig(any) =
            cx.required("filters[0].typed_config", filter.config_type)?;
        cx.within("filters[0].typed_config", |cx| match type_of(&any) {
            MANAGER => {
                let decoded = decode(cx, &any)?;
                manager(cx, name, decoded)
            }
            TCP_PROXY => {
                let decoded = decode(cx, &any)?;
                Some((tcp_proxy(cx, decoded)?, RouteSource::None))
            }
            _ => cx.fail("", format!("`{}` is no filter of connections", type_of(&any))),
        })
    })?;
    let chain = FilterChain { tls, authorization: None, limits: Limits::default(), filter };
    Some(ListenerResource { listener: Listener { bind: bind?, direction, chain }, routes })
}

fn type_of(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

fn decode<M: Message + Default>(cx: &mut Cx, any: &Any) -> Option<M> {
    M::decode(any.value.as_slice()).map_or_else(|error| cx.fail("", error.to_string()), Some)
}

fn manager(cx: &mut Cx, name: &Name, manager: http::HttpConnectionManager) -> Option<(Filter, RouteSource)> {
    let http::HttpConnectionManager {
        codec_type,
        // Envoy's metrics.
        stat_prefix: _,
        route_specifier,
        http_filters,
        // Always, whatever is said: what is authorized and what is sent on must be the same.
        normalize_path: _,
        merge_slashes,
    } = manager;
    if codec_type != i32::from(http::http_connection_manager::CodecType::Auto) {
        return cx.fail(
            "codec_type",
            "both versions of HTTP are served, told apart by what a client says: write AUTO",
        );
    }
    filters(cx, http_filters)?;
    use http::http_connection_manager::RouteSpecifier;
    let (routes, source) = match cx.required("route_specifier", route_specifier)? {
        // Under the listener's own name, as in a file.
        RouteSpecifier::RouteConfig(table) => {
            let table = cx.within("route_config", |cx| route::table(cx, table))?;
            (name.clone(), RouteSource::Stated(table))
        }
        RouteSpecifier::Rds(http::Rds { config_source, route_config_name }) => cx.within("rds", |cx| {
            ads(cx, "config_source", config_source)?;
            let table = Name::new(&route_config_name);
            let table = table.or_else(|| cx.fail("route_config_name", "this is not a name"))?;
            Some((table.clone(), RouteSource::Rds(table)))
        })?,
    };
    let filter = HttpFilter {
        jwt: Box::default(),
        external_authorization: None,
        routes,
        trusted_proxies: Vec::new(),
        merge_slashes,
    };
    Some((Filter::Http(filter), source))
}

/// The router, last; before it only what may be passed over.
fn filters(cx: &mut Cx, mut filters: Vec<http::HttpFilter>) -> Option<()> {
    let Some(last) = filters.pop() else {
        return cx.fail("http_filters", "there is none: the last one is to be the router");
    };
    let place = filters.len();
    cx.each("http_filters", filters, |cx, filter| {
        if filter.is_optional || filter.disabled {
            return Some(());
        }
        cx.fail("typed_config", "before the router no filter is supported")
    })?;
    cx.within(format_args!("http_filters[{place}]"), |cx| {
        let http::http_filter::ConfigType::TypedConfig(any) =
            cx.required("typed_config", last.config_type)?;
        if type_of(&any) != ROUTER || last.disabled {
            return cx.fail("typed_config", "the last filter is to be the router");
        }
        decode::<Router>(cx, &any).map(|Router {}| ())
    })
}

fn tcp_proxy(cx: &mut Cx, proxy: tcp::TcpProxy) -> Option<Filter> {
    // The prefix is for Envoy's metrics.
    let tcp::TcpProxy { stat_prefix: _, cluster_specifier, idle_timeout } = proxy;
    let cluster = cluster_specifier.map(|tcp::tcp_proxy::ClusterSpecifier::Cluster(cluster)| cluster);
    let cluster = cluster.as_deref().and_then(Name::new);
    let idle_timeout = match idle_timeout {
        None => Some(Duration::from_secs(3600)),
        written => cx.time("idle_timeout", written)?.or_else(|| cx.fail("idle_timeout", "there must be one")),
    };
    let to = Split::one(cx.required("cluster", cluster)?);
    Some(Filter::Tcp(TcpFilter { to, idle_timeout: idle_timeout? }))
}
