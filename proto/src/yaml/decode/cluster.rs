//! A cluster: its endpoints, or the name that they are resolved from.

use std::collections::{BTreeMap, HashMap};
use std::num::{NonZeroU16, NonZeroU32};

use super::super::cursor::{Cx, Fields};
use super::super::fault::{Fault, show};
use super::super::place::Step;
use super::super::tree::{Node, View};
use super::super::{lint, scalar};
use super::policy::header;
use super::{address, count, duration, name, named, percent, some_time, tls, upstream, whole};
use crate::model::{
    Address, Assignment, Cluster, DnsUse, Endpoint, Labels, Name, Original, Protocol, Source, SubsetFallback,
};

/// More levels than anybody tells apart.
pub(in super::super) const MAX_PRIORITY: u32 = 127;

/// More labels than anybody sorts by.
pub(in super::super) const MAX_LABELS: usize = 16;

/// Bytes of a label's name, and of its value.
pub(in super::super) const MAX_LABEL: usize = 128;

/// Finer shares than this nobody could measure.
pub(in super::super) const MAX_ZONE_WEIGHT: u32 = 1_000_000;

/// A cluster, and its endpoints when they are stated.
pub(super) fn cluster<'a>(
    cx: &mut Cx<'a>,
    name: &Name,
    node: Node<'a>,
) -> Option<(Cluster, Option<Assignment>)> {
    let mut m = cx.fields(node, "cluster")?;
    m.exactly_one(&["endpoints", "dns", "original_destination"]);
    let endpoints = m.optional("endpoints", endpoints);
    let dns = m.optional("dns", dns);
    let original = m.optional("original_destination", original).map(Source::Original);
    let protocols = [("auto", Protocol::Auto), ("http1", Protocol::Http1), ("http2", Protocol::Http2)];
    let fallbacks = [("none", SubsetFallback::None), ("any", SubsetFallback::Any)];
    let tls = tls::upstream(&mut m, dns.as_ref().map(|((host, _), _)| &**host));
    let resolved = |((host, port), uses)| Source::Dns { host, port, uses };
    let default = Cluster::new(dns.map(resolved).or(original).unwrap_or(Source::Static));
    let cluster = Cluster {
        source: default.source,
        balance: m.optional("balance", upstream::balance).unwrap_or(default.balance),
        protocol: m.optional("protocol", |cx, node| cx.word(node, &protocols)).unwrap_or(default.protocol),
        tls,
        connect_timeout: m.optional("connect_timeout", some_time).unwrap_or(default.connect_timeout),
        idle_timeout: m.optional("idle_timeout", some_time).unwrap_or(default.idle_timeout),
        retry_budget: m.optional("retry_budget", upstream::retry_budget).unwrap_or(default.retry_budget),
        circuit_breaker: m
            .optional("circuit_breaker", upstream::circuit_breaker)
            .unwrap_or(default.circuit_breaker),
        outlier_detection: m.optional("outlier_detection", upstream::outlier_detection),
        health_check: m.optional("health_check", upstream::health_check).map(Box::new),
        slow_start: m.optional("slow_start", duration).unwrap_or(default.slow_start),
        panic_threshold: m.optional("panic_threshold", percent).unwrap_or(default.panic_threshold),
        zone_weights: m.optional("zone_weights", zone_weights).unwrap_or(default.zone_weights),
        subsets: m.optional("subsets", |cx, node| subsets(cx, node, name)).unwrap_or(default.subsets),
        subset_fallback: m
            .optional("subset_fallback", |cx, node| cx.word(node, &fallbacks))
            .unwrap_or(default.subset_fallback),
    };
    if m.has("dns") {
        m.refuse("zone_weights", || {
            Fault::new("endpoints that a name is resolved to stand in no zone")
                .hint("remove it, or write `endpoints`, each with its `zone`")
        });
        m.refuse("subsets", || {
            Fault::new("endpoints that a name is resolved to have no labels")
                .hint("remove it, or write `endpoints`, each with its `labels`")
        });
    }
    if m.has("original_destination") {
        refuse_choice(&mut m);
    }
    if !m.has("subsets") && !m.has("original_destination") {
        m.refuse("subset_fallback", || {
            Fault::new("there are no subsets")
                .hint("remove it, or write `subsets`, as `{ v1: { version: v1 } }`")
        });
    }
    m.finish();
    if let Some(assignment) = &endpoints {
        refuse_unweighed(cx, node, assignment, &cluster.zone_weights);
    }
    lint::cluster(cx, node, &cluster);
    if let Some(assignment) = &endpoints {
        lint::endpoints(cx, node, assignment, &cluster);
    }
    Some((cluster, endpoints))
}

