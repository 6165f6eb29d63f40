//! When the last byte of an answer is due, and what wakes whoever waits for it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::Context;

use tokio::time::{Instant, Sleep};

/// The deadline of one request.
#[derive(Debug, Default)]
pub struct Deadline {
    at: Cell<Option<Instant>>,
    /// Made when no other timer wakes whoever waits before.
    alarm: RefCell<Option<Pin<Box<Sleep>>>>,
    /// Another timer does so by then.
    woken_by: Cell<Option<Instant>>,
}

/// See [`Deadline::woken_by`].
#[derive(Debug)]
pub struct WokenBy<'a>(&'a Deadline);

impl Deadline {
    /// From now on the answer is due then; never, for `None`.
    pub fn set(&self, at: Option<Instant>) {
        self.at.set(at);
        *self.alarm.borrow_mut() = None;
    }

    /// When the answer is due, if ever.
    pub fn at(&self) -> Option<Instant> {
        self.at.get()
    }

    /// Whoever waits for the answer is woken by then, for as long as the guard lives: until then the deadline needs no timer
    /// of its own, which most requests would arm in vain.
    pub fn woken_by(&self, at: Instant) -> WokenBy<'_> {
        self.woken_by.set(Some(at));
        WokenBy(self)
    }

    /// Whether it has passed; `cx` is woken when it does.
    pub fn is_late(&self, cx: &mut Context<'_>) -> bool {
        let Some(at) = self.at.get() else { return false };
        if self.woken_by.get().is_some_and(|by| by <= at) {
            return false;
        }
        let mut alarm = self.alarm.borrow_mut();
        alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at))).as_mut().poll(cx).is_ready()
    }
}

impl Drop for WokenBy<'_> {
    fn drop(&mut self) {
        self.0.woken_by.set(None);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_needs_no_alarm_while_another_timer_comes_first() {
        let (deadline, cx) = (Deadline::default(), &mut Context::from_waker(Waker::noop()));
        let after = |ms| Instant::now() + Duration::from_millis(ms);
        assert!(!deadline.is_late(cx), "there is none");
        deadline.set(Some(after(100)));
        let woken = deadline.woken_by(after(50));
        assert!(!deadline.is_late(cx) && deadline.alarm.borrow().is_none());
        drop(woken);
        let later = deadline.woken_by(after(200));
        assert!(!deadline.is_late(cx) && deadline.alarm.borrow().is_some(), "the other one comes too late");
        drop(later);
        tokio::time::advance(Duration::from_millis(101)).await;
        assert!(deadline.is_late(cx));
        deadline.set(None);
        assert!(!deadline.is_late(cx));
    }
}
