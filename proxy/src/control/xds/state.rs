//! What a control plane has said so far, whichever way it says it: what is good, what of that is referred to and has not
//! come, and what of it is new to whoever serves it. Followed by name: an answer costs what it says, not what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::model::{Alike, Assignment, Cluster, Name, RouteTable};
use outrigger_proto::xds::discovery;
use outrigger_proto::xds::{
    Accepted, ClusterResource, EndpointSource, Kind, ListenerResource, Refused, Resource, Secret,
};
use tokio::time::Instant;

use super::ahead::Ahead;
use super::demanded::{Demanded, Hosts, Led};
use super::discovered::{Discovered, News};
use super::lapses::Lapses;
use super::left::Left;
use super::referred::{Answer, Change, Referred};
use super::refers::{clusters_beside, clusters_of, of_cluster, of_listener};
use super::said::{Held, Said};
use super::speaks::ttl;
use crate::demand::Use;
use crate::identity::secrets::Secrets;
use crate::observe::ProcessStats;

/// Refusals that are remembered.
const FAILURES: usize = 1_000;
/// How many names of what is missing are told.
const NAMED: usize = 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Whether resources are kept as they were said.
    keeps: bool,
    /// Whether clusters are asked for by name, as something leads to them.
    by_name: bool,
    /// Directories below which unix sockets may be named.
    sockets: Box<[PathBuf]>,
    /// Where what has no effect is counted.
    stats: Arc<ProcessStats>,
    /// Of which kinds something was said.
    answered: BTreeSet<Kind>,
    clusters: BTreeMap<Name, Upstream>,
    alike: Alike<Cluster>,
    sets: Referred<Arc<Assignment>>,
    listeners: BTreeMap<Name, Held<ListenerResource>>,
    tables: Referred<RouteTable>,
    /// Those that requests came for, of tables that tell them on demand.
    hosts: Hosts,
    /// Who leads to which clusters, where they are asked for by name.
    led: Led,
    /// Where they are not: what of it is to be waited for.
    ahead: Ahead,
    /// By clusters and listeners, which may be called alike.
    secrets: Referred<Arc<Secret>, (Kind, Name)>,
    /// Whether all of it was told once.
    told: bool,
    /// Whether anything but endpoints has changed since.
    changed: bool,
    /// The clusters whose endpoints have.
    moved: BTreeSet<Name>,
    /// Those that are in force as they were before.
    left: Left,
    /// When what is gone that is not said again.
    lapses: Lapses,
    /// Whether anything was said since it was last written down.
    unsaved: bool,
    /// Why the last version of a resource was refused.
    failures: BTreeMap<(Kind, Name), String>,
}

/// A cluster.
#[derive(Debug)]
struct Upstream {
    held: Held<ClusterResource>,
    /// Whether whoever serves it knows it, with endpoints from the same kind of source.
    told: bool,
}

impl State {
    /// One that keeps resources as they were said, and asks for clusters by name, where that is wanted.
    pub(super) fn new(keeps: bool, by_name: bool) -> Self {
        Self { keeps, by_name, ..Self::default() }
    }

    /// The same, to which unix sockets below these directories may be named.
    pub(super) fn with_sockets(self, sockets: Box<[PathBuf]>) -> Self {
        Self { sockets, ..self }
    }

    /// The same, of which is counted here what is accepted without effect.
    pub(super) fn with_stats(self, stats: Arc<ProcessStats>) -> Self {
        Self { stats, ..self }
    }

    /// Directories below which unix sockets may be named.
    pub(super) fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    /// Whether all there are of this kind are asked for, and none by name.
    pub(super) fn asks_for_all(&self, kind: Kind) -> bool {
        kind == Kind::Listener || (kind == Kind::Cluster && !self.by_name)
    }

    /// A request has come for a host of a table that tells them on demand.
    pub(super) fn demand(&mut self, table: &Name, host: &str) -> Demanded {
        match self.tables.answer(table).means() {
            Some(means) if means.on_demand => self.hosts.demand(table, host),
            // It was another table a moment ago.
            Some(_) | None => Demanded::Known(false),
        }
    }

    /// A host was told to an earlier process: it is asked for again.
    pub(super) fn recall_host(&mut self, name: &Name) {
        self.hosts.want(name);
    }

