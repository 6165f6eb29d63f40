//! When an endpoint is left out by how it answers.
//!
//! Envoy's rules mean what ours mean as long as the failures of its own (no connection, no answer in time) count as 5xx, which
//! is its default. Where it splits them off, one rule is the same: that of failures of its own in a row.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::cx::Cx;
use super::super::generated::envoy::config::cluster::v3 as pb;
use super::super::generated::outrigger::extensions::v1::cluster as ours;
use super::{limit, often};
use crate::model::{OutlierDetection, Percent};

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

/// What of it is about how long endpoints are left out, and how many.
struct Ejections {
    base: Option<prost_types::Duration>,
    max: Option<prost_types::Duration>,
    jitter: Option<prost_types::Duration>,
    percent: u32,
    always_one: Option<bool>,
    ended_by_checks: Option<bool>,
}

/// A rule: whether it is enforced, and how many it takes.
struct Rule {
    enforcing: Option<u32>,
    number: Option<u32>,
}

/// A rule that looks at all of an interval's requests.
struct Share {
    rule: Rule,
    hosts: Option<u32>,
    volume: Option<u32>,
}

/// All rules.
struct Written {
    consecutive_5xx: Rule,
    gateway: Rule,
    local: Rule,
    success_rate: Share,
    failures: Share,
    local_success_rate: Option<u32>,
    local_failures: Option<u32>,
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

/// The rules, the ejections, how often is looked, and whether failures of our own are split off.
fn parts(written: pb::OutlierDetection) -> (Written, Ejections, Option<prost_types::Duration>, bool) {
    let pb::OutlierDetection {
        consecutive_5xx,
        interval,
        base_ejection_time,
        max_ejection_percent,
        enforcing_consecutive_5xx,
        enforcing_success_rate,
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate,
        failure_percentage_threshold,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        max_ejection_time,
        max_ejection_time_jitter,
        successful_active_health_check_uneject_host,
        always_eject_one_host,
    } = written;
    let rule = |enforcing, number| Rule { enforcing, number };
    let rules = Written {
        consecutive_5xx: rule(enforcing_consecutive_5xx, consecutive_5xx),
        gateway: rule(enforcing_consecutive_gateway_failure, consecutive_gateway_failure),
        local: rule(enforcing_consecutive_local_origin_failure, consecutive_local_origin_failure),
        success_rate: Share {
            rule: rule(enforcing_success_rate, success_rate_stdev_factor),
            hosts: success_rate_minimum_hosts,
            volume: success_rate_request_volume,
        },
        failures: Share {
            rule: rule(enforcing_failure_percentage, failure_percentage_threshold),
            hosts: failure_percentage_minimum_hosts,
            volume: failure_percentage_request_volume,
        },
        local_success_rate: enforcing_local_origin_success_rate,
        local_failures: enforcing_failure_percentage_local_origin,
    };
    let ejections = Ejections {
        base: base_ejection_time,
        max: max_ejection_time,
        jitter: max_ejection_time_jitter,
        percent: max_ejection_percent.unwrap_or(10),
        always_one: always_eject_one_host,
        ended_by_checks: successful_active_health_check_uneject_host,
    };
    (rules, ejections, interval, split_external_local_origin_errors)
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
    let (rules, ejections, interval, is_split) = parts(written);
    let rules = match is_split {
        true => split(cx, &rules),
        false => together(cx, &rules).map(|rules| Rules { consecutive_local, ..rules }),
    };
    let interval = often(cx, "interval", interval, Duration::from_secs(10));
    let times = times(cx, &ejections);
    let is_on = is_on(cx, &ejections);
    let field = "max_ejection_percent";
    let ejected = exactly(cx, field, ejections.percent, ejected_millionths, |exact| exact / 10_000);
    let (rules, interval, (base_ejection, max_ejection)) = (rules?, interval?, times?);
    let field = "failure_percentage_threshold";
    let rounded = |exact: u32| exact.div_ceil(10_000);
    let failure_percent = exactly(cx, field, rules.failure_percent, failure_millionths, rounded);
    let field = "failure_percentage_request_volume";
    let min_requests = NonZeroU32::new(rules.min_requests).or_else(|| cx.fail(field, "expected at least 1"));
    let detection = OutlierDetection {
        consecutive_5xx: rules.consecutive_5xx,
        consecutive_gateway: rules.consecutive_gateway,
        consecutive_local: rules.consecutive_local,
        success_rate_deviations: rules.success_rate_deviations,
        failure_percent: failure_percent?,
        latency_factor,
        min_requests: min_requests?,
        interval,
        base_ejection,
        max_ejection,
        max_ejected: ejected?,
    };
    Some(is_on?.then_some(detection))
}

/// Whether there is anything to be ejected at all: of 0 %, Envoy ejects none unless it is told that one may always be.
fn is_on(cx: &mut Cx, ejections: &Ejections) -> Option<bool> {
    if ejections.ended_by_checks == Some(true) {
        let problem = "it is not supported: who is ejected comes back when its time is over";
        return cx.fail("successful_active_health_check_uneject_host", problem);
    }
    let some = ejections.percent > 0;
    match ejections.always_one {
        Some(false) if some => {
            cx.fail("always_eject_one_host", "it is not supported to eject none where one would be too many")
        }
        None | Some(false) => Some(some),
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
fn times(cx: &mut Cx, ejections: &Ejections) -> Option<(Duration, Duration)> {
    let base = limit(cx, "base_ejection_time", ejections.base, Duration::from_secs(30))?;
    let max = limit(cx, "max_ejection_time", ejections.max, base.max(Duration::from_secs(300)))?;
    if max < base {
        return cx.fail("max_ejection_time", "this is shorter than `base_ejection_time`");
    }
    if cx.time("max_ejection_time_jitter", ejections.jitter)?.is_some() {
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
fn together(cx: &mut Cx, written: &Written) -> Option<Rules> {
    let row = |cx: &mut Cx, field, rule: &Rule, default| {
        Some(if enforced(cx, field, rule.enforcing, default)? { rule.number.unwrap_or(5) } else { 0 })
    };
    let consecutive_5xx = row(cx, "enforcing_consecutive_5xx", &written.consecutive_5xx, 100);
    let consecutive_gateway = row(cx, "enforcing_consecutive_gateway_failure", &written.gateway, 0);
    let (success_rate, failures) = (&written.success_rate, &written.failures);
    let by_rate = enforced(cx, "enforcing_success_rate", success_rate.rule.enforcing, 100);
    let by_share = enforced(cx, "enforcing_failure_percentage", failures.rule.enforcing, 0);
    let (by_rate, by_share) = (by_rate?, by_share?);
    let success_rate_deviations = if by_rate { deviations(cx, success_rate) } else { Some(0) };
    let failure_percent = if by_share { failing(cx, failures) } else { Some(0) };
    let rate_volume = success_rate.volume.unwrap_or(100);
    let share_volume = failures.volume.unwrap_or(50);
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
        min_requests: match (by_rate, by_share) {
            (true, _) => rate_volume,
            (false, true) => share_volume,
            // Nobody looks at it, but who judges by latency.
            (false, false) => share_volume.max(1),
        },
    })
}

/// In tenths.
fn deviations(cx: &mut Cx, written: &Share) -> Option<u32> {
    if written.hosts.is_some_and(|hosts| hosts != 5) {
        return cx.fail("success_rate_minimum_hosts", "5 alone is supported");
    }
    match written.rule.number.unwrap_or(1900) {
        factor @ 100..=MOST_DEVIATIONS if factor % 100 == 0 => Some(factor / 100),
        _ => cx.fail("success_rate_stdev_factor", "expected 100 to 10000, in steps of 100"),
    }
}

fn failing(cx: &mut Cx, written: &Share) -> Option<u32> {
    if written.hosts.unwrap_or(5) > 1 {
        let problem = "it is judged in clusters of any size: write 0 or 1";
        return cx.fail("failure_percentage_minimum_hosts", problem);
    }
    match written.rule.number.unwrap_or(85) {
        0 => cx.fail("failure_percentage_threshold", "at 0 every endpoint would be ejected"),
        percent => Some(percent),
    }
}

/// Failures of our own count apart.
fn split(cx: &mut Cx, written: &Written) -> Option<Rules> {
    let Written {
        consecutive_5xx,
        gateway,
        local,
        success_rate,
        failures,
        local_success_rate,
        local_failures,
    } = written;
    let others = [
        ("enforcing_consecutive_5xx", consecutive_5xx.enforcing, 100),
        ("enforcing_consecutive_gateway_failure", gateway.enforcing, 0),
        ("enforcing_success_rate", success_rate.rule.enforcing, 100),
        ("enforcing_local_origin_success_rate", *local_success_rate, 100),
        ("enforcing_failure_percentage", failures.rule.enforcing, 0),
        ("enforcing_failure_percentage_local_origin", *local_failures, 0),
    ];
    for (field, share, default) in others {
        if share.unwrap_or(default) != 0 {
            let problem = "with `split_external_local_origin_errors`, 0 alone is supported";
            return cx.fail(field, problem);
        }
    }
    let field = "enforcing_consecutive_local_origin_failure";
    let by_row = enforced(cx, field, local.enforcing, 100)?;
    let consecutive_local = if by_row { local.number.unwrap_or(5) } else { 0 };
    let min_requests = failures.volume.unwrap_or(50).max(1);
    Some(Rules { consecutive_local, min_requests, ..Rules::default() })
}
