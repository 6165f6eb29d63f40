//! Requests: read from a connection, passed through the stack of policies, answered.
//!
//! The road of one request, in the order of the files: [`h1`] or [`h2`] reads it and writes the answer, [`stack`] is
//! what it passes through, [`layers`] are the stack's parts.

pub mod h1;
pub mod h2;
pub mod stack;

pub mod layers;

pub mod affinity;
pub mod call;
pub mod caller;
pub mod expect;
pub mod headers;
pub mod peek;
pub mod replay;
pub mod tunnel;
