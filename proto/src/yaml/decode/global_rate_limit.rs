//! A limit that a service counts for many proxies.

use std::num::NonZeroU32;

use super::super::cursor::{Cx, Fields};
use super::super::fault::{Fault, show};
use super::super::place::Step;
use super::super::tree::{Node, View};
use super::policy::{MAX_KEYS, header};
use super::{count, each_http_chain, each_route, matches, refuse_route, some_time, split, whole};
use crate::model::{
    Absent, DescriptorEntry, GlobalRateLimit, Mesh, Name, OnFailure, Only, OnlyOf, Protocol,
    RateLimitService, Route,
};

/// More than a request can sensibly count as.
pub(in super::super) const MAX_HITS: u32 = 1_000_000;

/// What becomes of requests without a service's answer.
pub(super) const ON_FAILURE: [(&str, OnFailure); 2] =
    [("allow", OnFailure::Allow), ("deny", OnFailure::Deny)];

const DESCRIPTORS: &str =
    "a list of descriptors, each a list of entries, as `[[source], [{ header: x-api-key }]]`";
const ENTRIES: &str = "a list of entries, as `[source, { header: x-api-key }]`";
const ENTRY: &str = "`source`, `source_cluster`, `destination_cluster`, or one of `{ header: x-api-key }`, `{ query: user }`, \
                     `{ key: path, value: cart }`";

/// The service of a listener, for routes that do not name one.
pub(super) fn of_listener<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Box<RateLimitService>> {
    let mut m = cx.fields(node, "rate_limit_service")?;
    let service = service(&mut m);
    m.finish();
    service.map(Box::new)
}

/// Who is asked, and about what.
fn service(m: &mut Fields<'_, '_>) -> Option<RateLimitService> {
    let cluster = m.required("cluster", split::service);
    let domain = m.required("domain", |cx, node| some_text(cx, node, "a domain"));
    let timeout = m.optional("timeout", some_time).unwrap_or(RateLimitService::TIMEOUT);
    let on_failure =
        m.optional("on_failure", |cx, node| cx.word(node, &ON_FAILURE)).unwrap_or(OnFailure::Allow);
    let cache =
        m.optional("cache", |cx, node| whole(cx, node, 0, MAX_KEYS)).unwrap_or(RateLimitService::CACHE);
    Some(RateLimitService { cluster: cluster?, domain: domain?, timeout, on_failure, cache })
}

pub(super) fn global_rate_limit<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<GlobalRateLimit> {
    let mut m = cx.fields(node, "global_rate_limit")?;
    let own = m.has("cluster");
    let service = if own { service(&mut m) } else { refuse_service(&mut m) };
    let descriptors = m.required("descriptors", |cx, node| {
        some_list(cx, node, DESCRIPTORS, |cx, node| some_list(cx, node, ENTRIES, entry))
    });
    let hits = m.optional("hits", |cx, node| count(cx, node, MAX_HITS)).unwrap_or(NonZeroU32::MIN);
    m.finish();
    if own && service.is_none() {
        return None;
    }
    Some(GlobalRateLimit { service, descriptors: descriptors?, hits })
}

/// What is the listener's to say, where its service is asked.
fn refuse_service(m: &mut Fields<'_, '_>) -> Option<RateLimitService> {
    for key in ["domain", "timeout", "on_failure", "cache"] {
        m.refuse(key, || {
            Fault::new("without `cluster` the listener's service counts, and the listener says this")
                .hint("write `cluster` too, or write this there")
        });
        m.optional(key, |_, _| None::<()>);
    }
    None
}

fn entry<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<DescriptorEntry> {
    if !matches!(node.view(), View::Map) {
        let words = [
            ("source", DescriptorEntry::Source),
            ("source_cluster", DescriptorEntry::SourceCluster),
            ("destination_cluster", DescriptorEntry::DestinationCluster),
        ];
        let text = cx.string(node, ENTRY)?;
        if let Some((_, entry)) = words.into_iter().find(|(word, _)| *word == text) {
            return Some(entry);
        }
        let fault = Fault::new(format!("{} does not say what is counted", show(&text)));
        return cx.fail(node, fault.hint(format!("expected {ENTRY}")));
    }
    let mut m = cx.fields(node, "descriptor_entry")?;
    m.exactly_one(&["header", "query", "key"]);
    let header = m.optional("header", header);
    let query = m.optional("query", |cx, node| some_text(cx, node, "a parameter's name"));
    let own = m.optional("as", |cx, node| some_text(cx, node, "a key"));
    let optional = m.optional("optional", Cx::boolean).unwrap_or(false);
    let fixed = fixed(&mut m);
    m.finish();
    let absent = if optional { Absent::Entry } else { Absent::Descriptor };
    let key = |name: &str| own.clone().unwrap_or_else(|| name.into());
    let header = header.map(|name| DescriptorEntry::Header { key: key(name.as_str()), name, absent });
    let query = || query.map(|name| DescriptorEntry::Query { key: key(&name), name, absent });
    header.or_else(query).or(fixed)
}

