//! How a control plane runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{Address, Holds, Name, PeerPattern, Percent, TrustDomain};

/// Settings of a control plane's process. None of them is looked at again while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Plane {
    /// Where nodes ask (xDS v3 over gRPC).
    pub xds: Address,
    /// Where people and programs ask (REST).
    pub api: Address,
    /// With what both prove themselves; in the clear by default, and then on loopback alone.
    pub tls: Option<PlaneTls>,
    /// Where it keeps what was said.
    pub store: PlaneStore,
    /// A directory of documents that are taken over when they change; none by default.
    pub documents: Option<PathBuf>,
    /// Who gives nodes their identities; nobody by default.
    pub authority: Option<Authority>,
    /// Secrets that documents may name.
    pub secrets: BTreeMap<Name, PlaneSecret>,
    /// Who may ask as a node.
    pub nodes: Nodes,
    /// How a revision comes to all; at once by default.
    pub rollout: Option<Rollout>,
    /// Who may look.
    pub reads: Reads,
    /// Where events are published; nowhere by default.
    pub events: Option<Nats>,
}

impl Default for Plane {
    fn default() -> Self {
        let on = |port: u16| Address::Ip(([127, 0, 0, 1], port).into());
        Self {
            xds: on(18000),
            api: on(18001),
            tls: None,
            store: PlaneStore { directory: PlaneStore::DIRECTORY.into(), etcd: None },
            documents: None,
            authority: None,
            secrets: BTreeMap::new(),
            nodes: Nodes::Any,
            rollout: None,
            reads: Reads::Token,
            events: None,
        }
    }
}

/// Where a control plane keeps what was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaneStore {
    /// The directory of what is this process's own, and of all where nothing is shared; made where it is not there.
    pub directory: PathBuf,
    /// Where it shares the rest with its replicas; nowhere by default.
    pub etcd: Option<Etcd>,
}

impl PlaneStore {
    /// The directory, by default.
    pub const DIRECTORY: &str = "outrigger-control";
}

/// An etcd that several control planes keep what was said in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// Its members, as `https://HOST:PORT`, or `http://HOST:PORT` on this machine; not empty.
    pub endpoints: Box<[Box<str>]>,
    /// What stands before all keys.
    pub prefix: Box<str>,
    /// PEM file of the roots that members are checked against; the system's by default.
    pub trust: Option<PathBuf>,
    /// What is shown to members that want a certificate; nothing by default.
    pub certificate: Option<PlaneTls>,
    /// A user, and the file of the password, which is read whenever it is shown; nobody by default.
    pub login: Option<(Box<str>, PathBuf)>,
}

impl Etcd {
    /// What stands before all keys, by default.
    pub const PREFIX: &str = "/outrigger";
}

/// A certificate of the process's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaneTls {
    /// PEM file of the chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file of the leaf's private key.
    pub private_key: PathBuf,
}

/// A secret, in files that are read again when they change: it is told to nodes, and is of no revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaneSecret {
    /// A certificate and its key.
    Certificate {
        /// Where it stands.
        files: PlaneTls,
        /// At least one: nodes that have proven to be one of these are told.
        nodes: Box<[PeerPattern]>,
    },
    /// Roots, which are told to whoever's documents name them.
    Roots {
        /// PEM file.
        roots: PathBuf,
        /// PEM files of what is no longer good. With any, what none of them covers is refused.
        crls: Box<[PathBuf]>,
    },
}

impl PlaneSecret {
    /// What it can be used for.
    pub fn holds(&self) -> Holds {
        match self {
            Self::Certificate { .. } => Holds::Certificate,
            Self::Roots { .. } => Holds::Roots,
        }
    }
}

/// How a revision comes to all, a few at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// So many of each group, at least one; rising. After the last all are told.
    pub steps: Box<[Percent]>,
    /// How long each step is watched after it was told.
    pub watch: Duration,
    /// So much more of the requests of those who were told may fail than of the others, in points of percentages.
    pub failures: Percent,
    /// So many times as long as the others' may it be until 95 of 100 of their requests have ended.
    pub slowdown: f64,
    /// How long a node may take to take what it was told, or be gone, before the revision is taken back.
    pub patience: Duration,
}

impl Rollout {
    /// How long each step is watched, by default.
    pub const WATCH: Duration = Duration::from_secs(30);
    /// How much more may fail, by default: 5 in 100.
    pub const FAILURES: Percent = Percent::whole(5);
    /// How much slower it may be, by default.
    pub const SLOWDOWN: f64 = 3.0;
    /// How long a node may take, by default.
    pub const PATIENCE: Duration = Duration::from_secs(30);
}

/// Who may look at what a control plane has. Changes always need a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Whoever has a token.
    Token,
    /// Everybody.
    Open,
}

/// Who may ask as a node. Certificates are asked for by whoever may have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// Whoever reaches the port.
    Any,
    /// Whoever shows a certificate of the authority's.
    Proven,
}

/// An authority that nodes get their identities from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Whose identities it gives.
    pub trust_domain: TrustDomain,
    /// The root that signs; `None` makes one in the store.
    pub root: Option<RootFiles>,
    /// How long a certificate lives at the most.
    pub lifetime: Duration,
    /// By what a node proves who it is, beside join tokens and certificates of this authority's.
    pub attest: Attest,
}

impl Authority {
    /// How long a certificate lives at the most, by default.
    pub const LIFETIME: Duration = Duration::from_secs(24 * 3600);
}

/// By what else a node proves who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attest {
    /// PEM file of the roots of others, whose certificates count as well.
    pub certificates: Option<PathBuf>,
    /// Who is asked about tokens that are not ours.
    pub verifier: Option<Verifier>,
}

/// A service that says who shows a token (HTTP, JSON).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    /// `https://...`, or `http://...` on this machine.
    pub url: Box<str>,
    /// PEM file of the roots that it is checked against; the system's by default.
    pub trust: Option<PathBuf>,
    /// How long it is waited for.
    pub timeout: Duration,
}

impl Verifier {
    /// How long it is waited for, by default. A node waits for ten seconds.
    pub const TIMEOUT: Duration = Duration::from_secs(5);
}

/// A root of the operator's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootFiles {
    /// PEM file: the root that signs, and then others that are believed as well.
    pub certificate: PathBuf,
    /// PEM file of the private key of the first.
    pub private_key: PathBuf,
}

/// A stream of NATS JetStream that events are published to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nats {
    /// `nats://HOST:PORT`, or `tls://HOST:PORT`, where nothing is said in the clear.
    pub server: Box<str>,
    /// PEM file of the roots that the server is checked against; the system's by default.
    pub trust: Option<PathBuf>,
    /// By which right events are published; as anybody by default.
    pub login: Option<NatsLogin>,
    /// The stream's name. It is made where it is not there.
    pub stream: Box<str>,
    /// What stands before an event's type in its subject.
    pub subject: Box<str>,
}

impl Nats {
    /// The stream's name, by default.
    pub const STREAM: &str = "outrigger";
    /// What stands before an event's type in its subject, by default.
    pub const SUBJECT: &str = "outrigger.events";

    /// Whether nothing is said to the server in the clear.
    pub fn is_tls(&self) -> bool {
        self.server.starts_with("tls://")
    }
}

/// What is shown to a server of NATS. Its files are read whenever a connection is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsLogin {
    /// The file of a token.
    Token(PathBuf),
    /// A user, and the file of the password.
    User(Box<str>, PathBuf),
}
