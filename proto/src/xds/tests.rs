//! Resources as control planes write them, and how each fault is named.

mod ignored;
mod table;

use prost::Message;
use prost_types::Any;

use super::generated::envoy::config::cluster::v3 as cluster;
use super::generated::envoy::config::core::v3 as core;
use super::generated::envoy::config::endpoint::v3 as endpoint;
use super::generated::envoy::config::listener::v3 as listener;
use super::generated::envoy::config::route::v3 as route;
use super::generated::envoy::extensions::filters::http::router::v3::Router;
use super::generated::envoy::extensions::filters::network::http_connection_manager::v3 as manager;
use super::*;
use crate::model::{
    Action, Address, Balance, Filter, Forward, HostPattern, Match, PathMatch, Protocol, Split, StringMatch,
};

fn any(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}

fn socket(address: &str, port: u32) -> core::Address {
    let socket = core::SocketAddress {
        address: address.to_owned(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
        ..core::SocketAddress::default()
    };
    core::Address { address: Some(core::address::Address::SocketAddress(socket)) }
}

fn endpoint_at(address: &str, port: u32) -> endpoint::LbEndpoint {
    let of = endpoint::Endpoint { address: Some(socket(address, port)) };
    let of = Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(of));
    endpoint::LbEndpoint { host_identifier: of, ..endpoint::LbEndpoint::default() }
}

fn set_of(name: &str, endpoints: Vec<endpoint::LbEndpoint>) -> endpoint::ClusterLoadAssignment {
    let group = endpoint::LocalityLbEndpoints { lb_endpoints: endpoints, ..Default::default() };
    endpoint::ClusterLoadAssignment { cluster_name: name.to_owned(), endpoints: vec![group], policy: None }
}

fn cluster_of(name: &str) -> cluster::Cluster {
    let set = set_of(name, vec![endpoint_at("10.0.0.1", 80)]);
    cluster::Cluster { name: name.to_owned(), load_assignment: Some(set), ..Default::default() }
}

fn read_cluster(message: &cluster::Cluster) -> Result<ClusterResource, String> {
    match read(Kind::Cluster, &any("envoy.config.cluster.v3.Cluster", message)) {
        Ok((_, Resource::Cluster(cluster))) => Ok(*cluster),
        Ok(other) => panic!("{other:?}"),
        Err(refused) => Err(refused.to_string()),
    }
}

#[test]
fn a_cluster_with_what_envoy_takes_for_granted() {
    let ClusterResource { cluster, endpoints } = read_cluster(&cluster_of("app")).unwrap();
    assert_eq!((cluster.balance.clone(), cluster.protocol), (Balance::RoundRobin, Protocol::Http1));
    assert_eq!(cluster.connect_timeout, std::time::Duration::from_secs(5));
    assert_eq!(cluster.circuit_breaker.default.max_retries, 3);
    let EndpointSource::Stated(set) = endpoints else { panic!("{endpoints:?}") };
    assert_eq!(set.endpoints[0].address, Address::Ip("10.0.0.1:80".parse().unwrap()));
}

#[test]
fn endpoints_that_are_not_well_are_left_out() {
    let mut sick = endpoint_at("10.0.0.2", 80);
    sick.health_status = core::HealthStatus::Draining.into();
    let set = set_of("app", vec![endpoint_at("10.0.0.1", 80), sick, endpoint_at("10.0.0.1", 80)]);
    let set = any("envoy.config.endpoint.v3.ClusterLoadAssignment", &set);
    let Ok((name, Resource::Endpoints(set))) = read(Kind::Endpoints, &set) else { panic!("endpoints") };
    assert_eq!((name.as_str(), set.endpoints.len()), ("app", 1));
}

/// A table of one host and these routes.
fn table_of(domains: &[&str], routes: Vec<route::Route>) -> route::RouteConfiguration {
    let domains = domains.iter().map(|domain| (*domain).to_owned()).collect();
    let host = route::VirtualHost { name: "h".to_owned(), domains, routes, ..Default::default() };
    route::RouteConfiguration { name: "web".to_owned(), virtual_hosts: vec![host], ..Default::default() }
}

fn to(path: route::route_match::PathSpecifier, cluster: &str) -> route::Route {
    let action = route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
        ..Default::default()
    };
    route::Route {
        r#match: Some(route::RouteMatch { path_specifier: Some(path), ..Default::default() }),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    }
}

fn read_table(message: &route::RouteConfiguration) -> Result<RouteTable, String> {
    match read(Kind::Routes, &any("envoy.config.route.v3.RouteConfiguration", message)) {
        Ok((_, Resource::Routes(table))) => Ok(table),
        Ok(other) => panic!("{other:?}"),
        Err(refused) => Err(refused.to_string()),
    }
}

