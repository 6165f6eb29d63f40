//! What a route matches and does, field by field, and how each fault is named.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::super::any::OURS;
use super::super::super::generated::envoy::config::core::v3 as core;
use super::super::super::generated::envoy::r#type::matcher::v3 as matcher;
use super::super::super::generated::envoy::r#type::v3 as kind;
use super::super::super::generated::outrigger::extensions::v1 as ours;
use super::*;
use crate::model::{Destination, HashKey, HashOn, HeaderMatch, Hedge, HedgeAfter, Retry, StringMatch};

fn headed(name: &str, of: pb::header_matcher::HeaderMatchSpecifier, invert_match: bool) -> pb::Route {
    let mut route = sent(prefix("/"), to("a"));
    let header = pb::HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(of), invert_match };
    route.r#match.as_mut().unwrap().headers = vec![header];
    route
}

#[test]
fn headers_are_matched() {
    use matcher::string_matcher::MatchPattern as M;
    use pb::header_matcher::HeaderMatchSpecifier as H;
    let text =
        |of, ignore_case| H::StringMatch(matcher::StringMatcher { match_pattern: Some(of), ignore_case });
    let check = |of: H, inverted, expected: StringMatch| {
        let HeaderMatch { name: _, value } = one(headed("x", of, inverted)).matches.headers[0].clone();
        assert_eq!(value, expected);
    };
    let regex = |regex| StringMatch::Regex(Pattern::new(regex).unwrap());
    let expression = |regex: &str| matcher::RegexMatcher { regex: regex.to_owned() };
    let word = || "a.b".to_owned();
    check(H::PresentMatch(true), true, StringMatch::Absent);
    check(H::PresentMatch(false), true, StringMatch::Present);
    check(H::ExactMatch(word()), false, StringMatch::Exact("a.b".into()));
    check(H::PrefixMatch(word()), false, StringMatch::Prefix("a.b".into()));
    check(H::SuffixMatch(word()), false, regex("a\\.b$"));
    check(H::ContainsMatch(word()), false, regex("a\\.b"));
    check(H::SafeRegexMatch(expression("a|b")), false, regex("^(?:a|b)$"));
    check(text(M::Suffix(word()), false), false, regex("a\\.b$"));
    check(text(M::Exact(word()), true), false, regex("^(?i-u:a\\.b)$"));
    let methods = |of: H| one(headed(":method", of, false)).matches.methods;
    let both = [Method::GET, Method::POST];
    for written in ["GET|POST", "^(?:GET|POST)$", "(GET|POST)", "^GET|POST$"] {
        assert_eq!(methods(text(M::SafeRegex(expression(written)), false)), both, "{written}");
    }
    assert_eq!(one(headed(":authority", H::ExactMatch(word()), false)).matches.headers[0].name, "host");
    let at = "match.headers[0].";
    check_refused(headed("x", H::ExactMatch(word()), true), &format!("{at}invert_match: "));
    check_refused(headed(":path", H::ExactMatch(word()), false), &format!("{at}name: "));
    check_refused(headed(":method", H::PrefixMatch(word()), false), "match.headers[0]: ");
    let any = text(M::SafeRegex(expression("G.*")), false);
    check_refused(headed(":method", any, false), &format!("{at}string_match.safe_regex.regex: "));
    check_refused(headed("x", H::SuffixMatch(String::new()), false), &format!("{at}suffix_match: "));
    let bracket = text(M::SafeRegex(expression("a)(b")), false);
    check_refused(headed("x", bracket, false), &format!("{at}string_match.safe_regex.regex: "));
}

