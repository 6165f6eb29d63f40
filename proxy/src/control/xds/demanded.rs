//! What is asked for by name because it is needed: the hosts that requests came for, and the clusters that something leads to.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use outrigger_proto::model::{Name, RouteTable};
use outrigger_proto::xds::{Kind, host_name, of_host_name};

use super::referred::{Answer, Change, Referred};
use super::said::{Held, Said};

/// Hosts that are asked for at once: a client that makes names up gets no further.
const MOST: usize = 10_000;
/// Of these, such that nobody has said are there.
const UNPROVEN: usize = 1_000;

/// What is known of a host that a request came for.
#[derive(Debug, PartialEq)]
pub(super) enum Demanded {
    /// Whether there is one.
    Known(bool),
    /// It is asked for by this name.
    Awaited(Name),
}

/// The hosts of tables that tell them on demand, by `TABLE/HOST`.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    all: Referred<Arc<RouteTable>, ()>,
    /// Under which names a resource was asked for that is called otherwise.
    called: BTreeMap<Name, BTreeSet<Name>>,
    /// Those that were not there when they were asked for, the oldest first.
    unproven: VecDeque<Name>,
}

impl Hosts {
    /// A request has come for it.
    pub(super) fn demand(&mut self, table: &Name, host: &str) -> Demanded {
        let Some(name) = host_name(table, host) else { return Demanded::Known(false) };
        if !self.all.is_referred(&name) {
            if self.all.len() >= MOST {
                return Demanded::Known(false);
            }
            self.want(&name);
        }
        match self.all.answer(&name) {
            Answer::Absent => Demanded::Known(false),
            Answer::Awaited | Answer::There(_) => Demanded::Awaited(name),
        }
    }

    /// It is asked for from now on.
    pub(super) fn want(&mut self, name: &Name) {
        self.all.refer(name, &());
        self.unproven.push_back(name.clone());
        while self.unproven.len() > UNPROVEN {
            let Some(oldest) = self.unproven.pop_front() else { return };
            if self.all.answer(&oldest).means().is_none() {
                self.all.release(&oldest, &());
            }
        }
    }

    /// The names that a resource was asked for by.
    pub(super) fn names_of(&mut self, called: &Name, aliases: &[String]) -> BTreeSet<Name> {
        let mut names: BTreeSet<_> = aliases.iter().filter_map(|alias| Name::new(alias)).collect();
        names.extend(self.called.get(called).into_iter().flatten().cloned());
        names.retain(|name| self.all.is_referred(name));
        if !names.is_empty() {
            self.called.insert(called.clone(), names.clone());
        }
        names.extend(self.all.is_referred(called).then(|| called.clone()));
        names
    }

    /// See [`Referred`].
    pub(super) fn put(&mut self, name: &Name, held: Held<Arc<RouteTable>>) -> bool {
        self.all.put(name, held)
    }

    /// See [`Referred`].
    pub(super) fn remove(&mut self, name: &Name) -> bool {
        self.all.remove(name)
    }

    /// Nobody asks for it any more.
    pub(super) fn release(&mut self, name: &Name) {
        self.all.release(name, &());
    }

    /// Nobody asks for any of this table any more.
    pub(super) fn drop_all_of(&mut self, table: &Name) {
        let names: Vec<_> = self.of(table).map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.all.release(name, &()));
    }

    /// The hosts of this table.
    fn of<'h>(&'h self, table: &'h Name) -> impl Iterator<Item = (&'h Name, &'h Answer<Arc<RouteTable>>)> {
        // `a/b` is a table too.
        let is_of = |name: &Name| of_host_name(name.as_str()).is_some_and(|(of, _)| of == table.as_str());
        self.all.below(format!("{table}/")).filter(move |(name, _)| is_of(name))
    }

    /// The table, with those of its hosts that were told.
    pub(super) fn within(&self, name: &Name, table: RouteTable) -> RouteTable {
        if !table.on_demand {
            return table;
        }
        // One that was asked for by several names is one.
        let mut known = HashSet::new();
        let parts = self.of(name).filter_map(|(_, answer)| answer.means());
        let told = parts.filter(|part| known.insert(Arc::as_ptr(part))).flat_map(|part| part.routes.iter());
        RouteTable { routes: table.routes.iter().chain(told).cloned().collect(), on_demand: true }
    }

    /// See [`Referred`].
    pub(super) fn answer(&self, name: &Name) -> &Answer<Arc<RouteTable>> {
        self.all.answer(name)
    }

    /// See [`Referred`].
    pub(super) fn change(&mut self) -> Change {
        let change = self.all.change();
        if !change.less.is_empty() {
            let all = &self.all;
            self.called.values_mut().for_each(|names| names.retain(|name| all.is_referred(name)));
            self.called.retain(|_, names| !names.is_empty());
            self.unproven.retain(|name| all.is_referred(name));
        }
        change
    }

    /// See [`Referred`].
    pub(super) fn ask_anew(&mut self) -> Vec<String> {
        self.all.ask_anew()
    }

    /// See [`Referred`].
    pub(super) fn names(&self) -> Vec<String> {
        self.all.names()
    }

    /// See [`Referred`].
    pub(super) fn there(&self) -> impl Iterator<Item = (&Name, &Held<Arc<RouteTable>>)> {
        self.all.there()
    }
}

/// Clusters that something leads to.
#[derive(Debug, Default)]
pub(super) struct Led {
    to: Referred<(), (Kind, Name)>,
    by: BTreeMap<(Kind, Name), BTreeSet<Name>>,
}

impl Led {
    /// Somebody leads to these from now on, and to no others.
    pub(super) fn lead(&mut self, by: (Kind, Name), to: BTreeSet<Name>) {
        to.iter().for_each(|name| self.to.refer(name, &by));
        let before = self.by.remove(&by).unwrap_or_default();
        before.difference(&to).for_each(|name| self.to.release(name, &by));
        if !to.is_empty() {
            self.by.insert(by, to);
        }
    }

    /// Where somebody leads to; `None`, where that is nowhere.
    pub(super) fn by(&self, by: &(Kind, Name)) -> Option<&BTreeSet<Name>> {
        self.by.get(by)
    }

    /// It is there; whether anybody leads to it.
    pub(super) fn note(&mut self, name: &Name) -> bool {
        self.to.put(name, Held::new((), Said::default(), false));
        self.to.is_referred(name)
    }

    /// There is none.
    pub(super) fn note_absent(&mut self, name: &Name) {
        self.to.remove(name);
    }

    /// See [`Referred`].
    pub(super) fn change(&mut self) -> Change {
        self.to.change()
    }

    /// See [`Referred`].
    pub(super) fn ask_anew(&mut self) -> Vec<String> {
        self.to.ask_anew()
    }

    /// See [`Referred`].
    pub(super) fn names(&self) -> Vec<String> {
        self.to.names()
    }

    /// See [`Referred`].
    pub(super) fn awaited(&self) -> &BTreeSet<Name> {
        self.to.awaited()
    }

    /// See [`Referred`].
    pub(super) fn give_up(&mut self) {
        self.to.give_up();
    }
}
