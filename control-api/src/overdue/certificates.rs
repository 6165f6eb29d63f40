//! Certificates of ours that lapse without another in their place. Nodes tell of their own ([`crate::reports`]); here is seen
//! what nobody tells: that a root is near its end, and that nothing was signed for an identity when it should have been. Its
//! nodes may be gone, or may have nobody to tell.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::LOOK;
use crate::ca::{Authority, Life};
use crate::events::{EXPIRED, EXPIRING, Event, Happened, ISSUED, OURS};

/// Of what has lapsed so long ago nothing is said any more.
const PAST: Duration = Duration::from_secs(3600);
/// Whoever comes to lead waits so long for nodes that could ask nobody before, or an eighth of a shorter life.
const GRACE: Duration = Duration::from_secs(300);

/// What the log says of them, as far as it was read.
#[derive(Debug)]
pub(super) struct Certificates {
    /// Since when it is looked at here.
    since: SystemTime,
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
    said: Said,
}

/// What was said of it here: by nodes much can be said, also of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Nothing,
    Expiring,
    Expired,
}

/// A root is to be followed by another while all that it signs can still be renewed under both.
fn of_root(life: Life, lifetime: Duration) -> Signed {
    let before = life.notice().max(lifetime * 2);
    let Life { serial, not_before: _, not_after } = life;
    Signed { serial, not_after, due: not_after - before, said: Said::Nothing }
}

impl Certificates {
    /// Nothing is known of any.
    pub(super) fn new(since: SystemTime) -> Self {
        Self { since, signed: HashMap::new() }
    }

    /// The root that signs now is one of them.
    pub(super) fn hold_root(&mut self, authority: &Authority) {
        if let Some(root) = authority.root() {
            let id = format!("spiffe://{}", authority.trust_domain());
            self.hold(id, of_root(root, authority.lifetime()));
        }
    }

