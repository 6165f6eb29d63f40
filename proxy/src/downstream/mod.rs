//! Connections: accepted, unwrapped, told apart, and handed to what speaks their protocol.

pub mod accept;
mod choose;
mod handshake;
pub mod serve;
pub mod tls;
