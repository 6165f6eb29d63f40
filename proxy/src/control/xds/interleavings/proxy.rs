//! The proxy, what it serves, and what it has served.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_proto::model::Name;
use outrigger_proto::xds::Kind;
use tokio::time::Instant;

use super::super::discovered::{Discovered, News};
use super::super::state::State;
use super::super::written::node;
use super::parts::{Id, One, World, below, number, of_cluster, of_listener, of_table};
use super::server::{Server, Wire};

/// See the module.
pub(super) struct Proxy<P> {
    speaks: P,
    state: State,
    serves: Option<Discovered>,
    /// The newest version of each that was ever in force.
    newest: BTreeMap<Id, u16>,
}

impl<P: Wire> Proxy<P> {
    pub(super) fn new(speaks: P) -> Self {
        Self { speaks, state: State::default(), serves: None, newest: BTreeMap::new() }
    }

    /// What it says first on a stream.
    pub(super) fn begin(&mut self) -> Vec<P::Request> {
        self.speaks.begin(&node(), &mut self.state)
    }

    /// Takes what is said, serves it as far as it may, and answers.
    pub(super) fn take(&mut self, response: P::Response, server: &mut Server<P>) {
        let (requests, refused) = self.speaks.take(&mut self.state, response, Instant::now());
        assert!(refused.is_empty(), "{refused:?}");
        server.told(requests);
        let served = |name: &Name| self.serves.as_ref().is_some_and(|all| all.clusters.contains_key(name));
        self.state.look_ahead(served);
        match (self.state.news(false), &mut self.serves) {
            // What is in force is what it was.
            (None, _) => return,
            (Some(News::All(all)), serves) => *serves = Some(*all),
            (Some(News::Endpoints(sets)), serves) => serves.as_mut().unwrap().endpoints.extend(sets),
        }
        self.assert_newest();
    }

    /// All that is in force, where each leads to something that is there.
    fn each(&self) -> Vec<(Id, One)> {
        let Some(serves) = &self.serves else { return Vec::new() };
        let mut each = Vec::new();
        for (name, listener) in &serves.listeners {
            let listener = of_listener(listener);
            each.push(((Kind::Listener, number(name.as_str())), listener));
        }
        for (name, table) in &serves.route_tables {
            each.push(((Kind::Routes, number(name.as_str())), of_table(table)));
        }
        for (name, cluster) in &serves.clusters {
            let (cluster, (set, endpoints)) = of_cluster(cluster, &serves.endpoints[name]);
            each.push(((Kind::Cluster, number(name.as_str())), cluster));
            each.push(((Kind::Endpoints, set), endpoints));
        }
        each
    }

    /// What is in force leads to what is in force, and there is no version of anything but the newest that was ever shown.
    fn assert_newest(&mut self) {
        let each = self.each();
        let there: BTreeSet<Id> = each.iter().map(|(id, _)| *id).collect();
        for ((kind, number), one) in &each {
            for to in &one.to {
                let needed = (below(*kind).unwrap(), *to);
                assert!(there.contains(&needed), "{kind} {number} leads to {needed:?}, which is not there");
            }
            let newest = self.newest.entry((*kind, *number)).or_default();
            *newest = one.version.max(*newest);
        }
        for (id, one) in &each {
            let newest = self.newest[id];
            assert_eq!(one.version, newest, "{id:?} was in force in a newer version, or is beside");
        }
    }

    /// The same by name; one that is there twice is there once.
    pub(super) fn in_force(&self) -> World {
        self.each().into_iter().collect()
    }
}
