//! The index and the naive matcher, side by side, on cases and on whatever proptest thinks of.

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use outrigger_proto::model::{
    Action, HeaderMatch, HostPattern, Match, PathMatch, Pattern, QueryMatch, Respond, Route, RouteTable,
    StringMatch,
};
use proptest::prelude::*;

use super::{RouteIndex, matches, naive};
use crate::facts::ReqHead;

/// A request that owns its parts.
#[derive(Clone, Debug)]
struct Request {
    host: String,
    path: String,
    query: Option<String>,
    method: Method,
    headers: HeaderMap,
}

impl Request {
    /// `GET` of `path?query`.
    fn get(host: &str, target: &str) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let (host, path) = (host.to_owned(), path.to_owned());
        Self { host, path, query, method: Method::GET, headers: HeaderMap::new() }
    }

    fn header(mut self, name: &'static str, value: &[u8]) -> Self {
        self.headers.append(name, HeaderValue::from_bytes(value).unwrap());
        self
    }

    fn head(&self) -> ReqHead<'_> {
        let Self { host, path, query, method, headers } = self;
        ReqHead { host, path, query: query.as_deref(), method, headers }
    }
}

fn table(matches: impl IntoIterator<Item = Match>) -> RouteTable {
    let action = || Action::Respond(Respond { status: StatusCode::OK, body: "".into() });
    let route = |matches| Route::new(matches, action());
    RouteTable { routes: matches.into_iter().map(route).collect(), on_demand: false }
}

/// `a.example` or `*.example`, several with commas between; none if empty.
fn on(hosts: &str) -> Match {
    let host = |host: &str| match host.strip_prefix('*') {
        Some(suffix) => HostPattern::Suffix(suffix.into()),
        None => HostPattern::Exact(host.into()),
    };
    Match { hosts: hosts.split(',').filter(|host| !host.is_empty()).map(host).collect(), ..Match::default() }
}

/// `/a` is a prefix, `=/a` exact, `~a` a regular expression, and nothing is every path.
fn to(path: &str) -> Match {
    let path = match (path.strip_prefix('='), path.strip_prefix('~')) {
        (Some(exact), _) => PathMatch::Exact(exact.into()),
        (_, Some(regex)) => PathMatch::Regex(Pattern::new(regex).unwrap()),
        (None, None) if path.is_empty() => PathMatch::Any,
        (None, None) => PathMatch::Prefix(path.trim_end_matches('/').into()),
    };
    Match { path, ..Match::default() }
}

fn with_header(value: StringMatch) -> Match {
    Match { headers: vec![HeaderMatch { name: HeaderName::from_static("x"), value }], ..Match::default() }
}

fn with_query(value: StringMatch) -> Match {
    Match { query: vec![QueryMatch { name: "q".into(), value }], ..Match::default() }
}

fn regex(expression: &str) -> StringMatch {
    StringMatch::Regex(Pattern::new(expression).unwrap())
}

#[track_caller]
fn check(table: &RouteTable, request: &Request, expected: Option<usize>) {
    assert_eq!(naive::find(table, &request.head()), expected, "naive: {request:?}");
    assert_eq!(RouteIndex::new(table).find(table, &request.head()), expected, "index: {request:?}");
}

#[track_caller]
fn check_match(wanted: &Match, request: &Request, expected: bool) {
    assert_eq!(matches(wanted, &request.head()), expected, "{wanted:?}: {request:?}");
    check(&table([wanted.clone()]), request, expected.then_some(0));
}

#[test]
fn no_routes() {
    check(&table([]), &Request::get("a.example", "/"), None);
}

#[test]
fn the_most_specific_host_wins() {
    let table = table([on(""), on("*.example"), on("*.b.example"), on("a.b.example")]);
    for (host, expected) in [
        ("a.b.example", 3),
        ("A.B.Example:80", 3),
        ("a.b.example.", 3),
        ("c.b.example", 2),
        ("x.c.b.example", 2),
        ("b.example", 1),
        ("x.example:8080", 1),
        ("xb.example", 1),
        ("example", 0),
        (".example", 0),
        ("other", 0),
        ("", 0),
    ] {
        check(&table, &Request::get(host, "/"), Some(expected));
    }
}

#[test]
fn a_host_that_matches_only_in_part_falls_through() {
    let table = table([
        Match { path: to("/a").path, ..on("h.example") },
        Match { path: to("/b").path, ..on("*.example") },
        to("/c"),
    ]);
    check(&table, &Request::get("h.example", "/a"), Some(0));
    check(&table, &Request::get("h.example", "/b"), Some(1));
    check(&table, &Request::get("h.example", "/c"), Some(2));
    check(&table, &Request::get("h.example", "/d"), None);
    check(&table, &Request::get("other", "/b"), None);
}

