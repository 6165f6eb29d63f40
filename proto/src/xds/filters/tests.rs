//! What control planes say of filters, what it means, and how each fault is named.

use std::collections::BTreeMap;

use ::http::HeaderName;
use proptest::prelude::*;
use prost::Message;

use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::config::ratelimit::v3 as ratelimit_pb;
use super::super::generated::envoy::config::rbac::v3 as rbac_pb;
use super::super::generated::envoy::config::rbac::v3::permission::Rule as P;
use super::super::generated::envoy::config::rbac::v3::principal::Identifier as I;
use super::super::generated::envoy::config::rbac::v3::rbac::Action;
use super::super::generated::envoy::config::route::v3 as route;
use super::super::generated::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use super::super::generated::envoy::r#type::matcher::v3 as matcher;
use super::super::generated::envoy::r#type::matcher::v3::string_matcher::MatchPattern as M;
use super::super::generated::envoy::r#type::v3 as kind;
use super::super::write;
use super::http::{ext_authz::v3 as ext_authz_pb, fault::v3 as fault_pb, jwt_authn::v3 as jwt_pb};
use super::http::{local_ratelimit::v3 as local_pb, ratelimit::v3 as service_pb};
use super::*;
use crate::model::{Effect, PathPattern, Rule, StringMatch, When};

fn any<T: Message + prost::Name>(message: &T) -> Any {
    Any { type_url: format!("type.googleapis.com/{}", T::full_name()), value: message.encode_to_vec() }
}

fn said<T>(read: impl FnOnce(&mut Cx) -> Option<T>) -> Result<T, String> {
    let mut cx = Cx::new("X".to_owned());
    let read = read(&mut cx);
    let errors: Vec<_> = cx.into_errors().iter().map(ToString::to_string).collect();
    match read {
        Some(read) if errors.is_empty() => Ok(read),
        _ => Err(errors.join("\n")),
    }
}

