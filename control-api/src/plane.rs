//! Where a change becomes a revision, and a revision what is served.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use outrigger_proto::model::Rollout;
use outrigger_proto::yaml::{self, Document};
use similar::TextDiff;
use tokio::sync::{mpsc, watch};

use crate::ca::Authority;
use crate::events::{Event, Happened, rfc3339};
use crate::loads::Loads;
use crate::nats::Standing;
use crate::nodes::Nodes;
use crate::rollout::{Candidate, Published};
use crate::serving::Serving;
use crate::store::{Revision, Store, StoreError};

/// What stands before the names of documents that come from the directory; nobody else can change these.
pub const DIRECTORY: &str = "directory/";
/// Events on their way to the store.
const QUEUE: usize = 4096;
/// Events written at once.
const BATCH: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct Plane {
    store: Store,
    /// Who gives nodes their identities, if anybody does.
    pub authority: Option<Authority>,
    /// Who is connected.
    pub nodes: Nodes,
    /// What they say that they were asked.
    pub loads: Loads,
    published: watch::Sender<Published>,
    /// Whether a revision goes to some first.
    rolls_out: bool,
    /// The number of the last event.
    last_event: watch::Sender<u64>,
    happened: mpsc::Sender<Happened>,
    /// Whether whoever writes events is to come to an end.
    closing: watch::Sender<bool>,
    /// How publishing them goes, where they are published.
    pub publishing: watch::Sender<Option<Standing>>,
    /// One change at a time.
    changing: Mutex<()>,
}

/// What somebody wants to be otherwise.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Who.
    pub author: String,
    /// Why, in the author's words.
    pub message: String,
    /// Documents by name; `None` takes one away.
    pub documents: BTreeMap<String, Option<String>>,
    /// Nothing is changed, only said.
    pub dry_run: bool,
}

/// A revision that is not accepted yet.
struct Draft {
    author: String,
    message: String,
    rollback_to: Option<u64>,
    documents: Documents,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The revision in force; that before, where nothing changed or nothing was to.
    pub revision: u64,
    /// What is different, as a unified diff; empty where nothing is.
    pub diff: String,
    /// What is allowed but can hardly be meant.
    pub warnings: Vec<String>,
}

/// Why nothing was changed.
#[derive(Debug)]
pub enum ChangeError {
    /// It is wrong: all that is, line by line.
    Invalid(String),
    /// It is not the author's to change, or there is no such thing.
    Refused(String),
    /// It could not be kept.
    Store(StoreError),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(why) | Self::Refused(why) => f.write_str(why),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

type Documents = BTreeMap<String, String>;

impl Plane {
    /// Serves what was accepted last. What is to be noted is written by a task of its own.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open(
        store: Store,
        authority: Option<Authority>,
        rollout: Option<&Rollout>,
    ) -> Result<Arc<Self>, StoreError> {
        let latest = store.latest()?;
        let last_event = store.last_event()?;
        let (happened, queued) = mpsc::channel(QUEUE);
        let plane = Arc::new(Self {
            store,
            authority,
            nodes: Nodes::default(),
            loads: Loads::new(rollout.map_or(Loads::INTERVAL, |rollout| Loads::interval_of(rollout.watch))),
            published: watch::Sender::new(Published::to_all(Serving::nothing())),
            rolls_out: rollout.is_some(),
            last_event: watch::Sender::new(last_event),
            happened,
            closing: watch::Sender::new(false),
            publishing: watch::Sender::new(None),
            changing: Mutex::new(()),
        });
        if let Some(latest) = latest {
            plane.take_up(&latest)?;
        }
        tokio::spawn(write_events(Arc::clone(&plane), queued, plane.closing.subscribe()));
        Ok(plane)
    }

