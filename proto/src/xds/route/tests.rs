//! Tables of routes: there and back, as foreign control planes write them, and how each fault is named.

mod foreign;
mod meant;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message as _;
use prost_types::Any;

use super::super::generated::envoy::config::route::v3 as pb;
use super::super::{Kind, Resource, host_name, of_host_name, read, write, write_host};
use super::*;
use crate::model::{Forward, HeaderEdits, Pattern};

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
