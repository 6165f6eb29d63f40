//! Where requests go: clusters, the endpoint that takes one, the connection that carries it.

mod balance;
mod cluster;
mod connect;
pub mod dns;
mod endpoint;
mod error;
mod h1;
mod h2;
mod pool;
mod send;

pub use self::balance::EndpointSet;
pub use self::cluster::{Cluster, ClusterView, Clusters};
pub use self::connect::{Dial, dial};
pub use self::endpoint::{Endpoint, Lease, Open};
pub use self::error::UpstreamError;
pub use self::h1::Answer;
pub use self::pool::Pools;
pub use self::send::{Sent, Trip, Upstream};
