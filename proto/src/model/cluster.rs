//! Who answers: a set of endpoints that are alike, and how one of them is chosen and reached.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use http::HeaderName;

use super::{
    Address, CircuitBreaker, HashKey, HealthCheck, Name, OutlierDetection, Percent, RetryBudget, UpstreamTls,
};

/// A set of endpoints that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Where its endpoints come from.
    pub source: Source,
    /// How one is chosen.
    pub balance: Balance,
    /// What is spoken with it.
    pub protocol: Protocol,
    /// TLS around it; none by default.
    pub tls: Option<UpstreamTls>,
    /// Until a connection is established, TLS included.
    pub connect_timeout: Duration,
    /// A connection that carries nothing is closed after this long. The default is shorter than what most servers
    /// grant, so that it is us who close first, and no request meets a connection that is being closed.
    pub idle_timeout: Duration,
    /// What of its traffic may be further attempts.
    pub retry_budget: RetryBudget,
    /// What it may be burdened with at once.
    pub circuit_breaker: CircuitBreaker,
    /// When an endpoint is left out by how it answers; never by default.
    pub outlier_detection: Option<OutlierDetection>,
    /// How its endpoints are asked whether they are well; not at all by default.
    pub health_check: Option<Box<HealthCheck>>,
    /// How long a new endpoint's share of the load grows until it is whole; zero by default.
    pub slow_start: Duration,
    /// When less than this share of its endpoints is healthy, all of them are used, healthy or not;
    /// [`Percent::ZERO`], the default, never does that.
    pub panic_threshold: Percent,
    /// What share of a priority's load each zone gets, relative to the others' and whatever its number of endpoints; 0
    /// is never used. Empty, the default, leaves zones out of account.
    pub zone_weights: BTreeMap<Box<str>, u32>,
    /// Parts of it that can be named where it can: by the labels that an endpoint must all have. None by default.
    pub subsets: BTreeMap<Name, Labels>,
    /// Who takes what is meant for a subset that no endpoint is in.
    pub subset_fallback: SubsetFallback,
}

impl Cluster {
    /// A cluster with the defaults.
    pub fn new(source: Source) -> Self {
        Self {
            source,
            balance: Balance::default(),
            protocol: Protocol::default(),
            tls: None,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(55),
            retry_budget: RetryBudget::default(),
            circuit_breaker: CircuitBreaker::default(),
            outlier_detection: None,
            health_check: None,
            slow_start: Duration::ZERO,
            panic_threshold: Percent::ZERO,
            zone_weights: BTreeMap::new(),
            subsets: BTreeMap::new(),
            subset_fallback: SubsetFallback::default(),
        }
    }
}

/// Where a cluster's endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// They are stated: an [`Assignment`] stands beside the mesh.
    Static,
    /// A name that is resolved again and again, by its TTL.
    Dns {
        /// The name.
        host: Box<str>,
        /// The port of every endpoint.
        port: NonZeroU16,
        /// What becomes of its addresses.
        uses: DnsUse,
    },
    /// Whoever comes says where it was going: an address is an endpoint from the first time on that it is named.
    Original(Original),
}

/// Endpoints that come into being by being named: by the original destination of a redirected connection, or by a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// A header that names the endpoint instead, as `ip:port`, where a request has it. None by default: whoever may send it
    /// may name any address but those that the proxy itself listens on.
    pub header: Option<HeaderName>,
    /// The port of every endpoint, instead of the one that is named; that one by default.
    pub port: Option<NonZeroU16>,
    /// An endpoint that nobody has used for this long is forgotten.
    pub cleanup: Duration,
    /// So many endpoints may be known at once, up to [`Original::MAX_ENDPOINTS`]; 503 for those beyond.
    pub max_endpoints: NonZeroU32,
}

impl Default for Original {
    fn default() -> Self {
        Self {
            header: None,
            port: None,
            cleanup: Duration::from_secs(5),
            max_endpoints: NonZeroU32::new(1024).expect("not zero"),
        }
    }
}

impl Original {
    /// More than this would cost more to keep than to connect anew.
    pub const MAX_ENDPOINTS: u32 = 65_536;

    /// The header where nobody says another.
    pub const HEADER: HeaderName = HeaderName::from_static("x-envoy-original-dst-host");
}

/// What becomes of the addresses of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DnsUse {
    /// Each is an endpoint.
    #[default]
    All,
    /// All of them are one endpoint: new connections go to the first, and those that are open stay, wherever they lead.
    First,
}

/// How an endpoint is chosen for a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Of two endpoints at random, the one with less (latency x requests in flight).
    #[default]
    PeakEwma,
    /// Of two endpoints at random, the one with fewer requests in flight.
    LeastRequest,
    /// In turn, by weight.
    RoundRobin,
    /// At random, by weight.
    Random,
    /// By hash, on a ring of points (Karger).
    RingHash(Box<[HashKey]>),
    /// By hash, in a table (Maglev, section 3.4).
    Maglev(Box<[HashKey]>),
}

/// What is spoken with an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// What the client spoke.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// Who takes what is meant for a subset that no endpoint is in. One whose endpoints are all ill is not empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubsetFallback {
    /// Nobody.
    #[default]
    None,
    /// Any endpoint of the cluster.
    Any,
}

/// What an endpoint is, in its operator's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(pub BTreeMap<Box<str>, Box<str>>);

impl Labels {
    /// Whether all of `wanted` are among them.
    pub fn has_all(&self, wanted: &Self) -> bool {
        wanted.0.iter().all(|(key, value)| self.0.get(key) == Some(value))
    }
}

/// Where traffic goes: a cluster, or a part of it. Written `cluster` or `cluster/subset`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The cluster.
    pub cluster: Name,
    /// The part of it; all of it by default.
    pub subset: Option<Name>,
}

impl From<Name> for Destination {
    fn from(cluster: Name) -> Self {
        Self { cluster, subset: None }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, subset } = self;
        match subset {
            None => cluster.fmt(f),
            Some(subset) => write!(f, "{cluster}/{subset}"),
        }
    }
}

/// The endpoints of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// In written order, no address twice.
    pub endpoints: Vec<Endpoint>,
}

/// One process that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// Its share of the load, relative to the others'.
    pub weight: NonZeroU32,
    /// 0 is used first; the next, as far as the healthy ones before it do not suffice. At most 127.
    pub priority: u8,
    /// Where it stands.
    pub zone: Option<Box<str>>,
    /// What puts it into subsets.
    pub labels: Labels,
}

impl Endpoint {
    /// An endpoint like any other.
    pub fn new(address: Address) -> Self {
        Self { address, weight: NonZeroU32::MIN, priority: 0, zone: None, labels: Labels::default() }
    }
}
