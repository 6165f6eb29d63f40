use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use outrigger_proto::model::{Action, ChainMatch, Transport};
use outrigger_proto::model::{
    Address, Authorization, Chains, Direction, Effect, Filter, FilterChain, Forward, HostPattern, HttpFilter,
    JwksSource, JwtAlgorithm, JwtIssuer, JwtUse, Limits, Listener, Match, Name, PathMatch, PathPattern,
    PathRewrite, Redirect, Respond, Rewrite, Route, RouteTable, Rule, Split, Target, TcpFilter, When,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::*;
use crate::facts::{Arrival, Caller, Claims, Greeting, ReqHead};
use crate::routing::naive;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn split(of: &[(&str, u32)]) -> Split {
    let target = |(to, weight): &(&str, u32)| Target::new(name(to), (*weight).try_into().unwrap());
    Split { targets: of.iter().map(target).collect() }
}

fn prefix(path: &str) -> Match {
    Match { path: PathMatch::Prefix(path.into()), ..Match::default() }
}

fn to(of: &[(&str, u32)]) -> Route {
    Route::new(Match::default(), Action::Forward(Forward::new(split(of))))
}

fn rewritten(matches: Match, path: Option<PathRewrite>, host: Option<&'static str>) -> Route {
    let rewrite = Rewrite { path, host: host.map(HeaderValue::from_static) };
    Route::new(matches, Action::Forward(Forward { rewrite, ..Forward::to(name("cart")) }))
}

fn responds(status: u16, body: &str) -> Route {
    let status = StatusCode::from_u16(status).unwrap();
    Route::new(Match::default(), Action::Respond(Respond { status, body: body.into() }))
}

fn redirects(to: &'static str, status: u16) -> Route {
    let status = StatusCode::from_u16(status).unwrap();
    let to = HeaderValue::from_static(to);
    Route::new(Match::default(), Action::Redirect(Redirect { to, status }))
}

fn rule(effect: Effect, paths: &[&str]) -> Rule {
    let paths = paths.iter().map(|path| PathPattern::Exact((*path).into())).collect();
    Rule { name: None, effect, dry_run: false, when: When { paths, ..When::default() } }
}

fn issuer(name: &str, required: bool) -> JwtIssuer {
    JwtIssuer {
        issuer: name.into(),
        keys: JwksSource::File("keys.json".into()),
        audiences: ["shop".into()].into(),
        required,
        algorithms: [JwtAlgorithm::Es256].into(),
        leeway: JwtIssuer::LEEWAY,
        claims_to_headers: Box::default(),
    }
}

/// A listener of HTTP.
#[derive(Clone, Debug, Default)]
struct Said {
    routes: Vec<Route>,
    rules: Vec<Rule>,
    issuers: Vec<JwtIssuer>,
}

impl Said {
    fn routes(routes: impl IntoIterator<Item = Route>) -> Self {
        Self { routes: routes.into_iter().collect(), ..Self::default() }
    }

    fn chain(&self) -> FilterChain {
        let http = HttpFilter {
            jwt: self.issuers.clone().into(),
            external_authorization: None,
            rate_limit_service: None,
            routes: name("web"),
            trusted_proxies: Vec::new(),
            merge_slashes: true,
        };
        let rules = self.rules.clone().into();
        FilterChain {
            tls: None,
            authorization: (!self.rules.is_empty()).then_some(Authorization { rules }),
            limits: Limits::default(),
            filter: Filter::Http(http),
        }
    }

    fn table(&self) -> RouteTable {
        RouteTable { routes: self.routes.clone().into(), on_demand: false }
    }

    fn trial(&self) -> Trial {
        let tables = BTreeMap::from([(name("web"), self.table().into())]);
        trial(Chains::from(self.chain()), &tables)
    }
}

fn trial(chains: Chains, tables: &BTreeMap<Name, Arc<RouteTable>>) -> Trial {
    let bind = Address::Ip(([127, 0, 0, 1], 0).into());
    let listener = Listener { bind, direction: Direction::Inbound, destination: Default::default(), chains };
    Trial::new(1, [(&name("web"), &listener)], tables).unwrap()
}

fn nobody() -> Caller<'static> {
    Caller { identity: None, source: Some(IpAddr::from([10, 0, 0, 1])), sni: None, port: None }
}

