//! The configuration in force, indexed: replaced whole, read by every worker without a lock.
//!
//! A [`Snapshot`] never changes. What lives longer than it (endpoints, figures, connections) is only referred to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use outrigger_proto::model::{
    self, ChainMatch, Destination, FilterChain, Mesh, Name, Route, RouteTable, Split,
};

use crate::facts::Arrival;
use crate::identity::tls::ListenerTls;
use crate::observe::ListenerStats;
use crate::policy::authz::Rules;
use crate::policy::bulkhead::Bulkhead;
use crate::policy::jwt::Tokens;
use crate::policy::limits::RouteLimits;
use crate::policy::refusals::Refusals;
use crate::routing::{ChainIndex, RouteIndex};
use crate::upstream::ClusterView;

/// Where workers find the snapshot in force.
#[derive(Debug, Default)]
pub struct Live(Arc<ArcSwap<Snapshot>>);

/// A worker's own view: asks for a new snapshot only when there is one.
pub type LiveCache = arc_swap::Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>;

impl Live {
    /// The snapshot in force.
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// From now on new requests are served by `next`.
    pub fn replace(&self, next: Snapshot) {
        self.0.store(Arc::new(next));
    }

    /// A view for one worker.
    pub fn cache(&self) -> LiveCache {
        arc_swap::Cache::new(self.0.clone())
    }
}

/// One configuration, ready to be served.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts up with each configuration that was applied; 0 before the first.
    pub version: u64,
    /// What is meant, for those who ask.
    pub mesh: Arc<Mesh>,
    /// By name.
    pub listeners: BTreeMap<Name, Entry>,
}

/// What becomes of the connections of a listener.
#[derive(Clone, Debug)]
pub enum Entry {
    /// The same of each.
    One(Arc<ListenerView>),
    /// How they begin decides.
    Several(Arc<ChainViews>),
}

impl Entry {
    /// Its chains.
    pub fn views(&self) -> impl Iterator<Item = &Arc<ListenerView>> {
        let (some, rest) = match self {
            Self::One(view) => (&[][..], Some(view)),
            Self::Several(chains) => (&*chains.some, chains.rest.as_ref()),
        };
        some.iter().chain(rest)
    }

    /// The listener's name.
    pub fn name(&self) -> &Name {
        match self {
            Self::One(view) => &view.name,
            Self::Several(chains) => &chains.name,
        }
    }

    /// Whether it is asked where its connections were going before they were redirected.
    pub fn is_redirected(&self) -> bool {
        match self {
            Self::One(view) => view.redirected,
            // It is the listener's, and so the same of all.
            Self::Several(_) => self.views().next().is_some_and(|view| view.redirected),
        }
    }

    /// The chain that takes the same connections.
    pub fn like(&self, matches: Option<&ChainMatch>) -> Option<&Arc<ListenerView>> {
        self.views().find(|view| view.matches.as_ref() == matches)
    }
}

/// The chains of a listener that has several.
#[derive(Debug)]
pub struct ChainViews {
    /// The listener's name.
    pub name: Name,
    /// The listener's figures.
    pub stats: Arc<ListenerStats>,
    /// Until it is known which chain takes a connection: as long as each of them would wait.
    pub header_timeout: Duration,
    index: ChainIndex,
    some: Box<[Arc<ListenerView>]>,
    rest: Option<Arc<ListenerView>>,
}

impl ChainViews {
    /// Of these chains, that for the rest among them.
    pub fn new(
        name: Name,
        stats: Arc<ListenerStats>,
        all: impl IntoIterator<Item = Arc<ListenerView>>,
    ) -> Self {
        let (some, mut rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|view| view.matches.is_some());
        let rest = rest.pop();
        let index = ChainIndex::new(some.iter().filter_map(|view| view.matches.as_ref()));
        let times = some.iter().chain(&rest).map(|view| view.chain.limits.header_timeout);
        let header_timeout = times.min().unwrap_or_default();
        Self { name, stats, header_timeout, index, some: some.into(), rest }
    }

    /// Whether chains are told apart by what TLS begins with.
    pub fn looks_into_tls(&self) -> bool {
        self.index.looks_into_tls()
    }

    /// The chain that takes a connection.
    pub fn find(&self, arrival: &Arrival) -> Option<&Arc<ListenerView>> {
        self.index.find(arrival).map(|place| &self.some[place]).or(self.rest.as_ref())
    }
}

/// A chain of a listener with all that its connections need.
#[derive(Debug)]
pub struct ListenerView {
    /// The listener's name.
    pub name: Name,
    /// Where it stands in the configuration: the listener's name, and which of several chains it is.
    pub place: Box<str>,
    /// Which connections it takes; those that no other chain takes, if nothing is said.
    pub matches: Option<ChainMatch>,
    /// What was configured.
    pub chain: FilterChain,
    /// The port that it listens on; `None` for a unix socket.
    pub port: Option<u16>,
    /// Whether it is asked where its connections were going before they were redirected.
    pub redirected: bool,
    /// Whose tokens it takes.
    pub tokens: Option<Arc<Tokens>>,
    /// Who may do what.
    pub authorization: Option<Arc<Rules>>,
    /// Who is asked whether its requests are let in.
    pub authorizer: Option<Arc<ClusterView>>,
    /// Who counts requests of routes that do not say it.
    pub counted_by: Option<CountedBy>,
    /// What our node calls those that are alike; empty where it calls them nothing.
    pub node_cluster: Arc<str>,
    /// TLS towards the client, with its material loaded.
    pub tls: Option<ListenerTls>,
    /// What outlives configurations.
    pub state: Arc<ListenerState>,
    /// Where its traffic goes.
    pub filter: FilterView,
}

