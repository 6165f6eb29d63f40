//! One file of redb, which nobody else has open.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Accepted, Course, Entry, Join, KEPT, Noted, Revision, Store, StoreError, Token, read, written};
use crate::events::{Event, Happened};

const REVISIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("revisions");
const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");
const TOKENS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tokens");
/// Revisions that were told to all.
const PROVEN: TableDefinition<'_, u64, ()> = TableDefinition::new("proven");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// In `meta`: the last revision that was told to all.
const STABLE: &str = "stable";
/// In `meta`: the last revision that was accepted to come into force; not there before any other was kept.
const LATEST: &str = "latest";
/// In `meta`: what is on trial.
const SHADOW: &str = "shadow";
/// In `meta`: the last event that was published.
const PUBLISHED: &str = "published";
const JOINS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("join tokens");
/// What the directory said when it was last taken over, by document.
const DIRECTORY: TableDefinition<'_, &str, &str> = TableDefinition::new("directory");

/// See the module.
#[derive(Debug)]
pub struct File {
    database: Database,
    /// Who is told of the candidate. After a restart nobody has been.
    offered: Mutex<BTreeSet<String>>,
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Broken(error.into().to_string())
    }
}

impl File {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// It cannot be opened, or somebody has it open already.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::create(path).map_err(|error| {
            StoreError::Broken(format!("the store {} cannot be opened: {error}", path.display()))
        })?;
        let write = database.begin_write()?;
        write.open_table(REVISIONS)?;
        write.open_table(EVENTS)?;
        write.open_table(TOKENS)?;
        write.open_table(JOINS)?;
        write.open_table(META)?;
        write.open_table(PROVEN)?;
        write.open_table(DIRECTORY)?;
        write.commit()?;
        Ok(Self { database, offered: Mutex::default() })
    }

    fn meta(&self, name: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.database.begin_read()?.open_table(META)?.get(name)?.map(|number| number.value()))
    }

    /// The number of the last revision that was accepted to come into force.
    fn latest_number(&self) -> Result<Option<u64>, StoreError> {
        let number = self.meta(LATEST)?.map_or_else(|| self.last(), Ok)?;
        Ok(Some(number).filter(|number| *number > 0))
    }

    fn is_candidate(&self, number: u64) -> Result<bool, StoreError> {
        Ok(self.course()?.candidate.is_some_and(|(candidate, _)| candidate == number))
    }

    fn offered(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for File {
    fn last(&self) -> Result<u64, StoreError> {
        let table = self.database.begin_read()?.open_table(REVISIONS)?;
        Ok(table.last()?.map_or(0, |(last, _)| last.value()))
    }

    fn latest(&self) -> Result<Option<Revision>, StoreError> {
        self.latest_number()?.map_or(Ok(None), |number| self.revision(number))
    }

    fn revision(&self, number: u64) -> Result<Option<Revision>, StoreError> {
        let table = self.database.begin_read()?.open_table(REVISIONS)?;
        table.get(number)?.map(|bytes| read(bytes.value())).transpose()
    }

    fn history(&self, most: usize) -> Result<Vec<Entry>, StoreError> {
        let table = self.database.begin_read()?.open_table(REVISIONS)?;
        let entries = table.iter()?.rev().take(most);
        entries.map(|entry| read::<Revision>(entry?.1.value()).map(Into::into)).collect()
    }

    fn course(&self) -> Result<Course, StoreError> {
        let (stable, latest) = (self.meta(STABLE)?, self.latest_number()?);
        let candidate = latest.filter(|_| latest != stable).map(|latest| (latest, self.offered().clone()));
        Ok(Course { at: 0, stable, candidate, shadow: self.meta(SHADOW)? })
    }

    fn accept(&self, accepted: Accepted<'_>) -> Result<Option<Event>, StoreError> {
        let Accepted { revision, directory, is_stable } = accepted;
        let write = self.database.begin_write()?;
        let event = {
            let mut table = write.open_table(REVISIONS)?;
            if table.last()?.map_or(0, |(last, _)| last.value()) + 1 != revision.number {
                return Ok(None);
            }
            table.insert(revision.number, &*written(revision))?;
            if let Some(directory) = directory {
                let mut table = write.open_table(DIRECTORY)?;
                table.retain(|_, _| false)?;
                for (name, text) in directory {
                    table.insert(name.as_str(), text.as_str())?;
                }
            }
            let mut meta = write.open_table(META)?;
            if revision.shadow {
                meta.insert(SHADOW, revision.number)?;
                meta.insert(LATEST, revision.before())?;
            } else {
                meta.insert(LATEST, revision.number)?;
            }
            if is_stable {
                meta.insert(STABLE, revision.number)?;
                write.open_table(PROVEN)?.insert(revision.number, ())?;
            }
            append(&mut write.open_table(EVENTS)?, SystemTime::now(), accepted.happened())?
        };
        write.commit()?;
        if !revision.shadow {
            self.offered().clear();
        }
        Ok(Some(event))
    }

    fn note_stable(&self, number: u64) -> Result<bool, StoreError> {
        if !self.is_candidate(number)? {
            return Ok(false);
        }
        let write = self.database.begin_write()?;
        write.open_table(META)?.insert(STABLE, number)?;
        write.open_table(PROVEN)?.insert(number, ())?;
        write.commit()?;
        self.offered().clear();
        Ok(true)
    }

    fn offer(&self, number: u64, nodes: &BTreeSet<String>) -> Result<bool, StoreError> {
        let is_candidate = self.is_candidate(number)?;
        if is_candidate {
            self.offered().clone_from(nodes);
        }
        Ok(is_candidate)
    }

    fn end_shadow(&self, number: u64) -> Result<bool, StoreError> {
        let write = self.database.begin_write()?;
        let was = {
            let mut meta = write.open_table(META)?;
            let now = meta.get(SHADOW)?.map(|shadow| shadow.value());
            now == Some(number) && meta.remove(SHADOW)?.is_some()
        };
        write.commit()?;
        Ok(was)
    }

    fn is_proven(&self, number: u64) -> Result<bool, StoreError> {
        Ok(self.database.begin_read()?.open_table(PROVEN)?.get(number)?.is_some())
    }

    fn directory(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let table = self.database.begin_read()?.open_table(DIRECTORY)?;
        let entries = table.iter()?.map(|entry| {
            let (name, text) = entry?;
            Ok((name.value().to_owned(), text.value().to_owned()))
        });
        entries.collect()
    }

    fn note(&self, noted: &[Noted]) -> Result<u64, StoreError> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(EVENTS)?;
            for (time, happened) in noted {
                append(&mut table, *time, happened.clone())?;
            }
        }
        write.commit()?;
        self.last_event()
    }

    fn last_event(&self) -> Result<u64, StoreError> {
        let table = self.database.begin_read()?.open_table(EVENTS)?;
        Ok(table.last()?.map_or(0, |(id, _)| id.value()))
    }

    fn events(&self, after: u64, most: usize) -> Result<Vec<Event>, StoreError> {
        let table = self.database.begin_read()?.open_table(EVENTS)?;
        table.range(after.saturating_add(1)..)?.take(most).map(|entry| read(entry?.1.value())).collect()
    }

    fn published(&self) -> Result<Option<u64>, StoreError> {
        let table = self.database.begin_read()?.open_table(META)?;
        Ok(table.get(PUBLISHED)?.map(|id| id.value()))
    }

    fn note_published(&self, id: Option<u64>) -> Result<(), StoreError> {
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

    fn token(&self, hash: &str) -> Result<Option<Token>, StoreError> {
        let table = self.database.begin_read()?.open_table(TOKENS)?;
        table.get(hash)?.map(|bytes| read(bytes.value())).transpose()
    }

    fn tokens(&self) -> Result<BTreeMap<String, Token>, StoreError> {
        let table = self.database.begin_read()?.open_table(TOKENS)?;
        let entries = table.iter()?.map(|entry| {
            let (hash, token) = entry?;
            Ok((hash.value().to_owned(), read(token.value())?))
        });
        entries.collect()
    }

    fn put_token(&self, hash: &str, token: &Token) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        write.open_table(TOKENS)?.insert(hash, &*written(token))?;
        Ok(write.commit()?)
    }

    fn join(&self, hash: &str) -> Result<Option<Join>, StoreError> {
        let table = self.database.begin_read()?.open_table(JOINS)?;
        table.get(hash)?.map(|bytes| read(bytes.value())).transpose()
    }

    fn joins(&self) -> Result<BTreeMap<String, Join>, StoreError> {
        let table = self.database.begin_read()?.open_table(JOINS)?;
        let entries = table.iter()?.map(|entry| {
            let (hash, join) = entry?;
            Ok((hash.value().to_owned(), read(join.value())?))
        });
        entries.collect()
    }

    fn find_join(&self, prefix: &str) -> Result<Option<(String, Join)>, StoreError> {
        let table = self.database.begin_read()?.open_table(JOINS)?;
        let Some(entry) = table.range(prefix..)?.next() else { return Ok(None) };
        let (hash, join) = entry?;
        let hash = hash.value();
        hash.starts_with(prefix).then(|| Ok((hash.to_owned(), read(join.value())?))).transpose()
    }

    fn change_join(
        &self,
        hash: &str,
        change: &dyn Fn(&mut Join) -> bool,
        _now: u64,
    ) -> Result<bool, StoreError> {
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

    fn put_join(&self, hash: &str, join: &Join, now: u64) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(JOINS)?;
            table.retain(|_, bytes| read::<Join>(bytes).is_ok_and(|join| join.of_use_until() > now))?;
            table.insert(hash, &*written(join))?;
        }
        Ok(write.commit()?)
    }

    fn drop_tokens(&self, name: &str) -> Result<bool, StoreError> {
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

fn append(
    table: &mut redb::Table<'_, u64, &[u8]>,
    time: SystemTime,
    happened: Happened,
) -> Result<Event, StoreError> {
    let id = table.last()?.map_or(0, |(id, _)| id.value()) + 1;
    let event = happened.numbered(id, time);
    table.insert(id, &*written(&event))?;
    if id > KEPT {
        table.remove(id - KEPT)?;
    }
    Ok(event)
}
