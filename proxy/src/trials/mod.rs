//! What is on trial, as the management thread has it: said by a control plane or by a file, told to the workers, and what they
//! find of it collected whenever somebody wants to know.

mod follow;
mod said;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use metrics::Recorder as _;
use outrigger_proto::model::{Mesh, Name};
use serde_json::{Value, json};

pub use self::follow::follow;
use self::said::Own;
pub use self::said::Said;
use crate::observe::Registry;
use crate::shadow::{Common, Counts, Kind, Seen, Tally, Trial};
use crate::threads::{Command, Threads};

const REQUESTS: &str = "outrigger_shadow_requests_total";
/// Lines of a refusal.
const LINES: usize = 100;

/// See the module.
#[derive(Debug)]
pub struct Trials {
    /// Weak: they end when whoever started them says so.
    threads: Weak<Threads>,
    registry: Registry,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the last trial.
    number: u64,
    own: Own,
    running: Option<Running>,
    refused: Option<Refused>,
}

/// Who has said what is on trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// A file.
    File(String),
    /// A control plane, of this revision.
    Revision(u64),
}

/// What cannot be held up.
#[derive(Debug)]
struct Refused {
    of: Of,
    lines: Vec<String>,
    /// Whether whoever said it knows.
    told: bool,
}

/// What is on trial.
#[derive(Debug)]
struct Running {
    of: Of,
    said: Said,
    trial: Arc<Trial>,
    /// Where workers hand over what they find.
    common: Arc<Common>,
    since: SystemTime,
    found: Tally,
    /// What of that no control plane was told.
    untold: Tally,
}

impl Trials {
    /// Nothing is on trial.
    pub fn new(threads: &Arc<Threads>, registry: Registry) -> Self {
        Self { threads: Arc::downgrade(threads), registry, state: RefCell::default() }
    }

    /// From now on this is on trial, and what was found of another is forgotten. What is on trial already goes on.
    pub fn begin(&self, of: Of, said: Said) {
        let is_on = |running: &Running| running.of == of && running.said == said;
        if !self.state.borrow().running.as_ref().is_some_and(is_on) {
            self.start(of, said);
            if let Some(Running { of, trial, .. }) = &self.state.borrow().running {
                tracing::info!(trial = %of, listeners = trial.names().count(), "a configuration is on trial");
            }
        }
    }

    fn start(&self, of: Of, said: Said) {
        let mut state = self.state.borrow_mut();
        state.number += 1;
        // A file on trial is held up as a whole against all that is in force.
        let own = matches!(of, Of::Revision(_)).then_some(&state.own);
        let trial = match said.trial(state.number, own) {
            Ok(trial) => Arc::new(trial),
            Err(errors) => {
                drop(state);
                return self.refuse(of, errors.iter().map(ToString::to_string).collect());
            }
        };
        let common = Arc::<Common>::default();
        self.tell(Some((&trial, &common)));
        let (found, untold) = Default::default();
        let since = SystemTime::now();
        state.running = Some(Running { of, said, trial, common, since, found, untold });
        state.refused = None;
    }

    /// Whether something is on trial.
    pub fn is_on(&self) -> bool {
        self.state.borrow().running.is_some()
    }

    /// What was found until now is forgotten: it is held up against something else.
    pub fn begin_again(&self) {
        let running =
            self.state.borrow().running.as_ref().map(|running| (running.of.clone(), running.said.clone()));
        if let Some((of, said)) = running {
            self.start(of, said);
        }
    }

    /// The file says this beside a control plane: what that says of the same names is not what comes into force. Of what is on
    /// trial it holds once that [begins again](Self::begin_again).
    pub fn set_own(&self, mesh: &Mesh) {
        self.state.borrow_mut().own = Own::of(mesh);
    }

    /// This cannot be on trial, and nothing is.
    pub fn refuse(&self, of: Of, mut lines: Vec<String>) {
        lines.truncate(LINES);
        let known = self.state.borrow_mut().refused.take();
        if known.is_none_or(|known| known.of != of || known.lines != lines) {
            tracing::error!(trial = %of, "what is to be on trial is refused: nothing is held up");
            lines.iter().for_each(|line| tracing::error!("{line}"));
        }
        self.end();
        self.state.borrow_mut().refused = Some(Refused { of, lines, told: false });
    }

    /// Nothing is on trial.
    pub fn end(&self) {
        let mut state = self.state.borrow_mut();
        state.refused = None;
        if let Some(Running { of, .. }) = state.running.take() {
            tracing::info!(trial = %of, "no longer on trial");
            self.tell(None);
        }
    }

    fn tell(&self, what: Option<(&Arc<Trial>, &Arc<Common>)>) {
        if let Some(threads) = self.threads.upgrade() {
            threads.all(|| Command::Try(what.map(|(trial, common)| (trial.clone(), common.clone()))));
        }
    }

    /// Takes what workers have found until now, and counts it.
    pub fn collect(&self) {
        let mut state = self.state.borrow_mut();
        let Some(running) = &mut state.running else { return };
        let new = running.common.take();
        for (listener, counts) in running.trial.names().zip(&new.listeners) {
            self.count(listener, *counts);
        }
        running.untold.add(new.clone());
        running.found.add(new);
    }

    fn count(&self, listener: &Name, Counts { evaluated, differing }: Counts) {
        let help = "Requests (of TCP: connections) that were held up against a configuration on trial.";
        self.registry.describe_counter(REQUESTS.into(), None, help.into());
        for (differs, count) in [("false", evaluated - differing), ("true", differing)] {
            let labels = [("listener", listener.as_str()), ("differs", differs)];
            self.registry.counter(REQUESTS, &labels).increment(count);
        }
    }

    /// All of it, for those who ask.
    pub fn show(&self) -> Value {
        self.collect();
        let state = self.state.borrow();
        let State { number: _, own: _, running, refused } = &*state;
        let of = running.as_ref().map(|running| &running.of).or(refused.as_ref().map(|refused| &refused.of));
        let (source, revision) = match of {
            Some(Of::File(name)) => (Some(name), None),
            Some(Of::Revision(revision)) => (None, Some(*revision)),
            None => (None, None),
        };
        let since = running.as_ref().and_then(|r| r.since.duration_since(SystemTime::UNIX_EPOCH).ok());
        let names: Vec<&Name> = running.iter().flat_map(|running| running.trial.names()).collect();
        let found = running.as_ref().map(|running| &running.found);
        let mut kinds: Vec<_> = found.into_iter().flat_map(|found| &found.kinds).collect();
        kinds.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.requests));
        let difference = |(kind, seen): (&Kind, &Seen)| {
            let (Kind { listener, in_force, shadow }, Seen { requests, example }) = (kind, seen);
            json!({
                "listener": names.get(*listener).map(|name| name.as_str()),
                "in_force": in_force,
                "shadow": shadow,
                "requests": requests,
                "example": example,
            })
        };
        json!({
            "source": source,
            "revision": revision,
            "since": since.map(|since| since.as_secs()),
            "refused": refused.as_ref().map(|refused| &refused.lines),
            "listeners": names.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
            "workers": running.as_ref().map_or(0, |running| running.common.benches()),
            "evaluated": found.map_or(0, Tally::evaluated),
            "differences": kinds.into_iter().map(difference).collect::<Vec<_>>(),
            "others": found.map_or(0, |found| found.others),
        })
    }
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name) => f.write_str(name),
            Self::Revision(revision) => write!(f, "revision {revision}"),
        }
    }
}
