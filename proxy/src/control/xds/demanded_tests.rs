//! A mesh of many hosts, of which a proxy holds what is called through it.

use std::sync::Arc;

use outrigger_proto::model::{Name, RouteTable};
use outrigger_proto::xds::discovery::{Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use outrigger_proto::xds::status::ClientResourceStatus;
use outrigger_proto::xds::{self, Kind, ListenerResource, RouteSource, host_name, write, write_host};
use outrigger_proto::yaml;
use tokio::time::Instant;

use super::delta::Delta;
use super::demanded::{Demanded, Hosts};
use super::discovered::{Discovered, News};
use super::said::{Held, Said};
use super::sotw::Sotw;
use super::speaks::Speaks;
use super::state::State;
use super::written::{cluster, node, set};
use crate::demand::Use;

/// What there is in all: a table of two hosts, each of which leads to a cluster called as it, and one for all others.
struct Mesh(yaml::Parsed);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

impl Mesh {
    fn new() -> Self {
        let text = "
listeners:
  web:
    bind: 127.0.0.1:0
    routes:
      - { match: { host: a }, to: a }
      - { match: { host: [b, c] }, to: b }
clusters: { a: { endpoints: [] }, b: { endpoints: [] } }
";
        let source = yaml::Source { name: "", text, base: std::path::Path::new(""), env: &|_| None };
        Self(yaml::parse(&source).unwrap())
    }

    fn listener(&self) -> Any {
        let (of, listener) = self.0.config.mesh.listeners.first_key_value().unwrap();
        let resource = ListenerResource {
            listener: listener.clone(),
            routes: Box::new([RouteSource::Rds(name("web"))]),
        };
        write(of, &xds::Resource::Listener(Box::new(resource))).unwrap()
    }

    fn table(&self) -> Any {
        let table = RouteTable { on_demand: true, ..RouteTable::default() };
        write(&name("web"), &xds::Resource::Routes(table)).unwrap()
    }

    fn host(&self, host: &str) -> Any {
        let (_, table) = self.0.config.mesh.route_tables.first_key_value().unwrap();
        write_host(&host_name(&name("web"), host).unwrap(), table, host).unwrap().unwrap()
    }
}

struct Proxy {
    state: State,
    delta: Delta,
}

impl Proxy {
    /// One that has its listener, and a table that tells hosts on demand.
    fn start(mesh: &Mesh) -> Self {
        let mut proxy = Self { state: State::new(false, true), delta: Delta };
        assert_eq!(shown(&proxy.delta.begin(&node(), &mut proxy.state)), ["Listener + -"]);
        let said = proxy.take(Kind::Listener, "web", Some(mesh.listener()));
        assert_eq!(said, ["Listener + -", "RouteConfiguration +web -"]);
        proxy.take(Kind::Routes, "web", Some(mesh.table()));
        // Nothing leads anywhere, and so nothing is waited for.
        assert_eq!(proxy.all().clusters.len(), 0);
        proxy
    }

    fn take(&mut self, kind: Kind, name: &str, any: Option<Any>) -> Vec<String> {
        self.take_as(kind, (name, &[]), any)
    }

    fn take_as(&mut self, kind: Kind, (name, aliases): (&str, &[&str]), any: Option<Any>) -> Vec<String> {
        let resource = Resource {
            name: name.to_owned(),
            resource: any,
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            ..Resource::default()
        };
        self.hear(DeltaDiscoveryResponse { resources: vec![resource], ..of(kind) })
    }

    fn remove(&mut self, kind: Kind, name: &str) -> Vec<String> {
        self.hear(DeltaDiscoveryResponse { removed_resources: vec![name.to_owned()], ..of(kind) })
    }

    fn hear(&mut self, response: DeltaDiscoveryResponse) -> Vec<String> {
        let (said, refused) = self.delta.take(&mut self.state, response, Instant::now());
        assert!(refused.is_empty(), "{refused:?}");
        shown(&said)
    }

    fn demand(&mut self, host: &str) -> (Demanded, Vec<String>) {
        let demanded = self.state.demand(&name("web"), host);
        (demanded, shown(&self.delta.subscribe(&mut self.state)))
    }

    fn endpoints(&mut self, of: &str) {
        let cluster = Any { type_url: Kind::Cluster.url(), value: cluster(of, &[]) };
        let said = self.take(Kind::Cluster, of, Some(cluster));
        assert_eq!(said, ["Cluster + -".to_owned(), format!("ClusterLoadAssignment +{of} -")]);
        let set = Any { type_url: Kind::Endpoints.url(), value: set(of, &[80]) };
        self.take(Kind::Endpoints, of, Some(set));
    }

    fn all(&mut self) -> Discovered {
        match self.state.news(false) {
            Some(News::All(all)) => *all,
            other => panic!("not all of it: {other:?}"),
        }
    }
}

fn of(kind: Kind) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse { type_url: kind.url(), ..DeltaDiscoveryResponse::default() }
}