fn configs(all: &[(&str, Any)]) -> BTreeMap<String, Any> {
    all.iter().map(|(name, any)| ((*name).to_owned(), any.clone())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_a_route_says_of_filters_is_read_as_it_was_written(config in crate::model::random::config()) {
        for table in config.mesh.route_tables.values() {
            for route in &*table.routes {
                let read = said(|cx| of_route(cx, write::filters::of_route(route), rate_limit::Around::NONE));
                let crate::model::Route { jwt, external_authorization, rate_limit, global_rate_limit, fault, .. } =
                    route.clone();
                let expected = RoutePolicies { jwt, external_authorization, rate_limit, global_rate_limit, fault };
                prop_assert_eq!(read, Ok(expected));
            }
        }
    }
}

fn percent(numerator: u32) -> Option<kind::FractionalPercent> {
    Some(kind::FractionalPercent { numerator, denominator: 0 })
}

fn bucket(tokens: u32, millis: u64) -> local_pb::LocalRateLimit {
    let share = || Some(core::RuntimeFractionalPercent { default_value: percent(100), ..Default::default() });
    let interval = prost_types::Duration::try_from(std::time::Duration::from_millis(millis)).unwrap();
    local_pb::LocalRateLimit {
        stat_prefix: "a".to_owned(),
        token_bucket: Some(kind::TokenBucket {
            max_tokens: 9,
            tokens_per_fill: Some(tokens),
            fill_interval: Some(interval),
        }),
        filter_enabled: share(),
        filter_enforced: share(),
    }
}

#[test]
fn tokens_come_in_a_second_a_minute_or_an_hour() {
    for (tokens, millis, expected) in [
        (5, 1_000, Some((5, 1))),
        (1, 100, Some((10, 1))),
        (120, 60_000, Some((120, 60))),
        (1, 2_000, Some((30, 60))),
        (1, 90_000, Some((40, 3600))),
        (1, 7_000, None),
        (1, 7_200_000, None),
    ] {
        let limit = of_route(
            &mut Cx::new("X".to_owned()),
            configs(&[("a", any(&bucket(tokens, millis)))]),
            rate_limit::Around::NONE,
        );
        let read = limit.and_then(|all| all.rate_limit);
        let read = read.map(|limit| (limit.tokens.get(), limit.every.as_secs()));
        assert_eq!(read, expected, "{tokens} in {millis} ms");
    }
}

#[test]
fn a_limit_that_is_not_turned_on_is_none() {
    let off = local_pb::LocalRateLimit { filter_enforced: None, ..bucket(1, 1_000) };
    let read = said(|cx| of_route(cx, configs(&[("a", any(&off))]), rate_limit::Around::NONE));
    assert_eq!(read, Ok(RoutePolicies::default()));
    let half = Some(core::RuntimeFractionalPercent { default_value: percent(50), ..Default::default() });
    let half = local_pb::LocalRateLimit { filter_enabled: half, ..bucket(1, 1_000) };
    let read = said(|cx| of_route(cx, configs(&[("a", any(&half))]), rate_limit::Around::NONE));
    assert_eq!(read.unwrap_err(), "X.typed_per_filter_config[a].filter_enabled: it is all or none");
}

#[test]
fn what_a_route_cannot_say_is_refused_where_it_stands() {
    let disabled = |disabled| ext_authz_pb::ExtAuthzPerRoute {
        r#override: Some(ext_authz_pb::ext_authz_per_route::Override::Disabled(disabled)),
    };
    let named = |name: &str| jwt_pb::PerRouteConfig {
        requirement_specifier: Some(jwt_pb::per_route_config::RequirementSpecifier::RequirementName(
            name.to_owned(),
        )),
    };
    let fault = |percentage| fault_pb::HttpFault {
        abort: Some(fault_pb::FaultAbort {
            error_type: Some(fault_pb::fault_abort::ErrorType::HttpStatus(200)),
            percentage,
        }),
        ..fault_pb::HttpFault::default()
    };
    let wrapped = |config, is_optional, disabled| FilterConfig { config, is_optional, disabled };
    let unknown = Any { type_url: "a/b.C".to_owned(), value: Vec::new() };
    for (config, expected) in [
        (any(&disabled(false)), "X.typed_per_filter_config[a].disabled: it can only be true"),
        (
            any(&named("mine")),
            "X.typed_per_filter_config[a].requirement_name: write `outrigger.required` or `outrigger.optional`",
        ),
        (any(&fault(None)), "X.typed_per_filter_config[a].abort.http_status: it is between 400 and 599"),
        (unknown.clone(), "X.typed_per_filter_config[a]: `b.C` is not supported"),
        (
            any(&wrapped(Some(unknown.clone()), false, false)),
            "X.typed_per_filter_config[a]: `b.C` is not supported",
        ),
        (
            any(&wrapped(None, false, true)),
            "X.typed_per_filter_config[a].config: a filter is turned off by its own message",
        ),
        (
            any(&service_pb::RateLimitPerRoute { domain: "d".to_owned(), ..Default::default() }),
            "X.typed_per_filter_config.domain: the listener says where its service counts",
        ),
    ] {
        let read = said(|cx| of_route(cx, configs(&[("a", config)]), rate_limit::Around::NONE));
        assert_eq!(read.unwrap_err(), expected);
    }
    let optional = any(&wrapped(Some(unknown), true, false));
    assert_eq!(
        said(|cx| of_route(cx, configs(&[("a", optional)]), rate_limit::Around::NONE)),
        Ok(RoutePolicies::default())
    );
    let two = configs(&[("a", any(&disabled(true))), ("b", any(&disabled(true)))]);
    let read = said(|cx| of_route(cx, two, rate_limit::Around::NONE));
    assert_eq!(read.unwrap_err(), "X.typed_per_filter_config[b]: this is said twice");
}

fn text(pattern: M) -> matcher::StringMatcher {
    matcher::StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}

fn exact(name: &str) -> matcher::StringMatcher {
    text(M::Exact(name.to_owned()))
}

fn what(rule: P) -> rbac_pb::Permission {
    rbac_pb::Permission { rule: Some(rule) }
}

fn who(identifier: I) -> rbac_pb::Principal {
    rbac_pb::Principal { identifier: Some(identifier) }
}

fn header(name: &str, of: matcher::StringMatcher) -> P {
    P::Header(route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(of)),
        ..route::HeaderMatcher::default()
    })
}

fn path(of: M) -> P {
    P::UrlPath(matcher::PathMatcher { rule: Some(matcher::path_matcher::Rule::Path(text(of))) })
}

fn or(rules: Vec<P>) -> P {
    P::OrRules(rbac_pb::permission::Set { rules: rules.into_iter().map(what).collect() })
}

fn and(rules: Vec<P>) -> P {
    P::AndRules(rbac_pb::permission::Set { rules: rules.into_iter().map(what).collect() })
}

fn policy(permission: P, principal: I) -> rbac_pb::Policy {
    rbac_pb::Policy { permissions: vec![what(permission)], principals: vec![who(principal)] }
}

