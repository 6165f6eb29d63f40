//! What was found, counted: bounded, whatever comes.

use std::collections::BTreeMap;

/// Ways in which requests would fare otherwise that are kept apart, of all listeners together.
const KINDS: usize = 64;

/// Requests, and connections whose bytes are passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By the listener's place in the trial.
    pub listeners: Vec<Counts>,
    /// Those that would fare otherwise, by how.
    pub kinds: BTreeMap<Kind, Seen>,
    /// Those that would fare otherwise in more ways than are kept apart.
    pub others: u64,
}

/// Of one listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that both were asked about.
    pub evaluated: u64,
    /// Those of them that would fare otherwise.
    pub differing: u64,
}

/// A way in which they would fare otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// The listener's place in the trial.
    pub listener: usize,
    /// What becomes of them.
    pub in_force: String,
    /// What would.
    pub shadow: String,
}

/// How often, and the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// How many.
    pub requests: u64,
    /// One of them.
    pub example: String,
}

impl Tally {
    /// Of all listeners together.
    pub fn evaluated(&self) -> u64 {
        self.listeners.iter().map(|counts| counts.evaluated).sum()
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.listeners.iter().all(|counts| counts.evaluated == 0)
    }

    /// One that fares the same, or not; how is [counted](Self::add_kind) apart.
    pub(super) fn note(&mut self, listener: usize, differs: bool) {
        let counts = self.counts(listener);
        counts.evaluated += 1;
        counts.differing += u64::from(differs);
    }

    /// All that another has found.
    pub fn add(&mut self, other: Self) {
        let Self { listeners, kinds, others } = other;
        for (listener, Counts { evaluated, differing }) in listeners.into_iter().enumerate() {
            let counts = self.counts(listener);
            counts.evaluated += evaluated;
            counts.differing += differing;
        }
        for (kind, Seen { requests, example }) in kinds {
            self.add_kind(&kind, requests, example);
        }
        self.others += others;
    }

    fn counts(&mut self, listener: usize) -> &mut Counts {
        if self.listeners.len() <= listener {
            self.listeners.resize(listener + 1, Counts::default());
        }
        &mut self.listeners[listener]
    }

    pub(super) fn add_kind(&mut self, kind: &Kind, requests: u64, example: String) {
        if let Some(known) = self.kinds.get_mut(kind) {
            known.requests += requests;
        } else if self.kinds.len() >= KINDS {
            self.others += requests;
        } else {
            self.kinds.insert(kind.clone(), Seen { requests, example });
        }
    }
}
