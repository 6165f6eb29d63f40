//! Filters of HTTP, and what routes say of them.

mod ext_authz;
mod fault;
mod jwt;
mod limits;
mod rate_limit;
pub(super) mod rbac;

use std::collections::BTreeMap;

use ipnet::IpNet;
use prost::Message;
use prost_types::Any;

use super::super::generated::envoy::config::core::v3::CidrRange;
use super::super::generated::envoy::config::route::v3::FilterConfig;
use super::super::generated::envoy::extensions::filters::http;
use super::super::generated::envoy::extensions::filters::network::http_connection_manager::v3 as manager;
use super::super::generated::envoy::r#type::matcher::v3 as matcher;
use super::super::generated::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use super::super::generated::outrigger::extensions::v1 as ext;
use super::{Cx, OURS, packed};
use crate::model::{Action, Authorization, ExternalAuthorization, JwtIssuer, RateLimitService, Route};

const JWT: &str = "envoy.filters.http.jwt_authn";
const EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";
const LOCAL_RATE_LIMIT: &str = "envoy.filters.http.local_ratelimit";
const RATE_LIMIT: &str = "envoy.filters.http.ratelimit";
const FAULT: &str = "envoy.filters.http.fault";

pub(super) fn network(network: &IpNet) -> CidrRange {
    let (address_prefix, prefix_len) = (network.addr().to_string(), Some(network.prefix_len().into()));
    CidrRange { address_prefix, prefix_len }
}

fn text(pattern: MatchPattern) -> matcher::StringMatcher {
    matcher::StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}

fn expression(regex: String) -> MatchPattern {
    MatchPattern::SafeRegex(matcher::RegexMatcher { regex })
}

/// What a listener has of filters.
pub(super) struct Guards<'a> {
    pub(super) issuers: &'a [JwtIssuer],
    pub(super) authorization: Option<&'a Authorization>,
    pub(super) asked: Option<&'a ExternalAuthorization>,
    pub(super) counts: Option<&'a RateLimitService>,
}

/// The filters of a listener in the order in which requests pass them. Which of its routes have limits and faults is not
/// known here, and a filter that no route speaks of does nothing: so those stand there always.
pub(super) fn of_listener(
    cx: &mut Cx,
    Guards { issuers, authorization, asked, counts }: Guards<'_>,
    said: &mut ext::Listener,
) -> Option<Vec<manager::HttpFilter>> {
    let mut filters = Vec::new();
    if !issuers.is_empty() {
        filters.push(filter_of(JWT, &jwt::filter(cx, issuers, &mut said.jwt)?));
    }
    if let Some(authorization) = authorization {
        let filter = |rbac::Written { word, rules, shadow_rules }| {
            let name = format!("envoy.filters.http.rbac.{word}");
            filter_of(&name, &http::rbac::v3::Rbac { rules, shadow_rules })
        };
        filters.extend(rbac::write(authorization).into_iter().map(filter));
    }
    if let Some(asked) = asked {
        filters.push(filter_of(EXT_AUTHZ, &ext_authz::filter(asked, &mut said.external_authorization)));
    }
    filters.push(filter_of(LOCAL_RATE_LIMIT, &limits::none()));
    if let Some(counts) = counts {
        filters.push(filter_of(RATE_LIMIT, &rate_limit::filter(counts, &mut said.rate_limit_cache)));
    }
    filters.push(filter_of(FAULT, &http::fault::v3::HttpFault::default()));
    filters.push(filter_of("envoy.filters.http.router", &http::router::v3::Router {}));
    Some(filters)
}

fn filter_of<M: Message + prost::Name>(name: &str, message: &M) -> manager::HttpFilter {
    let config_type = Some(manager::http_filter::ConfigType::TypedConfig(packed(message)));
    manager::HttpFilter { name: name.to_owned(), is_optional: false, disabled: false, config_type }
}

/// What a route says of filters: its `typed_per_filter_config`.
pub(in super::super) fn of_route(route: &Route) -> BTreeMap<String, Any> {
    let Route {
        matches: _,
        action,
        jwt,
        external_authorization,
        rate_limit,
        global_rate_limit,
        concurrency: _,
        fault,
        request_headers: _,
        response_headers: _,
    } = route;
    let mut said = BTreeMap::new();
    let mut ours = ext::RoutePolicy::default();
    let mut say = |name: &str, any| said.insert(name.to_owned(), any);
    if let Some(wanted) = jwt {
        say(JWT, packed(&jwt::of_route(*wanted)));
    }
    if let Some(told) = external_authorization {
        say(EXT_AUTHZ, packed(&ext_authz::of_route(told)));
    }
    if let Some(limit) = rate_limit {
        match limits::of_all(limit) {
            Some(limit) => {
                say(LOCAL_RATE_LIMIT, packed(&limit));
            }
            None => ours.rate_limit = Some(limits::of_caller(limit)),
        }
    }
    if let Some(limit) = global_rate_limit {
        let (counted, service) = rate_limit::of_route(limit);
        say(RATE_LIMIT, packed(&counted));
        ours.global_rate_limit = service;
        // Envoy counts nothing but what is sent on.
        ours.counts_answers = match action {
            Action::Forward(_) => false,
            Action::Redirect(_) | Action::Respond(_) => true,
        };
    }
    if let Some(fault) = fault {
        say(FAULT, packed(&fault::fault(fault)));
    }
    if ours != ext::RoutePolicy::default() {
        let config = Some(packed(&ours));
        say(OURS, packed(&FilterConfig { config, is_optional: true, disabled: false }));
    }
    said
}
