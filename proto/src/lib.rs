//! The contract between a control plane and a proxy.
//!
//! [`model`] is what a configuration *means*: plain data in which an illegal state cannot be written down.
//! [`yaml`] is how a person writes it. A reader of one form never needs to know the other, and past this crate
//! nobody checks a value again. There is no I/O here: bytes in, a [`model::Config`] or every [`error::ConfigError`] out.

pub mod error;
pub mod identity;
pub mod model;
pub mod xds;
pub mod yaml;
