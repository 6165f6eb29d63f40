//! A cluster: its endpoints, or the name that they are resolved from.

use std::collections::HashMap;
use std::num::NonZeroU32;

use super::super::cursor::Cx;
use super::super::fault::Fault;
use super::super::tree::{Node, View};
use super::super::{lint, scalar};
use super::{address, some_time};
use crate::model::{Address, Assignment, Balance, Cluster, Endpoint, Name, Protocol, Source};

/// A cluster, and its endpoints when they are stated.
pub(super) fn cluster<'a>(
    cx: &mut Cx<'a>,
    _: &Name,
    node: Node<'a>,
) -> Option<(Cluster, Option<Assignment>)> {
    let mut m = cx.fields(node, "cluster")?;
    m.exactly_one(&["endpoints", "dns"]);
    let endpoints = m.optional("endpoints", endpoints);
    let dns = m.optional("dns", |cx, node| {
        cx.parsed(node, "a name with a port, as `db.internal:5432`", scalar::host_and_port)
    });
    let balances = [
        ("peak-ewma", Balance::PeakEwma),
        ("least-request", Balance::LeastRequest),
        ("round-robin", Balance::RoundRobin),
        ("random", Balance::Random),
    ];
    let balance = m.optional("balance", |cx, node| cx.word(node, &balances)).unwrap_or_default();
    let protocols = [("auto", Protocol::Auto), ("http1", Protocol::Http1), ("http2", Protocol::Http2)];
    let protocol = m.optional("protocol", |cx, node| cx.word(node, &protocols)).unwrap_or_default();
    let connect_timeout = m.optional("connect_timeout", some_time);
    let idle_timeout = m.optional("idle_timeout", some_time);
    m.finish();
    if let Some(assignment) = &endpoints {
        lint::endpoints(cx, node, assignment);
    }
    let source = match (&endpoints, dns) {
        (Some(_), _) => Source::Static,
        (None, dns) => {
            let (host, port) = dns?;
            Source::Dns { host, port }
        }
    };
    let default = Cluster::new(source);
    let connect_timeout = connect_timeout.unwrap_or(default.connect_timeout);
    let idle_timeout = idle_timeout.unwrap_or(default.idle_timeout);
    Some((Cluster { source: default.source, balance, protocol, connect_timeout, idle_timeout }, endpoints))
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
        return Some(Endpoint { address: reachable(cx, node)?, weight: NonZeroU32::MIN });
    }
    let mut m = cx.fields(node, "endpoint")?;
    let address = m.required("address", reachable);
    let weight = m.optional("weight", |cx, node| {
        let weight = cx.whole(node, 1, u32::MAX.into())?;
        NonZeroU32::new(u32::try_from(weight).ok()?)
    });
    m.finish();
    Some(Endpoint { address: address?, weight: weight.unwrap_or(NonZeroU32::MIN) })
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
