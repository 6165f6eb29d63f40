//! Chains beside the words that say which one is taken.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use outrigger_proto::model::{Chains, Filter, FilterChain, Limits, Name, Split, TcpFilter};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::facts::Greeting;

/// How well a chain fits by one thing: 0 where it says nothing of it, `None` where it does not.
type Fit = Option<usize>;

/// As it is documented: each thing in turn leaves those that fit best.
fn naive(all: &[ChainMatch], arrival: &Arrival) -> Option<usize> {
    let Arrival { to, from, hello } = arrival;
    let port = |of: &Option<SocketAddr>| of.map(|of| of.port());
    let one_of = |wanted: Vec<u16>, of: Option<u16>| match (wanted.is_empty(), of) {
        (true, _) => Some(0),
        (false, of) => wanted.iter().any(|wanted| Some(*wanted) == of).then_some(1),
    };
    let within = |wanted: &BTreeSet<IpNet>, of: &Option<SocketAddr>| -> Fit {
        let of = of.map(|of| of.ip().to_canonical());
        let fits = wanted.iter().filter(|network| of.is_some_and(|of| network.contains(&of)));
        let best = fits.map(|network| usize::from(network.prefix_len()) + 1).max();
        if wanted.is_empty() { Some(0) } else { best }
    };
    let host = |wanted: &BTreeSet<HostPattern>| -> Fit {
        let of = hello.as_ref().and_then(|hello| hello.host.as_deref()).unwrap_or_default();
        let fits = wanted.iter().filter_map(|wanted| match wanted {
            HostPattern::Exact(name) => (&**name == of).then_some(usize::MAX),
            HostPattern::Suffix(domain) => {
                (of.ends_with(&**domain) && of.len() > domain.len()).then_some(domain.len())
            }
        });
        if wanted.is_empty() { Some(0) } else { fits.max() }
    };
    let protocol = |wanted: &BTreeSet<Box<str>>| -> Fit {
        let offered = hello.iter().flat_map(|hello| &hello.protocols).enumerate();
        let mut fits = offered.filter(|(_, name)| wanted.iter().any(|wanted| wanted.as_bytes() == &***name));
        if wanted.is_empty() { Some(0) } else { fits.next().map(|(place, _)| usize::MAX - place) }
    };
    let transport = if hello.is_some() { Transport::Tls } else { Transport::Clear };
    let is = |said: bool, same: bool| -> Fit { if said { same.then_some(1) } else { Some(0) } };
    let steps: [&dyn Fn(&ChainMatch) -> Fit; 9] = [
        &|all| one_of(all.port.iter().map(|port| port.get()).collect(), port(to)),
        &|all| within(&all.destinations, to),
        &|all| host(&all.hosts),
        &|all| is(all.transport.is_some(), all.transport == Some(transport)),
        &|all| protocol(&all.protocols),
        &|all| within(&all.direct_sources, from),
        &|all| is(all.origin.is_some(), all.origin == Some(arrival.origin())),
        &|all| within(&all.sources, from),
        &|all| one_of(all.source_ports.iter().map(|port| port.get()).collect(), port(from)),
    ];
    let mut left: Vec<usize> = (0..all.len()).collect();
    for step in steps {
        let best = left.iter().filter_map(|place| step(&all[*place])).max()?;
        left.retain(|place| step(&all[*place]) == Some(best));
    }
    assert_eq!(left.len(), 1, "two chains take the same connection");
    left.pop()
}

fn ports() -> impl Strategy<Value = NonZeroU16> {
    (1..4_u16).prop_map(|port| NonZeroU16::new(port).unwrap())
}

fn networks() -> impl Strategy<Value = BTreeSet<IpNet>> {
    let all = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.1/32", "127.0.0.1/32", "fd00::/8", "::/0"];
    let one = select(all.to_vec()).prop_map(|network| network.parse().unwrap());
    prop_oneof![2 => Just(BTreeSet::new()), 1 => btree_set(one, 1..3)]
}

fn hosts() -> impl Strategy<Value = BTreeSet<HostPattern>> {
    let one = select(vec!["a.b.c", "b.c", ".b.c", ".c"]).prop_map(|name| match name.starts_with('.') {
        true => HostPattern::Suffix(name.into()),
        false => HostPattern::Exact(name.into()),
    });
    prop_oneof![1 => Just(BTreeSet::new()), 1 => btree_set(one, 1..3)]
}

const PROTOCOLS: [&str; 3] = ["h2", "http/1.1", "x"];

