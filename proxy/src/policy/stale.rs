//! Answers that are kept for when their cluster fails (RFC 5861 section 4). While it is well nobody is answered from
//! here, so nothing need be known of freshness: that stale answers are served at all is what the route was configured
//! for (RFC 9111 section 4.2.4). What may be kept stands in [`rules`].
//!
//! A bound in bytes holds for all of a route's, and what was stored longest ago goes first. That is what is used least,
//! too, as every good answer takes the place of the one before. What has become too old goes when something is stored
//! or looked for; a route without requests keeps what it has.

pub mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use outrigger_proto::model;

use self::rules::{Terms, Vary};

/// What an entry takes beside its texts: its place in both indexes, and what an allocation costs.
const ENTRY: usize = 384;
/// The same of a header field.
const FIELD: usize = 96;
/// Answers to one URL that differ by `vary`. They are looked through one by one.
const VARIANTS: usize = 16;
/// Entries that a look-up removes at the most because they are too old.
const EXPIRE: usize = 64;

/// The answers of one route; shared by all workers. The lock is held for a look-up, and no other route waits for it.
#[derive(Debug)]
pub struct Stale {
    config: model::Stale,
    shelf: Mutex<Shelf>,
    /// Bytes held by all routes.
    total: Arc<AtomicU64>,
    /// Bytes of answers that are on their way to be kept.
    drafts: AtomicU64,
}

/// Room for an answer that is on its way, given back when dropped.
#[derive(Debug)]
pub struct Room {
    kept: Arc<Stale>,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.kept.drafts.fetch_sub(self.bytes, Relaxed);
    }
}

/// A whole answer of status 200.
#[derive(Debug)]
pub struct Answer {
    fields: Box<[(HeaderName, HeaderValue)]>,
    body: Bytes,
    received: Duration,
    /// How old it was then, in seconds.
    age: u64,
}

impl Stale {
    /// Nothing is kept yet. `total` is where bytes are counted for all routes.
    pub fn new(config: model::Stale, total: Arc<AtomicU64>) -> Self {
        Self { config, shelf: Mutex::default(), total, drafts: AtomicU64::new(0) }
    }

    /// Bytes of the longest body that is kept.
    pub fn max_body(&self) -> u64 {
        self.config.max_body
    }

    /// Room to copy an answer of at most so many bytes; `None` while those that are copied fill as much as may be kept: a
    /// client that reads slowly holds up its copy.
    pub fn room(self: &Arc<Self>, bytes: u64) -> Option<Room> {
        let more = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.config.memory);
        self.drafts.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Room { kept: self.clone(), bytes })
    }

    /// Lets go of what has become too old.
    pub fn expire(&self, now: Duration) {
        self.change(|shelf| shelf.expire(now, self.config.keep));
    }

    /// Keeps an answer under this key, in place of the one that was kept of the same terms. `now` is the time since the
    /// process began.
    pub fn put(&self, key: &[u8], terms: Terms, answer: Answer, now: Duration) {
        let entry =
            Entry { number: 0, size: size(key, &terms.vary, &answer), terms, answer: Arc::new(answer) };
        let is_old = now.saturating_sub(entry.answer.received) >= self.config.keep;
        // One that would push out all others is not worth it.
        if is_old || entry.size > self.config.memory {
            return;
        }
        self.change(|shelf| {
            shelf.expire(now, self.config.keep);
            shelf.put(key, entry);
            while shelf.bytes > self.config.memory {
                shelf.remove_oldest();
            }
        });
    }

    /// The last answer of this key that fits a request with these fields and is not too old.
    pub fn find(&self, key: &[u8], request: &HeaderMap, now: Duration) -> Option<Arc<Answer>> {
        self.change(|shelf| {
            shelf.expire(now, self.config.keep);
            let young = |entry: &Entry| now.saturating_sub(entry.answer.received) < self.config.keep;
            let mut entries = shelf.entries.get(key)?.iter().rev();
            let found = entries.find(|entry| young(entry) && entry.terms.fit(request))?;
            Some(Arc::clone(&found.answer))
        })
    }

    /// The cluster says, by a 304 with these fields, that a request like this one would be answered as before. Where
    /// that is the answer that is kept, it is as good as new (RFC 9111 section 4.3.4).
    pub fn renew(&self, key: &[u8], request: &HeaderMap, head: &HeaderMap, now: Duration) {
        let Some(old) = self.find(key, request, now) else { return };
        let mut fields = old.head(now);
        let tag = head.get(header::ETAG);
        if tag.is_none() || tag != fields.get(header::ETAG) {
            return;
        }
        fields.remove(header::AGE);
        // What tells of the body tells of one that did not come.
        for name in head.keys().filter(|name| !name.as_str().starts_with("content-")) {
            fields.remove(name);
            for value in head.get_all(name) {
                fields.append(name, value.clone());
            }
        }
        if let Some(terms) = Terms::of(request, &fields) {
            let answer = Answer { body: old.body(), ..Answer::new(&fields, Vec::new(), now) };
            self.put(key, terms, answer, now);
        }
    }

    /// Forgets all answers of this key.
    pub fn forget(&self, key: &[u8]) {
        self.change(|shelf| shelf.forget(key));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Shelf) -> T) -> T {
        let mut shelf = self.lock();
        let before = shelf.bytes;
        let out = change(&mut shelf);
        // Wraps where it shrinks, and so comes out right.
        self.total.fetch_add(shelf.bytes.wrapping_sub(before), Relaxed);
        out
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        // No change can be left half done.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stale {
    fn drop(&mut self) {
        let bytes = self.lock().bytes;
        self.total.fetch_sub(bytes, Relaxed);
    }
}

