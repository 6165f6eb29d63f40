//! What we say beside a route, as no field of Envoy's could.

use std::num::NonZeroU32;
use std::time::Duration;

use ::http::{HeaderName, StatusCode};

use super::super::cx::Cx;
use super::super::generated::outrigger::extensions::v1::route as pb;
use super::{name, retry};
use crate::model::{
    Adaptive, Concurrency, Destination, Fallback, Hedge, HedgeAfter, Instead, LimitKey, Name, Respond, Retry,
    Stale,
};

pub(super) fn concurrency(cx: &mut Cx, limit: pb::Concurrency) -> Option<Concurrency> {
    let pb::Concurrency { max, queue, wait, per, adaptive } = limit;
    let max = some_of(cx, "max", max);
    let wait = some_time(cx, "wait", wait);
    let per = match per {
        None => Some(LimitKey::All),
        Some(pb::concurrency::Per::Header(header)) => match HeaderName::from_bytes(header.as_bytes()) {
            Ok(header) => Some(LimitKey::Header(header)),
            Err(_) => cx.fail("header", format!("`{header}` is not the name of a header field")),
        },
        Some(pb::concurrency::Per::Source(true)) => Some(LimitKey::Source),
        Some(pb::concurrency::Per::Identity(true)) => Some(LimitKey::Identity),
        Some(pb::concurrency::Per::Source(false) | pb::concurrency::Per::Identity(false)) => {
            cx.fail("per", "what is counted apart is said by `true`")
        }
    };
    let adaptive = match adaptive {
        None => None,
        Some(_) if per.as_ref().is_some_and(|per| *per != LimitKey::All) => {
            return cx.fail("adaptive", "only where all are counted together");
        }
        Some(pb::Adaptive { min, tolerance }) => Some(cx.within("adaptive", |cx| {
            let min = some_of(cx, "min", min)?;
            if max.is_some_and(|max| min > max) {
                return cx.fail("min", "this is above `max`");
            }
            if !(11..=1_000).contains(&tolerance) {
                return cx.fail("tolerance", "this is not from 11 to 1000 tenths");
            }
            Some(Adaptive { min, tolerance })
        })?),
    };
    Some(Concurrency { max: max?, queue, wait: wait?, per: per?, adaptive })
}

pub(super) fn fallback(cx: &mut Cx, fallback: pb::Fallback) -> Option<Fallback> {
    let pb::Fallback { stale: kept, instead } = fallback;
    let kept = match kept {
        None => None,
        Some(kept) => Some(cx.within("stale", |cx| stale(cx, &kept))?),
    };
    let instead = match instead {
        None => None,
        Some(pb::fallback::Instead::To(pb::Destination { cluster, subset })) => {
            let to = cx.within("to", |cx| {
                let cluster = name(cx, "cluster", &cluster)?;
                Some(Destination { cluster, subset: part(cx, "subset", &subset)? })
            });
            Some(Instead::To(to?))
        }
        Some(pb::fallback::Instead::Respond(pb::Respond { status, body })) => {
            Some(Instead::Respond(cx.within("respond", |cx| answer(cx, status, body))?))
        }
    };
    match (kept, instead) {
        (Some(kept), instead) => Some(Fallback::Stale(kept, instead)),
        (None, Some(instead)) => Some(Fallback::Instead(instead)),
        (None, None) => cx.fail("", "neither `stale`, `to` nor `respond` is there"),
    }
}

fn stale(cx: &mut Cx, kept: &pb::Stale) -> Option<Stale> {
    let pb::Stale { keep, max_body, memory } = *kept;
    let keep = some_time(cx, "keep", keep)?;
    if max_body == 0 || memory < max_body {
        return cx.fail("memory", "this has no room for one answer of `max_body`, which is at least 1");
    }
    Some(Stale { keep, max_body, memory })
}

pub(super) fn hedge(cx: &mut Cx, hedge: pb::Hedge) -> Option<Hedge> {
    let pb::Hedge { after } = hedge;
    let after = match cx.required("after", after)? {
        pb::hedge::After::Fixed(after) => HedgeAfter::Fixed(some_time(cx, "fixed", Some(after))?),
        pb::hedge::After::Percentile(percentile) => {
            match u8::try_from(percentile).ok().filter(|n| (1..=99).contains(n)) {
                Some(percentile) => HedgeAfter::Percentile(percentile),
                None => return cx.fail("percentile", "this is not from 1 to 99"),
            }
        }
    };
    Some(Hedge { after })
}

pub(super) fn retry(cx: &mut Cx, retry: pb::Retry, policy: &mut Retry) -> Option<()> {
    let pb::Retry { conditions, idempotent_only } = retry;
    policy.non_idempotent = !idempotent_only;
    if conditions.is_empty() {
        return Some(());
    }
    policy.conditions = cx.each("conditions", conditions, |cx, word| match retry::exactly(&word) {
        Some(condition) => Some(condition),
        None => cx.fail("", format!("`{word}` is not a condition")),
    })?;
    Some(())
}

/// The name of a cluster's part; `None` inside for all of it.
pub(super) fn part(cx: &mut Cx, field: &str, subset: &str) -> Option<Option<Name>> {
    if subset.is_empty() {
        return Some(None);
    }
    match Name::new(subset) {
        Some(subset) => Some(Some(subset)),
        None => cx.fail(field, "this is not the name of a subset"),
    }
}

/// An answer of ours; a text of its own has only one that may hold it.
pub(super) fn answer(cx: &mut Cx, status: u32, body: String) -> Option<Respond> {
    let status = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
    let Some(status) = status.and_then(|status| StatusCode::from_u16(status).ok()) else {
        return cx.fail("status", "this is not the status of an answer");
    };
    if !body.is_empty() && matches!(status.as_u16(), 204 | 205 | 304) {
        return cx.fail("body", format!("an answer of {} has none", status.as_u16()));
    }
    Some(Respond { status, body: body.into() })
}

fn some_of(cx: &mut Cx, field: &str, number: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(number).or_else(|| cx.fail(field, "this is zero, or missing"))
}

fn some_time(cx: &mut Cx, field: &str, time: Option<prost_types::Duration>) -> Option<Duration> {
    cx.time(field, time)?.or_else(|| cx.fail(field, "this is zero, or missing"))
}