    pub(super) fn hear(&mut self, event: &Event) {
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
                let (serial, due) = (serial.to_owned(), not_after - life / 8);
                self.hold(id.to_owned(), Signed { serial, not_after, due, said: Said::Nothing });
            }
            Some(kind @ (EXPIRING | EXPIRED)) if event.data["node"].is_null() => {
                if let Some(signed) = self.signed.get_mut(id).filter(|signed| signed.serial == serial) {
                    signed.said = if kind == EXPIRED { Said::Expired } else { Said::Expiring };
                }
            }
            _ => {}
        }
    }

    /// It is the last of its identity, whatever was before.
    fn hold(&mut self, id: String, signed: Signed) {
        if self.signed.get(&id).is_none_or(|known| known.serial != signed.serial) {
            self.signed.insert(id, signed);
        }
    }

    /// When something is to be said next of this one, if anything is.
    fn next(&self, signed: &Signed) -> Option<SystemTime> {
        let Signed { not_after, due, said, .. } = signed;
        match said {
            Said::Nothing => {
                let grace = not_after.duration_since(*due).unwrap_or_default().min(GRACE);
                Some((*due).max(self.since + grace))
            }
            Said::Expiring => Some(*not_after),
            Said::Expired => None,
        }
    }

    /// Says what is to be said now, as far as it is taken.
    pub(super) fn due(&mut self, now: SystemTime, mut say: impl FnMut(Happened) -> bool) {
        self.signed.retain(|_, signed| now < signed.not_after + PAST);
        let is_due = |(_, signed): &(&String, &Signed)| self.next(signed).is_some_and(|next| next <= now);
        let due: Vec<_> = self.signed.iter().filter(is_due).map(|(id, _)| id.clone()).collect();
        for id in due {
            let Some(signed) = self.signed.get_mut(&id) else { continue };
            let why = if is_domain(&id) {
                "a new root is to be made, or put first in its file, long before the last one lapses"
            } else {
                "nobody has asked for another; whoever had it may be gone"
            };
            let happened = Happened::Expiring {
                whose: id,
                serial: signed.serial.clone(),
                not_after: signed.not_after,
                node: None,
                why: why.to_owned(),
            };
            if !say(happened) {
                return;
            }
            signed.said = if signed.not_after <= now { Said::Expired } else { Said::Expiring };
        }
    }

    /// Until there is something to be said.
    pub(super) fn wait(&self, now: SystemTime) -> Duration {
        let next = self.signed.values().filter_map(|signed| self.next(signed)).min();
        let next = next.map(|next| next.duration_since(now).unwrap_or_default());
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
    fn issued(log: &mut Certificates, (id, serial): (&str, &str), begin: u64, life: u64) {
        let (spiffe_id, serial, by) = (id.to_owned(), serial.to_owned(), String::new());
        let not_after = crate::events::rfc3339(at(begin + life));
        let happened = Happened::Issued { spiffe_id, serial, not_after, by };
        log.hear(&happened.numbered(1, at(begin)));
    }

    fn log() -> Certificates {
        Certificates::new(at(0))
    }

    /// Whose, which, and what of it, in order.
    fn said(log: &mut Certificates, now: u64) -> Vec<String> {
        let mut words = Vec::new();
        log.due(at(now), |happened| {
            let event = happened.numbered(1, at(now));
            let kind = event.kind.rsplit('.').nth(1).unwrap();
            words.push(format!("{} {} {kind}", event.subject, event.data["serial"].as_str().unwrap()));
            true
        });
        words.sort_unstable();
        words
    }

    #[test]
    fn it_is_said_when_nobody_asks_for_another_and_when_it_is_over() {
        let mut log = log();
        issued(&mut log, ("spiffe://m/a", "1"), 0, 800);
        issued(&mut log, ("spiffe://m/b", "2"), 0, 800);
        assert_eq!(log.wait(at(690)), Duration::from_secs(10));
        // One of several that are `a` is enough, and from now on they live for less.
        issued(&mut log, ("spiffe://m/a", "3"), 400, 80);
        issued(&mut log, ("spiffe://m/a", "4"), 440, 800);
        assert_eq!(said(&mut log, 699), [""; 0]);
        assert_eq!(said(&mut log, 700), ["spiffe://m/b 2 expiring"]);
        assert_eq!(said(&mut log, 701), [""; 0]);
        assert_eq!(log.wait(at(790)), Duration::from_secs(10));
        assert_eq!(said(&mut log, 800), ["spiffe://m/b 2 expired"]);
        assert_eq!(said(&mut log, 801), [""; 0]);
        assert_eq!(said(&mut log, 1240), ["spiffe://m/a 4 expired"]);
        assert_eq!(log.wait(at(1241)), LOOK);
        // What is past is forgotten, said or not.
        issued(&mut log, ("spiffe://m/c", "5"), 0, 10);
        assert_eq!(said(&mut log, 5000), [""; 0]);
        assert!(log.signed.is_empty());
    }

    #[test]
    fn what_is_not_taken_is_said_later_and_nodes_get_their_time_at_first() {
        let mut log = log();
        issued(&mut log, ("spiffe://m/a", "1"), 0, 800);
        log.due(at(700), |_| false);
        assert_eq!(said(&mut log, 701), ["spiffe://m/a 1 expiring"]);
        // It comes to lead when they could ask nobody for a while.
        let mut log = Certificates::new(at(710));
        issued(&mut log, ("spiffe://m/a", "1"), 0, 800);
        issued(&mut log, ("spiffe://m/b", "2"), 0, 8000);
        assert_eq!(said(&mut log, 809), [""; 0]);
        assert_eq!(said(&mut log, 810), ["spiffe://m/a 1 expired"]);
        assert_eq!(said(&mut log, 7000), ["spiffe://m/b 2 expiring"]);
    }

    #[test]
    fn what_stands_in_the_log_is_not_said_again() {
        let expiring = |serial: &str, node: Option<&str>| Happened::Expiring {
            whose: "spiffe://m/a".to_owned(),
            serial: serial.to_owned(),
            not_after: at(800),
            node: node.map(|node| (node.to_owned(), None)),
            why: String::new(),
        };
        // Of another one of the same identity, or by a node, which may say anything.
        for other in [expiring("0", None), expiring("1", Some("n"))] {
            let mut log = log();
            issued(&mut log, ("spiffe://m/a", "1"), 0, 800);
            log.hear(&other.numbered(2, at(600)));
            assert_eq!(said(&mut log, 750), ["spiffe://m/a 1 expiring"]);
        }
        let mut log = log();
        issued(&mut log, ("spiffe://m/a", "1"), 0, 800);
        log.hear(&expiring("1", None).numbered(2, at(600)));
        assert_eq!(said(&mut log, 750), [""; 0]);
        log.hear(&expiring("1", None).numbered(2, at(800)));
        assert_eq!(said(&mut log, 850), [""; 0]);
        let root = |serial: &str| Signed {
            serial: serial.to_owned(),
            not_after: at(9000),
            due: at(1000),
            said: Said::Nothing,
        };
        log.hold("spiffe://m".to_owned(), root("r"));
        assert_eq!(said(&mut log, 1000), ["spiffe://m r expiring"]);
        // It is held each time that it is looked at.
        log.hold("spiffe://m".to_owned(), root("r"));
        assert_eq!(said(&mut log, 1001), [""; 0]);
        log.hold("spiffe://m".to_owned(), root("s"));
        assert_eq!(said(&mut log, 1002), ["spiffe://m s expiring"]);
    }
}
