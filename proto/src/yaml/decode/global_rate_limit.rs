//! A limit that a service counts for many proxies.

use std::num::NonZeroU32;

use super::super::cursor::Cx;
use super::super::fault::{Fault, show};
use super::super::place::Step;
use super::super::tree::{Node, View};
use super::policy::{MAX_KEYS, header};
use super::{count, each_route, some_time, split, whole};
use crate::model::{DescriptorEntry, GlobalRateLimit, Mesh, Name, OnFailure, Protocol};

/// More than a request can sensibly count as.
pub(in super::super) const MAX_HITS: u32 = 1_000_000;

/// What becomes of requests without a service's answer.
pub(super) const ON_FAILURE: [(&str, OnFailure); 2] =
    [("allow", OnFailure::Allow), ("deny", OnFailure::Deny)];

const DESCRIPTORS: &str =
    "a list of descriptors, each a list of entries, as `[[source], [{ header: x-api-key }]]`";
const ENTRIES: &str = "a list of entries, as `[source, { header: x-api-key }]`";
const ENTRY: &str = "`source`, or one of `{ header: x-api-key }`, `{ key: path, value: cart }`";

pub(super) fn global_rate_limit<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<GlobalRateLimit> {
    let mut m = cx.fields(node, "global_rate_limit")?;
    let cluster = m.required("cluster", split::service);
    let domain = m.required("domain", |cx, node| some_text(cx, node, "a domain"));
    let descriptors = m.required("descriptors", |cx, node| {
        some_list(cx, node, DESCRIPTORS, |cx, node| some_list(cx, node, ENTRIES, entry))
    });
    let timeout = m.optional("timeout", some_time).unwrap_or(GlobalRateLimit::TIMEOUT);
    let on_failure =
        m.optional("on_failure", |cx, node| cx.word(node, &ON_FAILURE)).unwrap_or(OnFailure::Allow);
    let hits = m.optional("hits", |cx, node| count(cx, node, MAX_HITS)).unwrap_or(NonZeroU32::MIN);
    let cache =
        m.optional("cache", |cx, node| whole(cx, node, 0, MAX_KEYS)).unwrap_or(GlobalRateLimit::CACHE);
    m.finish();
    Some(GlobalRateLimit {
        cluster: cluster?,
        domain: domain?,
        descriptors: descriptors?,
        timeout,
        on_failure,
        hits,
        cache,
    })
}

fn entry<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<DescriptorEntry> {
    if !matches!(node.view(), View::Map) {
        let text = cx.string(node, ENTRY)?;
        if text == "source" {
            return Some(DescriptorEntry::Source);
        }
        let fault = Fault::new(format!("{} does not say what is counted", show(&text)));
        return cx.fail(node, fault.hint(format!("expected {ENTRY}")));
    }
    let mut m = cx.fields(node, "descriptor_entry")?;
    m.exactly_one(&["header", "key"]);
    let header = m.optional("header", header).map(DescriptorEntry::Header);
    let key = m.optional("key", |cx, node| some_text(cx, node, "a key"));
    let value = if m.has("key") {
        m.required("value", |cx, node| some_text(cx, node, "a value"))
    } else {
        m.refuse("value", || Fault::new("there is no key that it belongs to").hint("write `key` too"));
        m.optional("value", |_, _| None)
    };
    m.finish();
    header.or(key.zip(value).map(|(key, value)| DescriptorEntry::Fixed { key, value }))
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
        let Some(limit) = route.global_rate_limit.as_deref() else { return };
        let written = node.get("global_rate_limit").and_then(|limit| limit.value.get("cluster"));
        let Some(written) = written else { return };
        let steps = [Step::Key("global_rate_limit"), Step::Key("cluster")];
        cx.within_all(&steps, |cx| refuse_http1(cx, written.value, &limit.cluster, mesh));
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
