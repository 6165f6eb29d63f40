//! An etcd that several control planes share: whichever of them a change comes to, all of them serve it.
//!
//! What never changes stands below `log`, what does below `now`, which everybody watches:
//!
//! - `log/documents/HASH/N`: the text of a document in pieces, by its hash: once, in however many revisions it stands.
//! - `log/revisions/N`: a revision, with hashes for documents. `log/events/N`, `log/proven/N`, `log/directory`, `log/joins/HASH`.
//! - `now/revision`, `now/event`: the numbers of the last ones. What comes next is written in one transaction with them, if they
//!   still are what they were: of two who write at once one is first, and the other looks again. So numbers have no gaps.
//! - `now/stable`, `now/candidate`, `now/offered`: what is told to all, what to some, and to whom. `now/shadow`: what is on trial.
//! - `now/leader`: who leads rollouts and publishes events, under a lease of his. What only a leader may write is written if he
//!   still is the one.
//! - `now/nodes/REPLICA/STREAM`, `now/accounts/REPLICA`: what each control plane's nodes have taken and refused, and how they
//!   fare with a candidate, under its lease. From these whoever leads judges, and `status` is the same everywhere.
//!   `now/findings/REPLICA`, `now/followers/REPLICA/NODE`: what they say of what is on trial, and who asks what is.
//! - `now/tokens/HASH`, `now/published`.
//!
//! No key of a certificate ever stands there, and of tokens only hashes do. A transaction whose answer got lost may have been
//! done: a change that is made again then changes nothing, an event may stand there twice.

mod gateway;
mod share;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use outrigger_proto::model::Etcd as Settings;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use self::gateway::{
    Gateway, MOST_BYTES, MOST_OPERATIONS, absent, delete, delete_range, is, put, put_as_before, put_under,
};
use self::share::{Lease, Seen};
pub use self::share::{follow, keep};
use super::{Accepted, Course, Entry, Join, KEPT, Noted, Revision, Store, StoreError, Token, read, written};
use crate::events::Event;
use crate::hex::hex;
use crate::rollout::Account;
use crate::token;

/// Who is faster so often is so for ever.
const TRIES: usize = 100;

/// See the module.
#[derive(Debug)]
pub struct Etcd {
    gateway: Gateway,
    prefix: Box<str>,
    /// This control plane, among the others.
    name: String,
    /// What stands below `now`, as far as it was heard.
    seen: Mutex<Seen>,
    /// Whenever that is another.
    changed: watch::Sender<()>,
    /// Under which what is of this process alone stands.
    lease: Mutex<Option<Lease>>,
    /// Since which time, counted, it leads; `None` while it does not.
    leads: watch::Sender<Option<u64>>,
    /// How nodes of this control plane fare with a candidate.
    account: Mutex<Option<Account>>,
    has_left: AtomicBool,
    /// Documents of the last revision that was looked at, by hash.
    texts: Mutex<BTreeMap<String, String>>,
}

/// A revision, as it stands there.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    entry: Entry,
    /// The hashes of documents, by name.
    documents: BTreeMap<String, String>,
}

