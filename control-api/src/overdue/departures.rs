//! Nodes that have gone without a word in the log: their control plane was killed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::events::{Event, NODE_DOWN, NODE_UP, OURS};

/// Who is connected to nobody for so long has gone: others come back, to whatever control plane there is.
const GRACE: Duration = Duration::from_secs(90);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Departures {
    /// Who has come, and not gone.
    up: HashSet<String>,
    /// Those of them that are connected to nobody, since when.
    missing: HashMap<String, Instant>,
}

impl Departures {
    pub(super) fn hear(&mut self, event: &Event) {
        let Some(node) = event.data["node"].as_str() else { return };
        match event.kind.strip_prefix(OURS) {
            Some(NODE_UP) => drop(self.up.insert(node.to_owned())),
            Some(NODE_DOWN) => drop(self.up.remove(node)),
            _ => {}
        }
    }

    /// Says who has gone, as far as it is taken.
    pub(super) fn due(
        &mut self,
        connected: &HashSet<String>,
        now: Instant,
        mut say: impl FnMut(String) -> bool,
    ) {
        // Where an older stream of a node has ended, it is there all the same.
        self.up.extend(connected.iter().cloned());
        let (up, missing) = (&mut self.up, &mut self.missing);
        missing.retain(|node, _| up.contains(node) && !connected.contains(node));
        for node in up.iter().filter(|node| !connected.contains(*node)) {
            missing.entry(node.clone()).or_insert(now);
        }
        let over: Vec<_> = missing
            .iter()
            .filter(|(_, since)| now - **since >= GRACE)
            .map(|(node, _)| node.clone())
            .collect();
        for node in over {
            if !say(node.clone()) {
                return;
            }
            up.remove(&node);
            missing.remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::events::Happened;

    fn hear(departures: &mut Departures, happened: Happened) {
        departures.hear(&happened.numbered(1, SystemTime::UNIX_EPOCH));
    }

    fn up(departures: &mut Departures, nodes: &[&str]) {
        for node in nodes {
            let (node, agent) = ((*node).to_owned(), String::new());
            hear(departures, Happened::NodeUp { node, agent, group: None });
        }
    }

    #[test]
    fn who_came_and_is_nowhere_has_gone_after_a_while() {
        let mut departures = Departures::default();
        up(&mut departures, &["a", "b", "c"]);
        let start = Instant::now();
        let due = |departures: &mut Departures, connected: &[&str], seconds| {
            let connected = connected.iter().map(|node| (*node).to_owned()).collect();
            let mut gone = Vec::new();
            departures.due(&connected, start + Duration::from_secs(seconds), |node| {
                gone.push(node);
                true
            });
            gone.sort_unstable();
            gone
        };
        assert_eq!(due(&mut departures, &["a"], 0), [""; 0]);
        // One comes back in time, and its older stream is said to have ended.
        assert_eq!(due(&mut departures, &["a", "b"], 60), [""; 0]);
        hear(&mut departures, Happened::NodeDown { node: "b".to_owned() });
        assert_eq!(due(&mut departures, &["a", "b"], 89), [""; 0]);
        assert_eq!(due(&mut departures, &["a", "b"], 90), ["c"]);
        assert_eq!(due(&mut departures, &["a", "b"], 91), [""; 0]);
        assert_eq!(due(&mut departures, &["a"], 100), [""; 0]);
        assert_eq!(due(&mut departures, &["a"], 190), ["b"]);
        // Of whom it was said it is not said again.
        up(&mut departures, &["d"]);
        assert_eq!(due(&mut departures, &["a"], 200), [""; 0]);
        hear(&mut departures, Happened::NodeDown { node: "d".to_owned() });
        assert_eq!(due(&mut departures, &["a"], 400), [""; 0]);
    }
}