    /// The hosts that came because requests did, each with how the clusters that it leads to were used. One that leads to none
    /// is none of them: nobody knows whether it is.
    pub(super) fn hosts_used(
        &self,
        used: &dyn Fn(&Name) -> Option<Use>,
    ) -> impl Iterator<Item = (&Name, Use)> {
        self.hosts.there().filter_map(move |(name, _)| {
            let uses = self.led.by(&(Kind::Host, name.clone()))?.iter().filter_map(used);
            Some((name, uses.fold(Use::default(), Use::and)))
        })
    }

    /// A host is needed no more.
    pub(super) fn let_go(&mut self, host: &Name) {
        self.hosts.release(host);
        (self.changed, self.unsaved) = (true, true);
    }

    /// Whether there is such a host, once that is known and in force.
    pub(super) fn demanded(&self, name: &Name) -> Option<bool> {
        match self.hosts.answer(name) {
            Answer::Awaited => None,
            Answer::Absent => Some(false),
            Answer::There(_) => (self.told && !self.changed).then_some(true),
        }
    }

    /// An answer has come, whatever it says.
    pub(super) fn note_answer(&mut self, kind: Kind) {
        self.answered.insert(kind);
    }

    /// A resource that was read is there, or is another. What of it has no effect is counted, and said when it is met first.
    pub(super) fn accept(&mut self, Accepted { name, resource, ignored }: Accepted, said: Said<'_>) {
        for field in ignored {
            let is_first = self.stats.xds_ignored(field);
            // Envoy will not be without these: every control plane says them, and nobody means anything by it.
            if is_first && !field.ends_with(".stat_prefix") {
                let kind = resource.kind();
                tracing::info!("accepted, without effect: {field}, first in {kind}[{name}]");
            }
        }
        self.put(name, resource, said);
    }

    /// A resource is there, or is another.
    pub(super) fn put(&mut self, name: Name, resource: Resource, said: Said<'_>) {
        self.unsaved = true;
        self.failures.remove(&(resource.kind(), name.clone()));
        let keeps = self.keeps;
        match resource {
            Resource::Cluster(cluster) => self.put_cluster(name, Held::new(*cluster, said, keeps)),
            // As it was said it is held nowhere.
            Resource::Secret(secret) => {
                self.changed |= self.secrets.put(&name, Held::new(Arc::new(secret), said, false));
            }
            Resource::Endpoints(set) => {
                if self.sets.put(&name, Held::new(Arc::new(set), said, keeps)) {
                    self.left.note_moved(&name);
                    self.moved.extend(self.sets.by(&name).iter().cloned());
                }
            }
            Resource::Listener(listener) => self.put_listener(name, Held::new(*listener, said, keeps)),
            Resource::Routes(table) => {
                if self.tables.is_referred(&name) {
                    self.lead((Kind::Routes, name.clone()), || clusters_of(&table));
                    if !table.on_demand {
                        self.hosts.drop_all_of(&name);
                    }
                }
                self.changed |= self.tables.put(&name, Held::new(table, said, keeps));
            }
            Resource::Host(table) => {
                let table = Arc::new(table);
                for name in self.hosts.names_of(&name, said.aliases) {
                    self.lead((Kind::Host, name.clone()), || clusters_of(&table));
                    self.changed |= self.hosts.put(&name, Held::new(Arc::clone(&table), said, keeps));
                }
            }
        }
    }

    /// Somebody leads to these clusters from now on, and to no others.
    fn lead(&mut self, by: (Kind, Name), to: impl FnOnce() -> BTreeSet<Name>) {
        if self.by_name {
            self.led.lead(by, to());
        }
    }

    /// A resource is named, and nothing is said of it: it lives on; or there is none, if it was asked for and never told.
    pub(super) fn hear_of(&mut self, kind: Kind, resource: &discovery::Resource, now: Instant) {
        let names = std::iter::once(&resource.name).chain(&resource.aliases);
        for name in names.filter_map(|name| Name::new(name)) {
            if kind == Kind::Host && matches!(self.hosts.answer(&name), Answer::Awaited) {
                self.withdraw(kind, &name);
            } else {
                self.live(kind, &name, ttl(resource), now);
            }
        }
    }