#[test]
fn a_route_counts_with_its_best_host() {
    let table = table([on("*.b.example"), on("*.example,a.b.example"), on("a.b.example")]);
    check(&table, &Request::get("a.b.example", "/"), Some(1));
    check(&table, &Request::get("c.b.example", "/"), Some(0));
    check(&table, &Request::get("c.example", "/"), Some(1));
}

#[test]
fn addresses_as_hosts() {
    let table = table([on("[::1]"), on("10.0.0.1")]);
    check(&table, &Request::get("[::1]", "/"), Some(0));
    check(&table, &Request::get("[::1]:80", "/"), Some(0));
    check(&table, &Request::get("10.0.0.1:80", "/"), Some(1));
    check(&table, &Request::get("[::2]:80", "/"), None);
}

#[test]
fn within_a_host_the_first_written_wins() {
    let table =
        table([to("/a/b/c"), to("~^/a/b"), to("/a/b"), to("=/a/x"), to("/a"), to("=/a"), to(""), to("/")]);
    for (path, expected) in
        [("/a/b/c/d", 0), ("/a/b/d", 1), ("/a/x", 3), ("/a/x/", 4), ("/a", 4), ("/b", 6), ("/", 6), ("*", 6)]
    {
        check(&table, &Request::get("", path), Some(expected));
    }
}

#[test]
fn a_prefix_ends_with_a_segment() {
    for (prefix, path, expected) in [
        ("/cart", "/cart", true),
        ("/cart", "/cart/", true),
        ("/cart", "/cart/1", true),
        ("/cart", "/cart//1", true),
        ("/cart", "/cartoon", false),
        ("/cart", "/car", false),
        ("/cart", "/Cart", false),
        ("/cart", "/cart;v=1", false),
        ("/cart", "/", false),
        ("/cart/", "/cart", true),
        ("/cart/", "/cart/1", true),
        ("/a/b", "/a", false),
        ("/a/b", "/a/", false),
        ("/a/b", "/a/b/c", true),
        ("/a/b", "/a/bc", false),
        ("/a//b", "/a//b/c", true),
        ("/a//b", "/a/b/c", false),
        ("/", "/", true),
        ("/", "/a", true),
        ("/", "", true),
        ("/", "*", false),
    ] {
        check_match(&to(prefix), &Request::get("", path), expected);
    }
}

#[test]
fn other_paths() {
    check_match(&to("=/a"), &Request::get("", "/a"), true);
    check_match(&to("=/a"), &Request::get("", "/a/"), false);
    check_match(&to("=/a/"), &Request::get("", "/a/"), true);
    check_match(&to("~b.c"), &Request::get("", "/abxcd"), true);
    check_match(&to("~^/b"), &Request::get("", "/a/b"), false);
    check_match(&to(""), &Request::get("", "*"), true);
    check_match(&to("=*"), &Request::get("", "*"), true);
    // Not absolute, so no request has it; the two matchers agree all the same.
    check_match(&to("a"), &Request::get("", "/a"), false);
    check_match(&to("a"), &Request::get("", "a/b"), true);
}

#[test]
fn methods() {
    let wanted = Match { methods: vec![Method::POST, Method::PUT], ..Match::default() };
    let request = |method| Request { method, ..Request::get("", "/") };
    check_match(&wanted, &request(Method::PUT), true);
    check_match(&wanted, &request(Method::GET), false);
}

#[test]
fn headers() {
    let none = Request::get("", "/");
    let two = none.clone().header("x", b"one").header("x", b"two");
    let raw = none.clone().header("x", b"ab\xff");
    for (wanted, on_none, on_two, on_raw) in [
        (StringMatch::Present, false, true, true),
        (StringMatch::Absent, true, false, false),
        (StringMatch::Exact("two".into()), false, true, false),
        (StringMatch::Exact("one,two".into()), false, false, false),
        (StringMatch::Exact("Two".into()), false, false, false),
        (StringMatch::Exact("".into()), false, false, false),
        (StringMatch::Prefix("tw".into()), false, true, false),
        (StringMatch::Prefix("ab".into()), false, false, false),
        (StringMatch::Prefix("".into()), false, true, false),
        (regex("w"), false, true, false),
        (regex("^ab"), false, false, false),
        (regex(""), false, true, false),
    ] {
        let wanted = with_header(wanted);
        check_match(&wanted, &none, on_none);
        check_match(&wanted, &two, on_two);
        check_match(&wanted, &raw, on_raw);
    }
    check_match(
        &with_header(StringMatch::Exact("é".into())),
        &none.clone().header("x", "é".as_bytes()),
        true,
    );
    check_match(&with_header(StringMatch::Exact("".into())), &none.header("x", b""), true);
}

