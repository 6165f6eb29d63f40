//! What is served, encoded: once for all nodes, and shared by all groups.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use outrigger_proto::model::{
    Assignment, Filter, Fleet, Group, Labels, Listener, Name, Node, RouteTable, Source,
};
use outrigger_proto::xds::discovery::Any;
use outrigger_proto::xds::{
    ClusterResource, EndpointSource, Kind, ListenerResource, Refused, Resource, RouteSource, of_host_name,
    write, write_for_clients, write_host,
};
use zeroize::Zeroize as _;

use crate::attest::is_secret;
use crate::hex::hex;

/// A resource as it goes over the wire.
#[derive(Clone, PartialEq)]
pub struct Item {
    /// The same for the same bytes, today and after a restart, here and at another replica.
    pub version: Box<str>,
    /// The resource.
    pub any: Any,
}

/// It may hold a key, which is shown to nobody but its node.
impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        if is_secret(&self.any.type_url) {
            self.any.value.zeroize();
        }
    }
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
    /// Which secrets its resources name.
    pub secrets: Arc<BTreeSet<Name>>,
    items: BTreeMap<Kind, Items>,
    /// Told one by one to those who ask for them so.
    hosts: Option<Arc<Hosts>>,
}

impl View {
    /// These, by kind, name and version.
    #[cfg(test)]
    pub(crate) fn of(revision: u64, all: &[(Kind, &[(&str, &str)])]) -> Self {
        // Of a size that two are said at once.
        let any = || Any { type_url: String::new(), value: vec![0; 200_000] };
        let item = |version: &str| Arc::new(Item { version: version.into(), any: any() });
        let name = |name: &str| Name::new(name).expect("a name");
        let items = |items: &[(&str, &str)]| {
            Items::new(items.iter().map(|(called, version)| (name(called), item(version))).collect())
        };
        let items = all.iter().map(|(kind, of)| (*kind, items(of))).collect();
        Self { revision, group: name("all"), secrets: Arc::default(), items, hosts: None }
    }

    /// The same, with the secrets that one node is told.
    pub fn with_secrets(&self, secrets: Items) -> Self {
        let mut view = self.clone();
        view.items.insert(Kind::Secret, secrets);
        view
    }

    /// The resources of one kind.
    pub fn kind(&self, kind: Kind) -> Of<'_> {
        static NONE: std::sync::LazyLock<Items> = std::sync::LazyLock::new(Items::default);
        let hosts = self.hosts.as_deref().filter(|_| kind == Kind::Host);
        Of { items: self.items.get(&kind).unwrap_or(&NONE), hosts }
    }
}

/// The resources of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Of<'v> {
    items: &'v Items,
    hosts: Option<&'v Hosts>,
}

impl<'v> Of<'v> {
    /// All there are, but for those that are told one by one.
    pub fn all(self) -> impl Iterator<Item = (&'v Name, &'v Arc<Item>)> {
        self.items.iter()
    }

    /// One of them.
    pub fn get(self, name: &str) -> Option<(Cow<'v, Name>, Cow<'v, Arc<Item>>)> {
        match self.hosts {
            Some(hosts) => Some((Cow::Owned(Name::new(name)?), Cow::Owned(hosts.get(name)?))),
            None => {
                let (name, item) = self.items.get_key_value(name)?;
                Some((Cow::Borrowed(name), Cow::Borrowed(item)))
            }
        }
    }

