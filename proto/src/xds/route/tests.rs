//! Tables of routes: there and back, as foreign control planes write them, and how each fault is named.

use std::collections::BTreeMap;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message as _;
use prost_types::Any;

use super::super::any::OURS;
use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::config::route::v3 as pb;
use super::super::generated::envoy::r#type::matcher::v3 as matcher;
use super::super::generated::envoy::r#type::v3 as kind;
use super::super::generated::outrigger::extensions::v1 as ours;
use super::super::{Kind, Resource, host_name, of_host_name, read, write, write_host};
use super::*;
use crate::model::{
    Backoff, Destination, Forward, HeaderEdits, HeaderMatch, Hedge, HedgeAfter, Pattern, Redirect, Retry,
    RetryCondition, StringMatch,
};

fn named(name: &str) -> Name {
    Name::new(name).unwrap()
}

fn written(table: &RouteTable) -> Any {
    match write(&named("web"), &Resource::Routes(table.clone())) {
        Ok(any) => any,
        Err(refused) => panic!("{refused}"),
    }
}

fn read_any(any: &Any) -> Result<RouteTable, String> {
    match read(Kind::Routes, any) {
        Ok((_, Resource::Routes(table))) => Ok(table),
        Ok(other) => panic!("{other:?}"),
        Err(refused) => Err(refused.to_string()),
    }
}

fn read_table(table: &pb::RouteConfiguration) -> Result<RouteTable, String> {
    read_any(&Any { type_url: Kind::Routes.url(), value: table.encode_to_vec() })
}

/// As it is read: where a share changes what its route does too, the share says all.
fn folded(route: &Route) -> Route {
    let mut route = route.clone();
    let Action::Forward(forward) = &mut route.action else { return route };
    let targets = &mut forward.to.targets;
    if targets.iter().any(|target| touch_alike(&target.request_headers, &route.request_headers)) {
        for target in targets {
            target.request_headers = then(&route.request_headers, &target.request_headers);
        }
        route.request_headers = HeaderEdits::default();
    }
    route
}

fn apply(headers: &mut HeaderMap, edits: &HeaderEdits) {
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in &edits.add {
        headers.append(name.clone(), value.clone());
    }
}

fn edits() -> impl Strategy<Value = HeaderEdits> {
    let name = || select(vec!["a", "b", "c"]).prop_map(HeaderName::from_static);
    let edit = || vec((name(), select(vec!["1", "2"]).prop_map(HeaderValue::from_static)), 0..3);
    (vec(name(), 0..2), edit(), edit()).prop_map(|(remove, set, add)| HeaderEdits { remove, set, add })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_of_a_route_is_what_was_written(config in crate::model::random::config()) {
        for route in config.mesh.route_tables.values().flat_map(|table| table.routes.iter().cloned()) {
            let table = RouteTable { routes: [route.clone()].into(), on_demand: false };
            let any = written(&table);
            let read = read_any(&any).unwrap();
            prop_assert_eq!(&read.routes[0], &folded(&route));
            prop_assert!(read.routes.len() <= 2);
        }
    }

    #[test]
    fn a_table_that_was_read_is_written_as_it_was(config in crate::model::random::config()) {
        for table in config.mesh.route_tables.values() {
            let table = RouteTable { routes: table.routes.iter().cloned().collect(), on_demand: false };
            let any = written(&table);
            prop_assert_eq!(written(&read_any(&any).unwrap()), any);
        }
    }

    #[test]
    fn a_table_means_the_same_on_either_side(table in overlapping()) {
        let any = written(&table);
        let read = read_any(&any).unwrap();
        prop_assert_eq!(&written(&read), &any);
        let theirs = pb::RouteConfiguration::decode(&*any.value).unwrap();
        for host in ["a.b.c", "x.b.c", "b.c", "x.c", "c", "d", ".b.c"] {
            for (path, method) in [("/", "GET"), ("/a", "GET"), ("/a", "PUT"), ("/a/b", "GET"), ("/ab", "PUT")] {
                let expected = naive(&table, host, path, method);
                prop_assert_eq!(naive(&read, host, path, method), expected, "{} {} {}", method, host, path);
                prop_assert_eq!(envoys(&theirs, host, path, method), expected, "{} {} {}", method, host, path);
            }
        }
    }

    #[test]
    fn a_host_that_is_told_alone_is_as_it_is_among_others(table in overlapping()) {
        for host in ["a.b.c", "x.b.c", "b.c", "x.c", "c", "d", ".b.c"] {
            let alone = write_host(&host_name(&named("web"), host).unwrap(), &table, host).map(|any| {
                let any = any.unwrap();
                match read(Kind::Host, &any) {
                    Ok((name, Resource::Host(alone))) => {
                        assert_eq!(of_host_name(name.as_str()), Some(("web", host)));
                        alone
                    }
                    other => panic!("{other:?}"),
                }
            });
            for (path, method) in [("/", "GET"), ("/a", "GET"), ("/a", "PUT"), ("/a/b", "GET"), ("/ab", "PUT")] {
                let expected = naive(&table, host, path, method);
                let alone = alone.as_ref().map_or(expected, |alone| naive(alone, host, path, method));
                prop_assert_eq!(alone, expected, "{} {} {}", method, host, path);
            }
            if alone.is_none() {
                prop_assert_eq!(naive(&table, host, "/", "GET"), naive(&RouteTable::default(), host, "/", "GET"));
            }
        }
    }

    #[test]
    fn two_changes_are_one(first in edits(), second in edits(), there in edits()) {
        let mut headers = HeaderMap::new();
        apply(&mut headers, &there);
        let mut at_once = headers.clone();
        apply(&mut headers, &first);
        apply(&mut headers, &second);
        apply(&mut at_once, &then(&first, &second));
        prop_assert_eq!(headers, at_once);
    }
}

