//! The chains of a listener, and which connections each of them takes.

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use super::super::any::ours;
use super::super::cx::Cx;
use super::super::filters::{Ours, text};
use super::super::generated::envoy::config::core::v3::CidrRange;
use super::super::generated::envoy::config::listener::v3 as pb;
use super::super::generated::envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;
use super::super::generated::outrigger::extensions::v1 as ext;
use super::super::tls::{self, BY_TLS, IN_THE_CLEAR};
use super::{RouteSource, Said, chain_of, limits};
use crate::model::{
    ChainMatch, Chains, DownstreamTls, FilterChain, HostPattern, Mutual, Name, Origin, Transport,
    is_host_name,
};

/// All of them, and where the routes of each come from. `said` is what is ours to say of one that is alone.
pub(super) fn chains(
    cx: &mut Cx,
    name: &Name,
    (mut some, rest): (Vec<pb::FilterChain>, Option<pb::FilterChain>),
    said: ext::Listener,
) -> Option<(Chains, Box<[RouteSource]>)> {
    if let Some(place) = tls::permissive(&some).filter(|_| rest.is_none()) {
        let both = pb::FilterChain { filter_chain_match: None, ..some.swap_remove(place) };
        let (chain, source) =
            cx.within(format_args!("filter_chains[{place}]"), |cx| one(cx, name, both, &said))?;
        let limits = limits::exactly(cx, chain.limits, said.limits)?;
        let tls = Some(DownstreamTls::Mutual(Mutual::Permissive));
        return Some((FilterChain { tls, limits, ..chain }.into(), [source].into()));
    }
    let count = some.len() + usize::from(rest.is_some());
    if count > 1 && said != ext::Listener::default() {
        return cx.fail("metadata", "there are several chains: say this in the `metadata` of each");
    }
    let mut sources = Vec::with_capacity(count);
    let mut of_chain = |cx: &mut Cx, chain: pb::FilterChain, place: usize| {
        let (chain, source) = one(cx, &table_of(name, place, count), chain, &said)?;
        sources.push(source);
        Some(chain)
    };
    let places = 0..;
    let read = cx.each("filter_chains", some.into_iter().zip(places).collect(), |cx, (mut chain, place)| {
        let matches = match chain.filter_chain_match.take() {
            None => Some(ChainMatch::default()),
            Some(written) => cx.within("filter_chain_match", |cx| matches(cx, written)),
        };
        let chain = of_chain(cx, chain, place);
        Some((matches?, chain?))
    });
    let place = count.saturating_sub(1);
    let rest = rest.map(|mut rest| {
        cx.within("default_filter_chain", |cx| match rest.filter_chain_match.take() {
            Some(written) if written != pb::FilterChainMatch::default() => {
                cx.fail("filter_chain_match", "this one takes what the others do not, whatever that is")
            }
            Some(_) | None => of_chain(cx, rest, place),
        })
    });
    let (mut read, mut rest) = (
        read?,
        match rest {
            None => None,
            Some(rest) => Some(rest?),
        },
    );
    // Of several, nothing is said here.
    for chain in read.iter_mut().map(|(_, chain)| chain).chain(&mut rest) {
        chain.limits = limits::exactly(cx, chain.limits.clone(), said.limits)?;
    }
    match Chains::new(read, rest) {
        Ok(chains) => Some((chains, sources.into())),
        Err(error) => cx.fail("filter_chains", error.to_string()),
    }
}

/// What the routes that stand with a chain are called among all tables: as the listener, where the chain is alone.
pub(in super::super) fn table_of(listener: &Name, place: usize, count: usize) -> Name {
    match count {
        1 => listener.clone(),
        _ => Name::new(&format!("{listener}/{place}")).expect("there are no spaces in it"),
    }
}

