//! Certificates of ours that lapse without another in their place. Nodes tell of their own ([`crate::reports`]); here is seen
//! what nobody tells: that a root is near its end, and that nothing was signed for an identity when it should have been. Its
//! nodes may be gone, or may have nobody to tell.
//!
//! What was signed stands in the log of events, and so does what was said of it: whoever leads reads it from its beginning, and
//! needs to remember nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{sleep, timeout};

use crate::ca::RootLife;
use crate::events::{EXPIRED, EXPIRING, Event, Happened, ISSUED, OURS};
use crate::plane::Plane;
use crate::store::StoreError;

/// Events read at once.
const PAGE: usize = 500;
/// Looked at no later than this: clocks are set.
const LOOK: Duration = Duration::from_secs(60);
/// And no sooner: many events come at once.
const PAUSE: Duration = Duration::from_secs(1);
/// Of what has lapsed so long ago nothing is said any more.
const PAST: Duration = Duration::from_secs(3600);

/// That a root of years ends is said so long before.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// Watches for as long as this control plane leads.
pub async fn watch(plane: Arc<Plane>) {
    let mut last = plane.last_event();
    let mut log = Log::default();
    loop {
        last.borrow_and_update();
        if let Some(authority) = &plane.authority
            && let Some(root) = authority.root()
        {
            log.hold(format!("spiffe://{}", authority.trust_domain()), of_root(root, authority.lifetime()));
        }
        let reader = Arc::clone(&plane);
        let read = tokio::task::spawn_blocking(move || {
            let read = log.read_on(&reader);
            (log, read)
        });
        let Ok((back, read)) = read.await else { return };
        log = back;
        if let Err(error) = read {
            tracing::debug!(%error, "what lapses is looked at later");
        }
        let now = SystemTime::now();
        log.due(now).into_iter().for_each(|happened| plane.note(happened));
        sleep(PAUSE).await;
        let _ = timeout(log.wait(now), last.changed()).await;
    }
}

/// What the log says, as far as it was read.
#[derive(Debug, Default)]
struct Log {
    /// The last event that was read.
    read: u64,
    /// What was signed last, by SPIFFE ID; a root by its trust domain's.
    signed: HashMap<String, Signed>,
}

#[derive(Clone, Debug, PartialEq)]
struct Signed {
    /// In hexadecimal.
    serial: String,
    not_after: SystemTime,
    /// When there should long have been another.
    due: SystemTime,
    /// That there is none was said.
    is_said: bool,
}

/// A root is to be followed by another while all that it signs can still be renewed under both.
fn of_root(RootLife { serial, not_before, not_after }: RootLife, lifetime: Duration) -> Signed {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    let before = (life / 4).min(MONTH).max(lifetime * 2);
    Signed { serial, not_after, due: not_after - before, is_said: false }
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
        let text = |key: &str| event.data[key].as_str();
        let (Some(id), Some(serial)) = (text("spiffe_id"), text("serial")) else { return };
        match event.kind.strip_prefix(OURS) {
            Some(ISSUED) => {
                let (Some(begin), Some(not_after)) =
                    (moment(&event.time), text("not_after").and_then(moment))
                else {
                    return;
                };
                let life = not_after.duration_since(begin).unwrap_or_default();
                // Whoever has it renews it at half of its life, and says that it cannot at three quarters.
                let due = not_after - life / 8;
                self.hold(
                    id.to_owned(),
                    Signed { serial: serial.to_owned(), not_after, due, is_said: false },
                );
            }
            Some(EXPIRING | EXPIRED) => {
                if let Some(signed) = self.signed.get_mut(id).filter(|signed| signed.serial == serial) {
                    signed.is_said = true;
                }
            }
            _ => {}
        }
    }

    /// It is the last of its identity, unless it is known, or another lives longer.
    fn hold(&mut self, id: String, signed: Signed) {
        let known = self.signed.get(&id);
        if known.is_none_or(|known| known.serial != signed.serial && known.not_after <= signed.not_after) {
            self.signed.insert(id, signed);
        }
    }

    /// What is to be said now.
    fn due(&mut self, now: SystemTime) -> Vec<Happened> {
        self.signed.retain(|_, signed| now < signed.not_after + PAST);
        let due = self.signed.iter_mut().filter(|(_, signed)| !signed.is_said && signed.due <= now);
        let said = due.map(|(id, signed)| {
            signed.is_said = true;
            let why = if is_domain(id) {
                "a new root is to be made, or put first in its file, long before the last one lapses"
            } else {
                "nobody has asked for another; whoever had it may be gone"
            };
            Happened::Expiring {
                whose: id.clone(),
                serial: signed.serial.clone(),
                not_after: signed.not_after,
                node: None,
                why: why.to_owned(),
            }
        });
        said.collect()
    }

    /// Until there is something to be said.
    fn wait(&self, now: SystemTime) -> Duration {
        let unsaid = self.signed.values().filter(|signed| !signed.is_said);
        let next = unsaid.map(|signed| signed.due.duration_since(now).unwrap_or_default()).min();
        next.unwrap_or(LOOK).min(LOOK)
    }
}

