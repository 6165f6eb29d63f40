//! Filters of HTTP: what a listener says of them, and what its routes say.
//!
//! Requests pass ours in one order, whatever is written: tokens, rules, a service that is asked, limits, faults. A list in
//! another order means something else, and is refused.

pub(super) mod claims;
pub(super) mod ext_authz;
mod fault;
pub(super) mod jwt;
pub(super) mod local_rate_limit;
pub(super) mod rate_limit;
pub(super) mod rbac;
pub(super) mod request;
#[cfg(test)]
mod tests;
pub(super) mod text;
mod when;

use std::collections::BTreeMap;

use prost_types::Any;

use super::any::{decode, decoded, is, type_of};
use super::cx::Cx;
use super::generated::envoy::config::route::v3::FilterConfig;
use super::generated::envoy::extensions::filters::http;
use super::generated::envoy::extensions::filters::network::http_connection_manager::v3 as manager;
use super::generated::outrigger::extensions::v1 as ext;
use crate::model::{
    Authorization, CheckUse, ExternalAuthorization, Fault, GlobalRateLimit, JwtIssuer, JwtUse, RateLimit,
    RateLimitService,
};

/// What the filters of a listener say.
#[derive(Debug, Default)]
pub(super) struct HttpFilters {
    pub(super) jwt: Box<[JwtIssuer]>,
    pub(super) external_authorization: Option<Box<ExternalAuthorization>>,
    pub(super) rate_limit_service: Option<Box<RateLimitService>>,
    pub(super) authorization: Option<Authorization>,
}

/// What is ours to say of them.
#[derive(Debug, Default)]
pub(super) struct Ours {
    /// By provider.
    pub(super) jwt: BTreeMap<String, ext::JwtIssuer>,
    pub(super) external_authorization: Option<ext::ExternalAuthorization>,
    pub(super) rate_limit_cache: u32,
}

/// In the order in which requests pass them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Jwt,
    Rbac,
    ExtAuthz,
    LocalRateLimit,
    RateLimit,
    Fault,
    Router,
}

impl Step {
    fn of(any: &Any) -> Option<Self> {
        let all = [
            (Self::Jwt, is::<http::jwt_authn::v3::JwtAuthentication>(any)),
            (Self::Rbac, is::<http::rbac::v3::Rbac>(any)),
            (Self::ExtAuthz, is::<http::ext_authz::v3::ExtAuthz>(any)),
            (Self::LocalRateLimit, is::<http::local_ratelimit::v3::LocalRateLimit>(any)),
            (Self::RateLimit, is::<http::ratelimit::v3::RateLimit>(any)),
            (Self::Fault, is::<http::fault::v3::HttpFault>(any)),
            (Self::Router, is::<http::router::v3::Router>(any)),
        ];
        all.into_iter().find(|(_, is_it)| *is_it).map(|(step, _)| step)
    }
}

/// By itself: what routes could say to it, or what it counts, is not in the subset.
fn does_nothing(any: &Any) -> bool {
    is::<http::cors::v3::Cors>(any) || is::<http::grpc_stats::v3::FilterConfig>(any)
}