#[test]
fn a_host_that_has_no_route_for_a_request_answers_404() {
    use route::route_match::PathSpecifier as P;
    let routes = vec![
        to(P::Prefix("/a".to_owned()), "a"),
        to(P::PathSeparatedPrefix("/b".to_owned()), "b"),
        to(P::Path("/c".to_owned()), "c"),
        to(P::Prefix("/".to_owned()), "d"),
    ];
    let table = read_table(&table_of(&["Shop.example:80", "*.shop.example"], routes)).unwrap();
    let hosts = vec![HostPattern::Exact("shop.example".into()), HostPattern::Suffix(".shop.example".into())];
    let paths: Vec<_> = table.routes.iter().map(|route| route.matches.path.clone()).collect();
    let prefix = crate::model::Pattern::new("^/a").unwrap();
    let expected = [
        PathMatch::Regex(prefix),
        PathMatch::Prefix("/b".into()),
        PathMatch::Exact("/c".into()),
        PathMatch::Any,
    ];
    assert_eq!(paths, expected);
    assert!(table.routes.iter().all(|route| route.matches.hosts == hosts));
    let Action::Forward(forward) = &table.routes[3].action else { panic!("it is sent on") };
    let timeout = Some(std::time::Duration::from_secs(15));
    let split = Split::one(crate::model::Name::new("d").unwrap());
    assert_eq!(*forward, Forward { timeout, ..Forward::new(split) });
    // Where nothing takes all, the host does itself.
    let some = vec![to(P::Path("/c".to_owned()), "c")];
    let table = read_table(&table_of(&["shop.example"], some)).unwrap();
    let Action::Respond(rest) = &table.routes[1].action else { panic!("404") };
    assert_eq!(rest.status.as_u16(), 404);
}

#[test]
fn headers_and_methods_are_matched() {
    use super::generated::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
    use route::header_matcher::HeaderMatchSpecifier as H;
    let text = |pattern| H::StringMatch(StringMatcher { match_pattern: Some(pattern), ignore_case: false });
    let header = |name: &str, of| route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(of),
        invert_match: false,
    };
    let mut one = to(route::route_match::PathSpecifier::Prefix("/".to_owned()), "a");
    one.r#match.as_mut().unwrap().headers = vec![
        header(":method", text(MatchPattern::Exact("POST".to_owned()))),
        header("X-A", text(MatchPattern::Prefix("b".to_owned()))),
        header("x-b", H::PresentMatch(false)),
    ];
    let table = read_table(&table_of(&["*"], vec![one])).unwrap();
    let Match { hosts, methods, headers, .. } = &table.routes[0].matches;
    assert_eq!((hosts.len(), methods[0].as_str()), (0, "POST"));
    assert_eq!((headers[0].name.as_str(), &headers[0].value), ("x-a", &StringMatch::Prefix("b".into())));
    assert_eq!(headers[1].value, StringMatch::Absent);
}

fn listener_of(filters: Vec<manager::HttpFilter>) -> listener::Listener {
    let rds = manager::Rds {
        config_source: Some(core::ConfigSource {
            config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
                core::AggregatedConfigSource {},
            )),
            ..Default::default()
        }),
        route_config_name: "web".to_owned(),
    };
    let manager = manager::HttpConnectionManager {
        stat_prefix: "web".to_owned(),
        http_filters: filters,
        route_specifier: Some(manager::http_connection_manager::RouteSpecifier::Rds(rds)),
        ..Default::default()
    };
    let of =
        any("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", &manager);
    let filter = listener::Filter {
        name: "http".to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(of)),
    };
    let chain = listener::FilterChain { filters: vec![filter], ..Default::default() };
    listener::Listener {
        name: "web".to_owned(),
        address: Some(socket("127.0.0.1", 0)),
        filter_chains: vec![chain],
        ..Default::default()
    }
}

fn filter(name: &str, is_optional: bool) -> manager::HttpFilter {
    let of = any(name, &Router {});
    manager::HttpFilter {
        name: name.to_owned(),
        is_optional,
        disabled: false,
        config_type: Some(manager::http_filter::ConfigType::TypedConfig(of)),
    }
}

const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const LUA: &str = "envoy.extensions.filters.http.lua.v3.Lua";

fn read_listener(message: &listener::Listener) -> Result<ListenerResource, String> {
    match read(Kind::Listener, &any("envoy.config.listener.v3.Listener", message)) {
        Ok((_, Resource::Listener(listener))) => Ok(*listener),
        Ok(other) => panic!("{other:?}"),
        Err(refused) => Err(refused.to_string()),
    }
}

#[test]
fn a_listener_of_http_has_its_routes_from_the_stream() {
    let ListenerResource { listener, routes } =
        read_listener(&listener_of(vec![filter(LUA, true), filter(ROUTER, false)])).unwrap();
    assert_eq!(*routes, [RouteSource::Rds(crate::model::Name::new("web").unwrap())]);
    let Filter::Http(http) = &listener.chains.only().unwrap().filter else { panic!("HTTP") };
    // As Envoy has it, where nothing is said.
    assert!(!http.merge_slashes);
}

