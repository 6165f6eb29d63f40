//! When an endpoint is left out by how it answers.
//!
//! Envoy's rules mean what ours mean as long as the failures of its own (no connection, no answer in time) count as 5xx, which
//! is its default. Where it splits them off, one rule is the same: that of failures of its own in a row.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::cx::Cx;
use super::super::generated::envoy::config::cluster::v3 as pb;
use super::super::generated::outrigger::extensions::v1::cluster as ours;
use super::limit;
use crate::model::{OutlierDetection, Percent};

/// What is looked at more often than this costs more than it tells.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// In tenths: at 1 or below it half of all endpoints would be slow.
const LATENCY_FACTORS: std::ops::RangeInclusive<u32> = 11..=1_000;
/// In thousandths of a deviation.
const MOST_DEVIATIONS: u32 = 10_000;

/// What the rules say, without the times.
#[derive(Default)]
struct Rules {
    consecutive_5xx: u32,
    consecutive_gateway: u32,
    consecutive_local: u32,
    success_rate_deviations: u32,
    failure_percent: u32,
    min_requests: u32,
}

#[expect(clippy::option_option, reason = "outside: something was wrong; inside: it is off")]
pub(super) fn outlier_detection(
    cx: &mut Cx,
    written: Option<pb::OutlierDetection>,
    more: Option<ours::OutlierDetection>,
) -> Option<Option<OutlierDetection>> {
    match (written, more) {
        (Some(written), more) => {
            cx.within("outlier_detection", |cx| detection(cx, written, more.unwrap_or_default()))
        }
        (None, None) => Some(None),
        (None, Some(_)) => cx.fail(
            "metadata.typed_filter_metadata[outrigger].outlier_detection",
            "there is no `outlier_detection` beside it",
        ),
    }
}

#[expect(clippy::option_option, reason = "outside: something was wrong; inside: it is off")]
fn detection(
    cx: &mut Cx,
    written: pb::OutlierDetection,
    more: ours::OutlierDetection,
) -> Option<Option<OutlierDetection>> {
    let ours::OutlierDetection { consecutive_local, latency_factor, failure_millionths, ejected_millionths } =
        more;
    if latency_factor != 0 && !LATENCY_FACTORS.contains(&latency_factor) {
        return cx.fail("", "the `latency_factor` beside it is neither 0 nor from 11 to 1000");
    }
    let rules = if written.split_external_local_origin_errors {
        split(cx, &written)
    } else {
        together(cx, &written).map(|rules| Rules { consecutive_local, ..rules })
    };
    let interval = limit(cx, "interval", written.interval, Duration::from_secs(10));
    let times = times(cx, &written);
    let ejected = written.max_ejection_percent.unwrap_or(10);
    let always_one = one_always(cx, &written, ejected);
    let ejected = exactly(cx, "max_ejection_percent", ejected, ejected_millionths, |exact| exact / 10_000);
    let (rules, interval, times) = (rules?, interval?, times?);
    if interval < MIN_INTERVAL {
        return cx.fail("interval", "this is too short: expected at least 10 ms");
    }
    let failure_percent =
        exactly(cx, "failure_percentage_threshold", rules.failure_percent, failure_millionths, |exact| {
            exact.div_ceil(10_000)
        });
    let detection = OutlierDetection {
        consecutive_5xx: rules.consecutive_5xx,
        consecutive_gateway: rules.consecutive_gateway,
        consecutive_local: rules.consecutive_local,
        success_rate_deviations: rules.success_rate_deviations,
        failure_percent: failure_percent?,
        latency_factor,
        min_requests: NonZeroU32::new(rules.min_requests)
            .or_else(|| cx.fail("failure_percentage_request_volume", "expected at least 1"))?,
        interval,
        base_ejection: times.0,
        max_ejection: times.1,
        max_ejected: ejected?,
    };
    Some(always_one?.then_some(detection))
}

/// Whether there is anything to be ejected at all: of 0 %, Envoy ejects none unless it is told that one may always be.
fn one_always(cx: &mut Cx, written: &pb::OutlierDetection, percent: u32) -> Option<bool> {
    if written.successful_active_health_check_uneject_host == Some(true) {
        let problem = "it is not supported: who is ejected comes back when its time is over";
        return cx.fail("successful_active_health_check_uneject_host", problem);
    }
    match written.always_eject_one_host {
        Some(false) if percent > 0 => {
            cx.fail("always_eject_one_host", "it is not supported to eject none where one would be too many")
        }
        None | Some(false) => Some(percent > 0),
        Some(true) => Some(true),
    }
}

/// A share in whole per cent, that stands beside it in millionths where it is not whole.
fn exactly(
    cx: &mut Cx,
    field: &str,
    percent: u32,
    exact: Option<u32>,
    rounded: impl FnOnce(u32) -> u32,
) -> Option<Percent> {
    if percent > 100 {
        return cx.fail(field, "expected 0 to 100");
    }
    match exact {
        None => Some(Percent::whole(percent)),
        Some(exact) if rounded(exact) == percent => Percent::from_millionths(exact),
        Some(_) => cx.fail(field, "this is not what stands beside the cluster in millionths"),
    }
}

