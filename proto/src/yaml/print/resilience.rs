//! Policies for failure and load. One that may be left out is printed when it was written, and then whole.

use std::collections::BTreeMap;

use super::super::ratio::{show_percent, show_rate, show_tenths};
use super::super::scalar::{show_duration, show_size};
use super::super::words::{show_condition, show_grpc};
use super::respond;
use super::writer::{Out, key, list, text};
use crate::model::{
    AbortWith, Adaptive, Backoff, Balance, BreakerLimits, CircuitBreaker, Concurrency, Fallback, Fault,
    FaultAbort, FaultDelay, HashKey, HashOn, HealthCheck, Hedge, HedgeAfter, Instead, Labels, LimitKey,
    MadeCookie, Mirror, Name, OutlierDetection, Probe, RateLimit, Retry, RetryBudget, Stale, SubsetFallback,
};

pub(super) fn retry(out: &mut Out, retry: &Retry) {
    let Retry { attempts, conditions, per_try_timeout, backoff, non_idempotent, max_body } = retry;
    let Backoff { base, max } = backoff;
    out.block("retry", |out| {
        out.field("attempts", attempts);
        out.field("conditions", list(conditions.iter().map(|condition| show_condition(*condition))));
        match per_try_timeout {
            Some(time) => out.field("per_try_timeout", show_duration(*time)),
            None => out.comment("per_try_timeout: (default: none)"),
        }
        out.block("backoff", |out| {
            out.field("base", show_duration(*base));
            out.field("max", show_duration(*max));
        });
        out.field("non_idempotent", non_idempotent);
        out.field("max_body", show_size(*max_body));
    });
}

pub(super) fn hedge(out: &mut Out, Hedge { after }: Hedge) {
    let after = match after {
        HedgeAfter::Fixed(time) => show_duration(time),
        HedgeAfter::Percentile(percent) => format!("p{percent}"),
    };
    out.block("hedge", |out| out.field("after", after));
}

pub(super) fn mirror(out: &mut Out, Mirror { to, percent }: &Mirror) {
    out.block("mirror", |out| {
        out.field("to", text(&to.to_string()));
        out.field("percent", show_percent(*percent));
    });
}

pub(super) fn fallback(out: &mut Out, fallback: &Fallback) {
    out.block("fallback", |out| {
        if let Some(Stale { keep, max_body, memory }) = fallback.stale() {
            out.block("stale", |out| {
                out.field("for", show_duration(*keep));
                out.field("max_body", show_size(*max_body));
                out.field("memory", show_size(*memory));
            });
        }
        match fallback.instead() {
            Some(Instead::To(to)) => out.field("to", text(&to.to_string())),
            Some(Instead::Respond(answer)) => respond(out, answer),
            None => {}
        }
    });
}

/// What is decided before a route's action.
pub(super) fn admission(
    out: &mut Out,
    rate: Option<&RateLimit>,
    concurrency: Option<&Concurrency>,
    faults: Option<&Fault>,
) {
    if let Some(RateLimit { tokens, every, burst, per, keys }) = rate {
        out.block("rate_limit", |out| {
            out.field("rate", show_rate(*tokens, *every));
            out.field("burst", burst);
            limit_key(out, per);
            if *per != LimitKey::All {
                out.field("keys", keys);
            }
        });
    }
    if let Some(Concurrency { max, queue, wait, per, adaptive }) = concurrency {
        out.block("concurrency", |out| {
            out.field("max", max);
            out.field("queue", queue);
            out.field("wait", show_duration(*wait));
            limit_key(out, per);
            if let Some(Adaptive { min, tolerance }) = adaptive {
                out.block("adaptive", |out| {
                    out.field("min", min);
                    out.field("tolerance", show_tenths(*tolerance));
                });
            }
        });
    }
    if let Some(faults) = faults {
        out.block("fault", |out| fault(out, faults));
    }
}

fn limit_key(out: &mut Out, per: &LimitKey) {
    match per {
        LimitKey::All => out.comment("per: (default: all requests together)"),
        LimitKey::Header(name) => out.block("per", |out| out.field("header", text(name.as_str()))),
        LimitKey::Source => out.field("per", "source"),
        LimitKey::Identity => out.field("per", "identity"),
    }
}

fn fault(out: &mut Out, Fault { delay, abort, when }: &Fault) {
    if let Some(FaultDelay { fixed, percent }) = delay {
        out.block("delay", |out| {
            out.field("fixed", show_duration(*fixed));
            out.field("percent", show_percent(*percent));
        });
    }
    if let Some(FaultAbort { with, percent }) = abort {
        out.block("abort", |out| {
            match with {
                AbortWith::Status(status) => out.field("status", status.as_u16()),
                AbortWith::Grpc(code) => out.field("grpc", show_grpc(*code)),
            }
            out.field("percent", show_percent(*percent));
        });
    }
    match when {
        Some(header) => out.block("when", |out| out.field("header", text(header.as_str()))),
        None => out.comment("when: (default: every request)"),
    }
}

