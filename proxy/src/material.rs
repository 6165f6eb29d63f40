//! What a configuration names and does not hold: certificates, keys, roots and lists. Read and checked before anything
//! of the configuration comes into force, and put in force with it.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::SystemTime;

use outrigger_proto::error::ConfigError;
use outrigger_proto::model::{
    self, Certificate, ChainMatch, DownstreamTls, Filter, FilterChain, HttpFilter, IdentitySource,
    JwksSource, Mesh, Name, Revocation, UpstreamTls,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use tokio::sync::oneshot;

use crate::downstream::tls::{self, Material, Speaks};
use crate::identity::offer::{Accepted, Taker};
use crate::identity::secrets::Secrets;
use crate::identity::state::{Local, Prepared};
use crate::identity::tls::ListenerTls;
use crate::identity::verify::Lists;
use crate::identity::{Identity, csr, files, pem, provider, workload_api};
use crate::jwks::{self, Jwks};
use crate::observe::ProcessStats;
use crate::policy::jwt::{Keys, Tokens};
use crate::task::AbortOnDrop;
use crate::upstream::tls::{ClientTls, ClientTlsStore};

/// A chain of a listener, by what it takes.
pub type ChainKey = (Name, Option<ChainMatch>);

/// What is in force, and what makes more of it.
#[derive(Debug)]
pub struct Keeper {
    identity: Arc<Identity>,
    mesh: tls::Mesh,
    clients: ClientTlsStore,
    listeners: HashMap<ChainKey, Material>,
    /// Files of keys that somebody was warned of.
    exposed: BTreeSet<PathBuf>,
    taker: Taker,
    jwks: Jwks,
    /// What brings the identity, where it does not come with the configuration.
    source: Option<(IdentitySource, AbortOnDrop)>,
}

/// What one configuration needs.
#[derive(Debug)]
pub struct Loaded {
    own: HashMap<ChainKey, Material>,
    mutual: HashMap<ChainKey, ListenerTls>,
    clusters: HashMap<Name, Arc<ClientTls>>,
    tokens: HashMap<ChainKey, Arc<Tokens>>,
    /// Told when keys that are asked for have been.
    waiting: Vec<oneshot::Receiver<()>>,
    identity: Option<Prepared>,
    local: Local,
    /// Whether keys came from the control plane.
    told: bool,
}

impl Loaded {
    /// What a chain does about TLS.
    pub fn listener(&self, chain: &ChainKey) -> Option<ListenerTls> {
        self.own.get(chain).map(Material::tls).or_else(|| self.mutual.get(chain).cloned())
    }

    /// Whose tokens a chain takes.
    pub fn tokens(&self, chain: &ChainKey) -> Option<Arc<Tokens>> {
        self.tokens.get(chain).cloned()
    }

    /// What is worth waiting for, for a moment.
    pub fn take_waiting(&mut self) -> Vec<oneshot::Receiver<()>> {
        std::mem::take(&mut self.waiting)
    }

    /// What is done towards the endpoints of a cluster.
    pub fn cluster(&self, name: &Name) -> Option<Arc<ClientTls>> {
        self.clusters.get(name).cloned()
    }
}

impl Keeper {
    /// Nothing is in force yet.
    pub fn new(identity: Arc<Identity>, stats: Arc<ProcessStats>) -> Self {
        let jwks = Jwks::new(stats.clone());
        let taker = Taker { identity: identity.clone(), stats };
        Self {
            mesh: tls::Mesh::new(identity.clone()),
            clients: ClientTlsStore::new(identity.clone()),
            identity,
            listeners: HashMap::new(),
            exposed: BTreeSet::new(),
            taker,
            jwks,
            source: None,
        }
    }

    /// Reads and checks all that a configuration names. Nothing of it is in force yet.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn load(&mut self, mesh: &Mesh, secrets: &Secrets) -> Result<Loaded, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let local = self.local(mesh).map_err(|error| errors.push(error)).unwrap_or_default();
        let identity = mesh.identity.as_deref().and_then(|identity| {
            let prepared = self.prepare(identity, &local);
            if prepared.is_err() {
                self.taker.stats.identity_failures.increment(1);
            }
            prepared.map_err(|error| errors.push(error)).unwrap_or_default()
        });
        let (mut own, mut mutual, mut clusters) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (at, whose, chain) in chains(mesh) {
            match &chain.tls {
                None => {}
                Some(DownstreamTls::Mutual(mode)) => {
                    mutual.insert(whose, self.mesh.tls(*mode, speaks(chain)));
                }
                Some(DownstreamTls::Own(source)) => {
                    match tls::load(source, speaks(chain), secrets, self.listeners.get(&whose)) {
                        Ok(material) => drop(own.insert(whose, material)),
                        Err(error) => errors.push(wrong(format!("{at}.tls"), error)),
                    }
                }
            }
        }
        for (name, cluster) in &mesh.clusters {
            let Some(source) = &cluster.tls else { continue };
            match self.clients.make(source, secrets) {
                Ok(tls) => drop(clusters.insert(name.clone(), tls)),
                Err(error) => errors.push(wrong(format!("clusters.{name}.tls"), error)),
            }
        }
        let (mut tokens, mut waiting) = (HashMap::new(), Vec::new());
        for (at, whose, chain) in chains(mesh) {
            match self.tokens(&at, chain, &mut waiting) {
                Ok(found) => tokens.extend(found.map(|found| (whose, found))),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            let told = !secrets.0.is_empty();
            Ok(Loaded { own, mutual, clusters, tokens, waiting, identity, local, told })
        } else {
            Err(errors)
        }
    }

    /// Begins with the identity of a configuration that comes into force later: a control plane that is asked before wants to
    /// know by whom. What is wrong with it is said when it comes into force.
    pub fn begin(&mut self, mesh: &Mesh) {
        let Some(identity) = mesh.identity.as_deref() else { return };
        let Ok(local) = self.local(mesh) else { return };
        let Ok(prepared) = self.prepare(identity, &local) else { return };
        keep_out_of_cores();
        self.be(prepared, local);
        self.follow(Some(&identity.source));
    }

    /// Begins to ask for what is new and comes by itself.
    pub fn start(&mut self) {
        self.jwks.start();
    }

    /// Puts in force what was loaded.
    pub fn install(&mut self, mesh: &Mesh, loaded: Loaded) {
        let Loaded { own, mutual: _, clusters: _, tokens, waiting: _, identity, local, told } = loaded;
        let used = |source: &JwksSource| {
            tokens.values().any(|tokens| tokens.issuers.iter().any(|issuer| issuer.keys == *source))
        };
        self.jwks.retain(used);
        self.warn_of_exposed(mesh);
        if !own.is_empty() || told || mesh.identity.is_some() {
            keep_out_of_cores();
            draw_first();
        }
        self.be(identity, local);
        if mesh.identity.is_none() {
            self.identity.forget();
            self.taker.stats.identity_expiry.set(0);
        }
        self.follow(mesh.identity.as_deref().map(|identity| &identity.source));
        self.listeners = own;
        self.clients.forget();
    }

    /// Puts an identity in force, if there is one, and whom of others it does not believe.
    fn be(&self, identity: Option<Prepared>, local: Local) {
        if let Some(prepared) = identity {
            let version = self.identity.version();
            let Accepted { id, not_before: _, not_after } = self.identity.install(prepared);
            if self.identity.version() != version {
                self.taker.stats.identity(not_after);
                tracing::info!(%id, "the identity is in force");
            }
        }
        if let Err(error) = self.identity.set_local(local) {
            // It was read before, and was good.
            tracing::error!(%error, "revocation lists could not be put in force");
        }
    }

    /// What brings the identity by itself. One that has not changed goes on; what another one brought stays until the new
    /// one brings something.
    fn follow(&mut self, wanted: Option<&IdentitySource>) {
        if self.source.as_ref().map(|(source, _)| source) == wanted {
            return;
        }
        let taker = self.taker.clone();
        let task = match wanted {
            None | Some(IdentitySource::Files { .. }) => None,
            Some(IdentitySource::WorkloadApi(socket)) => {
                Some(AbortOnDrop::spawn(workload_api::follow(socket.clone(), taker)))
            }
            Some(IdentitySource::Csr(csr)) => Some(AbortOnDrop::spawn(csr::follow(csr.clone(), taker))),
        };
        self.source = wanted.cloned().zip(task);
    }

    fn tokens(
        &mut self,
        at: &str,
        chain: &FilterChain,
        waiting: &mut Vec<oneshot::Receiver<()>>,
    ) -> Result<Option<Arc<Tokens>>, ConfigError> {
        let Filter::Http(HttpFilter { jwt, .. }) = &chain.filter else { return Ok(None) };
        if jwt.is_empty() {
            return Ok(None);
        }
        let mut keys = Vec::with_capacity(jwt.len());
        for (place, issuer) in jwt.iter().enumerate() {
            keys.push(match &issuer.keys {
                JwksSource::Inline(keys) => Arc::new(Keys::new(keys.keys().clone())),
                JwksSource::File(path) => {
                    let read = jwks::read(path);
                    let at = || format!("{at}.jwt[{place}].jwks");
                    Arc::new(Keys::new(read.map_err(|error| wrong(at(), error))?))
                }
                source @ JwksSource::Url { url: _, trust } => {
                    if let Some(path) = trust {
                        let at = || format!("{at}.jwt[{place}].jwks_trust");
                        pem::certificates(path).map_err(|error| wrong(at(), error))?;
                    }
                    let (keys, first) = self.jwks.at(source);
                    waiting.extend(first);
                    keys
                }
            });
        }
        Ok(Some(Arc::new(Tokens { issuers: jwt.clone(), keys: keys.into() })))
    }

    fn local(&self, mesh: &Mesh) -> Result<Local, ConfigError> {
        let Some(identity) = mesh.identity.as_deref() else { return Ok(Local::default()) };
        let Revocation { crls, unknown } = &identity.revocation;
        let at = || "identity.revocation.crls".to_owned();
        let crls = pem::lists(crls).map_err(|error| wrong(at(), error))?;
        Lists::new(&crls, *unknown).map_err(|error| wrong(at(), error))?;
        Ok(Local { crls, unknown: *unknown })
    }

    fn prepare(&self, identity: &model::Identity, local: &Local) -> Result<Option<Prepared>, ConfigError> {
        let model::Identity { source, revocation: _ } = identity;
        match source {
            IdentitySource::Files { own, trust } => {
                let at = || "identity.files".to_owned();
                let offer = files::read(own, trust).map_err(|error| wrong(at(), error))?;
                let prepared = self.identity.prepare(offer, local, SystemTime::now());
                prepared.map(Some).map_err(|error| wrong(at(), error))
            }
            // It comes when it comes.
            IdentitySource::WorkloadApi(_) | IdentitySource::Csr(_) => Ok(None),
        }
    }

    /// Once for each file.
    fn warn_of_exposed(&mut self, mesh: &Mesh) {
        for (path, warning) in exposed(mesh) {
            if self.exposed.insert(path) {
                tracing::warn!("{warning}");
            }
        }
    }
}

/// From now on there are keys in memory: a core file would carry them away, and so would a debugger of another process of
/// the same user.
fn keep_out_of_cores() {
    let Rlimit { current: _, maximum } = getrlimit(Resource::Core);
    let kept = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum })
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = kept {
        tracing::warn!(%error, "a core file of this process could hold private keys: the system lets us not prevent it");
    }
}

