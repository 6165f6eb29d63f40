//! xDS v3 towards nodes: all kinds on one stream (ADS), incrementally or by the state of the world.
//!
//! [`session`] decides what is told when, without a stream; [`server`] carries it.

pub mod server;
pub mod session;
#[cfg(test)]
mod session_tests;