    fn put_cluster(&mut self, name: Name, mut new: Held<ClusterResource>) {
        // Whoever says all there is although it was asked for little is not believed to mean it.
        if self.by_name && !self.led.note(&name) {
            return;
        }
        new.means.cluster = self.alike.share(new.means.cluster);
        if let EndpointSource::Eds(set) = &new.means.endpoints {
            self.sets.refer(set, &name);
        }
        let old = self.clusters.get(&name).map(|old| of_cluster(&old.held.means)).unwrap_or_default();
        self.name_secrets((Kind::Cluster, name.clone()), &old, &of_cluster(&new.means));
        let Some(old) = self.clusters.get_mut(&name) else {
            self.clusters.insert(name, Upstream { held: new, told: false });
            self.changed = true;
            return;
        };
        let ClusterResource { cluster, endpoints } = &old.held.means;
        self.changed |= *cluster != new.means.cluster;
        let was_told = old.told;
        old.told &= cluster.source == new.means.cluster.source;
        if *endpoints != new.means.endpoints {
            if let (EndpointSource::Eds(set), true) = (endpoints, was_told) {
                self.left.note(&name, set);
            }
            if let EndpointSource::Eds(set) = endpoints
                && EndpointSource::Eds(set.clone()) != new.means.endpoints
            {
                self.sets.release(set, &name);
            }
            self.moved.insert(name);
        }
        old.held.replace(new);
    }

    fn put_listener(&mut self, name: Name, new: Held<ListenerResource>) {
        new.means.tables().for_each(|table| self.tables.refer(table, &name));
        let old = self.listeners.get(&name).map(|old| of_listener(&old.means)).unwrap_or_default();
        self.name_secrets((Kind::Listener, name.clone()), &old, &of_listener(&new.means));
        self.lead((Kind::Listener, name.clone()), || clusters_beside(&new.means));
        let Some(old) = self.listeners.get_mut(&name) else {
            self.listeners.insert(name, new);
            self.changed = true;
            return;
        };
        let left = old.means.tables().filter(|table| new.means.tables().all(|kept| kept != *table));
        left.for_each(|table| self.tables.release(table, &name));
        self.changed |= old.replace(new);
    }

    /// Who named some secrets names others.
    fn name_secrets(&mut self, by: (Kind, Name), old: &BTreeSet<Name>, new: &BTreeSet<Name>) {
        new.iter().for_each(|secret| self.secrets.refer(secret, &by));
        old.difference(new).for_each(|secret| self.secrets.release(secret, &by));
    }

    /// A resource that is there lives so long from now on; for ever, without a time.
    pub(super) fn live(&mut self, kind: Kind, name: &Name, ttl: Option<Duration>, now: Instant) {
        let is_there = match kind {
            Kind::Cluster => self.clusters.contains_key(name),
            Kind::Secret => self.secrets.answer(name).means().is_some(),
            Kind::Endpoints => self.sets.answer(name).means().is_some(),
            Kind::Listener => self.listeners.contains_key(name),
            Kind::Routes => self.tables.answer(name).means().is_some(),
            Kind::Host => self.hosts.answer(name).means().is_some(),
        };
        if is_there {
            self.lapses.set(kind, name, ttl, now);
        }
    }

    /// When the next resource is gone, unless it is said again.
    pub(super) fn next_lapse(&self) -> Option<Instant> {
        self.lapses.next()
    }

    /// Removes what was not said again in its time.
    pub(super) fn lapse(&mut self, now: Instant) {
        while let Some((kind, name)) = self.lapses.pop(now) {
            tracing::info!("{kind}[{name}]: not said again in its time to live, and gone");
            self.remove(kind, &name);
            // Nobody takes it back: routes to it wait for nothing.
            if kind == Kind::Cluster {
                self.ahead.give_up_on(name);
            }
        }
    }

    /// The control plane says that there is no such resource. Endpoints, routes and secrets that something leads to stay as they
    /// were said last, as with Envoy: who wants none says so, and who takes them away before what leads there is in
    /// between, or does not know for the moment who asks.
    pub(super) fn withdraw(&mut self, kind: Kind, name: &Name) {
        let stays = match kind {
            Kind::Endpoints => self.sets.answer(name).means().is_some(),
            Kind::Routes => self.tables.answer(name).means().is_some(),
            Kind::Secret => self.secrets.answer(name).means().is_some(),
            Kind::Cluster | Kind::Listener | Kind::Host => false,
        };
        if stays {
            tracing::info!("{kind}[{name}]: taken away, but still referred to: what was said last stays");
        } else {
            self.remove(kind, name);
        }
    }