/// Tables whose hosts cover each other. Each route answers with a status of its own.
fn overlapping() -> impl Strategy<Value = RouteTable> {
    let exact = |host: &'static str| HostPattern::Exact(host.into());
    let suffix = |host: &'static str| HostPattern::Suffix(host.into());
    let hosts = vec![exact("a.b.c"), exact("b.c"), exact("d"), suffix(".b.c"), suffix(".c"), suffix(".d")];
    let path = prop_oneof![
        2 => Just(PathMatch::Any),
        1 => Just(PathMatch::Exact("/a".into())),
        1 => Just(PathMatch::Prefix("/a".into())),
        1 => Just(PathMatch::Prefix("".into())),
        1 => Just(PathMatch::Regex(Pattern::new("^/a").unwrap())),
    ];
    let methods = select(vec![vec![], vec![], vec![Method::GET]]);
    let matches = (btree_set(select(hosts), 0..3), path, methods).prop_map(|(hosts, path, methods)| Match {
        hosts: hosts.into_iter().collect(),
        path,
        methods,
        ..Match::default()
    });
    vec((matches, any::<bool>()), 0..7).prop_map(|routes| RouteTable {
        routes: (200..)
            .zip(routes)
            .map(|(status, (matches, none))| {
                let status = if none { 404 } else { status };
                let status = StatusCode::from_u16(status).unwrap();
                Route::new(matches, Action::Respond(Respond { status, body: Box::default() }))
            })
            .collect(),
        on_demand: false,
    })
}

fn fits(pattern: &HostPattern, host: &str) -> Option<usize> {
    match pattern {
        HostPattern::Exact(exact) => (**exact == *host).then_some(usize::MAX),
        HostPattern::Suffix(suffix) => {
            (host.len() > suffix.len() && host.ends_with(&**suffix)).then_some(suffix.len())
        }
    }
}

