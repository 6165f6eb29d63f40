//! Events on their way to the store: whoever notes one goes on, and one task writes them.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::{PAUSE, Plane};
use crate::events::Happened;
use crate::store::{Noted, StoreError};

/// Events on their way.
pub(super) const QUEUE: usize = 4096;
/// Events written at once: as many as etcd takes in one transaction.
pub(super) const BATCH: usize = 100;

impl Plane {
    /// The number of the last event, and when there is another.
    pub fn last_event(&self) -> watch::Receiver<u64> {
        self.last_event.subscribe()
    }

    /// Notes what happened, soon. Where more happens than can be written, it is left out, and said so.
    pub fn note(&self, happened: Happened) {
        // Where nobody writes any more the process ends.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.happened.try_send((SystemTime::now(), happened))
        {
            tracing::warn!("an event is left out: more happens than can be written");
        }
    }

    /// Whether so much more can be noted that others say, with as much room left for what this control plane does itself.
    pub fn has_room(&self, events: usize) -> bool {
        self.happened.capacity() >= QUEUE / 2 + events
    }

    /// Writes what is noted so far, and nothing after that: the process ends.
    pub async fn close(&self) {
        self.closing.send_replace(true);
        // Whoever writes is the only one who looks at it.
        self.closing.closed().await;
    }

    pub(super) fn note_written(&self, id: u64) {
        self.last_event.send_if_modified(|last| {
            let newer = *last < id;
            *last = id.max(*last);
            newer
        });
    }
}

/// Writes what happens, until the process ends.
pub(super) async fn write_events(
    plane: Arc<Plane>,
    mut queued: mpsc::Receiver<Noted>,
    mut closing: watch::Receiver<bool>,
) {
    let mut batch = Vec::new();
    loop {
        let more = tokio::select! {
            more = queued.recv_many(&mut batch, BATCH) => more,
            _ = closing.wait_for(|closing| *closing), if !queued.is_closed() => {
                queued.close();
                continue;
            }
        };
        if more == 0 {
            return;
        }
        let noted = Arc::new(std::mem::take(&mut batch));
        loop {
            let (writer, noted) = (Arc::clone(&plane), Arc::clone(&noted));
            let written = tokio::task::spawn_blocking(move || writer.store.note(&noted)).await;
            match written {
                Ok(Ok(last)) => plane.note_written(last),
                // They wait until it is back, or this is the end.
                Ok(Err(StoreError::Away(_))) if !*closing.borrow() => {
                    let _ = timeout(PAUSE, closing.wait_for(|closing| *closing)).await;
                    continue;
                }
                Ok(Err(error)) => tracing::error!(%error, "events are lost"),
                // Whatever it was, it must not be the end of all others.
                Err(error) if error.is_panic() => tracing::error!(%error, "events are lost"),
                Err(_) => return,
            }
            break;
        }
    }
}
