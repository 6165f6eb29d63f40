//! What nodes say of what is on trial, added up. They are not trusted with our memory: of whatever they say, so much is kept
//! and the rest only counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use outrigger_proto::xds::shadow::{Difference, Found};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::events::{Happened, OfShadow};
use crate::serving::Asks;

/// Nodes that are remembered.
const NODES: usize = 100_000;
/// Ways to fare otherwise that are kept apart.
const KINDS: usize = 500;
/// Those of one node: one that makes them up leaves room for what others find.
const KINDS_OF_NODE: usize = 100;
/// Those that are told as events: the others are shown.
const TOLD: usize = 2 * KINDS_OF_NODE;
/// Refusals that are told as events: they push others out, and are shown all.
const REFUSALS: usize = 20;
/// Lines of one node, why it would refuse it.
const LINES: usize = 20;
/// Bytes of a name or of the words for what becomes of a request.
const WORDS: usize = 200;
/// Bytes of an example or of a line.
const TEXT: usize = 400;

/// See the module.
#[derive(Debug, Default)]
pub struct Shadows {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What is on trial; 0 while nothing is.
    revision: u64,
    evaluated: u64,
    others: u64,
    kinds: BTreeMap<Way, Kept>,
    /// Those of them, and of what was forgotten, that were told as events.
    told: BTreeSet<Way>,
    /// Refusals that were.
    refusals: usize,
    followers: BTreeMap<String, Follower>,
}

/// How requests would fare otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    listener: String,
    in_force: String,
    shadow: String,
}

#[derive(Debug)]
struct Kept {
    /// Among all, in the order in which they were found.
    number: usize,
    requests: u64,
    nodes: u64,
    example: String,
}

#[derive(Debug, Default)]
struct Follower {
    /// Streams on which it asks: an older one may not have ended yet.
    streams: usize,
    agent: String,
    /// It keeps no whole tables, and was told none.
    on_demand: bool,
    /// What it was told of; 0 where it is nothing.
    told: u64,
    /// Of what it has said last that it holds requests up against it.
    heard: u64,
    refused: Vec<String>,
    /// That it refuses is told once.
    has_refused: bool,
    /// The numbers of those ways that it has found.
    kinds: BTreeSet<usize>,
    /// What it says next may be of what was in force before.
    is_late: bool,
}

/// What a node makes of what is on trial, that asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Following {
    /// What it says it is.
    pub agent: String,
    /// It asks for routes on demand, and was told no tables.
    #[serde(default)]
    pub on_demand: bool,
    /// What it was told of; 0 where nothing is on trial, or no group of it takes the node.
    pub revision: u64,
    /// Of what it has said last that it holds requests up against it; 0 before that.
    #[serde(default)]
    pub heard: u64,
    /// Why it would refuse it, line by line.
    pub refused: Vec<String>,
}

/// What nodes of one control plane have found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// What they say it of.
    pub revision: u64,
    /// Requests that both were asked about.
    pub evaluated: u64,
    /// Those of them that would fare otherwise in ways that are not kept apart.
    pub others: u64,
    /// By how.
    pub differences: Vec<DifferenceStatus>,
}

/// One way in which requests would fare otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DifferenceStatus {
    /// Where they come in.
    pub listener: String,
    /// What becomes of them.
    pub in_force: String,
    /// What would.
    pub shadow: String,
    /// So many of them.
    pub requests: u64,
    /// Nodes that have seen such. One that has come from another control plane meanwhile is counted by both.
    pub nodes: u64,
    /// One of them.
    pub example: String,
}

impl Findings {
    /// Both together.
    pub fn add(&mut self, other: Self) {
        let Self { revision: _, evaluated, others, differences } = other;
        self.evaluated = self.evaluated.saturating_add(evaluated);
        self.others = self.others.saturating_add(others);
        for more in differences {
            let known = self.differences.iter_mut().find(|known| known.way() == more.way());
            match known {
                Some(known) => {
                    known.requests = known.requests.saturating_add(more.requests);
                    known.nodes += more.nodes;
                }
                None => self.differences.push(more),
            }
        }
    }
}

impl DifferenceStatus {
    fn way(&self) -> [&str; 3] {
        [&self.listener, &self.in_force, &self.shadow]
    }
}

impl Shadows {
    /// This is on trial from now on, and nobody has said anything of it; 0: nothing is.
    pub fn begin(&self, revision: u64) {
        let mut state = self.lock();
        let mut followers = std::mem::take(&mut state.followers);
        followers.retain(|_, follower| follower.streams > 0);
        for follower in followers.values_mut() {
            let (streams, on_demand) = (follower.streams, follower.on_demand);
            let agent = std::mem::take(&mut follower.agent);
            *follower = Follower { streams, agent, on_demand, ..Follower::default() };
        }
        *state = State { revision, followers, ..State::default() };
    }

    /// Something else is in force, or about to be, and what was found differs from what is not any more: what is on trial goes on
    /// without it. A node that has not heard of it yet may say such things once more.
    pub fn begin_again(&self) {
        let mut state = self.lock();
        let State { revision: _, evaluated, others, kinds, told: _, refusals: _, followers } = &mut *state;
        (*evaluated, *others) = (0, 0);
        kinds.clear();
        for follower in followers.values_mut() {
            follower.kinds.clear();
            follower.is_late = follower.told != 0;
        }
    }

