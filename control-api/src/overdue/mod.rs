//! What should have happened and has not: it is seen by the log of events, and said there. Whoever leads reads it from its
//! beginning, and so nobody needs to remember anything.

mod certificates;
mod departures;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, timeout};

use self::certificates::Certificates;
use self::departures::Departures;
use crate::events::{Event, Happened};
use crate::plane::Plane;
use crate::store::StoreError;

/// Events read at once.
const PAGE: usize = 500;
/// Looked at no later than this: clocks are set.
const LOOK: Duration = Duration::from_secs(60);
/// And no sooner: many events come at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Watches for as long as this control plane leads.
pub async fn watch(plane: Arc<Plane>) {
    let mut last = plane.last_event();
    let (certificates, departures) = (Certificates::new(SystemTime::now()), Departures::default());
    let mut log = Log { read: 0, certificates, departures };
    loop {
        last.borrow_and_update();
        if let Some(authority) = &plane.authority {
            log.certificates.hold_root(authority);
        }
        let reader = Arc::clone(&plane);
        let read = tokio::task::spawn_blocking(move || {
            let read = log.read_on(&reader);
            (log, read)
        });
        let Ok((back, read)) = read.await else { return };
        log = back;
        let now = SystemTime::now();
        match read {
            Ok(()) => log.say(&plane, now),
            // Of half of a log nothing can be said.
            Err(error) => tracing::warn!(%error, "what is overdue is looked at later"),
        }
        sleep(PAUSE).await;
        let _ = timeout(log.certificates.wait(now), last.changed()).await;
    }
}

/// What the log says, as far as it was read.
#[derive(Debug)]
struct Log {
    /// The last event that was read.
    read: u64,
    certificates: Certificates,
    departures: Departures,
}

impl Log {
    fn read_on(&mut self, plane: &Plane) -> Result<(), StoreError> {
        loop {
            let page = plane.store().events(self.read, PAGE)?;
            if page.is_empty() {
                return Ok(());
            }
            for event in page {
                self.read = event.id.parse().unwrap_or(self.read + 1);
                self.hear(&event);
            }
        }
    }

    fn hear(&mut self, event: &Event) {
        self.certificates.hear(event);
        self.departures.hear(event);
    }

    fn say(&mut self, plane: &Plane, now: SystemTime) {
        let mut say = |happened| {
            let has_room = plane.has_room(1);
            if has_room {
                plane.note(happened);
            }
            has_room
        };
        self.certificates.due(now, &mut say);
        let connected: HashSet<_> = plane.connected().into_iter().map(|node| node.id).collect();
        self.departures.due(&connected, Instant::now(), |node| say(Happened::NodeDown { node }));
    }
}
