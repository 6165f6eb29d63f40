//! What a route does about failure and load: retries, hedges, limits, faults, copies and fallbacks.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::super::cursor::Cx;
use super::super::fault::{Fault, show};
use super::super::ratio::MAX_TOKENS;
use super::super::tree::{Node, View};
use super::super::{lint, ratio, scalar, words};
use super::{count, headers, percent, route, some_time, split, tenths, whole};
use crate::model::{
    self, AbortWith, Adaptive, Backoff, Concurrency, Destination, Fallback, FaultAbort, FaultDelay, Hedge,
    HedgeAfter, Instead, LimitKey, Mirror, Percent, RateLimit, Retry, RetryCondition, Split, Stale,
};

/// What fails so often does not fail by chance.
pub(in super::super) const MAX_ATTEMPTS: u32 = 10;

/// Every request under way keeps its body until it is answered.
const MAX_REPLAY: u64 = 16 << 20;

/// Each request under way may hold as much beside the answer that it passes on.
const MAX_STALE_BODY: u64 = 1 << 20;

/// For one route, and there may be many.
const MAX_STALE_MEMORY: u64 = 256 << 20;

/// A bucket costs memory whether its caller comes back or not.
pub(in super::super) const MAX_KEYS: u32 = 1_000_000;

/// In tenths: at 1 or below it every wait is one too many.
pub(in super::super) const TOLERANCES: RangeInclusive<u32> = 11..=1_000;

pub(super) fn retry<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Retry> {
    let default = Retry::default();
    let mut m = cx.fields(node, "retry")?;
    let retry = Retry {
        attempts: m
            .optional("attempts", |cx, node| count(cx, node, MAX_ATTEMPTS))
            .unwrap_or(default.attempts),
        conditions: m.optional("conditions", conditions).unwrap_or(default.conditions),
        per_try_timeout: m.optional("per_try_timeout", some_time).or(default.per_try_timeout),
        backoff: m.optional("backoff", backoff).unwrap_or(default.backoff),
        non_idempotent: m.optional("non_idempotent", Cx::boolean).unwrap_or(default.non_idempotent),
        max_body: m.optional("max_body", replay).unwrap_or(default.max_body),
    };
    m.finish();
    Some(retry)
}

fn conditions<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Vec<RetryCondition>> {
    let mut seen = Vec::new();
    let conditions = cx.one_or_more(node, "a condition, or a list of conditions", |cx, node| {
        let condition = cx.parsed(node, "a status, or a word, as `connect-failure`", words::condition)?;
        if seen.contains(&condition) {
            let shown = words::show_condition(condition);
            return cx.fail(node, Fault::new(format!("`{shown}` is written twice")));
        }
        seen.push(condition);
        Some(condition)
    })?;
    lint::conditions(cx, node, &conditions);
    Some(conditions)
}

fn backoff<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Backoff> {
    let default = Backoff::default();
    let mut m = cx.fields(node, "backoff")?;
    let before = m.cx.errors.len();
    let base = m.optional("base", some_time).unwrap_or(default.base);
    let max = m.optional("max", some_time).unwrap_or(default.max);
    // A bound that was wrong is complained of once.
    let read = m.cx.errors.len() == before;
    m.finish();
    if read && max < base {
        return super::crossed(cx, node, ("max", max), ("base", base));
    }
    Some(Backoff { base, max })
}

fn replay<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<u64> {
    cx.parsed(node, SIZE, |text| at_most(text, MAX_REPLAY))
}

const SIZE: &str = "a size, as `64KiB`";

fn at_most(text: &str, most: u64) -> Result<u64, Fault> {
    let bytes = scalar::size(text)?;
    (bytes <= most).then_some(bytes).ok_or_else(|| {
        let hint = format!("expected at most `{}`", scalar::show_size(most));
        Fault::new(format!("{} is out of range", show(text))).hint(hint)
    })
}

/// A size that may not be zero.
fn some_bytes<'a>(cx: &mut Cx<'a>, node: Node<'a>, most: u64) -> Option<u64> {
    cx.parsed(node, SIZE, |text| match at_most(text, most)? {
        0 => Err(Fault::new("zero makes no sense here: nothing could be kept")
            .hint("leave the key out for the default, or write a larger size")),
        bytes => Ok(bytes),
    })
}

pub(super) fn hedge<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Hedge> {
    let mut m = cx.fields(node, "hedge")?;
    let after = m.required("after", |cx, node| {
        cx.parsed(node, "a percentile, as `p95`, or a duration, as `100ms`", hedge_after)
    });
    m.finish();
    Some(Hedge { after: after? })
}

