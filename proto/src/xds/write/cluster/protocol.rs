//! What is spoken with a cluster's endpoints, and what of a request is hashed.

use std::time::Duration;

use super::super::super::generated::envoy::config::core::v3 as core;
use super::super::super::generated::envoy::extensions::upstreams::http::v3 as http;
use super::super::super::generated::envoy::extensions::upstreams::http::v3::http_protocol_options as options;
use super::super::{Cx, hash};
use super::time;
use crate::model::{Balance, Protocol};

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
    let keys = match balance {
        Balance::RingHash(keys) | Balance::Maglev(keys) => &**keys,
        Balance::PeakEwma | Balance::LeastRequest | Balance::RoundRobin | Balance::Random => &[],
    };
    let common = core::HttpProtocolOptions {
        idle_timeout: Some(time(cx, "idle_timeout", idle_timeout)?),
        ..Default::default()
    };
    Some(http::HttpProtocolOptions {
        common_http_protocol_options: Some(common),
        hash_policy: keys.iter().map(|key| hash::key(cx, key)).collect::<Option<_>>()?,
        upstream_protocol_options: Some(spoken),
    })
}
