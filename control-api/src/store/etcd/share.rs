//! What control planes of one etcd tell each other: who leads, who is connected to whom, and what is new.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::gateway::{self, Ended, absent, delete, put_under};
use super::{Etcd, course, parsed, text};
use crate::nodes::NodeStatus;
use crate::plane::Plane;
use crate::rollout::Account;
use crate::shadow::{Findings, Following};
use crate::store::{Course, StoreError, read};

/// So long what is of one who is gone stays, in seconds.
const LIFE: u64 = 5;
/// How often what is to be told is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Until it is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// How often what nodes were asked is told anew.
const LOADS_EVERY: Duration = Duration::from_secs(10);
/// How often what nodes find is told anew.
const FINDINGS_EVERY: Duration = Duration::from_secs(2);

/// Below which each control plane says what its nodes find.
const FINDINGS: &str = "now/findings/";
/// Below which it says which nodes ask it what is on trial.
const FOLLOWERS: &str = "now/followers/";

/// Under which what is of this process alone stands.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) id: String,
    /// When it was asked for, or to be kept, last.
    kept: Instant,
}

/// What stands below `now`, as far as it was heard.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The last revision of etcd's that it is of.
    at: u64,
    keys: BTreeMap<String, String>,
    /// By replica and stream: read once, and not for whoever looks.
    nodes: BTreeMap<String, NodeStatus>,
}

impl Seen {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    pub(super) fn forget(&mut self, key: &str) {
        self.keys.remove(key);
    }

    fn take(&mut self, prefix: &str, entry: gateway::Entry) {
        let gateway::Entry { key, value, at } = entry;
        self.at = self.at.max(at);
        let Some(key) = key.strip_prefix(prefix).and_then(|key| key.strip_prefix('/')) else { return };
        match (key.strip_prefix("now/nodes/"), value) {
            // Of another version, it may not be what this one knows.
            (Some(node), Some(value)) => match read(value.as_bytes()) {
                Ok(status) => drop(self.nodes.insert(node.to_owned(), status)),
                Err(error) => tracing::debug!(%error, node, "a node of a replica's is left out"),
            },
            (Some(node), None) => drop(self.nodes.remove(node)),
            (None, Some(value)) => drop(self.keys.insert(key.to_owned(), value)),
            (None, None) => drop(self.keys.remove(key)),
        }
    }
}

impl Etcd {
    /// When something is new.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Since which time, counted, this one leads; `None` while it does not.
    pub fn leads(&self) -> watch::Receiver<Option<u64>> {
        self.leads.subscribe()
    }

    /// Why etcd does not answer, if it does not.
    pub fn away(&self) -> Option<String> {
        self.gateway.away()
    }

    /// How far revisions have come, as far as it was heard.
    ///
    /// # Errors
    /// What stands there is not ours.
    pub fn heard(&self) -> Result<Course, StoreError> {
        let seen = self.seen();
        let names = ["now/stable", "now/candidate", "now/offered", "now/shadow"];
        course(seen.at, names.map(|name| seen.get(name)))
    }

    /// The number of the last event that was heard of.
    pub fn heard_event(&self) -> u64 {
        self.seen().get("now/event").and_then(|id| parsed(id).ok()).unwrap_or(0)
    }

    /// Nodes that are connected to others.
    pub fn nodes(&self) -> Vec<NodeStatus> {
        let own = format!("{}/", self.name);
        let seen = self.seen();
        seen.nodes.iter().filter(|(key, _)| !key.starts_with(&own)).map(|(_, node)| node.clone()).collect()
    }

    /// How nodes of others fare with a candidate: those accounts that there are, and whether somebody who has such a node owes
    /// his.
    pub fn accounts(&self, candidate: u64, chosen: &BTreeSet<String>) -> (Vec<Account>, bool) {
        let seen = self.seen();
        let told = seen.nodes.iter().filter(|(_, node)| chosen.contains(&node.id));
        let mut owing: BTreeSet<_> = told.filter_map(|(key, _)| Some(key.split_once('/')?.0)).collect();
        owing.remove(self.name.as_str());
        let mut accounts = Vec::new();
        for (key, value) in seen.keys.range("now/accounts/".to_owned()..) {
            let Some(replica) = key.strip_prefix("now/accounts/") else { break };
            let account = read::<Account>(value.as_bytes()).ok();
            let of_this = account.filter(|it| it.revision == candidate && replica != self.name);
            if let Some(account) = of_this {
                if account.chosen == chosen.len() {
                    owing.remove(replica);
                }
                accounts.push(account);
            }
        }
        (accounts, !owing.is_empty())
    }

    /// What nodes of others have found out about what is on trial.
    pub fn findings(&self, trial: u64) -> Vec<Findings> {
        let own = format!("{FINDINGS}{}", self.name);
        let seen = self.seen();
        let all = seen.keys.range(FINDINGS.to_owned()..).take_while(|(key, _)| key.starts_with(FINDINGS));
        let read = all.filter(|(key, _)| **key != own).filter_map(|(_, text)| read(text.as_bytes()).ok());
        read.filter(|findings: &Findings| findings.revision == trial).collect()
    }