/// Kind, and what is wanted from now on and no longer.
fn shown(requests: &[DeltaDiscoveryRequest]) -> Vec<String> {
    let show = |request: &DeltaDiscoveryRequest| {
        let kind = Kind::of_url(&request.type_url).unwrap();
        let (more, less) = (&request.resource_names_subscribe, &request.resource_names_unsubscribe);
        format!("{kind} +{} -{}", more.join(","), less.join(","))
    };
    requests.iter().map(show).collect()
}

fn hosts(all: &Discovered) -> usize {
    all.route_tables["web"].routes.iter().filter(|route| !route.clusters().is_empty()).count()
}

#[test]
fn a_host_comes_when_it_is_called_with_all_that_it_leads_to() {
    let mesh = Mesh::new();
    let mut proxy = Proxy::start(&mesh);
    let (demanded, said) = proxy.demand("a");
    assert_eq!((demanded, said), (Demanded::Awaited(name("web/a")), vec!["VirtualHost +web/a -".to_owned()]));
    let status = proxy.state.status(false).into_iter().find(|of| of.name == "web/a").unwrap();
    assert_eq!(status.client_status(), ClientResourceStatus::Requested);
    // Another request for it asks nobody.
    assert_eq!(proxy.demand("a"), (Demanded::Awaited(name("web/a")), vec![]));
    let said = proxy.take(Kind::Host, "web/a", Some(mesh.host("a")));
    assert_eq!(said, ["VirtualHost + -", "Cluster +a -"]);
    assert_eq!((proxy.state.news(false), proxy.state.demanded(&name("web/a"))), (None, None));
    proxy.endpoints("a");
    // There, and not in force.
    assert_eq!(proxy.state.demanded(&name("web/a")), None);
    let all = proxy.all();
    assert_eq!((hosts(&all), all.clusters.len(), all.endpoints["a"].endpoints.len()), (1, 1, 1));
    assert_eq!(proxy.state.demanded(&name("web/a")), Some(true));
    // Gone, it takes with it what nothing else leads to.
    let said = proxy.remove(Kind::Host, "web/a");
    assert_eq!(said, ["VirtualHost + -", "Cluster + -a", "ClusterLoadAssignment + -a"]);
    assert_eq!(proxy.all().clusters.len(), 0);
    // It is asked for still, and comes when it comes.
    assert_eq!(proxy.demand("a"), (Demanded::Known(false), vec![]));
    let said = proxy.take(Kind::Host, "web/a", Some(mesh.host("a")));
    assert_eq!(said, ["VirtualHost + -", "Cluster +a -"]);
}

#[test]
fn a_host_that_is_let_go_takes_with_it_what_nothing_else_leads_to() {
    let mesh = Mesh::new();
    let mut proxy = Proxy::start(&mesh);
    for host in ["a", "b"] {
        proxy.demand(host);
        proxy.take(Kind::Host, &format!("web/{host}"), Some(mesh.host(host)));
        proxy.endpoints(host);
    }
    assert_eq!(hosts(&proxy.all()), 2);
    let used = |cluster: &Name| Use { requests: 3, is_busy: cluster.as_str() == "b" };
    let used: Vec<_> = proxy.state.hosts_used(&used).map(|(name, used)| (name.clone(), used)).collect();
    let expected = [("web/a", false), ("web/b", true)];
    assert_eq!(used, expected.map(|(host, is_busy)| (name(host), Use { requests: 3, is_busy })));
    proxy.state.let_go(&name("web/a"));
    let said = shown(&proxy.delta.subscribe(&mut proxy.state));
    assert_eq!(said, ["Cluster + -a", "ClusterLoadAssignment + -a", "VirtualHost + -web/a"]);
    let all = proxy.all();
    assert_eq!((hosts(&all), all.clusters.len()), (1, 1));
    // Called again, it is asked for again.
    assert_eq!(proxy.demand("a").1, ["VirtualHost +web/a -"]);
}

