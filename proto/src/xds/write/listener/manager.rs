//! HTTP: how requests are read, and what they pass.

use super::super::super::generated::envoy::config::core::v3 as core;
use super::super::super::generated::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use super::super::super::generated::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, SetCurrentClientCertDetails,
    UpgradeConfig,
};
use super::super::super::generated::envoy::extensions::http::original_ip_detection::xff::v3 as xff;
use super::super::super::generated::outrigger::extensions::v1 as ext;
use super::super::super::listener::Fields;
use super::super::super::RouteSource;
use super::super::filters::Guards;
use super::super::{Cx, filters, packed, route, stream};
use crate::model::{Authorization, HttpFilter, Limits, Name};

pub(super) fn manager(
    cx: &mut Cx,
    name: &Name,
    (http, (table, source)): (&HttpFilter, (&Name, &RouteSource)),
    (authorization, limits): (Option<&Authorization>, &Limits),
    said: &mut ext::Listener,
) -> Option<pb::HttpConnectionManager> {
    let HttpFilter {
        jwt,
        external_authorization,
        rate_limit_service,
        routes,
        trusted_proxies,
        merge_slashes,
    } = http;
    let (fields, unsaid) = super::of_limits(cx, limits)?;
    said.limits = unsaid;
    let Fields { kib, headers_timeout, stream_idle, common, http2 } = fields;
    let guards = Guards {
        issuers: jwt,
        authorization,
        asked: external_authorization.as_deref(),
        counts: rate_limit_service.as_deref(),
    };
    let http_filters = filters::of_listener(cx, guards, said)?;
    let detection = (!trusted_proxies.is_empty()).then(|| {
        let cidrs = trusted_proxies.iter().map(filters::network).collect();
        let xff_trusted_cidrs = Some(xff::XffTrustedCidrs { cidrs });
        let typed_config = packed(&xff::XffConfig { xff_trusted_cidrs, skip_xff_append: Some(false) });
        let name = "envoy.http.original_ip_detection.xff".to_owned();
        core::TypedExtensionConfig { name, typed_config: Some(typed_config) }
    });
    Some(pb::HttpConnectionManager {
        codec_type: pb::http_connection_manager::CodecType::Auto.into(),
        stat_prefix: name.to_string(),
        route_specifier: Some(routed(cx, table, routes, source)?),
        http_filters,
        common_http_protocol_options: common,
        http_protocol_options: None,
        http2_protocol_options: http2,
        max_request_headers_kb: kib,
        stream_idle_timeout: stream_idle,
        request_headers_timeout: headers_timeout,
        use_remote_address: Some(detection.is_none()),
        xff_num_trusted_hops: 0,
        original_ip_detection_extensions: detection.into_iter().collect(),
        normalize_path: Some(true),
        merge_slashes: *merge_slashes,
        path_with_escaped_slashes_action: PathWithEscapedSlashesAction::RejectRequest.into(),
        forward_client_cert_details: ForwardClientCertDetails::SanitizeSet.into(),
        set_current_client_cert_details: Some(SetCurrentClientCertDetails { uri: true }),
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), enabled: None }],
    })
}

fn routed(cx: &mut Cx, own: &Name, routes: &Name, source: &RouteSource) -> Option<RouteSpecifier> {
    match source {
        RouteSource::None => cx.fail("route_specifier", "there are no routes"),
        RouteSource::Stated(_) if routes != own => {
            cx.fail("route_config", "routes that stand with a listener have its name")
        }
        RouteSource::Stated(table) => {
            cx.within("route_config", |cx| route::table(cx, own, table)).map(RouteSpecifier::RouteConfig)
        }
        RouteSource::Rds(table) if routes != table => {
            cx.fail("rds.route_config_name", "the listener has its routes from another table")
        }
        RouteSource::Rds(table) => {
            let route_config_name = table.to_string();
            Some(RouteSpecifier::Rds(pb::Rds { config_source: Some(stream()), route_config_name }))
        }
    }
}
