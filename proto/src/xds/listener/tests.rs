//! Listeners as control planes write them, and as we do.

mod chains;

use proptest::prelude::*;
use prost::Message;

use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::config::route::v3 as route;
use super::super::generated::envoy::extensions::filters::http as filters;
use super::super::generated::envoy::extensions::filters::http::jwt_authn::v3 as jwt;
use super::super::generated::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType as R;
use super::super::generated::envoy::extensions::filters::network::http_connection_manager::v3 as http;
use super::super::generated::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use super::super::generated::outrigger::extensions::v1 as ext;
use super::super::{Kind, Resource, read, write};
use super::*;
use crate::model::{Address, Chains, Filter, JwksSource, Listener, Mesh};

fn packed<M: Message + prost::Name>(message: &M) -> Any {
    Any { type_url: format!("type.googleapis.com/{}", M::full_name()), value: message.encode_to_vec() }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// All but TLS and files, which are others' to say.
fn sayable(mut listener: Listener) -> Listener {
    for chain in listener.chains.each_mut() {
        chain.tls = None;
        if let Filter::Http(http) = &mut chain.filter {
            for issuer in &mut http.jwt {
                if !matches!(issuer.keys, JwksSource::Inline(_)) {
                    issuer.keys = JwksSource::Url { url: "https://id.example/keys".into(), trust: None };
                }
            }
        }
    }
    listener
}

fn resources(mesh: &Mesh) -> Vec<(Name, Resource)> {
    let resource = |(name, listener): (&Name, &Listener)| {
        let listener = sayable(listener.clone());
        let routes = listener.chains.each().map(|chain| match &chain.filter {
            Filter::Http(http) => RouteSource::Rds(http.routes.clone()),
            Filter::Tcp(_) => RouteSource::None,
        });
        let routes = routes.collect();
        (name.clone(), Resource::Listener(Box::new(ListenerResource { listener, routes })))
    };
    mesh.listeners.iter().map(resource).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_listener_is_read_as_it_was_written(config in crate::model::random::config()) {
        for (name, resource) in resources(&config.mesh) {
            let any = write(&name, &resource).map_err(|refused| TestCaseError::fail(refused.to_string()))?;
            let read = read(Kind::Listener, &any).map_err(|refused| TestCaseError::fail(refused.to_string()))?;
            prop_assert_eq!(read, (name, resource));
        }
    }
}

fn of_http(name: &str) -> http::HttpFilter {
    let any = packed(&filters::router::v3::Router {});
    http::HttpFilter {
        name: name.to_owned(),
        config_type: Some(http::http_filter::ConfigType::TypedConfig(any)),
        ..http::HttpFilter::default()
    }
}

fn with<M: Message + prost::Name>(message: &M) -> http::HttpFilter {
    let config_type = Some(http::http_filter::ConfigType::TypedConfig(packed(message)));
    http::HttpFilter { config_type, ..http::HttpFilter::default() }
}

/// As a control plane with little to say writes it.
fn plain() -> http::HttpConnectionManager {
    use core::config_source::ConfigSourceSpecifier;
    let ads = ConfigSourceSpecifier::Ads(core::AggregatedConfigSource::default());
    let config_source =
        core::ConfigSource { config_source_specifier: Some(ads), ..core::ConfigSource::default() };
    let rds = http::Rds { config_source: Some(config_source), route_config_name: "r".to_owned() };
    http::HttpConnectionManager {
        stat_prefix: "ingress".to_owned(),
        route_specifier: Some(http::http_connection_manager::RouteSpecifier::Rds(rds)),
        http_filters: vec![of_http("router")],
        ..http::HttpConnectionManager::default()
    }
}

fn listener_of(last: Any) -> pb::Listener {
    let socket = core::SocketAddress {
        address: "127.0.0.1".to_owned(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(80)),
        ..core::SocketAddress::default()
    };
    let address = core::Address { address: Some(core::address::Address::SocketAddress(socket)) };
    let filter =
        pb::Filter { name: "f".to_owned(), config_type: Some(pb::filter::ConfigType::TypedConfig(last)) };
    let chain = pb::FilterChain { filters: vec![filter], ..pb::FilterChain::default() };
    pb::Listener {
        name: "l".to_owned(),
        address: Some(address),
        filter_chains: vec![chain],
        ..pb::Listener::default()
    }
}

fn read_one(message: &pb::Listener) -> Result<Listener, String> {
    match read(Kind::Listener, &packed(message)) {
        Ok((_, Resource::Listener(read))) => Ok(read.listener),
        Ok(other) => panic!("{other:?}"),
        Err(refused) => Err(refused.to_string()),
    }
}

fn read_http(manager: &http::HttpConnectionManager) -> Result<Listener, String> {
    read_one(&listener_of(packed(manager)))
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[test]
fn limits_that_nobody_says_are_envoys_where_it_has_one() {
    let limits = read_http(&plain()).unwrap().chains.only().unwrap().limits.clone();
    let streams = std::num::NonZeroU32::new(1024).unwrap();
    assert_eq!(limits, Limits { streams, ..Limits::default() });
}

#[test]
fn what_control_planes_always_write_is_accepted() {
    let websocket = http::http_connection_manager::UpgradeConfig {
        upgrade_type: "websocket".to_owned(),
        ..Default::default()
    };
    let manager = http::HttpConnectionManager {
        use_remote_address: Some(true),
        normalize_path: Some(true),
        merge_slashes: true,
        path_with_escaped_slashes_action: 3,
        stream_idle_timeout: seconds(0),
        upgrade_configs: vec![websocket],
        http_protocol_options: Some(core::Http1ProtocolOptions::default()),
        http_filters: vec![
            with(&filters::cors::v3::Cors {}),
            with(&filters::grpc_stats::v3::FilterConfig {}),
            with(&filters::fault::v3::HttpFault::default()),
            of_http("router"),
        ],
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            idle_timeout: seconds(300),
            ..Default::default()
        }),
        ..plain()
    };
    let mut message = listener_of(packed(&manager));
    message.bind_to_port = Some(true);
    // Labels, and the notes of others.
    let note = Any { type_url: "a/b.C".to_owned(), value: vec![1] };
    message.metadata = Some(core::Metadata {
        filter_metadata: [("istio".to_owned(), prost_types::Struct::default())].into(),
        typed_filter_metadata: [("b".to_owned(), note)].into(),
    });
    let read = read_one(&message).unwrap();
    assert_eq!(read.chains.only().unwrap().limits.idle_timeout.as_secs(), 300);
    assert_eq!(read.bind, Address::Ip("127.0.0.1:80".parse().unwrap()));
}

