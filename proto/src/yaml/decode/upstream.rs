//! What a cluster does about load and failing endpoints: balancing, budgets, breakers, ejection and checks.

use std::time::Duration;

use http::uri::PathAndQuery;

use super::super::cursor::{Cx, Fields};
use super::super::fault::{Fault, show};
use super::super::scalar::show_duration;
use super::super::tree::{Node, View};
use super::super::{ratio, scalar};
use super::{count, crossed, hash, percent, some_time, whole};
use crate::model::{
    Balance, BreakerLimits, CircuitBreaker, HealthCheck, OutlierDetection, Probe, RetryBudget,
};

/// Beyond this a slip of the pen is likelier than a plan.
pub(in super::super) const MAX_FLOOR: u32 = 1_000_000;

/// Longer rows than this say nothing that a share would not say sooner.
pub(in super::super) const MAX_ROW: u32 = 1_000;

/// In tenths: farther from the mean than this is nobody.
pub(in super::super) const MAX_DEVIATIONS: u32 = 100;

/// In tenths: at 1 or below it half of all endpoints would be slow.
pub(in super::super) const LATENCY_FACTORS: (u32, u32) = (11, 1_000);

/// What is asked or counted more often than this costs more than it tells.
pub(in super::super) const MIN_INTERVAL: Duration = Duration::from_millis(10);

pub(super) fn balance<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Balance> {
    if matches!(node.view(), View::Map) {
        return hash::balance(cx, node);
    }
    let words = [
        ("peak-ewma", Balance::PeakEwma),
        ("least-request", Balance::LeastRequest),
        ("round-robin", Balance::RoundRobin),
        ("random", Balance::Random),
        ("ring-hash", Balance::RingHash(Box::default())),
        ("maglev", Balance::Maglev(Box::default())),
    ];
    cx.word(node, &words)
}

pub(super) fn retry_budget<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<RetryBudget> {
    let default = RetryBudget::default();
    let mut m = cx.fields(node, "retry_budget")?;
    let budget = RetryBudget {
        percent: m.optional("percent", percent).unwrap_or(default.percent),
        min: m.optional("min", |cx, node| whole(cx, node, 0, MAX_FLOOR)).unwrap_or(default.min),
    };
    m.finish();
    Some(budget)
}

pub(super) fn circuit_breaker<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<CircuitBreaker> {
    let mut m = cx.fields(node, "circuit_breaker")?;
    let default = breaker_limits(&mut m, BreakerLimits::default());
    let high = m.optional("high", |cx, node| {
        let mut m = cx.fields(node, "breaker_limits")?;
        let high = breaker_limits(&mut m, default);
        m.finish();
        Some(high)
    });
    m.finish();
    Some(CircuitBreaker { default, high })
}

fn breaker_limits<'a>(m: &mut Fields<'_, 'a>, default: BreakerLimits) -> BreakerLimits {
    let some = |cx: &mut Cx<'a>, node| count(cx, node, u32::MAX);
    let any = |cx: &mut Cx<'a>, node| whole(cx, node, 0, u32::MAX);
    BreakerLimits {
        max_connections: m.optional("max_connections", some).unwrap_or(default.max_connections),
        max_pending: m.optional("max_pending", any).unwrap_or(default.max_pending),
        max_requests: m.optional("max_requests", some).unwrap_or(default.max_requests),
        max_retries: m.optional("max_retries", any).unwrap_or(default.max_retries),
    }
}