    /// There is no such resource any more.
    fn remove(&mut self, kind: Kind, name: &Name) {
        self.unsaved = true;
        self.failures.remove(&(kind, name.clone()));
        self.lapses.forget(kind, name);
        match kind {
            Kind::Cluster => {
                self.led.note_absent(name);
                let Some(Upstream { held, told }) = self.clusters.remove(name) else { return };
                self.ahead.note_gone(name);
                if let EndpointSource::Eds(set) = &held.means.endpoints {
                    self.sets.release(set, name);
                    if told {
                        self.left.note(name, set);
                    }
                }
                let secrets = of_cluster(&held.means);
                self.name_secrets((kind, name.clone()), &secrets, &BTreeSet::new());
                self.moved.remove(name);
                self.changed = true;
            }
            Kind::Endpoints => {
                if self.sets.remove(name) {
                    self.moved.extend(self.sets.by(name).iter().cloned());
                }
            }
            Kind::Listener => {
                let Some(held) = self.listeners.remove(name) else { return };
                held.means.tables().for_each(|table| self.tables.release(table, name));
                let secrets = of_listener(&held.means);
                self.name_secrets((kind, name.clone()), &secrets, &BTreeSet::new());
                self.lead((kind, name.clone()), BTreeSet::new);
                self.changed = true;
            }
            Kind::Routes => {
                self.lead((kind, name.clone()), BTreeSet::new);
                self.changed |= self.tables.remove(name);
            }
            Kind::Host => {
                for name in self.hosts.names_of(name, &[]) {
                    self.lead((kind, name.clone()), BTreeSet::new);
                    self.changed |= self.hosts.remove(&name);
                }
            }
            Kind::Secret => self.changed |= self.secrets.remove(name),
        }
    }

    /// There are none but these, of a kind that is not asked for by name.
    pub(super) fn keep(&mut self, kind: Kind, keeps: impl Fn(&Name) -> bool) {
        let gone = |name: &&Name| !keeps(name);
        let gone: Vec<Name> = match kind {
            Kind::Cluster => self.clusters.keys().filter(gone).cloned().collect(),
            Kind::Listener => self.listeners.keys().filter(gone).cloned().collect(),
            Kind::Secret | Kind::Endpoints | Kind::Routes | Kind::Host => return,
        };
        gone.iter().for_each(|name| self.remove(kind, name));
        self.failures.retain(|(of, name), _| *of != kind || keeps(name));
    }

    /// What of this kind is to be asked for by name from now on, and what no longer; the latter is forgotten.
    pub(super) fn change(&mut self, kind: Kind) -> Change {
        let change = match kind {
            Kind::Secret => self.secrets.change(),
            Kind::Endpoints => self.sets.change(),
            Kind::Routes => {
                let change = self.tables.change();
                for table in change.less.iter().filter_map(|name| Name::new(name)) {
                    self.lead((kind, table.clone()), BTreeSet::new);
                    self.hosts.drop_all_of(&table);
                }
                change
            }
            Kind::Host => {
                let change = self.hosts.change();
                for name in change.less.iter().filter_map(|name| Name::new(name)) {
                    self.lead((kind, name), BTreeSet::new);
                }
                change
            }
            Kind::Cluster => {
                let change = self.led.change();
                for name in change.less.iter().filter_map(|name| Name::new(name)) {
                    self.remove(kind, &name);
                }
                change
            }
            Kind::Listener => Change::default(),
        };
        if !self.failures.is_empty() {
            for name in change.less.iter().filter_map(|name| Name::new(name)) {
                self.failures.remove(&(kind, name));
            }
        }
        change
    }

    /// What of this kind is asked for by name on a stream that begins.
    pub(super) fn ask_anew(&mut self, kind: Kind) -> Vec<String> {
        match kind {
            Kind::Secret => self.secrets.ask_anew(),
            Kind::Endpoints => self.sets.ask_anew(),
            Kind::Routes => self.tables.ask_anew(),
            Kind::Host => self.hosts.ask_anew(),
            Kind::Cluster => self.led.ask_anew(),
            Kind::Listener => Vec::new(),
        }
    }

