//! Resources that tell their version by what they mean, and what is said of each kind.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use outrigger_proto::model::{
    Action, Address, Assignment, Cluster, Endpoint, Filter, Listener, Name, Route, RouteTable,
};
use outrigger_proto::xds::discovery::Any;
use outrigger_proto::xds::{
    self, ClusterResource, EndpointSource, Kind, ListenerResource, Resource, RouteSource,
};
use outrigger_proto::yaml;

/// A resource: of which kind, and its number there.
pub(super) type Id = (Kind, u8);
/// What there is.
pub(super) type World = BTreeMap<Id, One>;

/// Of one resource, what it is by now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct One {
    pub(super) version: u16,
    /// The numbers of what it refers to, of the next kind: as many as it has routes; otherwise one, or none.
    pub(super) to: Vec<u8>,
}

/// What a kind refers to.
pub(super) fn below(kind: Kind) -> Option<Kind> {
    match kind {
        Kind::Listener => Some(Kind::Routes),
        Kind::Routes => Some(Kind::Cluster),
        Kind::Cluster => Some(Kind::Endpoints),
        Kind::Endpoints | Kind::Secret | Kind::Host => None,
    }
}

/// What a resource is called.
pub(super) fn called(number: u8) -> Name {
    Name::new(&format!("n{number}")).unwrap()
}

/// What is called so.
pub(super) fn number(name: &str) -> u8 {
    name[1..].parse().unwrap()
}

/// What a file says is good enough for what a control plane may.
struct Parts {
    listener: Listener,
    routes: [Route; 2],
    cluster: Cluster,
}

static PARTS: LazyLock<Parts> = LazyLock::new(|| {
    let text = "
listeners: { a: { bind: 127.0.0.1:0, routes: [{ match: { path: /a }, to: a }, { to: a }] } }
clusters: { a: { endpoints: [] } }
";
    let source = yaml::Source { name: "", text, base: std::path::Path::new(""), env: &|_| None };
    let mesh = yaml::parse(&source).unwrap().config.mesh;
    Parts {
        listener: mesh.listeners["a"].clone(),
        routes: [0, 1].map(|place| mesh.route_tables["a"].routes[place].clone()),
        cluster: (*mesh.clusters["a"]).clone(),
    }
});

thread_local! {
    /// What was written before: runs are much alike.
    static WRITTEN: RefCell<HashMap<(Id, One), Any>> = RefCell::default();
}

/// A resource as it is said.
pub(super) fn written(id: Id, one: &One) -> Any {
    let known = |all: &RefCell<HashMap<_, _>>| {
        all.borrow_mut().entry((id, one.clone())).or_insert_with(|| write(id, one)).clone()
    };
    WRITTEN.with(known)
}

fn write((kind, number): Id, one: &One) -> Any {
    let lasts = Duration::from_secs(one.version.into());
    let resource = match kind {
        Kind::Listener => {
            let mut listener = PARTS.listener.clone();
            let table = called(one.to[0]);
            for chain in listener.chains.each_mut() {
                let Filter::Http(http) = &mut chain.filter else { panic!("it reads HTTP") };
                http.routes = table.clone();
                chain.limits.header_timeout = lasts;
            }
            let routes = [RouteSource::Rds(table)].into();
            Resource::Listener(Box::new(ListenerResource { listener, routes }))
        }
        Kind::Routes => {
            let route = |(to, route): (&u8, &Route)| {
                let mut route = route.clone();
                let Action::Forward(forward) = &mut route.action else { panic!("it forwards") };
                forward.to.targets[0].to.cluster = called(*to);
                forward.timeout = Some(lasts);
                route
            };
            Resource::Routes(RouteTable {
                routes: one.to.iter().zip(&PARTS.routes).map(route).collect(),
                on_demand: false,
            })
        }
        Kind::Cluster => {
            let cluster = Arc::new(Cluster { connect_timeout: lasts, ..PARTS.cluster.clone() });
            let endpoints = EndpointSource::Eds(called(one.to[0]));
            Resource::Cluster(Box::new(ClusterResource { cluster, endpoints }))
        }
        Kind::Endpoints => {
            let at = |last| Endpoint::new(Address::Ip(([10, 0, number, last], one.version).into()));
            Resource::Endpoints(Assignment { endpoints: vec![at(1), at(2)] })
        }
        Kind::Secret | Kind::Host => panic!("there are none"),
    };
    xds::write(&called(number), &resource).unwrap()
}

/// The one version that all of it tells.
fn version(each: impl Iterator<Item = Duration>) -> u16 {
    let each: Vec<_> = each.collect();
    assert!(!each.is_empty() && each.iter().all(|lasts| *lasts == each[0]), "{each:?}");
    each[0].as_secs().try_into().unwrap()
}

/// What a listener is.
pub(super) fn of_listener(listener: &Listener) -> One {
    let chain = listener.chains.only().unwrap();
    let Filter::Http(http) = &chain.filter else { panic!("it reads HTTP") };
    let version = version(std::iter::once(chain.limits.header_timeout));
    One { version, to: vec![number(http.routes.as_str())] }
}

/// What a table is.
pub(super) fn of_table(table: &RouteTable) -> One {
    let forwards = table.routes.iter().map(|route| match &route.action {
        Action::Forward(forward) => forward,
        other => panic!("{other:?}"),
    });
    let forwards: Vec<_> = forwards.collect();
    let to = forwards.iter().map(|forward| number(forward.to.targets[0].to.cluster.as_str())).collect();
    One { version: version(forwards.iter().map(|forward| forward.timeout.unwrap())), to }
}

/// What a cluster is, and which endpoints it has: their number, and what they are.
pub(super) fn of_cluster(cluster: &Cluster, set: &Assignment) -> (One, (u8, One)) {
    let version = version(std::iter::once(cluster.connect_timeout));
    let mut each = set.endpoints.iter().map(|endpoint| match &endpoint.address {
        Address::Ip(std::net::SocketAddr::V4(at)) => (at.ip().octets()[2], at.port()),
        other => panic!("{other}"),
    });
    let (number, told) = each.next().expect("a cluster with endpoints");
    assert!(each.all(|other| other == (number, told)), "{set:?}");
    (One { version, to: vec![number] }, (number, One { version: told, to: Vec::new() }))
}
