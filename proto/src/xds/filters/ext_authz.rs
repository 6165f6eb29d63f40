//! A service that is asked whether requests are let in.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use http::HeaderName;

use super::super::cx::Cx;
use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use super::super::generated::envoy::extensions::filters::http::ext_authz::v3 as pb;
use super::super::generated::envoy::r#type::matcher::v3 as matcher;
use super::super::generated::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use super::super::generated::outrigger::extensions::v1 as ext;
use super::text;
use crate::model::{CheckBody, CheckProtocol, CheckUse, ExternalAuthorization, Name, OnFailure};
use crate::yaml::{canonical_path, of_one_hop};

/// Every name.
pub(in crate::xds) const ALL: &str = ".*";

pub(super) fn filter(
    cx: &mut Cx,
    filter: pb::ExtAuthz,
    said: Option<ext::ExternalAuthorization>,
) -> Option<ExternalAuthorization> {
    use pb::ext_authz::Services;
    let pb::ExtAuthz {
        services,
        failure_mode_allow,
        with_request_body,
        transport_api_version,
        allowed_headers,
        disallowed_headers,
    } = filter;
    if transport_api_version == i32::from(core::ApiVersion::V2) {
        return cx.fail("transport_api_version", "V3 alone is spoken");
    }
    let by_http = matches!(services, Some(Services::HttpService(_)));
    let show_headers = shown(cx, (allowed_headers, disallowed_headers), by_http);
    let body = with_request_body.map_or(Some(None), |body| self::body(cx, body).map(Some));
    let (cluster, timeout, protocol, set_headers) = match cx.required("services", services)? {
        Services::GrpcService(service) => cx.within("grpc_service", |cx| grpc(cx, service, said)),
        Services::HttpService(_) if said.is_some() => {
            cx.fail("http_service", "`metadata` speaks of a service that is asked by gRPC")
        }
        Services::HttpService(service) => cx.within("http_service", |cx| http_service(cx, service)),
    }?;
    let on_failure = if failure_mode_allow { OnFailure::Allow } else { OnFailure::Deny };
    Some(ExternalAuthorization {
        cluster,
        protocol,
        show_headers: show_headers?,
        set_headers,
        body: body?,
        timeout,
        on_failure,
    })
}

type Service = (Name, Duration, CheckProtocol, Box<[HeaderName]>);

fn grpc(
    cx: &mut Cx,
    service: core::GrpcService,
    said: Option<ext::ExternalAuthorization>,
) -> Option<Service> {
    let core::GrpcService { target_specifier, timeout } = service;
    let TargetSpecifier::EnvoyGrpc(EnvoyGrpc { cluster_name }) =
        cx.required("envoy_grpc", target_specifier)?;
    let cluster = Name::new(&cluster_name)
        .or_else(|| cx.fail("envoy_grpc.cluster_name", "this is not the name of a cluster"))?;
    let timeout = match timeout {
        None => ExternalAuthorization::TIMEOUT,
        written => cx.time("timeout", written)?.or_else(|| cx.fail("timeout", "there must be one"))?,
    };
    let ext::ExternalAuthorization { context: told, set_headers } = said.unwrap_or_default();
    let set = cx.each("set_headers", set_headers, |cx, name| header(cx, &name))?;
    Some((cluster, timeout, CheckProtocol::Grpc { context: context(told) }, set.into()))
}

fn http_service(cx: &mut Cx, service: pb::HttpService) -> Option<Service> {
    use core::http_uri::HttpUpstreamType;
    let pb::HttpService { server_uri, path_prefix, authorization_response } = service;
    // Its address says nothing that its cluster does not.
    let core::HttpUri { uri: _, timeout, http_upstream_type } = cx.required("server_uri", server_uri)?;
    let HttpUpstreamType::Cluster(cluster) = cx.required("server_uri.cluster", http_upstream_type)?;
    let cluster =
        Name::new(&cluster).or_else(|| cx.fail("server_uri.cluster", "this is not the name of a cluster"))?;
    let timeout = cx.time("server_uri.timeout", timeout)?;
    let timeout = cx.required("server_uri.timeout", timeout)?;
    if !path_prefix.is_empty() {
        if let Err(why) = canonical_path(&path_prefix) {
            return cx.fail("path_prefix", why);
        }
        if path_prefix.ends_with('/') {
            return cx.fail("path_prefix", "the request's path follows, and begins with a `/`");
        }
    }
    let pb::AuthorizationResponse { allowed_upstream_headers, allowed_client_headers_on_success } =
        authorization_response.unwrap_or_default();
    let (set, answered) = cx.within("authorization_response", |cx| {
        let set = names(cx, "allowed_upstream_headers", allowed_upstream_headers);
        let answered = names(cx, "allowed_client_headers_on_success", allowed_client_headers_on_success);
        set.zip(answered)
    })?;
    let protocol = CheckProtocol::Http { path_prefix: path_prefix.into(), response_headers: answered.into() };
    Some((cluster, timeout, protocol, set.into()))
}