    /// What of this kind is asked for by name.
    pub(super) fn names(&self, kind: Kind) -> Vec<String> {
        match kind {
            Kind::Secret => self.secrets.names(),
            Kind::Endpoints => self.sets.names(),
            Kind::Routes => self.tables.names(),
            Kind::Host => self.hosts.names(),
            Kind::Cluster => self.led.names(),
            Kind::Listener => Vec::new(),
        }
    }

    /// The version of each resource of this kind.
    pub(super) fn versions(&self, kind: Kind) -> BTreeMap<String, String> {
        fn each<'a, T: 'a>(all: impl Iterator<Item = (&'a Name, &'a Held<T>)>) -> BTreeMap<String, String> {
            all.map(|(name, held)| (name.to_string(), held.version().to_owned())).collect()
        }
        match kind {
            Kind::Cluster => each(self.clusters.iter().map(|(name, cluster)| (name, &cluster.held))),
            Kind::Secret => each(self.secrets.there()),
            Kind::Endpoints => each(self.sets.there()),
            Kind::Listener => each(self.listeners.iter()),
            Kind::Routes => each(self.tables.there()),
            Kind::Host => each(self.hosts.there()),
        }
    }

    /// Tells of all that is there as it was said, if it `holds` that kind; one by one, as there may be many.
    pub(super) fn say_again(&self, holds: impl Fn(Kind) -> bool, mut say: impl FnMut(&discovery::Resource)) {
        fn each<'a, T: 'a>(
            all: impl Iterator<Item = (&'a Name, &'a Held<T>)>,
            (kind, lapses): (Kind, &Lapses),
            say: &mut impl FnMut(&discovery::Resource),
        ) {
            all.for_each(|(name, held)| say(&held.said(kind, name.as_str(), lapses.ttl(kind, name))));
        }
        for kind in Kind::ALL.into_iter().filter(|kind| holds(*kind)) {
            let of = (kind, &self.lapses);
            match kind {
                Kind::Cluster => each(self.clusters.iter().map(|(name, of)| (name, &of.held)), of, &mut say),
                // It is never written down.
                Kind::Secret => {}
                Kind::Endpoints => each(self.sets.there(), of, &mut say),
                Kind::Listener => each(self.listeners.iter(), of, &mut say),
                Kind::Routes => each(self.tables.there(), of, &mut say),
                Kind::Host => each(self.hosts.there(), of, &mut say),
            }
        }
    }

    /// Whether anything was said since this was last asked.
    pub(super) fn take_unsaved(&mut self) -> bool {
        std::mem::take(&mut self.unsaved)
    }

    /// These were refused; their last good version stays, if there is one.
    pub(super) fn note_failures(&mut self, kind: Kind, refused: &[Refused]) {
        for bad in refused {
            let Some(name) = &bad.name else { continue };
            let key = (kind, name.clone());
            if self.failures.len() < FAILURES || self.failures.contains_key(&key) {
                self.failures.insert(key, bad.to_string());
            }
        }
    }

    /// All of it is to be told once more.
    pub(super) fn tell_again(&mut self) {
        self.changed = true;
    }

    /// Looks where routes and listeners lead to that is not there yet, or is there no more, before what is new of them is
    /// told. `is_served` says what is in force, whoever said it.
    pub(super) fn look_ahead(&mut self, is_served: impl Fn(&Name) -> bool) {
        let whole = self.is_begun() && self.tables.awaited().is_empty();
        if self.by_name || !self.changed || !whole {
            return;
        }
        let tables = self.tables.there().filter(|(name, _)| self.tables.is_referred(name));
        let tables = tables.map(|(_, held)| clusters_of(&held.means));
        let listeners = self.listeners.values().map(|held| clusters_beside(&held.means));
        let refused = |name: &Name| self.failures.contains_key(&(Kind::Cluster, name.clone()));
        let led: BTreeSet<_> = tables.chain(listeners).flatten().collect();
        let missing = led.into_iter().filter(|name| !self.clusters.contains_key(name) && !refused(name));
        self.ahead.look(missing, is_served);
    }

    /// Whether all that was said was told.
    pub(super) fn is_settled(&self) -> bool {
        self.told && !self.changed && self.moved.is_empty() && !self.is_missing()
    }

    /// Whether something is referred to and nothing was said of it yet.
    pub(super) fn is_missing(&self) -> bool {
        self.awaited().next().is_some()
    }

