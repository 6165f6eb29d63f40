//! The signals that the process listens to.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::StartError;

/// All of them. Had before anything is started: one that comes early must find us listening.
#[derive(Debug)]
pub struct Signals {
    pub(super) hangup: Signal,
    pub(super) leave: Leave,
}

impl Signals {
    /// Listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn listen() -> Result<Self, StartError> {
        let listen =
            |kind| signal(kind).map_err(|error| StartError::System("cannot listen for signals", error));
        let leave = Leave { term: listen(SignalKind::terminate())?, int: listen(SignalKind::interrupt())? };
        Ok(Self { hangup: listen(SignalKind::hangup())?, leave })
    }
}

/// The signals that end the process.
#[derive(Debug)]
pub(super) struct Leave {
    term: Signal,
    int: Signal,
}

impl Leave {
    /// Comes when the process is asked to leave.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
