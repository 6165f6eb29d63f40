//! TLS and secrets, written and read again, and what is refused of what others write.

use proptest::prelude::*;
use prost::{Message, Name as _};
use prost_types::Any;

use super::super::super::generated::envoy::config::cluster::v3 as cluster;
use super::super::super::generated::envoy::config::listener::v3 as listener;
use super::super::super::generated::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use super::super::super::tls::{around, inspectors, permissive, upstream};
use super::super::super::{Kind, Resource, read};
use super::super::{downstream_tls, write};
use super::*;
use crate::model::random::tls::{self as random, By};
use crate::model::{
    Address, ClientAuth, ClientTrust, Cluster, Direction, DownstreamTls, Filter, FilterChain, HttpFilter,
    Limits, Listener, Mutual, ServerTls, Source, Split, TcpFilter,
};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn http(tls: Option<DownstreamTls>) -> FilterChain {
    let filter = HttpFilter {
        jwt: Box::default(),
        external_authorization: None,
        rate_limit_service: None,
        routes: name("web"),
        trusted_proxies: Vec::new(),
        merge_slashes: false,
    };
    FilterChain { tls, authorization: None, limits: Limits::default(), filter: Filter::Http(filter) }
}

fn bytes(tls: Option<DownstreamTls>) -> FilterChain {
    let tcp = TcpFilter { to: Split::one(name("app")), idle_timeout: std::time::Duration::from_secs(3600) };
    FilterChain { filter: Filter::Tcp(tcp), ..http(tls) }
}

/// A chain as it is before TLS is around it.
fn bare(model: &FilterChain) -> listener::FilterChain {
    let message = match &model.filter {
        Filter::Http(_) => HttpConnectionManager::full_name(),
        Filter::Tcp(_) => "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy".to_owned(),
    };
    let any = Any { type_url: format!("type.googleapis.com/{message}"), value: Vec::new() };
    let config = Some(listener::filter::ConfigType::TypedConfig(any));
    let filter = listener::Filter { name: "it".to_owned(), config_type: config };
    listener::FilterChain { filters: vec![filter], ..listener::FilterChain::default() }
}

/// What is made of it, or the first fault.
fn made<T>(f: impl FnOnce(&mut Cx) -> Option<T>) -> Result<T, String> {
    let mut cx = Cx::new("It".to_owned());
    let made = f(&mut cx);
    match (made, cx.into_errors().first()) {
        (Some(made), None) => Ok(made),
        (_, Some(error)) => Err(error.to_string()),
        (None, None) => panic!("what is not made has an error"),
    }
}

/// What is around one chain, or around two that are one.
fn read_again(
    cx: &mut Cx,
    chains: Vec<listener::FilterChain>,
    looks: Vec<listener::ListenerFilter>,
) -> Option<Option<DownstreamTls>> {
    inspectors(cx, looks)?;
    match (permissive(&chains), chains.into_iter().next()) {
        (Some(_), _) => Some(Some(DownstreamTls::Mutual(Mutual::Permissive))),
        (None, one) => one.and_then(|one| around(cx, one.transport_socket, &one.filters)),
    }
}