    /// Nodes that ask others what is on trial, by id.
    pub fn followers(&self) -> BTreeMap<String, Following> {
        let own = format!("{FOLLOWERS}{}/", self.name);
        let seen = self.seen();
        let all = seen.keys.range(FOLLOWERS.to_owned()..).take_while(|(key, _)| key.starts_with(FOLLOWERS));
        let others = all.filter(|(key, _)| !key.starts_with(&own));
        let read = others.filter_map(|(key, text)| {
            let (_, node) = key.strip_prefix(FOLLOWERS)?.split_once('/')?;
            Some((node.to_owned(), read(text.as_bytes()).ok()?))
        });
        read.collect()
    }

    /// Tells whoever leads how nodes of this one fare with a candidate.
    pub fn account(&self, account: Option<Account>) {
        *self.account.lock().unwrap_or_else(PoisonError::into_inner) = account;
    }

    /// Takes all away that is of this one alone: it ends, and another leads at once.
    pub fn leave(&self) {
        self.has_left.store(true, Ordering::Relaxed);
        let lease = self.lease().take();
        // It would end by itself.
        let _ = lease.map(|lease| self.gateway.revoke(&lease.id));
    }

    /// Looks at all that there is, and says from where on it may be watched.
    pub(super) fn look(&self) -> Result<u64, StoreError> {
        let (from, to) = self.below("now");
        let (all, at) = self.gateway.range((&from, &to), usize::MAX)?;
        let mut seen = Seen { at, ..Seen::default() };
        all.into_iter().for_each(|entry| seen.take(&self.prefix, entry));
        *self.seen() = seen;
        self.changed.send_replace(());
        Ok(at + 1)
    }
}