/// The name and its port, and what becomes of its addresses.
fn dns<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<((Box<str>, NonZeroU16), DnsUse)> {
    let host = |cx: &mut Cx<'a>, node| {
        cx.parsed(node, "a name with a port, as `db.internal:5432`", scalar::host_and_port)
    };
    if !matches!(node.view(), View::Map) {
        return Some((host(cx, node)?, DnsUse::All));
    }
    let uses = [("all", DnsUse::All), ("first", DnsUse::First)];
    let mut m = cx.fields(node, "dns")?;
    let host = m.required("host", host);
    let uses = m.optional("use", |cx, node| cx.word(node, &uses)).unwrap_or_default();
    m.finish();
    Some((host?, uses))
}

/// What connections and requests name endpoints by.
fn original<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Original> {
    let default = Original::default();
    let mut m = cx.fields(node, "original_destination")?;
    let original = Original {
        header: m.optional("header", header),
        port: m.optional("port", |cx, node| {
            NonZeroU16::new(u16::try_from(whole(cx, node, 1, u16::MAX.into())?).ok()?)
        }),
        cleanup: m.optional("cleanup", some_time).unwrap_or(default.cleanup),
        max_endpoints: m
            .optional("max_endpoints", |cx, node| count(cx, node, Original::MAX_ENDPOINTS))
            .unwrap_or(default.max_endpoints),
    };
    m.finish();
    Some(original)
}

/// Where an endpoint is named there is none to choose, and none to know beforehand.
fn refuse_choice(m: &mut Fields<'_, '_>) {
    for key in [
        "balance",
        "health_check",
        "slow_start",
        "panic_threshold",
        "zone_weights",
        "subsets",
        "subset_fallback",
    ] {
        m.refuse(key, || {
            Fault::new("each connection or request names its one endpoint: there is nothing to choose from")
                .hint("remove it, or write `endpoints` or `dns`")
        });
    }
}

fn endpoints<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Assignment> {
    let mut seen: HashMap<Address, u32> = HashMap::with_capacity(node.len());
    let endpoints = cx.list(node, "a list of addresses, as `[127.0.0.1:9001]`", |cx, node| {
        let endpoint = endpoint(cx, node)?;
        let line = node.place().line;
        match seen.insert(endpoint.address.clone(), line) {
            None => Some(endpoint),
            Some(first) => {
                let fault = Fault::new(format!("the address `{}` is written twice", endpoint.address));
                cx.fail(
                    node,
                    fault.hint(format!("it stands in line {first} already; give it a `weight` instead")),
                )
            }
        }
    })?;
    Some(Assignment { endpoints })
}

fn endpoint<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Endpoint> {
    if !matches!(node.view(), View::Map) {
        let address = reachable(cx, node)?;
        return Some(Endpoint::new(address));
    }
    let mut m = cx.fields(node, "endpoint")?;
    let address = m.required("address", reachable);
    let weight = m.optional("weight", |cx, node| count(cx, node, u32::MAX));
    let priority = m.optional("priority", |cx, node| u8::try_from(whole(cx, node, 0, MAX_PRIORITY)?).ok());
    let zone = m.optional("zone", |cx, node| {
        let text = cx.string(node, "a zone's name")?;
        Some(name(cx, &text, node.place())?.as_str().into())
    });
    let labels = m.optional("labels", labels).unwrap_or_default();
    m.finish();
    let weight = weight.unwrap_or(NonZeroU32::MIN);
    Some(Endpoint { address: address?, weight, priority: priority.unwrap_or(0), zone, labels })
}

fn reachable<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Address> {
    let found = address(cx, node)?;
    match &found {
        Address::Ip(ip) if ip.port() == 0 => cx.fail(
            node,
            Fault::new("nothing can be reached at port 0").hint("expected the port of the endpoint"),
        ),
        Address::Ip(_) | Address::Unix(_) => Some(found),
    }
}

