//! Tables as foreign control planes write them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::super::generated::envoy::config::core::v3 as core;
use super::super::super::generated::envoy::r#type::matcher::v3 as matcher;
use super::super::super::generated::envoy::r#type::v3 as kind;
use super::*;
use crate::model::{Backoff, DescriptorEntry, Hedge, HedgeAfter, Redirect, RetryCondition};

#[test]
fn a_route_of_istio() {
    let previous = prost_types::Any {
        type_url: "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            .to_owned(),
        value: Vec::new(),
    };
    let predicate = pb::retry_policy::RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(pb::retry_policy::retry_host_predicate::ConfigType::TypedConfig(previous)),
    };
    let labels = core::Metadata {
        typed_filter_metadata: BTreeMap::from([(
            "com.example".to_owned(),
            Any { type_url: "type.googleapis.com/com.example.Label".to_owned(), value: vec![8, 1] },
        )]),
        filter_metadata: BTreeMap::from([("istio".to_owned(), prost_types::Struct::default())]),
    };
    let action = pb::RouteAction {
        timeout: seconds(0),
        max_grpc_timeout: seconds(0),
        retry_policy: Some(pb::RetryPolicy {
            retry_on: "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
                .to_owned(),
            num_retries: Some(2),
            retry_host_predicate: vec![predicate],
            host_selection_retry_max_attempts: 5,
            retriable_status_codes: vec![503],
            ..Default::default()
        }),
        ..to("outbound|9080||reviews.default.svc.cluster.local")
    };
    let route = pb::Route { name: "default".to_owned(), metadata: Some(labels), ..sent(prefix("/"), action) };
    let mut table = table_of(vec![route]);
    let host = &mut table.virtual_hosts[0];
    host.domains = vec!["reviews:9080".to_owned(), "reviews".to_owned(), "reviews.default.svc".to_owned()];
    let table = read_table(&table).unwrap();
    assert_eq!((table.routes.len(), table.routes[0].matches.hosts.len()), (1, 2));
    let Action::Forward(forward) = &table.routes[0].action else { panic!("it is sent on") };
    assert_eq!(forward.timeout, None);
    let retry = forward.retry.as_ref().unwrap();
    assert_eq!((retry.attempts.get(), retry.max_body, retry.non_idempotent), (3, 1 << 20, true));
    assert_eq!(retry.backoff, Backoff::default());
    let expected = [
        RetryCondition::ConnectFailure,
        RetryCondition::RefusedStream,
        RetryCondition::Grpc(14),
        RetryCondition::Grpc(1),
        RetryCondition::Status(StatusCode::SERVICE_UNAVAILABLE),
    ];
    assert_eq!(retry.conditions, expected);
}

#[test]
fn what_a_host_says_holds_for_its_routes() {
    let own = pb::RouteAction {
        retry_policy: Some(pb::RetryPolicy { retry_on: "5xx".to_owned(), ..Default::default() }),
        ..to("b")
    };
    let mut table = table_of(vec![sent(prefix("/"), to("a")), sent(prefix("/"), own)]);
    let host = &mut table.virtual_hosts[0];
    host.retry_policy = Some(pb::RetryPolicy {
        retry_on: "gateway-error".to_owned(),
        per_try_timeout: seconds(1),
        ..Default::default()
    });
    host.hedge_policy = Some(pb::HedgePolicy { initial_requests: Some(1), hedge_on_per_try_timeout: true });
    host.request_body_buffer_limit = Some(9);
    table.request_mirror_policies = vec![pb::route_action::RequestMirrorPolicy {
        cluster: "copy".to_owned(),
        runtime_fraction: Some(core::RuntimeFractionalPercent {
            default_value: Some(kind::FractionalPercent { numerator: 5, denominator: 1 }),
            runtime_key: "share".to_owned(),
        }),
        ..Default::default()
    }];
    let table = read_table(&table).unwrap();
    let forwards: Vec<_> = table
        .routes
        .iter()
        .map(|route| match &route.action {
            Action::Forward(forward) => forward,
            other => panic!("{other:?}"),
        })
        .collect();
    let retry = forwards[0].retry.as_ref().unwrap();
    assert_eq!((retry.max_body, retry.conditions.len(), retry.per_try_timeout), (9, 4, None));
    assert_eq!(forwards[0].hedge, Some(Hedge { after: HedgeAfter::Fixed(Duration::from_secs(1)) }));
    let retry = forwards[1].retry.as_ref().unwrap();
    assert_eq!((&*retry.conditions, forwards[1].hedge), (&[RetryCondition::ServerError][..], None));
    assert_eq!(forwards[1].mirror.as_ref().unwrap().percent.millionths(), 500);
}

