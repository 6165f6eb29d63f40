//! What a control plane has said so far, whichever way it says it: what is good, what of that is referred to and has not
//! come, and what of it is new to whoever serves it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use outrigger_proto::model::{Assignment, Cluster, DownstreamTls, Listener, Name, RouteTable, UpstreamTls};
use outrigger_proto::xds::{ClusterResource, EndpointSource, Kind, ListenerResource, Resource, RouteSource};

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

/// What has changed.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// All of it may have.
    All(Box<Discovered>),
    /// Only the endpoints of these clusters.
    Endpoints(BTreeMap<Name, Arc<Assignment>>),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Of which kinds something was said.
    answered: BTreeSet<Kind>,
    clusters: BTreeMap<Name, ClusterResource>,
    endpoints: BTreeMap<Name, Arc<Assignment>>,
    listeners: BTreeMap<Name, ListenerResource>,
    routes: BTreeMap<Name, RouteTable>,
    secrets: Secrets,
    told: Option<Discovered>,
}

impl State {
    /// An answer has come, whatever it says.
    pub(super) fn note_answer(&mut self, kind: Kind) {
        self.answered.insert(kind);
    }

    /// A resource is there, or is another.
    pub(super) fn put(&mut self, name: Name, resource: Resource) {
        match resource {
            Resource::Cluster(cluster) => drop(self.clusters.insert(name, *cluster)),
            Resource::Secret(secret) => drop(self.secrets.0.insert(name, Arc::new(secret))),
            Resource::Endpoints(set) => drop(self.endpoints.insert(name, Arc::new(set))),
            Resource::Listener(listener) => drop(self.listeners.insert(name, *listener)),
            Resource::Routes(table) => drop(self.routes.insert(name, table)),
        }
    }

    /// There are none but these.
    pub(super) fn keep(&mut self, kind: Kind, keeps: impl Fn(&Name) -> bool) {
        match kind {
            Kind::Cluster => self.clusters.retain(|name, _| keeps(name)),
            Kind::Secret => self.secrets.0.retain(|name, _| keeps(name)),
            Kind::Endpoints => self.endpoints.retain(|name, _| keeps(name)),
            Kind::Listener => self.listeners.retain(|name, _| keeps(name)),
            Kind::Routes => self.routes.retain(|name, _| keeps(name)),
        }
    }

    /// What is referred to, of the kinds that are.
    pub(super) fn wanted(&self) -> [(Kind, BTreeSet<Name>); 3] {
        [
            (Kind::Secret, self.named().cloned().collect()),
            (Kind::Endpoints, self.sets().cloned().collect()),
            (Kind::Routes, self.tables().cloned().collect()),
        ]
    }

    /// What is referred to and has not come.
    pub(super) fn missing(&self) -> Vec<String> {
        let secrets: BTreeSet<_> = self.named().filter(|name| !self.secrets.0.contains_key(*name)).collect();
        let sets: BTreeSet<_> = self.sets().filter(|name| !self.endpoints.contains_key(*name)).collect();
        let tables: BTreeSet<_> = self.tables().filter(|name| !self.routes.contains_key(*name)).collect();
        let of = |kind: Kind, names: BTreeSet<&Name>| {
            names.into_iter().map(|name| format!("{kind}[{name}]")).collect::<Vec<_>>()
        };
        [of(Kind::Secret, secrets), of(Kind::Endpoints, sets), of(Kind::Routes, tables)].concat()
    }

    /// The secrets that clusters and listeners name.
    fn named(&self) -> impl Iterator<Item = &Name> {
        let clusters = self.clusters.values().filter_map(|cluster| cluster.cluster.tls.as_ref());
        let listeners = self.listeners.values().filter_map(|listener| listener.listener.chain.tls.as_ref());
        let of_clusters = clusters.flat_map(UpstreamTls::secrets);
        of_clusters.chain(listeners.flat_map(DownstreamTls::secrets)).map(|secret| secret.name)
    }

    /// The sets of endpoints that clusters refer to.
    fn sets(&self) -> impl Iterator<Item = &Name> {
        self.clusters.values().filter_map(|cluster| match &cluster.endpoints {
            EndpointSource::Eds(name) => Some(name),
            EndpointSource::Stated(_) | EndpointSource::Dns => None,
        })
    }

    /// The tables of routes that listeners refer to.
    fn tables(&self) -> impl Iterator<Item = &Name> {
        self.listeners.values().filter_map(|listener| match &listener.routes {
            RouteSource::Rds(name) => Some(name),
            RouteSource::Stated(_) | RouteSource::None => None,
        })
    }

