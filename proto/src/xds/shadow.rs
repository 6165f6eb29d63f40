//! A configuration on trial, and what proxies find when they hold it up against the one in force: the messages of
//! `proto/outrigger/shadow/v1/shadow.proto`, which says what they mean.

pub use prost_types::Duration;

pub use super::generated::outrigger::shadow::v1::{Difference, Found, Shadow};

/// Where the stream of them is begun.
pub const FOLLOW: &str = "/outrigger.shadow.v1.Shadows/Follow";
