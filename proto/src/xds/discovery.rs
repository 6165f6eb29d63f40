//! What is said on the stream.

pub use prost_types::Any;

pub use super::generated::envoy::config::core::v3::node::UserAgentVersionType;
pub use super::generated::envoy::config::core::v3::{Locality, Node};
pub use super::generated::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
pub use super::generated::google::rpc::Status;

/// Where the stream of all resources is asked for, state of the world.
pub const STREAM: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
