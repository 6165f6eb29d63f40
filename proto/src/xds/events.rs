//! What befalls a proxy and its operator should hear of: the messages of `proto/outrigger/events/v1/events.proto`, which says what
//! they mean.

pub use prost_types::{Duration, Timestamp};

pub use super::generated::outrigger::events::v1::event::What;
pub use super::generated::outrigger::events::v1::{
    CertificateExpiring, EndpointEjected, EndpointReturned, Event, ReportRequest, ReportResponse,
};

/// Where they are told.
pub const REPORT: &str = "/outrigger.events.v1.Events/Report";

/// Events told at once, at most.
pub const MOST: usize = 64;