pub(super) fn balance(out: &mut Out, balance: &Balance) {
    let word = match balance {
        Balance::PeakEwma => "peak-ewma",
        Balance::LeastRequest => "least-request",
        Balance::RoundRobin => "round-robin",
        Balance::Random => "random",
        Balance::RingHash(keys) => return hash_balance(out, "ring-hash", keys),
        Balance::Maglev(keys) => return hash_balance(out, "maglev", keys),
    };
    out.field("balance", word);
}

fn hash_balance(out: &mut Out, kind: &str, keys: &[HashKey]) {
    if keys.is_empty() {
        return out.field("balance", kind);
    }
    out.block("balance", |out| out.block(kind, |out| hash(out, keys)));
}

pub(super) fn hash(out: &mut Out, keys: &[HashKey]) {
    let keys = keys.iter().map(|HashKey { on, terminal }| {
        let on = match on {
            HashOn::Source if !terminal => return "source".to_owned(),
            HashOn::Source => "source: true".to_owned(),
            HashOn::Header(name) => format!("header: {}", text(name.as_str())),
            HashOn::Cookie { name, made: None } => format!("cookie: {}", text(name)),
            HashOn::Cookie { name, made: Some(MadeCookie { ttl, path }) } => {
                let path = path.as_deref().map_or("none".to_owned(), text);
                let (name, ttl) = (text(name), show_duration(*ttl));
                format!("cookie: {{ name: {name}, ttl: {ttl}, path: {path} }}")
            }
            HashOn::Query(name) => format!("query: {}", text(name)),
        };
        format!("{{ {on}{} }}", if *terminal { ", terminal: true" } else { "" })
    });
    out.field("hash", list(keys));
}

pub(super) fn retry_budget(out: &mut Out, RetryBudget { percent, min }: RetryBudget) {
    out.block("retry_budget", |out| {
        out.field("percent", show_percent(percent));
        out.field("min", min);
    });
}

pub(super) fn circuit_breaker(out: &mut Out, breaker: &CircuitBreaker) {
    let CircuitBreaker { default, high } = breaker;
    out.block("circuit_breaker", |out| {
        breaker_limits(out, default);
        match high {
            Some(high) => out.block("high", |out| breaker_limits(out, high)),
            None => out.comment("high: (default: as many again)"),
        }
    });
}

fn breaker_limits(out: &mut Out, limits: &BreakerLimits) {
    let BreakerLimits { max_connections, max_pending, max_requests, max_retries } = limits;
    out.field("max_connections", max_connections);
    out.field("max_pending", max_pending);
    out.field("max_requests", max_requests);
    out.field("max_retries", max_retries);
}

pub(super) fn outlier_detection(out: &mut Out, outliers: &OutlierDetection) {
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
    out.block("outlier_detection", |out| {
        out.field("consecutive_5xx", consecutive_5xx);
        out.field("consecutive_gateway", consecutive_gateway);
        out.field("consecutive_local", consecutive_local);
        out.field("success_rate_deviations", show_tenths(*success_rate_deviations));
        out.field("failure_percent", show_percent(*failure_percent));
        out.field("latency_factor", show_tenths(*latency_factor));
        out.field("min_requests", min_requests);
        out.field("interval", show_duration(*interval));
        out.field("base_ejection", show_duration(*base_ejection));
        out.field("max_ejection", show_duration(*max_ejection));
        out.field("max_ejected", show_percent(*max_ejected));
    });
}

pub(super) fn health_check(out: &mut Out, check: &HealthCheck) {
    let HealthCheck {
        probe,
        interval,
        unhealthy_interval,
        idle_interval,
        timeout,
        unhealthy_after,
        healthy_after,
    } = check;
    out.block("health_check", |out| {
        match probe {
            Probe::Http(path) => out.field("http", text(path)),
            Probe::Tcp => out.field("tcp", "{}"),
            Probe::Grpc(service) => out.field("grpc", text(service)),
        }
        out.field("interval", show_duration(*interval));
        out.field("unhealthy_interval", show_duration(*unhealthy_interval));
        out.field("idle_interval", show_duration(*idle_interval));
        out.field("timeout", show_duration(*timeout));
        out.field("unhealthy_after", unhealthy_after);
        out.field("healthy_after", healthy_after);
    });
}

/// What a cluster is divided into: by zone, and by labels.
pub(super) fn parts(
    out: &mut Out,
    zone_weights: &BTreeMap<Box<str>, u32>,
    (subsets, fallback): (&BTreeMap<Name, Labels>, SubsetFallback),
) {
    if !zone_weights.is_empty() {
        out.map("zone_weights", zone_weights.iter(), |out, (zone, weight)| out.field(&key(zone), weight));
    }
    if !subsets.is_empty() {
        out.map("subsets", subsets.iter(), |out, (name, wanted)| {
            out.field(&key(name.as_str()), labels(wanted))
        });
        out.field(
            "subset_fallback",
            match fallback {
                SubsetFallback::None => "none",
                SubsetFallback::Any => "any",
            },
        );
    }
}

pub(super) fn labels(Labels(labels): &Labels) -> String {
    let each = labels.iter().map(|(name, value)| format!("{}: {}", key(name), text(value)));
    format!("{{ {} }}", each.collect::<Vec<_>>().join(", "))
}