/// The first ejection's length, and the longest.
fn times(cx: &mut Cx, written: &pb::OutlierDetection) -> Option<(Duration, Duration)> {
    let base = limit(cx, "base_ejection_time", written.base_ejection_time, Duration::from_secs(30))?;
    let max = limit(cx, "max_ejection_time", written.max_ejection_time, base.max(Duration::from_secs(300)))?;
    if max < base {
        return cx.fail("max_ejection_time", "this is shorter than `base_ejection_time`");
    }
    if cx.time("max_ejection_time_jitter", written.max_ejection_time_jitter)?.is_some() {
        return cx.fail("max_ejection_time_jitter", "not supported: it is a tenth, always");
    }
    Some((base, max))
}

/// Whether a rule ejects; who ejects some of those that it finds is not understood.
fn enforced(cx: &mut Cx, field: &str, percent: Option<u32>, default: u32) -> Option<bool> {
    match percent.unwrap_or(default) {
        0 => Some(false),
        100 => Some(true),
        _ => cx.fail(field, "0 and 100 alone are supported"),
    }
}

/// Failures of our own count as 5xx.
fn together(cx: &mut Cx, written: &pb::OutlierDetection) -> Option<Rules> {
    let row = |cx: &mut Cx, (field, share, default), row: Option<u32>| {
        Some(if enforced(cx, field, share, default)? { row.unwrap_or(5) } else { 0 })
    };
    let consecutive_5xx = row(
        cx,
        ("enforcing_consecutive_5xx", written.enforcing_consecutive_5xx, 100),
        written.consecutive_5xx,
    );
    let consecutive_gateway = row(
        cx,
        ("enforcing_consecutive_gateway_failure", written.enforcing_consecutive_gateway_failure, 0),
        written.consecutive_gateway_failure,
    );
    let by_rate = enforced(cx, "enforcing_success_rate", written.enforcing_success_rate, 100);
    let by_share = enforced(cx, "enforcing_failure_percentage", written.enforcing_failure_percentage, 0);
    let (by_rate, by_share) = (by_rate?, by_share?);
    let success_rate_deviations = if by_rate { deviations(cx, written) } else { Some(0) };
    let failure_percent = if by_share { failures(cx, written) } else { Some(0) };
    let rate_volume = written.success_rate_request_volume.unwrap_or(100);
    let share_volume = written.failure_percentage_request_volume.unwrap_or(50);
    if by_rate && by_share && rate_volume != share_volume {
        let problem = "for both rules as many are needed: write what `success_rate_request_volume` is";
        return cx.fail("failure_percentage_request_volume", problem);
    }
    if by_rate && rate_volume == 0 {
        return cx.fail("success_rate_request_volume", "expected at least 1");
    }
    Some(Rules {
        consecutive_5xx: consecutive_5xx?,
        consecutive_gateway: consecutive_gateway?,
        consecutive_local: 0,
        success_rate_deviations: success_rate_deviations?,
        failure_percent: failure_percent?,
        min_requests: if by_rate { rate_volume } else { share_volume },
    })
}

/// In tenths.
fn deviations(cx: &mut Cx, written: &pb::OutlierDetection) -> Option<u32> {
    if written.success_rate_minimum_hosts.is_some_and(|hosts| hosts != 5) {
        return cx.fail("success_rate_minimum_hosts", "5 alone is supported");
    }
    match written.success_rate_stdev_factor.unwrap_or(1900) {
        factor @ 100..=MOST_DEVIATIONS if factor % 100 == 0 => Some(factor / 100),
        _ => cx.fail("success_rate_stdev_factor", "expected 100 to 10000, in steps of 100"),
    }
}

fn failures(cx: &mut Cx, written: &pb::OutlierDetection) -> Option<u32> {
    if written.failure_percentage_minimum_hosts.unwrap_or(5) > 1 {
        let problem = "it is judged in clusters of any size: write 0 or 1";
        return cx.fail("failure_percentage_minimum_hosts", problem);
    }
    match written.failure_percentage_threshold.unwrap_or(85) {
        0 => cx.fail("failure_percentage_threshold", "at 0 every endpoint would be ejected"),
        percent => Some(percent),
    }
}

/// Failures of our own count apart.
fn split(cx: &mut Cx, written: &pb::OutlierDetection) -> Option<Rules> {
    let others = [
        ("enforcing_consecutive_5xx", written.enforcing_consecutive_5xx, 100),
        ("enforcing_consecutive_gateway_failure", written.enforcing_consecutive_gateway_failure, 0),
        ("enforcing_success_rate", written.enforcing_success_rate, 100),
        ("enforcing_local_origin_success_rate", written.enforcing_local_origin_success_rate, 100),
        ("enforcing_failure_percentage", written.enforcing_failure_percentage, 0),
        ("enforcing_failure_percentage_local_origin", written.enforcing_failure_percentage_local_origin, 0),
    ];
    for (field, share, default) in others {
        if share.unwrap_or(default) != 0 {
            let problem = "with `split_external_local_origin_errors`, 0 alone is supported";
            return cx.fail(field, problem);
        }
    }
    let field = "enforcing_consecutive_local_origin_failure";
    let by_row = enforced(cx, field, written.enforcing_consecutive_local_origin_failure, 100)?;
    let consecutive_local = if by_row { written.consecutive_local_origin_failure.unwrap_or(5) } else { 0 };
    let min_requests = written.failure_percentage_request_volume.unwrap_or(50);
    Some(Rules { consecutive_local, min_requests, ..Rules::default() })
}