fn hedge_after(text: &str) -> Result<HedgeAfter, Fault> {
    let Some(percentile) = text.strip_prefix('p') else {
        if scalar::whole(text).is_ok_and(|n| (1..=99).contains(&n)) {
            let fault = Fault::new(format!("{} is neither a percentile nor a duration", show(text)));
            return Err(fault.hint(format!("did you mean `p{text}`, or `{text}ms`?")));
        }
        return super::not_zero(scalar::duration(text)?).map(HedgeAfter::Fixed);
    };
    let percentile = scalar::whole(percentile).ok().and_then(|n| u8::try_from(n).ok());
    percentile.filter(|n| (1..=99).contains(n)).map(HedgeAfter::Percentile).ok_or_else(|| {
        Fault::new(format!("{} is not a percentile", show(text))).hint("expected `p1` to `p99`")
    })
}

pub(super) fn concurrency<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Concurrency> {
    let mut m = cx.fields(node, "concurrency")?;
    let max = m.required("max", |cx, node| count(cx, node, u32::MAX));
    let default = Concurrency::new(max.unwrap_or(NonZeroU32::MIN));
    let queue = m.optional("queue", |cx, node| whole(cx, node, 0, u32::MAX)).unwrap_or(default.queue);
    let wait = m.optional("wait", some_time).unwrap_or(default.wait);
    let each = m.has("per");
    let per = m.optional("per", per).unwrap_or(default.per);
    let adaptive = m.optional("adaptive", |cx, node| adaptive(cx, node, max));
    if each {
        m.refuse("adaptive", || {
            Fault::new("what one caller finds says little of the service")
                .hint("remove it, or `per`: the limit follows the latency of all requests together")
        });
    }
    m.finish();
    lint::wait(cx, node);
    max.map(|max| Concurrency { max, queue, wait, per, adaptive })
}

/// How a limit below `max` follows the latency.
fn adaptive<'a>(cx: &mut Cx<'a>, node: Node<'a>, max: Option<NonZeroU32>) -> Option<Adaptive> {
    let mut m = cx.fields(node, "adaptive")?;
    let min = m.optional("min", |cx, node| count(cx, node, max.map_or(u32::MAX, NonZeroU32::get)));
    let tolerance = m.optional("tolerance", |cx, node| {
        tenths(cx, node, "a number from 1.1 to 100, as `1.5`", |found| TOLERANCES.contains(&found))
    });
    m.finish();
    let default = Adaptive::default();
    let least = max.map_or(default.min, |max| default.min.min(max));
    Some(Adaptive { min: min.unwrap_or(least), tolerance: tolerance.unwrap_or(default.tolerance) })
}

pub(super) fn rate_limit<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<RateLimit> {
    let mut m = cx.fields(node, "rate_limit")?;
    let rate = m.required("rate", |cx, node| cx.parsed(node, "a rate, as `100/s`", ratio::rate));
    let burst = m.optional("burst", |cx, node| count(cx, node, MAX_TOKENS));
    let keys = m.optional("keys", |cx, node| count(cx, node, MAX_KEYS));
    let each = m.has("per");
    let per = m.optional("per", per).unwrap_or(LimitKey::All);
    if !each {
        m.refuse("keys", || {
            Fault::new("there is one bucket for all callers").hint("remove it, or write `per`")
        });
    }
    m.finish();
    let (tokens, every) = rate?;
    Some(RateLimit {
        tokens,
        every,
        burst: burst.unwrap_or(tokens),
        per,
        keys: keys.unwrap_or(RateLimit::KEYS),
    })
}

/// What callers are told apart by.
fn per<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<LimitKey> {
    if !matches!(node.view(), View::Map) {
        let expected = "`source`, `identity`, or a header field, as `{ header: x-tenant }`";
        let text = cx.string(node, expected)?;
        match &*text {
            "source" => return Some(LimitKey::Source),
            "identity" => return Some(LimitKey::Identity),
            _ => {}
        }
        let fault = Fault::new(format!("{} does not tell callers apart", show(&text)));
        return cx.fail(node, fault.hint(format!("expected {expected}")));
    }
    let mut m = cx.fields(node, "limit_key")?;
    let header = m.required("header", header);
    m.finish();
    Some(LimitKey::Header(header?))
}

