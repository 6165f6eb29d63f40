//! Rules of authorization.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use http::{HeaderName, Method};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::tls::peer;
use super::{network, text, text_name};
use crate::model::*;

fn host() -> impl Strategy<Value = HostPattern> {
    select(vec![
        HostPattern::Exact("a.example".into()),
        HostPattern::Exact("[::1]".into()),
        HostPattern::Suffix(".b.example".into()),
    ])
}

fn path() -> impl Strategy<Value = PathPattern> {
    let text = || "(/[a-z0-9]{1,3}){1,3}";
    prop_oneof![
        text().prop_map(|path| PathPattern::Exact(path.into())),
        Just(PathPattern::Below("/".into())),
        text().prop_map(|path| PathPattern::Below(format!("{path}/").into())),
        text().prop_map(|path| PathPattern::Prefix(path.into())),
        Just(PathPattern::Prefix("".into())),
        Just(PathPattern::Regex(Pattern::new("^/v[0-9]+$").unwrap())),
    ]
}

fn headers() -> impl Strategy<Value = Vec<HeaderRule>> {
    let value = prop_oneof![
        Just(StringMatch::Present),
        Just(StringMatch::Absent),
        text().prop_map(|text| StringMatch::Exact(text.into())),
        "[a-z]{1,3}".prop_map(|text| StringMatch::Prefix(text.into())),
    ];
    let fields = btree_map("x-[a-z]{1,3}", value, 0..3);
    fields.prop_map(|fields| {
        let field =
            |(name, value): (String, _)| HeaderRule { name: HeaderName::try_from(name).unwrap(), value };
        fields.into_iter().map(field).collect()
    })
}

fn claims() -> impl Strategy<Value = Vec<ClaimRule>> {
    let values = vec(text().prop_map(Into::into), 1..3);
    btree_map(text_name(), values, 0..3).prop_map(|claims| {
        let claim =
            |(name, values): (String, Vec<Box<str>>)| ClaimRule { name: name.into(), values: values.into() };
        claims.into_iter().map(claim).collect()
    })
}

fn methods() -> impl Strategy<Value = Vec<Method>> {
    proptest::sample::subsequence(vec![Method::GET, Method::POST, Method::from_bytes(b"X-A").unwrap()], 0..=3)
}

fn when(around: (bool, bool, bool, bool)) -> impl Strategy<Value = When> {
    let conn = (vec(peer(), 0..3), vec(network(), 0..3), vec(host(), 0..2), vec(1..=u16::MAX, 0..3));
    let request = (methods(), vec(host(), 0..2), vec(path(), 0..3), headers(), claims());
    (conn, request).prop_map(
        move |((peers, source, sni, ports), (methods, hosts, paths, headers, claims))| {
            let (http, said, identified, tls) = around;
            let sni = sni.into_iter().take(1).filter(|_| tls).collect();
            let all = When {
                peers: if identified { peers.into() } else { Box::default() },
                source: source.into(),
                sni,
                ports: ports.into(),
                ..When::default()
            };
            if !http {
                return all;
            }
            let hosts = hosts.into_iter().take(1).collect();
            let claims = if said { claims.into() } else { Box::default() };
            let (paths, headers) = (paths.into(), headers.into());
            When { methods: methods.into(), hosts, paths, headers, claims, ..all }
        },
    )
}

/// For a listener of HTTP or not, that looks at tokens or not, whose clients prove who they are or not, with TLS or not.
pub(super) fn authorization(around: (bool, bool, bool, bool)) -> impl Strategy<Value = Authorization> {
    let name = option::of("[a-z]{1,5}".prop_map(Into::into));
    let effect = select(vec![Effect::Allow, Effect::Deny, Effect::Audit]);
    let rule = (name, effect, any::<bool>(), when(around)).prop_map(|(name, effect, dry_run, when)| Rule {
        name,
        effect,
        dry_run: dry_run && effect != Effect::Audit,
        when,
    });
    vec(rule, 1..4).prop_map(|rules| Authorization { rules: rules.into() })
}

/// Where a listener looks at no tokens, its routes need none; where it asks no service by gRPC, they tell it nothing; where
/// it has none that counts, they say who does.
pub(super) fn unlooked(mesh: &mut Mesh) {
    for chain in mesh.listeners.values().flat_map(|listener| listener.chains.each()) {
        let Filter::Http(http) = &chain.filter else { continue };
        let Some(RouteTable { routes, on_demand: _ }) = mesh.route_tables.get_mut(&http.routes) else {
            continue;
        };
        let looks = !http.jwt.is_empty();
        let counts = http.rate_limit_service.is_some();
        let asks = http.external_authorization.as_deref().is_some_and(by_grpc);
        let less = |route: &Route| Route {
            jwt: route.jwt.filter(|wanted| looks || *wanted != JwtUse::Required),
            global_rate_limit: route
                .global_rate_limit
                .clone()
                .filter(|limit| counts || limit.service.is_some()),
            external_authorization: route
                .external_authorization
                .clone()
                .filter(|said| asks || **said == CheckUse::None),
            ..route.clone()
        };
        *routes = routes.iter().map(less).collect();
    }
}