/// The status that a request gets: every route is asked.
fn naive(table: &RouteTable, host: &str, path: &str, method: &str) -> u16 {
    let mut best: Option<(usize, u16)> = None;
    for route in table.routes.iter() {
        let Match { hosts, path: wanted, methods, .. } = &route.matches;
        let rank = match &**hosts {
            [] => Some(0),
            hosts => hosts.iter().filter_map(|pattern| fits(pattern, host)).max(),
        };
        let path_fits = match wanted {
            PathMatch::Any => true,
            PathMatch::Exact(exact) => **exact == *path,
            PathMatch::Prefix(prefix) => {
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            PathMatch::Regex(pattern) => pattern.is_match(path),
        };
        let method_fits = methods.is_empty() || methods.iter().any(|wanted| wanted == method);
        let Action::Respond(answer) = &route.action else { panic!("an answer") };
        if let Some(rank) = rank.filter(|_| path_fits && method_fits)
            && best.is_none_or(|(known, _)| rank > known)
        {
            best = Some((rank, answer.status.as_u16()));
        }
    }
    best.map_or(404, |(_, status)| status)
}

/// The same, as Envoy goes about it: a host is chosen once.
fn envoys(table: &pb::RouteConfiguration, host: &str, path: &str, method: &str) -> u16 {
    let rank = |domain: &String| match domain.strip_prefix('*') {
        Some("") => Some(0),
        Some(suffix) => fits(&HostPattern::Suffix(suffix.into()), host),
        None => fits(&HostPattern::Exact(domain.as_str().into()), host),
    };
    let rank = |of: &pb::VirtualHost| of.domains.iter().filter_map(rank).max();
    let chosen = table.virtual_hosts.iter().filter(|of| rank(of).is_some()).max_by_key(|of| rank(of));
    let takes = |route: &&pb::Route| {
        use pb::route_match::PathSpecifier as P;
        let matched = route.r#match.as_ref().unwrap();
        let path_fits = match matched.path_specifier.as_ref().unwrap() {
            P::Prefix(prefix) => path.starts_with(prefix),
            P::Path(exact) => path == exact,
            P::PathSeparatedPrefix(prefix) => {
                path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            P::SafeRegex(_) => panic!("it is a prefix"),
        };
        path_fits && (matched.headers.is_empty() || method == "GET")
    };
    let route = chosen.and_then(|of| of.routes.iter().find(takes));
    route.map_or(404, |route| match &route.action {
        Some(pb::route::Action::DirectResponse(answer)) => u16::try_from(answer.status).unwrap(),
        other => panic!("{other:?}"),
    })
}

// As foreign control planes write them.

fn table_of(routes: Vec<pb::Route>) -> pb::RouteConfiguration {
    let host = pb::VirtualHost {
        name: "h".to_owned(),
        domains: vec!["*".to_owned()],
        routes,
        ..pb::VirtualHost::default()
    };
    pb::RouteConfiguration { name: "web".to_owned(), virtual_hosts: vec![host], ..Default::default() }
}

fn prefix(prefix: &str) -> pb::route_match::PathSpecifier {
    pb::route_match::PathSpecifier::Prefix(prefix.to_owned())
}

fn route_of(path: pb::route_match::PathSpecifier, action: pb::route::Action) -> pb::Route {
    pb::Route {
        r#match: Some(pb::RouteMatch { path_specifier: Some(path), ..Default::default() }),
        action: Some(action),
        ..pb::Route::default()
    }
}

fn to(cluster: &str) -> pb::RouteAction {
    pb::RouteAction {
        cluster_specifier: Some(pb::route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
        ..Default::default()
    }
}

fn sent(path: pb::route_match::PathSpecifier, to: pb::RouteAction) -> pb::Route {
    route_of(path, pb::route::Action::Route(to))
}

#[track_caller]
fn one(route: pb::Route) -> Route {
    read_table(&table_of(vec![route])).unwrap().routes[0].clone()
}

#[track_caller]
fn forward_of(route: pb::Route) -> Forward {
    match one(route).action {
        Action::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check_refused(route: pb::Route, expected: &str) {
    let said = read_table(&table_of(vec![route])).unwrap_err();
    let expected = format!("RouteConfiguration[web].virtual_hosts[0].routes[0].{expected}");
    assert!(said.contains(&expected), "{said}\nand not\n{expected}");
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

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
    check_refused(at(|to| to.prefix_rewrite = "/b".to_owned()), "route.prefix_rewrite: ");
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
fn what_is_not_in_the_subset_is_named() {
    // A second host, with a route; a match, an action.
    const HOST: &[u32] = &[2];
    const ROUTE: &[u32] = &[2, 3];
    const MATCH: &[u32] = &[2, 3, 1];
    const ACTION: &[u32] = &[2, 3, 2];
    let rows: [(&[u32], u32, &str); 18] = [
        (&[], 3, "internal_only_headers"),
        (&[], 12, "cluster_specifier_plugins"),
        (&[], 16, "typed_per_filter_config"),
        (HOST, 6, "virtual_hosts[1].rate_limits"),
        (HOST, 8, "virtual_hosts[1].cors"),
        (HOST, 15, "virtual_hosts[1].typed_per_filter_config"),
        (HOST, 21, "virtual_hosts[1].matcher"),
        (ROUTE, 18, "virtual_hosts[1].routes[0].non_forwarding_action"),
        (MATCH, 11, "virtual_hosts[1].routes[0].match.tls_context"),
        (MATCH, 12, "virtual_hosts[1].routes[0].match.connect_matcher"),
        (MATCH, 13, "virtual_hosts[1].routes[0].match.dynamic_metadata"),
        (&[2, 3, 1, 6], 6, "virtual_hosts[1].routes[0].match.headers[0].range_match"),
        (ACTION, 2, "virtual_hosts[1].routes[0].route.cluster_header"),
        (ACTION, 15, "virtual_hosts[1].routes[0].route.hash_policy"),
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
