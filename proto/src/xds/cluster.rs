//! Clusters, and their endpoints.

use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use prost_types::Any;

use super::cx::Cx;
use super::generated::envoy::config::cluster::v3 as pb;
use super::generated::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use super::generated::envoy::config::core::v3 as core;
use super::generated::envoy::config::endpoint::v3 as endpoint;
use super::generated::envoy::extensions::upstreams::http::v3 as http;
use super::tls;
use crate::model::{
    Address, Assignment, Balance, BreakerLimits, CircuitBreaker, Cluster, Endpoint, Name, Protocol, Source,
};

/// A cluster, and where its endpoints come from.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterResource {
    /// The cluster; shared, as whoever follows a control plane holds it as long as whoever serves it does.
    pub cluster: Arc<Cluster>,
    /// Its endpoints.
    pub endpoints: EndpointSource,
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq)]
pub enum EndpointSource {
    /// They stand beside the cluster.
    Stated(Arc<Assignment>),
    /// The resource of this name says.
    Eds(Name),
    /// DNS says.
    Dns,
}

/// By which clusters say what is spoken with them.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

pub(super) fn cluster(cx: &mut Cx, cluster: pb::Cluster) -> Option<ClusterResource> {
    let pb::Cluster {
        name,
        cluster_discovery_type,
        eds_cluster_config,
        connect_timeout,
        lb_policy,
        load_assignment,
        circuit_breakers,
        typed_extension_protocol_options,
        transport_socket,
    } = cluster;
    let connect_timeout = match connect_timeout {
        None => Some(Duration::from_secs(5)),
        written => {
            let time = cx.time("connect_timeout", written)?;
            cx.required("connect_timeout", time)
        }
    };
    let balance = balance(cx, lb_policy);
    let protocol = protocol(cx, typed_extension_protocol_options);
    let circuit_breaker = circuit_breaker(cx, circuit_breakers);
    let tls = tls::upstream(cx, transport_socket);
    let ClusterDiscoveryType::Type(kind) =
        cluster_discovery_type.unwrap_or(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
    let kind = DiscoveryType::try_from(kind).unwrap_or_default();
    if kind != DiscoveryType::Eds && eds_cluster_config.is_some() {
        return cx.fail("eds_cluster_config", "the cluster's endpoints do not come from EDS");
    }
    let (source, endpoints) = match kind {
        DiscoveryType::Eds if load_assignment.is_some() => {
            cx.fail("load_assignment", "the cluster's endpoints come from EDS")
        }
        DiscoveryType::Eds => {
            Some((Source::Static, EndpointSource::Eds(eds(cx, &name, eds_cluster_config)?)))
        }
        DiscoveryType::Static => {
            let set = load_assignment.unwrap_or_default();
            let set = cx.within("load_assignment", |cx| assignment(cx, set));
            set.map(|set| (Source::Static, EndpointSource::Stated(Arc::new(set))))
        }
        DiscoveryType::StrictDns => {
            let set = cx.required("load_assignment", load_assignment)?;
            cx.within("load_assignment", |cx| dns(cx, set)).map(|source| (source, EndpointSource::Dns))
        }
        DiscoveryType::LogicalDns | DiscoveryType::OriginalDst => {
            cx.fail("type", format!("{} is not supported", kind.as_str_name()))
        }
    }?;
    let cluster = Cluster {
        balance: balance?,
        protocol: protocol?,
        tls: tls?,
        connect_timeout: connect_timeout?,
        circuit_breaker: circuit_breaker?,
        ..Cluster::new(source)
    };
    Some(ClusterResource { cluster: Arc::new(cluster), endpoints })
}

fn eds(cx: &mut Cx, cluster: &str, config: Option<pb::cluster::EdsClusterConfig>) -> Option<Name> {
    let pb::cluster::EdsClusterConfig { eds_config, service_name } =
        cx.required("eds_cluster_config", config)?;
    cx.within("eds_cluster_config", |cx| {
        ads(cx, "eds_config", eds_config)?;
        let name = if service_name.is_empty() { cluster } else { &service_name };
        Name::new(name).or_else(|| cx.fail("service_name", "this is not a name"))
    })
}

/// From the same stream, as all there is.
pub(super) fn ads(cx: &mut Cx, field: &str, source: Option<core::ConfigSource>) -> Option<()> {
    match source.and_then(|source| source.config_source_specifier) {
        Some(core::config_source::ConfigSourceSpecifier::Ads(_)) => Some(()),
        None => cx.fail(field, "it does not come from the same stream: write `ads`"),
    }
}

fn balance(cx: &mut Cx, policy: i32) -> Option<Balance> {
    let policy = LbPolicy::try_from(policy).unwrap_or_default();
    match policy {
        LbPolicy::RoundRobin => Some(Balance::RoundRobin),
        LbPolicy::LeastRequest => Some(Balance::LeastRequest),
        LbPolicy::Random => Some(Balance::Random),
        LbPolicy::RingHash
        | LbPolicy::Maglev
        | LbPolicy::ClusterProvided
        | LbPolicy::LoadBalancingPolicyConfig => {
            cx.fail("lb_policy", format!("{} is not supported", policy.as_str_name()))
        }
    }
}

fn protocol(cx: &mut Cx, options: std::collections::HashMap<String, Any>) -> Option<Protocol> {
    // As Envoy has it.
    let mut protocol = Protocol::Http1;
    for (name, any) in options {
        let field = format!("typed_extension_protocol_options[{name}]");
        if name != HTTP_OPTIONS {
            return cx.fail(&field, "not supported");
        }
        let Ok(http::HttpProtocolOptions { upstream_protocol_options }) =
            http::HttpProtocolOptions::decode(any.value.as_slice())
        else {
            return cx.fail(&field, "this is not a message of that type");
        };
        use http::http_protocol_options::UpstreamProtocolOptions;
        use http::http_protocol_options::explicit_http_config::ProtocolConfig;
        let chosen = upstream_protocol_options
            .and_then(|UpstreamProtocolOptions::ExplicitHttpConfig(explicit)| explicit.protocol_config);
        protocol = match chosen {
            Some(ProtocolConfig::HttpProtocolOptions(_)) => Protocol::Http1,
            Some(ProtocolConfig::Http2ProtocolOptions(_)) => Protocol::Http2,
            None => return cx.fail(&field, "no version of HTTP is chosen: write `explicit_http_config`"),
        };
    }
    Some(protocol)
}

fn circuit_breaker(cx: &mut Cx, breakers: Option<pb::CircuitBreakers>) -> Option<CircuitBreaker> {
    // So many, where nothing is said: Envoy's.
    let none_said = BreakerLimits { max_retries: 3, ..BreakerLimits::default() };
    let mut out = CircuitBreaker { default: none_said, high: Some(none_said) };
    let thresholds = breakers.unwrap_or_default().thresholds;
    cx.within("circuit_breakers", |cx| {
        cx.each("thresholds", thresholds, |cx, limits| {
            let pb::circuit_breakers::Thresholds {
                priority,
                max_connections,
                max_pending_requests,
                max_requests,
                max_retries,
            } = limits;
            let some = |cx: &mut Cx, field, number: Option<u32>, default| match number {
                None => Some(default),
                Some(number) => {
                    NonZeroU32::new(number).or_else(|| cx.fail(field, "nothing could go on with 0"))
                }
            };
            let default = BreakerLimits::default();
            let limits = BreakerLimits {
                max_connections: some(cx, "max_connections", max_connections, default.max_connections)?,
                max_pending: max_pending_requests.unwrap_or(default.max_pending),
                max_requests: some(cx, "max_requests", max_requests, default.max_requests)?,
                max_retries: max_retries.unwrap_or(none_said.max_retries),
            };
            match core::RoutingPriority::try_from(priority).unwrap_or_default() {
                core::RoutingPriority::Default => out.default = limits,
                core::RoutingPriority::High => out.high = Some(limits),
            }
            Some(())
        })
    })?;
    Some(out)
}

/// The one name of a cluster in DNS.
fn dns(cx: &mut Cx, set: endpoint::ClusterLoadAssignment) -> Option<Source> {
    let mut all = set.endpoints.into_iter().flat_map(|group| group.lb_endpoints);
    let (Some(only), None) = (all.next(), all.next()) else {
        return cx.fail("endpoints", "not one name: so many are not supported");
    };
    let address =
        only.host_identifier.and_then(|endpoint::lb_endpoint::HostIdentifier::Endpoint(of)| of.address);
    let Some(core::address::Address::SocketAddress(socket)) = address.and_then(|address| address.address)
    else {
        return cx.fail("endpoints", "there is no name and port");
    };
    let port = port(&socket).and_then(NonZeroU16::new);
    match port {
        Some(port) if !socket.address.is_empty() => Some(Source::Dns { host: socket.address.into(), port }),
        _ => cx.fail("endpoints", "there is no name and port"),
    }
}

pub(super) fn assignment(cx: &mut Cx, set: endpoint::ClusterLoadAssignment) -> Option<Assignment> {
    let groups = cx.each("endpoints", set.endpoints, group)?;
    let mut endpoints: Vec<Endpoint> = groups.into_iter().flatten().collect();
    let mut seen = std::collections::HashSet::new();
    // Twice the same is once: who says so twice means no more.
    endpoints.retain(|endpoint| seen.insert(endpoint.address.clone()));
    Some(Assignment { endpoints })
}

fn group(cx: &mut Cx, group: endpoint::LocalityLbEndpoints) -> Option<Vec<Endpoint>> {
    let endpoint::LocalityLbEndpoints { locality, lb_endpoints, priority } = group;
    let Some(priority) = u8::try_from(priority).ok().filter(|priority| *priority <= 127) else {
        return cx.fail("priority", "this is more than 127");
    };
    let zone = locality.map(|locality| locality.zone).filter(|zone| !zone.is_empty());
    let endpoints = cx.each("lb_endpoints", lb_endpoints, |cx, one| {
        let endpoint::LbEndpoint { host_identifier, health_status, load_balancing_weight } = one;
        let weight = load_balancing_weight.unwrap_or(1);
        let Some(weight) = NonZeroU32::new(weight) else {
            return cx.fail("load_balancing_weight", "a weight is at least 1");
        };
        let of = host_identifier.map(|endpoint::lb_endpoint::HostIdentifier::Endpoint(of)| of);
        let of = cx.required("endpoint", of)?;
        let address = cx.within("endpoint", |cx| address(cx, of.address))?;
        use core::HealthStatus as H;
        let is_used = match H::try_from(health_status).unwrap_or_default() {
            H::Unknown | H::Healthy | H::Degraded => true,
            H::Unhealthy | H::Draining | H::Timeout => false,
        };
        let zone = zone.clone().map(Into::into);
        Some(is_used.then(|| Endpoint { weight, priority, zone, ..Endpoint::new(address) }))
    })?;
    Some(endpoints.into_iter().flatten().collect())
}

/// An IP address and a port, or a unix socket.
pub(super) fn address(cx: &mut Cx, address: Option<core::Address>) -> Option<Address> {
    let address = cx.required("address", address.and_then(|address| address.address))?;
    cx.within("address", |cx| match address {
        core::address::Address::SocketAddress(socket) => cx.within("socket_address", |cx| {
            if core::socket_address::Protocol::try_from(socket.protocol)
                != Ok(core::socket_address::Protocol::Tcp)
            {
                return cx.fail("protocol", "TCP alone is supported");
            }
            let Ok(ip) = socket.address.parse::<IpAddr>() else {
                return cx.fail("address", format!("`{}` is not an IP address", socket.address));
            };
            let port = port(&socket);
            let port = cx.required("port_value", port)?;
            Some(Address::Ip((ip, port).into()))
        }),
        core::address::Address::Pipe(core::Pipe { path }) if path.starts_with('/') => {
            Some(Address::Unix(path.into()))
        }
        core::address::Address::Pipe(_) => cx.fail("pipe.path", "this is not an absolute path"),
    })
}

fn port(socket: &core::SocketAddress) -> Option<u16> {
    match socket.port_specifier {
        Some(core::socket_address::PortSpecifier::PortValue(port)) => u16::try_from(port).ok(),
        None => None,
    }
}
