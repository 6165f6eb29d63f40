//! An answer that says what was refused once more. Some control planes give it as soon as they hear of the refusal (those on
//! go-control-plane, in the state of the world): without a pause both would go on as fast as they can, for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use outrigger_proto::xds::{Kind, Refused};
use tokio::time::Instant;

/// Between two refusals of the same. What is put right is heard no later.
const PAUSE: Duration = Duration::from_secs(1);

/// What was refused on a stream, by kind, and refusals that wait: requests of this type.
#[derive(Debug)]
pub(super) struct Again<R>(BTreeMap<Kind, Last<R>>);

#[derive(Debug)]
struct Last<R> {
    refused: Vec<Refused>,
    said: Instant,
    /// Nobody has heard it yet.
    held: Option<R>,
}

impl<R> Default for Again<R> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<R> Again<R> {
    /// The answer to what came of this kind, if it is to be said now, and whether what it refuses is new.
    pub(super) fn take(
        &mut self,
        kind: Kind,
        answer: R,
        refused: &[Refused],
        now: Instant,
    ) -> (Option<R>, bool) {
        match self.0.get_mut(&kind) {
            _ if refused.is_empty() => {
                self.0.remove(&kind);
                (Some(answer), false)
            }
            Some(last) if last.refused == refused && now < last.said + PAUSE => {
                last.held = Some(answer);
                (None, false)
            }
            last => {
                let is_new = last.is_none_or(|last| last.refused != refused);
                self.0.insert(kind, Last { refused: refused.to_vec(), said: now, held: None });
                (Some(answer), is_new)
            }
        }
    }

    /// When the next of those that wait is to be said.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().filter(|last| last.held.is_some()).map(|last| last.said + PAUSE).min()
    }

    /// Those whose time has come.
    pub(super) fn let_go(&mut self, now: Instant) -> Vec<R> {
        let mut all = Vec::new();
        for last in self.0.values_mut().filter(|last| last.said + PAUSE <= now) {
            if let Some(answer) = last.held.take() {
                last.said = now;
                all.push(answer);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use outrigger_proto::error::ConfigError;

    use super::*;

    fn refused(problem: &str) -> Vec<Refused> {
        let (path, problem) = (String::new(), problem.to_owned());
        vec![Refused { name: None, errors: vec![ConfigError { place: None, path, problem, hint: None }] }]
    }

    #[test]
    fn what_is_refused_once_more_waits_and_nothing_else_does() {
        let (mut again, start) = (Again::default(), Instant::now());
        let at = |millis: u64| start + Duration::from_millis(millis);
        let (a, b) = (refused("a"), refused("b"));
        assert_eq!(again.take(Kind::Cluster, 1, &a, at(0)), (Some(1), true));
        assert_eq!(again.due(), None);
        // The last of those that come meanwhile is the one that counts.
        assert_eq!(again.take(Kind::Cluster, 2, &a, at(10)), (None, false));
        assert_eq!(again.take(Kind::Cluster, 3, &a, at(20)), (None, false));
        // Another kind, and another refusal, are heard at once.
        assert_eq!(again.take(Kind::Listener, 4, &a, at(30)), (Some(4), true));
        assert_eq!(again.take(Kind::Listener, 5, &b, at(40)), (Some(5), true));
        assert_eq!((again.due(), again.let_go(at(999))), (Some(at(1000)), vec![]));
        assert_eq!((again.let_go(at(1000)), again.due()), (vec![3], None));
        // From there on.
        assert_eq!(again.take(Kind::Cluster, 6, &a, at(1500)), (None, false));
        assert_eq!(again.due(), Some(at(2000)));
        assert_eq!(again.take(Kind::Cluster, 7, &b, at(1600)), (Some(7), true));
        assert_eq!(again.due(), None);
        assert_eq!(again.take(Kind::Cluster, 8, &b, at(5000)), (Some(8), false));
        // What is taken is forgotten, and what waited for it.
        assert_eq!(again.take(Kind::Cluster, 9, &b, at(5001)), (None, false));
        assert_eq!(again.take(Kind::Cluster, 10, &[], at(5002)), (Some(10), false));
        assert_eq!(again.due(), None);
        assert_eq!(again.take(Kind::Cluster, 11, &b, at(5003)), (Some(11), true));
    }
}