fn rules(action: Action, policies: &[(&str, rbac_pb::Policy)]) -> rbac_pb::Rbac {
    let policies = policies.iter().map(|(name, policy)| ((*name).to_owned(), policy.clone())).collect();
    rbac_pb::Rbac { action: action.into(), policies }
}

type Filter = (Option<rbac_pb::Rbac>, Option<rbac_pb::Rbac>);

fn gathered(filters: Vec<Filter>) -> Result<Option<Authorization>, String> {
    said(|cx| {
        let around = rbac::Around { http: true, trusts: false };
        let mut all = rbac::Gathered::default();
        for filter in filters {
            all.add(cx, around, filter)?;
        }
        Some(all.finish())
    })
}

/// As the model has it: what is denied, then what is allowed; where nothing decides, all pass.
fn passes(authorization: Option<&Authorization>, path: &str) -> bool {
    let rules: Vec<&Rule> =
        authorization.iter().flat_map(|all| all.rules.iter()).filter(|rule| rule.decides()).collect();
    let fits = |rule: &&&Rule| {
        rule.when.paths.is_empty() || rule.when.paths.contains(&PathPattern::Exact(path.into()))
    };
    let any = |effect| rules.iter().filter(fits).any(|rule| rule.effect == effect);
    rules.is_empty() || (!any(Effect::Deny) && any(Effect::Allow))
}

#[test]
fn filters_in_a_row_let_pass_what_they_do_there() {
    let at = |path_: &str| policy(path(M::Exact(path_.to_owned())), I::Any(true));
    let deny = || Some(rules(Action::Deny, &[("d", at("/a"))]));
    let allow = |path| Some(rules(Action::Allow, &[("a", at(path))]));
    let nobody = || Some(rules(Action::Allow, &[]));
    let log = || Some(rules(Action::Log, &[("l", at("/a"))]));
    // What passes of `/a`, `/b` and `/c`.
    for (filters, expected) in [
        (vec![], [true, true, true]),
        (vec![(None, None)], [true, true, true]),
        (vec![(deny(), None)], [false, true, true]),
        (vec![(Some(rules(Action::Deny, &[])), None)], [true, true, true]),
        (vec![(allow("/b"), None)], [false, true, false]),
        (vec![(nobody(), None)], [false, false, false]),
        (vec![(deny(), None), (allow("/b"), None)], [false, true, false]),
        (vec![(allow("/a"), None), (deny(), None)], [false, false, false]),
        (vec![(deny(), None), (nobody(), None)], [false, false, false]),
        (vec![(log(), None)], [true, true, true]),
        (vec![(log(), None), (deny(), None)], [false, true, true]),
        (vec![(log(), None), (nobody(), None)], [false, false, false]),
        (vec![(None, deny())], [true, true, true]),
        (vec![(None, nobody())], [true, true, true]),
        (vec![(allow("/b"), allow("/c"))], [false, true, false]),
    ] {
        let read = gathered(filters.clone()).unwrap();
        let passed = ["/a", "/b", "/c"].map(|path| passes(read.as_ref(), path));
        assert_eq!(passed, expected, "{filters:?}");
    }
    let two = gathered(vec![(allow("/a"), None), (allow("/b"), None)]);
    assert_eq!(two.unwrap_err(), "X.rules: one filter that allows is supported");
}

#[test]
fn a_policy_as_istio_writes_it_is_a_rule() {
    let get = header(":method", exact("GET"));
    let host = matcher::StringMatcher { ignore_case: true, ..exact("shop.example") };
    let permission = and(vec![
        or(vec![get, header(":method", exact("POST"))]),
        or(vec![path(M::Exact("/cart".to_owned())), path(M::Prefix("/items/".to_owned()))]),
        or(vec![header(":authority", host)]),
        or(vec![P::DestinationPort(8080)]),
    ]);
    let id = |pattern| {
        let principal_name = Some(text(pattern));
        who(I::Authenticated(rbac_pb::principal::Authenticated { principal_name }))
    };
    let ids = vec![
        id(M::Exact("spiffe://cluster.local/ns/a/sa/b".to_owned())),
        id(M::Prefix("spiffe://cluster.local/ns/c/".to_owned())),
    ];
    let principal =
        I::AndIds(rbac_pb::principal::Set { ids: vec![who(I::OrIds(rbac_pb::principal::Set { ids }))] });
    let name = "ns[shop]-policy[cart]-rule[0]";
    let read = gathered(vec![(Some(rules(Action::Allow, &[(name, policy(permission, principal))])), None)]);
    let Authorization { rules } = read.unwrap().unwrap();
    let [Rule { name: Some(called), effect: Effect::Allow, dry_run: false, when }] = &*rules else {
        panic!("{rules:?}")
    };
    assert_eq!(&**called, name);
    let When { peers, methods, hosts, paths, ports, .. } = when;
    assert_eq!((peers.len(), methods.len(), hosts.len(), paths.len(), ports.len()), (2, 2, 1, 2, 1));
}

