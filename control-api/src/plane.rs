//! Where a change becomes a revision, and a revision what is served.

mod noted;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use outrigger_proto::model::Rollout;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use self::noted::{QUEUE, write_events};
pub use self::trial::Promotion;
use crate::ca::Authority;
use crate::documents::{Documents, checked, diff, is_name};
use crate::events::{Happened, OfShadow, rfc3339};
use crate::loads::Loads;
use crate::nats::Standing;
use crate::nodes::{NodeStatus, Nodes};
use crate::rollout::{Candidate, Published};
use crate::secrets::Secrets;
use crate::serving::Serving;
use crate::shadow::{Shadows, Trial, unsayable};
use crate::store::{Accepted, Course, Noted, Revision, Store, StoreError};

/// What stands before the names of documents that come from the directory; nobody else can change these.
pub const DIRECTORY: &str = "directory/";
/// Until a store that is away is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// Changes of others that one is made anew for.
const TRIES: usize = 20;

/// See the module.
#[derive(Debug)]
pub struct Plane {
    store: Arc<dyn Store>,
    /// Who gives nodes their identities, if anybody does.
    pub authority: Option<Authority>,
    /// What documents may name, and is told to who may have it.
    pub secrets: Secrets,
    /// Who is connected here.
    pub nodes: Nodes,
    /// What they say that they were asked.
    pub loads: Loads,
    /// What they say of what is on trial.
    pub shadows: Shadows,
    published: watch::Sender<Published>,
    /// What is on trial.
    trial: watch::Sender<Option<Arc<Trial>>>,
    /// Whether a revision goes to some first.
    rolls_out: bool,
    /// The number of the last event.
    last_event: watch::Sender<u64>,
    happened: mpsc::Sender<Noted>,
    /// Whether whoever writes events is to come to an end.
    closing: watch::Sender<bool>,
    /// How publishing them goes, where they are published.
    pub publishing: watch::Sender<Option<Standing>>,
    /// Since which time, counted, it leads rollouts and publishes events.
    leads: watch::Receiver<Option<u64>>,
    /// One change at a time.
    changing: Mutex<()>,
    shown: Mutex<Shown>,
}

/// What is this process's own, and in no store.
#[derive(Debug, Default)]
pub struct Keys {
    /// Who gives nodes their identities, if anybody does.
    pub authority: Option<Authority>,
    /// What documents may name.
    pub secrets: Secrets,
}

/// What is published is of.
#[derive(Debug, Default)]
struct Shown {
    course: Option<Course>,
    /// Revisions that are not what this version accepts.
    unfit: BTreeSet<u64>,
    /// It is told to all, and that is not noted yet.
    is_owed: bool,
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
    /// It is put on trial, and does not come into force.
    pub shadow: bool,
    /// Nothing is changed, only said.
    pub dry_run: bool,
}

/// A revision that is not accepted yet.
struct Draft {
    author: String,
    message: String,
    rollback_to: Option<u64>,
    shadow: bool,
    documents: Documents,
}

/// What a change is made on.
struct Current {
    /// The last revision of all, be it on trial.
    last: u64,
    /// The last that was accepted to come into force; 0 before any was.
    number: u64,
    documents: Documents,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The revision in force, or on trial where that was asked for; that before, where nothing changed or nothing was to.
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

impl Plane {
    /// Serves what was accepted last. What is to be noted is written by a task of its own.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open(
        store: Arc<dyn Store>,
        Keys { authority, secrets }: Keys,
        rollout: Option<&Rollout>,
    ) -> Result<Arc<Self>, StoreError> {
        let last_event = store.last_event()?;
        let (happened, queued) = mpsc::channel(QUEUE);
        let leads = store.shared().map_or_else(|| watch::channel(Some(0)).1, |shared| shared.leads());
        let plane = Arc::new(Self {
            store,
            authority,
            secrets,
            nodes: Nodes::default(),
            loads: Loads::new(rollout.map_or(Loads::INTERVAL, |rollout| Loads::interval_of(rollout.watch))),
            shadows: Shadows::default(),
            published: watch::Sender::new(Published::to_all(Arc::new(Serving::nothing()))),
            trial: watch::Sender::new(None),
            rolls_out: rollout.is_some(),
            last_event: watch::Sender::new(last_event),
            happened,
            closing: watch::Sender::new(false),
            publishing: watch::Sender::new(None),
            leads,
            changing: Mutex::new(()),
            shown: Mutex::default(),
        });
        plane.catch_up()?;
        tokio::spawn(write_events(Arc::clone(&plane), queued, plane.closing.subscribe()));
        Ok(plane)
    }