/// The filters of a connection manager, the last of which sends requests on.
pub(super) fn of_manager(
    cx: &mut Cx,
    filters: Vec<manager::HttpFilter>,
    trusts: bool,
    Ours { jwt: issuers, external_authorization: asked, rate_limit_cache }: Ours,
) -> Option<HttpFilters> {
    let mut read = HttpFilters::default();
    let mut rules = rbac::Gathered::default();
    let mut last: Option<Step> = None;
    let (mut issuers, mut asked, mut cache) = (Some(issuers), Some(asked), Some(rate_limit_cache));
    let around = rbac::Around { http: true, trusts };
    cx.each("http_filters", filters, |cx, filter| {
        let manager::HttpFilter { name: _, is_optional, disabled, config_type } = filter;
        let manager::http_filter::ConfigType::TypedConfig(any) = cx.required("typed_config", config_type)?;
        cx.within("typed_config", |cx| {
            let Some(step) = next(cx, &any, (is_optional, disabled), last)? else { return Some(()) };
            last = Some(step);
            match step {
                Step::Jwt => {
                    read.jwt = {
                        let said = issuers.take()?;
                        decoded(cx, &any, |cx, filter| jwt::filter(cx, filter, said))?
                    }
                }
                Step::Rbac => {
                    let http::rbac::v3::Rbac { rules: enforced, shadow_rules } = decode(cx, &any)?;
                    rules.add(cx, around, (enforced, shadow_rules))?;
                }
                Step::ExtAuthz => {
                    let said = asked.take()?;
                    let filter = decoded(cx, &any, |cx, filter| ext_authz::filter(cx, filter, said))?;
                    read.external_authorization = Some(Box::new(filter));
                }
                Step::LocalRateLimit => decoded(cx, &any, local_rate_limit::filter)?,
                Step::RateLimit => {
                    let said = cache.take()?;
                    let service = decoded(cx, &any, |cx, filter| rate_limit::filter(cx, filter, said))?;
                    read.rate_limit_service = Some(Box::new(service));
                }
                Step::Fault => decoded(cx, &any, fault::filter)?,
                Step::Router => {
                    let http::router::v3::Router {} = decode(cx, &any)?;
                }
            }
            Some(())
        })
    })?;
    if last != Some(Step::Router) {
        return cx.fail("http_filters", "the last one is to be the router");
    }
    unread(cx, (issuers, asked), cache)?;
    read.authorization = rules.finish();
    let claims = |rule: &crate::model::Rule| !rule.when.claims.is_empty();
    if read.jwt.is_empty() && read.authorization.iter().any(|all| all.rules.iter().any(claims)) {
        return cx.fail("http_filters", "rules ask for claims, and nobody looks at tokens here");
    }
    Some(read)
}

/// What a filter is, which stands behind another; `None` inside where it is passed over.
fn next(
    cx: &mut Cx,
    any: &Any,
    (is_optional, disabled): (bool, bool),
    last: Option<Step>,
) -> Option<Option<Step>> {
    let Some(step) = Step::of(any) else {
        if is_optional || disabled || does_nothing(any) {
            return Some(None);
        }
        return cx.fail("", format!("`{}` is not supported", type_of(any)));
    };
    if disabled {
        return cx.fail("", "a filter that only routes turn on is not supported");
    }
    // Of rules several filters may stand one after the other.
    if last.is_some_and(|last| last > step || (last == step && step != Step::Rbac)) {
        return cx.fail(
            "",
            "it stands once, and requests pass in this order: jwt_authn, rbac, ext_authz, local_ratelimit, \
             ratelimit, fault, router",
        );
    }
    Some(Some(step))
}

/// What is ours to say of a filter that is not there would be lost.
fn unread(
    cx: &mut Cx,
    (issuers, asked): (Option<BTreeMap<String, ext::JwtIssuer>>, Option<Option<ext::ExternalAuthorization>>),
    cache: Option<u32>,
) -> Option<()> {
    let guards = issuers.is_some_and(|issuers| !issuers.is_empty()) || asked.flatten().is_some();
    if guards || cache.is_some_and(|most| most > 0) {
        return cx.fail("http_filters", "`metadata` speaks of a filter that is not here");
    }
    Some(())
}

/// What a route says of filters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RoutePolicies {
    pub(super) jwt: Option<JwtUse>,
    pub(super) external_authorization: Option<Box<CheckUse>>,
    pub(super) rate_limit: Option<Box<RateLimit>>,
    pub(super) global_rate_limit: Option<Box<GlobalRateLimit>>,
    pub(super) fault: Option<Box<Fault>>,
}

