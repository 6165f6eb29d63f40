//! Who answers: a set of endpoints that are alike, and how one of them is chosen and reached.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use super::Address;

/// A set of endpoints that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Where its endpoints come from.
    pub source: Source,
    /// How one is chosen.
    pub balance: Balance,
    /// What is spoken with it.
    pub protocol: Protocol,
    /// Until a connection is established.
    pub connect_timeout: Duration,
    /// A connection that carries nothing is closed after this long. The default is shorter than what most servers
    /// grant, so that it is us who close first, and no request meets a connection that is being closed.
    pub idle_timeout: Duration,
}

impl Cluster {
    /// A cluster with the defaults.
    pub fn new(source: Source) -> Self {
        Self {
            source,
            balance: Balance::default(),
            protocol: Protocol::default(),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(55),
        }
    }
}

/// Where a cluster's endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// They are stated: an [`Assignment`] stands beside the mesh.
    Static,
    /// A name that is resolved again and again, by its TTL; each address is an endpoint.
    Dns {
        /// The name.
        host: Box<str>,
        /// The port of every endpoint.
        port: NonZeroU16,
    },
}

/// How an endpoint is chosen for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
}