    /// What that is, in words; the first of it.
    pub(super) fn missing(&self) -> String {
        let words = self.awaited().take(NAMED).map(|(kind, name)| format!("{kind}[{name}]"));
        let mut words: Vec<_> = words.collect();
        let rest = self.awaited().count() - words.len();
        words.extend((rest > 0).then(|| format!("and {rest} more")));
        words.join(", ")
    }

    fn awaited(&self) -> impl Iterator<Item = (Kind, &Name)> {
        let of = |kind: Kind, names| std::iter::repeat(kind).zip::<&BTreeSet<Name>>(names);
        let (secrets, sets) = (self.secrets.awaited(), self.sets.awaited());
        let clusters = if self.by_name { self.led.awaited() } else { self.ahead.awaited() };
        let first = of(Kind::Cluster, clusters).chain(of(Kind::Secret, secrets));
        first.chain(of(Kind::Endpoints, sets)).chain(of(Kind::Routes, self.tables.awaited()))
    }

    /// What is new since this was last asked. As long as something is missing, that is only what concerns what is there
    /// already, unless nothing is `waited` for any longer: no request is to meet a cluster without its endpoints.
    pub(super) fn news(&mut self, waited: bool) -> Option<News> {
        if waited {
            self.sets.give_up();
            self.tables.give_up();
            self.secrets.give_up();
            self.led.give_up();
            self.ahead.give_up();
        }
        if !self.is_begun() {
            return None;
        }
        if !self.is_missing() && (self.changed || !self.told) {
            (self.told, self.changed) = (true, false);
            self.moved.clear();
            self.left.arrive_all();
            self.ahead.arrive();
            self.clusters.values_mut().for_each(|cluster| cluster.told = true);
            return Some(News::All(Box::new(self.discovered())));
        }
        if !self.told {
            return None;
        }
        let mut found = BTreeMap::new();
        for name in std::mem::take(&mut self.moved) {
            // What was not told is told with all the rest.
            let Some(cluster) = self.clusters.get(&name).filter(|cluster| cluster.told) else { continue };
            match &cluster.held.means.endpoints {
                EndpointSource::Eds(set) if matches!(self.sets.answer(set), Answer::Awaited) => {
                    self.moved.insert(name);
                }
                source => {
                    self.left.arrive(&name);
                    found.extend(self.endpoints(source).map(|set| (name, set)));
                }
            }
        }
        for (name, set) in self.left.take_moved() {
            found.extend(self.sets.answer(&set).means().map(|set| (name, Arc::clone(set))));
        }
        (!found.is_empty()).then_some(News::Endpoints(found))
    }

    /// Before the first answers there is nothing to tell.
    fn is_begun(&self) -> bool {
        self.told || Kind::ALL.iter().all(|kind| !self.asks_for_all(*kind) || self.answered.contains(kind))
    }

    /// Where neither DNS nor who comes says.
    fn endpoints(&self, source: &EndpointSource) -> Option<Arc<Assignment>> {
        match source {
            EndpointSource::Stated(set) => Some(set.clone()),
            EndpointSource::Eds(set) => Some(self.sets.answer(set).means().cloned().unwrap_or_default()),
            EndpointSource::Dns | EndpointSource::Original => None,
        }
    }

    fn discovered(&self) -> Discovered {
        let secrets = self.secrets.there().map(|(name, held)| (name.clone(), Arc::clone(&held.means)));
        let mut out = Discovered { secrets: Secrets(secrets.collect()), ..Discovered::default() };
        for (name, Upstream { held, told: _ }) in &self.clusters {
            let ClusterResource { cluster, endpoints } = &held.means;
            out.clusters.insert(name.clone(), Arc::clone(cluster));
            out.endpoints.extend(self.endpoints(endpoints).map(|set| (name.clone(), set)));
        }
        for (name, held) in &self.listeners {
            let resource = &held.means;
            let stated = resource.stated(name).map(|(name, table)| (name, table.clone()));
            let named = resource.tables().map(|table| {
                let told = self.tables.answer(table).means().cloned().unwrap_or_default();
                (table.clone(), self.hosts.within(table, told))
            });
            out.route_tables.extend(stated.chain(named));
            out.listeners.insert(name.clone(), resource.listener.clone());
        }
        out
    }
}

#[path = "status.rs"]
mod status;
#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
