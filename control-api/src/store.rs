//! What is kept: revisions, which never change, events, and tokens by their hashes. One file of redb, written before anybody
//! is told.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::events::{Event, Happened};

const REVISIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("revisions");
const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");
const TOKENS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tokens");
/// Revisions that were told to all.
const PROVEN: TableDefinition<'_, u64, ()> = TableDefinition::new("proven");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// In `meta`: the last revision that was told to all.
const STABLE: &str = "stable";
/// In `meta`: the last event that was published.
const PUBLISHED: &str = "published";
const JOINS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("join tokens");
/// What the directory said when it was last taken over, by document.
const DIRECTORY: TableDefinition<'_, &str, &str> = TableDefinition::new("directory");

/// Events kept; older ones are forgotten.
const KEPT: u64 = 100_000;

/// A configuration that was accepted. It never changes.
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
    /// All of it, by document.
    pub documents: BTreeMap<String, String>,
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

    /// Whether anybody can still show it, or a certificate that goes back to it.
    fn is_of_use(&self, now: u64) -> bool {
        self.expires.max(self.lives_until.unwrap_or_default()) > now
    }
}

/// See the module.
#[derive(Debug)]
pub struct Store {
    database: Database,
}

/// The store cannot be read or written.
#[derive(Debug)]
pub struct StoreError(String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self(error.into().to_string())
    }
}

