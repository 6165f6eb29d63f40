//! Client status (CSDS): what a client of xDS has, and what became of each resource, told to whoever asks it
//! (<https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/status/v3/csds.proto>).

pub use super::generated::envoy::admin::v3::{ClientResourceStatus, UpdateFailureState};
pub use super::generated::envoy::service::status::v3::client_config::GenericXdsConfig;
pub use super::generated::envoy::service::status::v3::{
    ClientConfig, ClientStatusRequest, ClientStatusResponse,
};

/// Where it is asked for once.
pub const FETCH: &str = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus";

/// Where it is asked for as often as one likes.
pub const STREAM: &str = "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus";
