//! What is answered for a cluster that does not.

use std::time::Duration;

use super::{Destination, Respond};

/// What is answered when the cluster gave no answer, or one with a status of 500 or above, and nothing is left to be
/// tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// What the cluster answered before. Where nothing of use is kept, this, or else the failure itself.
    Stale(Stale, Option<Instead>),
    /// Always this.
    Instead(Instead),
}

impl Fallback {
    /// What is kept of earlier answers, if anything.
    pub fn stale(&self) -> Option<&Stale> {
        match self {
            Self::Stale(stale, _) => Some(stale),
            Self::Instead(_) => None,
        }
    }

    /// What is answered where nothing is kept, if anything.
    pub fn instead(&self) -> Option<&Instead> {
        match self {
            Self::Stale(_, instead) => instead.as_ref(),
            Self::Instead(instead) => Some(instead),
        }
    }
}

/// What is answered in place of a cluster, whatever it answered before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instead {
    /// What another cluster answers.
    To(Destination),
    /// This.
    Respond(Respond),
}

/// Answers that are kept to be served, stale, when their cluster fails (RFC 5861 section 4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stale {
    /// How long after it was received an answer may still be served.
    pub keep: Duration,
    /// Bytes of the longest body that is kept.
    pub max_body: u64,
    /// Bytes that all that is kept for the route may take; not below `max_body`.
    pub memory: u64,
}

impl Stale {
    /// The longest body by default, in bytes.
    pub const MAX_BODY: u64 = 64 * 1024;
    /// The room of a route by default, in bytes.
    pub const MEMORY: u64 = 4 * 1024 * 1024;

    /// Answers kept for so long, in the room there is by default.
    pub fn new(keep: Duration) -> Self {
        Self { keep, max_body: Self::MAX_BODY, memory: Self::MEMORY }
    }
}