/// Whether these are the two names that mean something else.
fn is_reserved(certificates: &[&Certificate], roots: Option<&Bundle>) -> bool {
    let own = [&Certificate::Secret(name(Certificate::OWN))];
    certificates == own && roots == Some(&Bundle::Secret(name(Bundle::OWN)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_a_cluster_has_is_read_as_it_was_written(tls in proptest::option::of(random::upstream(By::Secrets))) {
        let reserved = match &tls {
            Some(UpstreamTls::Server(server)) => match &server.roots {
                Roots::Of(roots) => is_reserved(&server.certificate.iter().collect::<Vec<_>>(), Some(roots)),
                Roots::System => false,
            },
            Some(UpstreamTls::Mutual(_)) | None => false,
        };
        let written = made(|cx| transport_socket(cx, &tls));
        prop_assert_eq!(written.is_err(), reserved);
        if let Ok(around) = written {
            prop_assert_eq!(made(|cx| upstream(cx, around)), Ok(tls));
        }
    }

    #[test]
    fn what_a_listener_has_is_read_as_it_was_written(
        tls in proptest::option::of(random::downstream(By::Secrets)),
        is_http: bool,
    ) {
        let reserved = match &tls {
            Some(DownstreamTls::Own(ServerTls { certificates, client: ClientAuth::Required(trust) })) => {
                is_reserved(&certificates.iter().collect::<Vec<_>>(), Some(&trust.roots))
            }
            Some(DownstreamTls::Own(_) | DownstreamTls::Mutual(_)) | None => false,
        };
        let model = if is_http { http(tls.clone()) } else { bytes(tls.clone()) };
        let written = made(|cx| downstream_tls::chains(cx, &model, bare(&model)));
        prop_assert_eq!(written.is_err(), reserved);
        if let Ok((chains, looks)) = written {
            prop_assert_eq!(made(|cx| read_again(cx, chains, looks)).unwrap(), tls);
        }
    }

    #[test]
    fn a_secret_is_read_as_it_was_written(
        texts in proptest::array::uniform2("[a-zA-Z\\-\n]{1,40}"),
        is_certificate: bool,
        listed: bool,
    ) {
        let [one, other] = texts.map(|text| Wiped::from(text.into_bytes()));
        let other = if is_certificate || listed { other } else { Wiped::from(Vec::new()) };
        let secret = match is_certificate {
            true => Secret::Certificate { chain: one, key: other },
            false => Secret::Roots { roots: one, crls: other },
        };
        let any = write(&name("web"), &Resource::Secret(secret.clone())).unwrap();
        prop_assert_eq!(read(Kind::Secret, &any), Ok((name("web"), Resource::Secret(secret))));
    }

    #[test]
    fn files_are_never_written(up in random::upstream(By::Files), down in random::downstream(By::Files)) {
        let names_files = up.files().next().is_some();
        prop_assert_eq!(made(|cx| transport_socket(cx, &Some(up))).is_err(), names_files);
        let names_files = down.files().next().is_some();
        let model = http(Some(down));
        prop_assert_eq!(made(|cx| downstream_tls::chains(cx, &model, bare(&model))).is_err(), names_files);
    }
}

/// A cluster with this around it, as a whole resource: the walk looks as well.
#[track_caller]
fn refused_of_a_cluster(change: impl FnOnce(&mut pb::UpstreamTlsContext), expected: &str) {
    let server = ServerAuth {
        roots: Roots::Of(Bundle::Secret(name("ca"))),
        sni: Some("app.test".into()),
        sans: Box::new([San::Dns("app.test".into())]),
        certificate: None,
        revocation: Revocation::default(),
    };
    let around =
        made(|cx| transport_socket(cx, &Some(UpstreamTls::Server(Box::new(server))))).unwrap().unwrap();
    let Some(core::transport_socket::ConfigType::TypedConfig(any)) = around.config_type else {
        panic!("TLS")
    };
    let mut context = pb::UpstreamTlsContext::decode(any.value.as_slice()).unwrap();
    change(&mut context);
    let message = cluster::Cluster {
        name: "app".to_owned(),
        load_assignment: Some(Default::default()),
        transport_socket: Some(socket(&context)),
        ..cluster::Cluster::default()
    };
    let any = Any { type_url: Kind::Cluster.url(), value: message.encode_to_vec() };
    let said = read(Kind::Cluster, &any).map(|_| ()).map_err(|refused| refused.to_string());
    let at = "Cluster[app].transport_socket.typed_config";
    assert_eq!(said, Err(format!("{at}{expected}")));
}

#[test]
fn what_would_believe_too_much_is_refused() {
    use pb::common_tls_context::ValidationContextType as V;
    fn common(context: &mut pb::UpstreamTlsContext) -> &mut pb::CommonTlsContext {
        context.common_tls_context.as_mut().unwrap()
    }
    fn combined(
        context: &mut pb::UpstreamTlsContext,
    ) -> &mut pb::common_tls_context::CombinedCertificateValidationContext {
        match &mut common(context).validation_context_type {
            Some(V::CombinedValidationContext(combined)) => combined,
            other => panic!("{other:?}"),
        }
    }
    fn names(context: &mut pb::UpstreamTlsContext) -> &mut Vec<pb::SubjectAltNameMatcher> {
        &mut combined(context).default_validation_context.as_mut().unwrap().match_typed_subject_alt_names
    }
    let nobody = ".common_tls_context: it is not said whose certificate is expected: write \
        `combined_validation_context`, with `match_typed_subject_alt_names` and the roots' secret";
    refused_of_a_cluster(|it| it.common_tls_context = None, nobody);
    refused_of_a_cluster(|it| common(it).validation_context_type = None, nobody);
    refused_of_a_cluster(|it| names(it).clear(), nobody);
    let alone = V::ValidationContextSdsSecretConfig(of("ca"));
    refused_of_a_cluster(|it| common(it).validation_context_type = Some(alone), nobody);
    let at = ".common_tls_context.combined_validation_context";
    let ads = format!(
        "{at}.validation_context_sds_secret_config.sds_config: it does not come from the same stream: write `ads`"
    );
    let unsourced = pb::SdsSecretConfig { name: "ca".to_owned(), sds_config: None };
    refused_of_a_cluster(|it| combined(it).validation_context_sds_secret_config = Some(unsourced), &ads);
    let least = ".common_tls_context.tls_params.tls_minimum_protocol_version: TLS 1.2 and 1.3 are spoken: write TLSv1_2, or nothing";
    refused_of_a_cluster(
        |it| common(it).tls_params.as_mut().unwrap().tls_minimum_protocol_version = 4,
        least,
    );
    let at = format!("{at}.default_validation_context");
    let kind =
        format!("{at}.match_typed_subject_alt_names[0].san_type: DNS, IP_ADDRESS and URI are supported");
    refused_of_a_cluster(|it| names(it)[0].san_type = 1, &kind);
    let uri = format!(
        "{at}.match_typed_subject_alt_names[0].matcher.exact: `app.test` is no SPIFFE ID: it does not begin with `spiffe://`"
    );
    refused_of_a_cluster(|it| names(it)[0].san_type = 3, &uri);
    refused_of_a_cluster(|it| "10.0.0.1".clone_into(&mut it.sni), ".sni: `10.0.0.1` is not a host's name");
    // A file of the proxy's machine: `DataSource.filename` is its first field.
    let file = prost::encoding::encode_varint;
    let mut path = vec![10];
    file(3, &mut path);
    path.extend(b"/ca");
    let of_file = core::DataSource::decode(path.as_slice()).unwrap();
    let roots = pb::CertificateValidationContext { trusted_ca: Some(of_file), ..Default::default() };
    let in_place = format!("{at}.trusted_ca: this comes in a secret: write `combined_validation_context`");
    refused_of_a_cluster(|it| combined(it).default_validation_context = Some(roots), &in_place);
}

/// A field by number, as bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

#[test]
fn a_secret_is_in_place_and_its_faults_say_nothing_of_it() {
    let read = |held: Vec<u8>| {
        let value = [field(1, b"web"), held].concat();
        let refused = read(Kind::Secret, &Any { type_url: Kind::Secret.url(), value });
        refused.unwrap_err().to_string()
    };
    let (text, file) = (field(3, b"PEM"), field(1, b"/etc/shadow"));
    let filename = read(field(2, &[field(1, &text), field(2, &file)].concat()));
    let at = "Secret[web].tls_certificate.private_key";
    let missing = "this is missing: write `inline_string` or `inline_bytes`";
    assert_eq!(filename, format!("{at}.filename: not supported\n{at}: {missing}"));
    let password = read(field(2, &[field(1, &text), field(2, &text), field(3, &text)].concat()));
    assert_eq!(password, "Secret[web].tls_certificate.password: not supported");
    assert_eq!(
        read(field(3, b"")),
        "Secret[web].session_ticket_keys: not supported\nSecret[web]: it holds nothing: write `tls_certificate` or `validation_context`"
    );
    assert!(read(field(5, b"")).contains("Secret[web].generic_secret: not supported"));
    assert_eq!(read(field(4, b"")), format!("Secret[web].validation_context.trusted_ca: {missing}"));
    let named = read(field(4, &[field(1, &text), field(15, b"")].concat()));
    assert!(
        named.contains("Secret[web].validation_context.match_typed_subject_alt_names: who may answer"),
        "{named}"
    );
    let key = Wiped::from(b"-----BEGIN PRIVATE KEY-----".to_vec());
    let shown = format!("{:?}", Secret::Certificate { chain: key.clone(), key });
    assert_eq!(shown, "Certificate { chain: (27 bytes), key: (27 bytes) }");
}

#[test]
fn two_chains_are_one_that_goes_without_tls_as_well() {
    let model = http(Some(DownstreamTls::Mutual(Mutual::Permissive)));
    let (chains, looks) = made(|cx| downstream_tls::chains(cx, &model, bare(&model))).unwrap();
    assert_eq!((chains.len(), looks.len(), permissive(&chains)), (2, 1, Some(0)));
    let turned: Vec<_> = chains.iter().rev().cloned().collect();
    assert_eq!(permissive(&turned), Some(1));
    let mut other = chains.clone();
    other[1].filters[0].name = "another".to_owned();
    let mut narrow = chains.clone();
    if let Some(matches) = &mut narrow[0].filter_chain_match {
        matches.destination_port = Some(1);
    }
    let both = vec![chains[0].clone(), chains[0].clone()];
    let sockets = vec![
        chains[0].clone(),
        listener::FilterChain { transport_socket: chains[0].transport_socket.clone(), ..chains[1].clone() },
    ];
    // Certificates of one's own, and nobody asked for one.
    let own =
        ServerTls { certificates: Box::new([Certificate::Secret(name("web"))]), client: ClientAuth::None };
    let model = http(Some(DownstreamTls::Own(own)));
    let (own, _) = made(|cx| downstream_tls::chains(cx, &model, bare(&model))).unwrap();
    let mixed =
        listener::FilterChain { filter_chain_match: chains[0].filter_chain_match.clone(), ..own[0].clone() };
    let mixed = vec![mixed, chains[1].clone()];
    for two in [other, narrow, both, sockets, mixed, Vec::new()] {
        assert_eq!(permissive(&two), None);
    }
}

#[test]
fn a_cluster_as_a_whole_names_its_secrets() {
    let tls = UpstreamTls::Server(Box::new(ServerAuth {
        roots: Roots::Of(Bundle::Secret(name("ca"))),
        sni: None,
        sans: Box::new([San::Ip("::1".parse().unwrap())]),
        certificate: Some(Certificate::Secret(name("own"))),
        revocation: Revocation::default(),
    }));
    let cluster = Cluster { tls: Some(tls), ..Cluster::new(Source::Static) };
    let secrets: Vec<_> =
        cluster.tls.iter().flat_map(UpstreamTls::secrets).map(|it| it.name.as_str()).collect();
    assert_eq!(secrets, ["own", "ca"]);
    let trust = ClientTrust { roots: Bundle::Secret(name("ca")), revocation: Revocation::default() };
    let own = ServerTls {
        certificates: Box::new([Certificate::Secret(name("web"))]),
        client: ClientAuth::Required(trust),
    };
    let chain = http(Some(DownstreamTls::Own(own)));
    let listener = Listener {
        bind: Address::Unix("/a".into()),
        direction: Direction::Inbound,
        destination: Default::default(),
        chains: chain.into(),
    };
    let secrets: Vec<_> = listener
        .chains
        .each()
        .flat_map(|chain| &chain.tls)
        .flat_map(DownstreamTls::secrets)
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(secrets, ["web", "ca"]);
}
