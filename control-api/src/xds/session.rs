//! One node's subscriptions: what it has, what it is told next, and what it made of it.
//!
//! Make before break: listeners and routes are told only when the node has answered for the clusters and endpoints that they
//! lead to; and what is gone is taken away last, when nothing leads there any more. Of each kind one answer is on its
//! way at a time, so that whoever is slow is told the latest, and not all that was.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use outrigger_proto::model::Name;
use outrigger_proto::xds::Kind;
use outrigger_proto::xds::discovery::{
    Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};

use crate::serving::{Item, Of, View};

/// By which a node asks for all there is.
const ALL: &str = "*";

/// Which of the two ways a node is spoken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What has changed.
    Delta,
    /// All there is, each time.
    Sotw,
}

/// What a request says, whichever way it is said.
#[derive(Debug)]
pub struct Asked {
    kind: Kind,
    names: Names,
    nonce: String,
    error: Option<String>,
}

#[derive(Debug)]
enum Names {
    /// More and fewer than before, and what is there already.
    Changed { more: Vec<String>, fewer: Vec<String>, has: BTreeMap<String, String> },
    /// These.
    Exactly(Vec<String>),
}

impl Asked {
    /// `None` for a kind that nobody here knows.
    pub fn delta(request: DeltaDiscoveryRequest) -> Option<Self> {
        Some(Self {
            kind: Kind::of_url(&request.type_url)?,
            names: Names::Changed {
                more: request.resource_names_subscribe,
                fewer: request.resource_names_unsubscribe,
                has: request.initial_resource_versions,
            },
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| shortened(status.message)),
        })
    }

    /// `None` for a kind that nobody here knows.
    pub fn sotw(request: DiscoveryRequest) -> Option<Self> {
        Some(Self {
            kind: Kind::of_url(&request.type_url)?,
            names: Names::Exactly(request.resource_names),
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| shortened(status.message)),
        })
    }
}

/// As much of a node's words as is kept.
fn shortened(mut text: String) -> String {
    const MOST: usize = 4096;
    if text.len() > MOST {
        text.truncate(text.floor_char_boundary(MOST));
        text += "...";
    }
    text
}

/// What a node made of what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is in force.
    Ack,
    /// It is not, and this is why.
    Nack(String),
}

/// An answer that a node gave, and to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The kind.
    pub kind: Kind,
    /// The revision that it was told of.
    pub revision: u64,
    /// What it made of it.
    pub verdict: Verdict,
}

/// What is told next.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The kind.
    pub kind: Kind,
    pub(super) nonce: String,
    revision: u64,
    /// New, or different.
    pub(super) put: Vec<(Name, Arc<Item>)>,
    /// Gone, or never there.
    pub(super) gone: Vec<String>,
}

impl Told {
    /// As a message of the incremental way.
    pub fn into_delta(self) -> DeltaDiscoveryResponse {
        let Self { kind, nonce, revision, put, gone } = self;
        let resources = put.into_iter().map(|(name, item)| Resource {
            name: name.to_string(),
            version: item.version.to_string(),
            resource: Some(item.any.clone()),
            ttl: None,
            aliases: Vec::new(),
        });
        DeltaDiscoveryResponse {
            system_version_info: revision.to_string(),
            resources: resources.collect(),
            type_url: kind.url(),
            removed_resources: gone,
            nonce,
        }
    }

    /// As a message of the other way.
    pub fn into_sotw(self) -> DiscoveryResponse {
        let Self { kind, nonce, revision, put, gone: _ } = self;
        let resources: Vec<Any> = put.into_iter().map(|(_, item)| item.any.clone()).collect();
        DiscoveryResponse { version_info: revision.to_string(), resources, type_url: kind.url(), nonce }
    }
}

/// What an incremental answer holds at most, in bytes of resources, unless one alone is larger. Who hears it takes the room
/// for all of it at once, several times that while it is understood, and keeps some of it as long as the stream lasts.
const MOST: usize = 512 * 1024;