#[test]
fn what_clients_say_of_their_certificates_is_not_passed_on() {
    use http::http_connection_manager::{ForwardClientCertDetails as D, SetCurrentClientCertDetails};
    let rows = [
        (D::Sanitize, None, ""),
        (D::SanitizeSet, Some(true), ""),
        (
            D::SanitizeSet,
            Some(false),
            "set_current_client_cert_details.uri: by it a client is named: write true",
        ),
        (D::SanitizeSet, None, "set_current_client_cert_details.uri: by it a client is named: write true"),
        (D::AppendForward, Some(true), "forward_client_cert_details: what clients say of their certificates"),
        (D::AlwaysForwardOnly, None, "forward_client_cert_details: what clients say of their certificates"),
    ];
    for (forwarded, uri, expected) in rows {
        let manager = http::HttpConnectionManager {
            forward_client_cert_details: forwarded.into(),
            set_current_client_cert_details: uri.map(|uri| SetCurrentClientCertDetails { uri }),
            ..plain()
        };
        let said = read_http(&manager).err().unwrap_or_default();
        assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{forwarded:?}: {said}");
    }
}

#[test]
fn idle_time_is_the_streams_where_that_is_shorter() {
    let idle = |whole, stream| {
        let common = core::HttpProtocolOptions { idle_timeout: whole, ..Default::default() };
        read_http(&http::HttpConnectionManager {
            common_http_protocol_options: Some(common),
            stream_idle_timeout: stream,
            ..plain()
        })
        .map(|read| read.chains.only().unwrap().limits.idle_timeout.as_secs())
    };
    assert_eq!(idle(None, seconds(300)), Ok(300));
    assert_eq!(idle(seconds(60), seconds(0)), Ok(60));
    assert_eq!(idle(seconds(60), seconds(30)), Ok(30));
    assert!(idle(seconds(60), seconds(90)).unwrap_err().contains(".stream_idle_timeout: one time holds"));
    assert!(idle(seconds(0), None).unwrap_err().contains(".idle_timeout: there must be one"));
}

const MANAGER: &str = "Listener[l].filter_chains[0].filters[0].typed_config";

#[track_caller]
fn refused(change: impl FnOnce(&mut http::HttpConnectionManager), expected: &str) {
    let mut manager = plain();
    change(&mut manager);
    assert_eq!(read_http(&manager).unwrap_err(), format!("{MANAGER}.{expected}"));
}