    /// What is new since this was last asked. As long as something is missing, that is only what concerns what is there
    /// already, unless nothing is `waited` for any longer: no request is to meet a cluster without its endpoints.
    pub(super) fn news(&mut self, waited: bool) -> Option<News> {
        let is_whole = waited || self.missing().is_empty();
        let now = self.discovered();
        let Some(told) = &mut self.told else {
            // Before the first answers there is nothing to tell.
            let begun = [Kind::Cluster, Kind::Listener].iter().all(|kind| self.answered.contains(kind));
            if !(is_whole && begun) {
                return None;
            }
            self.told = Some(now.clone());
            return Some(News::All(Box::new(now)));
        };
        let same = (&told.listeners, &told.route_tables, &told.clusters, &told.secrets)
            == (&now.listeners, &now.route_tables, &now.clusters, &now.secrets);
        if is_whole && !same {
            *told = now.clone();
            return Some(News::All(Box::new(now)));
        }
        let mut changed = BTreeMap::new();
        for (name, set) in &mut told.endpoints {
            if let Some(new) = now.endpoints.get(name).filter(|new| *new != set) {
                set.clone_from(new);
                changed.insert(name.clone(), Arc::clone(new));
            }
        }
        (!changed.is_empty()).then_some(News::Endpoints(changed))
    }

    fn discovered(&self) -> Discovered {
        let mut out = Discovered { secrets: self.secrets.clone(), ..Discovered::default() };
        for (name, ClusterResource { cluster, endpoints }) in &self.clusters {
            out.clusters.insert(name.clone(), Arc::clone(cluster));
            let set = match endpoints {
                EndpointSource::Stated(set) => Some(set.clone()),
                EndpointSource::Eds(set) => Some(self.endpoints.get(set).cloned().unwrap_or_default()),
                EndpointSource::Dns => None,
            };
            out.endpoints.extend(set.map(|set| (name.clone(), set)));
        }
        for (name, ListenerResource { listener, routes }) in &self.listeners {
            let table = match routes {
                RouteSource::None => None,
                RouteSource::Stated(table) => Some((name, table.clone())),
                RouteSource::Rds(table) => Some((table, self.routes.get(table).cloned().unwrap_or_default())),
            };
            out.route_tables.extend(table.map(|(name, table)| (name.clone(), table)));
            out.listeners.insert(name.clone(), listener.clone());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use outrigger_proto::model::{Certificate, Revocation, Roots, San, ServerAuth, Source};
    use outrigger_proto::xds::Secret;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn secret(key: &str) -> Resource {
        let text = |text: &str| text.as_bytes().to_vec().into();
        Resource::Secret(Secret::Certificate { chain: text("chain"), key: text(key) })
    }

    #[test]
    fn what_names_a_secret_waits_for_it_and_another_one_is_news() {
        let mut state = State::default();
        let server = ServerAuth {
            roots: Roots::System,
            sni: None,
            sans: Box::new([San::Dns("app.test".into())]),
            certificate: Some(Certificate::Secret(name("own"))),
            revocation: Revocation::default(),
        };
        let tls = Some(UpstreamTls::Server(Box::new(server)));
        let cluster = Cluster { tls, ..Cluster::new(Source::Static) };
        let endpoints = EndpointSource::Stated(Arc::default());
        let cluster = ClusterResource { cluster: Arc::new(cluster), endpoints };
        state.put(name("app"), Resource::Cluster(Box::new(cluster)));
        [Kind::Cluster, Kind::Listener].into_iter().for_each(|kind| state.note_answer(kind));
        assert_eq!(state.wanted()[0], (Kind::Secret, [name("own")].into()));
        assert_eq!(state.missing(), ["Secret[own]"]);
        assert_eq!(state.news(false), None);
        state.put(name("own"), secret("one"));
        assert!(matches!(state.news(false), Some(News::All(found)) if found.secrets.0.len() == 1));
        assert_eq!(state.news(false), None);
        state.put(name("own"), secret("two"));
        let Some(News::All(found)) = state.news(false) else { panic!("it is another one") };
        assert!(!format!("{found:?}").contains("two"));
        // Taken back, it is waited for again, and then gone.
        state.keep(Kind::Secret, |_| false);
        assert_eq!((state.missing(), state.news(false)), (vec!["Secret[own]".to_owned()], None));
        assert!(matches!(state.news(true), Some(News::All(found)) if found.secrets.0.is_empty()));
    }
}