/// Issuers of tokens, each once.
pub(super) fn jwt() -> impl Strategy<Value = Vec<JwtIssuer>> {
    let file = "[a-z0-9 .$/]{1,9}[a-z]".prop_filter("no address", |path| !path.contains("://"));
    let url = select(vec!["https://a/b", "https://a.b:1/c?d=e", "http://127.0.0.1:1/a", "http://localhost/"]);
    let trust = option::of("[a-z]{1,5}".prop_map(Into::into));
    let inline = select(vec!["", " \n", "  # $x"]).prop_map(|more| {
        let x = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let text = format!(
            "{{\"keys\": [{{\"kty\":\"OKP\",\"kid\":\"{more}\",\"crv\":\"Ed25519\",\"x\":\"{x}\"}}]}}"
        );
        JwksSource::Inline(InlineKeys::new(text.replace('\n', "\\n")).unwrap())
    });
    let keys = prop_oneof![
        inline,
        file.prop_map(|path| JwksSource::File(path.into())),
        (url, trust).prop_map(|(url, trust)| JwksSource::Url { url: url.into(), trust }),
    ];
    let some = || text().prop_filter("something", |text| !text.is_empty()).prop_map(Box::<str>::from);
    let algorithms = proptest::sample::subsequence(JwtAlgorithm::ALL.map(|(_, one)| one).to_vec(), 1..=9);
    let claims = btree_map("x-[a-z]{1,3}", text_name(), 0..3);
    let rest = (vec(some(), 1..3), any::<bool>(), algorithms, super::time(), claims);
    let issuer = (keys, rest).prop_map(|(keys, (audiences, required, algorithms, leeway, claims))| {
        let header = |(name, claim): (String, String)| (claim.into(), HeaderName::try_from(name).unwrap());
        let mut claims_to_headers: Vec<(Box<str>, HeaderName)> = claims.into_iter().map(header).collect();
        claims_to_headers.sort_by(|a, b| a.0.cmp(&b.0));
        claims_to_headers.dedup_by(|a, b| a.0 == b.0);
        JwtIssuer {
            issuer: "".into(),
            keys,
            audiences: audiences.into(),
            required,
            algorithms: algorithms.into(),
            leeway,
            claims_to_headers: claims_to_headers.into(),
        }
    });
    btree_map(some(), issuer, 0..3).prop_map(|issuers| {
        let named = |(name, issuer): (Box<str>, JwtIssuer)| JwtIssuer { issuer: name, ..issuer };
        issuers.into_iter().map(named).collect()
    })
}

fn by_grpc(asked: &ExternalAuthorization) -> bool {
    matches!(asked.protocol, CheckProtocol::Grpc { .. })
}

/// A service that is asked by gRPC is asked in HTTP/2.
pub(super) fn point(
    asked: &mut Option<Box<ExternalAuthorization>>,
    (names, services): (&[Destination], &[Name]),
    picks: &[Index],
) {
    let Some(some) = asked else { return };
    let clusters: Vec<&Name> =
        if by_grpc(some) { services.iter().collect() } else { names.iter().map(|to| &to.cluster).collect() };
    match clusters.len() {
        0 => *asked = None,
        some_clusters => some.cluster = clusters[picks[3].index(some_clusters)].clone(),
    }
}

fn context() -> impl Strategy<Value = BTreeMap<Box<str>, Box<str>>> {
    btree_map(text_name().prop_map(Box::from), text().prop_map(Box::from), 0..3)
}

pub(super) fn check_use() -> impl Strategy<Value = CheckUse> {
    prop_oneof![Just(CheckUse::None), context().prop_map(CheckUse::Context)]
}

/// A service that is asked; which, is set later.
pub(super) fn external() -> impl Strategy<Value = ExternalAuthorization> {
    let names = || {
        proptest::sample::subsequence(vec!["x-user", "1", "on", "$x", "cookie"], 0..=5)
            .prop_map(|names| names.into_iter().map(HeaderName::from_static).collect::<Box<[_]>>())
    };
    let prefix = select(vec!["", "/a", "/a/b$", "/%3C"]).prop_map(Box::from);
    let protocol = prop_oneof![
        context().prop_map(|context| CheckProtocol::Grpc { context }),
        (prefix, names()).prop_map(|(path_prefix, response_headers)| CheckProtocol::Http {
            path_prefix,
            response_headers
        }),
    ];
    let body = (1..=CheckBody::MOST, any::<bool>())
        .prop_map(|(max, partial)| CheckBody { max: NonZeroU32::new(max).unwrap(), partial });
    let rest = (option::of(body), super::time(), select(vec![OnFailure::Allow, OnFailure::Deny]));
    (protocol, option::of(names()), names(), rest).prop_map(
        |(protocol, show_headers, set_headers, (body, timeout, on_failure))| ExternalAuthorization {
            cluster: Name::new("set-later").unwrap(),
            protocol,
            show_headers,
            set_headers,
            body,
            timeout,
            on_failure,
        },
    )
}