#[test]
fn what_a_manager_cannot_say_is_refused_where_it_stands() {
    refused(
        |all| all.xff_num_trusted_hops = 1,
        "xff_num_trusted_hops: who is trusted is told by address: write `original_ip_detection_extensions`",
    );
    refused(
        |all| {
            all.upgrade_configs = vec![http::http_connection_manager::UpgradeConfig {
                upgrade_type: "CONNECT".to_owned(),
                ..Default::default()
            }];
        },
        "upgrade_configs[0].upgrade_type: `CONNECT` is not supported",
    );
    refused(
        |all| all.max_request_headers_kb = Some(1),
        "max_request_headers_kb: it is 8 or more: ordinary browsers send as much",
    );
    let order = "it stands once, and requests pass in this order: jwt_authn, rbac, ext_authz, local_ratelimit, ratelimit, fault, \
                 router";
    refused(
        |all| {
            let fault = with(&filters::fault::v3::HttpFault::default());
            all.http_filters = vec![fault, with(&filters::rbac::v3::Rbac::default()), of_http("router")];
        },
        &format!("http_filters[1].typed_config: {order}"),
    );
    refused(|all| all.http_filters = Vec::new(), "http_filters: the last one is to be the router");
    refused(
        |all| {
            let limit = filters::local_ratelimit::v3::LocalRateLimit {
                token_bucket: Some(Default::default()),
                ..Default::default()
            };
            all.http_filters = vec![with(&limit), of_http("router")];
        },
        "http_filters[0].typed_config.token_bucket: limits are a route's: write them in its `typed_per_filter_config`",
    );
    refused(
        |all| {
            let mut filter = with(&filters::ext_authz::v3::ExtAuthz::default());
            filter.disabled = true;
            all.http_filters = vec![filter, of_http("router")];
        },
        "http_filters[0].typed_config: a filter that only routes turn on is not supported",
    );
    refused(
        |all| {
            all.http_filters =
                vec![with(&filters::jwt_authn::v3::JwtAuthentication::default()), of_http("router")];
        },
        "http_filters[0].typed_config.providers: there is none",
    );
}

#[test]
fn a_listener_that_does_not_listen_is_refused() {
    let mut message = listener_of(packed(&plain()));
    message.bind_to_port = Some(false);
    let expected = "Listener[l].bind_to_port: a listener that does not listen is not supported";
    assert_eq!(read_one(&message).unwrap_err(), expected);
}

#[test]
fn bytes_go_to_several_clusters_by_weight() {
    use tcp::tcp_proxy::{ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight};
    let share = |name: &str, weight| ClusterWeight { name: name.to_owned(), weight };
    let of = |clusters| {
        let to = ClusterSpecifier::WeightedClusters(WeightedCluster { clusters });
        let proxy = tcp::TcpProxy { cluster_specifier: Some(to), ..tcp::TcpProxy::default() };
        read_one(&listener_of(packed(&proxy))).map(|read| read.chains.only().unwrap().filter.clone())
    };
    let Ok(Filter::Tcp(filter)) = of(vec![share("a", 1), share("b", 3)]) else { panic!("bytes") };
    let weights: Vec<_> = filter.to.targets.iter().map(|target| target.weight.get()).collect();
    assert_eq!(weights, [1, 3]);
    let none = of(vec![share("a", 0)]).unwrap_err();
    assert_eq!(none, format!("{MANAGER}.weighted_clusters.clusters[0].weight: it is 1 or more"));
}

/// A service that is asked, as a control plane that says only the least of it does.
#[test]
fn what_a_service_is_shown_is_what_envoy_shows() {
    use crate::model::{CheckProtocol, ExternalAuthorization, OnFailure};
    use filters::ext_authz::v3::{ExtAuthz, HttpService, ext_authz::Services};
    let asked = |services| {
        let filter = ExtAuthz { services: Some(services), ..ExtAuthz::default() };
        let manager =
            http::HttpConnectionManager { http_filters: vec![with(&filter), of_http("router")], ..plain() };
        let Filter::Http(read) = read_http(&manager).unwrap().chains.only().unwrap().filter.clone() else {
            panic!("HTTP")
        };
        *read.external_authorization.unwrap()
    };
    let target = core::grpc_service::EnvoyGrpc { cluster_name: "a".to_owned() };
    let target = Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(target));
    let grpc = asked(Services::GrpcService(core::GrpcService { target_specifier: target, timeout: None }));
    let ExternalAuthorization { show_headers, timeout, on_failure, protocol, .. } = grpc;
    assert_eq!((show_headers, timeout, on_failure), (None, ExternalAuthorization::TIMEOUT, OnFailure::Deny));
    assert!(matches!(protocol, CheckProtocol::Grpc { .. }));
    let uri = core::HttpUri {
        uri: "http://a".to_owned(),
        timeout: seconds(1),
        http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster("a".to_owned())),
    };
    let service = HttpService { server_uri: Some(uri), ..HttpService::default() };
    let by_http = asked(Services::HttpService(service));
    assert_eq!(by_http.show_headers, Some([::http::header::AUTHORIZATION].into()));
}

