//! Chains of a listener at random.

use super::*;

/// Several chains of one listener.
pub(crate) fn chains(by: tls::By) -> impl Strategy<Value = Chains> {
    let one = move || (chain_match(), filter_chain(by));
    let strict = |chain: &mut FilterChain| {
        if let Some(DownstreamTls::Mutual(mode)) = &mut chain.tls {
            *mode = Mutual::Strict;
        }
    };
    let all = (vec(one(), 1..4), option::of(filter_chain(by)));
    all.prop_filter_map("no two are alike", move |(mut some, mut rest)| {
        some.iter_mut().map(|(_, chain)| chain).chain(&mut rest).for_each(strict);
        Chains::new(some, rest).ok()
    })
}

fn chain_match() -> impl Strategy<Value = ChainMatch> {
    let ports = || (1..u16::MAX).prop_map(|port| NonZeroU16::new(port).unwrap());
    let networks = || btree_set(network(), 0..3);
    let host = prop_oneof![
        "[a-z0-9]{1,3}(\\.[a-z_-]{1,3}){0,2}".prop_map(|name| HostPattern::Exact(name.into())),
        "(\\.[a-z0-9_-]{1,3}){1,3}".prop_map(|domain| HostPattern::Suffix(domain.into())),
    ];
    let protocols = btree_set("[a-z/.0-9]{1,8}".prop_map(Box::<str>::from), 0..3);
    let transport = option::of(select(vec![Transport::Tls, Transport::Clear]));
    let origin = option::of(select(vec![Origin::Local, Origin::External]));
    let to = (option::of(ports()), networks(), btree_set(host, 0..3));
    let from = (networks(), origin, networks(), btree_set(ports(), 0..3));
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
