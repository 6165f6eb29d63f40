//! Tokens: who signs them, and where there must be one.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;

use super::super::cx::Cx;
use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::config::route::v3 as route;
use super::super::generated::envoy::extensions::filters::http::jwt_authn::v3 as pb;
use super::super::generated::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::JwksSourceSpecifier as Jwks;
use super::super::generated::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use super::super::generated::outrigger::extensions::v1 as ext;
use crate::model::{InlineKeys, JwksSource, JwtAlgorithm, JwtIssuer, JwtUse, KeySetError};
use crate::yaml::{is_private, of_one_hop};

/// By which routes ask for a token.
pub(in crate::xds) const REQUIRED: &str = "outrigger.required";
/// By which routes take requests without one.
pub(in crate::xds) const OPTIONAL: &str = "outrigger.optional";

/// Where nothing is said of clocks: Envoy's.
const SKEW: u32 = 60;

pub(super) fn filter(
    cx: &mut Cx,
    filter: pb::JwtAuthentication,
    mut said: BTreeMap<String, ext::JwtIssuer>,
) -> Option<Box<[JwtIssuer]>> {
    let pb::JwtAuthentication { providers, rules, requirement_map } = filter;
    let mut providers: Vec<_> = providers.into_iter().collect();
    providers.sort_by(|a, b| a.0.cmp(&b.0));
    let names: Vec<_> = providers.iter().map(|(name, _)| name.clone()).collect();
    if names.is_empty() {
        return cx.fail("providers", "there is none");
    }
    let required = rule(cx, rules, &names)?;
    for (name, requirement) in requirement_map {
        cx.within(format_args!("requirement_map[{name}]"), |cx| {
            let must = match name.as_str() {
                REQUIRED => true,
                OPTIONAL => false,
                _ => return cx.fail("", format!("routes can ask for `{REQUIRED}` and `{OPTIONAL}` alone")),
            };
            match self::required(cx, requirement, &names)? {
                read if read == must => Some(()),
                _ => cx.fail("", "this is not what its name says"),
            }
        })?;
    }
    let mut issuers: Vec<JwtIssuer> = Vec::new();
    for (name, provider) in providers {
        let more = said.remove(&name).unwrap_or_default();
        let issuer = cx.within(format_args!("providers[{name}]"), |cx| {
            let issuer = issuer(cx, provider, more, required)?;
            if issuers.iter().any(|other| other.issuer == issuer.issuer) {
                return cx.fail("issuer", "another provider has the same");
            }
            Some(issuer)
        })?;
        issuers.push(issuer);
    }
    if !said.is_empty() {
        return cx.fail("providers", "`metadata` speaks of one that is not here");
    }
    if required != issuers.iter().any(|issuer| issuer.required) {
        return cx.fail("rules", "`metadata` says another thing of whether there must be a token");
    }
    Some(issuers.into())
}

