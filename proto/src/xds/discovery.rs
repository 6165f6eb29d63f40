//! What is said on the stream.

pub use prost_types::value::Kind as ValueKind;
pub use prost_types::{Any, ListValue, Struct, Value};

pub use super::generated::envoy::config::core::v3::node::UserAgentVersionType;
pub use super::generated::envoy::config::core::v3::{Locality, Node};
pub use super::generated::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
pub use super::generated::google::rpc::Status;

/// Where the stream of all resources is asked for, state of the world.
pub const STREAM: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// Where the stream of all resources is asked for, incrementally.
pub const DELTA_STREAM: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
