//! Tokens: who signs them, and where there must be one.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;

use super::super::super::any::OURS;
use super::super::super::filters::jwt::{OPTIONAL, REQUIRED};
use super::super::super::generated::envoy::config::core::v3 as core;
use super::super::super::generated::envoy::config::route::v3 as route;
use super::super::super::generated::envoy::extensions::filters::http::jwt_authn::v3 as pb;
use super::super::super::generated::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::JwksSourceSpecifier as Jwks;
use super::super::super::generated::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use super::super::super::generated::outrigger::extensions::v1 as ext;
use super::super::Cx;
use super::super::listener::time;
use crate::model::{JwksSource, JwtAlgorithm, JwtIssuer, JwtUse};

/// For an answer with keys, of Envoy's: ours has a time of its own.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn filter(
    cx: &mut Cx,
    issuers: &[JwtIssuer],
    said: &mut BTreeMap<String, ext::JwtIssuer>,
) -> Option<pb::JwtAuthentication> {
    let required = issuers.iter().any(|issuer| issuer.required);
    let names: Vec<_> = (0..issuers.len()).map(|place| format!("{OURS}.{place:05}")).collect();
    let mut providers = BTreeMap::new();
    for (name, issuer) in names.iter().zip(issuers) {
        let provider = cx.within(format_args!("jwt_authn.providers[{name}]"), |cx| provider(cx, issuer))?;
        providers.insert(name.clone(), provider);
        let more = unsaid(issuer, required);
        if more != ext::JwtIssuer::default() {
            said.insert(name.clone(), more);
        }
    }
    let path_specifier = Some(route::route_match::PathSpecifier::Prefix("/".to_owned()));
    let requires = pb::requirement_rule::RequirementType::Requires(requirement(&names, required));
    let rule = pb::RequirementRule {
        r#match: Some(route::RouteMatch { path_specifier, ..route::RouteMatch::default() }),
        requirement_type: Some(requires),
    };
    let requirement_map = [(REQUIRED, true), (OPTIONAL, false)]
        .map(|(name, must)| (name.to_owned(), requirement(&names, must)));
    Some(pb::JwtAuthentication {
        providers,
        rules: vec![rule],
        requirement_map: requirement_map.into_iter().collect(),
    })
}

/// A token of any of those who sign them, or none where that is allowed.
fn requirement(names: &[String], required: bool) -> pb::JwtRequirement {
    let of = |requires| pb::JwtRequirement { requires_type: Some(requires) };
    let named = names.iter().map(|name| of(RequiresType::ProviderName(name.clone())));
    let missing = (!required).then(|| of(RequiresType::AllowMissing(())));
    let mut all: Vec<_> = named.chain(missing).collect();
    match (all.pop(), all.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            all.extend(last);
            of(RequiresType::RequiresAny(pb::JwtRequirementOrList { requirements: all }))
        }
    }
}

fn provider(cx: &mut Cx, issuer: &JwtIssuer) -> Option<pb::JwtProvider> {
    let JwtIssuer { issuer, keys, audiences, required: _, algorithms: _, leeway, claims_to_headers } = issuer;
    let keys = match keys {
        JwksSource::Inline(keys) => {
            let text = core::data_source::Specifier::InlineString(keys.text().to_owned());
            Jwks::LocalJwks(core::DataSource { specifier: Some(text) })
        }
        JwksSource::Url { url, trust: None } => Jwks::RemoteJwks(remote(url)),
        JwksSource::Url { url: _, trust: Some(_) } | JwksSource::File(_) => {
            return cx.fail(
                "remote_jwks",
                "files are the reader's own: keys have an address, and the system's roots, or stand here",
            );
        }
    };
    let plain = |(claim, _): &&(Box<str>, HeaderName)| !claim.contains('.');
    let claim = |(claim, header): &(Box<str>, HeaderName)| pb::JwtClaimToHeader {
        header_name: header.to_string(),
        claim_name: claim.to_string(),
    };
    Some(pb::JwtProvider {
        issuer: issuer.to_string(),
        audiences: audiences.iter().map(ToString::to_string).collect(),
        forward: true,
        from_headers: vec![pb::JwtHeader {
            name: "Authorization".to_owned(),
            value_prefix: "Bearer ".to_owned(),
        }],
        payload_in_metadata: OURS.to_owned(),
        clock_skew_seconds: u32::try_from(leeway.as_secs().max(1)).unwrap_or(u32::MAX),
        claim_to_headers: claims_to_headers.iter().filter(plain).map(claim).collect(),
        require_expiration: true,
        jwks_source_specifier: Some(keys),
    })
}

fn remote(url: &str) -> pb::RemoteJwks {
    let uri = url.parse::<http::Uri>().ok();
    // Whoever asks by a cluster finds it under the address that is asked.
    let cluster = uri.as_ref().and_then(|uri| uri.authority()).map_or(OURS.to_owned(), ToString::to_string);
    let http_uri = core::HttpUri {
        uri: url.to_owned(),
        timeout: time(TIMEOUT),
        http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(cluster)),
    };
    pb::RemoteJwks { http_uri: Some(http_uri) }
}

fn unsaid(issuer: &JwtIssuer, required: bool) -> ext::JwtIssuer {
    let JwtIssuer {
        issuer: _,
        keys: _,
        audiences: _,
        required: of_this,
        algorithms,
        leeway,
        claims_to_headers,
    } = issuer;
    let all = JwtAlgorithm::ALL.map(|(_, algorithm)| algorithm);
    let names: Vec<_> = algorithms.iter().map(|algorithm| algorithm.name().to_owned()).collect();
    let is_whole = leeway.subsec_nanos() == 0 && (1..=u32::MAX.into()).contains(&leeway.as_secs());
    let nested = claims_to_headers.iter().any(|(claim, _)| claim.contains('.'));
    let claim = |(claim, header): &(Box<str>, HeaderName)| ext::ClaimToHeader {
        claim: claim.to_string(),
        header: header.to_string(),
    };
    ext::JwtIssuer {
        algorithms: if **algorithms == all { Vec::new() } else { names },
        leeway: if is_whole { None } else { time(*leeway) },
        required: (*of_this != required).then_some(*of_this),
        claims: if nested { claims_to_headers.iter().map(claim).collect() } else { Vec::new() },
    }
}

pub(super) fn of_route(wanted: JwtUse) -> pb::PerRouteConfig {
    use pb::per_route_config::RequirementSpecifier as R;
    let specifier = match wanted {
        JwtUse::Required => R::RequirementName(REQUIRED.to_owned()),
        JwtUse::Optional => R::RequirementName(OPTIONAL.to_owned()),
        JwtUse::None => R::Disabled(true),
    };
    pb::PerRouteConfig { requirement_specifier: Some(specifier) }
}
