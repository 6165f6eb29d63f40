//! What is spoken with a cluster's endpoints, and what of a request is hashed.

use std::time::Duration;

use super::super::super::generated::envoy::config::core::v3 as core;
use super::super::super::generated::envoy::config::route::v3::route_action as route;
use super::super::super::generated::envoy::extensions::upstreams::http::v3 as http;
use super::super::super::generated::envoy::extensions::upstreams::http::v3::http_protocol_options as options;
use super::super::Cx;
use super::time;
use crate::model::{Balance, HashOn, Protocol};

pub(super) fn options(
    cx: &mut Cx,
    protocol: Protocol,
    idle_timeout: Duration,
    balance: &Balance,
) -> Option<http::HttpProtocolOptions> {
    use options::UpstreamProtocolOptions::{ExplicitHttpConfig, UseDownstreamProtocolConfig};
    use options::explicit_http_config::ProtocolConfig;
    let explicit = |protocol_config| {
        ExplicitHttpConfig(options::ExplicitHttpConfig { protocol_config: Some(protocol_config) })
    };
    let http1 = core::Http1ProtocolOptions {};
    let spoken = match protocol {
        Protocol::Auto => UseDownstreamProtocolConfig(options::UseDownstreamHttpConfig {
            http_protocol_options: Some(http1),
            http2_protocol_options: Some(core::Http2ProtocolOptions::default()),
        }),
        Protocol::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(http1)),
        Protocol::Http2 => {
            explicit(ProtocolConfig::Http2ProtocolOptions(core::Http2ProtocolOptions::default()))
        }
    };
    let hash = match balance {
        Balance::RingHash(on) | Balance::Maglev(on) => &**on,
        Balance::PeakEwma | Balance::LeastRequest | Balance::RoundRobin | Balance::Random => &[],
    };
    let common = core::HttpProtocolOptions {
        idle_timeout: Some(time(cx, "idle_timeout", idle_timeout)?),
        ..Default::default()
    };
    Some(http::HttpProtocolOptions {
        common_http_protocol_options: Some(common),
        hash_policy: hash.iter().map(|on| hash_on(cx, on)).collect::<Option<_>>()?,
        upstream_protocol_options: Some(spoken),
    })
}

fn hash_on(cx: &mut Cx, on: &HashOn) -> Option<route::HashPolicy> {
    use route::hash_policy::{ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter};
    let on = match on {
        HashOn::Header(name) => PolicySpecifier::Header(Header { header_name: name.to_string() }),
        HashOn::Cookie { name, ttl } => {
            let ttl = match ttl {
                Some(ttl) => Some(time(cx, "hash_policy", *ttl)?),
                None => None,
            };
            PolicySpecifier::Cookie(Cookie { name: name.to_string(), ttl, path: "/".to_owned() })
        }
        HashOn::Source => PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
        HashOn::Query(name) => PolicySpecifier::QueryParameter(QueryParameter { name: name.to_string() }),
    };
    Some(route::HashPolicy { policy_specifier: Some(on) })
}
