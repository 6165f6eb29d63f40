//! Several chains of one listener, and which connections each of them takes.

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use ipnet::IpNet;

use super::super::cursor::{Cx, Fields};
use super::super::fault::{Fault, show};
use super::super::scalar;
use super::super::tree::{Node, View};
use super::listener::chain;
use super::matches::hosts;
use super::whole;
use crate::model::{ChainMatch, Chains, FilterChain, Origin, Transport};

/// What is said of chains alone, where there are several.
const OF_CHAINS: [&str; 9] = [
    "tls",
    "mtls",
    "jwt",
    "authorization",
    "external_authorization",
    "global_rate_limit",
    "limits",
    "trusted_proxies",
    "merge_slashes",
];

/// The chains of a listener that has `chains`.
pub(super) fn chains(m: &mut Fields<'_, '_>) -> Option<Chains> {
    let mut at = None;
    let some = m.optional("chains", |cx, node| {
        at = Some(node);
        let all = cx.list(node, "a list of chains", for_some)?;
        if all.is_empty() {
            return cx.fail(
                node,
                Fault::new("there is none").hint("write `routes` or `tcp` for one that takes all"),
            );
        }
        Some(all)
    });
    let rest = m.optional("rest", |cx, node| {
        let mut m = cx.fields(node, "chain")?;
        m.refuse("when", || Fault::new("this one takes what the others do not").hint("remove it"));
        let rest = one(&mut m);
        m.finish();
        rest
    });
    for key in OF_CHAINS {
        m.optional(key, |_, _| None::<()>);
        m.refuse(key, || Fault::new("with `chains`, each of them says this").hint("write it there"));
    }
    if m.has("rest") && rest.is_none() {
        return None;
    }
    match Chains::new(some?, rest) {
        Ok(chains) => Some(chains),
        Err(error) => m.cx.within(super::super::place::Step::Key("chains"), |cx| {
            cx.fail(at?, Fault::new(error.to_string()))
        }),
    }
}

fn for_some<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<(ChainMatch, FilterChain)> {
    let mut m = cx.fields(node, "chain")?;
    let when = m.optional("when", when);
    let is_wrong = m.has("when") && when.is_none();
    let chain = one(&mut m);
    m.finish();
    // What is not known to be narrow would take everything.
    if is_wrong { None } else { Some((when.unwrap_or_default(), chain?)) }
}

fn one(m: &mut Fields<'_, '_>) -> Option<FilterChain> {
    m.optional("when", |_, _| None::<()>);
    m.exactly_one(&["routes", "tcp"]);
    chain(m, None).map(|(chain, _)| chain)
}

fn when<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<ChainMatch> {
    let transports = [("tls", Transport::Tls), ("clear", Transport::Clear)];
    let origins = [("local", Origin::Local), ("external", Origin::External)];
    let mut m = cx.fields(node, "chain_when")?;
    let before = m.cx.errors.len();
    let when = ChainMatch {
        port: m.optional("port", port),
        destinations: some(&mut m, "destination", networks),
        hosts: some(&mut m, "sni", hosts),
        transport: m.optional("transport", |cx, node| cx.word(node, &transports)),
        protocols: some(&mut m, "alpn", |cx, node| {
            cx.one_or_more(node, "a protocol, or a list of protocols", protocol)
        }),
        direct_sources: some(&mut m, "direct_source", networks),
        origin: m.optional("origin", |cx, node| cx.word(node, &origins)),
        sources: some(&mut m, "source", networks),
        source_ports: some(&mut m, "source_port", |cx, node| {
            cx.one_or_more(node, "a port, or a list of ports", port)
        }),
    };
    let wrong = m.cx.errors.len() > before;
    m.finish();
    (!wrong).then_some(when)
}

fn port<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::try_from(whole(cx, node, 1, u16::MAX.into())?).ok()?)
}

fn networks<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Vec<IpNet>> {
    cx.one_or_more(node, "a network, or a list of networks", |cx, node| {
        cx.parsed(node, "a network, as `10.0.0.0/8`", scalar::network)
    })
}

fn protocol<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Box<str>> {
    let text = cx.string(node, "a protocol, as `h2`")?;
    if (1..=255).contains(&text.len()) {
        return Some(text.into());
    }
    cx.fail(
        node,
        Fault::new(format!("{} is no protocol", show(&text))).hint("one has between 1 and 255 bytes"),
    )
}

/// What stands twice was meant otherwise; a list of nothing would fit nothing, or everything: nobody could tell.
fn some<'a, T: Ord>(
    m: &mut Fields<'_, 'a>,
    key: &'static str,
    decode: impl FnOnce(&mut Cx<'a>, Node<'a>) -> Option<Vec<T>>,
) -> BTreeSet<T> {
    let read = m.optional(key, |cx, node| {
        let before = cx.errors.len();
        let all = decode(cx, node)?;
        if all.is_empty() && cx.errors.len() == before {
            return cx.fail(node, Fault::new("nothing is named here").hint("leave the key out for anything"));
        }
        let count = all.len();
        let set: BTreeSet<T> = all.into_iter().collect();
        if set.len() < count {
            return cx.fail(node, Fault::new("one of these stands here twice"));
        }
        Some(set)
    });
    read.unwrap_or_default()
}

/// The places where chains of a listener are written, each with its node.
pub(super) fn written<'a>(
    listener: Node<'a>,
) -> impl Iterator<Item = (Vec<super::super::place::Step<'a>>, Node<'a>)> {
    use super::super::place::Step;
    let chains = listener.get("chains");
    let alone = chains.is_none().then(|| (Vec::new(), listener));
    let some =
        chains.filter(|chains| matches!(chains.value.view(), View::List)).into_iter().flat_map(|chains| {
            let items = chains.value.items().enumerate();
            items.map(move |(place, node)| (vec![Step::Key(chains.key), Step::Item(place)], node))
        });
    let rest = listener.get("rest").map(|rest| (vec![Step::Key(rest.key)], rest.value));
    alone.into_iter().chain(some).chain(rest)
}