    /// Publishes what the store says now. It reads, and so it blocks.
    fn catch_up(&self) -> Result<(), StoreError> {
        self.show(&mut self.shown(), &self.store.course()?, None)
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes how far revisions have come, unless it is known that they have come further.
    fn show(
        &self,
        shown: &mut Shown,
        course: &Course,
        known: Option<&Arc<Serving>>,
    ) -> Result<(), StoreError> {
        let Course { at, stable, candidate, shadow } = course;
        if let Some(last) = &mut shown.course {
            if *at < last.at {
                return Ok(());
            }
            // Whatever nodes say to any control plane is counted too: all that would wake every stream for nothing.
            let is_same = (stable, candidate, shadow) == (&last.stable, &last.candidate, &last.shadow);
            if is_same && !shown.is_owed {
                last.at = *at;
                return Ok(());
            }
        }
        // Nodes are not even looked at for what is on trial alone.
        let is_of_trial =
            shown.course.as_ref().is_some_and(|last| (stable, candidate) == (&last.stable, &last.candidate));
        if !is_of_trial || shown.is_owed {
            self.publish(shown, course, known)?;
        }
        self.try_out(shown, course.shadow, known)?;
        shown.course = Some(course.clone());
        Ok(())
    }

    fn publish(
        &self,
        shown: &mut Shown,
        course: &Course,
        known: Option<&Arc<Serving>>,
    ) -> Result<(), StoreError> {
        let now = self.published.borrow().clone();
        let before = now.digests();
        let candidate = now.candidate.as_ref().map(|candidate| &candidate.serving);
        let known: Vec<_> = [known, Some(&now.stable), candidate].into_iter().flatten().collect();
        let mut ready = |number: u64| match known.iter().find(|of| of.revision == number) {
            Some(serving) => Ok(Some(Arc::clone(serving))),
            None => self.prepared(number, &mut shown.unfit),
        };
        let stable = course.stable.map_or(Ok(None), &mut ready)?;
        let latest = course.candidate.as_ref().map_or(Ok(None), |(number, _)| ready(*number))?;
        let nodes = course.candidate.as_ref().map(|(_, nodes)| Arc::new(nodes.clone())).unwrap_or_default();
        shown.is_owed = false;
        let published = match (stable, latest) {
            // Nodes keep what they have, as nothing is told to them.
            (None, None) => now,
            (Some(only), None) => Published::to_all(only),
            // There is nothing to be told to the others.
            (None, Some(only)) => {
                let noted = self.store.note_stable(only.revision);
                shown.is_owed = !matches!(noted, Ok(true));
                if let Err(error) = noted {
                    tracing::debug!(%error, "this revision is led to all once more");
                }
                Published::to_all(only)
            }
            (Some(stable), Some(serving)) => {
                Published { stable, candidate: Some(Candidate { serving, nodes }) }
            }
        };
        let is_other = published.digests() != before;
        self.published.send_replace(published);
        if is_other {
            self.shadows.begin_again();
        }
        Ok(())
    }

    /// A revision that is kept, ready to be served.
    fn prepared(&self, number: u64, unfit: &mut BTreeSet<u64>) -> Result<Option<Arc<Serving>>, StoreError> {
        if unfit.contains(&number) {
            return Ok(None);
        }
        let Some(revision) = self.store.revision(number)? else { return Ok(None) };
        // What it names was there when it was accepted; what is gone is missed where it is to be told.
        match checked(number, &revision.documents, None) {
            Ok((serving, _)) => Ok(Some(Arc::new(serving))),
            Err(error) => {
                tracing::error!(revision = number, %error, "this revision is not what this version accepts, and is not served");
                unfit.insert(number);
                Ok(None)
            }
        }
    }

    /// Since which time, counted, this control plane leads rollouts and publishes events; `None` while another does.
    pub fn leads(&self) -> watch::Receiver<Option<u64>> {
        self.leads.clone()
    }

    /// Who is connected, here or to another control plane of the same store, in the order in which they came.
    pub fn everybody(&self) -> Vec<NodeStatus> {
        let mut own = self.nodes.all();
        for node in &mut own {
            node.load = self.loads.status(&node.id, Instant::now());
        }
        self.with_others(own)
    }

    /// The same, without what those of this control plane were asked.
    pub fn connected(&self) -> Vec<NodeStatus> {
        self.with_others(self.nodes.all())
    }

    fn with_others(&self, mut own: Vec<NodeStatus>) -> Vec<NodeStatus> {
        let Some(shared) = self.store.shared() else { return own };
        let mut all = shared.nodes();
        all.append(&mut own);
        all.sort_by_cached_key(|node| OffsetDateTime::parse(&node.since, &Rfc3339).ok());
        all
    }

    /// What is served, and when it changes.
    pub fn published(&self) -> watch::Receiver<Published> {
        self.published.subscribe()
    }

    /// Tells these nodes of a candidate, if it still is one. It writes, and so it blocks.
    ///
    /// # Errors
    /// It could not be noted: nobody is told.
    pub fn offer(&self, revision: u64, nodes: &BTreeSet<String>) -> Result<(), StoreError> {
        if self.store.offer(revision, nodes)? {
            self.catch_up()?;
        }
        Ok(())
    }

    /// A candidate has proven itself: all are told. It writes, and so it blocks.
    ///
    /// # Errors
    /// It could not be noted: some are told, as before.
    pub fn settle(&self, revision: u64) -> Result<(), StoreError> {
        let _one = self.one();
        self.tell_all(revision)
    }

    /// The same, for whoever is the one who changes something.
    fn tell_all(&self, revision: u64) -> Result<(), StoreError> {
        if self.store.note_stable(revision)? {
            tracing::info!(revision, "told to all");
            self.note(Happened::RolloutDone { revision });
            self.catch_up()?;
        }
        Ok(())
    }

    /// A candidate has not: what was before it becomes the next revision, unless somebody has written another one. It writes,
    /// and so it blocks.
    ///
    /// # Errors
    /// It could not be kept: some are told of the candidate, as before.
    pub fn take_back(&self, revision: u64, why: &str) -> Result<(), StoreError> {
        let _one = self.one();
        let Course { at: _, stable, candidate, shadow: _ } = self.store.course()?;
        let Some(stable) = stable.filter(|_| candidate.is_some_and(|(number, _)| number == revision)) else {
            return Ok(());
        };
        match self.bring_back(stable, &("rollout".to_owned(), why.to_owned()), false) {
            // Whoever wrote another one meanwhile has taken it back.
            Ok(None) => {}
            // It says what was before it: there is nothing to be brought back.
            Ok(Some(outcome)) if outcome.revision == revision => self.tell_all(revision)?,
            Ok(Some(_)) => {
                tracing::error!(revision, why, "taken back");
                self.note(Happened::RolledBack { revision, why: why.to_owned() });
            }
            Err(ChangeError::Store(error)) => return Err(error),
            Err(error) => tracing::error!(revision, why, %error, "what was before cannot be brought back"),
        }
        Ok(())
    }

    /// What is kept.
    pub fn store(&self) -> &dyn Store {
        &*self.store
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
        self.until_first(|| {
            let current = self.current()?;
            let mut after = current.documents.clone();
            for (name, text) in &change.documents {
                match text {
                    Some(text) => drop(after.insert(name.clone(), text.clone())),
                    None if after.remove(name).is_none() => {
                        return Err(ChangeError::Refused(format!("there is no document `{name}`")));
                    }
                    None => {}
                }
            }
            let (author, message) = (change.author.clone(), change.message.clone());
            let draft = Draft { author, message, rollback_to: None, shadow: change.shadow, documents: after };
            self.accept(&current, draft, None, change.dry_run)
        })
    }

    /// Takes over what the directory says, where that is another than the last time: what was rolled back stays so until
    /// somebody writes there.
    ///
    /// # Errors
    /// All that is wrong with it; nothing is changed then.
    pub fn take_over(&self, directory: &Documents) -> Result<(), ChangeError> {
        self.until_first(|| {
            if self.store.directory()? == *directory {
                return Ok(Some(()));
            }
            let current = self.current()?;
            let others = current.documents.iter().filter(|(name, _)| !name.starts_with(DIRECTORY));
            let mut after: Documents = others.map(owned).collect();
            after.extend(directory.iter().map(|(name, text)| (format!("{DIRECTORY}{name}"), text.clone())));
            let draft = Draft {
                author: "directory".to_owned(),
                message: String::new(),
                rollback_to: None,
                shadow: false,
                documents: after,
            };
            Ok(self.accept(&current, draft, Some(directory), false)?.map(drop))
        })
    }

    /// Makes a revision of what an earlier one says.
    ///
    /// # Errors
    /// There is no such revision, or it is not what this version accepts.
    pub fn rollback(
        &self,
        to: u64,
        author: &(String, String),
        dry_run: bool,
    ) -> Result<Outcome, ChangeError> {
        self.until_first(|| self.bring_back(to, author, dry_run))
    }

    /// Makes a change on what is there, and anew where another control plane was the first to change that.
    fn until_first<T>(&self, change: impl Fn() -> Result<Option<T>, ChangeError>) -> Result<T, ChangeError> {
        let _one = self.one();
        for _ in 0..TRIES {
            if let Some(done) = change()? {
                return Ok(done);
            }
        }
        Err(ChangeError::Refused("others change it faster; try again".to_owned()))
    }

    /// The same once, for whoever is the one who changes something.
    fn bring_back(
        &self,
        to: u64,
        (author, message): &(String, String),
        dry_run: bool,
    ) -> Result<Option<Outcome>, ChangeError> {
        let Some(earlier) = self.store.revision(to)? else {
            return Err(ChangeError::Refused(format!("there is no revision {to}")));
        };
        if earlier.shadow {
            let why =
                format!("revision {to} is a shadow and never was in force; what is on trial is promoted");
            return Err(ChangeError::Refused(why));
        }
        let (author, message) = (author.clone(), message.clone());
        let draft =
            Draft { author, message, rollback_to: Some(to), shadow: false, documents: earlier.documents };
        self.accept(&self.current()?, draft, None, dry_run)
    }

    /// `None` where another control plane was the first.
    fn accept(
        &self,
        current: &Current,
        Draft { author, message, rollback_to, shadow, documents }: Draft,
        directory: Option<&Documents>,
        dry_run: bool,
    ) -> Result<Option<Outcome>, ChangeError> {
        let Current { last, number, documents: before } = current;
        let (time, diff) = (rfc3339(SystemTime::now()), diff(before, &documents));
        let (serving, warnings) =
            checked(last + 1, &documents, Some(self.secrets.holds())).map_err(ChangeError::Invalid)?;
        if shadow && let Some(why) = unsayable(&serving) {
            return Err(ChangeError::Invalid(why));
        }
        if dry_run || (diff.is_empty() && directory.is_none()) {
            return Ok(Some(Outcome { revision: *number, diff, warnings }));
        }
        // What others made of what is there is known first.
        self.catch_up()?;
        if shadow && let Some(revision) = self.is_tried(&serving, *number) {
            return Ok(Some(Outcome { revision, diff, warnings }));
        }
        let (number, before) = (last + 1, Some(*number));
        let revision = Revision { number, time, author, message, rollback_to, shadow, before, documents };
        // What was told to all before needs no proof.
        let is_proven = revision.rollback_to.map_or(Ok(false), |to| self.store.is_proven(to))?;
        let is_first = self.published.borrow().stable.revision == 0;
        let is_stable = !shadow && (!self.rolls_out || is_proven || is_first);
        let replaced = if shadow { self.store.course()?.shadow } else { None };
        let accepted = Accepted { revision: &revision, directory, is_stable };
        // Whoever hears of it first waits: it is ready here.
        let mut shown = self.shown();
        let Some(event) = self.store.accept(accepted)? else { return Ok(None) };
        event.id.parse().into_iter().for_each(|id| self.note_written(id));
        tracing::info!(revision = revision.number, author = revision.author, shadow, "accepted");
        if let Some(revision) = replaced {
            self.note(Happened::Shadow { revision, what: OfShadow::Replaced(number) });
        }
        // Only now: what is served is kept.
        let told = self.store.course().and_then(|now| self.show(&mut shown, &now, Some(&Arc::new(serving))));
        if let Err(error) = told {
            tracing::warn!(revision = revision.number, %error, "it is told when the store is back");
        }
        Ok(Some(Outcome { revision: revision.number, diff, warnings }))
    }

    /// What a change is made on now. Of what others write meanwhile the number that is looked at first tells.
    fn current(&self) -> Result<Current, StoreError> {
        let last = self.store.last()?;
        let latest = self.store.latest()?;
        let (number, documents) =
            latest.map_or_else(Default::default, |revision| (revision.number, revision.documents));
        Ok(Current { last, number, documents })
    }

    fn one(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes what others accepted, where the store is shared, for ever.
pub async fn follow(plane: Arc<Plane>) {
    let Some(mut changes) = plane.store.shared().map(|shared| shared.changes()) else { return };
    loop {
        changes.borrow_and_update();
        let reader = Arc::clone(&plane);
        let shown = tokio::task::spawn_blocking(move || {
            let Some(shared) = reader.store.shared() else { return Ok(()) };
            reader.note_written(shared.heard_event());
            let mut shown = reader.shown();
            reader.show(&mut shown, &shared.heard()?, None)
        });
        match shown.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "what others accepted is not served yet");
                sleep(PAUSE).await;
                continue;
            }
            Err(_) => return,
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn owned((name, text): (&String, &String)) -> (String, String) {
    (name.clone(), text.clone())
}

#[cfg(test)]
#[path = "plane_tests.rs"]
mod tests;