/// Resources by name.
type Put = Vec<(Name, Arc<Item>)>;

/// What a node is told of a kind.
struct Next {
    put: Put,
    gone: Vec<String>,
    /// Whether that is not all.
    more: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    way: Way,
    subscriptions: BTreeMap<Kind, Subscription>,
    nonce: u64,
    /// Nothing is told of secrets.
    holds_secrets: bool,
}

#[derive(Debug, Default)]
struct Subscription {
    /// All there is, beside those that are named.
    all: bool,
    names: BTreeSet<String>,
    /// What the node has, as far as it was told.
    has: BTreeMap<String, Has>,
    /// The revision of the last answer, until the node has said what it made of it.
    pending: Option<u64>,
    /// Of the last answer that was sent. What is said to an earlier one was said before that was heard.
    nonce: String,
    /// The last answer was refused: what is in force is what was before it.
    refused: bool,
    /// The last answer did not say all that there is of this revision: with those that follow it is one.
    unfinished: Option<u64>,
    /// It has said something new, and is answered even when nothing else is.
    owed: bool,
}

/// What a node has of a name.
#[derive(Clone, Debug)]
enum Has {
    /// This.
    Item(Arc<Item>),
    /// Something of this version, from an earlier stream.
    Version(Box<str>),
    /// It knows that there is none.
    Nothing,
}

impl Session {
    /// A stream that has just begun.
    pub fn new(way: Way) -> Self {
        Self { way, subscriptions: BTreeMap::new(), nonce: 0, holds_secrets: false }
    }

    /// Whether nothing is told of secrets, as it is not known which there are.
    pub fn hold_secrets(&mut self, holds: bool) {
        self.holds_secrets = holds;
    }

    /// Takes a request; what it says of an answer, if it does.
    pub fn hear(&mut self, asked: Asked) -> Option<Heard> {
        let Asked { kind, names, nonce, error } = asked;
        let is_first = !self.subscriptions.contains_key(&kind);
        let subscription = self.subscriptions.entry(kind).or_default();
        let is_answer = nonce == subscription.nonce;
        let pending = subscription.pending.take_if(|_| is_answer);
        match names {
            Names::Changed { more, fewer, has } => subscription.change(kind, is_first, (more, fewer, has)),
            // Of an answer that is not the last one, this way: said before what is on its way was heard.
            Names::Exactly(_) if !is_first && !nonce.is_empty() && !is_answer => {
                return None;
            }
            Names::Exactly(names) => subscription.replace(is_first, names),
        }
        let revision = pending?;
        let verdict = match error {
            Some(error) => {
                subscription.refused = true;
                Verdict::Nack(error)
            }
            None if subscription.refused || subscription.unfinished.is_some() => return None,
            None => Verdict::Ack,
        };
        Some(Heard { kind, revision, verdict })
    }