    /// Serves what was accepted last; what had not come to all by then begins anew.
    fn take_up(&self, latest: &Revision) -> Result<(), StoreError> {
        let ready = |revision: &Revision| match checked(revision.number, &revision.documents) {
            Ok((serving, _)) => Some(serving),
            // Nodes keep what they have, as nothing is told to them.
            Err(error) => {
                let revision = revision.number;
                tracing::error!(revision, %error, "this revision is not what this version accepts, and is not served");
                None
            }
        };
        let stable = self.store.stable()?.filter(|stable| self.rolls_out && *stable != latest.number);
        let stable = stable.map_or(Ok(None), |stable| self.store.revision(stable))?;
        let published = match (stable.as_ref().and_then(ready), ready(latest)) {
            (None, None) => return Ok(()),
            (Some(only), None) => Published::to_all(only),
            (None, Some(only)) => {
                self.store.note_stable(latest.number)?;
                Published::to_all(only)
            }
            (Some(stable), Some(latest)) => {
                let candidate = Candidate { serving: Arc::new(latest), nodes: Arc::default() };
                Published { stable: Arc::new(stable), candidate: Some(candidate) }
            }
        };
        self.published.send_replace(published);
        Ok(())
    }

    /// What is served, and when it changes.
    pub fn published(&self) -> watch::Receiver<Published> {
        self.published.subscribe()
    }

    /// Tells these nodes of a candidate, if it still is one.
    pub fn offer(&self, serving: &Arc<Serving>, nodes: BTreeSet<String>) {
        self.published.send_if_modified(|published| match &mut published.candidate {
            Some(candidate) if candidate.serving.revision == serving.revision => {
                candidate.nodes = Arc::new(nodes);
                true
            }
            Some(_) | None => false,
        });
    }

    /// A candidate has proven itself: all are told. It writes, and so it blocks.
    pub fn settle(&self, serving: &Arc<Serving>) {
        let _one = self.one();
        if !self.is_candidate(serving.revision) {
            return;
        }
        if let Err(error) = self.store.note_stable(serving.revision) {
            tracing::error!(%error, "after a restart this revision would be led to all once more");
        }
        self.published.send_replace(Published { stable: Arc::clone(serving), candidate: None });
        tracing::info!(revision = serving.revision, "told to all");
        self.note(Happened::RolloutDone { revision: serving.revision });
    }

    /// A candidate has not: what was before it becomes the next revision, unless somebody has written another one. It writes,
    /// and so it blocks.
    pub fn take_back(&self, revision: u64, why: &str) {
        let _one = self.one();
        if !self.is_candidate(revision) {
            return;
        }
        tracing::error!(revision, why, "taken back");
        self.note(Happened::RolledBack { revision, why: why.to_owned() });
        let stable = self.published.borrow().stable.revision;
        if let Err(error) = self.bring_back(stable, ("rollout".to_owned(), why.to_owned()), false) {
            tracing::error!(%error, "what was before cannot be brought back");
        }
    }

    fn is_candidate(&self, revision: u64) -> bool {
        let published = self.published.borrow();
        published.candidate.as_ref().is_some_and(|candidate| candidate.serving.revision == revision)
    }

    /// The number of the last event, and when there is another.
    pub fn last_event(&self) -> watch::Receiver<u64> {
        self.last_event.subscribe()
    }

