//! When an endpoint is left out by how it answers.

use super::super::super::generated::envoy::config::cluster::v3 as pb;
use super::super::super::generated::outrigger::extensions::v1::cluster as ours;
use super::super::Cx;
use super::time;
use crate::model::{OutlierDetection, Percent};

/// One whole per cent, in millionths.
const PERCENT: u32 = 10_000;

/// As Envoy says it, and what it cannot say, if there is any of that.
pub(super) fn outlier_detection(
    cx: &mut Cx,
    outliers: OutlierDetection,
) -> Option<(pb::OutlierDetection, Option<ours::OutlierDetection>)> {
    let OutlierDetection {
        consecutive_5xx,
        consecutive_gateway,
        consecutive_local,
        success_rate_deviations,
        failure_percent,
        latency_factor,
        min_requests,
        interval,
        base_ejection,
        max_ejection,
        max_ejected,
    } = outliers;
    let on = |is_on: bool| Some(if is_on { 100 } else { 0 });
    let some = |number: u32| (number > 0).then_some(number);
    let by_share = failure_percent > Percent::ZERO;
    // Envoy looks at failures of its own by themselves only where it counts none of them as a 5xx.
    let split = consecutive_local > 0
        && (consecutive_5xx, consecutive_gateway, success_rate_deviations) == (0, 0, 0)
        && !by_share;
    let mut time = |field, of| time(cx, &format!("outlier_detection.{field}"), of);
    let written = pb::OutlierDetection {
        consecutive_5xx: some(consecutive_5xx),
        interval: Some(time("interval", interval)?),
        base_ejection_time: Some(time("base_ejection_time", base_ejection)?),
        max_ejection_percent: Some(max_ejected.millionths() / PERCENT),
        enforcing_consecutive_5xx: on(consecutive_5xx > 0),
        enforcing_success_rate: on(success_rate_deviations > 0),
        success_rate_minimum_hosts: None,
        success_rate_request_volume: Some(min_requests.get()),
        success_rate_stdev_factor: some(success_rate_deviations * 100),
        consecutive_gateway_failure: some(consecutive_gateway),
        enforcing_consecutive_gateway_failure: on(consecutive_gateway > 0),
        split_external_local_origin_errors: split,
        consecutive_local_origin_failure: if split { Some(consecutive_local) } else { None },
        enforcing_consecutive_local_origin_failure: if split { Some(100) } else { None },
        enforcing_local_origin_success_rate: if split { Some(0) } else { None },
        failure_percentage_threshold: some(failure_percent.millionths().div_ceil(PERCENT)),
        enforcing_failure_percentage: on(by_share),
        enforcing_failure_percentage_local_origin: None,
        failure_percentage_minimum_hosts: by_share.then_some(1),
        failure_percentage_request_volume: Some(min_requests.get()),
        max_ejection_time: Some(time("max_ejection_time", max_ejection)?),
        max_ejection_time_jitter: None,
        successful_active_health_check_uneject_host: Some(false),
        always_eject_one_host: Some(true),
    };
    let exactly = |share: Percent| Some(share.millionths()).filter(|exact| !exact.is_multiple_of(PERCENT));
    let more = ours::OutlierDetection {
        consecutive_local: if split { 0 } else { consecutive_local },
        latency_factor,
        failure_millionths: exactly(failure_percent),
        ejected_millionths: exactly(max_ejected),
    };
    Some((written, Some(more).filter(|more| *more != ours::OutlierDetection::default())))
}
