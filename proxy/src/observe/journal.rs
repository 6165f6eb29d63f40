//! What happened to the process that its operator should hear of, until it was told. It is rare: an endpoint is ejected, a
//! certificate lapses.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use outrigger_proto::xds::events::{Event, MOST, What};
use tokio::sync::Notify;

/// Events kept until they are told; of more the oldest are forgotten, and counted.
const KEPT: usize = 256;

/// See the module. Nothing is kept in one that nobody wants to read.
#[derive(Debug, Default)]
pub struct Journal {
    untold: Mutex<Option<Untold>>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Untold {
    /// The oldest first.
    events: VecDeque<Event>,
    forgotten: u64,
}

/// The oldest of what is untold.
#[derive(Debug, Default, PartialEq)]
pub struct Page {
    /// The oldest first.
    pub events: Vec<Event>,
    /// Older ones that were forgotten.
    pub forgotten: u64,
}

impl Journal {
    /// Somebody will read it: from now on events are kept.
    pub fn open(&self) {
        self.lock().get_or_insert_default();
    }

    /// Something happened. Takes a lock, and so is not for what happens with each request.
    pub fn note(&self, what: What, now: SystemTime) {
        let mut untold = self.lock();
        let Some(Untold { events, forgotten }) = &mut *untold else { return };
        if events.len() == KEPT {
            events.pop_front();
            *forgotten += 1;
        }
        events.push_back(Event { time: Some(now.into()), what: Some(what) });
        drop(untold);
        self.more.notify_one();
    }

    /// What was noted and not told yet is not so any more, where `is_past` says so.
    pub fn take_back(&self, is_past: impl Fn(&What) -> bool) {
        if let Some(Untold { events, .. }) = &mut *self.lock() {
            events.retain(|event| !event.what.as_ref().is_some_and(&is_past));
        }
    }

    /// Waits until there is something to be told. For one reader.
    pub async fn ready(&self) {
        while self.lock().as_ref().is_none_or(|untold| untold.events.is_empty()) {
            self.more.notified().await;
        }
    }

    /// What is to be told next; empty where nothing is.
    pub fn page(&self) -> Page {
        let mut untold = self.lock();
        let Some(Untold { events, forgotten }) = &mut *untold else { return Page::default() };
        let events = events.drain(..events.len().min(MOST)).collect();
        Page { events, forgotten: std::mem::take(forgotten) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Untold>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outrigger_proto::xds::events::EndpointReturned;
    use tokio::time::timeout;

    use super::*;

    fn note(journal: &Journal, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let what = EndpointReturned { cluster: number.to_string(), ..EndpointReturned::default() };
            journal.note(What::Returned(what), SystemTime::UNIX_EPOCH);
        }
    }

    fn read(journal: &Journal) -> (Vec<usize>, u64) {
        let Page { events, forgotten } = journal.page();
        let number = |event: &Event| match &event.what {
            Some(What::Returned(returned)) => returned.cluster.parse().unwrap(),
            other => panic!("{other:?}"),
        };
        (events.iter().map(number).collect(), forgotten)
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_read_in_order_and_page_by_page() {
        let journal = Journal::default();
        let is_ready = async || timeout(Duration::from_secs(1), journal.ready()).await.is_ok();
        note(&journal, 0..3);
        assert!(!is_ready().await && read(&journal).0.is_empty());
        journal.open();
        note(&journal, 3..3 + MOST + 1);
        // Opened again, as by a reader that begins again, it has what it had.
        journal.open();
        assert!(is_ready().await);
        assert_eq!(read(&journal), ((3..3 + MOST).collect(), 0));
        assert!(is_ready().await);
        assert_eq!(read(&journal), (vec![3 + MOST], 0));
        assert!(!is_ready().await);
        tokio::join!(journal.ready(), async { note(&journal, 7..9) });
        journal.take_back(|what| matches!(what, What::Returned(returned) if returned.cluster == "8"));
        assert_eq!(read(&journal), (vec![7], 0));
    }

    #[test]
    fn of_too_many_the_oldest_are_forgotten_and_counted() {
        let journal = Journal::default();
        journal.open();
        note(&journal, 0..KEPT + 5);
        assert_eq!(read(&journal), ((5..5 + MOST).collect(), 5));
        assert_eq!(read(&journal), ((5 + MOST..5 + 2 * MOST).collect(), 0));
    }
}