fn set(name: &str, value: &str) -> Vec<core::HeaderValueOption> {
    vec![core::HeaderValueOption {
        header: Some(core::HeaderValue { key: name.to_owned(), value: value.to_owned() }),
        append_action: core::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..Default::default()
    }]
}

/// What a request to the first target, and its answer, are left with of `x`.
fn left(route: &Route) -> [String; 2] {
    let Action::Forward(forward) = &route.action else { panic!("it is sent on") };
    let target = &forward.to.targets[0];
    let left = |edits: [&HeaderEdits; 2]| {
        let mut headers = HeaderMap::new();
        edits.into_iter().for_each(|edits| apply(&mut headers, edits));
        headers["x"].to_str().unwrap().to_owned()
    };
    [
        left([&route.request_headers, &target.request_headers]),
        left([&target.response_headers, &route.response_headers]),
    ]
}

#[test]
fn the_level_that_wins_has_the_last_word() {
    let share = pb::weighted_cluster::ClusterWeight {
        name: "a".to_owned(),
        weight: Some(1),
        request_headers_to_add: set("x", "share"),
        response_headers_to_add: set("x", "share"),
        ..Default::default()
    };
    let split = pb::WeightedCluster { clusters: vec![share] };
    let split = pb::route_action::ClusterSpecifier::WeightedClusters(split);
    let action = pb::RouteAction { cluster_specifier: Some(split), ..Default::default() };
    let route = pb::Route {
        request_headers_to_add: set("x", "route"),
        response_headers_to_add: set("x", "route"),
        ..sent(prefix("/"), action)
    };
    let mut table = table_of(vec![route]);
    table.virtual_hosts[0].request_headers_to_add = set("x", "host");
    table.response_headers_to_add = set("x", "table");
    assert_eq!(left(&read_table(&table).unwrap().routes[0]), ["host", "table"]);
    table.most_specific_header_mutations_wins = true;
    assert_eq!(left(&read_table(&table).unwrap().routes[0]), ["share", "share"]);
}

#[test]
fn values_of_headers() {
    let route =
        |value: &str| pb::Route { request_headers_to_add: set("x", value), ..sent(prefix("/"), to("a")) };
    assert_eq!(one(route("5 %% of")).request_headers.set[0].1, "5 % of");
    assert!(one(route("")).request_headers.is_empty());
    for value in ["%START_TIME%", "%", "%%%"] {
        check_refused(route(value), "request_headers_to_add[0].header.value: `%` begins a variable there");
    }
}

#[test]
fn hosts_beside_all_hosts_stay_more_specific() {
    let mut table = table_of(vec![sent(prefix("/"), to("a"))]);
    table.virtual_hosts[0].domains = vec!["*".to_owned(), "a.b".to_owned()];
    let mut other = table.virtual_hosts[0].clone();
    other.domains = vec!["*.b".to_owned()];
    table.virtual_hosts.push(other);
    let table = read_table(&table).unwrap();
    let hosts: Vec<_> = table.routes.iter().map(|route| route.matches.hosts.clone()).collect();
    assert_eq!(hosts[..2], [vec![HostPattern::Exact("a.b".into())], vec![]]);
}

