//! What was asked for on demand and is used no more: what a proxy holds follows what its service calls.

use std::collections::HashMap;
use std::time::Duration;

use outrigger_proto::model::Name;
use tokio::time::Instant;

use crate::demand::Use;

/// Looks in the time after which something is idle.
const LOOKS: u32 = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Idle {
    after: Duration,
    next: Instant,
    /// How much each was used, and since when it was not used more.
    seen: HashMap<Name, (u64, Instant)>,
}

impl Idle {
    /// What is not used for so long is idle.
    pub(super) fn new(after: Duration, now: Instant) -> Self {
        Self { after, next: now + after / LOOKS, seen: HashMap::new() }
    }

    /// After how long something is idle.
    pub(super) fn after(&self) -> Duration {
        self.after
    }

    /// When it is time to look.
    pub(super) fn due(&self) -> Instant {
        self.next
    }

    /// Looks at all there are, and how they were used; those that are idle.
    pub(super) fn look<'n>(&mut self, all: impl Iterator<Item = (&'n Name, Use)>, now: Instant) -> Vec<Name> {
        self.next = now + self.after / LOOKS;
        let before = std::mem::take(&mut self.seen);
        let mut idle = Vec::new();
        for (name, Use { requests, is_busy }) in all {
            let unused = before.get(name).filter(|(known, _)| !is_busy && *known == requests);
            let since = unused.map_or(now, |(_, since)| *since);
            if now - since >= self.after {
                idle.push(name.clone());
            } else {
                self.seen.insert(name.clone(), (requests, since));
            }
        }
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn what_is_not_used_for_so_long_is_idle_and_nothing_else() {
        let mut idle = Idle::new(HOUR, Instant::now());
        let names = ["used", "busy", "once", "late"].map(|name| Name::new(name).unwrap());
        let mut found = Vec::new();
        for quarter in 0..6_u64 {
            assert_eq!(idle.due(), Instant::now() + HOUR / LOOKS);
            tokio::time::advance(HOUR / LOOKS).await;
            let uses = [(quarter, false), (7, true), (7, false), (7, false)];
            let uses = uses.map(|(requests, is_busy)| Use { requests, is_busy });
            // It comes in the second quarter, and what was found is gone.
            let there = names.iter().zip(uses).filter(|(name, _)| quarter > 0 || name.as_str() != "late");
            let gone = found.clone();
            let there = there.filter(|(name, _)| gone.iter().all(|(_, gone)| gone != *name));
            found.extend(idle.look(there, Instant::now()).into_iter().map(|name| (quarter, name)));
        }
        assert_eq!(found, [(4, names[2].clone()), (5, names[3].clone())]);
    }
}