/// By HTTP Envoy shows no field that is not asked for but `authorization`, which it always does; by gRPC it shows all.
fn shown(
    cx: &mut Cx,
    (allowed, disallowed): (Option<matcher::ListStringMatcher>, Option<matcher::ListStringMatcher>),
    by_http: bool,
) -> Option<Option<Box<[HeaderName]>>> {
    let is_all = |list: &Option<matcher::ListStringMatcher>| *list == Some(all());
    if is_all(&disallowed) {
        return match allowed {
            None => Some(Some(Box::default())),
            Some(_) => cx.fail("disallowed_headers", "beside these no field is left"),
        };
    }
    let except = names(cx, "disallowed_headers", disallowed)?;
    let hides = match except.as_slice() {
        [] => false,
        [one] if by_http && *one == http::header::AUTHORIZATION => true,
        _ => return cx.fail("disallowed_headers", "write `allowed_headers`"),
    };
    if allowed.is_none() && !by_http {
        return Some(None);
    }
    if is_all(&allowed) {
        return if hides { cx.fail("disallowed_headers", "write `allowed_headers`") } else { Some(None) };
    }
    let mut names = names(cx, "allowed_headers", allowed)?;
    let asked = names.contains(&http::header::AUTHORIZATION);
    if hides && asked {
        return cx.fail("disallowed_headers", "this is said to be shown too");
    }
    if by_http && !hides && !asked {
        names.push(http::header::AUTHORIZATION);
    }
    Some(Some(names.into()))
}

/// A list that every name is in.
pub(in crate::xds) fn all() -> matcher::ListStringMatcher {
    let pattern = MatchPattern::SafeRegex(matcher::RegexMatcher { regex: ALL.to_owned() });
    let pattern = matcher::StringMatcher { match_pattern: Some(pattern), ignore_case: false };
    matcher::ListStringMatcher { patterns: vec![pattern] }
}

fn names(cx: &mut Cx, field: &str, list: Option<matcher::ListStringMatcher>) -> Option<Vec<HeaderName>> {
    let matcher::ListStringMatcher { patterns } = list.unwrap_or_default();
    cx.within(field, |cx| {
        cx.each("patterns", patterns, |cx, pattern| match text::matcher(cx, pattern)? {
            // Names have no case.
            (MatchPattern::Exact(name), _) => header(cx, &name),
            _ => cx.fail("", "names are matched by `exact`"),
        })
    })
}

fn header(cx: &mut Cx, name: &str) -> Option<HeaderName> {
    let fits = |name: &HeaderName| !of_one_hop(name) && *name != http::header::CONTENT_LENGTH;
    let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(fits);
    name.or_else(|| cx.fail("", "this is not the name of a field that could be shown or set"))
}

fn body(cx: &mut Cx, body: pb::BufferSettings) -> Option<CheckBody> {
    let pb::BufferSettings { max_request_bytes, allow_partial_message } = body;
    let max = NonZeroU32::new(max_request_bytes).filter(|max| max.get() <= CheckBody::MOST);
    let max = max.or_else(|| {
        cx.fail("with_request_body.max_request_bytes", format!("it is between 1 and {}", CheckBody::MOST))
    })?;
    Some(CheckBody { max, partial: allow_partial_message })
}

fn context(texts: BTreeMap<String, String>) -> std::collections::BTreeMap<Box<str>, Box<str>> {
    texts.into_iter().map(|(name, text)| (name.into(), text.into())).collect()
}

pub(super) fn of_route(cx: &mut Cx, said: pb::ExtAuthzPerRoute) -> Option<Option<CheckUse>> {
    use pb::ext_authz_per_route::Override;
    match cx.required("override", said.r#override)? {
        Override::Disabled(true) => Some(Some(CheckUse::None)),
        Override::Disabled(false) => cx.fail("disabled", "it can only be true"),
        Override::CheckSettings(pb::CheckSettings { context_extensions }) => {
            Some(Some(CheckUse::Context(context(context_extensions))))
        }
    }
}