    /// A stream has begun; whether there is room for its node.
    pub(super) fn connect(&self, node: &str, agent: &str, asks: Asks) -> bool {
        let followers = &mut self.lock().followers;
        if !followers.contains_key(node) && followers.len() >= NODES {
            followers.retain(|_, follower| follower.streams > 0);
            if followers.len() >= NODES {
                return false;
            }
        }
        let follower = followers.entry(node.to_owned()).or_default();
        follower.streams += 1;
        (follower.agent, follower.on_demand) = (shown(agent, WORDS), asks == Asks::OnDemand);
        true
    }

    /// It has ended. What it said stays, until something else is on trial.
    pub(super) fn disconnect(&self, node: &str) {
        if let Some(follower) = self.lock().followers.get_mut(node) {
            follower.streams -= 1;
        }
    }

    /// A node is told of this.
    pub(super) fn note_told(&self, node: &str, revision: u64) {
        if let Some(follower) = self.lock().followers.get_mut(node)
            && follower.told != revision
        {
            (follower.told, follower.refused) = (revision, Vec::new());
        }
    }

    /// What a node says, and what of it is to be noted. What it was not told of, or is not on trial any more, it says nothing about.
    pub(super) fn note(&self, node: &str, found: Found) -> Vec<Happened> {
        let Found { node: _, revision, evaluated, differences, others, refused } = found;
        let mut state = self.lock();
        let State { revision: on_trial, evaluated: all, others: uncounted, kinds, told, refusals, followers } =
            &mut *state;
        let follower = followers.get_mut(node).filter(|follower| follower.told == revision);
        let Some(follower) = follower.filter(|_| revision != 0 && revision == *on_trial) else {
            return Vec::new();
        };
        let mut happened = Vec::new();
        if refused.is_empty() {
            follower.heard = revision;
        }
        // Of one that holds requests up against it nothing is in the way any more.
        if !refused.is_empty() || evaluated > 0 {
            follower.refused = refused.iter().take(LINES).map(|line| shown(line, TEXT)).collect();
        }
        if let Some(why) = follower.refused.first()
            && !std::mem::replace(&mut follower.has_refused, true)
            && *refusals < REFUSALS
        {
            *refusals += 1;
            let (node, why) = (node.to_owned(), why.clone());
            happened.push(Happened::Shadow { revision, what: OfShadow::Refused { node, why } });
        }
        if std::mem::take(&mut follower.is_late) {
            return happened;
        }
        *all = all.saturating_add(evaluated);
        *uncounted = uncounted.saturating_add(others);
        for difference in differences {
            let Difference { listener, in_force, shadow, requests, example } = difference;
            let words = |text: &str| shown(text, WORDS);
            let way = Way { listener: words(&listener), in_force: words(&in_force), shadow: words(&shadow) };
            let number = kinds.get(&way).map_or(kinds.len(), |kept| kept.number);
            let is_own = follower.kinds.contains(&number);
            if (number == KINDS) || (!is_own && follower.kinds.len() == KINDS_OF_NODE) {
                *uncounted = uncounted.saturating_add(requests);
                continue;
            }
            follower.kinds.insert(number);
            if number == kinds.len() && told.len() < TOLD && told.insert(way.clone()) {
                happened.push(difference_of((revision, node), &way));
            }
            let kept = kinds.entry(way).or_insert_with(|| Kept {
                number,
                requests: 0,
                nodes: 0,
                example: shown(&example, TEXT),
            });
            kept.requests = kept.requests.saturating_add(requests);
            kept.nodes += u64::from(!is_own);
        }
        happened
    }

    /// Who asks, by id.
    pub fn followers(&self) -> BTreeMap<String, Following> {
        let state = self.lock();
        let asking = state.followers.iter().filter(|(_, follower)| follower.streams > 0);
        let asking = asking.map(|(node, follower)| {
            let Follower {
                streams: _,
                agent,
                on_demand,
                told,
                heard,
                refused,
                has_refused: _,
                kinds: _,
                is_late: _,
            } = follower;
            let (agent, refused) = (agent.clone(), refused.clone());
            let following =
                Following { agent, on_demand: *on_demand, revision: *told, heard: *heard, refused };
            (node.clone(), following)
        });
        asking.collect()
    }

    /// What nodes of this control plane have found so far.
    pub fn findings(&self) -> Findings {
        let state = self.lock();
        let State { revision, evaluated, others, kinds, told: _, refusals: _, followers: _ } = &*state;
        let differences = kinds.iter().map(|(way, kept)| {
            let Way { listener, in_force, shadow } = way.clone();
            let Kept { number: _, requests, nodes, example } = kept;
            let (requests, nodes, example) = (*requests, *nodes, example.clone());
            DifferenceStatus { listener, in_force, shadow, requests, nodes, example }
        });
        Findings {
            revision: *revision,
            evaluated: *evaluated,
            others: *others,
            differences: differences.collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn difference_of((revision, node): (u64, &str), way: &Way) -> Happened {
    let (node, Way { listener, in_force, shadow }) = (node.to_owned(), way.clone());
    Happened::Shadow { revision, what: OfShadow::Difference { node, listener, in_force, shadow } }
}

/// As much of a node's words as is kept, and nothing that a terminal would take for orders.
fn shown(text: &str, most: usize) -> String {
    let text = &text[..text.floor_char_boundary(most)];
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
