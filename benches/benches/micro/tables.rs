//! Route tables of any size, and requests for them.

use http::{HeaderMap, Method};
use outrigger::facts::ReqHead;
use outrigger_proto::model::{Action, Forward, HostPattern, Match, Name, PathMatch, Route, RouteTable};

/// The cluster that every route leads to.
pub(crate) const CLUSTER: &str = "app";
/// Requests that are taken in turn: enough that the caches hold a large table no better than they would in service.
const REQUESTS: usize = 1024;

/// The parts of a request that routing reads, and which route it is for.
pub(crate) struct Request {
    host: String,
    path: String,
    pub(crate) route: usize,
}

impl Request {
    pub(crate) fn head<'a>(&'a self, headers: &'a HeaderMap) -> ReqHead<'a> {
        ReqHead { host: &self.host, path: &self.path, query: None, method: &Method::GET, headers }
    }
}

/// A prefix for each route.
pub(crate) fn prefixes(routes: usize) -> RouteTable {
    let route = |i| route(Match { path: PathMatch::Prefix(prefix(i).into()), ..Match::default() });
    RouteTable { routes: (0..routes).map(route).collect(), on_demand: false }
}

/// A host for each route.
pub(crate) fn hosts(routes: usize) -> RouteTable {
    let route = |i| route(Match { hosts: vec![HostPattern::Exact(host(i).into())], ..Match::default() });
    RouteTable { routes: (0..routes).map(route).collect(), on_demand: false }
}

/// Requests for either table, in an order of their own.
pub(crate) fn requests(routes: usize) -> Vec<Request> {
    let mut rng = fastrand::Rng::with_seed(7);
    let request = |_| {
        let route = rng.usize(..routes);
        Request { host: host(route), path: below(route), route }
    };
    (0..REQUESTS).map(request).collect()
}

/// A path that the route of this prefix takes.
pub(crate) fn below(route: usize) -> String {
    format!("{}/items/8c1f2b6e", prefix(route))
}

/// Teams of a hundred services, so that prefixes share segments as real ones do.
fn prefix(route: usize) -> String {
    format!("/team-{}/service-{route}/v1", route / 100)
}

fn host(route: usize) -> String {
    format!("service-{route}.team-{}.svc.cluster.local", route / 100)
}

fn route(matches: Match) -> Route {
    Route::new(matches, Action::Forward(Forward::to(Name::new(CLUSTER).expect("a name"))))
}