/// Draws the process's first random number, beside everything else: whoever draws it waits for the source to be tested, and that is
/// not to be the first client.
fn draw_first() {
    static ONCE: Once = Once::new();
    let draw = || {
        // Who needs it says so when it fails.
        let _ = provider().secure_random.fill(&mut [0]);
    };
    ONCE.call_once(|| drop(std::thread::Builder::new().name("random".to_owned()).spawn(draw)));
}

/// Files of keys that others than their owner may read or write, and what to say of each.
pub fn exposed(mesh: &Mesh) -> Vec<(PathBuf, String)> {
    let identity = mesh.identity.iter().filter_map(|identity| match &identity.source {
        IdentitySource::Files { own, trust: _ } => Some(&own.private_key),
        IdentitySource::WorkloadApi(_) | IdentitySource::Csr(_) => None,
    });
    let listeners = chains(mesh).flat_map(|(_, _, chain)| match &chain.tls {
        Some(DownstreamTls::Own(own)) => own.certificates.iter().filter_map(key_file).collect(),
        Some(DownstreamTls::Mutual(_)) | None => Vec::new(),
    });
    let clusters = mesh.clusters.values().filter_map(|cluster| match &cluster.tls {
        Some(UpstreamTls::Server(server)) => server.certificate.as_ref().and_then(key_file),
        Some(UpstreamTls::Mutual(_)) | None => None,
    });
    let keys: BTreeSet<_> = identity.chain(listeners).chain(clusters).collect();
    keys.into_iter().filter_map(|path| Some((path.clone(), pem::exposure(path)?))).collect()
}

fn key_file(certificate: &Certificate) -> Option<&PathBuf> {
    match certificate {
        Certificate::Files(files) => Some(&files.private_key),
        Certificate::Secret(_) => None,
    }
}

/// The chains of all listeners, each with its path.
fn chains(mesh: &Mesh) -> impl Iterator<Item = (String, ChainKey, &FilterChain)> {
    mesh.listeners.iter().flat_map(|(name, listener)| {
        listener.chains.places().map(move |(place, matches, chain)| {
            (format!("listeners.{name}{place}"), (name.clone(), matches.cloned()), chain)
        })
    })
}

fn speaks(chain: &FilterChain) -> Speaks {
    match chain.filter {
        Filter::Http(_) => Speaks::Http,
        Filter::Tcp(_) => Speaks::Bytes,
    }
}

fn wrong(path: String, error: impl Display) -> ConfigError {
    ConfigError { place: None, path, problem: error.to_string(), hint: None }
}