/// `typed_per_filter_config` of a route. Which filter is meant is told by the type, as a filter's name is its listener's to
/// choose.
pub(super) fn of_route(
    cx: &mut Cx,
    configs: BTreeMap<String, Any>,
    around: rate_limit::Around<'_>,
) -> Option<RoutePolicies> {
    let mut configs: Vec<_> = configs.into_iter().collect();
    configs.sort_by(|a, b| a.0.cmp(&b.0));
    let mut said = Said::default();
    let mut all_well = true;
    for (name, any) in configs {
        let read = cx.within(format_args!("typed_per_filter_config[{name}]"), |cx| {
            let any = match is::<FilterConfig>(&any) {
                true => cx.within("config", |cx| unwrapped(cx, &any))?,
                false => Some(any),
            };
            any.map_or(Some(()), |any| said.add(cx, &any))
        });
        all_well &= read.is_some();
    }
    if !all_well {
        return None;
    }
    let Said { mut policies, ours, counted } = said;
    let ext::RoutePolicy { rate_limit, global_rate_limit, counts_answers } = ours.unwrap_or_default();
    if let Some(limit) = rate_limit {
        if policies.rate_limit.is_some() {
            return cx.fail("typed_per_filter_config", "a limit is written twice");
        }
        policies.rate_limit = Some(Box::new(local_rate_limit::of_caller(cx, limit)?));
    }
    policies.global_rate_limit =
        rate_limit::of_route(cx, (counted, (global_rate_limit, counts_answers)), around)?.map(Box::new);
    Some(policies)
}

/// What stands in a wrapper; nothing where it is of a filter that is not known, and need not be.
fn unwrapped(cx: &mut Cx, any: &Any) -> Option<Option<Any>> {
    let FilterConfig { config, is_optional, disabled } = decode(cx, any)?;
    if disabled {
        return cx.fail("", "a filter is turned off by its own message");
    }
    let config = cx.required("", config)?;
    Some(if is_optional && !Said::knows(&config) { None } else { Some(config) })
}

/// What was found so far.
#[derive(Default)]
struct Said {
    policies: RoutePolicies,
    ours: Option<ext::RoutePolicy>,
    counted: Option<http::ratelimit::v3::RateLimitPerRoute>,
}

impl Said {
    fn knows(any: &Any) -> bool {
        is::<http::fault::v3::HttpFault>(any)
            || is::<http::local_ratelimit::v3::LocalRateLimit>(any)
            || is::<http::jwt_authn::v3::PerRouteConfig>(any)
            || is::<http::ext_authz::v3::ExtAuthzPerRoute>(any)
            || is::<http::ratelimit::v3::RateLimitPerRoute>(any)
            || is::<ext::RoutePolicy>(any)
    }

    fn add(&mut self, cx: &mut Cx, any: &Any) -> Option<()> {
        let policies = &mut self.policies;
        let twice = if is::<http::fault::v3::HttpFault>(any) {
            let fault = decoded(cx, any, fault::fault)?.map(Box::new);
            set(&mut policies.fault, fault)
        } else if is::<http::local_ratelimit::v3::LocalRateLimit>(any) {
            let limit = decoded(cx, any, local_rate_limit::of_route)?.map(Box::new);
            set(&mut policies.rate_limit, limit)
        } else if is::<http::jwt_authn::v3::PerRouteConfig>(any) {
            set(&mut policies.jwt, Some(decoded(cx, any, jwt::of_route)?))
        } else if is::<http::ext_authz::v3::ExtAuthzPerRoute>(any) {
            let said = decoded(cx, any, ext_authz::of_route)?.map(Box::new);
            set(&mut policies.external_authorization, said)
        } else if is::<http::ratelimit::v3::RateLimitPerRoute>(any) {
            set(&mut self.counted, Some(decode(cx, any)?))
        } else if is::<ext::RoutePolicy>(any) {
            set(&mut self.ours, Some(decode(cx, any)?))
        } else {
            return cx.fail("", format!("`{}` is not supported", type_of(any)));
        };
        if twice { cx.fail("", "this is said twice") } else { Some(()) }
    }
}

/// Whether something was there already.
fn set<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    value.is_some_and(|value| place.replace(value).is_some())
}