/// Whether this is the SPIFFE ID of a trust domain, and of no workload.
fn is_domain(id: &str) -> bool {
    id.strip_prefix("spiffe://").is_some_and(|domain| !domain.contains('/'))
}

fn moment(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    /// Signed at its beginning, for so long.
    fn issued(log: &mut Log, (id, serial): (&str, &str), begin: u64, life: u64) {
        let (spiffe_id, serial, by) = (id.to_owned(), serial.to_owned(), String::new());
        let not_after = crate::events::rfc3339(at(begin + life));
        let happened = Happened::Issued { spiffe_id, serial, not_after, by };
        log.hear(&happened.numbered(1, at(begin)));
    }

    /// Whose, and which, in order.
    fn said(log: &mut Log, now: u64) -> Vec<String> {
        let due = log.due(at(now)).into_iter();
        let words = due.map(|happened| match happened {
            Happened::Expiring { whose, serial, .. } => format!("{whose} {serial}"),
            other => panic!("{other:?}"),
        });
        let mut words: Vec<_> = words.collect();
        words.sort_unstable();
        words
    }

    #[test]
    fn it_is_said_once_when_nobody_asks_for_another() {
        let mut log = Log::default();
        issued(&mut log, ("spiffe://m/a", "1"), 0, 800);
        issued(&mut log, ("spiffe://m/b", "2"), 0, 800);
        assert_eq!(log.wait(at(690)), Duration::from_secs(10));
        // One of several that are `a` is enough; who comes late with less of a life does not count.
        issued(&mut log, ("spiffe://m/a", "3"), 400, 800);
        issued(&mut log, ("spiffe://m/a", "4"), 500, 10);
        assert_eq!(said(&mut log, 699), [""; 0]);
        assert_eq!(said(&mut log, 700), ["spiffe://m/b 2"]);
        assert_eq!(said(&mut log, 701), [""; 0]);
        assert_eq!(log.wait(at(701)), LOOK);
        assert_eq!(said(&mut log, 1100), ["spiffe://m/a 3"]);
        // What is past is forgotten, said or not.
        issued(&mut log, ("spiffe://m/c", "5"), 0, 10);
        assert_eq!(said(&mut log, 5000), [""; 0]);
        assert!(log.signed.is_empty());
    }

    #[test]
    fn what_stands_in_the_log_is_not_said_again() {
        let mut log = Log::default();
        issued(&mut log, ("spiffe://m/a", "1"), 0, 800);
        let expiring = |serial: &str| Happened::Expiring {
            whose: "spiffe://m/a".to_owned(),
            serial: serial.to_owned(),
            not_after: at(800),
            node: Some("n".to_owned()),
            why: String::new(),
        };
        // Of another one of the same identity.
        log.hear(&expiring("0").numbered(2, at(600)));
        assert_eq!(said(&mut log, 750), ["spiffe://m/a 1"]);
        let mut log = Log::default();
        issued(&mut log, ("spiffe://m/a", "1"), 0, 800);
        log.hear(&expiring("1").numbered(2, at(600)));
        assert_eq!(said(&mut log, 750), [""; 0]);
        let root = |serial: &str| Signed {
            serial: serial.to_owned(),
            not_after: at(9000),
            due: at(1000),
            is_said: false,
        };
        log.hold("spiffe://m".to_owned(), root("r"));
        assert_eq!(said(&mut log, 1000), ["spiffe://m r"]);
        // It is held each time that it is looked at.
        log.hold("spiffe://m".to_owned(), root("r"));
        assert_eq!(said(&mut log, 1001), [""; 0]);
        log.hold("spiffe://m".to_owned(), root("s"));
        assert_eq!(said(&mut log, 1002), ["spiffe://m s"]);
    }
}
