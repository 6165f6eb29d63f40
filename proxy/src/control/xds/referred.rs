//! What of one kind is referred to by name (endpoints by clusters, tables of routes by listeners, secrets by both): by whom, whether it was
//! asked for, and what was answered. Followed name by name, so that one change among ten thousand costs as much as among ten.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use outrigger_proto::model::Name;

use super::said::Held;

/// See the module.
#[derive(Debug)]
pub(super) struct Referred<T, B = Name> {
    slots: BTreeMap<Name, Slot<T, B>>,
    /// Those that nothing was said of yet.
    awaited: BTreeSet<Name>,
    /// Those that somebody has begun or ceased to refer to since they were last asked for.
    touched: BTreeSet<Name>,
}

impl<T, B> Default for Referred<T, B> {
    fn default() -> Self {
        Self { slots: BTreeMap::new(), awaited: BTreeSet::new(), touched: BTreeSet::new() }
    }
}

/// What is known of a name.
#[derive(Debug)]
struct Slot<T, B> {
    /// Who refers to it; nobody, until it is dropped.
    by: Vec<B>,
    /// On this stream.
    asked: bool,
    answer: Answer<T>,
}

/// What was said of a name.
#[derive(Debug)]
pub(super) enum Answer<T> {
    /// Nothing yet.
    Awaited,
    /// That there is none; or nothing, for so long that it is taken for that.
    Absent,
    /// This.
    There(Held<T>),
}

/// What is to be asked for from now on, and what no longer.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Change {
    pub(super) more: Vec<String>,
    pub(super) less: Vec<String>,
}

impl<T: PartialEq, B: Clone + PartialEq> Referred<T, B> {
    /// Somebody refers to it.
    pub(super) fn refer(&mut self, name: &Name, by: &B) {
        let slot = self.slots.entry(name.clone()).or_insert_with(|| {
            self.awaited.insert(name.clone());
            Slot { by: Vec::with_capacity(1), asked: false, answer: Answer::Awaited }
        });
        if !slot.by.contains(by) {
            slot.by.push(by.clone());
            self.touched.insert(name.clone());
        }
    }

    /// Somebody refers to it no longer. It is kept until [`Self::change`]: another may come to refer to it.
    pub(super) fn release(&mut self, name: &Name, by: &B) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.by.retain(|other| other != by);
            self.touched.insert(name.clone());
        }
    }

    /// It is there, or is another; whether it means something else than before. Nobody has asked for what is not referred to.
    pub(super) fn put(&mut self, name: &Name, held: Held<T>) -> bool {
        let Some(slot) = self.slots.get_mut(name) else { return false };
        self.awaited.remove(name);
        match &mut slot.answer {
            Answer::There(old) => old.replace(held),
            Answer::Awaited | Answer::Absent => {
                slot.answer = Answer::There(held);
                true
            }
        }
    }

    /// There is none; whether there was.
    pub(super) fn remove(&mut self, name: &Name) -> bool {
        let Some(slot) = self.slots.get_mut(name) else { return false };
        self.awaited.remove(name);
        matches!(std::mem::replace(&mut slot.answer, Answer::Absent), Answer::There(_))
    }

    /// What is awaited still is taken for absent.
    pub(super) fn give_up(&mut self) {
        for name in std::mem::take(&mut self.awaited) {
            if let Some(slot) = self.slots.get_mut(&name) {
                slot.answer = Answer::Absent;
            }
        }
    }

    /// What is to be asked for since this was last called; what nobody refers to is forgotten.
    pub(super) fn change(&mut self) -> Change {
        let mut change = Change::default();
        for name in std::mem::take(&mut self.touched) {
            let Some(slot) = self.slots.get_mut(&name) else { continue };
            if !slot.by.is_empty() {
                if !std::mem::replace(&mut slot.asked, true) {
                    change.more.push(name.to_string());
                }
            } else if let Some(Slot { by: _, asked, answer: _ }) = self.slots.remove(&name) {
                self.awaited.remove(&name);
                change.less.extend(asked.then(|| name.to_string()));
            }
        }
        change
    }

    /// All that is to be asked for on a stream that begins.
    pub(super) fn ask_anew(&mut self) -> Vec<String> {
        self.change();
        self.slots.values_mut().for_each(|slot| slot.asked = true);
        self.names()
    }

    /// All that is referred to.
    pub(super) fn names(&self) -> Vec<String> {
        self.slots.keys().map(Name::to_string).collect()
    }

    /// What nothing was said of yet.
    pub(super) fn awaited(&self) -> &BTreeSet<Name> {
        &self.awaited
    }

    /// Whether anybody refers to it.
    pub(super) fn is_referred(&self, name: &Name) -> bool {
        self.slots.get(name).is_some_and(|slot| !slot.by.is_empty())
    }

    /// All that is known whose name begins so.
    pub(super) fn below(&self, prefix: String) -> impl Iterator<Item = (&Name, &Answer<T>)> {
        let all = self.slots.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
        all.take_while(move |(name, _)| name.as_str().starts_with(&prefix))
            .map(|(name, slot)| (name, &slot.answer))
    }

    /// How many names are known.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Who refers to it.
    pub(super) fn by(&self, name: &Name) -> &[B] {
        self.slots.get(name).map_or(&[], |slot| &slot.by)
    }

    /// What was said of it.
    pub(super) fn answer(&self, name: &Name) -> &Answer<T> {
        self.slots.get(name).map_or(&Answer::Awaited, |slot| &slot.answer)
    }

    /// What is there.
    pub(super) fn there(&self) -> impl Iterator<Item = (&Name, &Held<T>)> {
        self.slots.iter().filter_map(|(name, slot)| match &slot.answer {
            Answer::There(held) => Some((name, held)),
            Answer::Awaited | Answer::Absent => None,
        })
    }
}

impl<T> Answer<T> {
    /// What is there.
    pub(super) fn means(&self) -> Option<&T> {
        match self {
            Self::There(held) => Some(&held.means),
            Self::Awaited | Self::Absent => None,
        }
    }
}
