//! Where a request or a connection goes: one cluster, or several by weight.

use std::num::NonZeroU32;

use super::super::cursor::Cx;
use super::super::fault::{Fault, show};
use super::super::tree::{Node, View};
use super::headers;
use crate::error::Place;
use crate::model::{Destination, HeaderEdits, Name, Split, Target};

const EXPECTED: &str = "a cluster's name, or weights by cluster, as `{ v1: 90, v2: 10 }`";

/// The `to` of a route.
pub(super) fn http<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Split> {
    if !matches!(node.view(), View::Map) {
        let text = cx.string(node, EXPECTED)?;
        return Some(Split::one(destination(cx, &text, node.place())?));
    }
    if node.len() == 0 {
        return cx.fail(node, Fault::new("no cluster is named").hint(format!("expected {EXPECTED}")));
    }
    let shares = cx.entries(node, EXPECTED, |cx, key, place, value| {
        let to = destination(cx, key, place);
        let (weight, request_headers, response_headers) = share(cx, value)?;
        let to = to?;
        // A name may be kept with nothing sent to it: a step of a roll-out.
        let weight = NonZeroU32::new(weight);
        Some(weight.map(|weight| Target { to, weight, request_headers, response_headers }))
    })?;
    let targets: Vec<_> = shares.into_iter().flatten().collect();
    if targets.is_empty() {
        let fault = Fault::new("every weight is 0: nothing could be sent anywhere");
        return cx.fail(node, fault.hint("expected at least one weight above 0"));
    }
    let sum: u64 = targets.iter().map(|target| u64::from(target.weight.get())).sum();
    if sum > u32::MAX.into() {
        return cx.fail(
            node,
            Fault::new(format!("the weights add up to {sum}")).hint("expected at most 4294967295"),
        );
    }
    Some(Split { targets })
}

/// The `to` of a TCP listener: bytes have no header fields.
pub(super) fn tcp<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Split> {
    let split = http(cx, node)?;
    let edits = |target: &Target| !target.request_headers.is_empty() || !target.response_headers.is_empty();
    if split.targets.iter().any(edits) {
        let fault = Fault::new("header changes are about HTTP, and the listener passes bytes");
        return cx.fail(node, fault.hint("write weights alone, as `{ v1: 90, v2: 10 }`"));
    }
    Some(split)
}

fn share<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<(u32, HeaderEdits, HeaderEdits)> {
    if !matches!(node.view(), View::Map) {
        return Some((weight(cx, node)?, HeaderEdits::default(), HeaderEdits::default()));
    }
    let mut m = cx.fields(node, "target")?;
    let written = m.has("weight");
    let weight = m.optional("weight", weight).or((!written).then_some(1));
    let request_headers = m.optional("request_headers", headers::request_edits);
    let response_headers = m.optional("response_headers", headers::response_edits);
    m.finish();
    Some((weight?, request_headers.unwrap_or_default(), response_headers.unwrap_or_default()))
}

fn weight<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<u32> {
    u32::try_from(cx.whole(node, 0, u32::MAX.into())?).ok()
}

/// The name of a cluster, or of a part of it.
pub(super) fn reference<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Destination> {
    let text = cx.string(node, "a cluster's name, or `cluster/subset`")?;
    destination(cx, &text, node.place())
}

/// The name of a whole cluster.
pub(super) fn service<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Name> {
    let text = cx.string(node, "a cluster's name")?;
    cluster(cx, &text, node.place())
}

/// `cluster`, or `cluster/subset`. A cluster's name may hold a `/`, a subset's may not.
fn destination(cx: &mut Cx<'_>, text: &str, place: Place) -> Option<Destination> {
    // Whoever has clusters below that name means one of them.
    let below = |name: &str| cx.clusters.keys().any(|known| known.as_str().starts_with(&format!("{name}/")));
    match text.rsplit_once('/') {
        Some((name, subset_name))
            if !cx.clusters.contains_key(text)
                && !subset_name.is_empty()
                && (cx.clusters.contains_key(name) || !below(name)) =>
        {
            let cluster = cluster(cx, name, place)?;
            let subset = Some(subset(cx, &cluster, subset_name, place)?);
            Some(Destination { cluster, subset })
        }
        Some(_) | None => cluster(cx, text, place).map(Destination::from),
    }
}

/// A subset that exists.
fn subset(cx: &mut Cx<'_>, cluster: &Name, text: &str, place: Place) -> Option<Name> {
    let known = cx.subsets.get_mut(cluster).filter(|subsets| !subsets.is_empty());
    let Some(known) = known else {
        let fault = Fault::new(format!("the cluster {} has no subsets", show(cluster.as_str())));
        return cx.fail_at(place, fault.hint("define them under its `subsets`"));
    };
    if let Some((name, _)) = known.get_key_value(text) {
        let name = name.clone();
        known.insert(name.clone(), true);
        return Some(name);
    }
    let fault = Fault::new(format!("the cluster {} has no subset {}", show(cluster.as_str()), show(text)));
    let names: Vec<Name> = known.keys().cloned().collect();
    let fault = match cx.may_suggest() {
        true => fault.choice(text, names.iter().map(Name::as_str), "its subsets are"),
        false => fault,
    };
    cx.fail_at(place, fault)
}

/// A cluster that exists.
fn cluster(cx: &mut Cx<'_>, text: &str, place: Place) -> Option<Name> {
    if let Some((name, _)) = cx.clusters.get_key_value(text) {
        let name = name.clone();
        if let Some(used) = cx.clusters.get_mut(text) {
            *used = true;
        }
        return Some(name);
    }
    if !cx.clusters_known {
        return None;
    }
    let mut fault = Fault::new(format!("there is no cluster {}", show(text)));
    if cx.clusters.is_empty() {
        fault = fault.hint("define it under `clusters`");
    } else if cx.may_suggest() {
        let mut names: Vec<_> = cx.clusters.keys().map(Name::as_str).collect();
        names.sort_unstable();
        fault = fault.choice(text, names.into_iter(), "the clusters are");
    }
    cx.fail_at(place, fault)
}