#[test]
fn a_host_of_several_names_is_one() {
    let mesh = Mesh::new();
    let mut proxy = Proxy::start(&mesh);
    proxy.demand("b");
    proxy.demand("c");
    proxy.take_as(Kind::Host, ("web/both", &["web/b", "web/c"]), Some(mesh.host("b")));
    proxy.endpoints("b");
    assert_eq!(hosts(&proxy.all()), 1);
    assert_eq!(proxy.state.demanded(&name("web/c")), Some(true));
    // Under its own name it changes, and goes.
    let said = proxy.take(Kind::Host, "web/both", Some(mesh.host("a")));
    assert_eq!(said, ["VirtualHost + -", "Cluster +a -b", "ClusterLoadAssignment + -b"]);
    proxy.endpoints("a");
    assert_eq!(hosts(&proxy.all()), 1);
    proxy.remove(Kind::Host, "web/both");
    assert_eq!(hosts(&proxy.all()), 0);
    assert_eq!(proxy.state.demanded(&name("web/b")), Some(false));
}

#[test]
fn that_there_is_none_is_an_answer_and_is_forgotten_after_many() {
    let mesh = Mesh::new();
    let mut proxy = Proxy::start(&mesh);
    proxy.demand("x");
    proxy.demand("y");
    // The two ways of saying so.
    proxy.remove(Kind::Host, "web/x");
    proxy.take(Kind::Host, "web/y", None);
    assert_eq!((proxy.demand("x").0, proxy.demand("y").0), (Demanded::Known(false), Demanded::Known(false)));
    for number in 0..1_000 {
        proxy.demand(&format!("n{number}"));
    }
    assert_eq!(proxy.state.names(Kind::Host).len(), 1_000);
    assert_eq!(proxy.demand("x").0, Demanded::Awaited(name("web/x")));
    // No host at all.
    assert_eq!(proxy.demand("a b").0, Demanded::Known(false));
}

#[test]
fn a_table_that_says_all_asks_for_no_host_any_more() {
    let mesh = Mesh::new();
    let mut proxy = Proxy::start(&mesh);
    proxy.demand("a");
    let (_, whole) = mesh.0.config.mesh.route_tables.first_key_value().unwrap();
    let whole = write(&name("web"), &xds::Resource::Routes(whole.clone())).unwrap();
    let said = proxy.take(Kind::Routes, "web", Some(whole));
    assert_eq!(said, ["RouteConfiguration + -", "Cluster +a,b -", "VirtualHost + -web/a"]);
    assert_eq!(proxy.demand("a"), (Demanded::Known(false), vec![]));
}

#[test]
fn who_says_all_each_time_cannot_tell_hosts_on_demand() {
    let mesh = Mesh::new();
    let (mut state, mut sotw) = (State::new(false, true), Sotw::default());
    sotw.begin(&node(), &mut state);
    let of = |kind: Kind, any: Any| outrigger_proto::xds::discovery::DiscoveryResponse {
        type_url: kind.url(),
        resources: vec![any],
        ..Default::default()
    };
    sotw.take(&mut state, of(Kind::Listener, mesh.listener()), Instant::now());
    let (_, refused) = sotw.take(&mut state, of(Kind::Routes, mesh.table()), Instant::now());
    assert_eq!(
        refused[0].to_string(),
        "RouteConfiguration[web].vhds: hosts on demand are told incrementally alone, and this server says all there is"
    );
}

#[test]
fn hosts_of_a_table_below_another_are_its_own() {
    let mut hosts = Hosts::default();
    let (_, table) = Mesh::new().0.config.mesh.route_tables.pop_first().unwrap();
    let on_demand = || RouteTable { on_demand: true, ..RouteTable::default() };
    hosts.demand(&name("a/b"), "c");
    hosts.put(&name("a/b/c"), Held::new(Arc::new(table.clone()), Said::default(), false));
    assert_eq!(hosts.within(&name("a"), on_demand()), on_demand());
    hosts.drop_all_of(&name("a"));
    assert_eq!(hosts.within(&name("a/b"), on_demand()).routes, table.routes);
    hosts.drop_all_of(&name("a/b"));
    hosts.change();
    assert_eq!(hosts.within(&name("a/b"), on_demand()), on_demand());
}