/// What becomes of a request for a path, by `of` alone.
fn fate<'t>(of: &'t Trial, path: &str, token: Token<'_>) -> Option<Fate<'t>> {
    let headers = HeaderMap::new();
    let head = ReqHead { host: "a.test", path, query: None, method: &Method::GET, headers: &headers };
    let chain = of.at(0).chain(0);
    chain.fate(chain.find(&head), &Facts { head, token, caller: nobody(), fitting: None })
}

/// How `GET path` fares by the one and by the other; both empty where that is the same.
#[track_caller]
fn check(in_force: &Said, shadow: &Said, path: &str, expected: (&str, &str)) {
    check_token(in_force, shadow, (path, Token::None), expected);
}

#[track_caller]
fn check_token(
    in_force: &Said,
    shadow: &Said,
    (path, token): (&str, Token<'_>),
    (expected, would): (&str, &str),
) {
    let (one, other) = (in_force.trial(), shadow.trial());
    let (one, other) = (fate(&one, path, token).unwrap(), fate(&other, path, token).unwrap());
    let words = if one.is_like(&other, path) {
        (String::new(), String::new())
    } else {
        (one.words(&other), other.words(&one))
    };
    assert_eq!(words, (expected.to_owned(), would.to_owned()), "{path}");
    assert_eq!(one.is_like(&other, path), other.is_like(&one, path), "{path}");
}

const SAME: (&str, &str) = ("", "");

#[test]
fn routes_are_told_apart_by_what_becomes_of_a_request() {
    let rows = [
        (vec![], vec![], SAME),
        (vec![to(&[("cart", 1)])], vec![to(&[("cart", 7)])], SAME),
        (vec![to(&[("cart", 1)])], vec![], ("to cart", "no route")),
        (vec![], vec![to(&[("cart", 1)])], ("no route", "to cart")),
        (vec![to(&[("cart", 1)])], vec![to(&[("items", 1)])], ("to cart", "to items")),
        (
            vec![to(&[("items-v1", 1)])],
            vec![to(&[("items-v1", 90), ("items-v2", 10)])],
            ("to items-v1", "to a split of items-v1 90, items-v2 10"),
        ),
        (vec![to(&[("a", 1), ("b", 1)])], vec![to(&[("b", 50), ("a", 50)])], SAME),
        (vec![to(&[("a", 1), ("b", 1), ("a", 2)])], vec![to(&[("a", 3), ("b", 1)])], SAME),
        (
            vec![to(&[("a", 1), ("b", 1)])],
            vec![to(&[("a", 1), ("b", 2)])],
            ("to a split of a 1, b 1", "to a split of a 1, b 2"),
        ),
        (vec![redirects("/a", 302)], vec![redirects("/a", 302)], SAME),
        (
            vec![redirects("/a", 302)],
            vec![redirects("/a", 308)],
            ("redirect to /a (302)", "redirect to /a (308)"),
        ),
        (vec![responds(404, "x")], vec![responds(404, "x")], SAME),
        (vec![responds(404, "x")], vec![responds(503, "x")], ("responds 404", "responds 503")),
        (
            vec![responds(404, "x")],
            vec![responds(404, "y")],
            ("responds 404 with \"x\"", "responds 404 with \"y\""),
        ),
        (vec![responds(404, "x")], vec![to(&[("a", 1)])], ("responds 404", "to a")),
    ];
    for (in_force, shadow, expected) in rows {
        check(&Said::routes(in_force), &Said::routes(shadow), "/", expected);
    }
}

#[test]
fn what_is_sent_on_is_told_where_the_target_is_the_same() {
    let whole = |path: &str| Some(PathRewrite::Whole(path.into()));
    let new = |path: &str| Some(PathRewrite::Prefix(path.into()));
    let any = Match::default;
    let rows = [
        (
            rewritten(any(), None, None),
            rewritten(any(), whole("/v2/items"), None),
            "/items",
            ("to cart as it is", "to cart as /v2/items"),
        ),
        (rewritten(any(), None, None), rewritten(any(), whole("/items"), None), "/items", SAME),
        (
            rewritten(any(), None, None),
            rewritten(any(), None, Some("b")),
            "/",
            ("to cart as it is", "to cart as b"),
        ),
        (rewritten(any(), None, Some("b")), rewritten(any(), None, Some("b")), "/", SAME),
        (
            rewritten(prefix("/a"), new("/x"), None),
            rewritten(prefix("/a/b"), new("/x"), None),
            "/a/b/c",
            ("to cart as /x/* for /a/*", "to cart as /x/* for /a/b/*"),
        ),
        (rewritten(prefix("/a"), new("/x"), None), rewritten(prefix("/a"), new("/x"), None), "/a/b", SAME),
        (rewritten(prefix("/a"), new("/x"), None), rewritten(prefix("/a"), new("/x/"), None), "/a/b", SAME),
        (rewritten(prefix("/a"), new(""), None), rewritten(prefix("/a"), whole("/"), None), "/a", SAME),
    ];
    for (in_force, shadow, path, expected) in rows {
        check(&Said::routes([in_force]), &Said::routes([shadow]), path, expected);
    }
}

#[test]
fn a_service_that_is_asked_is_named_where_it_makes_the_difference() {
    let (route, service, other) = (to(&[("cart", 1)]), name("authz"), name("authz-v2"));
    let follows = |asks| Fate::Follows(Follows { route: &route, asks });
    let (none, asked, elsewhere) = (follows(None), follows(Some(&service)), follows(Some(&other)));
    assert!(asked.is_like(&follows(Some(&service)), "/") && !asked.is_like(&none, "/"));
    let words = |one: &Fate<'_>, beside: &Fate<'_>| (one.words(beside), beside.words(one));
    assert_eq!(words(&none, &asked), ("to cart".to_owned(), "to cart, if authz lets it in".to_owned()));
    let both = ("to cart, if authz lets it in".to_owned(), "to cart, if authz-v2 lets it in".to_owned());
    assert_eq!(words(&asked, &elsewhere), both);
    assert_eq!(asked.words(&Fate::NoRoute), "to cart");
}

#[test]
fn who_may_not_is_told_by_the_rule_that_says_so() {
    let open = Said::routes([to(&[("cart", 1)])]);
    let with = |rules: &[Rule]| Said { rules: rules.to_vec(), ..open.clone() };
    let (allow, deny) = (rule(Effect::Allow, &[]), rule(Effect::Deny, &["/secret"]));
    let named = Rule { name: Some("no-secrets".into()), ..deny.clone() };
    let denied = ("to cart", "denied by authorization[1] (no-secrets)");
    check(&open, &with(&[allow.clone(), named.clone()]), "/secret", denied);
    check(&open, &with(&[allow.clone(), named.clone()]), "/", SAME);
    check(&with(std::slice::from_ref(&deny)), &open, "/", ("denied: no rule allows it", "to cart"));
    // By which rule makes no difference to who asks.
    check(&with(&[allow.clone(), deny.clone()]), &with(&[deny.clone(), allow.clone()]), "/secret", SAME);
    // What goes nowhere is not asked for.
    let elsewhere = Said { routes: Vec::new(), ..with(&[deny]) };
    check(&elsewhere, &with(&[allow]), "/secret", ("no route", "to cart"));
}

#[test]
fn tokens_count_as_far_as_they_are_known() {
    let open = Said::routes([to(&[("cart", 1)])]);
    let of = |issuers: &[JwtIssuer]| Said { issuers: issuers.to_vec(), ..open.clone() };
    let optional = of(&[issuer("a", false)]);
    let required = of(&[issuer("a", true)]);
    let claims = Claims(json!({ "iss": "a" }).as_object().unwrap().clone());
    check(&open, &optional, "/", SAME);
    check(&open, &required, "/", ("to cart", "denied without a token"));
    let unlooked = ("to cart", "up to its token, which nobody looks at in force");
    check_token(&open, &optional, ("/", Token::Unlooked), unlooked);
    let good = Token::Good(&optional.issuers, &claims);
    check_token(&optional, &required, ("/", good), SAME);
    let unknown = ("to cart", "denied by its token: jwt_unknown_issuer");
    check_token(&optional, &of(&[issuer("b", false)]), ("/", good), unknown);
    let bad = Token::Bad(&optional.issuers, crate::policy::jwt::JwtError::Expired);
    check_token(&optional, &open, ("/", bad), ("denied by its token: jwt_expired", "to cart"));
    check_token(&optional, &optional, ("/", bad), SAME);
    // Nobody can tell without the keys.
    let elsewhere = JwtIssuer { audiences: ["other".into()].into(), ..issuer("a", false) };
    assert!(fate(&of(&[elsewhere]).trial(), "/", good).is_none());
    assert!(fate(&required.trial(), "/", bad).is_none());
    let route = Route { jwt: Some(JwtUse::None), ..to(&[("cart", 1)]) };
    check_token(&optional, &Said { routes: vec![route], ..optional.clone() }, ("/", good), SAME);
}

#[test]
fn connections_are_told_apart_too() {
    let bytes = |to: &str, rules: &[Rule]| {
        let (to, idle_timeout) = (Split::one(name(to)), std::time::Duration::from_secs(1));
        let rules: Box<[Rule]> = rules.into();
        let authorization = (!rules.is_empty()).then_some(Authorization { rules });
        let filter = Filter::Tcp(TcpFilter { to, idle_timeout });
        trial(
            FilterChain { tls: None, authorization, limits: Limits::default(), filter }.into(),
            &BTreeMap::new(),
        )
    };
    let words = |of: &Trial| of.at(0).chain(0).fate_of_connection(&nobody()).words(&Fate::Closed);
    let (db, other) = (bytes("db", &[]), bytes("other", &[rule(Effect::Deny, &[])]));
    assert_eq!((words(&db), words(&other)), ("to db".to_owned(), "denied by authorization[0]".to_owned()));
    let web = Said::routes([to(&[("cart", 1)])]).trial();
    assert_eq!(words(&web), "read as HTTP");
    let passed = fate(&db, "/", Token::None).unwrap();
    assert_eq!(passed.words(&fate(&web, "/", Token::None).unwrap()), "passed on as bytes to db");
}

#[test]
fn chains_are_found_by_what_is_known_of_a_connection() {
    let chain = Said::default().chain();
    let tables = BTreeMap::from([(name("web"), Arc::default())]);
    let by_host =
        |host: &str| ChainMatch { hosts: [HostPattern::Exact(host.into())].into(), ..ChainMatch::default() };
    let tls = || ChainMatch { transport: Some(Transport::Tls), ..ChainMatch::default() };
    let h2 = || ChainMatch { protocols: ["h2".into()].into(), ..ChainMatch::default() };
    let of = |some: &[ChainMatch], rest: bool| {
        let some = some.iter().map(|matches| (matches.clone(), chain.clone())).collect();
        trial(Chains::new(some, rest.then(|| chain.clone())).unwrap(), &tables)
    };
    let hello = |host: &str| Some(Greeting { host: Some(host.into()), protocols: Vec::new() });
    let find = |trial: &Trial, hello: Option<Greeting>, is_read: bool, in_force: (&[ChainMatch], usize)| {
        let arrival = Arrival { to: None, from: None, hello };
        let (all, taken_by) = (in_force.0.iter().map(Some), in_force.0.get(in_force.1));
        let rest = taken_by.is_none().then_some(None);
        let (beside, all) = (trial.at(0), all.chain(rest));
        beside.find(&Beginning { arrival, is_read, taken_by }, beside.is_told_apart_as(all))
    };
    let hosts = of(&[by_host("a"), by_host("b")], true);
    let one: (&[ChainMatch], usize) = (&[], 0);
    assert_eq!(find(&hosts, hello("b"), true, one), Placed::Chain(1));
    assert_eq!(find(&hosts, hello("c"), true, one), Placed::Chain(2));
    assert_eq!(find(&hosts, None, false, one), Placed::Unknown);
    // Told apart as in force, it need not be known.
    assert_eq!(find(&of(&[h2()], false), None, false, (&[h2()], 0)), Placed::Chain(0));
    assert_eq!(find(&of(&[tls()], false), None, true, one), Placed::Nowhere);
    assert_eq!(find(&of(&[h2()], true), hello("a"), true, one), Placed::Unknown);
    assert_eq!(find(&of(&[h2()], true), None, true, one), Placed::Chain(1));
    // Whether they are told apart alike is looked at once for each version.
    let (bench, h2) = (Bench::new(of(&[h2()], false).into(), Arc::default()), h2());
    let beginning = || Beginning { arrival: Arrival::default(), is_read: false, taken_by: Some(&h2) };
    let find = |version: u64, in_force: Option<&[ChainMatch]>| {
        let all = || in_force.expect("it was looked at before").iter().map(Some);
        bench.find(0, &beginning(), (version, all))
    };
    let alike = [h2.clone()];
    assert_eq!([find(1, Some(&alike)), find(1, None)], [Placed::Chain(0); 2]);
    assert_eq!([find(2, Some(&[])), find(2, None)], [Placed::Unknown; 2]);
}

#[test]
fn a_way_to_fare_otherwise_is_counted_wherever_it_is_met() {
    let trial = Arc::new(Said::routes([to(&[("cart", 1)])]).trial());
    let (common, routes) = (Arc::<Common>::default(), vec![to(&[("items", 1)]); 2000]);
    let bench = Bench::new(trial.clone(), common.clone());
    let shadow = fate(&trial, "/", Token::None).unwrap();
    let note = |version: u64, route: &Route, example: &str| {
        let held = Held { by: (1, version), listener: Some(0), place: Placed::Chain(0), fitting: None };
        let in_force = Fate::Follows(Follows { route, asks: None });
        bench.note(&held, (&in_force, &shadow), "/", || example.to_owned());
    };
    let told = |requests: u64, example: &str| {
        bench.hand_over();
        let Tally { listeners, kinds, others } = common.take();
        let kinds: Vec<_> = kinds.into_iter().collect();
        let kind = Kind { listener: 0, in_force: "to items".to_owned(), shadow: "to cart".to_owned() };
        assert_eq!(kinds, [(kind, Seen { requests, example: example.to_owned() })]);
        assert_eq!((listeners[0].differing, others), (requests, 0));
    };
    note(1, &routes[0], "first");
    note(1, &routes[0], "another");
    told(2, "first");
    // What is told begins anew, and what is in force may.
    note(1, &routes[0], "third");
    note(2, &routes[0], "fourth");
    told(2, "third");
    // More of them than are remembered.
    (0..2).for_each(|_| routes.iter().for_each(|route| note(2, route, "any")));
    told(4000, "any");
}

#[test]
fn what_is_counted_is_bounded() {
    let mut all = Tally::default();
    let mut one = Tally::default();
    one.note(1, false);
    for number in 0..100 {
        let kind = Kind { listener: 0, in_force: "to a".to_owned(), shadow: format!("to {number}") };
        for example in [number.to_string(), "another".to_owned()] {
            one.note(0, true);
            one.add_kind(&kind, 1, example);
        }
    }
    assert_eq!((one.kinds.len(), one.others, one.evaluated()), (64, 72, 201));
    all.add(one.clone());
    all.add(one.clone());
    assert_eq!((all.kinds.len(), all.others, all.evaluated()), (64, 144, 402));
    assert_eq!(
        all.listeners,
        [Counts { evaluated: 400, differing: 400 }, Counts { evaluated: 2, differing: 0 }]
    );
    let first = all.kinds.iter().next().unwrap();
    assert_eq!((first.0.shadow.as_str(), first.1.requests, first.1.example.as_str()), ("to 0", 4, "0"));
    assert!(!all.is_empty() && Tally::default().is_empty());
}

#[test]
fn a_table_that_is_missing_is_an_error() {
    let listener = Listener {
        bind: Address::Ip(([127, 0, 0, 1], 0).into()),
        direction: Direction::Inbound,
        destination: Default::default(),
        chains: Said::default().chain().into(),
    };
    let errors = Trial::new(1, [(&name("in"), &listener)], &BTreeMap::new()).unwrap_err();
    assert_eq!(errors[0].to_string(), "listeners.in: the route table `web` is not there");
}

/// A split, written with other weights.
fn scaled(route: &Route, by: u32) -> Route {
    let mut route = route.clone();
    if let Action::Forward(forward) = &mut route.action {
        for target in &mut forward.to.targets {
            target.weight = target.weight.saturating_mul(by.try_into().unwrap());
        }
    }
    route
}

fn any_match() -> impl Strategy<Value = Match> {
    let path = prop_oneof![
        Just(PathMatch::Any),
        select(vec!["", "/a", "/a/b"]).prop_map(|path| PathMatch::Prefix(path.into())),
        select(vec!["/a", "/a/b/c"]).prop_map(|path| PathMatch::Exact(path.into())),
    ];
    let host = select(vec![
        None,
        Some(HostPattern::Exact("a.test".into())),
        Some(HostPattern::Suffix(".test".into())),
    ]);
    (path, host).prop_map(|(path, host)| Match {
        path,
        hosts: host.into_iter().collect(),
        ..Match::default()
    })
}

fn any_route() -> impl Strategy<Value = Route> {
    let rewrite = prop_oneof![
        Just(None),
        select(vec!["", "/x"]).prop_map(|path| Some(PathRewrite::Prefix(path.into()))),
        select(vec!["/x", "/a"]).prop_map(|path| Some(PathRewrite::Whole(path.into()))),
    ];
    let of = vec((select(vec!["a", "b", "c"]), 1..4_u32), 1..3);
    let route =
        (any_match(), of, rewrite, select(vec![None, Some("b")])).prop_map(|(matches, of, path, host)| {
            let mut route = rewritten(matches, path, host);
            if let Action::Forward(forward) = &mut route.action {
                forward.to = split(&of);
            }
            route
        });
    prop_oneof![
        4 => route,
        1 => any_match().prop_map(|matches| Route { matches, ..responds(404, "x") }),
        1 => any_match().prop_map(|matches| Route { matches, ..redirects("/x", 308) }),
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let effect = select(vec![Effect::Allow, Effect::Deny, Effect::Audit]);
    (effect, vec(select(PATHS.to_vec()), 0..2), any::<bool>())
        .prop_map(|(effect, paths, dry_run)| Rule { dry_run, ..rule(effect, &paths) })
}

fn any_said() -> impl Strategy<Value = Said> {
    (
        vec(any_route(), 0..5),
        vec(any_rule(), 0..3),
        vec(any::<bool>().prop_map(|required| issuer("a", required)), 0..2),
    )
        .prop_map(|(routes, rules, issuers)| Said { routes, rules, issuers })
}

const PATHS: [&str; 5] = ["/", "/a", "/a/b", "/a/b/c", "/ab"];

proptest! {
    #[test]
    fn what_is_the_same_never_differs(said in any_said(), by in 1..5_u32, path in select(PATHS.to_vec())) {
        let shadow = Said { routes: said.routes.iter().map(|route| scaled(route, by)).collect(), ..said.clone() };
        let (one, other) = (said.trial(), shadow.trial());
        let claims = Claims(json!({ "iss": "a" }).as_object().unwrap().clone());
        for token in [Token::None, Token::Good(&said.issuers, &claims)] {
            let (one, other) = (fate(&one, path, token).unwrap(), fate(&other, path, token).unwrap());
            prop_assert!(one.is_like(&other, path), "{one:?} {other:?}");
        }
    }

    #[test]
    fn what_differs_is_told_in_words_that_differ(one in any_said(), other in any_said(), path in select(PATHS.to_vec())) {
        let (one, other) = (one.trial(), other.trial());
        let (one, other) = (fate(&one, path, Token::None).unwrap(), fate(&other, path, Token::None).unwrap());
        prop_assert_eq!(one.is_like(&other, path), other.is_like(&one, path));
        prop_assert!(one.is_like(&other, path) || one.words(&other) != other.words(&one), "{:?} {:?}", one, other);
    }

    #[test]
    fn a_route_is_the_one_that_is_found_in_force(said in any_said(), path in select(PATHS.to_vec())) {
        let headers = HeaderMap::new();
        let head = ReqHead { host: "a.test", path, query: None, method: &Method::GET, headers: &headers };
        let found = match said.trial().at(0).chain(0).find(&head) {
            Found::Route(place) => Some(place),
            Found::None | Found::Awaited | Found::Bytes => None,
        };
        prop_assert_eq!(found, naive::find(&said.table(), &head));
    }
}