/// Who counts the requests of a listener.
#[derive(Debug)]
pub struct CountedBy {
    /// The service.
    pub service: Arc<ClusterView>,
    /// What it refused lately, where that is remembered.
    pub refusals: Option<Arc<Refusals>>,
}

/// What of a listener's chain outlives configurations; shared by all workers.
#[derive(Debug)]
pub struct ListenerState {
    /// Open connections.
    pub open: AtomicU32,
    /// Its figures.
    pub stats: Arc<ListenerStats>,
}

/// Where a listener's traffic goes.
#[derive(Debug)]
pub enum FilterView {
    /// By routes.
    Http(Arc<Routes>),
    /// To clusters, connection by connection.
    Tcp(Box<[Arc<ClusterView>]>),
}

/// A route table, indexed, its clusters at hand.
#[derive(Debug)]
pub struct Routes {
    table: RouteTable,
    index: RouteIndex,
    /// For each route, its split's clusters in the split's order.
    clusters: Vec<Box<[Arc<ClusterView>]>>,
    /// What few routes have, by their position.
    extras: HashMap<usize, RouteExtras>,
    /// For each route; empty where none has any.
    limits: Vec<RouteLimits>,
}

/// The other clusters of a route.
#[derive(Debug)]
pub struct RouteExtras {
    /// Who gets a copy.
    pub mirror: Option<Arc<ClusterView>>,
    /// Who answers when the route's own cluster does not.
    pub fallback: Option<Arc<ClusterView>>,
    /// Who is asked whether its requests are taken.
    pub rate_limit_service: Option<Arc<ClusterView>>,
}

impl Routes {
    /// `resolve` finds a cluster, or the part of one.
    pub fn new(table: RouteTable, resolve: impl Fn(&Destination) -> Arc<ClusterView>) -> Self {
        let clusters = table.routes.iter().map(|route| split_clusters(route, &resolve)).collect();
        let extras = table.routes.iter().enumerate();
        let extras = extras.filter_map(|(position, route)| Some((position, extras_of(route, &resolve)?)));
        let (index, extras) = (RouteIndex::new(&table), extras.collect());
        Self { index, clusters, extras, table, limits: Vec::new() }
    }

    /// Gives its routes what their limits count with, which is older than this table and may outlive it.
    pub fn with_limits(self, find: impl FnMut(&Route) -> RouteLimits) -> Self {
        let has = self.table.routes.iter().any(RouteLimits::has);
        let limits = if has { self.table.routes.iter().map(find).collect() } else { Vec::new() };
        Self { limits, ..self }
    }

    /// Where concurrency is limited: by the route's place.
    pub fn bulkheads(&self) -> impl Iterator<Item = (usize, &Bulkhead)> {
        let all = self.limits.iter().enumerate();
        all.filter_map(|(place, limits)| Some((place, limits.concurrency.as_deref()?)))
    }

    /// What a route's limits count with; `None` where no route of the table has any.
    pub fn limits(&self, position: usize) -> Option<&RouteLimits> {
        self.limits.get(position)
    }

    /// Whether a control plane has routes of more hosts.
    pub fn are_on_demand(&self) -> bool {
        self.table.on_demand
    }

    /// The position of the route that takes a request.
    pub fn find(&self, head: &crate::facts::ReqHead<'_>) -> Option<usize> {
        self.index.find(&self.table, head)
    }

    /// A route by its position.
    pub fn route(&self, position: usize) -> &Route {
        &self.table.routes[position]
    }

    /// The other clusters of a route, if it has any.
    pub fn extras(&self, position: usize) -> Option<&RouteExtras> {
        self.extras.get(&position)
    }

    /// The clusters of a route's split, in its order.
    pub fn clusters(&self, position: usize) -> &[Arc<ClusterView>] {
        &self.clusters[position]
    }
}

fn extras_of(route: &Route, resolve: &impl Fn(&Destination) -> Arc<ClusterView>) -> Option<RouteExtras> {
    let forward = match &route.action {
        model::Action::Forward(forward) => Some(forward),
        model::Action::Redirect(_) | model::Action::Respond(_) => None,
    };
    let mirror = forward.and_then(|to| to.mirror.as_ref()).map(|mirror| resolve(&mirror.to));
    let fallback = match forward.and_then(|to| to.fallback.as_deref()?.instead()) {
        Some(model::Instead::To(cluster)) => Some(resolve(cluster)),
        Some(model::Instead::Respond(_)) | None => None,
    };
    let service = route.global_rate_limit.as_ref().and_then(|limit| limit.service.as_ref());
    let rate_limit_service = service.map(|service| resolve(&service.cluster.clone().into()));
    let any = mirror.is_some() || fallback.is_some() || rate_limit_service.is_some();
    any.then_some(RouteExtras { mirror, fallback, rate_limit_service })
}

fn split_clusters(
    route: &Route,
    resolve: &impl Fn(&Destination) -> Arc<ClusterView>,
) -> Box<[Arc<ClusterView>]> {
    match &route.action {
        model::Action::Forward(forward) => resolve_split(&forward.to, resolve),
        model::Action::Redirect(_) | model::Action::Respond(_) => Box::default(),
    }
}

/// The clusters of a split, in its order.
pub fn resolve_split(
    split: &Split,
    resolve: &impl Fn(&Destination) -> Arc<ClusterView>,
) -> Box<[Arc<ClusterView>]> {
    split.targets.iter().map(|target| resolve(&target.to)).collect()
}