impl Store {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// It cannot be opened, or somebody has it open already.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::create(path)
            .map_err(|error| StoreError(format!("the store {} cannot be opened: {error}", path.display())))?;
        let write = database.begin_write()?;
        write.open_table(REVISIONS)?;
        write.open_table(EVENTS)?;
        write.open_table(TOKENS)?;
        write.open_table(JOINS)?;
        write.open_table(META)?;
        write.open_table(PROVEN)?;
        write.open_table(DIRECTORY)?;
        write.commit()?;
        Ok(Self { database })
    }

    /// The last revision, if there is any.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn latest(&self) -> Result<Option<Revision>, StoreError> {
        let table = self.database.begin_read()?.open_table(REVISIONS)?;
        table.last()?.map(|(_, bytes)| read(bytes.value())).transpose()
    }

    /// A revision by its number.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn revision(&self, number: u64) -> Result<Option<Revision>, StoreError> {
        let table = self.database.begin_read()?.open_table(REVISIONS)?;
        table.get(number)?.map(|bytes| read(bytes.value())).transpose()
    }

    /// So many revisions, the last first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn history(&self, most: usize) -> Result<Vec<Revision>, StoreError> {
        let table = self.database.begin_read()?.open_table(REVISIONS)?;
        table.iter()?.rev().take(most).map(|entry| read(entry?.1.value())).collect()
    }

    /// Keeps a revision, which is the next one, and the event that says so; with `directory`, also what the directory says
    /// now; and whether it is told to all.
    ///
    /// # Errors
    /// The store cannot be written; nothing of it is kept.
    pub fn accept(
        &self,
        revision: &Revision,
        directory: Option<&BTreeMap<String, String>>,
        is_stable: bool,
    ) -> Result<Event, StoreError> {
        let write = self.database.begin_write()?;
        let happened = Happened::Revision {
            number: revision.number,
            author: revision.author.clone(),
            message: revision.message.clone(),
            rollback_to: revision.rollback_to,
        };
        let event = {
            write.open_table(REVISIONS)?.insert(revision.number, &*written(revision))?;
            if let Some(directory) = directory {
                let mut table = write.open_table(DIRECTORY)?;
                table.retain(|_, _| false)?;
                for (name, text) in directory {
                    table.insert(name.as_str(), text.as_str())?;
                }
            }
            if is_stable {
                write.open_table(META)?.insert(STABLE, revision.number)?;
                write.open_table(PROVEN)?.insert(revision.number, ())?;
            }
            append(&mut write.open_table(EVENTS)?, happened)?
        };
        write.commit()?;
        Ok(event)
    }

    /// The last revision that was told to all.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn stable(&self) -> Result<Option<u64>, StoreError> {
        let table = self.database.begin_read()?.open_table(META)?;
        Ok(table.get(STABLE)?.map(|number| number.value()))
    }

    /// Notes that a revision is told to all.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn note_stable(&self, number: u64) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        write.open_table(META)?.insert(STABLE, number)?;
        write.open_table(PROVEN)?.insert(number, ())?;
        Ok(write.commit()?)
    }

    /// Whether a revision was told to all, once.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn is_proven(&self, number: u64) -> Result<bool, StoreError> {
        Ok(self.database.begin_read()?.open_table(PROVEN)?.get(number)?.is_some())
    }

    /// What the directory said when it was last taken over.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn directory(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let table = self.database.begin_read()?.open_table(DIRECTORY)?;
        let entries = table.iter()?.map(|entry| {
            let (name, text) = entry?;
            Ok((name.value().to_owned(), text.value().to_owned()))
        });
        entries.collect()
    }

    /// Keeps events.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn note(&self, happened: Vec<Happened>) -> Result<Vec<Event>, StoreError> {
        let write = self.database.begin_write()?;
        let events = {
            let mut table = write.open_table(EVENTS)?;
            happened.into_iter().map(|it| append(&mut table, it)).collect::<Result<_, _>>()?
        };
        write.commit()?;
        Ok(events)
    }

    /// The number of the last event; 0 before there is any.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn last_event(&self) -> Result<u64, StoreError> {
        let table = self.database.begin_read()?.open_table(EVENTS)?;
        Ok(table.last()?.map_or(0, |(id, _)| id.value()))
    }

    /// Events after the one of this number, the first first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn events(&self, after: u64, most: usize) -> Result<Vec<Event>, StoreError> {
        let table = self.database.begin_read()?.open_table(EVENTS)?;
        table.range(after.saturating_add(1)..)?.take(most).map(|entry| read(entry?.1.value())).collect()
    }

    /// The number of the last event that was published; `None` before any was.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn published(&self) -> Result<Option<u64>, StoreError> {
        let table = self.database.begin_read()?.open_table(META)?;
        Ok(table.get(PUBLISHED)?.map(|id| id.value()))
    }

    /// Notes up to which event all are published; with `None`, that none is.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn note_published(&self, id: Option<u64>) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(META)?;
            match id {
                Some(id) => table.insert(PUBLISHED, id)?,
                None => table.remove(PUBLISHED)?,
            };
        }
        Ok(write.commit()?)
    }

    /// Tokens by their hashes.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn tokens(&self) -> Result<BTreeMap<String, Token>, StoreError> {
        let table = self.database.begin_read()?.open_table(TOKENS)?;
        let entries = table.iter()?.map(|entry| {
            let (hash, token) = entry?;
            Ok((hash.value().to_owned(), read(token.value())?))
        });
        entries.collect()
    }

    /// Keeps a token under its hash.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn put_token(&self, hash: &str, token: &Token) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        write.open_table(TOKENS)?.insert(hash, &*written(token))?;
        Ok(write.commit()?)
    }

    /// The join token of this hash.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn join(&self, hash: &str) -> Result<Option<Join>, StoreError> {
        let table = self.database.begin_read()?.open_table(JOINS)?;
        table.get(hash)?.map(|bytes| read(bytes.value())).transpose()
    }

    /// Join tokens by their hashes.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn joins(&self) -> Result<BTreeMap<String, Join>, StoreError> {
        let table = self.database.begin_read()?.open_table(JOINS)?;
        let entries = table.iter()?.map(|entry| {
            let (hash, join) = entry?;
            Ok((hash.value().to_owned(), read(join.value())?))
        });
        entries.collect()
    }

    /// The join token whose hash begins so, with all of its hash.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn find_join(&self, prefix: &str) -> Result<Option<(String, Join)>, StoreError> {
        let table = self.database.begin_read()?.open_table(JOINS)?;
        let Some(entry) = table.range(prefix..)?.next() else { return Ok(None) };
        let (hash, join) = entry?;
        let hash = hash.value();
        hash.starts_with(prefix).then(|| Ok((hash.to_owned(), read(join.value())?))).transpose()
    }

    /// Changes the join token of this hash, unless there is none or `change` says that it stays as it is; whether it was changed.
    /// Nobody changes it meanwhile.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn change_join(&self, hash: &str, change: &dyn Fn(&mut Join) -> bool) -> Result<bool, StoreError> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(JOINS)?;
            let found = table.get(hash)?.map(|bytes| read::<Join>(bytes.value())).transpose()?;
            let Some(mut join) = found else { return Ok(false) };
            if !change(&mut join) {
                return Ok(false);
            }
            table.insert(hash, &*written(&join))?;
        }
        write.commit()?;
        Ok(true)
    }

    /// Keeps a join token under its hash, and forgets those that are of no use by `now`, in seconds since 1970: that have
    /// expired, and with them all that goes back to them.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn put_join(&self, hash: &str, join: &Join, now: u64) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(JOINS)?;
            table.retain(|_, bytes| read::<Join>(bytes).is_ok_and(|join| join.is_of_use(now)))?;
            table.insert(hash, &*written(join))?;
        }
        Ok(write.commit()?)
    }

    /// Forgets the tokens of a name; whether there were any.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn drop_tokens(&self, name: &str) -> Result<bool, StoreError> {
        let hashes: Vec<_> = self
            .tokens()?
            .into_iter()
            .filter(|(_, token)| token.name == name)
            .map(|(hash, _)| hash)
            .collect();
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(TOKENS)?;
            for hash in &hashes {
                table.remove(hash.as_str())?;
            }
        }
        write.commit()?;
        Ok(!hashes.is_empty())
    }
}

fn append(table: &mut redb::Table<'_, u64, &[u8]>, happened: Happened) -> Result<Event, StoreError> {
    let id = table.last()?.map_or(0, |(id, _)| id.value()) + 1;
    let event = happened.numbered(id);
    table.insert(id, &*written(&event))?;
    if id > KEPT {
        table.remove(id - KEPT)?;
    }
    Ok(event)
}

fn written(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("what is kept has text for keys")
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError(format!("the store holds what is not its own: {error}")))
}
