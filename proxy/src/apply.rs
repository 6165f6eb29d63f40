//! How a configuration comes into force: everything that can fail is done first; then what is new is added, requests
//! are switched over, and what is gone is let go. A configuration that fails changes nothing.

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use outrigger_proto::error::ConfigError;
use outrigger_proto::model::{
    self, Address, Assignment, Authorization, ChainMatch, Config, Destination, DestinationSource, Filter,
    FilterChain, Listener, Mesh, Name, Source,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::health::{Checker, Plan};
use crate::identity::secrets::Secrets;
use crate::io::listen::Bound;
use crate::live::{
    ChainViews, CountedBy, Entry, FilterView, ListenerState, ListenerView, Routes, Snapshot, resolve_split,
};
use crate::material::{ChainKey, Keeper, Loaded};
use crate::observe::Registry;
use crate::policy::authz::Rules;
use crate::policy::limits::Limits;
use crate::threads::{Command, Threads};
use crate::upstream::{ClusterView, Clusters, dns};
use crate::worker::Shared;

/// How long a new configuration waits for names to be resolved.
const WARM: Duration = Duration::from_secs(3);

/// Brings configurations into force. Lives on the management thread.
#[derive(Debug)]
pub struct Applier {
    shared: Arc<Shared>,
    registry: Registry,
    clusters: Arc<Clusters>,
    limits: Limits,
    keeper: Keeper,
    threads: Arc<Threads>,
    running: BTreeMap<Name, Running>,
    resolving: HashMap<Name, Resolving>,
    resolver: Option<Arc<TokioResolver>>,
    checker: Checker,
    version: u64,
    admin: Option<Address>,
    /// The clusters of the file, where a control plane tells others.
    own: Option<BTreeSet<Name>>,
}

/// By cluster and subset.
type Views<'m> = HashMap<(&'m Name, Option<&'m Name>), Arc<ClusterView>>;

/// A listener that is open.
#[derive(Clone, Debug)]
struct Running {
    bind: Address,
    bound: Arc<Bound>,
    states: States,
}

/// Of a listener's chains, by what they take.
type States = HashMap<Option<ChainMatch>, Arc<ListenerState>>;

/// A name that is being resolved.
#[derive(Debug)]
struct Resolving {
    source: Source,
    task: JoinHandle<()>,
}

/// A control plane may lead to a cluster, or a part of one, that it has not told or that was refused: for copies, in place
/// of another, or to ask whether a request may pass. It fails then, and what that means each of them says.
fn missing(
    to: &Destination,
    clusters: &Clusters,
    known: &RefCell<HashMap<Destination, Arc<ClusterView>>>,
) -> Arc<ClusterView> {
    let make = || {
        tracing::warn!(cluster = %to, "something leads to a cluster that nobody has: there it finds no endpoint");
        Arc::new(clusters.absent(to))
    };
    known.borrow_mut().entry(to.clone()).or_insert_with(make).clone()
}

impl Applier {
    /// Nothing is in force yet.
    pub fn new(shared: Arc<Shared>, registry: Registry, threads: Arc<Threads>) -> Self {
        Self {
            clusters: Arc::new(Clusters::new(registry.clone(), shared.epoch)),
            limits: Limits::new(RandomState::new(), shared.stats.stale_bytes.clone()),
            checker: Checker::start(shared.epoch),
            keeper: Keeper::new(shared.identity.clone(), shared.stats.clone()),
            shared,
            registry,
            threads,
            running: BTreeMap::new(),
            resolving: HashMap::new(),
            resolver: None,
            version: 0,
            admin: None,
            own: None,
        }
    }

    /// The clusters that live.
    pub fn clusters(&self) -> &Arc<Clusters> {
        &self.clusters
    }

    /// The version in force; 0 before the first.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Where each listener really listens.
    pub fn bound(&self) -> impl Iterator<Item = (&Name, &Address)> {
        self.running.iter().map(|(name, running)| (name, &running.bound.address))
    }

    /// Begins with the identity of a configuration that comes into force later.
    pub fn begin(&mut self, mesh: &Mesh) {
        self.keeper.begin(mesh);
    }

    /// Brings a configuration into force, with the secrets that it names.
    ///
    /// # Errors
    /// All that kept it from it; what was in force stays.
    pub async fn apply(&mut self, config: Config, secrets: &Secrets) -> Result<(), Vec<ConfigError>> {
        let Config { mesh, endpoints } = config;
        let loaded = self.keeper.load(&mesh, secrets);
        let (next, mut loaded) = match (self.open(&mesh), loaded) {
            (Ok(next), Ok(loaded)) => (next, loaded),
            (next, loaded) => {
                let errors = [next.err(), loaded.err()].into_iter().flatten();
                return Err(errors.flatten().collect());
            }
        };
        let mut waiting = self.assign(&mesh, &endpoints);
        self.keeper.start();
        waiting.extend(loaded.take_waiting());
        Self::warm(waiting).await;
        self.version += 1;
        let snapshot = self.snapshot(mesh, &next, &loaded);
        self.clusters.listens_on(self.own_addresses(&next));
        let mesh = snapshot.mesh.clone();
        let plans = self.plans(&mesh, &loaded);
        // First, or a request could be sent as nobody.
        self.keeper.install(&mesh, loaded);
        self.shared.live.replace(snapshot);
        for name in mesh.clusters.keys() {
            self.clusters.settle(&self.clusters.get_or_make(name));
        }
        self.limits.forget();
        self.switch(next);
        let Self { clusters, resolving, .. } = self;
        clusters.retain(|name| mesh.clusters.contains_key(name));
        resolving.retain(|name, task| {
            let kept = mesh.clusters.contains_key(name);
            if !kept {
                task.task.abort();
            }
            kept
        });
        self.checker.follow(plans);
        Ok(())
    }

    /// Gives a cluster that is in force its endpoints, and touches nothing else.
    pub fn assign_endpoints(&self, name: &Name, assignment: &Assignment) {
        if self.shared.live.load().mesh.clusters.contains_key(name) {
            self.clusters.assign(&self.clusters.get_or_make(name), assignment);
        }
    }

    /// Stops accepting on listeners of this direction.
    pub fn close(&mut self, direction: model::Direction) {
        let snapshot = self.shared.live.load();
        let listeners = &snapshot.mesh.listeners;
        let leaving = |name: &Name| listeners.get(name).is_some_and(|l| l.direction == direction);
        for name in self.running.keys().filter(|name| leaving(name)) {
            self.threads.all(|| Command::Unlisten(name.clone()));
        }
        self.running.retain(|name, _| !leaving(name));
    }

    /// Where the process listens, or is about to.
    fn own_addresses(&self, next: &BTreeMap<Name, Running>) -> Vec<SocketAddr> {
        let listeners = next.values().map(|running| &running.bound.address);
        let ip = |address: &Address| match address {
            Address::Ip(address) => Some(*address),
            Address::Unix(_) => None,
        };
        listeners.chain(&self.admin).filter_map(ip).collect()
    }

    /// The admin interface listens there.
    pub fn set_admin(&mut self, address: Option<Address>) {
        self.clusters.admin_listens_on(address.clone());
        self.admin = address;
    }

    /// The clusters of these names are the operator's own; all others a control plane's.
    pub fn set_own(&mut self, own: BTreeSet<Name>) {
        self.own = Some(own);
    }

    /// Opens what is new, and reads what must be read.
    fn open(&self, mesh: &Mesh) -> Result<BTreeMap<Name, Running>, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let mut next = BTreeMap::new();
        for (name, listener) in &mesh.listeners {
            match self.open_one(name, listener, mesh) {
                Ok((bound, states)) => {
                    next.insert(name.clone(), Running { bind: listener.bind.clone(), bound, states });
                }
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(next) } else { Err(errors) }
    }

    fn open_one(
        &self,
        name: &Name,
        listener: &Listener,
        mesh: &Mesh,
    ) -> Result<(Arc<Bound>, States), ConfigError> {
        let known = self.running.get(name);
        let states = listener.chains.iter().map(|(matches, _)| {
            let matches = matches.cloned();
            let state = known.and_then(|running| running.states.get(&matches).cloned());
            let new =
                || Arc::new(ListenerState { open: 0.into(), stats: self.registry.listener(name.as_str()) });
            (matches, state.unwrap_or_else(new))
        });
        let states = states.collect();
        let same = |running: &&Running| running.bind == listener.bind;
        let moves =
            |name: &Name, running: &Running| mesh.listeners.get(name).is_none_or(|l| l.bind != running.bind);
        let leaving = self.running.iter().filter(|(name, running)| moves(name, running));
        // A listener that was renamed goes on with its descriptor, and so with its backlog.
        if let Some(running) = known.filter(same).or_else(|| leaving.map(|(_, running)| running).find(same)) {
            return Ok((running.bound.clone(), states));
        }
        let bound = Bound::new(&listener.bind).map_err(|error| ConfigError {
            place: None,
            path: format!("listeners.{name}.bind"),
            problem: format!("cannot listen on {}: {error}", listener.bind),
            hint: (error.kind() == std::io::ErrorKind::AddrInUse)
                .then(|| "another process has it; choose another port, or 0 for any".to_owned()),
        })?;
        Ok((Arc::new(bound), states))
    }

    /// Gives clusters their endpoints; names that are new are asked for, and told of when they have been answered.
    fn assign(
        &mut self,
        mesh: &Mesh,
        endpoints: &BTreeMap<Name, Arc<Assignment>>,
    ) -> Vec<oneshot::Receiver<()>> {
        let mut waiting = Vec::new();
        for (name, cluster) in &mesh.clusters {
            let live = self.clusters.get_or_make(name);
            live.set_told(self.own.as_ref().is_some_and(|own| !own.contains(name)));
            self.clusters.configure(&live, cluster);
            match &cluster.source {
                Source::Static => {
                    if let Some(task) = self.resolving.remove(name) {
                        task.task.abort();
                    }
                    let none = Assignment::default();
                    self.clusters.assign(&live, endpoints.get(name).map_or(&none, Arc::as_ref));
                }
                Source::Original(_) => {
                    if let Some(task) = self.resolving.remove(name) {
                        task.task.abort();
                    }
                }
                Source::Dns { host, port, uses } => {
                    if self.resolving.get(name).is_some_and(|resolving| resolving.source == cluster.source) {
                        continue;
                    }
                    let clusters = self.clusters.clone();
                    let (asked, answered) = oneshot::channel();
                    waiting.push(answered);
                    let what = (host.clone(), port.get(), *uses);
                    let task = dns::resolve(self.resolver(), what, asked, move |assignment| {
                        clusters.assign(&live, assignment);
                    });
                    let resolving =
                        Resolving { source: cluster.source.clone(), task: tokio::task::spawn_local(task) };
                    if let Some(old) = self.resolving.insert(name.clone(), resolving) {
                        old.task.abort();
                    }
                }
            }
        }
        waiting
    }

    /// How endpoints are asked whether they are well.
    fn plans(&self, mesh: &Mesh, loaded: &Loaded) -> Vec<Plan> {
        let plan = |(name, config): (&Name, &Arc<model::Cluster>)| {
            let check = (**config.health_check.as_ref()?).clone();
            let (cluster, tls) = (self.clusters.get_or_make(name), loaded.cluster(name));
            Some(Plan { cluster, check, protocol: config.protocol, tls })
        };
        mesh.clusters.iter().filter_map(plan).collect()
    }

    /// No request should meet a cluster whose name has not been asked for yet. A resolver that does not answer holds
    /// this up for so long and no longer.
    async fn warm(waiting: Vec<oneshot::Receiver<()>>) {
        let all = async {
            for answered in waiting {
                // The task ended: its cluster is gone again.
                let _ = answered.await;
            }
        };
        if tokio::time::timeout(WARM, all).await.is_err() {
            tracing::warn!(after = ?WARM, "going on with names that are not resolved, or keys of tokens that are not fetched, yet");
        }
    }

    /// Made when the first name is to be resolved: most configurations have none.
    fn resolver(&mut self) -> Arc<TokioResolver> {
        self.resolver.get_or_insert_with(dns::resolver).clone()
    }

    fn snapshot(&mut self, mesh: Mesh, next: &BTreeMap<Name, Running>, loaded: &Loaded) -> Snapshot {
        let views = self.views(&mesh, loaded);
        let (clusters, absent) = (self.clusters.clone(), RefCell::default());
        let resolve = |to: &Destination| match views.get(&(&to.cluster, to.subset.as_ref())) {
            Some(view) => view.clone(),
            None => missing(to, &clusters, &absent),
        };
        let tables = self.routes(&mesh, resolve);
        let mut counted = self.counted(&mesh, &resolve);
        let node = mesh.process.control.as_deref().map(|control| &*control.node.cluster);
        let node_cluster: Arc<str> = node.unwrap_or_default().into();
        let mut view = |name: &Name,
                        (place, matches, chain): (String, Option<&ChainMatch>, &FilterChain),
                        redirected: bool| {
            let running = &next[name];
            let (filter, authorizer) = match &chain.filter {
                Filter::Http(http) => {
                    (FilterView::Http(tables[&http.routes].clone()), http.external_authorization.as_ref())
                }
                Filter::Tcp(tcp) => (FilterView::Tcp(resolve_split(&tcp.to, &resolve)), None),
            };
            let port = match &running.bound.address {
                Address::Ip(address) => Some(address.port()),
                Address::Unix(_) => None,
            };
            let matches = matches.cloned();
            let whose = (name.clone(), matches.clone());
            Arc::new(ListenerView {
                place: format!("{name}{place}").into(),
                port,
                redirected,
                tokens: loaded.tokens(&whose),
                authorization: self.rules(&whose, chain.authorization.as_ref()),
                authorizer: authorizer.map(|asked| resolve(&asked.cluster.clone().into())),
                tls: loaded.listener(&whose),
                state: running.states[&matches].clone(),
                counted_by: counted.remove(&whose),
                node_cluster: node_cluster.clone(),
                filter,
                name: name.clone(),
                chain: chain.clone(),
                matches,
            })
        };
        let entry = |(name, Listener { bind: _, direction: _, destination, chains }): (&Name, &Listener)| {
            let redirected = *destination == DestinationSource::Redirected;
            let mut views = chains.places().map(|chain| view(name, chain, redirected));
            let only = if chains.only().is_some() { views.next() } else { None };
            let entry = only.map_or_else(
                || {
                    let stats = self.registry.listener(name.as_str());
                    Entry::Several(Arc::new(ChainViews::new(name.clone(), stats, views)))
                },
                Entry::One,
            );
            (name.clone(), entry)
        };
        let listeners = mesh.listeners.iter().map(entry).collect();
        Snapshot { version: self.version, listeners, mesh: Arc::new(mesh) }
    }

    /// Each table, with where its routes lead and what limits them.
    fn routes<'m>(
        &mut self,
        mesh: &'m Mesh,
        resolve: impl Fn(&Destination) -> Arc<ClusterView> + Copy,
    ) -> HashMap<&'m Name, Arc<Routes>> {
        let tables = mesh.route_tables.iter().map(|(name, table)| {
            let routes = Routes::new(table.clone(), resolve);
            (name, Arc::new(routes.with_limits(|route| self.limits.of(name, route))))
        });
        tables.collect()
    }

    /// Who counts the requests of each chain, where somebody does.
    fn counted(
        &mut self,
        mesh: &Mesh,
        resolve: &impl Fn(&Destination) -> Arc<ClusterView>,
    ) -> HashMap<ChainKey, CountedBy> {
        let chains = mesh.listeners.iter().flat_map(|(name, listener)| {
            listener.chains.iter().map(move |(matches, chain)| ((name.clone(), matches.cloned()), chain))
        });
        let counted = chains.filter_map(|(whose, chain)| {
            let asked = chain.counts()?;
            let refusals = self.limits.of_chain(&whose, asked);
            let service = resolve(&asked.cluster.clone().into());
            Some((whose, CountedBy { service, refusals }))
        });
        counted.collect()
    }

    /// Rules that have not changed stay the same, so that connections need not be held against them again.
    fn rules(&self, (listener, matches): &ChainKey, wanted: Option<&Authorization>) -> Option<Arc<Rules>> {
        let wanted = wanted?;
        let current = self.shared.live.load();
        let current = current.listeners.get(listener).and_then(|all| all.like(matches.as_ref()));
        let same = current.filter(|current| current.chain.authorization.as_ref() == Some(wanted));
        let same = same.and_then(|same| same.authorization.clone());
        Some(same.unwrap_or_else(|| Arc::new(Rules::new(wanted))))
    }

    /// One of each cluster, and of each of its subsets, for all routes that lead there.
    fn views<'m>(&self, mesh: &'m Mesh, loaded: &Loaded) -> Views<'m> {
        let views = |(name, config): (&'m Name, &'m Arc<model::Cluster>)| {
            let live = self.clusters.get_or_make(name);
            let tls = loaded.cluster(name);
            let parts = config.subsets.keys().map(Some).chain([None]);
            let view = |part: Option<&'m Name>| {
                let subset = part.map(|part| live.subset(part));
                let view =
                    ClusterView { config: config.clone(), live: live.clone(), tls: tls.clone(), subset };
                ((name, part), Arc::new(view))
            };
            parts.map(view).collect::<Vec<_>>()
        };
        mesh.clusters.iter().flat_map(views).collect()
    }

    /// Accepts where it is new to, and no longer where it is not.
    fn switch(&mut self, next: BTreeMap<Name, Running>) {
        let old = std::mem::replace(&mut self.running, next);
        for (name, running) in &self.running {
            if !old.get(name).is_some_and(|old| Arc::ptr_eq(&old.bound, &running.bound)) {
                self.threads.all(|| Command::Listen(name.clone(), running.bound.clone()));
                tracing::info!(listener = %name, address = %running.bound.address, "listening");
            }
        }
        for (name, gone) in &old {
            if !self.running.contains_key(name) {
                self.threads.all(|| Command::Unlisten(name.clone()));
                self.registry.retire("listener", name.as_str());
                tracing::info!(listener = %name, address = %gone.bound.address, "no longer listening");
            }
        }
    }
}
