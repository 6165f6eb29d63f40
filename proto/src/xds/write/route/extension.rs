//! What we say beside a route, as no field of Envoy's could.

use super::super::super::generated::outrigger::extensions::v1::route as pb;
use super::{Cx, time};
use crate::model::{
    Adaptive, Concurrency, Destination, Fallback, Hedge, HedgeAfter, Instead, LimitKey, Respond, Stale,
};

pub(super) fn concurrency(cx: &mut Cx, limit: &Concurrency) -> Option<pb::Concurrency> {
    let Concurrency { max, queue, wait, per, adaptive } = limit;
    let per = match per {
        LimitKey::All => None,
        LimitKey::Header(header) => Some(pb::concurrency::Per::Header(header.to_string())),
        LimitKey::Source => Some(pb::concurrency::Per::Source(true)),
        LimitKey::Identity => Some(pb::concurrency::Per::Identity(true)),
    };
    let adaptive = adaptive.map(|Adaptive { min, tolerance }| pb::Adaptive { min: min.get(), tolerance });
    let wait = time(cx, "concurrency.wait", *wait)?;
    Some(pb::Concurrency { max: max.get(), queue: *queue, wait: Some(wait), per, adaptive })
}

pub(super) fn fallback(cx: &mut Cx, fallback: &Fallback) -> Option<pb::Fallback> {
    let (stale, instead) = match fallback {
        Fallback::Stale(Stale { keep, max_body, memory }, instead) => {
            let keep = time(cx, "fallback.stale.keep", *keep)?;
            let stale = pb::Stale { keep: Some(keep), max_body: *max_body, memory: *memory };
            (Some(stale), instead.as_ref())
        }
        Fallback::Instead(instead) => (None, Some(instead)),
    };
    let instead = instead.map(|instead| match instead {
        Instead::To(Destination { cluster, subset }) => pb::fallback::Instead::To(pb::Destination {
            cluster: cluster.to_string(),
            subset: subset.as_ref().map(ToString::to_string).unwrap_or_default(),
        }),
        Instead::Respond(Respond { status, body }) => pb::fallback::Instead::Respond(pb::Respond {
            status: u32::from(status.as_u16()),
            body: body.to_string(),
        }),
    });
    Some(pb::Fallback { stale, instead })
}

pub(super) fn hedge(cx: &mut Cx, hedge: Hedge) -> Option<pb::Hedge> {
    let Hedge { after } = hedge;
    let after = match after {
        HedgeAfter::Fixed(after) => pb::hedge::After::Fixed(time(cx, "hedge.after", after)?),
        HedgeAfter::Percentile(percentile) => pb::hedge::After::Percentile(u32::from(percentile)),
    };
    Some(pb::Hedge { after: Some(after) })
}