#[test]
fn parameters_are_matched_as_clients_send_them() {
    use matcher::string_matcher::MatchPattern as M;
    use pb::query_parameter_matcher::QueryParameterMatchSpecifier as Q;
    let asked = |name: &str, of: Option<Q>| {
        let mut route = sent(prefix("/"), to("a"));
        let parameter =
            pb::QueryParameterMatcher { name: name.to_owned(), query_parameter_match_specifier: of };
        route.r#match.as_mut().unwrap().query_parameters = vec![parameter];
        route
    };
    let exact = |text: &str| {
        let match_pattern = Some(M::Exact(text.to_owned()));
        Some(Q::StringMatch(matcher::StringMatcher { match_pattern, ignore_case: false }))
    };
    let read = one(asked("a%20b", exact("c+d"))).matches.query[0].clone();
    assert_eq!((&*read.name, read.value), ("a b", StringMatch::Exact("c d".into())));
    assert_eq!(one(asked("a", None)).matches.query[0].value, StringMatch::Present);
    let absent = asked("a", Some(Q::PresentMatch(false)));
    assert_eq!(one(absent).matches.query[0].value, StringMatch::Absent);
    check_refused(asked("a", exact("%ff")), "match.query_parameters[0].string_match.exact: ");
}

#[test]
fn calls_of_grpc_are_told_by_what_they_hold() {
    let mut route = sent(prefix("/"), to("a"));
    route.r#match.as_mut().unwrap().grpc = Some(pb::route_match::GrpcRouteMatchOptions {});
    let header = one(route).matches.headers[0].clone();
    let StringMatch::Regex(pattern) = header.value else { panic!("an expression") };
    let rows =
        [("application/grpc", true), ("application/grpc+proto", true), ("application/grpc-web", false)];
    for (kind, expected) in rows {
        assert_eq!(pattern.is_match(kind), expected, "{kind}");
    }
}

#[test]
fn what_cannot_be_meant_is_named() {
    let at = |change: fn(&mut pb::RouteAction)| {
        let mut action = to("a");
        change(&mut action);
        sent(prefix("/a"), action)
    };
    check_refused(at(|to| to.prefix_rewrite = "b".to_owned()), "route.prefix_rewrite: ");
    let found = |regex: &str, substitution: &str| {
        let pattern = Some(matcher::RegexMatcher { regex: regex.to_owned() });
        let regex_rewrite =
            Some(matcher::RegexMatchAndSubstitute { pattern, substitution: substitution.to_owned() });
        sent(prefix("/a"), pb::RouteAction { regex_rewrite, ..to("a") })
    };
    check_refused(found("(", "/b"), "route.regex_rewrite.pattern.regex: ");
    check_refused(found("a", r"\1"), "route.regex_rewrite.substitution: the expression has no bracket 1");
    check_refused(found("^.*$", r"/\1"), "route.regex_rewrite.substitution: the expression has no bracket 1");
    check_refused(found("a", "/b?c"), "route.regex_rewrite.substitution: `?` cannot stand in a path");
    check_refused(at(|to| to.metadata_match = Some(core::Metadata::default())), "route.metadata_match: ");
    let upgrade =
        pb::route_action::UpgradeConfig { upgrade_type: "websocket".to_owned(), enabled: Some(false) };
    let mut without = to("a");
    without.upgrade_configs = vec![upgrade];
    check_refused(sent(prefix("/"), without), "route.upgrade_configs[0].enabled: ");
    let copies = |to: &mut pb::RouteAction| {
        let copy = pb::route_action::RequestMirrorPolicy { cluster: "c".to_owned(), ..Default::default() };
        to.request_mirror_policies = vec![copy; 2];
    };
    check_refused(at(copies), "route.request_mirror_policies: ");
    let retry = |to: &mut pb::RouteAction| {
        to.retry_policy =
            Some(pb::RetryPolicy { retry_on: "5xx,envoy-ratelimited".to_owned(), ..Default::default() });
    };
    check_refused(at(retry), "route.retry_policy.retry_on: `envoy-ratelimited` is not supported");
    check_refused(
        at(|to| to.hedge_policy = Some(pb::HedgePolicy { initial_requests: Some(2), ..Default::default() })),
        "route.hedge_policy.initial_requests: ",
    );
    let mut case = sent(prefix("/a"), to("a"));
    case.r#match.as_mut().unwrap().case_sensitive = Some(false);
    check_refused(case, "match.case_sensitive: ");
    let mut some = sent(prefix("/a"), to("a"));
    some.r#match.as_mut().unwrap().runtime_fraction = Some(core::RuntimeFractionalPercent {
        default_value: Some(kind::FractionalPercent { numerator: 99, denominator: 0 }),
        runtime_key: String::new(),
    });
    check_refused(some, "match.runtime_fraction: ");
}

