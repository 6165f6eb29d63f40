//! What a control plane has said so far, and what is to be asked next: the state-of-the-world protocol of xDS, without its
//! stream. A resource that is refused holds back none of its neighbours; its last good version stays.
//! <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol>

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use outrigger_proto::model::{self, Assignment, Cluster, Listener, Name, RouteTable};
use outrigger_proto::xds::discovery::{DiscoveryRequest, DiscoveryResponse, Locality, Node, Status};
use outrigger_proto::xds::{
    self, ClusterResource, EndpointSource, Kind, ListenerResource, Refused, Resource, RouteSource,
};

/// INVALID_ARGUMENT.
const REFUSED: i32 = 3;
/// Bytes of what a control plane is told of what it has done wrong.
const LONGEST: usize = 8 * 1024;

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
    pub endpoints: BTreeMap<Name, Assignment>,
}

/// What has changed.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// All of it may have.
    All(Box<Discovered>),
    /// Only the endpoints of these clusters.
    Endpoints(BTreeMap<Name, Assignment>),
}

/// What was asked of one kind.
#[derive(Debug, Default)]
struct Asked {
    /// The version in force.
    version: String,
    /// Of the last answer on this stream.
    nonce: String,
    /// Which; all, of clusters and listeners.
    names: BTreeSet<Name>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct State {
    node: Node,
    asked: BTreeMap<Kind, Asked>,
    clusters: BTreeMap<Name, ClusterResource>,
    endpoints: BTreeMap<Name, Assignment>,
    listeners: BTreeMap<Name, ListenerResource>,
    routes: BTreeMap<Name, RouteTable>,
    told: Option<Discovered>,
}

impl State {
    /// Nothing is known yet.
    pub(super) fn new(node: &model::Node) -> Self {
        let model::Node { id, cluster, locality: model::Locality { region, zone, sub_zone } } = node;
        let locality =
            Locality { region: region.to_string(), zone: zone.to_string(), sub_zone: sub_zone.to_string() };
        let node = Node {
            id: id.to_string(),
            cluster: cluster.to_string(),
            locality: (locality != Locality::default()).then_some(locality),
            user_agent_name: "outrigger".to_owned(),
            user_agent_version_type: Some(xds::discovery::UserAgentVersionType::UserAgentVersion(
                env!("CARGO_PKG_VERSION").to_owned(),
            )),
            ..Node::default()
        };
        Self {
            node,
            asked: BTreeMap::new(),
            clusters: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            listeners: BTreeMap::new(),
            routes: BTreeMap::new(),
            told: None,
        }
    }

    /// What is asked at the beginning of a stream: with the versions that are in force, if there are any.
    pub(super) fn begin(&mut self) -> Vec<DiscoveryRequest> {
        self.asked.values_mut().for_each(|asked| asked.nonce.clear());
        let all = [Kind::Cluster, Kind::Listener];
        let some = [Kind::Endpoints, Kind::Routes].into_iter();
        let some: Vec<_> =
            some.filter(|kind| !self.asked.entry(*kind).or_default().names.is_empty()).collect();
        let mut requests: Vec<_> = all.into_iter().chain(some).map(|kind| self.request(kind, None)).collect();
        // Once a stream.
        if let Some(first) = requests.first_mut() {
            first.node = Some(self.node.clone());
        }
        requests
    }

    /// Takes an answer; what is to be said to it and asked because of it, and what of it is refused.
    pub(super) fn take(&mut self, response: DiscoveryResponse) -> (Vec<DiscoveryRequest>, Vec<Refused>) {
        let DiscoveryResponse { version_info, resources, type_url, nonce } = response;
        // Nobody has asked for another.
        let Some(kind) = Kind::of_url(&type_url) else { return (Vec::new(), Vec::new()) };
        let mut good = BTreeMap::new();
        let mut refused = Vec::new();
        for resource in &resources {
            match xds::read(kind, resource) {
                Ok((name, resource)) => drop(good.insert(name, resource)),
                Err(bad) => refused.push(bad),
            }
        }
        let kept: BTreeSet<Name> = refused.iter().filter_map(|bad| bad.name.clone()).collect();
        self.store(kind, good, &kept);
        let asked = self.asked.entry(kind).or_default();
        asked.nonce = nonce;
        if refused.is_empty() {
            asked.version = version_info;
        }
        let mut requests = vec![self.request(kind, why(&refused))];
        requests.extend(self.subscribe());
        (requests, refused)
    }