/// Whether there must be a token, for all paths alike.
fn rule(cx: &mut Cx, rules: Vec<pb::RequirementRule>, names: &[String]) -> Option<bool> {
    let [rule]: [pb::RequirementRule; 1] = match rules.try_into() {
        Ok(rules) => rules,
        Err(_) => return cx.fail("rules", "exactly one is supported, for all paths"),
    };
    cx.within("rules[0]", |cx| {
        let pb::RequirementRule { r#match: matched, requirement_type } = rule;
        let path_specifier = Some(route::route_match::PathSpecifier::Prefix("/".to_owned()));
        let all = route::RouteMatch { path_specifier, ..route::RouteMatch::default() };
        if matched != Some(all) {
            return cx
                .fail("match", "all paths are asked alike: write `prefix: /`; routes may ask otherwise");
        }
        let pb::requirement_rule::RequirementType::Requires(requires) =
            cx.required("requires", requirement_type)?;
        cx.within("requires", |cx| required(cx, requires, names))
    })
}

/// Whether there must be a token, of any of those who sign them.
fn required(cx: &mut Cx, requirement: pb::JwtRequirement, names: &[String]) -> Option<bool> {
    let parts = match cx.required("requires_type", requirement.requires_type)? {
        RequiresType::RequiresAny(pb::JwtRequirementOrList { requirements }) => {
            requirements.into_iter().map(|part| part.requires_type).collect()
        }
        one => vec![Some(one)],
    };
    let mut missing = false;
    let mut named = Vec::new();
    for part in parts {
        match part {
            Some(RequiresType::AllowMissing(())) => missing = true,
            Some(RequiresType::ProviderName(name)) => named.push(name),
            Some(RequiresType::RequiresAny(_)) | None => {
                return cx.fail("requires_any", "only names of providers and `allow_missing` are supported");
            }
        }
    }
    named.sort();
    if named != names {
        return cx.fail("", "all providers are good, or none: name each");
    }
    Some(!missing)
}

fn issuer(cx: &mut Cx, provider: pb::JwtProvider, said: ext::JwtIssuer, required: bool) -> Option<JwtIssuer> {
    let pb::JwtProvider {
        issuer,
        audiences,
        forward,
        from_headers,
        // Rules find claims under one name of ours.
        payload_in_metadata: _,
        clock_skew_seconds,
        claim_to_headers,
        // It is, here.
        require_expiration: _,
        jwks_source_specifier,
    } = provider;
    let ext::JwtIssuer { algorithms, leeway, required: of_this, claims } = said;
    if issuer.is_empty() {
        return cx.fail("issuer", "this is empty");
    }
    if audiences.is_empty() || audiences.iter().any(String::is_empty) {
        return cx.fail("audiences", "there is to be one: a token for another service is not for this one");
    }
    if !forward {
        return cx.fail("forward", "a token is passed on: write true");
    }
    let keys = match cx.required("jwks_source_specifier", jwks_source_specifier)? {
        Jwks::RemoteJwks(remote) => cx.within("remote_jwks", |cx| keys(cx, remote)),
        Jwks::LocalJwks(local) => inline(cx, local),
    };
    cx.each("from_headers", from_headers, |cx, header| {
        let pb::JwtHeader { name, value_prefix } = header;
        let is_bearer = name.eq_ignore_ascii_case("authorization") && value_prefix == "Bearer ";
        if is_bearer { Some(()) } else { cx.fail("", "a token stands in `authorization: Bearer ...`") }
    })?;
    let skew = if clock_skew_seconds == 0 { SKEW } else { clock_skew_seconds };
    let leeway = match leeway {
        None => Some(Duration::from_secs(skew.into())),
        Some(leeway) => Duration::try_from(leeway)
            .ok()
            .or_else(|| cx.fail("leeway", "this is not a time that could pass")),
    };
    let named = |cx: &mut Cx, name: String| {
        JwtAlgorithm::named(&name).or_else(|| cx.fail("", format!("`{name}` is not supported")))
    };
    let algorithms = match algorithms.is_empty() {
        true => Some(JwtAlgorithm::ALL.map(|(_, algorithm)| algorithm).to_vec()),
        false => cx.each("algorithms", algorithms, named),
    };
    Some(JwtIssuer {
        issuer: issuer.into(),
        keys: keys?,
        audiences: audiences.into_iter().map(Into::into).collect(),
        required: of_this.unwrap_or(required),
        algorithms: algorithms?.into(),
        leeway: leeway?,
        claims_to_headers: passed_on(cx, claim_to_headers, claims)?,
    })
}

fn keys(cx: &mut Cx, remote: pb::RemoteJwks) -> Option<JwksSource> {
    let pb::RemoteJwks { http_uri } = remote;
    let core::HttpUri { uri, timeout: _, http_upstream_type: _ } = cx.required("http_uri", http_uri)?;
    match uri.parse().ok().as_ref().and_then(is_private) {
        Some(true) => Some(JwksSource::Url { url: uri.into(), trust: None }),
        Some(false) => cx.fail("http_uri.uri", "keys that come in the clear could be anybody's"),
        None => cx.fail("http_uri.uri", format!("`{uri}` is no address of keys")),
    }
}

fn inline(cx: &mut Cx, local: core::DataSource) -> Option<JwksSource> {
    use core::data_source::Specifier;
    let core::DataSource { specifier } = local;
    let text = match cx.required("local_jwks", specifier)? {
        Specifier::InlineString(text) => Some(text),
        // JSON is text in UTF-8 (RFC 8259 section 8.1).
        Specifier::InlineBytes(bytes) => String::from_utf8(bytes).ok(),
    };
    // A control plane passes on what an issuer publishes: one key that is not for us may not cost a listener.
    match text.ok_or(KeySetError::NotASet).and_then(InlineKeys::published) {
        Ok(keys) => Some(JwksSource::Inline(keys)),
        Err(error) => cx.fail("local_jwks", format!("these keys cannot be used: {error}")),
    }
}

/// Claims, and the fields that they are passed on as.
type PassedOn = Box<[(Box<str>, HeaderName)]>;

fn passed_on(
    cx: &mut Cx,
    claims: Vec<pb::JwtClaimToHeader>,
    ours: Vec<ext::ClaimToHeader>,
) -> Option<PassedOn> {
    let claims: Vec<_> = claims
        .into_iter()
        .map(|pb::JwtClaimToHeader { header_name, claim_name }| (claim_name, header_name))
        .collect();
    if claims.iter().any(|(claim, _)| claim.contains('.')) {
        return cx.fail("claim_to_headers", "a claim within another is not supported");
    }
    let all: Vec<_> = ours.into_iter().map(|ext::ClaimToHeader { claim, header }| (claim, header)).collect();
    let plain = all.iter().filter(|(claim, _)| !claim.contains('.'));
    if !all.is_empty() && !plain.eq(&claims) {
        return cx.fail("claim_to_headers", "`metadata` names others");
    }
    let mut seen: Vec<(Box<str>, HeaderName)> = Vec::new();
    cx.each("claim_to_headers", if all.is_empty() { claims } else { all }, |cx, (claim, header)| {
        let name =
            field(&header).or_else(|| cx.fail("header_name", format!("`{header}` is not supported")))?;
        if seen.iter().any(|(other, known)| **other == *claim || *known == name) {
            return cx.fail("", "a claim or a field is written twice");
        }
        seen.push((claim.into(), name));
        Some(())
    })?;
    Some(seen.into())
}

/// One that means nothing of its own to whoever gets the request.
fn field(name: &str) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    let means = of_one_hop(&name) || matches!(name.as_str(), "authorization" | "content-length");
    (!means).then_some(name)
}

pub(super) fn of_route(cx: &mut Cx, said: pb::PerRouteConfig) -> Option<JwtUse> {
    use pb::per_route_config::RequirementSpecifier as R;
    match cx.required("requirement_specifier", said.requirement_specifier)? {
        R::Disabled(true) => Some(JwtUse::None),
        R::Disabled(false) => cx.fail("disabled", "it can only be true"),
        R::RequirementName(name) => match name.as_str() {
            REQUIRED => Some(JwtUse::Required),
            OPTIONAL => Some(JwtUse::Optional),
            _ => cx.fail("requirement_name", format!("write `{REQUIRED}` or `{OPTIONAL}`")),
        },
    }
}