impl Etcd {
    /// Looks at all that there is.
    ///
    /// # Errors
    /// It cannot be asked, or a file cannot be read.
    pub fn open(settings: &Settings) -> Result<Self, StoreError> {
        let gateway = Gateway::new(settings).map_err(StoreError::Broken)?;
        let mut name = [0; 8];
        aws_lc_rs::rand::fill(&mut name).expect("the system has randomness");
        let etcd = Self {
            gateway,
            prefix: settings.prefix.clone(),
            name: hex(&name),
            seen: Mutex::default(),
            changed: watch::Sender::new(()),
            lease: Mutex::default(),
            leads: watch::Sender::new(None),
            account: Mutex::default(),
            has_left: AtomicBool::new(false),
            texts: Mutex::default(),
        };
        etcd.look()?;
        Ok(etcd)
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// The key of something that is numbered. In the order of keys they stand in their own.
    fn numbered(&self, what: &str, number: u64) -> String {
        format!("{}/log/{what}/{number:020}", self.prefix)
    }

    /// All keys below this one.
    fn below(&self, name: &str) -> (String, String) {
        // `0` is what follows `/`.
        (self.key(&format!("{name}/")), self.key(&format!("{name}0")))
    }

    fn count(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.gateway.get(&self.key(name))?.map(|text| parsed(&text)).transpose()
    }

    /// Holds where the last one of something has this number.
    fn is_last(&self, name: &str, number: u64) -> Value {
        let key = self.key(name);
        if number == 0 { absent(&key) } else { is(&key, &number.to_string()) }
    }

    /// Holds where this control plane leads.
    fn is_leader(&self) -> Result<Value, StoreError> {
        let lease = self.lease().as_ref().map(|lease| self.leader(&lease.id));
        let leader = lease.ok_or_else(|| StoreError::Away("this control plane has no lease".to_owned()))?;
        Ok(is(&self.key("now/leader"), &leader))
    }

    /// What stands at `now/leader` where it is this one.
    fn leader(&self, lease: &str) -> String {
        format!("{}/{lease}", self.name)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease(&self) -> MutexGuard<'_, Option<Lease>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes many things, not all of them at once.
    fn write_all(&self, operations: Vec<Value>) -> Result<(), StoreError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for operation in operations {
            let size = operation["request_put"]["value"].as_str().map_or(0, str::len);
            if batch.len() == MOST_OPERATIONS || bytes + size > MOST_BYTES {
                self.gateway.transact(&[], &batch)?;
                (batch, bytes) = (Vec::new(), 0);
            }
            bytes += size;
            batch.push(operation);
        }
        if batch.is_empty() { Ok(()) } else { self.gateway.transact(&[], &batch).map(drop) }
    }

    /// Writes documents that are not known to be there, before anything names them; their hashes, by name.
    fn put_texts(
        &self,
        documents: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, StoreError> {
        let hashes: BTreeMap<_, _> =
            documents.iter().map(|(name, text)| (name.clone(), token::hash(text))).collect();
        let known = self.texts();
        let new: Vec<_> = documents.iter().filter(|(name, _)| !known.contains_key(&hashes[*name])).collect();
        drop(known);
        let puts = new.into_iter().flat_map(|(name, text)| {
            let hash = &hashes[name];
            let piece = move |(n, piece): (usize, &str)| {
                put(&self.key(&format!("log/documents/{hash}/{n:06}")), piece)
            };
            pieces(text).into_iter().enumerate().map(piece).collect::<Vec<_>>()
        });
        self.write_all(puts.collect())?;
        *self.texts() = documents.iter().map(|(name, text)| (hashes[name].clone(), text.clone())).collect();
        Ok(hashes)
    }

    /// Documents by name, for their hashes.
    fn texts_of(&self, hashes: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, StoreError> {
        let texts = hashes.into_iter().map(|(name, hash)| {
            let text = self.text(&hash)?;
            Ok((name, (hash, text)))
        });
        let texts: BTreeMap<_, _> = texts.collect::<Result<_, StoreError>>()?;
        *self.texts() = texts.values().cloned().collect();
        Ok(texts.into_iter().map(|(name, (_, text))| (name, text)).collect())
    }

    fn text(&self, hash: &str) -> Result<String, StoreError> {
        let known = self.texts().get(hash).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let (from, to) = self.below(&format!("log/documents/{hash}"));
        let (pieces, _) = self.gateway.range((&from, &to), usize::MAX)?;
        let text: String = pieces.into_iter().filter_map(|entry| entry.value).collect();
        if token::hash(&text) == hash {
            return Ok(text);
        }
        Err(StoreError::Broken(format!("etcd does not hold the document {hash} whole")))
    }

    fn texts(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands below a name, from this key on, so many at the most.
    fn named<T: DeserializeOwned>(
        &self,
        name: &str,
        from: &str,
        most: usize,
    ) -> Result<BTreeMap<String, T>, StoreError> {
        let (below, to) = self.below(name);
        let (all, _) = self.gateway.range((&format!("{below}{from}"), &to), most)?;
        let all = all.into_iter().filter_map(|entry| {
            let key = entry.key.strip_prefix(&*below)?.to_owned();
            Some((key, entry.value?))
        });
        all.map(|(key, text)| Ok((key, read(text.as_bytes())?))).collect()
    }

    /// Writes events, and more, behind the last one; `None` where `more` does not hold.
    fn append(
        &self,
        noted: &[Noted],
        (compare, more): (&[Value], &[Value]),
    ) -> Result<Option<Vec<Event>>, StoreError> {
        for _ in 0..TRIES {
            let last = self.last_event()?;
            let numbers = last + 1..;
            let events = noted.iter().zip(numbers);
            let events: Vec<_> = events.map(|((time, it), id)| it.clone().numbered(id, *time)).collect();
            let end = last + events.len() as u64;
            let mut operations = more.to_vec();
            operations.push(put(&self.key("now/event"), &end.to_string()));
            let puts = (last + 1..).zip(&events);
            operations.extend(puts.map(|(id, event)| put(&self.numbered("events", id), &text(event))));
            if let Some(old) = end.checked_sub(KEPT).filter(|old| *old > 0) {
                let (from, to) = (self.numbered("events", 0), self.numbered("events", old + 1));
                operations.push(delete_range(&from, &to));
            }
            let mut all = compare.to_vec();
            all.push(self.is_last("now/event", last));
            if self.gateway.transact(&all, &operations)?.succeeded {
                return Ok(Some(events));
            }
            let holds = compare.is_empty() || self.gateway.transact(compare, &[])?.succeeded;
            if !holds {
                return Ok(None);
            }
        }
        Err(StoreError::Away("others write faster than this control plane".to_owned()))
    }

    /// Writes what only a leader may about a candidate; whether it is one, and this control plane leads.
    fn of_candidate(&self, number: u64, operations: &[Value]) -> Result<bool, StoreError> {
        let compare = [self.is_leader()?, is(&self.key("now/candidate"), &number.to_string())];
        Ok(self.gateway.transact(&compare, operations)?.succeeded)
    }

    /// What is to be written where a revision is told to all.
    fn is_told_to_all(&self, number: u64) -> [Value; 4] {
        [
            put(&self.key("now/stable"), &number.to_string()),
            put(&self.numbered("proven", number), ""),
            delete(&self.key("now/candidate")),
            delete(&self.key("now/offered")),
        ]
    }
}

impl Store for Etcd {
    fn last(&self) -> Result<u64, StoreError> {
        Ok(self.count("now/revision")?.unwrap_or(0))
    }

    fn latest(&self) -> Result<Option<Revision>, StoreError> {
        match self.course()?.latest() {
            Some(number) => self.revision(number),
            None => Ok(None),
        }
    }

    fn revision(&self, number: u64) -> Result<Option<Revision>, StoreError> {
        let Some(kept) = self.gateway.get(&self.numbered("revisions", number))? else { return Ok(None) };
        let Kept { entry, documents } = read(kept.as_bytes())?;
        let Entry { number, time, author, message, rollback_to, shadow, before } = entry;
        let documents = self.texts_of(documents)?;
        Ok(Some(Revision { number, time, author, message, rollback_to, shadow, before, documents }))
    }

    fn history(&self, most: usize) -> Result<Vec<Entry>, StoreError> {
        let last = self.last()?;
        let first = (last + 1).saturating_sub(most as u64);
        let (from, to) = (self.numbered("revisions", first), self.numbered("revisions", last + 1));
        let (all, _) = self.gateway.range((&from, &to), most)?;
        let texts = all.into_iter().rev().filter_map(|entry| entry.value);
        texts.map(|text| Ok(read::<Kept>(text.as_bytes())?.entry)).collect()
    }

    fn course(&self) -> Result<Course, StoreError> {
        let names = ["now/stable", "now/candidate", "now/offered", "now/shadow"];
        let reads = names.map(|name| gateway::read(&self.key(name)));
        let answer = self.gateway.transact(&[], &reads)?;
        let mut texts = answer.ranges.into_iter().map(|mut of| of.pop().and_then(|entry| entry.value));
        let mut next = || texts.next().flatten();
        let all = [next(), next(), next(), next()];
        course(answer.at, all.each_ref().map(Option::as_deref))
    }

    fn accept(&self, accepted: Accepted<'_>) -> Result<Option<Event>, StoreError> {
        let Accepted { revision, directory, is_stable } = accepted;
        let number = revision.number;
        let documents = self.put_texts(&revision.documents)?;
        let kept = Kept { entry: revision.clone().into(), documents };
        let mut more = vec![
            put(&self.numbered("revisions", number), &text(&kept)),
            put(&self.key("now/revision"), &number.to_string()),
        ];
        if let Some(directory) = directory {
            // All of them stand in the revision too.
            let hashes: BTreeMap<_, _> =
                directory.iter().map(|(name, text)| (name, token::hash(text))).collect();
            more.push(put(&self.key("log/directory"), &text(&hashes)));
        }
        if revision.shadow {
            more.push(put(&self.key("now/shadow"), &number.to_string()));
        } else if is_stable {
            more.extend(self.is_told_to_all(number));
        } else {
            more.extend([
                put(&self.key("now/candidate"), &number.to_string()),
                delete(&self.key("now/offered")),
            ]);
        }
        let compare = [self.is_last("now/revision", number - 1)];
        let events = self.append(&[(SystemTime::now(), accepted.happened())], (&compare, &more))?;
        Ok(events.and_then(|mut events| events.pop()))
    }

    fn note_stable(&self, number: u64) -> Result<bool, StoreError> {
        self.of_candidate(number, &self.is_told_to_all(number))
    }

    fn offer(&self, number: u64, nodes: &BTreeSet<String>) -> Result<bool, StoreError> {
        self.of_candidate(number, &[put(&self.key("now/offered"), &text(nodes))])
    }

    fn end_shadow(&self, number: u64) -> Result<bool, StoreError> {
        let key = self.key("now/shadow");
        Ok(self.gateway.transact(&[is(&key, &number.to_string())], &[delete(&key)])?.succeeded)
    }

    fn is_proven(&self, number: u64) -> Result<bool, StoreError> {
        Ok(self.gateway.get(&self.numbered("proven", number))?.is_some())
    }

    fn directory(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let Some(hashes) = self.gateway.get(&self.key("log/directory"))? else { return Ok(BTreeMap::new()) };
        let hashes: BTreeMap<String, String> = read(hashes.as_bytes())?;
        hashes.into_iter().map(|(name, hash)| Ok((name, self.text(&hash)?))).collect()
    }

    fn note(&self, noted: &[Noted]) -> Result<u64, StoreError> {
        let mut last = 0;
        let size = |(time, it): &Noted| text(&it.clone().numbered(0, *time)).len();
        let mut rest = noted;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(MOST_OPERATIONS).take_while(|noted| {
                bytes += size(noted);
                bytes <= MOST_BYTES
            });
            // One that is too large by itself is for etcd to refuse.
            let (some, others) = rest.split_at(fits.count().max(1));
            rest = others;
            let events = self.append(some, (&[], &[]))?.unwrap_or_default();
            last = events.last().map_or(Ok(last), |event| parsed(&event.id))?;
        }
        Ok(last)
    }

    fn last_event(&self) -> Result<u64, StoreError> {
        Ok(self.count("now/event")?.unwrap_or(0))
    }

    fn events(&self, after: u64, most: usize) -> Result<Vec<Event>, StoreError> {
        let (from, to) = (self.numbered("events", after.saturating_add(1)), self.below("log/events").1);
        let (all, _) = self.gateway.range((&from, &to), most)?;
        all.into_iter().filter_map(|entry| entry.value).map(|text| read(text.as_bytes())).collect()
    }

    fn published(&self) -> Result<Option<u64>, StoreError> {
        self.count("now/published")
    }

    fn note_published(&self, id: Option<u64>) -> Result<(), StoreError> {
        let key = self.key("now/published");
        let operation = id.map_or_else(|| delete(&key), |id| put(&key, &id.to_string()));
        if self.gateway.transact(&[self.is_leader()?], &[operation])?.succeeded {
            return Ok(());
        }
        Err(StoreError::Away("another control plane publishes".to_owned()))
    }

    fn token(&self, hash: &str) -> Result<Option<Token>, StoreError> {
        let key = format!("now/tokens/{hash}");
        let seen = self.seen().get(&key).map(str::to_owned);
        // Whoever may look may do so while etcd is away; what was taken back is known to be as soon as it can be.
        let text = if seen.is_some() { seen } else { self.gateway.get(&self.key(&key))? };
        text.map(|text| read(text.as_bytes())).transpose()
    }

    fn tokens(&self) -> Result<BTreeMap<String, Token>, StoreError> {
        self.named("now/tokens", "", usize::MAX)
    }

    fn put_token(&self, hash: &str, token: &Token) -> Result<(), StoreError> {
        let key = self.key(&format!("now/tokens/{hash}"));
        self.gateway.transact(&[], &[put(&key, &text(token))]).map(drop)
    }

    fn drop_tokens(&self, name: &str) -> Result<bool, StoreError> {
        let tokens = self.tokens()?;
        let hashes = tokens.iter().filter(|(_, token)| token.name == name).map(|(hash, _)| hash);
        let gone: Vec<_> = hashes.map(|hash| format!("now/tokens/{hash}")).collect();
        self.write_all(gone.iter().map(|key| delete(&self.key(key))).collect())?;
        // Here it is known at once.
        gone.iter().for_each(|key| self.seen().forget(key));
        Ok(!gone.is_empty())
    }

    fn join(&self, hash: &str) -> Result<Option<Join>, StoreError> {
        let text = self.gateway.get(&self.key(&format!("log/joins/{hash}")))?;
        text.map(|text| read(text.as_bytes())).transpose()
    }

    fn joins(&self) -> Result<BTreeMap<String, Join>, StoreError> {
        self.named("log/joins", "", usize::MAX)
    }

    fn find_join(&self, prefix: &str) -> Result<Option<(String, Join)>, StoreError> {
        let found = self.named("log/joins", prefix, 1)?.pop_first();
        Ok(found.filter(|(hash, _)| hash.starts_with(prefix)))
    }

    fn change_join(
        &self,
        hash: &str,
        change: &dyn Fn(&mut Join) -> bool,
        now: u64,
    ) -> Result<bool, StoreError> {
        let key = self.key(&format!("log/joins/{hash}"));
        for _ in 0..TRIES {
            let Some(before) = self.gateway.get(&key)? else { return Ok(false) };
            let mut join: Join = read(before.as_bytes())?;
            let until = join.of_use_until();
            if !change(&mut join) {
                return Ok(false);
            }
            let write = if join.of_use_until() == until {
                put_as_before(&key, &text(&join))
            } else {
                let lease = self.gateway.grant(join.of_use_until().saturating_sub(now).max(1))?;
                put_under(&lease, &key, &text(&join))
            };
            if self.gateway.transact(&[is(&key, &before)], &[write])?.succeeded {
                return Ok(true);
            }
        }
        Err(StoreError::Away("others write faster than this control plane".to_owned()))
    }

    fn put_join(&self, hash: &str, join: &Join, now: u64) -> Result<(), StoreError> {
        // etcd forgets it by itself.
        let lease = self.gateway.grant(join.of_use_until().saturating_sub(now).max(1))?;
        let key = self.key(&format!("log/joins/{hash}"));
        self.gateway.transact(&[], &[put_under(&lease, &key, &text(join))]).map(drop)
    }

    fn shared(&self) -> Option<&Etcd> {
        Some(self)
    }
}

/// What four keys say of how far revisions have come.
fn course(at: u64, [stable, candidate, offered, shadow]: [Option<&str>; 4]) -> Result<Course, StoreError> {
    let nodes = offered.map_or_else(|| Ok(BTreeSet::new()), |nodes| read(nodes.as_bytes()))?;
    let number = |text: Option<&str>| text.map(parsed).transpose();
    let candidate = number(candidate)?.map(|number| (number, nodes));
    Ok(Course { at, stable: number(stable)?, candidate, shadow: number(shadow)? })
}

fn parsed(text: &str) -> Result<u64, StoreError> {
    text.parse().map_err(|_| StoreError::Broken(format!("etcd holds `{text}` where a number is to stand")))
}

fn text(value: &impl Serialize) -> String {
    String::from_utf8(written(value)).expect("JSON is text")
}

/// What fits into a key each; one at least.
fn pieces(mut text: &str) -> Vec<&str> {
    const LENGTH: usize = MOST_BYTES / 2;
    let mut pieces = Vec::new();
    while text.len() > LENGTH {
        let (piece, rest) = text.split_at(text.floor_char_boundary(LENGTH));
        pieces.push(piece);
        text = rest;
    }
    pieces.push(text);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_small_and_together_the_whole() {
        for length in [0, 1, MOST_BYTES / 2, MOST_BYTES / 2 + 1, 3 * MOST_BYTES] {
            let whole = "ä".repeat(length / 2) + &"b".repeat(length % 2);
            let pieces = pieces(&whole);
            assert!(!pieces.is_empty() && pieces.iter().all(|piece| piece.len() <= MOST_BYTES / 2));
            assert_eq!(pieces.concat(), whole);
        }
    }

    #[test]
    fn a_revision_names_documents_by_their_hashes() {
        let entry = Entry {
            number: 7,
            time: "2026-01-01T00:00:00Z".to_owned(),
            author: "me".to_owned(),
            message: String::new(),
            rollback_to: Some(3),
            shadow: true,
            before: Some(5),
        };
        let kept =
            Kept { entry: entry.clone(), documents: [("web.yaml".to_owned(), "ab12".to_owned())].into() };
        let text = text(&kept);
        assert!(text.starts_with("{\"number\":7,") && text.contains("{\"web.yaml\":\"ab12\"}"), "{text}");
        let Kept { entry: read_entry, documents } = read(text.as_bytes()).unwrap();
        assert_eq!((read_entry, documents), (entry, kept.documents));
    }

    #[test]
    fn four_keys_say_how_far_it_has_come() {
        let of = |texts| course(7, texts).unwrap();
        assert_eq!(of([None; 4]), Course { at: 7, ..Course::default() });
        let nodes: BTreeSet<_> = ["a".to_owned()].into();
        let expected = Course { at: 7, stable: Some(1), candidate: Some((2, nodes)), shadow: Some(3) };
        assert_eq!((expected.latest(), of([None; 4]).latest()), (Some(2), None));
        assert_eq!(of([Some("1"), Some("2"), Some("[\"a\"]"), Some("3")]), expected);
        assert!(course(7, [Some("x"), None, None, None]).is_err());
    }
}
