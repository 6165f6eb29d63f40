//! What is served, encoded: once for all nodes, and shared by all groups.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use outrigger_proto::model::{
    Assignment, Filter, Fleet, Group, Labels, Listener, Name, Node, RouteTable, Source,
};
use outrigger_proto::xds::discovery::Any;
use outrigger_proto::xds::{
    ClusterResource, EndpointSource, Kind, ListenerResource, Refused, Resource, RouteSource, write,
    write_for_clients,
};

use crate::token::hex;

/// A resource as it goes over the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The same for the same bytes, today and after a restart, here and at another replica.
    pub version: Box<str>,
    /// The resource.
    pub any: Any,
}

/// The resources of one kind, by name.
pub type Items = Arc<BTreeMap<Name, Arc<Item>>>;

/// What the nodes of one group are told.
#[derive(Clone, Debug)]
pub struct View {
    /// The revision that it is of.
    pub revision: u64,
    /// What they are called.
    pub group: Name,
    items: BTreeMap<Kind, Items>,
}

impl View {
    /// These, by kind, name and version.
    #[cfg(test)]
    pub(crate) fn of(revision: u64, all: &[(Kind, &[(&str, &str)])]) -> Self {
        let item = |version: &str| Arc::new(Item { version: version.into(), any: Any::default() });
        let name = |name: &str| Name::new(name).expect("a name");
        let items = |items: &[(&str, &str)]| {
            Items::new(items.iter().map(|(called, version)| (name(called), item(version))).collect())
        };
        let items = all.iter().map(|(kind, of)| (*kind, items(of))).collect();
        Self { revision, group: name("all"), items }
    }

    /// The resources of one kind.
    pub fn items(&self, kind: Kind) -> &Items {
        static NONE: std::sync::LazyLock<Items> = std::sync::LazyLock::new(Items::default);
        self.items.get(&kind).unwrap_or(&NONE)
    }
}

/// What a group is told, by what its nodes are.
#[derive(Clone, Debug)]
struct Views {
    proxies: Arc<View>,
    /// Clients of gRPC without a proxy.
    clients: Arc<View>,
}

/// A revision, ready to be told.
#[derive(Debug)]
pub struct Serving {
    /// Its number; 0 before there is any.
    pub revision: u64,
    fleet: Fleet,
    /// In the order of the groups.
    views: Vec<Views>,
}

impl Serving {
    /// Before anything was said.
    pub fn nothing() -> Self {
        Self { revision: 0, fleet: Fleet::default(), views: Vec::new() }
    }

    /// Encodes what a fleet says.
    ///
    /// # Errors
    /// What cannot be told to a proxy: that which names files.
    pub fn new(revision: u64, fleet: Fleet) -> Result<Self, Unsayable> {
        let all = encoded(&fleet)?;
        let of = |kind: Kind, wanted: &dyn Fn(&Name) -> bool| {
            let items = all.get(&kind).into_iter().flatten().filter(|(name, _)| wanted(name));
            Items::new(items.map(|(name, item)| (name.clone(), Arc::clone(item))).collect())
        };
        let view = |group: &Group| {
            let (clusters, tables) = (fleet.clusters(group), fleet.tables(group));
            let listeners: BTreeMap<_, _> = fleet.listeners(group).collect();
            let items = Kind::ALL.into_iter().map(|kind| {
                let items = match kind {
                    Kind::Cluster | Kind::Endpoints => of(kind, &|name| clusters.contains(name)),
                    Kind::Listener => of(kind, &|name| listeners.contains_key(name)),
                    Kind::Routes => of(kind, &|name| tables.contains(name)),
                    // Keys never leave the nodes that they are for.
                    Kind::Secret => Items::default(),
                };
                (kind, items)
            });
            let items: BTreeMap<_, _> = items.collect();
            let mut for_clients = items.clone();
            for_clients.insert(Kind::Listener, Items::new(of_clients(&listeners)));
            let view = |items| Arc::new(View { revision, group: group.name.clone(), items });
            Views { proxies: view(items), clients: view(for_clients) }
        };
        let views = fleet.groups.iter().map(view).collect();
        Ok(Self { revision, fleet, views })
    }

    /// What a node with these labels is told, which has a proxy or is a client of gRPC; `None` where no group takes it.
    pub fn view(&self, node: &Node, labels: &Labels, is_client: bool) -> Option<&Arc<View>> {
        let group = self.fleet.group(node, labels)?;
        let views = self.views.iter().find(|views| views.proxies.group == group.name)?;
        Some(if is_client { &views.clients } else { &views.proxies })
    }

    /// What it is made of.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }
}

/// What cannot be told to a proxy, by resource; not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsayable(pub Vec<Refused>);

impl fmt::Display for Unsayable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, refused) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{refused}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Unsayable {}

type Encoded = BTreeMap<Kind, BTreeMap<Name, Arc<Item>>>;

fn encoded(fleet: &Fleet) -> Result<Encoded, Unsayable> {
    let mesh = &fleet.config.mesh;
    let (mut out, mut errors) = (Encoded::new(), Vec::new());
    let mut put = |name: &Name, resource: &Resource| match write(name, resource) {
        Ok(any) => drop(out.entry(resource.kind()).or_default().insert(name.clone(), item(any))),
        Err(refused) => errors.push(refused),
    };
    for (name, cluster) in &mesh.clusters {
        // What changes most often is told apart from the rest.
        let endpoints = match cluster.source {
            Source::Static => EndpointSource::Eds(name.clone()),
            Source::Dns { .. } => EndpointSource::Dns,
        };
        if matches!(endpoints, EndpointSource::Eds(_)) {
            let set = fleet.config.endpoints.get(name).cloned().unwrap_or_default();
            put(name, &Resource::Endpoints(Assignment::clone(&set)));
        }
        let cluster = ClusterResource { cluster: Arc::clone(cluster), endpoints };
        put(name, &Resource::Cluster(Box::new(cluster)));
    }
    for (name, table) in &mesh.route_tables {
        put(name, &Resource::Routes(RouteTable::clone(table)));
    }
    for (name, listener) in &mesh.listeners {
        let routes = listener.chains.each().map(|chain| match &chain.filter {
            Filter::Http(http) => RouteSource::Rds(http.routes.clone()),
            Filter::Tcp(_) => RouteSource::None,
        });
        let routes = routes.collect();
        put(name, &Resource::Listener(Box::new(ListenerResource { listener: listener.clone(), routes })));
    }
    if errors.is_empty() { Ok(out) } else { Err(Unsayable(errors)) }
}

/// Listeners for whoever has no proxy: those of HTTP, as where their routes are.
fn of_clients(listeners: &BTreeMap<&Name, &Listener>) -> BTreeMap<Name, Arc<Item>> {
    // Nobody has a connection that they could be told apart by.
    let chains = listeners.iter().filter_map(|(name, listener)| Some((name, listener.chains.only()?)));
    let http = chains.filter_map(|(name, chain)| match &chain.filter {
        Filter::Http(http) => Some(((*name).clone(), item(write_for_clients(name, &http.routes)))),
        Filter::Tcp(_) => None,
    });
    http.collect()
}

fn item(any: Any) -> Arc<Item> {
    let hash = digest(&SHA256, &any.value);
    let version = hex(&hash.as_ref()[..8]).into();
    Arc::new(Item { version, any })
}
