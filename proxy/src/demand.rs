//! How a request asks for the routes of its host, where a table tells them on demand: it waits here, and management asks the
//! control plane.

use std::time::Duration;

use outrigger_proto::model::Name;
use tokio::sync::{mpsc, oneshot};

/// How long a request waits.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Requests that wait to be heard.
const QUEUE: usize = 1024;

/// How a cluster was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Requests and connections that were led to it so far.
    pub requests: u64,
    /// Whether some of them are under way.
    pub is_busy: bool,
}

impl Use {
    /// That of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { requests: self.requests + other.requests, is_busy: self.is_busy || other.is_busy }
    }
}

/// Somebody waits for a host.
#[derive(Debug)]
pub struct Wanted {
    /// The table that may have it.
    pub table: Name,
    /// In lower case, without a port.
    pub host: Box<str>,
    /// Whether there is one, once that is known and in force.
    pub found: oneshot::Sender<bool>,
}

/// Where requests ask; each worker has one.
#[derive(Clone, Debug)]
pub struct Demand(mpsc::Sender<Wanted>);

impl Demand {
    /// One, and where it is heard.
    pub fn new() -> (Self, mpsc::Receiver<Wanted>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Whether there is such a host, once it is in force; `None` when nobody says so in time.
    pub async fn ask(&self, table: &Name, host: &str) -> Option<bool> {
        let (found, answer) = oneshot::channel();
        let wanted = Wanted { table: table.clone(), host: host.into(), found };
        // Too many wait already.
        self.0.try_send(wanted).ok()?;
        tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
    }
}