    /// What is to be told next, if it is time for anything.
    pub fn tell(&mut self, view: &View) -> Option<Told> {
        if self.way == Way::Sotw {
            // Their absence cannot be said that way; nobody waits for it.
            for (kind, subscription) in &mut self.subscriptions {
                if !is_whole(*kind) {
                    let gone = subscription.gone(view.kind(*kind));
                    subscription.note(&[], &gone);
                }
            }
        }
        // What is gone is taken away once nothing leads there any more: clusters, and then their endpoints.
        let leads = [Kind::Listener, Kind::Routes, Kind::Host];
        let lags = |kind: Kind| self.is_behind(kind, view) || self.has_refused(kind);
        let holds_clusters = leads.into_iter().any(lags);
        let holds_endpoints = holds_clusters || lags(Kind::Cluster);
        let mut warms = false;
        for kind in Kind::ALL {
            let Some(subscription) = self.subscriptions.get_mut(&kind) else { continue };
            if kind == Kind::Secret && self.holds_secrets {
                continue;
            }
            // Envoy says nothing to clusters until it has their endpoints and secrets; nothing leads there before.
            if warms && leads.contains(&kind) {
                return None;
            }
            if subscription.pending.is_some() {
                if kind == Kind::Cluster {
                    warms = true;
                    continue;
                }
                return None;
            }
            let holds = match kind {
                Kind::Cluster => holds_clusters,
                Kind::Endpoints => holds_endpoints,
                Kind::Listener | Kind::Routes | Kind::Host | Kind::Secret => false,
            };
            let Some(Next { put, gone, more }) = subscription.next(self.way, kind, view.kind(kind), holds)
            else {
                continue;
            };
            self.nonce += 1;
            let nonce = self.nonce.to_string();
            subscription.pending = Some(view.revision);
            subscription.refused &= subscription.unfinished == Some(view.revision);
            subscription.unfinished = more.then_some(view.revision);
            subscription.nonce.clone_from(&nonce);
            if kind == Kind::Cluster {
                self.tell_endpoints_again(&put);
            }
            return Some(Told { kind, nonce, revision: view.revision, put, gone });
        }
        None
    }

    /// A cluster that is another has no endpoints, for Envoy, until it hears of them anew.
    fn tell_endpoints_again(&mut self, clusters: &Put) {
        if let Some(endpoints) = self.subscriptions.get_mut(&Kind::Endpoints) {
            for (name, _) in clusters {
                endpoints.has.remove(name.as_str());
            }
        }
    }

    fn has_refused(&self, kind: Kind) -> bool {
        self.subscriptions.get(&kind).is_some_and(|subscription| subscription.refused)
    }

    /// Whether the node wants to hear of this.
    pub fn asks_for(&self, kind: Kind, name: &str) -> bool {
        self.subscriptions.get(&kind).is_some_and(|subscription| subscription.wants(name))
    }

    /// Whether the node has answered for all that it is to be told.
    pub fn is_settled(&self, view: &View) -> bool {
        Kind::ALL.into_iter().all(|kind| !self.is_behind(kind, view))
    }

    fn is_behind(&self, kind: Kind, view: &View) -> bool {
        let subscription = self.subscriptions.get(&kind);
        subscription.is_some_and(|it| it.pending.is_some() || it.differs(view.kind(kind)))
    }
}

fn owned((name, item): (Cow<'_, Name>, Cow<'_, Arc<Item>>)) -> (Name, Arc<Item>) {
    (name.into_owned(), item.into_owned())
}

/// As many as are said at once, and whether there are more.
fn first(all: impl Iterator<Item = (Name, Arc<Item>)>, most: usize) -> (Put, bool) {
    let (mut put, mut bytes) = (Put::new(), 0);
    for (name, item) in all {
        bytes += item.any.value.len();
        if bytes > most && !put.is_empty() {
            return (put, true);
        }
        put.push((name, item));
    }
    (put, false)
}

/// Of these an answer names all there are.
fn is_whole(kind: Kind) -> bool {
    matches!(kind, Kind::Cluster | Kind::Listener)
}

impl Subscription {
    fn change(
        &mut self,
        kind: Kind,
        is_first: bool,
        (more, fewer, has): (Vec<String>, Vec<String>, BTreeMap<String, String>),
    ) {
        // Nobody named at the beginning means all, of the kinds that nothing else names.
        let implied = is_first && more.is_empty() && is_whole(kind);
        self.all |= implied;
        self.owed |= implied;
        self.has.extend(has.into_iter().map(|(name, version)| (name, Has::Version(version.into()))));
        for name in more {
            if name == ALL {
                self.all = true;
                self.owed = true;
            } else {
                // Asked for once more, it is told once more.
                if !is_first {
                    self.has.remove(&name);
                }
                self.names.insert(name);
            }
        }
        for name in fewer {
            self.all &= name != ALL;
            self.names.remove(&name);
            self.has.remove(&name);
        }
    }

