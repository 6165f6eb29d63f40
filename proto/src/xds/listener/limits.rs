//! What one client may cost, as Envoy says it in many places, and what it says of it nowhere.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use super::super::any::OURS;
use super::super::cx::Cx;
use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit;
use super::super::generated::outrigger::extensions::v1 as ext;
use crate::model::Limits;

/// Where nothing is said of streams: Envoy's.
const STREAMS: NonZeroU32 = NonZeroU32::new(1024).expect("not zero");

/// Header fields that a head may have at the most: as in a file.
const MAX_HEADERS: u32 = 10_000;

/// Bytes of a head that are granted at least: as in a file.
const MIN_HEADER_BYTES: usize = 8 << 10;

/// What the fields of a connection manager say of limits.
#[derive(Debug, Default)]
pub(in super::super) struct Fields {
    pub(in super::super) kib: Option<u32>,
    pub(in super::super) headers_timeout: Option<prost_types::Duration>,
    pub(in super::super) stream_idle: Option<prost_types::Duration>,
    pub(in super::super) common: Option<core::HttpProtocolOptions>,
    pub(in super::super) http2: Option<core::Http2ProtocolOptions>,
}

pub(in super::super) fn of_manager(cx: &mut Cx, said: Fields) -> Option<Limits> {
    let Fields { kib, headers_timeout, stream_idle, common, http2 } = said;
    let default = Limits::default();
    let core::HttpProtocolOptions { idle_timeout, max_headers_count } = common.unwrap_or_default();
    let core::Http2ProtocolOptions { max_concurrent_streams } = http2.unwrap_or_default();
    let bytes = kib.map_or(Some(default.header_bytes.get()), |kib| {
        usize::try_from(kib).ok()?.checked_mul(1024).filter(|bytes| *bytes >= MIN_HEADER_BYTES)
    });
    let header_bytes = bytes
        .and_then(NonZeroUsize::new)
        .or_else(|| cx.fail("max_request_headers_kb", "it is 8 or more: ordinary browsers send as much"));
    let headers = max_headers_count.map_or(Some(default.headers), |count| {
        headers(count).or_else(|| {
            cx.fail("common_http_protocol_options.max_headers_count", "it is between 1 and 10000")
        })
    });
    let idle_timeout = idle(cx, idle_timeout, stream_idle);
    // Envoy waits for ever, and is kept by whoever never ends a head.
    let header_timeout = cx.time("request_headers_timeout", headers_timeout);
    let streams = max_concurrent_streams.map_or(Some(STREAMS), |count| {
        NonZeroU32::new(count)
            .or_else(|| cx.fail("http2_protocol_options.max_concurrent_streams", "it is 1 or more"))
    });
    Some(Limits {
        header_bytes: header_bytes?,
        headers: headers?,
        header_timeout: header_timeout?.unwrap_or(default.header_timeout),
        idle_timeout: idle_timeout?,
        streams: streams?,
        ..default
    })
}

fn headers(count: u32) -> Option<NonZeroUsize> {
    NonZeroUsize::new(usize::try_from(count).ok()?).filter(|_| count <= MAX_HEADERS)
}

/// One time holds for a connection and for each stream of it.
fn idle(
    cx: &mut Cx,
    connection: Option<prost_types::Duration>,
    stream: Option<prost_types::Duration>,
) -> Option<Duration> {
    let field = "common_http_protocol_options.idle_timeout";
    let whole = match connection {
        None => Limits::default().idle_timeout,
        written => cx.time(field, written)?.or_else(|| cx.fail(field, "there must be one"))?,
    };
    match cx.time("stream_idle_timeout", stream)? {
        None => Some(whole),
        Some(stream) if stream <= whole => Some(stream),
        Some(_) => cx.fail(
            "stream_idle_timeout",
            format!("one time holds for connections and their streams, and this is more than `{field}`"),
        ),
    }
}

pub(super) fn connections(cx: &mut Cx, limit: ConnectionLimit) -> Option<NonZeroU32> {
    // The prefix is for Envoy's metrics.
    let ConnectionLimit { stat_prefix: _, max_connections } = limit;
    let max = cx.required("max_connections", max_connections)?;
    u32::try_from(max)
        .ok()
        .and_then(NonZeroU32::new)
        .or_else(|| cx.fail("max_connections", "it is 1 or more, and below 2^32"))
}

/// What is said exactly in place of what Envoy's fields can say.
pub(super) fn exactly(cx: &mut Cx, read: Limits, said: Option<ext::ListenerLimits>) -> Option<Limits> {
    let Some(said) = said else { return Some(read) };
    let ext::ListenerLimits { header_bytes, headers: count, body, header_timeout, idle_timeout, streams } =
        said;
    let wrong = "this is out of range";
    cx.within(format_args!("metadata.typed_filter_metadata[{OURS}].limits"), |cx| {
        let header_bytes = header_bytes.map_or(Some(read.header_bytes), |bytes| {
            let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes >= MIN_HEADER_BYTES);
            bytes.and_then(NonZeroUsize::new).or_else(|| cx.fail("header_bytes", wrong))
        })?;
        let headers =
            count.map_or(Some(read.headers), |count| headers(count).or_else(|| cx.fail("headers", wrong)))?;
        let body = match body {
            None => read.body,
            Some(body) => Some(NonZeroU64::new(body).or_else(|| cx.fail("body", wrong))?),
        };
        let streams = streams.map_or(Some(read.streams), |streams| {
            NonZeroU32::new(streams).or_else(|| cx.fail("streams", wrong))
        })?;
        let header_timeout = cx.time("header_timeout", header_timeout)?.unwrap_or(read.header_timeout);
        let idle_timeout = cx.time("idle_timeout", idle_timeout)?.unwrap_or(read.idle_timeout);
        let connections = read.connections;
        Some(Limits { connections, header_bytes, headers, body, header_timeout, idle_timeout, streams })
    })
}