#[test]
fn files_and_tls_are_not_written() {
    let listener = crate::model::Listener {
        bind: Address::Ip("127.0.0.1:80".parse().unwrap()),
        direction: Direction::Inbound,
        destination: Default::default(),
        chains: Chains::from(FilterChain {
            tls: None,
            authorization: None,
            limits: Limits::default(),
            filter: Filter::Http(crate::model::HttpFilter {
                jwt: [crate::model::JwtIssuer {
                    issuer: "i".into(),
                    keys: JwksSource::File("/keys".into()),
                    audiences: ["a".into()].into(),
                    required: true,
                    algorithms: [crate::model::JwtAlgorithm::Es256].into(),
                    leeway: crate::model::JwtIssuer::LEEWAY,
                    claims_to_headers: Box::default(),
                }]
                .into(),
                external_authorization: None,
                rate_limit_service: None,
                routes: name("r"),
                trusted_proxies: Vec::new(),
                merge_slashes: true,
            }),
        }),
    };
    let resource = ListenerResource { listener, routes: [RouteSource::Rds(name("r"))].into() };
    let refused = write(&name("l"), &Resource::Listener(Box::new(resource))).unwrap_err();
    let expected = "Listener[l].filter_chains[0].jwt_authn.providers[outrigger.00000].remote_jwks: files are the \
                    reader's own: keys have an address, and the system's roots, or stand here";
    assert_eq!(refused.to_string(), expected);
}

/// What is ours is read as strictly as all else.
#[test]
fn notes_of_ours_are_looked_into() {
    let noted = |note: Any| {
        let mut message = listener_of(packed(&plain()));
        message.metadata = Some(core::Metadata {
            typed_filter_metadata: [("outrigger".to_owned(), note)].into(),
            ..core::Metadata::default()
        });
        read_one(&message).unwrap_err()
    };
    let of = |said: ext::Listener| packed(&said);
    let limits = ext::ListenerLimits { body: Some(0), ..Default::default() };
    assert_eq!(
        noted(of(ext::Listener { limits: Some(limits), ..Default::default() })),
        "Listener[l].metadata.typed_filter_metadata[outrigger].limits.body: this is out of range"
    );
    let jwt = [("p".to_owned(), ext::JwtIssuer::default())].into();
    assert_eq!(
        noted(of(ext::Listener { jwt, ..Default::default() })),
        format!("{MANAGER}.http_filters: `metadata` speaks of a filter that is not here")
    );
    let mut unknown = of(ext::Listener::default());
    // Field 99, which nobody knows.
    unknown.value = vec![0x98, 0x06, 1];
    assert_eq!(
        noted(unknown),
        "Listener[l].metadata.typed_filter_metadata[0].value.#99: a field that is not known"
    );
    let other = packed(&filters::router::v3::Router {});
    assert_eq!(
        noted(other),
        "Listener[l].metadata.typed_filter_metadata[outrigger]: \
         `envoy.extensions.filters.http.router.v3.Router` says nothing of this resource"
    );
}

fn provider(name: &str) -> jwt::JwtProvider {
    let uri = core::HttpUri {
        uri: "https://id.example/keys".to_owned(),
        timeout: seconds(5),
        http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster("id".to_owned())),
    };
    jwt::JwtProvider {
        issuer: name.to_owned(),
        audiences: vec!["shop".to_owned()],
        forward: true,
        jwks_source_specifier: Some(jwt::jwt_provider::JwksSourceSpecifier::RemoteJwks(jwt::RemoteJwks {
            http_uri: Some(uri),
        })),
        ..jwt::JwtProvider::default()
    }
}

