//! What a configuration means: plain data, checked once at construction, no I/O.
//!
//! Defaults are values here, never an `Option` that means "default". What changes most often, the endpoints of a
//! cluster, stands beside the [`Mesh`] and not in it ([`Config`]), so that a pod that restarts rebuilds no route.

mod alike;
mod authorization;
mod chains;
mod cluster;
mod control;
mod external_authorization;
mod fallback;
mod fleet;
mod global_rate_limit;
pub mod json;
mod jwks;
mod jwt;
mod listener;
mod plane;
#[cfg(test)]
pub(crate) mod random;
mod replace;
mod resilience;
mod route;
mod spiffe;
mod tls;
mod values;

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::alike::Alike;
pub use self::authorization::{Authorization, ClaimRule, Effect, HeaderRule, PathPattern, Rule, When};
pub use self::chains::{ChainMatch, Chains, ChainsError, Origin, Transport};
pub use self::cluster::{
    Assignment, Balance, Cluster, Destination, DnsUse, Endpoint, Labels, Original, Protocol, Source,
    SubsetFallback,
};
pub use self::control::{ControlPlane, Locality, Metadata, Node, OnDemand};
pub use self::external_authorization::{CheckBody, CheckProtocol, CheckUse, ExternalAuthorization};
pub use self::fallback::{Fallback, Instead, Stale};
pub use self::fleet::{Fleet, Group, IdPattern, Select};
pub use self::global_rate_limit::{
    Absent, DescriptorEntry, GlobalRateLimit, OnFailure, Only, OnlyOf, RateLimitService,
};
pub use self::jwks::{InlineKeys, Key, KeyMaterial, KeySet, KeySetError};
pub use self::jwt::{JwksSource, JwtAlgorithm, JwtIssuer, JwtUse};
pub use self::listener::{
    DestinationSource, Direction, Filter, FilterChain, HttpFilter, Limits, Listener, TcpFilter,
};
pub use self::plane::{
    Attest, Authority, Etcd, Nats, NatsLogin, Nodes, Plane, PlaneSecret, PlaneStore, PlaneTls, Reads,
    Rollout, RootFiles, Verifier,
};
pub use self::replace::{Replace, ReplaceError};
pub(crate) use self::replace::{drops, literal};
pub use self::resilience::{
    AbortWith, Adaptive, Backoff, BreakerLimits, CircuitBreaker, Concurrency, Fault, FaultAbort, FaultDelay,
    HashKey, HashOn, HealthCheck, Hedge, HedgeAfter, LimitKey, MadeCookie, Mirror, OutlierDetection, Percent,
    Priority, Probe, RateLimit, Retry, RetryBudget, RetryCondition,
};
pub use self::route::{
    Action, Forward, HeaderEdits, HeaderMatch, HostPattern, Match, PathMatch, PathRewrite, QueryMatch,
    Redirect, Respond, Rewrite, Route, RouteTable, Split, StringMatch, Target,
};
pub use self::spiffe::{PeerPattern, SpiffeError, SpiffeId, TrustDomain};
pub use self::tls::{
    Bundle, Certificate, CertificateFiles, ClientAuth, ClientTrust, Csr, DownstreamTls, Holds, Identity,
    IdentitySource, Mutual, MutualUpstream, Revocation, Roots, San, SecretRef, ServerAuth, ServerTls,
    Unknown, UpstreamTls,
};
pub(crate) use self::values::is_host_name;
pub use self::values::{Address, Name, Pattern};

/// Everything one source says: what serves, and where its clusters are to be reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Listeners, routes, clusters and the process.
    pub mesh: Mesh,
    /// The endpoints of each [`Source::Static`] cluster, by the cluster's name. Shared, as clusters are.
    pub endpoints: BTreeMap<Name, Arc<Assignment>>,
}

/// All that is served, without the endpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mesh {
    /// Settings of the process.
    pub process: Process,
    /// Who the proxy is; nobody by default.
    pub identity: Option<Arc<Identity>>,
    /// By name.
    pub listeners: BTreeMap<Name, Listener>,
    /// By name. The YAML's short form makes one for each HTTP listener, under the listener's name.
    pub route_tables: BTreeMap<Name, RouteTable>,
    /// By name. Shared, as whoever serves them keeps them too.
    pub clusters: BTreeMap<Name, Arc<Cluster>>,
}

/// Settings of the process as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Process {
    /// Worker threads; `None` follows the CPUs of the cgroup, rounded up. A change needs a restart.
    pub workers: Option<NonZeroUsize>,
    /// Where the admin interface listens. A change needs a restart.
    pub admin: Admin,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// Where requests are logged.
    pub access_log: Option<AccessLog>,
    /// From when on load is shed.
    pub overload: Overload,
    /// As whom it runs. A change needs a restart.
    pub privileges: Privileges,
    /// Who says more than the file does; nobody by default. A change needs a restart.
    pub control: Option<Box<ControlPlane>>,
}

/// As whom the process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    /// Whom it becomes when it was started as root; `None` stays who it is.
    pub user: Option<User>,
    /// Whether it may still be root then.
    pub root: Root,
}

/// A user of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// By name, with the groups that it has.
    Name(Box<str>),
    /// By number, with one group and no others. Neither is root.
    Ids {
        /// The user.
        uid: NonZeroU32,
        /// The group.
        gid: NonZeroU32,
    },
}

/// Whether the process may be root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Root {
    /// It says that it is, and that it need not be.
    #[default]
    Warn,
    /// It does not start.
    Refuse,
    /// It may.
    Allow,
}

/// What the process may use before it sheds load; `None` watches nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overload {
    /// Of the memory of its cgroup, or of the machine where that has no limit; more than nothing.
    pub memory: Option<Percent>,
    /// Of the file descriptors that it may have (`RLIMIT_NOFILE`); more than nothing.
    pub descriptors: Option<Percent>,
    /// Open connections of clients, those of all listeners.
    pub connections: Option<NonZeroU32>,
}

impl Default for Overload {
    fn default() -> Self {
        let most = Some(Percent::whole(90));
        Self { memory: most, descriptors: most, connections: None }
    }
}

/// Where the admin interface listens.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// The address.
    pub address: Address,
    /// Whether it was written. One that was written must bind; the default one, when taken, is only warned of.
    pub written: bool,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: Address::Ip(([127, 0, 0, 1], 15000).into()), written: false }
    }
}

/// How the process ends after SIGTERM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Time to go on accepting after readiness is withdrawn, so that those who balance onto us notice.
    pub lame_duck: Duration,
    /// Idle connections are closed once none of them has sent a request for this long.
    pub quiet: Duration,
    /// When the process ends, whatever is still in flight; counted from the signal.
    pub deadline: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { lame_duck: Duration::ZERO, quiet: Duration::from_secs(2), deadline: Duration::from_secs(30) }
    }
}

/// How requests are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// The shape of a line.
    pub format: LogFormat,
    /// Where lines go.
    pub to: LogTarget,
}

/// The shape of an access log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for a person.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where access log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}
