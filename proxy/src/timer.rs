//! The timer of a task that waits for one thing after the other, each with a time by which it must have come. Nearly all
//! of them come long before that: armed for each, a timer would be armed and disarmed in vain.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Waker};

use pin_project_lite::pin_project;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// Wakes one task no later than at the earliest time that anything in it waits for. It stays armed for what is waited for
/// no longer, and is armed anew when it has gone off for that: once for all requests of a timeout's length, and not for
/// each of them.
#[derive(Debug, Default)]
pub struct Timer(RefCell<Option<Pin<Box<Armed>>>>);

pin_project! {
    #[derive(Debug)]
    struct Armed {
        #[pin]
        sleep: Sleep,
        // Whom it wakes.
        waker: Waker,
    }
}

impl Timer {
    /// Whether this time has come; the task of `cx` is woken by then, earlier perhaps. Whatever else waits for this timer
    /// must belong to the same task, and ask again when that is woken.
    pub fn is_past(&self, at: Instant, cx: &mut Context<'_>) -> bool {
        let mut armed = self.0.borrow_mut();
        if armed.as_ref().is_some_and(|armed| armed.wakes(cx.waker(), at)) {
            return false;
        }
        if Instant::now() >= at {
            return true;
        }
        let new = || Box::pin(Armed { sleep: sleep_until(at), waker: cx.waker().clone() });
        armed.get_or_insert_with(new).as_mut().arm(at, cx)
    }

    /// Nothing is waited for any more: it wakes nobody, and takes no room.
    pub fn disarm(&self) {
        *self.0.borrow_mut() = None;
    }
}

impl Armed {
    fn wakes(&self, waker: &Waker, at: Instant) -> bool {
        self.sleep.deadline() <= at && !self.sleep.is_elapsed() && self.waker.will_wake(waker)
    }

    /// Whether it has gone off at once.
    fn arm(self: Pin<&mut Self>, at: Instant, cx: &mut Context<'_>) -> bool {
        let mut this = self.project();
        if this.sleep.is_elapsed() || this.sleep.deadline() > at {
            this.sleep.as_mut().reset(at);
        }
        this.waker.clone_from(cx.waker());
        // Whatever else the task has done: a timer that was not polled would be taken for armed.
        pin!(unconstrained(this.sleep)).poll(cx).is_ready()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::Relaxed;
    use std::task::Wake;
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// A task, and when it began.
    struct Task {
        timer: Timer,
        woken: Arc<Woken>,
        waker: Waker,
        began: Instant,
    }

    impl Task {
        fn new() -> Self {
            let woken = Arc::new(Woken::default());
            Self { timer: Timer::default(), waker: woken.clone().into(), woken, began: Instant::now() }
        }

        fn is_past(&self, ms: u64) -> bool {
            self.timer.is_past(self.began + Duration::from_millis(ms), &mut Context::from_waker(&self.waker))
        }

        /// How often it is woken meanwhile.
        async fn until(&self, ms: u64) -> u32 {
            advance(self.began + Duration::from_millis(ms) - Instant::now()).await;
            self.woken.0.swap(0, Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_when_it_is_due() {
        let task = Task::new();
        assert!(!task.is_past(100));
        assert_eq!(task.until(99).await, 0);
        assert!(!task.is_past(100));
        assert_eq!(task.until(101).await, 1);
        assert!(task.is_past(100));
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_requests_it_is_armed_for_the_first() {
        let task = Task::new();
        for now in 0..100 {
            assert_eq!(task.until(now).await, 0);
            assert!(!task.is_past(now + 100));
        }
        assert_eq!(task.until(101).await, 1, "it goes off for the first one");
        assert!(!task.is_past(199));
        assert_eq!(task.until(198).await, 0);
        assert_eq!(task.until(200).await, 1, "and then for the last");
        assert!(task.is_past(199));
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_times_the_first_counts_and_the_others_are_not_forgotten() {
        let task = Task::new();
        assert!(!task.is_past(100) && !task.is_past(50) && !task.is_past(200));
        assert_eq!(task.until(51).await, 1);
        assert!(task.is_past(50) && !task.is_past(100) && !task.is_past(200));
        assert_eq!(task.until(101).await, 1);
        assert!(task.is_past(100) && !task.is_past(200));
        task.timer.disarm();
        assert_eq!(task.until(201).await, 0, "nobody waits");
        assert!(task.is_past(200), "it has come all the same");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asked_last_is_woken() {
        let (one, other) = (Task::new(), Task::new());
        assert!(!one.is_past(100));
        let at = one.began + Duration::from_millis(100);
        assert!(!one.timer.is_past(at, &mut Context::from_waker(&other.waker)));
        assert_eq!((one.until(101).await, other.until(102).await), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_has_done_much_is_woken_all_the_same() {
        let task = Task::new();
        // What a task may do before others have their turn is spent.
        while tokio::task::coop::has_budget_remaining() {
            tokio::task::coop::consume_budget().await;
        }
        assert!(!task.is_past(100));
        assert_eq!(task.until(101).await, 1);
    }
}