fn zone_weights<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<BTreeMap<Box<str>, u32>> {
    let expected = "weights by zone, as `{ a: 80, b: 20 }`";
    let weights = named(cx, node, expected, |cx, _, node| whole(cx, node, 0, MAX_ZONE_WEIGHT))?;
    if weights.is_empty() {
        return cx.fail(node, Fault::new("no zone is named").hint(format!("expected {expected}")));
    }
    if weights.values().all(|weight| *weight == 0) {
        let fault = Fault::new("every weight is 0: no endpoint could be used");
        return cx.fail(node, fault.hint("expected at least one weight above 0"));
    }
    Some(weights.into_iter().map(|(zone, weight)| (zone.as_str().into(), weight)).collect())
}

/// Where zones are weighed, every endpoint stands in one that is: what is forgotten would get too much or nothing.
fn refuse_unweighed<'a>(
    cx: &mut Cx<'a>,
    node: Node<'a>,
    assignment: &Assignment,
    weights: &BTreeMap<Box<str>, u32>,
) {
    let Some(entry) = node.get("endpoints").filter(|_| !weights.is_empty()) else { return };
    for (index, (endpoint, item)) in assignment.endpoints.iter().zip(entry.value.items()).enumerate() {
        let Endpoint { address, weight: _, priority: _, zone, labels: _ } = endpoint;
        let zone = zone.as_deref();
        if zone.is_some_and(|zone| weights.contains_key(zone)) {
            continue;
        }
        let problem = match zone {
            Some(zone) => {
                format!("`{address}` stands in the zone {}, which `zone_weights` does not name", show(zone))
            }
            None => format!("`{address}` stands in no zone, and `zone_weights` shares the load out by zone"),
        };
        let zones = weights.keys().map(|zone| &**zone);
        let fault = Fault::new(problem).choice(zone.unwrap_or_default(), zones, "the zones are");
        let written = item.get("zone");
        let steps =
            [Some(Step::Key("endpoints")), Some(Step::Item(index)), written.map(|_| Step::Key("zone"))];
        let steps: Vec<_> = steps.into_iter().flatten().collect();
        let place = written.map_or(item.place(), |entry| entry.value.place());
        cx.within_all(&steps, |cx| cx.fail_at::<()>(place, fault));
    }
}

/// Names and values, at least one.
fn labels<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Labels> {
    let expected = "labels, as `{ version: v2 }`";
    let fits = |text: &str| !text.is_empty() && text.len() <= MAX_LABEL;
    let length =
        || Fault::new("a label is empty or too long").hint(format!("expected 1 to {MAX_LABEL} bytes"));
    let labels = cx.entries(node, expected, |cx, key, place, value| {
        if !fits(key) {
            return cx.fail_at(place, length());
        }
        let text = cx.string(value, "a label's value")?;
        if fits(&text) { Some((key.into(), text.into())) } else { cx.fail(value, length()) }
    })?;
    match labels.len() {
        0 => cx.fail(node, Fault::new("no label is named").hint(format!("expected {expected}"))),
        1..=MAX_LABELS => Some(Labels(labels.into_iter().collect())),
        count => cx.fail(
            node,
            Fault::new(format!("there are {count} labels")).hint(format!("expected at most {MAX_LABELS}")),
        ),
    }
}

/// The subsets of the cluster `of`.
fn subsets<'a>(cx: &mut Cx<'a>, node: Node<'a>, of: &Name) -> Option<BTreeMap<Name, Labels>> {
    let expected = "labels by subset, as `{ v1: { version: v1 } }`";
    let subsets = named(cx, node, expected, |cx, name, node| {
        let whole = format!("{of}/{name}");
        if name.as_str().contains('/') {
            let fault = Fault::new("a subset's name holds a `/`");
            return cx.fail(node, fault.hint("it is written behind one: `to: cluster/subset`"));
        }
        if cx.clusters.contains_key(whole.as_str()) {
            let fault = Fault::new(format!("there is a cluster of the name {} too", show(&whole)));
            return cx.fail(node, fault.hint("rename one of them: nobody could tell which is meant"));
        }
        labels(cx, node)
    })?;
    if subsets.is_empty() {
        return cx.fail(node, Fault::new("no subset is named").hint(format!("expected {expected}")));
    }
    Some(subsets)
}