const AT_FILTERS: &str = "Listener[web].filter_chains[0].filters[0].typed_config.http_filters";

#[test]
fn filters_that_are_not_known_are_refused_unless_they_are_optional() {
    let unknown = listener_of(vec![filter(LUA, false), filter(ROUTER, false)]);
    let refused = read_listener(&unknown).unwrap_err();
    assert!(
        refused.contains(&format!("{AT_FILTERS}[0].typed_config: `{LUA}` is not supported")),
        "{refused}"
    );
    for without in [vec![], vec![filter(LUA, true)]] {
        let refused = read_listener(&listener_of(without)).unwrap_err();
        assert!(refused.contains("router"), "{refused}");
    }
}

/// A field by number, as a varint and as bytes.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

#[test]
fn what_decoding_would_drop_is_named() {
    let whole = cluster_of("app").encode_to_vec();
    let refused = |more: &[u8]| {
        let value = [&whole[..], more].concat();
        let any = Any { type_url: Kind::Cluster.url(), value };
        read(Kind::Cluster, &any).map(|_| ()).map_err(|refused| refused.to_string())
    };
    // `upstream_bind_config`, which upstream has and the subset has not.
    assert_eq!(refused(&field(21, &[])), Err("Cluster[app].upstream_bind_config: not supported".to_owned()));
    assert_eq!(refused(&field(4000, &[])), Err("Cluster[app].#4000: a field that is not known".to_owned()));
    // `alt_stat_name`, without effect.
    assert_eq!(refused(&field(28, b"x")), Ok(()));
    // Deep inside: an endpoint's health check.
    let endpoint = field(1, &field(2, &[]));
    let deep = field(33, &field(2, &field(2, &endpoint)));
    let said = refused(&deep).unwrap_err();
    let at = "Cluster[app].load_assignment.endpoints[0].lb_endpoints[0].endpoint.health_check_config";
    assert!(said.contains(&format!("{at}: not supported")), "{said}");
    // A value of an enumeration that has no name.
    let said = refused(&[6 << 3, 99]).unwrap_err();
    assert!(said.contains("Cluster[app].lb_policy: the value 99 is not known"), "{said}");
}

#[test]
fn what_is_no_message_is_refused_and_nothing_panics() {
    let whole = cluster_of("app").encode_to_vec();
    for end in 0..whole.len() {
        let any = Any { type_url: Kind::Cluster.url(), value: whole[..end].to_vec() };
        let _ = read(Kind::Cluster, &any);
    }
    let other = Any { type_url: Kind::Listener.url(), value: whole };
    assert!(read(Kind::Cluster, &other).is_err());
    // Nested in itself as often as bytes allow.
    let mut deep = Vec::new();
    for _ in 0..2000 {
        deep = field(4, &deep);
    }
    assert!(!walk::check("google.protobuf.Value", &deep, "Value").0.is_empty() || deep.is_empty());
}

#[test]
fn each_fault_has_its_path() {
    let mut bad = cluster_of("app");
    bad.lb_policy = cluster::cluster::LbPolicy::ClusterProvided.into();
    bad.connect_timeout = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let said = read_cluster(&bad).unwrap_err();
    assert!(said.contains("Cluster[app].connect_timeout: this is not a time"), "{said}");
    bad.connect_timeout = None;
    assert_eq!(read_cluster(&bad).unwrap_err(), "Cluster[app].lb_policy: CLUSTER_PROVIDED is not supported");
    let mut named = cluster_of("a b");
    named.load_assignment =
        Some(set_of("a b", vec![endpoint_at("host", 80), endpoint_at("10.0.0.1", 70_000)]));
    let said = read_cluster(&named).unwrap_err();
    let at = "Cluster[a b].load_assignment.endpoints[0]";
    for expected in [
        "Cluster[a b].name: this is not a name: it is empty, or holds white space or a control character"
            .to_owned(),
        format!("{at}.lb_endpoints[0].endpoint.address.socket_address.address: `host` is not an IP address"),
        format!("{at}.lb_endpoints[1].endpoint.address.socket_address.port_value: this is missing"),
    ] {
        assert!(said.contains(&expected), "{said}");
    }
    let mut twice = table_of(&["a", "A:80"], Vec::new());
    assert!(read_table(&twice).is_ok());
    twice.virtual_hosts.push(table_of(&["A:81"], Vec::new()).virtual_hosts.remove(0));
    let twice = read_table(&twice).unwrap_err();
    assert!(
        twice.contains("RouteConfiguration[web].virtual_hosts[1].domains[0]: `A:81` is taken already"),
        "{twice}"
    );
}
