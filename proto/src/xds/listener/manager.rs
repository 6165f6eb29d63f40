//! HTTP: how requests are read, and what they pass.

use ipnet::IpNet;

use super::super::any::{decode, is, type_of};
use super::super::cluster::ads;
use super::super::cx::Cx;
use super::super::filters::{self, HttpFilters, text};
use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use super::super::generated::envoy::extensions::http::original_ip_detection::xff::v3 as xff;
use super::super::route;
use super::RouteSource;
use super::limits::{self, Fields};
use crate::model::{Authorization, Filter, HttpFilter, JwtUse, Limits, Name};

type Read = (Filter, Option<Authorization>, Limits, RouteSource);

pub(super) fn manager(
    cx: &mut Cx,
    name: &Name,
    manager: pb::HttpConnectionManager,
    of_http: filters::Ours,
) -> Option<Read> {
    let pb::HttpConnectionManager {
        codec_type,
        // Envoy's metrics.
        stat_prefix: _,
        route_specifier,
        http_filters,
        // Always, whatever is said: what is authorized and what is sent on must be the same.
        normalize_path: _,
        merge_slashes,
        common_http_protocol_options: common,
        // There is nothing that it could say.
        http_protocol_options: _,
        http2_protocol_options: http2,
        max_request_headers_kb: kib,
        stream_idle_timeout: stream_idle,
        request_headers_timeout: headers_timeout,
        use_remote_address,
        xff_num_trusted_hops,
        original_ip_detection_extensions,
        // Whatever is said, nobody gets through with such a path.
        path_with_escaped_slashes_action: _,
        forward_client_cert_details: forwarded,
        set_current_client_cert_details: details,
        upgrade_configs,
    } = manager;
    if codec_type != i32::from(pb::http_connection_manager::CodecType::Auto) {
        return cx.fail(
            "codec_type",
            "both versions of HTTP are served, told apart by what a client says: write AUTO",
        );
    }
    of_client_certificates(cx, forwarded, details)?;
    upgrades(cx, upgrade_configs)?;
    let limits = limits::of_manager(cx, Fields { kib, headers_timeout, stream_idle, common, http2 });
    if xff_num_trusted_hops != 0 {
        return cx.fail(
            "xff_num_trusted_hops",
            "who is trusted is told by address: write `original_ip_detection_extensions`",
        );
    }
    let trusted_proxies = trusted(cx, original_ip_detection_extensions, use_remote_address)?;
    let filters = filters::of_manager(cx, http_filters, !trusted_proxies.is_empty(), of_http)?;
    let HttpFilters { jwt, external_authorization, rate_limit_service, authorization } = filters;
    let (table, source) = routes(cx, name, route_specifier, !jwt.is_empty())?;
    let filter = HttpFilter {
        jwt,
        external_authorization,
        rate_limit_service,
        routes: table,
        trusted_proxies,
        merge_slashes,
    };
    Some((Filter::Http(filter), authorization, limits?, source))
}

fn routes(
    cx: &mut Cx,
    name: &Name,
    routes: Option<pb::http_connection_manager::RouteSpecifier>,
    looks: bool,
) -> Option<(Name, RouteSource)> {
    use pb::http_connection_manager::RouteSpecifier;
    match cx.required("route_specifier", routes)? {
        // Under the name that the listener has for it, as in a file.
        RouteSpecifier::RouteConfig(table) => {
            let table = cx.within("route_config", |cx| route::table(cx, table))?;
            // It would stand open.
            if !looks && table.routes.iter().any(|route| route.jwt == Some(JwtUse::Required)) {
                return cx.fail("route_config", "a route needs a token, and nobody looks at tokens here");
            }
            Some((name.clone(), RouteSource::Stated(table)))
        }
        RouteSpecifier::Rds(pb::Rds { config_source, route_config_name }) => cx.within("rds", |cx| {
            ads(cx, "config_source", config_source)?;
            let table = Name::new(&route_config_name);
            let table = table.or_else(|| cx.fail("route_config_name", "this is not a name"))?;
            Some((table.clone(), RouteSource::Rds(table)))
        }),
    }
}

/// What is told of who has proven to be somebody is one thing; what clients say of it is not passed on.
fn of_client_certificates(
    cx: &mut Cx,
    forwarded: i32,
    details: Option<pb::http_connection_manager::SetCurrentClientCertDetails>,
) -> Option<()> {
    use pb::http_connection_manager::{ForwardClientCertDetails, SetCurrentClientCertDetails};
    let uri = details.is_some_and(|SetCurrentClientCertDetails { uri }| uri);
    match ForwardClientCertDetails::try_from(forwarded) {
        Ok(ForwardClientCertDetails::Sanitize) => Some(()),
        Ok(ForwardClientCertDetails::SanitizeSet) if uri => Some(()),
        Ok(ForwardClientCertDetails::SanitizeSet) => {
            cx.fail("set_current_client_cert_details.uri", "by it a client is named: write true")
        }
        Ok(_) | Err(_) => cx.fail(
            "forward_client_cert_details",
            "what clients say of their certificates is not passed on: write SANITIZE_SET",
        ),
    }
}

/// What is passed on always need not be asked for; what never is, cannot be.
fn upgrades(cx: &mut Cx, upgrades: Vec<pb::http_connection_manager::UpgradeConfig>) -> Option<()> {
    cx.each("upgrade_configs", upgrades, |cx, upgrade| {
        let pb::http_connection_manager::UpgradeConfig { upgrade_type, enabled } = upgrade;
        if !upgrade_type.eq_ignore_ascii_case("websocket") {
            return cx.fail("upgrade_type", format!("`{upgrade_type}` is not supported"));
        }
        if enabled == Some(false) {
            return cx.fail("enabled", "it is passed on always");
        }
        Some(())
    })
    .map(|_| ())
}

/// Whose word of where a request comes from is believed.
fn trusted(
    cx: &mut Cx,
    detections: Vec<core::TypedExtensionConfig>,
    by_connection: Option<bool>,
) -> Option<Vec<IpNet>> {
    if detections.len() > 1 {
        return cx.fail("original_ip_detection_extensions", "one at the most is supported");
    }
    let networks = cx.each("original_ip_detection_extensions", detections, |cx, detection| {
        let core::TypedExtensionConfig { name: _, typed_config } = detection;
        let any = cx.required("typed_config", typed_config)?;
        cx.within("typed_config", |cx| {
            if !is::<xff::XffConfig>(&any) {
                return cx.fail("", format!("`{}` is not supported", type_of(&any)));
            }
            if by_connection == Some(true) {
                return cx.fail("", "beside it `use_remote_address` would say another thing");
            }
            let xff::XffConfig { xff_trusted_cidrs, skip_xff_append } = decode(cx, &any)?;
            // Absent is true there.
            if skip_xff_append != Some(false) {
                return cx
                    .fail("skip_xff_append", "whoever sends a request is always written down: write false");
            }
            let xff::XffTrustedCidrs { cidrs } = cx.required("xff_trusted_cidrs", xff_trusted_cidrs)?;
            cx.within("xff_trusted_cidrs", |cx| cx.each("cidrs", cidrs, text::network))
        })
    })?;
    Some(networks.into_iter().flatten().collect())
}
