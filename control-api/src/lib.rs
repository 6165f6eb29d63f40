//! The control plane: what many proxies serve is written once, checked by the proxies' own code, numbered, kept, and told
//! to each of them over xDS v3, whoever made them.
//!
//! [`plane`] puts it together. A change comes from a source, becomes a revision in the [`store`], and is encoded once
//! ([`serving`]) for all nodes, which [`xds`] tells of it; what becomes of it is noted in [`nodes`] and [`events`], read over
//! [`api`], and published by [`nats`].

pub mod api;
pub mod attest;
pub mod ca;
pub mod cli;
mod demo;
pub mod directory;
pub mod documents;
pub mod events;
mod hex;
pub mod loads;
pub mod nats;
pub mod nodes;
pub mod origin;
pub mod overdue;
mod pem;
pub mod plane;
pub mod reports;
pub mod rollout;
pub mod secrets;
pub mod serving;
pub mod shadow;
pub mod store;
pub mod tls;
mod token;
mod watched;
pub mod xds;
