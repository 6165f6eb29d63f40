//! Routes for whoever has no proxy: clients of gRPC speak xDS themselves, and ask for a listener that only says where its
//! routes are (gRFC A27).

use prost::Message;
use prost_types::Any;

use super::super::Kind;
use super::super::generated::envoy::extensions::filters::http::router::v3::Router;
use super::super::generated::envoy::extensions::filters::network::http_connection_manager::v3 as http;
use super::{packed, stream};
use crate::model::Name;

/// `Listener`, as such clients read it; a proxy has no use for it.
#[derive(Clone, PartialEq, Message)]
struct Listener {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "19")]
    api_listener: Option<ApiListener>,
}

/// `ApiListener`.
#[derive(Clone, PartialEq, Message)]
struct ApiListener {
    #[prost(message, optional, tag = "1")]
    api_listener: Option<Any>,
}

/// A listener of this name whose routes are in this table. Its filters are the router alone: what else a proxy does with a
/// request, such a client does not.
pub fn write_for_clients(name: &Name, routes: &Name) -> Any {
    let rds = http::Rds { config_source: Some(stream()), route_config_name: routes.to_string() };
    let router = http::HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http::http_filter::ConfigType::TypedConfig(packed(&Router {}))),
        ..http::HttpFilter::default()
    };
    let manager = http::HttpConnectionManager {
        route_specifier: Some(http::http_connection_manager::RouteSpecifier::Rds(rds)),
        http_filters: vec![router],
        ..http::HttpConnectionManager::default()
    };
    let api_listener = Some(ApiListener { api_listener: Some(packed(&manager)) });
    let listener = Listener { name: name.to_string(), api_listener };
    Any { type_url: Kind::Listener.url(), value: listener.encode_to_vec() }
}