    /// Whether there is one of this name.
    pub fn has(self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// The hosts of all tables, encoded when somebody asks for them.
#[derive(Debug)]
struct Hosts {
    tables: BTreeMap<Name, RouteTable>,
    /// `None` of those that are not there.
    made: Mutex<HashMap<Box<str>, Option<Arc<Item>>>>,
}

impl Hosts {
    /// Names that are remembered: nodes may ask for any.
    const MOST: usize = 100_000;

    fn new(tables: BTreeMap<Name, RouteTable>) -> Self {
        Self { tables, made: Mutex::default() }
    }

    fn get(&self, name: &str) -> Option<Arc<Item>> {
        let known = |made: &HashMap<Box<str>, Option<Arc<Item>>>| made.get(name).cloned();
        if let Some(known) = known(&self.lock()) {
            return known;
        }
        let found = self.make(name);
        let mut made = self.lock();
        if made.len() < Self::MOST {
            made.insert(name.into(), found.clone());
        }
        found
    }

    fn make(&self, name: &str) -> Option<Arc<Item>> {
        let (table, host) = of_host_name(name)?;
        // What cannot be said is refused with its whole table, before anybody asks.
        let any = write_host(&Name::new(name)?, self.tables.get(table)?, host)?.ok()?;
        Some(item(any))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Option<Arc<Item>>>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a node asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// For all that it may serve.
    All,
    /// For what its requests need.
    OnDemand,
    /// As a client of gRPC does, which has no proxy.
    Client,
}

/// What a group is told, by what its nodes are.
#[derive(Clone, Debug)]
struct Views {
    proxies: Arc<View>,
    /// Those that ask for what they need.
    on_demand: Arc<View>,
    /// Clients of gRPC without a proxy.
    clients: Arc<View>,
}

impl Views {
    fn of(&self, asks: Asks) -> &Arc<View> {
        match asks {
            Asks::All => &self.proxies,
            Asks::OnDemand => &self.on_demand,
            Asks::Client => &self.clients,
        }
    }
}

/// A revision, ready to be told.
#[derive(Debug)]
pub struct Serving {
    /// Its number; 0 before there is any.
    pub revision: u64,
    /// The same for the same documents.
    pub digest: [u8; 32],
    fleet: Fleet,
    /// In the order of the groups.
    views: Vec<Views>,
}

impl Serving {
    /// Before anything was said.
    pub fn nothing() -> Self {
        Self { revision: 0, digest: [0; 32], fleet: Fleet::default(), views: Vec::new() }
    }

    /// Encodes what a fleet says, which is made of documents of this digest.
    ///
    /// # Errors
    /// What cannot be told to a proxy: that which names files.
    pub fn new(revision: u64, digest: [u8; 32], fleet: Fleet) -> Result<Self, Unsayable> {
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
                    // Secrets are told to each node by what it has proven ([`View::with_secrets`]); hosts are told to whoever asks for one.
                    Kind::Secret | Kind::Host => Items::default(),
                };
                (kind, items)
            });
            let items: BTreeMap<_, _> = items.collect();
            let mut for_clients = items.clone();
            for_clients.insert(Kind::Listener, Items::new(of_clients(&listeners)));
            let mut on_demand = items.clone();
            on_demand.insert(Kind::Routes, Items::new(told_by_host(&tables)));
            let own = tables.iter().filter_map(|name| fleet.config.mesh.route_tables.get_key_value(*name));
            let hosts = Hosts::new(own.map(|(name, table)| (name.clone(), table.clone())).collect());
            let secrets = Arc::new(fleet.secrets(group).into_iter().cloned().collect());
            let view = |items, hosts| {
                let (group, secrets) = (group.name.clone(), Arc::clone(&secrets));
                Arc::new(View { revision, group, secrets, items, hosts })
            };
            Views {
                proxies: view(items, None),
                on_demand: view(on_demand, Some(Arc::new(hosts))),
                clients: view(for_clients, None),
            }
        };
        let views = fleet.groups.iter().map(view).collect();
        Ok(Self { revision, digest, fleet, views })
    }

    /// What a node with these labels is told, which asks so; `None` where no group takes it.
    pub fn view(&self, node: &Node, labels: &Labels, asks: Asks) -> Option<&Arc<View>> {
        let group = self.fleet.group(node, labels)?;
        Some(self.views.iter().find(|views| views.proxies.group == group.name)?.of(asks))
    }

    /// What nodes of each group are told that ask so.
    pub fn views(&self, asks: Asks) -> impl Iterator<Item = &Arc<View>> {
        self.views.iter().map(move |views| views.of(asks))
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
            Source::Original(_) => EndpointSource::Original,
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

/// Tables that say that there is more.
fn told_by_host(tables: &BTreeSet<&Name>) -> BTreeMap<Name, Arc<Item>> {
    let table = RouteTable { on_demand: true, ..RouteTable::default() };
    let table = Resource::Routes(table);
    let written = tables.iter().filter_map(|name| Some(((*name).clone(), item(write(name, &table).ok()?))));
    written.collect()
}

/// Ready to be told.
pub(crate) fn item(any: Any) -> Arc<Item> {
    let hash = digest(&SHA256, &any.value);
    let version = hex(&hash.as_ref()[..8]).into();
    Arc::new(Item { version, any })
}