/// A field by its number, as bytes.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

#[test]
fn what_is_hashed_is_read_in_its_order() {
    use pb::route_action::hash_policy::{ConnectionProperties, Header, PolicySpecifier};
    let hashed = |on: Vec<(PolicySpecifier, bool)>| {
        let policy = |(of, terminal)| pb::route_action::HashPolicy { policy_specifier: Some(of), terminal };
        sent(prefix("/"), pb::RouteAction { hash_policy: on.into_iter().map(policy).collect(), ..to("a") })
    };
    let header = |name: &str| PolicySpecifier::Header(Header { header_name: name.to_owned() });
    let source = |source_ip| PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip });
    let expected = [
        HashKey { on: HashOn::Header(HeaderName::from_static("x-user")), terminal: true },
        HashKey { on: HashOn::Source, terminal: false },
    ];
    let read = forward_of(hashed(vec![(header("X-User"), true), (source(true), false)]));
    assert_eq!(*read.hash, expected);
    let at = "route.hash_policy[0].";
    check_refused(hashed(vec![(header(":path"), false)]), &format!("{at}header.header_name: "));
    check_refused(hashed(vec![(source(false), false)]), &format!("{at}connection_properties: "));
}

#[test]
fn what_is_not_in_the_subset_is_named() {
    // A second host, with a route; a match, an action.
    const HOST: &[u32] = &[2];
    const ROUTE: &[u32] = &[2, 3];
    const MATCH: &[u32] = &[2, 3, 1];
    const ACTION: &[u32] = &[2, 3, 2];
    let rows: [(&[u32], u32, &str); 21] = [
        (&[], 3, "internal_only_headers"),
        (&[], 12, "cluster_specifier_plugins"),
        (&[], 16, "typed_per_filter_config"),
        (&[2, 6], 6, "virtual_hosts[1].rate_limits[0].apply_on_stream_done"),
        (&[2, 6, 3], 10, "virtual_hosts[1].rate_limits[0].actions[0].masked_remote_address"),
        (HOST, 8, "virtual_hosts[1].cors"),
        (HOST, 15, "virtual_hosts[1].typed_per_filter_config"),
        (HOST, 21, "virtual_hosts[1].matcher"),
        (ROUTE, 18, "virtual_hosts[1].routes[0].non_forwarding_action"),
        (MATCH, 11, "virtual_hosts[1].routes[0].match.tls_context"),
        (MATCH, 12, "virtual_hosts[1].routes[0].match.connect_matcher"),
        (MATCH, 13, "virtual_hosts[1].routes[0].match.dynamic_metadata"),
        (&[2, 3, 1, 6], 6, "virtual_hosts[1].routes[0].match.headers[0].range_match"),
        (ACTION, 2, "virtual_hosts[1].routes[0].route.cluster_header"),
        (&[2, 3, 2, 15], 6, "virtual_hosts[1].routes[0].route.hash_policy[0].filter_state"),
        (&[2, 3, 2, 15, 1], 2, "virtual_hosts[1].routes[0].route.hash_policy[0].header.regex_rewrite"),
        (&[2, 3, 2, 15, 2], 4, "virtual_hosts[1].routes[0].route.hash_policy[0].cookie.attributes"),
        (ACTION, 24, "virtual_hosts[1].routes[0].route.idle_timeout"),
        (ACTION, 29, "virtual_hosts[1].routes[0].route.host_rewrite_header"),
        (&[2, 3, 2, 9], 4, "virtual_hosts[1].routes[0].route.retry_policy.retry_priority"),
        (&[2, 3, 3], 9, "virtual_hosts[1].routes[0].redirect.regex_rewrite"),
    ];
    for (above, number, expected) in rows {
        let mut value = table_of(vec![sent(prefix("/"), to("a"))]).encode_to_vec();
        let bad = above.iter().rev().fold(field(number, &[]), |inner, number| field(*number, &inner));
        value.extend(bad);
        let said = read_any(&Any { type_url: Kind::Routes.url(), value }).unwrap_err();
        let expected = format!("RouteConfiguration[web].{expected}: not supported");
        assert!(said.contains(&expected), "{said}\nand not\n{expected}");
    }
}