fn chain_match() -> impl Strategy<Value = ChainMatch> {
    let protocol = select(PROTOCOLS.to_vec()).prop_map(Box::<str>::from);
    let protocols = prop_oneof![2 => Just(BTreeSet::new()), 1 => btree_set(protocol, 1..3)];
    let source_ports = prop_oneof![2 => Just(BTreeSet::new()), 1 => btree_set(ports(), 1..3)];
    let transport = option::of(select(vec![Transport::Tls, Transport::Clear]));
    let origin = option::of(select(vec![Origin::Local, Origin::External]));
    let to = (option::of(ports()), networks(), hosts());
    let from = (networks(), origin, networks(), source_ports);
    (to, transport, protocols, from).prop_map(
        |(
            (port, destinations, hosts),
            transport,
            protocols,
            (direct_sources, origin, sources, source_ports),
        )| ChainMatch {
            port,
            destinations,
            hosts,
            transport,
            protocols,
            direct_sources,
            origin,
            sources,
            source_ports,
        },
    )
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let ends = ["10.1.1.1", "10.1.2.2", "10.2.0.1", "127.0.0.1", "::ffff:10.1.1.1", "fd00::1", "192.0.2.1"];
    let end =
        (select(ends.to_vec()), 1..4_u16).prop_map(|(ip, port)| SocketAddr::new(ip.parse().unwrap(), port));
    let host = select(vec!["a.b.c", "b.c", "x.b.c", "x.a.b.c", "x.c", "c", "x.d"]).prop_map(Box::<str>::from);
    let protocol = select(PROTOCOLS.to_vec()).prop_map(|name| Box::<[u8]>::from(name.as_bytes()));
    let hello = (option::of(host), vec(protocol, 0..3));
    let hello = hello.prop_map(|(host, protocols)| Greeting { host, protocols });
    (option::of(end.clone()), option::of(end), option::of(hello)).prop_map(|(to, from, hello)| Arrival {
        to,
        from,
        hello,
    })
}

fn chain() -> FilterChain {
    let tcp = TcpFilter {
        to: Split::one(Name::new("a").unwrap()),
        idle_timeout: std::time::Duration::from_secs(1),
    };
    FilterChain { tls: None, authorization: None, limits: Limits::default(), filter: Filter::Tcp(tcp) }
}

/// As many of them, from the first on, as can stand together.
fn together(all: Vec<ChainMatch>) -> Vec<ChainMatch> {
    let mut out: Vec<ChainMatch> = Vec::new();
    for one in all {
        let all = out.iter().cloned().chain([one.clone()]).map(|matches| (matches, chain()));
        if Chains::new(all.collect(), None).is_ok() {
            out.push(one);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_index_finds_what_the_words_say(all in vec(chain_match(), 1..12), arrivals in vec(arrival(), 1..24)) {
        let all = together(all);
        let index = ChainIndex::new(&all);
        for arrival in &arrivals {
            prop_assert_eq!(index.find(arrival), naive(&all, arrival), "{:?} of {:#?}", arrival, all);
        }
    }
}

/// What there is no way back from.
#[test]
fn what_comes_first_decides() {
    let host = |name: &str| [HostPattern::Exact(name.into())].into();
    let all = [
        ChainMatch::default(),
        ChainMatch { port: NonZeroU16::new(1), hosts: host("a"), ..ChainMatch::default() },
        ChainMatch { hosts: host("b"), transport: Some(Transport::Tls), ..ChainMatch::default() },
        ChainMatch { hosts: host("b"), protocols: ["h2".into()].into(), ..ChainMatch::default() },
    ];
    let index = ChainIndex::new(&all);
    assert!(index.looks_into_tls());
    let found = |port: u16, host: &str, protocols: &[&str]| {
        let protocols = protocols.iter().map(|name| name.as_bytes().into()).collect();
        let to = Some(SocketAddr::from(([10, 0, 0, 1], port)));
        let hello = Some(Greeting { host: Some(host.into()), protocols });
        index.find(&Arrival { to, from: to, hello })
    };
    let table = [
        (found(1, "a", &[]), Some(1)),
        // By the port it is the second chain's or nobody's.
        (found(1, "b", &[]), None),
        (found(2, "a", &[]), Some(0)),
        (found(2, "b", &[]), Some(2)),
        // By TLS it is the third chain's, whatever is spoken inside.
        (found(2, "b", &["h2"]), Some(2)),
    ];
    for (row, (found, expected)) in table.into_iter().enumerate() {
        assert_eq!(found, expected, "row {row}");
    }
    // In the clear, nobody names a host.
    let clear = Arrival { to: Some(([10, 0, 0, 1], 1).into()), ..Arrival::default() };
    assert_eq!(index.find(&clear), None);
    assert_eq!(index.find(&Arrival::default()), Some(0));
}
