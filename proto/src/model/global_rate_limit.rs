//! A limit that many proxies count together, in a service that they ask (Envoy's rate limit service).

use std::num::NonZeroU32;
use std::time::Duration;

use http::HeaderName;

use super::Name;

/// A service is asked whether each request of a route is taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GlobalRateLimit {
    /// The service; it speaks HTTP/2.
    pub cluster: Name,
    /// Under which name the service keeps its limits; not empty.
    pub domain: Box<str>,
    /// What a request counts as: each of these apart, and refused when one of them is over its limit. At least one,
    /// and each of at least one entry.
    pub descriptors: Vec<Vec<DescriptorEntry>>,
    /// For an answer.
    pub timeout: Duration,
    /// When there is none.
    pub on_failure: OnFailure,
    /// So much a request counts.
    pub hits: NonZeroU32,
    /// Refusals that are remembered at once; 0 remembers none.
    pub cache: u32,
}

impl GlobalRateLimit {
    /// For an answer, by default.
    pub const TIMEOUT: Duration = Duration::from_millis(50);
    /// Refusals that are remembered by default.
    pub const CACHE: u32 = 1_000;
}

/// A key and a value that a request is counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DescriptorEntry {
    /// A header field's name, and its value. Where a request has no such field, the descriptor is left out.
    Header(HeaderName),
    /// `remote_address`, and the client's. Where it has none, the descriptor is left out.
    Source,
    /// These, which are not empty.
    Fixed {
        /// The key.
        key: Box<str>,
        /// The value.
        value: Box<str>,
    },
}

/// What becomes of a request when the service gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnFailure {
    /// It is taken.
    Allow,
    /// It is refused.
    Deny,
}