/// Hears what others write, for ever.
pub fn follow(etcd: &Etcd) {
    let (from, to) = etcd.below("now");
    // What is known by now is of before.
    let mut next = None;
    while !etcd.has_left.load(Ordering::Relaxed) {
        let heard = next.map_or_else(|| etcd.look(), Ok).and_then(|since| {
            let mut since = since;
            let ended = etcd.gateway.watch((&from, &to), since, |entries| {
                let last = entries.iter().map(|entry| entry.at).max();
                let mut seen = etcd.seen();
                entries.into_iter().for_each(|entry| seen.take(&etcd.prefix, entry));
                drop(seen);
                since = last.map_or(since, |last| last + 1);
                etcd.changed.send_replace(());
            });
            next = Some(since);
            ended
        });
        match heard {
            Ok(Ended::Cut) => {}
            Ok(Ended::Compacted) => next = None,
            Err(error) => {
                tracing::debug!(%error, "nothing is heard of others");
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// Tells others of this control plane, and leads when nobody else does, for ever.
pub fn keep(etcd: &Etcd, plane: &Plane) {
    let mut told = Told::default();
    let mut last = String::new();
    while !etcd.has_left.load(Ordering::Relaxed) {
        let pause = match told.round(etcd, plane) {
            Ok(()) => LOOK_EVERY,
            Err(StoreError::Away(_)) => PAUSE,
            Err(StoreError::Broken(why)) => {
                if last != why {
                    tracing::error!(why, "others hear nothing of this control plane");
                }
                last = why;
                PAUSE
            }
        };
        std::thread::sleep(pause);
    }
}

/// What stands there of this control plane.
#[derive(Default)]
struct Told {
    /// How often it came to lead.
    times: u64,
    nodes: BTreeMap<u64, NodeStatus>,
    /// Of `nodes`.
    version: Option<u64>,
    account: Option<Account>,
    loads: Option<Instant>,
    findings: Findings,
    followers: BTreeMap<String, Following>,
    found: Option<Instant>,
}

impl Told {
    fn round(&mut self, etcd: &Etcd, plane: &Plane) -> Result<(), StoreError> {
        let lease = self.lease(etcd)?;
        self.campaign(etcd, &lease)?;
        self.nodes(etcd, plane, &lease)?;
        self.account(etcd, &lease)?;
        self.findings(etcd, plane, &lease)
    }

    /// A lease that lives.
    fn lease(&mut self, etcd: &Etcd) -> Result<String, StoreError> {
        let life = Duration::from_secs(LIFE);
        let known = etcd.lease().as_ref().map(|lease| (lease.id.clone(), lease.kept));
        let asked = Instant::now();
        if let Some((id, kept)) = known {
            if kept.elapsed() < life / 4 {
                return Ok(id);
            }
            let lives = etcd.gateway.keep(&id);
            // By what is known here, another may lead by now.
            if !matches!(lives, Ok(true)) && kept.elapsed() >= life || matches!(lives, Ok(false)) {
                etcd.leads.send_if_modified(|leads| leads.take().is_some());
            }
            if lives? {
                *etcd.lease() = Some(Lease { id: id.clone(), kept: asked });
                return Ok(id);
            }
        }
        let id = etcd.gateway.grant(LIFE)?;
        *etcd.lease() = Some(Lease { id: id.clone(), kept: asked });
        // What stood there is gone with the one before.
        let times = self.times;
        *self = Self { times, ..Self::default() };
        Ok(id)
    }

    fn campaign(&mut self, etcd: &Etcd, lease: &str) -> Result<(), StoreError> {
        let own = etcd.leader(lease);
        let leader = etcd.seen().get("now/leader").map(str::to_owned);
        let wins = match leader {
            Some(leader) => leader == own,
            None => {
                let key = etcd.key("now/leader");
                let operations = [put_under(lease, &key, &own)];
                etcd.gateway.transact(&[absent(&key)], &operations)?.succeeded
            }
        };
        if wins && etcd.leads.borrow().is_none() {
            self.times += 1;
            etcd.leads.send_replace(Some(self.times));
            tracing::info!("this control plane leads");
        } else if !wins {
            etcd.leads.send_if_modified(|leads| leads.take().is_some());
        }
        Ok(())
    }

    fn nodes(&mut self, etcd: &Etcd, plane: &Plane, lease: &str) -> Result<(), StoreError> {
        let now = Instant::now();
        let is_time = self.loads.is_none_or(|last| last.elapsed() >= LOADS_EVERY);
        let version = Some(plane.nodes.version());
        if version == self.version && !is_time {
            return Ok(());
        }
        let mut nodes = plane.nodes.by_stream();
        for (stream, node) in &mut nodes {
            let told = self.nodes.get(stream).filter(|_| !is_time);
            node.load = told.map_or_else(|| plane.loads.status(&node.id, now), |told| told.load);
        }
        let key = |stream: &u64| etcd.key(&format!("now/nodes/{}/{stream}", etcd.name));
        let news = nodes.iter().filter(|(stream, node)| self.nodes.get(stream) != Some(node));
        let mut operations: Vec<Value> =
            news.map(|(stream, node)| put_under(lease, &key(stream), &text(node))).collect();
        let gone = self.nodes.keys().filter(|stream| !nodes.contains_key(stream));
        operations.extend(gone.map(|stream| delete(&key(stream))));
        etcd.write_all(operations)?;
        (self.nodes, self.version) = (nodes, version);
        if is_time {
            self.loads = Some(now);
        }
        Ok(())
    }

    fn account(&mut self, etcd: &Etcd, lease: &str) -> Result<(), StoreError> {
        let account = etcd.account.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if account == self.account {
            return Ok(());
        }
        let key = etcd.key(&format!("now/accounts/{}", etcd.name));
        let operation =
            account.as_ref().map_or_else(|| delete(&key), |account| put_under(lease, &key, &text(account)));
        etcd.gateway.transact(&[], &[operation])?;
        self.account = account;
        Ok(())
    }

    fn findings(&mut self, etcd: &Etcd, plane: &Plane, lease: &str) -> Result<(), StoreError> {
        if self.found.is_some_and(|last| last.elapsed() < FINDINGS_EVERY) {
            return Ok(());
        }
        self.found = Some(Instant::now());
        self.followers(etcd, plane, lease)?;
        let findings = plane.shadows.findings();
        if findings == self.findings {
            return Ok(());
        }
        let key = etcd.key(&format!("{FINDINGS}{}", etcd.name));
        let nothing = Findings { revision: findings.revision, ..Findings::default() };
        let operation =
            if findings == nothing { delete(&key) } else { put_under(lease, &key, &text(&findings)) };
        etcd.gateway.transact(&[], &[operation])?;
        self.findings = findings;
        Ok(())
    }

    fn followers(&mut self, etcd: &Etcd, plane: &Plane, lease: &str) -> Result<(), StoreError> {
        let followers = plane.shadows.followers();
        let key = |node: &String| etcd.key(&format!("{FOLLOWERS}{}/{node}", etcd.name));
        let news = followers.iter().filter(|(node, following)| self.followers.get(*node) != Some(following));
        let mut operations: Vec<Value> =
            news.map(|(node, following)| put_under(lease, &key(node), &text(following))).collect();
        let gone = self.followers.keys().filter(|node| !followers.contains_key(*node));
        operations.extend(gone.map(|node| delete(&key(node))));
        etcd.write_all(operations)?;
        self.followers = followers;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_heard_is_what_was_written_last() {
        let entry = |key: &str, value: Option<&str>, at| gateway::Entry {
            key: format!("/mesh/{key}"),
            value: value.map(str::to_owned),
            at,
        };
        let mut seen = Seen::default();
        for entry in [
            entry("now/stable", Some("1"), 2),
            entry("now/stable", Some("2"), 3),
            entry("now/candidate", Some("3"), 4),
            entry("now/candidate", None, 5),
            entry("now/nodes/a/1", Some("of another version"), 6),
        ] {
            seen.take("/mesh", entry);
        }
        assert_eq!((seen.at, seen.get("now/stable"), seen.get("now/candidate")), (6, Some("2"), None));
        assert!(seen.nodes.is_empty());
    }
}