#[test]
fn alternatives_become_rules_of_their_own() {
    let either = or(vec![header("x-a", exact("1")), path(M::Exact("/a".to_owned()))]);
    let read = gathered(vec![(Some(rules(Action::Allow, &[("p", policy(either, I::Any(true)))])), None)]);
    let Authorization { rules } = read.unwrap().unwrap();
    assert_eq!(rules.len(), 2);
    assert_eq!(rules[0].when.headers[0].value, StringMatch::Exact("1".into()));
    assert_eq!(rules[1].when.paths.len(), 1);
}

/// Of which some negate.
#[test]
fn fields_are_asked_for_in_old_words_and_new() {
    use HeaderMatchSpecifier as H;
    let regex = |regex: &str| StringMatch::Regex(crate::model::Pattern::new(regex).unwrap());
    for (of, invert_match, expected) in [
        (None, false, Ok(StringMatch::Present)),
        (Some(H::PresentMatch(true)), true, Ok(StringMatch::Absent)),
        (Some(H::PresentMatch(false)), false, Ok(StringMatch::Absent)),
        (Some(H::ExactMatch("a.b".to_owned())), false, Ok(StringMatch::Exact("a.b".into()))),
        (Some(H::SuffixMatch("a.b".to_owned())), false, Ok(regex("a\\.b$"))),
        (Some(H::ContainsMatch("a".to_owned())), false, Ok(regex("a"))),
        (Some(H::ExactMatch("a".to_owned())), true, Err("X.invert_match: not with a text".to_owned())),
    ] {
        let header =
            route::HeaderMatcher { name: "X-A".to_owned(), invert_match, header_match_specifier: of };
        let read = said(|cx| request::header(cx, header)).map(|when| when.headers[0].value.clone());
        assert_eq!(read, expected);
    }
}

#[test]
fn what_no_rule_says_is_refused_where_it_stands() {
    let at = "X.rules.policies[p]";
    let both = and(vec![path(M::Exact("/a".to_owned())), path(M::Exact("/b".to_owned()))]);
    let cidr = |prefix: &str, length| {
        I::RemoteIp(core::CidrRange { address_prefix: prefix.to_owned(), prefix_len: Some(length) })
    };
    let named = |of| I::Authenticated(rbac_pb::principal::Authenticated { principal_name: of });
    for (permission, principal, expected) in [
        (P::Any(false), I::Any(true), ".permissions[0].any: it can only be true"),
        (
            both,
            I::Any(true),
            ".permissions[0].and_rules: two lists of paths that both must fit are not supported",
        ),
        (P::DestinationPort(0), I::Any(true), ".permissions[0].destination_port: this is not a port"),
        (header(":path", exact("/a")), I::Any(true), ".permissions[0].header.name: `:path` is not supported"),
        (
            header(":authority", exact("a:80")),
            I::Any(true),
            ".permissions[0].header.string_match: this is not supported: write `exact` with a host, or `suffix` with a \
             domain behind a `.`",
        ),
        (
            P::Any(true),
            cidr("10.0.0.0", 33),
            ".principals[0].remote_ip.prefix_len: an address has not so many bits",
        ),
        (P::Any(true), named(None), ".principals[0].authenticated.principal_name: this is missing"),
        (
            P::Any(true),
            named(Some(text(M::Prefix("spiffe://a/b".to_owned())))),
            ".principals[0].authenticated.principal_name: write `exact`, or a `prefix` that ends in `/`",
        ),
        (
            P::Any(true),
            I::Metadata(matcher::MetadataMatcher::default()),
            ".principals[0].metadata: only claims are supported, written as Outrigger writes them",
        ),
    ] {
        let all = rules(Action::Deny, &[("p", policy(permission, principal))]);
        assert_eq!(gathered(vec![(Some(all), None)]).unwrap_err(), format!("{at}{expected}"));
    }
}

