//! What is spoken with a cluster's endpoints, how long a connection may carry nothing, and what of a request decides its
//! endpoint: all that `HttpProtocolOptions` says.

use std::collections::BTreeMap;
use std::time::Duration;

use prost_types::Any;

use super::super::cx::Cx;
use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::extensions::upstreams::http::v3 as http_options;
use super::super::generated::envoy::extensions::upstreams::http::v3::http_protocol_options as options;
use super::super::hash;
use super::{limit, of_any};
use crate::model::{HashKey, Protocol};

/// By which clusters say what is spoken with them.
pub(in super::super) const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Streams on one connection at the most: a limit that is not lower has no effect.
const MAX_STREAMS: u32 = 256;

/// What it all means.
pub(super) struct Spoken {
    pub(super) protocol: Protocol,
    pub(super) idle_timeout: Duration,
    /// Empty where the balancer does not hash.
    pub(super) hash: Box<[HashKey]>,
}

/// With a balancer that hashes or not.
pub(super) fn protocol(cx: &mut Cx, written: BTreeMap<String, Any>, hashes: bool) -> Option<Spoken> {
    let hour = Duration::from_secs(3600);
    let mut spoken = Spoken { protocol: Protocol::Http1, idle_timeout: hour, hash: Box::default() };
    for (name, any) in written {
        let field = format!("typed_extension_protocol_options[{name}]");
        if name != HTTP_OPTIONS {
            return cx.fail(&field, "not supported");
        }
        let Some(Ok(read)) = of_any(&any) else {
            return cx.fail(&field, "this is not a message of that type");
        };
        let http_options::HttpProtocolOptions {
            common_http_protocol_options,
            hash_policy,
            upstream_protocol_options,
        } = read;
        spoken = cx.within(field, |cx| {
            let protocol = version(cx, upstream_protocol_options);
            let idle_timeout = idle_timeout(cx, common_http_protocol_options, hour);
            let keys = if hashes { cx.each("hash_policy", hash_policy, hash::key)? } else { Vec::new() };
            Some(Spoken { protocol: protocol?, idle_timeout: idle_timeout?, hash: keys.into() })
        })?;
    }
    Some(spoken)
}

fn version(cx: &mut Cx, chosen: Option<options::UpstreamProtocolOptions>) -> Option<Protocol> {
    use options::UpstreamProtocolOptions::{ExplicitHttpConfig, UseDownstreamProtocolConfig};
    use options::explicit_http_config::ProtocolConfig;
    match chosen {
        Some(ExplicitHttpConfig(options::ExplicitHttpConfig { protocol_config })) => {
            cx.within("explicit_http_config", |cx| match protocol_config {
                Some(ProtocolConfig::HttpProtocolOptions(core::Http1ProtocolOptions {})) => {
                    Some(Protocol::Http1)
                }
                Some(ProtocolConfig::Http2ProtocolOptions(http2)) => {
                    streams(cx, http2)?;
                    Some(Protocol::Http2)
                }
                None => cx.fail("", "no version of HTTP is chosen"),
            })
        }
        Some(UseDownstreamProtocolConfig(options::UseDownstreamHttpConfig {
            http_protocol_options: None | Some(core::Http1ProtocolOptions {}),
            http2_protocol_options,
        })) => cx.within("use_downstream_protocol_config", |cx| {
            http2_protocol_options.map_or(Some(()), |http2| streams(cx, http2))?;
            Some(Protocol::Auto)
        }),
        None => {
            let problem = "no version of HTTP is chosen: write `explicit_http_config` or \
                           `use_downstream_protocol_config`";
            cx.fail("", problem)
        }
    }
}

fn streams(cx: &mut Cx, options: core::Http2ProtocolOptions) -> Option<()> {
    let core::Http2ProtocolOptions { max_concurrent_streams } = options;
    match max_concurrent_streams {
        Some(streams) if streams < MAX_STREAMS => {
            let problem = format!("fewer than {MAX_STREAMS} are not supported");
            cx.fail("http2_protocol_options.max_concurrent_streams", problem)
        }
        Some(_) | None => Some(()),
    }
}

fn idle_timeout(
    cx: &mut Cx,
    common: Option<core::HttpProtocolOptions>,
    default: Duration,
) -> Option<Duration> {
    let core::HttpProtocolOptions { idle_timeout, max_headers_count } = common.unwrap_or_default();
    cx.within("common_http_protocol_options", |cx| {
        if max_headers_count.is_some() {
            return cx.fail("max_headers_count", "not supported");
        }
        limit(cx, "idle_timeout", idle_timeout, default)
    })
}