impl Answer {
    /// An answer with these fields, which are no hop's own. All is copied, as what a connection has read stands in
    /// large buffers. `received` is the time since the process began.
    pub fn new(head: &HeaderMap, body: Vec<u8>, received: Duration) -> Self {
        let age = head.get(header::AGE).and_then(seconds).unwrap_or(0);
        let fields = head.iter().filter(|(name, _)| *name != header::AGE);
        let fields = fields.filter_map(|(name, value)| {
            let mut copy = HeaderValue::from_bytes(value.as_bytes()).ok()?;
            copy.set_sensitive(value.is_sensitive());
            Some((HeaderName::from_bytes(name.as_str().as_bytes()).ok()?, copy))
        });
        Self { fields: fields.collect(), body: body.into_boxed_slice().into(), received, age }
    }

    /// Its header fields, with its `age` (RFC 9111 section 5.1).
    pub fn head(&self, now: Duration) -> HeaderMap {
        let mut head: HeaderMap = HeaderMap::with_capacity(self.fields.len() + 2);
        for (name, value) in &self.fields {
            head.append(name.clone(), value.clone());
        }
        let resident = now.saturating_sub(self.received).as_secs();
        head.insert(header::AGE, HeaderValue::from(self.age.saturating_add(resident).min(OLDEST)));
        head
    }

    /// Its body.
    pub fn body(&self) -> Bytes {
        self.body.clone()
    }
}

/// What stands for everything older (RFC 9111 section 1.2.2).
const OLDEST: u64 = 1 << 31;

/// A number of seconds; `None` for what is none.
fn seconds(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| (sum * 10 + u64::from(digit - b'0')).min(OLDEST);
    Some(digits.iter().fold(0, add))
}

fn size(key: &[u8], vary: &Vary, answer: &Answer) -> u64 {
    let fields: usize =
        answer.fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD).sum();
    (ENTRY + key.len() + vary.size() + fields + answer.body.len()) as u64
}

/// All that is kept, by key and by age.
#[derive(Debug, Default)]
struct Shelf {
    /// The entries of a key in the order in which they were stored.
    entries: HashMap<Arc<[u8]>, Vec<Entry>>,
    /// The keys of all entries, by number.
    order: BTreeMap<u64, Arc<[u8]>>,
    /// Entries are numbered as they are stored.
    next: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    terms: Terms,
    size: u64,
    answer: Arc<Answer>,
}

impl Shelf {
    fn put(&mut self, key: &[u8], mut entry: Entry) {
        let is_newer =
            |old: &Entry| old.terms.vary == entry.terms.vary && old.answer.received > entry.answer.received;
        // A client that read slowly has held it up.
        if self.entries.get(key).is_some_and(|entries| entries.iter().any(is_newer)) {
            return;
        }
        self.retain(key, |old| old.terms.vary != entry.terms.vary);
        if let Some(variants) = self.entries.get(key)
            && variants.len() >= VARIANTS
        {
            let first = variants[0].number;
            self.retain(key, |old| old.number != first);
        }
        let key: Arc<[u8]> = match self.entries.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => key.into(),
        };
        entry.number = self.next;
        self.next += 1;
        self.bytes += entry.size;
        self.order.insert(entry.number, Arc::clone(&key));
        // Most keys have one entry, and a list that grows by itself begins with room for four.
        self.entries.entry(key).or_insert_with(|| Vec::with_capacity(1)).push(entry);
    }

    /// Removes some of what is too old, so that nobody waits for long. Answers come to be stored nearly in the order in
    /// which they were received: the first that is young enough ends the search.
    fn expire(&mut self, now: Duration, keep: Duration) {
        for _ in 0..EXPIRE {
            let Some((number, key)) = self.order.first_key_value() else { return };
            let entry = self.entries[key].iter().find(|entry| entry.number == *number);
            if entry.is_some_and(|entry| now.saturating_sub(entry.answer.received) < keep) {
                return;
            }
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some((number, key)) = self.order.pop_first() {
            self.retain(&key, |entry| entry.number != number);
        }
    }

    fn forget(&mut self, key: &[u8]) {
        self.retain(key, |_| false);
    }

    fn retain(&mut self, key: &[u8], stays: impl Fn(&Entry) -> bool) {
        let Some(entries) = self.entries.get_mut(key) else { return };
        for gone in entries.extract_if(.., |entry| !stays(entry)) {
            self.order.remove(&gone.number);
            self.bytes -= gone.size;
        }
        if entries.is_empty() {
            self.entries.remove(key);
        }
    }
}
