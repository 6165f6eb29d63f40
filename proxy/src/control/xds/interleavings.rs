//! Whatever part of what a control plane says comes before whatever other, no request meets a cluster without endpoints.
//!
//! The server here keeps to the protocol and to nothing else: of each change, the cluster, the route to it and the end of the
//! one before are told in whatever order, and everything between is a matter of luck.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use outrigger_proto::model::{Action, Assignment, Name, RouteTable};
use outrigger_proto::xds::discovery::{Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use outrigger_proto::xds::{self, Kind, ListenerResource, RouteSource, write};
use outrigger_proto::yaml;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::time::Instant;

use super::delta::Delta;
use super::discovered::{Discovered, News};
use super::speaks::Speaks;
use super::state::State;
use super::written::{cluster, node, set};

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The route leads to this cluster from now on; to the one before it, nothing does. That is said in one of six orders.
    Lead(u8, u8),
    /// The endpoints of the cluster that is led to are others.
    Move(u8),
    /// The next word of what has changed is said.
    Say,
    /// An answer for endpoints, of those that were asked for, is said.
    Answer(usize),
    /// What the proxy has said is heard.
    Hear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..4_u8, 0..6_u8).prop_map(|(to, order)| Step::Lead(to, order)),
        1 => (1..100_u8).prop_map(Step::Move),
        6 => Just(Step::Say),
        4 => any::<usize>().prop_map(Step::Answer),
        4 => Just(Step::Hear),
    ]
}

/// A word that is to be said in its turn.
#[derive(Debug)]
enum Word {
    Cluster(u8),
    Routes(u8),
    Without(u8),
}

struct Server {
    table: yaml::Parsed,
    leads: u8,
    ports: BTreeMap<u8, u8>,
    words: VecDeque<Word>,
    /// Endpoints that were asked for, or are others, or none.
    owed: Vec<u8>,
    /// The clusters that are said to be there; of those, whose endpoints were said.
    there: BTreeMap<u8, bool>,
    heard: VecDeque<DeltaDiscoveryRequest>,
    nonce: u32,
}

fn called(number: u8) -> String {
    format!("c{number}")
}

fn number(name: &str) -> u8 {
    name[1..].parse().unwrap()
}

impl Server {
    fn new() -> Self {
        let text = "
listeners: { web: { bind: 127.0.0.1:0, routes: [{ to: c0 }] } }
clusters: { c0: { endpoints: [] } }
";
        let source = yaml::Source { name: "", text, base: std::path::Path::new(""), env: &|_| None };
        let ports = BTreeMap::from([(0, 1)]);
        let (words, owed, there, heard) = Default::default();
        Self { table: yaml::parse(&source).unwrap(), leads: 0, ports, words, owed, there, heard, nonce: 0 }
    }

    fn response(&mut self, kind: Kind, put: Vec<(String, Any)>, gone: Vec<String>) -> DeltaDiscoveryResponse {
        self.nonce += 1;
        let resource = |(name, any)| Resource { name, resource: Some(any), ..Resource::default() };
        DeltaDiscoveryResponse {
            type_url: kind.url(),
            resources: put.into_iter().map(resource).collect(),
            removed_resources: gone,
            nonce: self.nonce.to_string(),
            ..DeltaDiscoveryResponse::default()
        }
    }

    fn put(&mut self, kind: Kind, name: String, value: Vec<u8>) -> DeltaDiscoveryResponse {
        let any = Any { type_url: kind.url(), value };
        self.response(kind, vec![(name, any)], Vec::new())
    }

    fn listener(&mut self) -> DeltaDiscoveryResponse {
        let (name, listener) = self.table.config.mesh.listeners.first_key_value().unwrap();
        let routes = [RouteSource::Rds(Name::new("web").unwrap())].into();
        let resource = ListenerResource { listener: listener.clone(), routes };
        let any = write(name, &xds::Resource::Listener(Box::new(resource))).unwrap();
        let name = name.to_string();
        self.response(Kind::Listener, vec![(name, any)], Vec::new())
    }

    fn routes(&mut self, to: u8) -> DeltaDiscoveryResponse {
        let mut route = self.table.config.mesh.route_tables.first_key_value().unwrap().1.routes[0].clone();
        if let Action::Forward(forward) = &mut route.action {
            forward.to.targets[0].to.cluster = Name::new(&called(to)).unwrap();
        }
        let table = RouteTable { routes: [route].into(), on_demand: false };
        let any = write(&Name::new("web").unwrap(), &xds::Resource::Routes(table)).unwrap();
        self.response(Kind::Routes, vec![("web".to_owned(), any)], Vec::new())
    }

