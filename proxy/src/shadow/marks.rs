//! Ways to fare otherwise, told apart by the parts of configurations that decide them: put into words once, and counted without.

use hashbrown::HashMap;
use outrigger_proto::model::{Name, Route, Split};

use super::fate::{Fate, Follows, Unproven};
use super::tally::{Kind, Tally};
use crate::policy::authz::{Denial, Rules};

/// Those that are kept; several may have the same words.
const MARKS: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// In force, of what was found.
    version: u64,
    known: HashMap<Mark, Counted>,
}

/// By where parts lie. All that is met beside a version lay there when the version began, or is of the trial, so no two of
/// them ever lie at one place; beside another, they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Mark {
    listener: usize,
    in_force: Part,
    shadow: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Closed,
    NoRoute,
    Unproven(Unproven),
    Denied(*const Rules, Denial),
    Bytes(*const Split),
    Read,
    Follows(*const Route, Option<*const Name>),
}

impl Part {
    fn of(fate: &Fate<'_>) -> Self {
        match *fate {
            Fate::Closed => Self::Closed,
            Fate::NoRoute => Self::NoRoute,
            Fate::Unproven(why) => Self::Unproven(why),
            Fate::Denied(rules, denial) => Self::Denied(rules, denial),
            Fate::Bytes(split) => Self::Bytes(split),
            Fate::Read => Self::Read,
            Fate::Follows(Follows { route, asks }) => Self::Follows(route, asks.map(std::ptr::from_ref)),
        }
    }
}

/// Since it was last told.
#[derive(Debug)]
struct Counted {
    kind: Kind,
    requests: u64,
    /// The first of them.
    example: String,
}

impl Marks {
    /// Counts one that would fare otherwise, beside this version in force.
    pub(super) fn note(
        &mut self,
        (version, listener): (u64, usize),
        (in_force, shadow): (&Fate<'_>, &Fate<'_>),
        example: impl FnOnce() -> String,
        tally: &mut Tally,
    ) {
        let mark = Mark { listener, in_force: Part::of(in_force), shadow: Part::of(shadow) };
        if self.version != version || (self.known.len() >= MARKS && !self.known.contains_key(&mark)) {
            self.tell(tally);
            self.known.clear();
            self.version = version;
        }
        let counted = self.known.entry(mark).or_insert_with(|| {
            let kind = Kind { listener, in_force: in_force.words(shadow), shadow: shadow.words(in_force) };
            Counted { kind, requests: 0, example: String::new() }
        });
        if counted.requests == 0 {
            counted.example = example();
        }
        counted.requests += 1;
    }

    /// Moves what was counted to where words are what tells it apart.
    pub(super) fn tell(&mut self, tally: &mut Tally) {
        for Counted { kind, requests, example } in self.known.values_mut().filter(|of| of.requests > 0) {
            tally.add_kind(kind, std::mem::take(requests), std::mem::take(example));
        }
    }
}