fn one(
    cx: &mut Cx,
    table: &Name,
    chain: pb::FilterChain,
    said: &ext::Listener,
) -> Option<(FilterChain, RouteSource)> {
    let pb::FilterChain { filters, filter_chain_match: _, metadata, transport_socket, name: _ } = chain;
    let own: ext::Listener = ours(cx, metadata)?;
    let nothing = ext::Listener::default();
    if own != nothing && *said != nothing {
        return cx.fail("metadata", "the listener says such things too: say them in one place");
    }
    let tls = tls::around(cx, transport_socket, &filters)?;
    let whose = if own == nothing { said.clone() } else { own.clone() };
    let ext::Listener { limits: _, jwt, external_authorization, subsets, rate_limit_cache } = whose;
    let of_http = Ours { jwt, external_authorization, rate_limit_cache };
    let said = Said { of_http, subsets };
    let (chain, source) = chain_of(cx, table, filters, said)?;
    let limits = limits::exactly(cx, chain.limits, own.limits)?;
    Some((FilterChain { tls, limits, ..chain }, source))
}

fn matches(cx: &mut Cx, written: pb::FilterChainMatch) -> Option<ChainMatch> {
    let pb::FilterChainMatch {
        prefix_ranges,
        source_prefix_ranges,
        source_ports,
        destination_port,
        transport_protocol,
        application_protocols,
        server_names,
        source_type,
        direct_source_prefix_ranges,
    } = written;
    let port = match destination_port {
        None => Some(None),
        Some(written) => port(cx, "destination_port", written).map(Some),
    };
    let destinations = networks(cx, "prefix_ranges", prefix_ranges);
    let hosts = cx.each("server_names", server_names, |cx, name| host(cx, &name));
    let transport = match transport_protocol.as_str() {
        "" => Some(None),
        BY_TLS => Some(Some(Transport::Tls)),
        IN_THE_CLEAR => Some(Some(Transport::Clear)),
        other => {
            cx.fail("transport_protocol", format!("`{other}` is not `{BY_TLS}`, and not `{IN_THE_CLEAR}`"))
        }
    };
    let protocols = cx.each("application_protocols", application_protocols, |cx, protocol| {
        let fits = (1..=255).contains(&protocol.len());
        if fits { Some(protocol.into()) } else { cx.fail("", "it has between 1 and 255 bytes") }
    });
    let origin = match ConnectionSourceType::try_from(source_type).unwrap_or_default() {
        ConnectionSourceType::Any => None,
        ConnectionSourceType::SameIpOrLoopback => Some(Origin::Local),
        ConnectionSourceType::External => Some(Origin::External),
    };
    let direct_sources = networks(cx, "direct_source_prefix_ranges", direct_source_prefix_ranges);
    let sources = networks(cx, "source_prefix_ranges", source_prefix_ranges);
    let source_ports = cx.each("source_ports", source_ports, |cx, written| self::port(cx, "", written));
    Some(ChainMatch {
        port: port?,
        destinations: destinations?,
        hosts: once(cx, "server_names", hosts?)?,
        transport: transport?,
        protocols: once(cx, "application_protocols", protocols?)?,
        direct_sources: direct_sources?,
        origin,
        sources: sources?,
        source_ports: once(cx, "source_ports", source_ports?)?,
    })
}

fn port(cx: &mut Cx, field: &str, written: u32) -> Option<NonZeroU16> {
    let port = u16::try_from(written).ok().and_then(NonZeroU16::new);
    port.or_else(|| cx.fail(field, "it is between 1 and 65535"))
}

fn networks(cx: &mut Cx, field: &str, written: Vec<CidrRange>) -> Option<BTreeSet<ipnet::IpNet>> {
    let all = cx.each(field, written, text::network)?;
    once(cx, field, all)
}

fn host(cx: &mut Cx, name: &str) -> Option<HostPattern> {
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        return cx.fail("", format!("`{name}` fits nothing: what clients name is compared in lower case"));
    }
    let pattern = match name.strip_prefix("*.") {
        Some(domain) if is_host_name(domain) => Some(HostPattern::Suffix(format!(".{domain}").into())),
        None if is_host_name(name) => Some(HostPattern::Exact(name.into())),
        Some(_) | None => None,
    };
    pattern.or_else(|| cx.fail("", format!("`{name}` is not a host, and not `*.` and a domain")))
}

/// What stands twice would fit twice.
fn once<T: Ord>(cx: &mut Cx, field: &str, all: Vec<T>) -> Option<BTreeSet<T>> {
    let count = all.len();
    let set: BTreeSet<T> = all.into_iter().collect();
    if set.len() == count { Some(set) } else { cx.fail(field, "one of these stands here twice") }
}