    fn store(&mut self, kind: Kind, good: BTreeMap<Name, Resource>, kept: &BTreeSet<Name>) {
        // Of these an answer names all there are: what it does not name is gone.
        match kind {
            Kind::Cluster => self.clusters.retain(|name, _| kept.contains(name)),
            Kind::Listener => self.listeners.retain(|name, _| kept.contains(name)),
            Kind::Endpoints | Kind::Routes => {}
        }
        for (name, resource) in good {
            match resource {
                Resource::Cluster(cluster) => drop(self.clusters.insert(name, *cluster)),
                Resource::Endpoints(set) => drop(self.endpoints.insert(name, set)),
                Resource::Listener(listener) => drop(self.listeners.insert(name, *listener)),
                Resource::Routes(table) => drop(self.routes.insert(name, table)),
            }
        }
    }

    /// Asks for what clusters and listeners refer to by now, and forgets what they do no longer.
    fn subscribe(&mut self) -> Vec<DiscoveryRequest> {
        let sets = self.clusters.values().filter_map(|cluster| match &cluster.endpoints {
            EndpointSource::Eds(name) => Some(name.clone()),
            EndpointSource::Stated(_) | EndpointSource::Dns => None,
        });
        let tables = self.listeners.values().filter_map(|listener| match &listener.routes {
            RouteSource::Rds(name) => Some(name.clone()),
            RouteSource::Stated(_) | RouteSource::None => None,
        });
        let wanted = [(Kind::Endpoints, sets.collect::<BTreeSet<_>>()), (Kind::Routes, tables.collect())];
        self.endpoints.retain(|name, _| wanted[0].1.contains(name));
        self.routes.retain(|name, _| wanted[1].1.contains(name));
        let mut requests = Vec::new();
        for (kind, names) in wanted {
            let asked = self.asked.entry(kind).or_default();
            if asked.names != names {
                asked.names = names;
                requests.push(self.request(kind, None));
            }
        }
        requests
    }

    fn request(&mut self, kind: Kind, error_detail: Option<Status>) -> DiscoveryRequest {
        let Asked { version, nonce, names } = self.asked.entry(kind).or_default();
        DiscoveryRequest {
            version_info: version.clone(),
            node: None,
            resource_names: names.iter().map(Name::to_string).collect(),
            type_url: kind.url(),
            response_nonce: nonce.clone(),
            error_detail,
        }
    }

    /// What is referred to and has not come.
    pub(super) fn missing(&self) -> Vec<String> {
        let asked = |kind| self.asked.get(&kind).into_iter().flat_map(|asked| &asked.names);
        let sets = asked(Kind::Endpoints).filter(|name| !self.endpoints.contains_key(*name));
        let tables = asked(Kind::Routes).filter(|name| !self.routes.contains_key(*name));
        let sets = sets.map(|name| format!("{}[{name}]", Kind::Endpoints));
        sets.chain(tables.map(|name| format!("{}[{name}]", Kind::Routes))).collect()
    }

    /// What is new since this was last asked. As long as something is missing, that is only what concerns what is there
    /// already, unless nothing is `waited` for any longer: no request is to meet a cluster without its endpoints.
    pub(super) fn news(&mut self, waited: bool) -> Option<News> {
        let is_whole = waited || self.missing().is_empty();
        let now = self.discovered();
        let Some(told) = &mut self.told else {
            // Before the first answers there is nothing to tell.
            let answered = |kind| self.asked.get(&kind).is_some_and(|asked| !asked.nonce.is_empty());
            let begun = answered(Kind::Cluster) && answered(Kind::Listener);
            if !(is_whole && begun) {
                return None;
            }
            self.told = Some(now.clone());
            return Some(News::All(Box::new(now)));
        };
        let same = (&told.listeners, &told.route_tables, &told.clusters)
            == (&now.listeners, &now.route_tables, &now.clusters);
        if is_whole && !same {
            *told = now.clone();
            return Some(News::All(Box::new(now)));
        }
        let mut changed = BTreeMap::new();
        for (name, set) in &mut told.endpoints {
            if let Some(new) = now.endpoints.get(name).filter(|new| *new != set) {
                set.clone_from(new);
                changed.insert(name.clone(), new.clone());
            }
        }
        (!changed.is_empty()).then_some(News::Endpoints(changed))
    }

    fn discovered(&self) -> Discovered {
        let mut out = Discovered::default();
        for (name, ClusterResource { cluster, endpoints }) in &self.clusters {
            out.clusters.insert(name.clone(), Arc::new(cluster.clone()));
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

/// What a control plane is told of what is refused.
fn why(refused: &[Refused]) -> Option<Status> {
    if refused.is_empty() {
        return None;
    }
    let mut message = refused.iter().map(Refused::to_string).collect::<Vec<_>>().join("\n");
    if message.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message += "\n...";
    }
    Some(Status { code: REFUSED, message })
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
