//! What a worker has of a trial: the trial, and what it has found, which it hands over with its sweep.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use hashbrown::HashMap;
use outrigger_proto::model::ChainMatch;

use super::fate::Fate;
use super::marks::Marks;
use super::tally::Tally;
use super::trial::{Beginning, Chain, Placed, Trial};
use crate::policy::authz::Fitting;

/// See the module.
#[derive(Debug)]
pub struct Bench {
    trial: Arc<Trial>,
    found: RefCell<(Tally, Marks)>,
    /// By the listener's place: beside this version in force, whether its connections are told apart as there. Else each
    /// connection would look at all chains.
    as_in_force: RefCell<HashMap<usize, (u64, bool)>>,
    common: Arc<Common>,
}

/// What all workers have of a trial.
#[derive(Debug, Default)]
pub struct Common {
    found: Mutex<Tally>,
    benches: AtomicUsize,
}

impl Common {
    /// How many workers have begun.
    pub fn benches(&self) -> usize {
        self.benches.load(Relaxed)
    }

    /// Takes what they have handed over.
    pub fn take(&self) -> Tally {
        std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where a connection would be by the trial.
#[derive(Debug)]
pub struct Held {
    /// By which trial, and beside which version in force.
    pub by: (u64, u64),
    /// The place of its listener; `None` where that is not on trial.
    pub listener: Option<usize>,
    /// Its chain.
    pub place: Placed,
    /// What rules of that chain it fits.
    pub fitting: Option<Fitting>,
}

impl Bench {
    /// Nothing is found yet; `common` is where all workers hand it over.
    pub fn new(trial: Arc<Trial>, common: Arc<Common>) -> Self {
        common.benches.fetch_add(1, Relaxed);
        Self { trial, found: RefCell::default(), as_in_force: RefCell::default(), common }
    }

    /// What is on trial.
    pub fn trial(&self) -> &Trial {
        &self.trial
    }

    /// Which chain of a listener takes a connection; `in_force` are all that the listener has in this version.
    pub fn find<'m, I: Iterator<Item = Option<&'m ChainMatch>>>(
        &self,
        listener: usize,
        beginning: &Beginning<'_>,
        (version, in_force): (u64, impl FnOnce() -> I),
    ) -> Placed {
        let beside = self.trial.at(listener);
        let known = self.as_in_force.borrow().get(&listener).copied().filter(|known| known.0 == version);
        let (_, as_in_force) = known.unwrap_or_else(|| {
            let found = (version, beside.is_told_apart_as(in_force()));
            self.as_in_force.borrow_mut().insert(listener, found);
            found
        });
        beside.find(beginning, as_in_force)
    }

    /// The chain that would take a connection; `None` where none would.
    pub fn chain(&self, held: &Held) -> Option<&Chain> {
        match held.place {
            Placed::Chain(place) => Some(self.trial.at(held.listener?).chain(place)),
            Placed::Nowhere | Placed::Unknown => None,
        }
    }

    /// Counts what becomes of a request for `path` on this connection, beside what would.
    pub fn note(
        &self,
        held: &Held,
        (in_force, shadow): (&Fate<'_>, &Fate<'_>),
        path: &str,
        example: impl FnOnce() -> String,
    ) {
        let Some(listener) = held.listener else { return };
        let (tally, marks) = &mut *self.found.borrow_mut();
        let differs = !in_force.is_like(shadow, path);
        tally.note(listener, differs);
        if differs {
            let (_, version) = held.by;
            marks.note((version, listener), (in_force, shadow), example, tally);
        }
    }

    /// Hands over what was found, unless somebody looks at it just now: then the next time.
    pub fn hand_over(&self) {
        let (found, marks) = &mut *self.found.borrow_mut();
        if found.is_empty() {
            return;
        }
        let mut common = match self.common.found.try_lock() {
            Ok(common) => common,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        marks.tell(found);
        common.add(std::mem::take(found));
    }
}
