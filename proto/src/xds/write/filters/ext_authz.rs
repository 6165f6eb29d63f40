//! A service that is asked whether requests are let in.

use std::collections::BTreeMap;

use http::HeaderName;

use super::super::super::filters::ext_authz::all;
use super::super::super::generated::envoy::config::core::v3 as core;
use super::super::super::generated::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use super::super::super::generated::envoy::extensions::filters::http::ext_authz::v3 as pb;
use super::super::super::generated::envoy::r#type::matcher::v3 as matcher;
use super::super::super::generated::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use super::super::super::generated::outrigger::extensions::v1 as ext;
use super::super::listener::time;
use super::text;
use crate::model::{CheckBody, CheckProtocol, CheckUse, ExternalAuthorization, OnFailure};

pub(super) fn filter(
    asked: &ExternalAuthorization,
    said: &mut Option<ext::ExternalAuthorization>,
) -> pb::ExtAuthz {
    use pb::ext_authz::Services;
    let ExternalAuthorization { cluster, protocol, show_headers, set_headers, body, timeout, on_failure } =
        asked;
    let services = match protocol {
        CheckProtocol::Grpc { context } => {
            let set_headers = set_headers.iter().map(HeaderName::to_string).collect();
            let more = ext::ExternalAuthorization { context: texts(context), set_headers };
            *said = (more != ext::ExternalAuthorization::default()).then_some(more);
            let target = TargetSpecifier::EnvoyGrpc(EnvoyGrpc { cluster_name: cluster.to_string() });
            let timeout = time(*timeout);
            Services::GrpcService(core::GrpcService { target_specifier: Some(target), timeout })
        }
        CheckProtocol::Http { path_prefix, response_headers } => {
            let uri = core::HttpUri {
                // Only its cluster counts.
                uri: format!("http://{cluster}"),
                timeout: time(*timeout),
                http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(cluster.to_string())),
            };
            let response = pb::AuthorizationResponse {
                allowed_upstream_headers: names(set_headers),
                allowed_client_headers_on_success: names(response_headers),
            };
            Services::HttpService(pb::HttpService {
                server_uri: Some(uri),
                path_prefix: path_prefix.to_string(),
                authorization_response: Some(response),
            })
        }
    };
    let (allowed_headers, disallowed_headers) = shown(show_headers.as_deref(), protocol);
    pb::ExtAuthz {
        services: Some(services),
        failure_mode_allow: *on_failure == OnFailure::Allow,
        with_request_body: body.map(|CheckBody { max, partial }| pb::BufferSettings {
            max_request_bytes: max.get(),
            allow_partial_message: partial,
        }),
        transport_api_version: core::ApiVersion::V3.into(),
        allowed_headers,
        disallowed_headers,
    }
}

type Lists = (Option<matcher::ListStringMatcher>, Option<matcher::ListStringMatcher>);

/// By HTTP Envoy shows `authorization` unless it is told not to, and of the rest what it is told to; by gRPC it shows all.
fn shown(names_shown: Option<&[HeaderName]>, protocol: &CheckProtocol) -> Lists {
    let by_http = matches!(protocol, CheckProtocol::Http { .. });
    match names_shown {
        None => (by_http.then(all), None),
        Some([]) => (None, Some(all())),
        Some(shown) => {
            let hides = by_http && !shown.contains(&http::header::AUTHORIZATION);
            (names(shown), if hides { names(&[http::header::AUTHORIZATION]) } else { None })
        }
    }
}

/// Nothing where there is none: an empty list is not to be there.
fn names(names: &[HeaderName]) -> Option<matcher::ListStringMatcher> {
    let patterns: Vec<_> = names.iter().map(|name| text(MatchPattern::Exact(name.to_string()))).collect();
    (!patterns.is_empty()).then_some(matcher::ListStringMatcher { patterns })
}

fn texts(texts: &BTreeMap<Box<str>, Box<str>>) -> BTreeMap<String, String> {
    texts.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect()
}

pub(super) fn of_route(said: &CheckUse) -> pb::ExtAuthzPerRoute {
    use pb::ext_authz_per_route::Override;
    let said = match said {
        CheckUse::None => Override::Disabled(true),
        CheckUse::Context(context) => {
            Override::CheckSettings(pb::CheckSettings { context_extensions: texts(context) })
        }
    };
    pb::ExtAuthzPerRoute { r#override: Some(said) }
}
