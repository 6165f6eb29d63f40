//! A limit that many proxies count together, in a service that they ask (Envoy's rate limit service).

use std::num::NonZeroU32;
use std::time::Duration;

use http::HeaderName;

use super::{HeaderMatch, Name, QueryMatch};

/// A service that is asked whether requests are taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RateLimitService {
    /// The service; it speaks HTTP/2.
    pub cluster: Name,
    /// Under which name the service keeps its limits; not empty.
    pub domain: Box<str>,
    /// For an answer.
    pub timeout: Duration,
    /// When there is none.
    pub on_failure: OnFailure,
    /// Refusals that are remembered at once; 0 remembers none.
    pub cache: u32,
}

impl RateLimitService {
    /// For an answer, by default.
    pub const TIMEOUT: Duration = Duration::from_millis(50);
    /// Refusals that are remembered by default.
    pub const CACHE: u32 = 1_000;
}

/// A service is asked whether each request of a route is taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GlobalRateLimit {
    /// Who is asked; `None` is the service of the listener, and nobody where it has none.
    pub service: Option<RateLimitService>,
    /// What a request counts as: each of these apart, and refused when one of them is over its limit. At least one,
    /// and each of at least one entry.
    pub descriptors: Vec<Vec<DescriptorEntry>>,
    /// So much a request counts.
    pub hits: NonZeroU32,
}

/// A key and a value that a request is counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DescriptorEntry {
    /// The value of a header field.
    Header {
        /// The field.
        name: HeaderName,
        /// The key; not empty.
        key: Box<str>,
        /// What becomes of a request that has no such field; an empty one is one.
        absent: Absent,
    },
    /// The value of a query parameter.
    Query {
        /// The parameter; percent-decoded, and a `+` is one. The first of a name counts. Not empty.
        name: Box<str>,
        /// The key; not empty.
        key: Box<str>,
        /// What becomes of a request that has no such parameter; an empty one is one.
        absent: Absent,
    },
    /// `remote_address`, and the client's. Where it has none, the descriptor is left out.
    Source,
    /// `source_cluster`, and the `cluster` of our node. Where it has none, the descriptor is left out.
    SourceCluster,
    /// `destination_cluster`, and the cluster that the request goes to. Where it goes to none, the descriptor is left out.
    DestinationCluster,
    /// These, which are not empty.
    Fixed {
        /// The key.
        key: Box<str>,
        /// The value.
        value: Box<str>,
        /// Of which requests; the descriptor is left out for others. Of all by default.
        only: Option<Only>,
    },
}

/// What becomes of a request without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Absent {
    /// The whole descriptor is left out.
    Descriptor,
    /// The entry is left out; a descriptor without any is, too.
    Entry,
}

/// Some requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Only {
    /// Whether it is those that fit, or the others.
    pub fits: bool,
    /// What fits.
    pub of: OnlyOf,
}

/// What of a request must fit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OnlyOf {
    /// All of these; at least one.
    Headers(Vec<HeaderMatch>),
    /// All of these; at least one. They are looked for in what is percent-decoded, and a `+` is one: Envoy counts so, though it
    /// matches routes by parameters as they are sent.
    Query(Vec<QueryMatch>),
}

/// What becomes of a request when the service gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnFailure {
    /// It is taken.
    Allow,
    /// It is refused.
    Deny,
}
