//! Several chains, as control planes write them, and as we do.

use super::super::super::generated::envoy::config::core::v3::CidrRange;
use super::super::super::generated::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use super::super::super::generated::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use super::*;
use crate::model::random::tls::By;
use crate::model::{Certificate, DestinationSource, DownstreamTls};

/// Every other table of routes stands with its chain.
fn of_several(mut chains: Chains) -> ListenerResource {
    let (count, mut routes) = (chains.each().count(), Vec::new());
    for (place, chain) in chains.each_mut().enumerate() {
        // The two names that mean something else.
        let reserved = |tls: &mut DownstreamTls| match tls {
            DownstreamTls::Own(own) => own.certificates[0] != Certificate::Secret(name("default")),
            DownstreamTls::Mutual(_) => true,
        };
        chain.tls = chain.tls.take_if(reserved);
        routes.push(match &mut chain.filter {
            Filter::Http(http) if place % 2 == 0 => {
                http.routes = table_of(&name("l"), place, count);
                RouteSource::Stated(RouteTable::default())
            }
            Filter::Http(http) => RouteSource::Rds(http.routes.clone()),
            Filter::Tcp(_) => RouteSource::None,
        });
        if let Filter::Http(http) = &mut chain.filter {
            for issuer in &mut http.jwt {
                if !matches!(issuer.keys, JwksSource::Inline(_)) {
                    issuer.keys = JwksSource::Url { url: "https://id.example/keys".into(), trust: None };
                }
            }
        }
    }
    let bind = Address::Ip("127.0.0.1:80".parse().unwrap());
    let listener = Listener { bind, direction: Direction::Inbound, destination: Default::default(), chains };
    ListenerResource { listener, routes: routes.into() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn several_chains_are_read_as_they_were_written(chains in crate::model::random::chains(By::Secrets)) {
        let resource = Resource::Listener(Box::new(of_several(chains)));
        let any = write(&name("l"), &resource).map_err(|refused| TestCaseError::fail(refused.to_string()))?;
        let read = read(Kind::Listener, &any).map_err(|refused| TestCaseError::fail(refused.to_string()))?;
        prop_assert_eq!(read, (name("l"), resource));
    }
}

/// A chain of bytes for some connections.
fn bytes_for(matches: pb::FilterChainMatch) -> pb::FilterChain {
    let to = tcp::tcp_proxy::ClusterSpecifier::Cluster("a".to_owned());
    let last = packed(&tcp::TcpProxy { cluster_specifier: Some(to), ..tcp::TcpProxy::default() });
    let chain = listener_of(last).filter_chains.remove(0);
    pb::FilterChain { filter_chain_match: Some(matches), ..chain }
}

fn read_chains(some: Vec<pb::FilterChain>, rest: Option<pb::FilterChain>) -> Result<Chains, String> {
    let message =
        pb::Listener { filter_chains: some, default_filter_chain: rest, ..listener_of(packed(&plain())) };
    read_one(&message).map(|read| read.chains)
}

#[test]
fn one_chain_that_takes_everything_is_alone_however_that_is_said() {
    let any = || bytes_for(pb::FilterChainMatch::default());
    for (some, rest) in [(vec![any()], None), (Vec::new(), Some(any()))] {
        assert!(read_chains(some, rest).unwrap().only().is_some());
    }
    let narrow = || bytes_for(pb::FilterChainMatch { destination_port: Some(1), ..Default::default() });
    for (some, rest) in [
        (vec![narrow()], None),
        (vec![narrow(), any()], None),
        (vec![narrow()], Some(any())),
        (vec![any()], Some(any())),
    ] {
        assert_eq!(read_chains(some, rest).unwrap().only(), None);
    }
}

const AT: &str = "Listener[l].filter_chains";

fn hosts(names: &[&str]) -> pb::FilterChainMatch {
    let server_names = names.iter().map(ToString::to_string).collect();
    pb::FilterChainMatch { server_names, ..Default::default() }
}

fn network(prefix: &str, length: u32) -> pb::FilterChainMatch {
    let range = CidrRange { address_prefix: prefix.to_owned(), prefix_len: Some(length) };
    pb::FilterChainMatch { prefix_ranges: vec![range], ..Default::default() }
}

#[track_caller]
fn refused(all: Vec<pb::FilterChainMatch>, expected: &str) {
    let read = read_chains(all.into_iter().map(bytes_for).collect(), None);
    assert_eq!(read, Err(format!("{AT}{expected}")));
}

#[test]
fn chains_that_cannot_be_told_apart_are_refused() {
    refused(vec![], ": there is no chain: nothing could be done with a connection");
    let alike = |one: usize, other: usize| {
        format!(": there are connections that the chains {one} and {other} fit equally well")
    };
    refused(vec![hosts(&["a", "b"]), hosts(&["c"]), hosts(&["d", "b"])], &alike(0, 2));
    refused(vec![hosts(&[]), hosts(&[])], &alike(0, 1));
    // What is beyond the prefix does not count.
    refused(vec![network("10.1.2.3", 8), network("10.0.0.0", 8)], &alike(0, 1));
    // The narrower one comes first.
    let nested = [network("10.0.0.0", 8), network("10.0.0.0", 9)];
    assert!(read_chains(nested.map(bytes_for).into(), None).is_ok());
    let rest = bytes_for(hosts(&["a"]));
    let expected = "Listener[l].default_filter_chain.filter_chain_match: this one takes what the others do not, whatever that is";
    assert_eq!(read_chains(vec![bytes_for(hosts(&["b"]))], Some(rest)), Err(expected.to_owned()));
}

#[test]
fn what_fits_nothing_is_refused() {
    let no_host = |name: &str| format!("server_names[0]: `{name}` is not a host, and not `*.` and a domain");
    let twice = "server_names: one of these stands here twice";
    let upper = "server_names[0]: `A.b` fits nothing: what clients name is compared in lower case";
    for (matches, expected) in [
        (hosts(&["a", "a"]), twice),
        (hosts(&["*"]), &no_host("*")),
        (hosts(&["w*.a"]), &no_host("w*.a")),
        (hosts(&["A.b"]), upper),
        (
            pb::FilterChainMatch { destination_port: Some(0), ..Default::default() },
            "destination_port: it is between 1 and 65535",
        ),
        (
            pb::FilterChainMatch { source_ports: vec![1, 65536], ..Default::default() },
            "source_ports[1]: it is between 1 and 65535",
        ),
        (
            pb::FilterChainMatch { transport_protocol: "quic".to_owned(), ..Default::default() },
            "transport_protocol: `quic` is not `tls`, and not `raw_buffer`",
        ),
    ] {
        refused(vec![matches], &format!("[0].filter_chain_match.{expected}"));
    }
}

#[test]
fn what_is_ours_is_said_of_each_of_several_chains() {
    let noted = |idle: i64| {
        let limits = ext::ListenerLimits { idle_timeout: seconds(idle), ..Default::default() };
        let note = packed(&ext::Listener { limits: Some(limits), ..Default::default() });
        let typed_filter_metadata = [("outrigger".to_owned(), note)].into();
        Some(core::Metadata { typed_filter_metadata, ..Default::default() })
    };
    let mut chain = bytes_for(pb::FilterChainMatch { destination_port: Some(1), ..Default::default() });
    chain.metadata = noted(7);
    let any = bytes_for(pb::FilterChainMatch::default());
    let chains = read_chains(vec![chain.clone(), any.clone()], None).unwrap();
    let idle: Vec<_> = chains.each().map(|chain| chain.limits.idle_timeout.as_secs()).collect();
    assert_eq!(idle, [7, 3600]);
    let of = |chains: Vec<pb::FilterChain>| {
        let message =
            pb::Listener { filter_chains: chains, metadata: noted(8), ..listener_of(packed(&plain())) };
        read_one(&message).map(|_| ()).unwrap_err()
    };
    assert_eq!(
        of(vec![chain.clone(), any]),
        "Listener[l].metadata: there are several chains: say this in the `metadata` of each"
    );
    assert_eq!(
        of(vec![chain]),
        "Listener[l].filter_chains[0].metadata: the listener says such things too: say them in one place"
    );
}

#[test]
fn where_connections_were_going_is_asked_for_first() {
    let looks = |name: &str, any: Any| {
        let config_type = Some(pb::listener_filter::ConfigType::TypedConfig(any));
        pb::ListenerFilter { name: name.to_owned(), config_type }
    };
    let original = looks("envoy.filters.listener.original_dst", packed(&OriginalDst {}));
    let inspector = looks("envoy.filters.listener.tls_inspector", packed(&TlsInspector {}));
    for (listener_filters, expected) in [
        (vec![], DestinationSource::Bound),
        (vec![inspector.clone()], DestinationSource::Bound),
        (vec![original.clone()], DestinationSource::Redirected),
        (vec![inspector, original.clone()], DestinationSource::Redirected),
    ] {
        let listener = pb::Listener { listener_filters, ..listener_of(packed(&plain())) };
        let Ok((_, Resource::Listener(read))) = read(Kind::Listener, &packed(&listener)) else { panic!() };
        assert_eq!(read.listener.destination, expected);
        let Ok(written) = write(&name("l"), &Resource::Listener(read)) else { panic!() };
        let written = pb::Listener::decode(&*written.value).unwrap();
        let first = written.listener_filters.first().filter(|first| **first == original);
        assert_eq!(first.is_some(), expected == DestinationSource::Redirected);
    }
    // The way in which one listener hands a connection to another: use_original_dst { value: true }.
    let mut handed = packed(&listener_of(packed(&plain())));
    handed.value.extend([0x22, 0x02, 0x08, 0x01]);
    let refused = read(Kind::Listener, &handed).unwrap_err().to_string();
    assert_eq!(refused, "Listener[l].use_original_dst: not supported");
    let pipe = core::address::Address::Pipe(core::Pipe { path: "/a".to_owned() });
    let address = Some(core::Address { address: Some(pipe) });
    let listener_filters = vec![original];
    let unix = pb::Listener { address, listener_filters, ..listener_of(packed(&plain())) };
    let refused = read(Kind::Listener, &packed(&unix)).unwrap_err().to_string();
    assert_eq!(refused, "Listener[l].listener_filters: connections to a unix socket are not redirected");
}
