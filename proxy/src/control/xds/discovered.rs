//! What a control plane has said, as whoever serves it is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_proto::model::{Assignment, Cluster, Filter, Listener, Name, RouteTable};

use crate::identity::secrets::Secrets;

/// What is found, as far as it can be served.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Discovered {
    /// Each with its routes among the tables.
    pub listeners: BTreeMap<Name, Listener>,
    /// By name.
    pub route_tables: BTreeMap<Name, RouteTable>,
    /// By name.
    pub clusters: BTreeMap<Name, Arc<Cluster>>,
    /// Of those clusters that DNS does not resolve.
    pub endpoints: BTreeMap<Name, Arc<Assignment>>,
    /// Those that listeners and clusters name.
    pub secrets: Secrets,
}

impl Discovered {
    /// A listener stays as it was before, if it was otherwise; else it is left out.
    pub fn keep_listener(&mut self, name: &Name, before: &Self) {
        let Some(new) = self.listeners.remove(name) else { return };
        let Some(old) = before.listeners.get(name).filter(|old| **old != new) else { return };
        for chain in old.chains.each() {
            if let Filter::Http(http) = &chain.filter
                && let Some(table) = before.route_tables.get(&http.routes)
            {
                self.route_tables.entry(http.routes.clone()).or_insert_with(|| table.clone());
            }
        }
        self.listeners.insert(name.clone(), old.clone());
    }
}

/// What has changed.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// All of it may have.
    All(Box<Discovered>),
    /// Only the endpoints of these clusters.
    Endpoints(BTreeMap<Name, Arc<Assignment>>),
}