#[test]
fn all_headers_must_match() {
    let [x, y] = ["x", "y"].map(|name| {
        let value = StringMatch::Present;
        HeaderMatch { name: HeaderName::from_static(name), value }
    });
    let wanted = Match { headers: vec![x, y], ..Match::default() };
    check_match(&wanted, &Request::get("", "/").header("x", b""), false);
    check_match(&wanted, &Request::get("", "/").header("x", b"").header("y", b""), true);
}

#[test]
fn queries() {
    for (wanted, query, expected) in [
        (StringMatch::Present, "/", false),
        (StringMatch::Present, "/?q", true),
        (StringMatch::Present, "/?%71=1", true),
        (StringMatch::Present, "/?Q=1", false),
        (StringMatch::Present, "/?q=%ff", true),
        (StringMatch::Absent, "/", true),
        (StringMatch::Absent, "/?", true),
        (StringMatch::Absent, "/?a=q", true),
        (StringMatch::Absent, "/?q", false),
        (StringMatch::Exact("a b".into()), "/?x=1&q=a+b", true),
        (StringMatch::Exact("a b".into()), "/?q=a%20b", true),
        (StringMatch::Exact("a+b".into()), "/?q=a%2Bb", true),
        (StringMatch::Exact("a+b".into()), "/?q=a+b", false),
        (StringMatch::Exact("2".into()), "/?q=1&q=2", false),
        (StringMatch::Exact("1".into()), "/?q=1&q=2", true),
        (StringMatch::Exact("".into()), "/?q", true),
        (StringMatch::Exact("café".into()), "/?q=caf%c3%a9", true),
        (StringMatch::Prefix("a ".into()), "/?q=a+b", true),
        (StringMatch::Prefix("a".into()), "/?q=a%ff", false),
        (regex("^a b$"), "/?q=a+b", true),
        (regex(""), "/?q=%ff", false),
    ] {
        check_match(&with_query(wanted), &Request::get("", query), expected);
    }
}

/// What hides nothing must not be left out of the index.
#[test]
fn only_what_is_hidden_is_left_out() {
    let conditional = |path: &str| Match { path: to(path).path, ..with_header(StringMatch::Present) };
    let table = table([
        conditional("/a"),
        conditional(""),
        conditional("=/a"),
        to("/a"),
        to("/a/b"),
        to("=/a"),
        to(""),
    ]);
    check(&table, &Request::get("", "/a"), Some(3));
    check(&table, &Request::get("", "/a/b"), Some(3));
    check(&table, &Request::get("", "/b"), Some(6));
    check(&table, &Request::get("", "/b").header("x", b""), Some(1));
    check(&table, &Request::get("", "/a").header("x", b""), Some(0));
}

#[test]
fn many_routes_on_one_path() {
    let wanted = |i: u32| with_header(StringMatch::Exact(i.to_string().into()));
    let table = table((0..300).map(wanted));
    check(&table, &Request::get("", "/").header("x", b"299"), Some(299));
    check(&table, &Request::get("", "/").header("x", b"300"), None);
}

/// Hashes that are alike in part must not lead into the group of another host.
#[test]
fn groups_with_the_same_paths_stay_apart() {
    let paths = ["/a", "=/a", "/b"];
    let table = table((0..3000).map(|i| Match { path: to(paths[i % 3]).path, ..on(&format!("h{i}")) }));
    let index = RouteIndex::new(&table);
    for i in 0..3000 {
        let find = |path| index.find(&table, &Request::get(&format!("h{i}"), path).head());
        let expected = [[true, true, false], [false, true, false], [false, false, true]][i % 3];
        assert_eq!(["/a/x", "/a", "/b"].map(find), expected.map(|found| found.then_some(i)), "h{i}");
    }
}

#[test]
fn a_table_of_another_index_is_harmless() {
    let many =
        table((0..50).map(|i| Match { path: to(&format!("/svc-{i}")).path, ..on("a.example,*.example") }));
    let index = RouteIndex::new(&many);
    for other in [table([]), table([to("~x")]), table([Match { path: to("/s").path, ..on("b") }])] {
        index.find(&other, &Request::get("a.example", "/svc-1/x").head());
    }
}