#[test]
fn paths_are_rewritten() {
    use pb::route_match::PathSpecifier as P;
    let check = |path: P, prefix: &str, regex: Option<(&str, &str)>, expected: PathRewrite| {
        let regex_rewrite = regex.map(|(regex, substitution)| matcher::RegexMatchAndSubstitute {
            pattern: Some(matcher::RegexMatcher { regex: regex.to_owned() }),
            substitution: substitution.to_owned(),
        });
        let action = pb::RouteAction { prefix_rewrite: prefix.to_owned(), regex_rewrite, ..to("a") };
        assert_eq!(forward_of(sent(path, action)).rewrite.path, Some(expected));
    };
    let cart = || P::PathSeparatedPrefix("/cart".to_owned());
    check(cart(), "/new", None, PathRewrite::Prefix("/new".into()));
    check(prefix("/"), "/new/", None, PathRewrite::Prefix("/new".into()));
    check(P::Path("/cart".to_owned()), "/new", None, PathRewrite::Whole("/new".into()));
    check(cart(), "", Some(("^/.*$", "/new")), PathRewrite::Whole("/new".into()));
    let found = |pattern: &str, with: &str| {
        PathRewrite::Found(crate::model::Replace::new(Pattern::new(pattern).unwrap(), with).unwrap())
    };
    check(prefix("/cart"), "/new", None, found("^/cart", "/new"));
    check(
        P::SafeRegex(matcher::RegexMatcher { regex: "/v[0-9]+/.*".to_owned() }),
        "/new",
        None,
        PathRewrite::Whole("/new".into()),
    );
    check(cart(), "", Some(("^/([^/]+)/([0-9]+)", r"/\2/\1")), found("^/([^/]+)/([0-9]+)", r"/\2/\1"));
    check(cart(), "", Some(("/cart", "")), found("/cart", ""));
    check(cart(), "", Some(("^/cart(/?)(.*)", r"/\2")), PathRewrite::Prefix("".into()));
    check(cart(), "", Some(("^/cart/?", "/")), PathRewrite::Prefix("".into()));
    let rewritten = one(sent(prefix("/"), pb::RouteAction { prefix_rewrite: "/x/".to_owned(), ..to("a") }));
    assert_eq!(rewritten.matches.path, PathMatch::Prefix("".into()));
}

#[test]
fn redirects_to_one_place() {
    let check = |action: pb::RedirectAction, expected: Result<&str, &str>| {
        let route = route_of(prefix("/"), pb::route::Action::Redirect(action));
        match expected {
            Ok(to) => {
                let to = HeaderValue::from_str(to).unwrap();
                let status = StatusCode::MOVED_PERMANENTLY;
                assert_eq!(one(route).action, Action::Redirect(Redirect { to, status }));
            }
            Err(why) => check_refused(route, &format!("redirect.{why}")),
        }
    };
    use pb::redirect_action::{PathRewriteSpecifier as P, SchemeRewriteSpecifier as S};
    let path = |path: &str| pb::RedirectAction {
        path_rewrite_specifier: Some(P::PathRedirect(path.to_owned())),
        strip_query: true,
        ..Default::default()
    };
    let https = Some(S::HttpsRedirect(true));
    check(path("/new"), Ok("/new"));
    check(path("/new?a=b"), Ok("/new?a=b"));
    let away = pb::RedirectAction {
        scheme_rewrite_specifier: https.clone(),
        host_redirect: "a.b".to_owned(),
        port_redirect: 8443,
        ..path("/new")
    };
    check(away, Ok("https://a.b:8443/new"));
    check(pb::RedirectAction { strip_query: false, ..path("/new") }, Err("strip_query: "));
    check(
        pb::RedirectAction { scheme_rewrite_specifier: https.clone(), ..path("/new") },
        Err("host_redirect: "),
    );
    check(pb::RedirectAction { host_redirect: "a.b".to_owned(), ..path("/new") }, Err("host_redirect: "));
    check(
        pb::RedirectAction { scheme_rewrite_specifier: https, ..Default::default() },
        Err("path_redirect: "),
    );
    check(path("//a.b"), Err("path_redirect: "));
}

#[test]
fn times_of_calls() {
    let timed = |timeout, stream, most, grpc| {
        let max_stream_duration = pb::route_action::MaxStreamDuration {
            max_stream_duration: stream,
            grpc_timeout_header_max: most,
        };
        let action = pb::RouteAction {
            timeout,
            max_stream_duration: Some(max_stream_duration),
            max_grpc_timeout: grpc,
            ..to("a")
        };
        sent(prefix("/"), action)
    };
    let secs = |secs| Some(Duration::from_secs(secs));
    assert_eq!(forward_of(timed(None, None, None, None)).timeout, secs(15));
    assert_eq!(forward_of(timed(None, seconds(3), None, None)).timeout, secs(3));
    assert_eq!(forward_of(timed(seconds(0), seconds(3), None, None)).timeout, secs(3));
    assert_eq!(forward_of(timed(seconds(2), seconds(0), seconds(2), seconds(2))).timeout, secs(2));
    assert_eq!(forward_of(timed(seconds(0), None, seconds(0), seconds(0))).timeout, None);
    check_refused(
        timed(seconds(2), None, seconds(1), None),
        "route.max_stream_duration.grpc_timeout_header_max: ",
    );
    check_refused(timed(seconds(2), None, None, seconds(0)), "route.max_grpc_timeout: ");
    check_refused(timed(seconds(-1), None, None, None), "route.timeout: ");
}

