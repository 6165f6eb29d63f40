//! What is kept: revisions, which never change, events, and tokens by their hashes; written before anybody is told.
//!
//! Either in a file of this process's own ([`file`]), or in an etcd that several control planes share ([`etcd`]). Whatever is
//! asked here may wait for a disk or a network.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::etcd::Etcd;
use crate::events::{Event, Happened, OfShadow};

pub mod etcd;
pub mod file;

/// Events kept; older ones are forgotten.
const KEPT: u64 = 100_000;

/// A configuration that was accepted, or is to be tried. It never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revision {
    /// From 1, without gaps.
    pub number: u64,
    /// When, RFC 3339.
    pub time: String,
    /// Who wrote it.
    pub author: String,
    /// Why, in the author's words; may be empty.
    pub message: String,
    /// The earlier one that it brings back, if it does.
    pub rollback_to: Option<u64>,
    /// It was never in force, but is or was on trial.
    #[serde(default)]
    pub shadow: bool,
    /// What was in force when it was written; 0 before anything was. Nothing where that was not kept: the one before.
    #[serde(default)]
    pub before: Option<u64>,
    /// All of it, by document.
    pub documents: BTreeMap<String, String>,
}

impl Revision {
    /// What was in force when it was written; 0 before anything was.
    pub fn before(&self) -> u64 {
        self.before.unwrap_or(self.number - 1)
    }
}

/// A token that may change things, without what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Whose it is: the author of what is changed with it.
    pub name: String,
    /// Since when, RFC 3339.
    pub created: String,
}

/// A token by which a node says who it is, without what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Who whoever has it is.
    pub spiffe_id: String,
    /// Until when, in seconds since 1970.
    pub expires: u64,
    /// Since when, in seconds since 1970; `None` where that was not kept.
    #[serde(default)]
    pub created: Option<u64>,
    /// It is good for one certificate. What is asked for with that one is not counted.
    #[serde(default)]
    pub once: bool,
    /// Until when the last certificate lives that goes back to it, in seconds since 1970; `None` before there is any.
    #[serde(default)]
    pub lives_until: Option<u64>,
    /// When it was taken back, in seconds since 1970.
    #[serde(default)]
    pub revoked: Option<u64>,
}

impl Join {
    /// Whether it was good for one certificate, and somebody has that.
    pub fn is_spent(&self) -> bool {
        self.once && self.lives_until.is_some()
    }

    /// Until when anybody can still show it, or a certificate that goes back to it.
    fn of_use_until(&self) -> u64 {
        self.expires.max(self.lives_until.unwrap_or_default())
    }
}

/// A revision, without what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// Its number.
    pub number: u64,
    /// When, RFC 3339.
    pub time: String,
    /// Who.
    pub author: String,
    /// Why; may be empty.
    pub message: String,
    /// The earlier one that it brings back, if it does.
    pub rollback_to: Option<u64>,
    /// It was never in force, but is or was on trial.
    #[serde(default)]
    pub shadow: bool,
    /// What was in force when it was written; 0 before anything was. Nothing where that was not kept: the one before.
    #[serde(default)]
    pub before: Option<u64>,
}

impl From<Revision> for Entry {
    fn from(revision: Revision) -> Self {
        let Revision { number, time, author, message, rollback_to, shadow, before, documents: _ } = revision;
        Self { number, time, author, message, rollback_to, shadow, before }
    }
}

/// How far revisions have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Rises with whatever happens to it; 0 where nobody else makes it happen.
    pub at: u64,
    /// The last that was told to all.
    pub stable: Option<u64>,
    /// The last that was accepted, where it is not told to all, and to whom it is told.
    pub candidate: Option<(u64, BTreeSet<String>)>,
    /// What is on trial.
    pub shadow: Option<u64>,
}

impl Course {
    /// The last that was accepted to come into force.
    fn latest(&self) -> Option<u64> {
        self.candidate.as_ref().map(|(number, _)| *number).or(self.stable)
    }
}

/// A revision that is to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Accepted<'a> {
    /// Itself.
    pub revision: &'a Revision,
    /// What the directory says now, where it is taken over.
    pub directory: Option<&'a BTreeMap<String, String>>,
    /// Whether it is told to all. One that is on trial is told to nobody.
    pub is_stable: bool,
}

impl Accepted<'_> {
    fn happened(&self) -> Happened {
        let Revision { number, author, message, rollback_to, shadow, time: _, before: _, documents: _ } =
            self.revision;
        let (number, author, message) = (*number, author.clone(), message.clone());
        if *shadow {
            return Happened::Shadow { revision: number, what: OfShadow::Begun { author, message } };
        }
        Happened::Revision { number, author, message, rollback_to: *rollback_to }
    }
}