#[track_caller]
fn check_size(limit: usize, wanted: impl Fn(usize) -> Match) {
    let table = table((0..10_000).map(wanted));
    let each = RouteIndex::new(&table).heap_bytes() / table.routes.len();
    assert!(each <= limit, "{each} bytes a route");
}

#[test]
fn the_index_is_small() {
    // A little above what they take: 32, 24, 32 and 60 bytes.
    check_size(40, |i| to(&format!("/svc-{i}")));
    check_size(40, |i| to(&format!("=/package.Service/Method{i}")));
    check_size(40, |i| on(&format!("svc-{i}.example")));
    check_size(75, |i| Match { path: to(&format!("/svc-{i}")).path, ..on(&format!("svc-{i}.example")) });
}

fn pick<T: Clone + std::fmt::Debug + 'static>(of: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(of.to_vec())
}

/// Few segments, so that prefixes overlap.
fn a_path() -> impl Strategy<Value = String> {
    let segments = prop::collection::vec(pick(&["a", "b", "ab", "", "a;v"]), 0..4);
    segments.prop_map(|segments| format!("/{}", segments.join("/")))
}

fn a_host() -> impl Strategy<Value = String> {
    let name = pick(&["a.x", "b.x", "c.b.x", "x", "A.x", "d.C.b.X", "[::1]", "", ".x", "..b.x", "a.x.", "y"]);
    (name, pick(&["", "", ":80", ":", ":p"])).prop_map(|(name, port)| format!("{name}{port}"))
}

fn a_path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        6 => a_path().prop_map(|path| PathMatch::Prefix(path.trim_end_matches('/').into())),
        // As nobody should write them, for the agreement's sake.
        1 => pick(&["/a/", "/", "a", "a/b"]).prop_map(|path| PathMatch::Prefix(path.into())),
        3 => a_path().prop_map(|path| PathMatch::Exact(path.into())),
        2 => pick(&["^/a", "b$", "//", "^/a/b$"]).prop_map(|regex| PathMatch::Regex(Pattern::new(regex).unwrap())),
        2 => Just(PathMatch::Any),
    ]
}

fn a_text_match() -> impl Strategy<Value = StringMatch> {
    pick(&[
        StringMatch::Present,
        StringMatch::Absent,
        StringMatch::Exact("1".into()),
        StringMatch::Prefix("1".into()),
        regex("2$"),
    ])
}

fn a_match() -> impl Strategy<Value = Match> {
    let hosts =
        pick(&["", "", "a.x", "b.x", "*.x", "*.b.x", "a.x,*.x", "*.b.x,a.x", "a.x,a.x", "[::1]", "x,y"]);
    let methods = pick(&[&[][..], &[], &[], &[Method::GET], &[Method::POST, Method::GET], &[Method::PUT]]);
    let header = prop::option::weighted(0.3, a_text_match());
    let query = prop::option::weighted(0.2, a_text_match());
    (hosts, a_path_match(), methods, header, query).prop_map(|(hosts, path, methods, header, query)| Match {
        path,
        methods: methods.to_vec(),
        headers: header.map(|value| with_header(value).headers).unwrap_or_default(),
        query: query.map(|value| with_query(value).query).unwrap_or_default(),
        ..on(hosts)
    })
}

fn a_request() -> impl Strategy<Value = Request> {
    let path = prop_oneof![12 => a_path(), 1 => pick(&["*", "", "a", "a/b"]).prop_map(str::to_owned)];
    let query = pick(&["", "", "?q=1", "?q=2&q=1", "?%71=%31+2", "?p"]);
    let headers = prop::collection::vec(pick(&[&b"1"[..], b"2", b"12", b"1\xff"]), 0..3);
    (a_host(), path, query, pick(&[Method::GET, Method::POST]), headers).prop_map(
        |(host, path, query, method, headers)| {
            let request = Request { method, ..Request::get(&host, &format!("{path}{query}")) };
            headers.into_iter().fold(request, |request, value| request.header("x", value))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4096) })]

    #[test]
    fn the_index_equals_the_naive_matcher(
        wanted in prop::collection::vec(a_match(), 0..24),
        requests in prop::collection::vec(a_request(), 1..8),
    ) {
        let table = table(wanted);
        let index = RouteIndex::new(&table);
        for request in requests {
            let head = request.head();
            let expected = naive::find(&table, &head);
            prop_assert_eq!(index.find(&table, &head), expected, "{:?}", request);
            let fits = |route: &Route| matches(&route.matches, &head);
            prop_assert_eq!(table.routes.iter().any(fits), expected.is_some());
            prop_assert!(expected.is_none_or(|position| fits(&table.routes[position])));
        }
    }
}