    /// What is kept.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Notes what happened, soon. Where more happens than can be written, it is left out, and said so.
    pub fn note(&self, happened: Happened) {
        // Where nobody writes any more the process ends.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.happened.try_send(happened) {
            tracing::warn!("an event is left out: more happens than can be written");
        }
    }

    /// Writes what is noted so far, and nothing after that: the process ends.
    pub async fn close(&self) {
        self.closing.send_replace(true);
        // Whoever writes is the only one who looks at it.
        self.closing.closed().await;
    }

    /// Checks a change by the proxies' own code, and makes a revision of it. It writes, and so it blocks.
    ///
    /// # Errors
    /// All that is wrong with it; nothing is changed then.
    pub fn change(&self, change: Change) -> Result<Outcome, ChangeError> {
        if let Some(name) = change.documents.keys().find(|name| name.starts_with(DIRECTORY)) {
            let why = format!("`{name}` stands in the control plane's directory; change it there");
            return Err(ChangeError::Refused(why));
        }
        if let Some(name) = change.documents.keys().find(|name| !is_name(name)) {
            let why =
                format!("`{name}` is no name of a document; expected letters, digits, `.`, `_`, `-` and `/`");
            return Err(ChangeError::Invalid(why));
        }
        let _one = self.one();
        let (number, before) = self.current()?;
        let mut after = before.clone();
        for (name, text) in change.documents {
            match text {
                Some(text) => drop(after.insert(name, text)),
                None if after.remove(&name).is_none() => {
                    return Err(ChangeError::Refused(format!("there is no document `{name}`")));
                }
                None => {}
            }
        }
        let draft =
            Draft { author: change.author, message: change.message, rollback_to: None, documents: after };
        self.accept((number, &before), draft, None, change.dry_run)
    }

    /// Takes over what the directory says, where that is another than the last time: what was rolled back stays so until
    /// somebody writes there.
    ///
    /// # Errors
    /// All that is wrong with it; nothing is changed then.
    pub fn take_over(&self, directory: Documents) -> Result<Option<Outcome>, ChangeError> {
        let _one = self.one();
        if self.store.directory()? == directory {
            return Ok(None);
        }
        let (number, before) = self.current()?;
        let mut after: Documents =
            before.iter().filter(|(name, _)| !name.starts_with(DIRECTORY)).map(owned).collect();
        after.extend(directory.iter().map(|(name, text)| (format!("{DIRECTORY}{name}"), text.clone())));
        let draft = Draft {
            author: "directory".to_owned(),
            message: String::new(),
            rollback_to: None,
            documents: after,
        };
        self.accept((number, &before), draft, Some(&directory), false).map(Some)
    }

    /// Makes a revision of what an earlier one says.
    ///
    /// # Errors
    /// There is no such revision, or it is not what this version accepts.
    pub fn rollback(
        &self,
        to: u64,
        (author, message): (String, String),
        dry_run: bool,
    ) -> Result<Outcome, ChangeError> {
        let _one = self.one();
        self.bring_back(to, (author, message), dry_run)
    }

    /// The same, for whoever is the one who changes something.
    fn bring_back(
        &self,
        to: u64,
        (author, message): (String, String),
        dry_run: bool,
    ) -> Result<Outcome, ChangeError> {
        let Some(earlier) = self.store.revision(to)? else {
            return Err(ChangeError::Refused(format!("there is no revision {to}")));
        };
        let (number, before) = self.current()?;
        let draft = Draft { author, message, rollback_to: Some(to), documents: earlier.documents };
        self.accept((number, &before), draft, None, dry_run)
    }

    fn accept(
        &self,
        (number, before): (u64, &Documents),
        Draft { author, message, rollback_to, documents }: Draft,
        directory: Option<&Documents>,
        dry_run: bool,
    ) -> Result<Outcome, ChangeError> {
        let time = rfc3339(SystemTime::now());
        let revision = Revision { number: number + 1, time, author, message, rollback_to, documents };
        let diff = diff(before, &revision.documents);
        let (serving, warnings) =
            checked(revision.number, &revision.documents).map_err(ChangeError::Invalid)?;
        if dry_run || (diff.is_empty() && directory.is_none()) {
            return Ok(Outcome { revision: number, diff, warnings });
        }
        // What was told to all before needs no proof.
        let is_proven = revision.rollback_to.map_or(Ok(false), |to| self.store.is_proven(to))?;
        let stable = Arc::clone(&self.published.borrow().stable);
        let at_once = !self.rolls_out || is_proven || stable.revision == 0;
        let event = self.store.accept(&revision, directory, at_once)?;
        self.note_written(&event);
        // Only now: what is served is kept.
        self.published.send_replace(if at_once {
            Published::to_all(serving)
        } else {
            Published {
                stable,
                candidate: Some(Candidate { serving: Arc::new(serving), nodes: Arc::default() }),
            }
        });
        tracing::info!(revision = revision.number, author = revision.author, "accepted");
        Ok(Outcome { revision: revision.number, diff, warnings })
    }

    /// The last revision's number and documents.
    fn current(&self) -> Result<(u64, Documents), StoreError> {
        let latest = self.store.latest()?;
        Ok(latest.map_or_else(Default::default, |revision| (revision.number, revision.documents)))
    }

    fn one(&self) -> std::sync::MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_written(&self, event: &Event) {
        if let Ok(id) = event.id.parse() {
            self.last_event.send_if_modified(|last| {
                let newer = *last < id;
                *last = id.max(*last);
                newer
            });
        }
    }
}