/// Something that happened, and when.
pub type Noted = (SystemTime, Happened);

/// The store cannot be read or written.
#[derive(Debug)]
pub enum StoreError {
    /// Nor will it be by itself.
    Broken(String),
    /// It cannot be asked now.
    Away(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => f.write_str(why),
            Self::Away(why) => write!(f, "the store is away: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// See the module. Every error says that it cannot be read or written, and then nothing has changed, unless it went away
/// meanwhile.
#[expect(clippy::missing_errors_doc, reason = "they are all the same")]
pub trait Store: fmt::Debug + Send + Sync {
    /// The number of the last revision, be it on trial; 0 before there is any.
    fn last(&self) -> Result<u64, StoreError>;

    /// The last revision that was accepted to come into force, if there is any.
    fn latest(&self) -> Result<Option<Revision>, StoreError>;

    /// A revision by its number.
    fn revision(&self, number: u64) -> Result<Option<Revision>, StoreError>;

    /// So many revisions, the last first.
    fn history(&self, most: usize) -> Result<Vec<Entry>, StoreError>;

    /// How far they have come.
    fn course(&self) -> Result<Course, StoreError>;

    /// Keeps a revision, and the event that says so; a shadow is on trial from now on, in place of any other. `None`, and nothing
    /// is kept, where somebody else was the first to make one of this number.
    fn accept(&self, accepted: Accepted<'_>) -> Result<Option<Event>, StoreError>;

    /// Notes that a candidate is told to all; whether it still was one, and it was ours to say so.
    fn note_stable(&self, number: u64) -> Result<bool, StoreError>;

    /// Notes to whom a candidate is told; whether it still was one, and it was ours to say so.
    fn offer(&self, number: u64, nodes: &BTreeSet<String>) -> Result<bool, StoreError>;

    /// Notes that a shadow is not on trial any more; whether it still was.
    fn end_shadow(&self, number: u64) -> Result<bool, StoreError>;

    /// Whether a revision was told to all, once.
    fn is_proven(&self, number: u64) -> Result<bool, StoreError>;

    /// What the directory said when it was last taken over.
    fn directory(&self) -> Result<BTreeMap<String, String>, StoreError>;

    /// Keeps events; the number of the last of them.
    fn note(&self, noted: &[Noted]) -> Result<u64, StoreError>;

    /// The number of the last event; 0 before there is any.
    fn last_event(&self) -> Result<u64, StoreError>;

    /// Events after the one of this number, the first first.
    fn events(&self, after: u64, most: usize) -> Result<Vec<Event>, StoreError>;

    /// The number of the last event that was published; `None` before any was.
    fn published(&self) -> Result<Option<u64>, StoreError>;

    /// Notes up to which event all are published; with `None`, that none is.
    fn note_published(&self, id: Option<u64>) -> Result<(), StoreError>;

    /// The token of this hash.
    fn token(&self, hash: &str) -> Result<Option<Token>, StoreError>;

    /// Tokens by their hashes.
    fn tokens(&self) -> Result<BTreeMap<String, Token>, StoreError>;

    /// Keeps a token under its hash.
    fn put_token(&self, hash: &str, token: &Token) -> Result<(), StoreError>;

    /// Forgets the tokens of a name; whether there were any.
    fn drop_tokens(&self, name: &str) -> Result<bool, StoreError>;

    /// The join token of this hash.
    fn join(&self, hash: &str) -> Result<Option<Join>, StoreError>;

    /// Join tokens by their hashes.
    fn joins(&self) -> Result<BTreeMap<String, Join>, StoreError>;

    /// The join token whose hash begins so, with all of its hash.
    fn find_join(&self, prefix: &str) -> Result<Option<(String, Join)>, StoreError>;

    /// Changes the join token of this hash, unless there is none or `change` says that it stays as it is; whether it was changed.
    /// Nobody changes it meanwhile. `now` is in seconds since 1970.
    fn change_join(
        &self,
        hash: &str,
        change: &dyn Fn(&mut Join) -> bool,
        now: u64,
    ) -> Result<bool, StoreError>;

    /// Keeps a join token under its hash, and forgets those that are of no use by `now`, in seconds since 1970.
    fn put_join(&self, hash: &str, join: &Join, now: u64) -> Result<(), StoreError>;

    /// What others see of this control plane, and this one of them, where it is shared.
    fn shared(&self) -> Option<&Etcd> {
        None
    }
}

fn written(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("what is kept has text for keys")
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Broken(format!("the store holds what is not its own: {error}")))
}