/// A limit by this value.
fn limit(value: &str) -> pb::RateLimit {
    use pb::rate_limit::action::{ActionSpecifier, GenericKey};
    let key = GenericKey { descriptor_value: value.to_owned(), descriptor_key: String::new() };
    pb::RateLimit {
        actions: vec![pb::rate_limit::Action { action_specifier: Some(ActionSpecifier::GenericKey(key)) }],
        ..Default::default()
    }
}

/// Envoy's filter looks at nothing but what is sent on, whatever is said of the rest.
#[test]
fn answers_and_redirects_count_as_nothing() {
    use super::super::super::generated::envoy::extensions::filters::http::ratelimit::v3::RateLimitPerRoute;
    let counted = RateLimitPerRoute { rate_limits: vec![limit("here")], ..Default::default() };
    let any = prost_types::Any {
        type_url: format!("type.googleapis.com/{}", <RateLimitPerRoute as prost::Name>::full_name()),
        value: prost::Message::encode_to_vec(&counted),
    };
    let answer = pb::DirectResponseAction { status: 200, body: None };
    let mut routes =
        vec![sent(prefix("/a"), to("a")), route_of(prefix("/b"), pb::route::Action::DirectResponse(answer))];
    for route in &mut routes {
        route.typed_per_filter_config.insert("limits".to_owned(), any.clone());
    }
    let read = read_table(&table_of(routes)).unwrap();
    let read: Vec<_> = read.routes.iter().map(|route| route.global_rate_limit.is_some()).collect();
    assert_eq!(read[..2], [true, false]);
}

/// As Envoy documents it: those of a host count where the route has none, or where it says so.
#[test]
fn limits_of_a_host_count_where_its_routes_have_none() {
    let own = |include| pb::RouteAction {
        rate_limits: vec![limit("route")],
        include_vh_rate_limits: include,
        ..to("a")
    };
    let answer = pb::DirectResponseAction { status: 200, body: None };
    let routes = vec![
        sent(prefix("/a"), to("a")),
        sent(prefix("/b"), own(None)),
        sent(prefix("/c"), own(Some(true))),
        route_of(prefix("/d"), pb::route::Action::DirectResponse(answer)),
    ];
    let mut table = table_of(routes);
    table.virtual_hosts[0].rate_limits = vec![limit("host")];
    let counted = |route: &Route| {
        let limit = route.global_rate_limit.as_deref()?;
        assert_eq!(limit.service, None);
        let value = |entries: &Vec<DescriptorEntry>| match &entries[0] {
            DescriptorEntry::Fixed { key, value, only: None } if &**key == "generic_key" => value.to_string(),
            other => panic!("{other:?}"),
        };
        Some(limit.descriptors.iter().map(value).collect::<Vec<_>>())
    };
    let read = read_table(&table).unwrap();
    let read: Vec<_> = read.routes.iter().map(counted).collect();
    let all = |values: &[&str]| Some(values.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(read[..4], [all(&["host"]), all(&["route"]), all(&["route", "host"]), None]);
    let mut more = limit("more");
    more.hits_addend = Some(pb::rate_limit::HitsAddend { number: Some(2) });
    table.virtual_hosts[0].rate_limits.push(more);
    let said = read_table(&table).unwrap_err();
    assert!(said.contains("virtual_hosts[0].rate_limits: a request counts as much in each"), "{said}");
    table.virtual_hosts[0].rate_limits.remove(0);
    let said = read_table(&table).unwrap_err();
    let place = "virtual_hosts[0].routes[2].route.rate_limits: beside those of its host, a request counts";
    assert!(said.contains(place), "{said}");
    table.virtual_hosts[0].rate_limits.insert(0, limit("host"));
    table.virtual_hosts[0].rate_limits[1].stage = Some(1);
    let said = read_table(&table).unwrap_err();
    assert!(said.contains("virtual_hosts[0].rate_limits[1].stage: 0 alone is supported"), "{said}");
}