/// What documents say, as far as it can be told to proxies, and what can hardly be meant.
///
/// # Errors
/// All that is wrong with them.
pub fn checked(number: u64, documents: &Documents) -> Result<(Serving, Vec<String>), String> {
    if documents.is_empty() {
        return Ok((
            Serving::new(number, Default::default()).map_err(|error| error.to_string())?,
            Vec::new(),
        ));
    }
    let named: Vec<_> = documents.iter().map(|(name, text)| Document { name, text }).collect();
    let parsed = yaml::parse_fleet(&named).map_err(|errors| errors.to_string())?;
    let warnings =
        parsed.warnings.iter().flat_map(|of| of.errors.iter().map(|error| format!("{}:{error}", of.source)));
    let warnings = warnings.collect();
    let serving = Serving::new(number, parsed.fleet).map_err(|error| error.to_string())?;
    Ok((serving, warnings))
}

/// What is different, by document.
pub fn diff(before: &Documents, after: &Documents) -> String {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let mut out = String::new();
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        if old != new {
            let (from, to) = (header(before, "a/", name), header(after, "b/", name));
            out += &TextDiff::from_lines(old.map_or("", String::as_str), new.map_or("", String::as_str))
                .unified_diff()
                .context_radius(3)
                .header(&from, &to)
                .to_string();
        }
    }
    out
}

fn header(documents: &Documents, side: &str, name: &str) -> String {
    if documents.contains_key(name) { format!("{side}{name}") } else { "/dev/null".to_owned() }
}

fn owned((name, text): (&String, &String)) -> (String, String) {
    (name.clone(), text.clone())
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    !name.is_empty() && name.len() <= 200 && name.chars().all(fits)
}

async fn write_events(
    plane: Arc<Plane>,
    mut queued: mpsc::Receiver<Happened>,
    mut closing: watch::Receiver<bool>,
) {
    let mut batch = Vec::new();
    loop {
        let more = tokio::select! {
            more = queued.recv_many(&mut batch, BATCH) => more,
            _ = closing.wait_for(|closing| *closing), if !queued.is_closed() => {
                queued.close();
                continue;
            }
        };
        if more == 0 {
            return;
        }
        let (writer, happened) = (Arc::clone(&plane), std::mem::take(&mut batch));
        let written = tokio::task::spawn_blocking(move || writer.store.note(happened)).await;
        match written {
            Ok(Ok(events)) => events.last().into_iter().for_each(|event| plane.note_written(event)),
            Ok(Err(error)) => tracing::error!(%error, "events are lost"),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_noted_before_the_end_is_written() {
        let file = std::env::temp_dir().join(format!("outrigger-plane-{}.redb", std::process::id()));
        let _ = std::fs::remove_file(&file);
        let plane = Plane::open(Store::open(&file).unwrap(), None, None).unwrap();
        let note = || plane.note(Happened::NodeDown { node: "a".to_owned() });
        (0..3 * BATCH).for_each(|_| note());
        plane.close().await;
        // It is over, and ends once.
        note();
        plane.close().await;
        assert_eq!(plane.store().last_event().unwrap(), 3 * BATCH as u64);
        std::fs::remove_file(&file).unwrap();
    }
}
