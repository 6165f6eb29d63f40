//! `expect: 100-continue` (RFC 9110 section 10.1.1), as whoever holds back the body and whoever hears of the `100` share it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// An extension of a request whose body waits until the upstream wants it. When the last of its copies is gone, the upstream has
/// given its final answer.
#[derive(Clone, Debug)]
pub struct Expected(Arc<Mutex<Option<oneshot::Sender<()>>>>);

impl Expected {
    /// What the body waits for: an error says that it is not wanted.
    pub fn new() -> (Self, oneshot::Receiver<()>) {
        let (told, waits) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(told)))), waits)
    }

    /// The upstream wants the body.
    pub(super) fn go_on(&self) {
        if let Some(told) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Fails when the body has been given up: nobody is left to be told.
            let _ = told.send(());
        }
    }
}
