//! How endpoints are asked whether they are well.

use std::num::NonZeroU32;
use std::time::Duration;

use http::uri::PathAndQuery;

use super::super::cx::Cx;
use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::config::core::v3::health_check::HealthChecker;
use super::super::generated::envoy::r#type::v3 as kinds;
use super::{MIN_INTERVAL, limit, often};
use crate::model::{HealthCheck, Probe, Protocol};

/// Of a cluster that speaks this, as far as that is known.
#[expect(clippy::option_option, reason = "outside: something was wrong; inside: there is none")]
pub(super) fn health_check(
    cx: &mut Cx,
    checks: Vec<core::HealthCheck>,
    protocol: Option<Protocol>,
) -> Option<Option<Box<HealthCheck>>> {
    if checks.len() > 1 {
        return cx.fail("health_checks", "one is supported");
    }
    let mut read = cx.each("health_checks", checks, |cx, written| check(cx, written, protocol))?;
    Some(read.pop().map(Box::new))
}

fn check(cx: &mut Cx, check: core::HealthCheck, protocol: Option<Protocol>) -> Option<HealthCheck> {
    let core::HealthCheck {
        timeout,
        interval,
        unhealthy_threshold,
        healthy_threshold,
        no_traffic_interval,
        no_traffic_healthy_interval,
        unhealthy_interval,
        unhealthy_edge_interval,
        healthy_edge_interval,
        health_checker,
    } = check;
    let probe = cx.required("health_checker", health_checker).and_then(|asked| probe(cx, asked, protocol));
    let timeout =
        cx.required("timeout", timeout).and_then(|time| limit(cx, "timeout", Some(time), MIN_INTERVAL));
    let unhealthy_after = row(cx, "unhealthy_threshold", unhealthy_threshold);
    let healthy_after = row(cx, "healthy_threshold", healthy_threshold);
    let interval =
        cx.required("interval", interval).and_then(|time| often(cx, "interval", Some(time), MIN_INTERVAL))?;
    let unhealthy_interval = often(cx, "unhealthy_interval", unhealthy_interval, interval)?;
    for (field, time, as_is, other) in [
        ("unhealthy_edge_interval", unhealthy_edge_interval, unhealthy_interval, "unhealthy_interval"),
        ("healthy_edge_interval", healthy_edge_interval, interval, "interval"),
    ] {
        if often(cx, field, time, as_is)? != as_is {
            return cx.fail(field, format!("as `{other}` alone is supported"));
        }
    }
    let idle = often(cx, "no_traffic_interval", no_traffic_interval, Duration::from_secs(60))?;
    let idle_interval = often(cx, "no_traffic_healthy_interval", no_traffic_healthy_interval, idle)?;
    Some(HealthCheck {
        probe: probe?,
        interval,
        unhealthy_interval,
        idle_interval,
        timeout: timeout?,
        unhealthy_after: unhealthy_after?,
        healthy_after: healthy_after?,
    })
}

fn row(cx: &mut Cx, field: &str, number: Option<u32>) -> Option<NonZeroU32> {
    let number = cx.required(field, number)?;
    NonZeroU32::new(number).or_else(|| cx.fail(field, "expected at least 1"))
}

fn probe(cx: &mut Cx, asked: HealthChecker, protocol: Option<Protocol>) -> Option<Probe> {
    match asked {
        HealthChecker::HttpHealthCheck(asked) => {
            cx.within("http_health_check", |cx| http(cx, asked, protocol)).map(Probe::Http)
        }
        HealthChecker::TcpHealthCheck(core::health_check::TcpHealthCheck {}) => Some(Probe::Tcp),
        HealthChecker::GrpcHealthCheck(core::health_check::GrpcHealthCheck { service_name }) => {
            Some(Probe::Grpc(service_name.into()))
        }
    }
}

fn http(
    cx: &mut Cx,
    asked: core::health_check::HttpHealthCheck,
    protocol: Option<Protocol>,
) -> Option<Box<str>> {
    let core::health_check::HttpHealthCheck { path, expected_statuses, codec_client_type, method } = asked;
    match core::RequestMethod::try_from(method).unwrap_or_default() {
        core::RequestMethod::MethodUnspecified | core::RequestMethod::Get => {}
        other => return cx.fail("method", format!("{} is not supported: GET alone is", other.as_str_name())),
    }
    let codec = kinds::CodecClientType::try_from(codec_client_type).unwrap_or_default();
    let fits = match codec {
        // What is said where nothing is.
        kinds::CodecClientType::Http1 => true,
        kinds::CodecClientType::Http2 => protocol.is_none_or(|spoken| spoken == Protocol::Http2),
        kinds::CodecClientType::Http3 => false,
    };
    if !fits {
        let problem = format!("{} is not what is spoken with the cluster", codec.as_str_name());
        return cx.fail("codec_client_type", problem);
    }
    match &*expected_statuses {
        [] | [kinds::Int64Range { start: 200, end: 300 }] => {}
        _ => return cx.fail("expected_statuses", "200 to 299 alone is supported: write 200 and 300"),
    }
    // A fragment is no part of a request, and the parser drops it.
    let sent = path.parse::<PathAndQuery>().is_ok_and(|sent| sent.as_str() == path);
    if !sent || !path.starts_with('/') {
        return cx.fail("path", "this is not a path that can be asked for");
    }
    Some(path.into())
}