#[test]
fn what_is_only_shown_beside_what_decides_is_told_apart() {
    let at = |path_: &str| policy(path(M::Exact(path_.to_owned())), I::Any(true));
    let decides = rules(Action::Allow, &[("a", at("/a"))]);
    let shows = rules(Action::Allow, &[("a", at("/a")), ("b", at("/b"))]);
    let Authorization { rules } = gathered(vec![(Some(decides), Some(shows))]).unwrap().unwrap();
    let told: Vec<_> = rules.iter().map(|rule| (rule.name.as_deref(), rule.dry_run)).collect();
    assert_eq!(told, [(Some("a"), false), (Some("b"), true)]);
}

#[test]
fn an_expression_that_would_close_what_is_put_around_it_is_refused() {
    for regex in ["/a)|(?:/b", ""] {
        let regex = M::SafeRegex(matcher::RegexMatcher { regex: regex.to_owned() });
        let all = rules(Action::Allow, &[("p", policy(path(regex), I::Any(true)))]);
        let refused = gathered(vec![(Some(all), None)]).unwrap_err();
        assert!(refused.contains("safe_regex.regex: this is "), "{refused}");
    }
}

fn counted_by() -> service_pb::RateLimit {
    let target = core::grpc_service::EnvoyGrpc { cluster_name: "rls".to_owned() };
    let target_specifier = Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(target));
    service_pb::RateLimit {
        domain: "shop".to_owned(),
        rate_limit_service: Some(ratelimit_pb::RateLimitServiceConfig {
            grpc_service: Some(core::GrpcService { target_specifier, timeout: None }),
            transport_api_version: core::ApiVersion::V3.into(),
        }),
        ..service_pb::RateLimit::default()
    }
}

#[test]
fn a_service_that_counts_is_asked_as_envoy_would() {
    let read = said(|cx| rate_limit::filter(cx, counted_by(), 0)).unwrap();
    let expected = crate::model::RateLimitService {
        cluster: crate::model::Name::new("rls").unwrap(),
        domain: "shop".into(),
        timeout: std::time::Duration::from_millis(20),
        on_failure: crate::model::OnFailure::Allow,
        cache: 0,
    };
    assert_eq!(read, expected);
    type Change = fn(&mut service_pb::RateLimit);
    let rows: [(Change, &str); 7] = [
        (|all| all.domain.clear(), "domain: this is empty"),
        (|all| all.stage = 1, "stage: 0 alone is supported"),
        (
            |all| all.request_type = "internal".to_owned(),
            "request_type: requests of both kinds are counted: write `both`",
        ),
        (
            |all| all.status_on_error = Some(kind::HttpStatus { code: 500 }),
            "status_on_error: 503 alone is supported",
        ),
        (|all| all.timeout = Some(prost_types::Duration::default()), "timeout: there must be one"),
        (|all| all.rate_limit_service = None, "rate_limit_service: this is missing"),
        (
            |all| {
                all.rate_limit_service.as_mut().unwrap().grpc_service.as_mut().unwrap().timeout =
                    Some(prost_types::Duration::default())
            },
            "rate_limit_service.grpc_service.timeout: the filter has a `timeout`: write it there",
        ),
    ];
    for (change, expected) in rows {
        let mut filter = counted_by();
        change(&mut filter);
        assert_eq!(said(|cx| rate_limit::filter(cx, filter, 0)), Err(format!("X.{expected}")));
    }
}

fn limit_of(action: route::rate_limit::action::ActionSpecifier) -> route::RateLimit {
    route::RateLimit {
        actions: vec![route::rate_limit::Action { action_specifier: Some(action) }],
        ..route::RateLimit::default()
    }
}

fn limits_of(limit: route::RateLimit) -> Result<Vec<rate_limit::Limit>, String> {
    said(|cx| rate_limit::limits(cx, "rate_limits", vec![limit]))
}

fn by_header(header_name: &str, descriptor_key: &str) -> route::rate_limit::action::ActionSpecifier {
    let (header_name, descriptor_key) = (header_name.to_owned(), descriptor_key.to_owned());
    route::rate_limit::action::ActionSpecifier::RequestHeaders(route::rate_limit::action::RequestHeaders {
        header_name,
        descriptor_key,
        skip_if_absent: true,
    })
}

fn unless_headers(names: &[&str]) -> route::rate_limit::action::ActionSpecifier {
    let matcher = |name: &&str| route::HeaderMatcher { name: (*name).to_owned(), ..Default::default() };
    route::rate_limit::action::ActionSpecifier::HeaderValueMatch(
        route::rate_limit::action::HeaderValueMatch {
            descriptor_value: "v".to_owned(),
            expect_match: Some(false),
            headers: names.iter().map(matcher).collect(),
            descriptor_key: String::new(),
        },
    )
}

