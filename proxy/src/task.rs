//! A task that ends with whoever wants it.

use tokio::task::{AbortHandle, spawn_local};

/// A task of this thread, aborted when this is dropped.
#[derive(Debug)]
pub struct AbortOnDrop(AbortHandle);

impl AbortOnDrop {
    /// Begins.
    pub fn spawn(task: impl Future<Output = ()> + 'static) -> Self {
        Self(spawn_local(task).abort_handle())
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
