//! How endpoints are asked whether they are well.

use super::super::super::generated::envoy::config::core::v3 as core;
use super::super::super::generated::envoy::config::core::v3::health_check as pb;
use super::super::super::generated::envoy::r#type::v3 as kinds;
use super::super::Cx;
use super::time;
use crate::model::{HealthCheck, Probe, Protocol};

pub(super) fn health_check(
    cx: &mut Cx,
    check: &HealthCheck,
    protocol: Protocol,
) -> Option<core::HealthCheck> {
    let HealthCheck {
        probe,
        interval,
        unhealthy_interval,
        idle_interval,
        timeout,
        unhealthy_after,
        healthy_after,
    } = check;
    let mut time = |field, of| time(cx, &format!("health_checks[0].{field}"), of);
    let unhealthy = time("unhealthy_interval", *unhealthy_interval)?;
    Some(core::HealthCheck {
        timeout: Some(time("timeout", *timeout)?),
        interval: Some(time("interval", *interval)?),
        unhealthy_threshold: Some(unhealthy_after.get()),
        healthy_threshold: Some(healthy_after.get()),
        // Envoy asks those that are not well seldom too while there is no traffic; we do not.
        no_traffic_interval: Some(unhealthy),
        no_traffic_healthy_interval: Some(time("no_traffic_healthy_interval", *idle_interval)?),
        unhealthy_interval: Some(unhealthy),
        unhealthy_edge_interval: None,
        healthy_edge_interval: None,
        health_checker: Some(checker(probe, protocol)),
    })
}

fn checker(probe: &Probe, protocol: Protocol) -> pb::HealthChecker {
    let codec = match protocol {
        Protocol::Auto | Protocol::Http1 => kinds::CodecClientType::Http1,
        Protocol::Http2 => kinds::CodecClientType::Http2,
    };
    match probe {
        Probe::Http(path) => pb::HealthChecker::HttpHealthCheck(pb::HttpHealthCheck {
            path: path.to_string(),
            expected_statuses: vec![kinds::Int64Range { start: 200, end: 300 }],
            codec_client_type: codec.into(),
            method: core::RequestMethod::Get.into(),
        }),
        Probe::Tcp => pb::HealthChecker::TcpHealthCheck(pb::TcpHealthCheck {}),
        Probe::Grpc(service) => {
            pb::HealthChecker::GrpcHealthCheck(pb::GrpcHealthCheck { service_name: service.to_string() })
        }
    }
}