    fn lead(&mut self, to: u8, order: u8) {
        if to == self.leads {
            return;
        }
        let from = std::mem::replace(&mut self.leads, to);
        self.ports.remove(&from);
        // That they are gone may be said long before nothing leads there any more.
        self.owed.push(from);
        self.ports.insert(to, to + 1);
        let mut words = [Word::Cluster(to), Word::Routes(to), Word::Without(from)];
        words.rotate_left(usize::from(order % 3));
        if order >= 3 {
            words.swap(0, 1);
        }
        self.words.extend(words);
    }

    fn say(&mut self) -> Option<DeltaDiscoveryResponse> {
        Some(match self.words.pop_front()? {
            Word::Cluster(one) => {
                self.there.insert(one, false);
                self.put(Kind::Cluster, called(one), cluster(&called(one), &[]))
            }
            Word::Routes(to) => self.routes(to),
            Word::Without(one) => {
                self.there.remove(&one);
                self.owed.push(one);
                self.response(Kind::Cluster, Vec::new(), vec![called(one)])
            }
        })
    }

    fn answer(&mut self, which: usize) -> Option<DeltaDiscoveryResponse> {
        if self.owed.is_empty() {
            return None;
        }
        let one = self.owed.swap_remove(which % self.owed.len());
        match self.ports.get(&one).copied() {
            Some(port) => {
                self.there.entry(one).and_modify(|said| *said = true);
                Some(self.put(Kind::Endpoints, called(one), set(&called(one), &[port])))
            }
            // A cluster that is said to be there, and never to have had endpoints, would be cold indeed.
            None if self.there.get(&one) == Some(&false) => None,
            None => Some(self.response(Kind::Endpoints, Vec::new(), vec![called(one)])),
        }
    }

    fn hear(&mut self) {
        let Some(request) = self.heard.pop_front() else { return };
        if Kind::of_url(&request.type_url) == Some(Kind::Endpoints) {
            self.owed.extend(request.resource_names_subscribe.iter().map(|name| number(name)));
        }
    }
}

/// The proxy, and what it serves.
#[derive(Default)]
struct Proxy {
    state: State,
    delta: Delta,
    serves: Option<Discovered>,
}

impl Proxy {
    fn take(&mut self, response: DeltaDiscoveryResponse, server: &mut Server) {
        let (requests, refused) = self.delta.take(&mut self.state, response, Instant::now());
        assert!(refused.is_empty(), "{refused:?}");
        server.heard.extend(requests);
        let served = |name: &Name| self.serves.as_ref().is_some_and(|all| all.clusters.contains_key(name));
        self.state.look_ahead(served);
        match (self.state.news(false), &mut self.serves) {
            (None, _) => {}
            (Some(News::All(all)), serves) => *serves = Some(*all),
            (Some(News::Endpoints(sets)), serves) => serves.as_mut().unwrap().endpoints.extend(sets),
        }
        self.assert_warm();
    }

    fn leads(&self) -> Option<(&str, &Arc<Assignment>)> {
        let serves = self.serves.as_ref()?;
        let table = serves.route_tables.get("web")?;
        let Action::Forward(forward) = &table.routes.first()?.action else { panic!("it forwards") };
        let name = &forward.to.targets[0].to.cluster;
        assert!(serves.clusters.contains_key(name), "{name} is not there");
        Some((name.as_str(), &serves.endpoints[name]))
    }

    fn assert_warm(&self) {
        if let Some((name, set)) = self.leads() {
            assert!(!set.endpoints.is_empty(), "{name} is cold");
        }
    }
}

fn run(steps: &[Step]) {
    let (mut server, mut proxy) = (Server::new(), Proxy::default());
    server.heard.extend(proxy.delta.begin(&node(), &mut proxy.state));
    server.words.push_back(Word::Cluster(0));
    let first = [server.say().unwrap(), server.listener(), server.routes(0)];
    first.into_iter().for_each(|response| proxy.take(response, &mut server));
    for step in steps {
        let said = match *step {
            Step::Lead(to, order) => {
                server.lead(to, order);
                None
            }
            Step::Move(port) => {
                let leads = server.leads;
                server.ports.insert(leads, port);
                server.owed.push(leads);
                None
            }
            Step::Say => server.say(),
            Step::Answer(which) => server.answer(which),
            Step::Hear => {
                server.hear();
                None
            }
        };
        said.into_iter().for_each(|response| proxy.take(response, &mut server));
    }
    // All that is under way arrives, and is what was said last.
    while let Some(said) = server.say() {
        proxy.take(said, &mut server);
    }
    while !(server.heard.is_empty() && server.owed.is_empty()) {
        while !server.heard.is_empty() {
            server.hear();
        }
        while !server.owed.is_empty() {
            server.answer(0).into_iter().for_each(|said| proxy.take(said, &mut server));
        }
    }
    let (name, set) = proxy.leads().expect("something is served");
    assert_eq!(number(name), server.leads);
    assert!(set.endpoints[0].address.to_string().ends_with(&format!(":{}", server.ports[&server.leads])));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_cold_whatever_comes_first(steps in vec(step(), 0..60)) {
        run(&steps);
    }
}
