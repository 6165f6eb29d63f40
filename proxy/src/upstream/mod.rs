//! Where requests go: clusters, the endpoint that takes one, the connection that carries it.

mod balance;
mod breaker;
mod cluster;
mod connect;
mod dialled;
pub mod dns;
mod endpoint;
mod error;
mod exchange;
pub mod grpc;
mod h1;
mod h2;
pub mod health;
mod known;
mod latencies;
mod open;
mod original;
pub mod outlier;
mod pool;
mod send;
mod subset;
pub mod tls;
mod trip;

pub use self::balance::{
    EndpointSet, LevelHealth, PickFacts, Settings, ZoneHealth, ZoneWeights, cookie_value, hash_of,
};
pub use self::breaker::{Breaker, Counted, Limit, Overflow};
pub use self::cluster::{Cluster, ClusterView, Clusters};
pub use self::connect::{Dial, dial};
pub use self::dialled::Dialled;
pub use self::endpoint::{At, Availability, Endpoint, Lease, Open};
pub use self::error::UpstreamError;
pub use self::exchange::{CallError, Whole};
pub use self::h1::{Answer, Expected, Tunnelled};
pub use self::pool::{Pools, Reclaim};
pub use self::send::{Flight, Sent, Upstream};
pub use self::subset::Subset;
pub use self::trip::Trip;
