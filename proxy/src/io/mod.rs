//! Bytes: sockets and what is wrapped around them. Nothing here knows what a request is, but [`framing`], which
//! watches where one message ends and the next begins.

pub mod framing;

pub mod activity;
pub mod copy;
pub mod deferred;
pub mod listen;
pub mod socket;
pub mod stream;
pub mod woken;
