//! Ends a connection from outside, at once: what is read of it or written to it fails from then on, and who waits for
//! either is woken.

use std::cell::{Cell, RefCell};
use std::io;
use std::task::{Context, Waker};

/// See the module.
#[derive(Debug)]
pub struct Leash {
    is_cut: Cell<bool>,
    waker: RefCell<Waker>,
}

impl Default for Leash {
    fn default() -> Self {
        Self { is_cut: Cell::new(false), waker: RefCell::new(Waker::noop().clone()) }
    }
}

impl Leash {
    /// Ends the connection.
    pub fn cut(&self) {
        self.is_cut.set(true);
        self.waker.borrow().wake_by_ref();
    }

    /// Whether it goes on; `cx` is woken when it does no longer.
    #[cold]
    pub(super) fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        if self.is_cut.get() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if !self.waker.borrow().will_wake(cx.waker()) {
            *self.waker.borrow_mut() = cx.waker().clone();
        }
        Ok(())
    }
}