/// Whether there must be a token of `a` and of `b`, where these are asked for, and the second is changed.
fn asked(requires: Vec<R>, change: &dyn Fn(&mut jwt::JwtProvider)) -> Result<Vec<bool>, String> {
    let mut b = provider("b");
    change(&mut b);
    let one = |requires| jwt::JwtRequirement { requires_type: Some(requires) };
    let requirements = requires.into_iter().map(one).collect();
    let all = one(R::RequiresAny(jwt::JwtRequirementOrList { requirements }));
    let prefix = route::route_match::PathSpecifier::Prefix("/".into());
    let matched = route::RouteMatch { path_specifier: Some(prefix), ..Default::default() };
    let rule = jwt::RequirementRule {
        r#match: Some(matched),
        requirement_type: Some(jwt::requirement_rule::RequirementType::Requires(all)),
    };
    let filter = jwt::JwtAuthentication {
        providers: [("a".to_owned(), provider("a")), ("b".to_owned(), b)].into(),
        rules: vec![rule],
        ..jwt::JwtAuthentication::default()
    };
    let manager =
        http::HttpConnectionManager { http_filters: vec![with(&filter), of_http("router")], ..plain() };
    read_http(&manager).map(|read| match read.chains.only().unwrap().filter.clone() {
        Filter::Http(http) => http.jwt.iter().map(|issuer| issuer.required).collect::<Vec<_>>(),
        Filter::Tcp(_) => Vec::new(),
    })
}

fn local(text: &str) -> Option<jwt::jwt_provider::JwksSourceSpecifier> {
    let specifier = Some(core::data_source::Specifier::InlineString(text.to_owned()));
    Some(jwt::jwt_provider::JwksSourceSpecifier::LocalJwks(core::DataSource { specifier }))
}

#[test]
fn tokens_are_asked_for_of_all_paths_and_all_who_sign() {
    let named = |name: &str| R::ProviderName(name.to_owned());
    let as_it_is = |_: &mut jwt::JwtProvider| {};
    assert_eq!(asked(vec![named("a"), named("b")], &as_it_is), Ok(vec![true, true]));
    assert_eq!(asked(vec![named("b"), named("a"), R::AllowMissing(())], &as_it_is), Ok(vec![false, false]));
    let at = format!("{MANAGER}.http_filters[0].typed_config");
    let both = [named("a"), named("b")];
    // Of a set that somebody else publishes what is usable counts.
    let weak = r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#;
    let good = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, "A".repeat(43));
    let of = |keys: String| move |b: &mut jwt::JwtProvider| b.jwks_source_specifier = local(&keys);
    let mixed = of(format!(r#"{{"keys":[{weak},{good}]}}"#));
    assert_eq!(asked(both.to_vec(), &mixed), Ok(vec![true, true]));
    let none = asked(both.to_vec(), &of(format!(r#"{{"keys":[{weak}]}}"#))).unwrap_err();
    assert!(none.ends_with("keys[0] cannot be used: RSA keys have 2048 to 8192 bits"), "{none}");
    for (requires, change, expected) in [
        (
            vec![named("a")],
            &as_it_is as &dyn Fn(&mut jwt::JwtProvider),
            "rules[0].requires: all providers are good, or none: name each",
        ),
        (
            both.to_vec(),
            &|b| b.audiences.clear(),
            "providers[b].audiences: there is to be one: a token for another service is not for this one",
        ),
        (both.to_vec(), &|b| b.forward = false, "providers[b].forward: a token is passed on: write true"),
        (
            both.to_vec(),
            &|b| b.jwks_source_specifier = None,
            "providers[b].jwks_source_specifier: this is missing",
        ),
        (
            both.to_vec(),
            &|b| b.jwks_source_specifier = local("{\"keys\":[]}"),
            "providers[b].local_jwks: these keys cannot be used: it holds no key that signatures could be checked with",
        ),
        (
            both.to_vec(),
            &|b| b.jwks_source_specifier = local(&" ".repeat((256 << 10) + 1)),
            "providers[b].local_jwks: these keys cannot be used: it is longer than 262144 bytes",
        ),
        (
            both.to_vec(),
            &|b| {
                let specifier = core::data_source::Specifier::InlineBytes(b"{\xff}".to_vec());
                let source = core::DataSource { specifier: Some(specifier) };
                b.jwks_source_specifier = Some(jwt::jwt_provider::JwksSourceSpecifier::LocalJwks(source));
            },
            "providers[b].local_jwks: these keys cannot be used: it is no set of keys (RFC 7517): expected a JSON object \
             with `keys`",
        ),
        (both.to_vec(), &|b| b.issuer = "a".to_owned(), "providers[b].issuer: another provider has the same"),
    ] {
        assert_eq!(asked(requires, change).unwrap_err(), format!("{at}.{expected}"));
    }
}