pub(super) fn outlier_detection<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<OutlierDetection> {
    let default = OutlierDetection::default();
    let row = |cx: &mut Cx<'a>, node| whole(cx, node, 0, MAX_ROW);
    let mut m = cx.fields(node, "outlier_detection")?;
    let before = m.cx.errors.len();
    let outliers = OutlierDetection {
        consecutive_5xx: m.optional("consecutive_5xx", row).unwrap_or(default.consecutive_5xx),
        consecutive_gateway: m.optional("consecutive_gateway", row).unwrap_or(default.consecutive_gateway),
        consecutive_local: m.optional("consecutive_local", row).unwrap_or(default.consecutive_local),
        success_rate_deviations: m
            .optional("success_rate_deviations", |cx, node| tenths(cx, node, (1, MAX_DEVIATIONS)))
            .unwrap_or(default.success_rate_deviations),
        failure_percent: m.optional("failure_percent", percent).unwrap_or(default.failure_percent),
        latency_factor: m
            .optional("latency_factor", |cx, node| tenths(cx, node, LATENCY_FACTORS))
            .unwrap_or(default.latency_factor),
        min_requests: m
            .optional("min_requests", |cx, node| count(cx, node, u32::MAX))
            .unwrap_or(default.min_requests),
        interval: m.optional("interval", interval).unwrap_or(default.interval),
        base_ejection: m.optional("base_ejection", some_time).unwrap_or(default.base_ejection),
        max_ejection: m.optional("max_ejection", some_time).unwrap_or(default.max_ejection),
        max_ejected: m.optional("max_ejected", percent).unwrap_or(default.max_ejected),
    };
    // A bound that was wrong is complained of once.
    let read = m.cx.errors.len() == before;
    m.finish();
    if read && outliers.max_ejection < outliers.base_ejection {
        let (max, base) = (outliers.max_ejection, outliers.base_ejection);
        return crossed(cx, node, ("max_ejection", max), ("base_ejection", base));
    }
    Some(outliers)
}

/// A number in tenths: 0, or within the bounds.
fn tenths<'a>(cx: &mut Cx<'a>, node: Node<'a>, (least, most): (u32, u32)) -> Option<u32> {
    let shown = |tenths| ratio::show_tenths(tenths);
    let expected = format!("0, or a number from {} to {}, as `1.9`", shown(least), shown(most));
    super::tenths(cx, node, &expected, |found| found == 0 || (least..=most).contains(&found))
}

fn interval<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Duration> {
    cx.parsed(node, super::DURATION, |text| {
        let time = scalar::duration(text)?;
        (time >= MIN_INTERVAL).then_some(time).ok_or_else(|| {
            let hint = format!("expected at least `{}`", show_duration(MIN_INTERVAL));
            Fault::new(format!("{} is too short", show(text))).hint(hint)
        })
    })
}

pub(super) fn health_check<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<HealthCheck> {
    let row = |cx: &mut Cx<'a>, node| count(cx, node, MAX_ROW);
    let mut m = cx.fields(node, "health_check")?;
    m.exactly_one(&["http", "tcp", "grpc"]);
    let http = m.optional("http", |cx, node| Some(Probe::Http(probe_path(cx, node)?)));
    let tcp = m.optional("tcp", tcp_probe);
    let grpc = m.optional("grpc", |cx, node| {
        Some(Probe::Grpc(cx.string(node, "a gRPC service's name, or `\"\"`")?.into()))
    });
    let probe = http.or(tcp).or(grpc);
    // With a probe that was wrong, the rest is read all the same.
    let default = HealthCheck::new(probe.clone().unwrap_or(Probe::Tcp));
    let check = HealthCheck {
        probe: default.probe,
        interval: m.optional("interval", interval).unwrap_or(default.interval),
        unhealthy_interval: m.optional("unhealthy_interval", interval).unwrap_or(default.unhealthy_interval),
        idle_interval: m.optional("idle_interval", interval).unwrap_or(default.idle_interval),
        timeout: m.optional("timeout", some_time).unwrap_or(default.timeout),
        unhealthy_after: m.optional("unhealthy_after", row).unwrap_or(default.unhealthy_after),
        healthy_after: m.optional("healthy_after", row).unwrap_or(default.healthy_after),
    };
    m.finish();
    probe.map(|_| check)
}

/// A mapping without keys yet.
fn tcp_probe<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Probe> {
    if !matches!(node.view(), View::Map) {
        return cx.unlike(node, "`{}`");
    }
    cx.fields(node, "tcp_probe")?.finish();
    Some(Probe::Tcp)
}

/// A path with or without a query, as it is sent.
fn probe_path<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Box<str>> {
    let text = cx.string(node, "a path, as `/healthz`")?;
    // A fragment is no part of a request, and the parser drops it.
    let sent = text.parse::<PathAndQuery>().is_ok_and(|sent| sent.as_str() == text);
    if !sent || !text.starts_with('/') {
        let fault = Fault::new(format!("{} is not a path that can be asked for", show(&text)));
        return cx.fail(node, fault.hint("expected one as `/healthz`, with or without a query"));
    }
    Some(text.into())
}