/// The name of a header field.
pub(super) fn header<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<HeaderName> {
    let text = cx.string(node, "a header name")?;
    headers::name(cx, &text, node.place(), &mut Vec::new())
}

pub(super) fn fault<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<model::Fault> {
    let mut m = cx.fields(node, "fault")?;
    if !m.has("delay") && !m.has("abort") {
        m.cx.fail::<()>(node, Fault::new("one of `delay`, `abort` is missing"));
    }
    let delay = m.optional("delay", delay);
    let abort = m.optional("abort", abort);
    let when = m.optional("when", |cx, node| {
        let mut m = cx.fields(node, "fault_when")?;
        let header = m.required("header", header);
        m.finish();
        header
    });
    m.finish();
    Some(model::Fault { delay, abort, when })
}

fn delay<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<FaultDelay> {
    let mut m = cx.fields(node, "fault_delay")?;
    let fixed: Option<Duration> = m.required("fixed", some_time);
    let percent = m.optional("percent", percent).unwrap_or(Percent::ALL);
    m.finish();
    Some(FaultDelay { fixed: fixed?, percent })
}

fn abort<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<FaultAbort> {
    let mut m = cx.fields(node, "fault_abort")?;
    m.exactly_one(&["status", "grpc"]);
    let status = m.optional("status", |cx, node| {
        StatusCode::from_u16(u16::try_from(cx.whole(node, 400, 599)?).ok()?).ok()
    });
    let grpc = m.optional("grpc", |cx, node| cx.parsed(node, "a gRPC status, as `unavailable`", words::grpc));
    let percent = m.optional("percent", percent).unwrap_or(Percent::ALL);
    m.finish();
    let with = status.map(AbortWith::Status).or(grpc.map(AbortWith::Grpc));
    Some(FaultAbort { with: with?, percent })
}

pub(super) fn mirror<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Mirror> {
    let mut m = cx.fields(node, "mirror")?;
    let to = m.required("to", split::reference);
    let percent = m.optional("percent", percent).unwrap_or(Percent::ALL);
    m.finish();
    Some(Mirror { to: to?, percent })
}

/// A fallback of a route to `first`.
pub(super) fn fallback<'a>(cx: &mut Cx<'a>, node: Node<'a>, first: Option<&Split>) -> Option<Fallback> {
    let mut m = cx.fields(node, "fallback")?;
    let written = m.has("stale");
    // It may stand alone, or before one of the others.
    if m.has("to") && m.has("respond") {
        m.exactly_one(&["to", "respond"]);
    } else if !written {
        m.exactly_one(&["stale", "to", "respond"]);
    }
    let stale = m.optional("stale", stale);
    let to = m.optional("to", |cx, node| {
        let to = split::reference(cx, node)?;
        if first.is_some_and(|split| split.targets.iter().all(|target| target.to == to)) {
            return cx.fail(node, same_again(&to));
        }
        Some(Instead::To(to))
    });
    let respond = m.optional("respond", route::respond).map(Instead::Respond);
    m.finish();
    let instead = to.or(respond);
    if written { Some(Fallback::Stale(stale?, instead)) } else { instead.map(Fallback::Instead) }
}

/// How long answers are kept, or that and in which room.
fn stale<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Stale> {
    if !matches!(node.view(), View::Map) {
        return some_time(cx, node).map(Stale::new);
    }
    let mut m = cx.fields(node, "stale")?;
    let before = m.cx.errors.len();
    let keep = m.required("for", some_time);
    let max_body = m.optional("max_body", |cx, node| some_bytes(cx, node, MAX_STALE_BODY));
    let memory = m.optional("memory", |cx, node| some_bytes(cx, node, MAX_STALE_MEMORY));
    // A bound that was wrong is complained of once.
    let read = m.cx.errors.len() == before;
    m.finish();
    let (max_body, memory) = (max_body.unwrap_or(Stale::MAX_BODY), memory.unwrap_or(Stale::MEMORY));
    if read && memory < max_body {
        let (room, body) = (scalar::show_size(memory), scalar::show_size(max_body));
        let fault = Fault::new(format!("`memory` is {room}, and `max_body` is {body}"));
        return cx.fail(node, fault.hint("`memory` may not be below `max_body`"));
    }
    Some(Stale { keep: keep?, max_body, memory })
}

fn same_again(to: &Destination) -> Fault {
    Fault::new(format!("`{to}` is what failed when this is asked for"))
        .hint("name another cluster, or write `retry` to ask the same one again")
}