    fn replace(&mut self, is_first: bool, names: Vec<String>) {
        let mut names: BTreeSet<_> = names.into_iter().collect();
        let all = names.remove(ALL) || (names.is_empty() && (is_first || self.all));
        if is_first || (all, &names) != (self.all, &self.names) {
            self.owed = true;
        }
        self.has.retain(|name, _| all || names.contains(name));
        (self.all, self.names) = (all, names);
    }

    fn wants(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }

    fn has(&self, name: &Name, item: &Arc<Item>) -> bool {
        match self.has.get(name.as_str()) {
            Some(Has::Item(had)) => Arc::ptr_eq(had, item) || had.version == item.version,
            Some(Has::Version(version)) => *version == item.version,
            Some(Has::Nothing) | None => false,
        }
    }

    /// Those of what there is that it wants.
    fn wanted<'i>(&'i self, items: Of<'i>) -> impl Iterator<Item = (Cow<'i, Name>, Cow<'i, Arc<Item>>)> {
        let all = self.all.then(|| items.all()).into_iter().flatten();
        let all = all.map(|(name, item)| (Cow::Borrowed(name), Cow::Borrowed(item)));
        let named = (!self.all).then_some(&self.names).into_iter().flatten();
        all.chain(named.filter_map(move |name| items.get(name)))
    }

    /// Those that it has, or was never told of, and that are not there.
    fn gone(&self, items: Of<'_>) -> Vec<String> {
        let there = |name: &str| items.has(name) && self.wants(name);
        let had = self.has.iter().filter(|(_, has)| !matches!(has, Has::Nothing)).map(|(name, _)| name);
        let unanswered = self.names.iter().filter(|name| !self.has.contains_key(*name));
        let gone: BTreeSet<_> = had.chain(unanswered).filter(|name| !there(name)).collect();
        gone.into_iter().cloned().collect()
    }

    /// What it has although it is gone.
    fn held(&self, items: Of<'_>) -> Put {
        let had = self.has.iter().filter_map(|(name, has)| match has {
            Has::Item(item) => Some((Name::new(name)?, Arc::clone(item))),
            Has::Version(_) | Has::Nothing => None,
        });
        had.filter(|(name, _)| !items.has(name.as_str())).collect()
    }

    fn differs(&self, items: Of<'_>) -> bool {
        self.wanted(items).any(|(name, item)| !self.has(&name, &item)) || !self.gone(items).is_empty()
    }

    /// What it is told, and notes that it was.
    fn next(&mut self, way: Way, kind: Kind, items: Of<'_>, holds: bool) -> Option<Next> {
        let most = match way {
            Way::Delta => MOST,
            Way::Sotw => usize::MAX,
        };
        let news = self.wanted(items).filter(|(name, item)| !self.has(name, item));
        let (mut put, more) = first(news.map(owned), most);
        let gone = if holds || more { Vec::new() } else { self.gone(items) };
        // What was begun is ended, even where the rest of it is no more: no part of it counts before.
        if put.is_empty() && gone.is_empty() && !self.owed && self.unfinished.is_none() {
            return None;
        }
        match way {
            // What is not said there is gone: so all is said, with what must stay a little longer.
            Way::Sotw if is_whole(kind) => {
                put = self.wanted(items).map(owned).collect();
                put.extend(holds.then(|| self.held(items)).into_iter().flatten());
            }
            Way::Sotw | Way::Delta => {}
        }
        self.owed = false;
        self.note(&put, &gone);
        Some(Next { put, gone, more })
    }

    fn note(&mut self, put: &[(Name, Arc<Item>)], gone: &[String]) {
        for (name, item) in put {
            self.has.insert(name.to_string(), Has::Item(Arc::clone(item)));
        }
        for name in gone {
            if self.names.contains(name) {
                self.has.insert(name.clone(), Has::Nothing);
            } else {
                self.has.remove(name);
            }
        }
    }
}