/// A key and a value, of some requests or of all.
fn fixed(m: &mut Fields<'_, '_>) -> Option<DescriptorEntry> {
    if !m.has("key") {
        for key in ["value", "when", "unless"] {
            m.refuse(key, || Fault::new("there is no key that it belongs to").hint("write `key` too"));
            m.optional(key, |_, _| None::<()>);
        }
        m.optional("key", |_, _| None::<()>);
        return None;
    }
    for key in ["as", "optional"] {
        m.refuse(key, || Fault::new("the value is always there, under its own key").hint("remove it"));
    }
    let key = m.optional("key", |cx, node| some_text(cx, node, "a key"));
    let value = m.required("value", |cx, node| some_text(cx, node, "a value"));
    if m.has("when") && m.has("unless") {
        m.exactly_one(&["when", "unless"]);
    }
    let written = m.has("when") || m.has("unless");
    let when = m.optional("when", only_of).map(|of| Only { fits: true, of });
    let unless = m.optional("unless", only_of).map(|of| Only { fits: false, of });
    let only = when.or(unless);
    if written && only.is_none() {
        return None;
    }
    Some(DescriptorEntry::Fixed { key: key?, value: value?, only })
}

fn only_of<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<OnlyOf> {
    let mut m = cx.fields(node, "descriptor_when")?;
    m.exactly_one(&["headers", "query"]);
    let headers = m.optional("headers", |cx, node| {
        let headers = matches::headers(cx, node)?;
        if headers.is_empty() { cx.fail(node, Fault::new("nothing is asked for")) } else { Some(headers) }
    });
    let query = m.optional("query", |cx, node| {
        let query = matches::query(cx, node)?;
        if query.is_empty() { cx.fail(node, Fault::new("nothing is asked for")) } else { Some(query) }
    });
    m.finish();
    headers.map(OnlyOf::Headers).or(query.map(OnlyOf::Query))
}

/// A text that says something; the protocol has no use for an empty one.
fn some_text<'a>(cx: &mut Cx<'a>, node: Node<'a>, expected: &str) -> Option<Box<str>> {
    let text = cx.string(node, expected)?;
    if text.is_empty() {
        return cx.fail(node, Fault::new("the text is empty").hint(format!("expected {expected}")));
    }
    Some(text.into())
}

fn some_list<'a, T>(
    cx: &mut Cx<'a>,
    node: Node<'a>,
    expected: &str,
    f: impl FnMut(&mut Cx<'a>, Node<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let list = cx.list(node, expected, f)?;
    if list.is_empty() {
        return cx.fail(node, Fault::new("the list is empty").hint(format!("expected {expected}")));
    }
    Some(list)
}

/// Refuses services that would not be asked in the protocol that gRPC needs. Of clusters that are read last.
pub(super) fn refuse_unasked<'a>(cx: &mut Cx<'a>, root: Node<'a>, mesh: &Mesh) {
    each_route(cx, root, mesh, |cx, node, route| {
        let service = route.global_rate_limit.as_deref().and_then(|limit| limit.service.as_ref());
        let Some(service) = service else { return };
        let written = node.get("global_rate_limit").and_then(|limit| limit.value.get("cluster"));
        let Some(written) = written else { return };
        let steps = [Step::Key("global_rate_limit"), Step::Key("cluster")];
        cx.within_all(&steps, |cx| refuse_http1(cx, written.value, &service.cluster, mesh));
    });
    each_http_chain(cx, root, mesh, |cx, node, http| {
        if let Some(service) = http.rate_limit_service.as_deref()
            && let Some(written) = node.get("global_rate_limit").and_then(|limit| limit.value.get("cluster"))
        {
            let steps = [Step::Key("global_rate_limit"), Step::Key("cluster")];
            cx.within_all(&steps, |cx| refuse_http1(cx, written.value, &service.cluster, mesh));
        }
        // They would not be limited at all.
        let needs = |route: &Route| {
            let by_listener = |limit: &GlobalRateLimit| limit.service.is_none();
            http.rate_limit_service.is_none() && route.global_rate_limit.as_deref().is_some_and(by_listener)
        };
        refuse_route(cx, node, (mesh, http), needs, |place| {
            Fault::new(format!("routes[{place}] says what its requests count as, and nobody counts here"))
                .hint("write `global_rate_limit` at the listener, or its `cluster` at the route")
        });
    });
}

/// Refuses a service that would not be asked in the protocol that gRPC needs.
pub(super) fn refuse_http1<'a>(cx: &mut Cx<'a>, written: Node<'a>, cluster: &Name, mesh: &Mesh) {
    let speaks = mesh.clusters.get(cluster).map(|cluster| cluster.protocol);
    if let Some(Protocol::Auto | Protocol::Http1) = speaks {
        let fault = Fault::new(format!("the cluster {} is not asked in HTTP/2", show(cluster.as_str())));
        let fault = fault.hint("gRPC needs it: write `protocol: http2` in that cluster");
        cx.fail_at::<()>(written.place(), fault);
    }
}