/// A route with this beside it.
fn beside(route: ours::Route) -> pb::Route {
    let any = Any {
        type_url: "type.googleapis.com/outrigger.extensions.v1.Route".to_owned(),
        value: route.encode_to_vec(),
    };
    let metadata = core::Metadata {
        typed_filter_metadata: BTreeMap::from([(OURS.to_owned(), any)]),
        ..Default::default()
    };
    pb::Route { metadata: Some(metadata), ..sent(prefix("/"), to("a")) }
}

#[test]
fn the_extension_is_read_strictly() {
    let mut labelled = beside(ours::Route { subsets: vec!["v2".to_owned()], ..Default::default() });
    let Some(pb::route::Action::Route(action)) = &mut labelled.action else { panic!("it is sent on") };
    action.metadata_match = Some(core::Metadata::default());
    let to = Destination { cluster: named("a"), subset: Some(named("v2")) };
    assert_eq!(forward_of(labelled).to.targets[0].to, to);
    let retry = ours::route::Retry { idempotent_only: true, ..Default::default() };
    let rows = [
        (
            ours::Route { redirect: true, ..Default::default() },
            "metadata: the extension calls this a redirect",
        ),
        (ours::Route { retry: Some(retry), ..Default::default() }, "route.retry_policy: the extension adds"),
        (
            ours::Route { hedge: Some(Default::default()), ..Default::default() },
            "route.hedge.after: this is missing",
        ),
        (ours::Route { fallback: Some(Default::default()), ..Default::default() }, "route.fallback: neither"),
        (
            ours::Route { concurrency: Some(Default::default()), ..Default::default() },
            "concurrency.max: this is zero",
        ),
        (
            ours::Route { subsets: vec![String::new(); 2], ..Default::default() },
            "route: the extension names parts",
        ),
    ];
    for (route, expected) in rows {
        check_refused(beside(route), expected);
    }
    let mut other = beside(ours::Route::default());
    let metadata = other.metadata.as_mut().unwrap();
    metadata.typed_filter_metadata.get_mut(OURS).unwrap().type_url = "outrigger.Other".to_owned();
    check_refused(other, "metadata.typed_filter_metadata[outrigger]: `outrigger.Other` says nothing");
    let mut unknown = beside(ours::Route::default());
    let metadata = unknown.metadata.as_mut().unwrap();
    metadata.typed_filter_metadata.get_mut(OURS).unwrap().value = vec![99 << 3 & 0x78, 1];
    assert!(read_table(&table_of(vec![unknown])).is_err());
}

#[test]
fn what_envoy_has_a_field_for_is_no_extension() {
    let retry = Retry { non_idempotent: true, per_try_timeout: None, ..Retry::default() };
    let forward = Forward {
        retry: Some(Box::new(retry)),
        hedge: Some(Hedge { after: HedgeAfter::Fixed(Duration::from_millis(100)) }),
        ..Forward::to(named("a"))
    };
    let table = RouteTable {
        routes: [Route::new(Match::default(), Action::Forward(forward))].into(),
        on_demand: false,
    };
    let theirs = pb::RouteConfiguration::decode(&*written(&table).value).unwrap();
    let route = &theirs.virtual_hosts[0].routes[0];
    assert_eq!((&route.metadata, route.request_body_buffer_limit), (&None, Some(64 << 10)));
    let Some(pb::route::Action::Route(to)) = &route.action else { panic!("it is sent on") };
    let policy = to.retry_policy.as_ref().unwrap();
    assert_eq!(policy.retry_on, "connect-failure,refused-stream,reset,gateway-error");
    assert!(to.hedge_policy.as_ref().unwrap().hedge_on_per_try_timeout && policy.per_try_timeout.is_some());
}