#[test]
fn what_requests_count_as_is_read_action_by_action() {
    use crate::model::{Absent, DescriptorEntry as D, HeaderMatch, Only, OnlyOf};
    use route::rate_limit::action::{self as pb, ActionSpecifier as A};
    let only = HeaderMatch { name: HeaderName::from_static("x"), value: StringMatch::Present };
    let rows = [
        (A::SourceCluster(pb::SourceCluster {}), D::SourceCluster),
        (A::DestinationCluster(pb::DestinationCluster {}), D::DestinationCluster),
        (
            by_header("X-Key", "key"),
            D::Header { name: HeaderName::from_static("x-key"), key: "key".into(), absent: Absent::Entry },
        ),
        (
            unless_headers(&["x"]),
            D::Fixed {
                key: "header_match".into(),
                value: "v".into(),
                only: Some(Only { fits: false, of: OnlyOf::Headers(vec![only]) }),
            },
        ),
    ];
    for (action, expected) in rows {
        let (entries, hits) = limits_of(limit_of(action)).unwrap().remove(0);
        assert_eq!((entries, hits.get()), (vec![expected], 1));
    }
}

/// Envoy compares what a query holds once it is decoded, otherwise than where it chooses routes.
#[test]
fn parameters_that_limits_ask_for_are_texts_as_they_are_written() {
    use crate::model::{DescriptorEntry, GlobalRateLimit, Only, OnlyOf, QueryMatch};
    use route::query_parameter_matcher::QueryParameterMatchSpecifier as Q;
    use route::rate_limit::action::{ActionSpecifier, QueryParameterValueMatch};
    for text in ["a b", "a%20b", "a+b", "%", "%zz", "a%2520b"] {
        let parts: [(M, StringMatch); 2] = [
            (M::Exact(text.to_owned()), StringMatch::Exact(text.into())),
            (M::Prefix(text.to_owned()), StringMatch::Prefix(text.into())),
        ];
        for (written, value) in parts {
            let wanted = matcher::StringMatcher { match_pattern: Some(written), ignore_case: false };
            let query_parameters = vec![route::QueryParameterMatcher {
                name: text.to_owned(),
                query_parameter_match_specifier: Some(Q::StringMatch(wanted)),
            }];
            let action = ActionSpecifier::QueryParameterValueMatch(QueryParameterValueMatch {
                descriptor_value: "v".to_owned(),
                query_parameters,
                ..Default::default()
            });
            let (entries, hits) = limits_of(limit_of(action.clone())).unwrap().remove(0);
            let of = OnlyOf::Query(vec![QueryMatch { name: text.into(), value }]);
            let (key, only) = ("query_match".into(), Some(Only { fits: true, of }));
            assert_eq!(entries, [DescriptorEntry::Fixed { key, value: "v".into(), only }]);
            let limit = GlobalRateLimit { service: None, descriptors: vec![entries], hits };
            let route = crate::model::Route {
                global_rate_limit: Some(Box::new(limit)),
                ..super::super::route::nothing()
            };
            let back = write::filters::of_route(&route);
            let mut back = back
                .values()
                .filter_map(|any| is::<service_pb::RateLimitPerRoute>(any).then_some(&*any.value));
            let back = service_pb::RateLimitPerRoute::decode(back.next().unwrap()).unwrap();
            assert_eq!(back.rate_limits[0].actions[0].action_specifier, Some(action), "{text}");
        }
    }
}

#[test]
fn what_requests_cannot_count_as_is_named() {
    let later = route::RateLimit { stage: Some(1), ..limit_of(by_header("x", "x")) };
    for (limit, expected) in [
        (later, "stage: 0 alone is supported"),
        (
            limit_of(by_header(":path", "path")),
            "actions[0].request_headers.header_name: `:path` is not supported",
        ),
        (limit_of(by_header("x", "")), "actions[0].request_headers.descriptor_key: this is empty"),
        (
            limit_of(unless_headers(&[":method"])),
            "actions[0].header_value_match.headers[0].name: the method is not supported here",
        ),
        (limit_of(unless_headers(&[])), "actions[0].header_value_match: nothing is asked for"),
    ] {
        assert_eq!(limits_of(limit), Err(format!("X.rate_limits[0].{expected}")));
    }
}
