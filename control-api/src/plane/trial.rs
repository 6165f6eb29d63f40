//! What is on trial: how it begins, ends, and comes into force.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::{ChangeError, Current, Draft, Outcome, Plane, Shown};
use crate::events::{Happened, OfShadow};
use crate::serving::Serving;
use crate::shadow::{ListenerChange, Trial, TrialNode, TrialStatus, unsayable};
use crate::store::{Revision, StoreError};

/// What is on trial is to come into force.
#[derive(Clone, Debug, Default)]
pub struct Promotion {
    /// What is meant; whatever is on trial where it is not said.
    pub revision: Option<u64>,
    /// Who wants it.
    pub author: String,
    /// Why; may be empty.
    pub message: String,
    /// Even if it takes back what others changed since it was written.
    pub force: bool,
    /// Nothing is changed, only said.
    pub dry_run: bool,
}

impl Plane {
    /// What is on trial, and when that changes.
    pub fn trial(&self) -> watch::Receiver<Option<Arc<Trial>>> {
        self.trial.subscribe()
    }

    /// Publishes what is on trial, and ends it where it has come into force.
    pub(super) fn try_out(
        &self,
        shown: &mut Shown,
        number: Option<u64>,
        known: Option<&Arc<Serving>>,
    ) -> Result<(), StoreError> {
        let now = self.trial.borrow().clone();
        let mut trial = now.filter(|trial| Some(trial.entry.number) == number);
        if trial.is_none() {
            trial = number.map_or(Ok(None), |number| self.tried(number, known, shown))?;
            self.put_on_trial(trial.clone());
        }
        let Some(trial) = trial else { return Ok(()) };
        let (revision, stable) = (trial.entry.number, Arc::clone(&self.published.borrow().stable));
        // What was in force when it was written and said the same was in the way of another: nobody has promoted it.
        if stable.revision < revision || stable.digest != trial.serving.digest {
            return Ok(());
        }
        match self.store.end_shadow(revision) {
            Ok(true) => self.note(Happened::Shadow { revision, what: OfShadow::Promoted(stable.revision) }),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(revision, %error, "what has come into force stays on trial until the next revision");
                return Ok(());
            }
        }
        self.put_on_trial(None);
        Ok(())
    }

    fn put_on_trial(&self, trial: Option<Arc<Trial>>) {
        let number = trial.as_ref().map_or(0, |trial| trial.entry.number);
        if self.trial.borrow().is_some() || number > 0 {
            self.shadows.begin(number);
            self.trial.send_replace(trial);
        }
    }

    fn tried(
        &self,
        number: u64,
        known: Option<&Arc<Serving>>,
        shown: &mut Shown,
    ) -> Result<Option<Arc<Trial>>, StoreError> {
        let serving = match known.filter(|known| known.revision == number) {
            Some(known) => Some(Arc::clone(known)),
            None => self.prepared(number, &mut shown.unfit)?,
        };
        let Some(serving) = serving else { return Ok(None) };
        // An earlier version has accepted it.
        if let Some(why) = unsayable(&serving) {
            tracing::error!(revision = number, why, "this revision is not put on trial");
            shown.unfit.insert(number);
            return Ok(None);
        }
        let revision = self.store.revision(number)?;
        Ok(revision.map(|revision| Arc::new(Trial::new(revision.into(), serving))))
    }

    /// What is on trial, where it says this and was written when this was in force.
    pub(super) fn is_tried(&self, serving: &Serving, before: u64) -> Option<u64> {
        let trial = self.trial.borrow();
        let same = trial
            .as_ref()
            .filter(|trial| trial.serving.digest == serving.digest && trial.entry.before == Some(before));
        same.map(|trial| trial.entry.number)
    }

    /// Makes a revision of what is on trial, which comes into force as any other does. It writes, and so it blocks.
    ///
    /// # Errors
    /// Nothing is on trial, or another revision than was meant, or what was in force when it was written is not any more: to
    /// promote it would take back what others changed since.
    pub fn promote(&self, promotion: &Promotion) -> Result<Outcome, ChangeError> {
        let Promotion { revision: meant, author, message, force, dry_run } = promotion;
        let refused = |why: String| Err(ChangeError::Refused(why));
        self.until_first(|| {
            let on_trial = self.store.course()?.shadow;
            let shadow = on_trial.map_or(Ok(None), |number| self.store.revision(number))?;
            let Some(shadow) = shadow else { return refused("nothing is on trial".to_owned()) };
            let number = shadow.number;
            if let Some(meant) = meant.filter(|meant| *meant != number) {
                return refused(format!("revision {number} is on trial, not {meant}; look at it first"));
            }
            let current = self.current()?;
            // What says the same is on its way already, and is the answer.
            let is_led = shadow.documents == current.documents;
            if !force && !is_led && !self.is_current(&shadow, &current)? {
                return refused(format!(
                    "revision {} is in force, and {number} was written when {} was: to promote it would take back what was \
                     changed since; put it on trial anew, or promote it by force",
                    current.number,
                    shadow.before()
                ));
            }
            let message =
                if message.is_empty() { format!("promotes {number}") } else { message.clone() };
            let documents = shadow.documents;
            let draft =
                Draft { author: author.clone(), message, rollback_to: None, shadow: false, documents };
            self.accept(&current, draft, None, *dry_run)
        })
    }

    /// Whether what was in force when it was written is, by what it says.
    fn is_current(&self, shadow: &Revision, current: &Current) -> Result<bool, StoreError> {
        let before = shadow.before();
        if before == current.number {
            return Ok(true);
        }
        let before = self.store.revision(before)?.map(|revision| revision.documents);
        Ok(before.unwrap_or_default() == current.documents)
    }

    /// Ends what is on trial; its number, if anything was. It writes, and so it blocks. A dry run only says which it is.
    ///
    /// # Errors
    /// It could not be noted: it goes on.
    pub fn end_shadow(&self, author: &str, dry_run: bool) -> Result<Option<u64>, StoreError> {
        let _one = self.one();
        let Some(revision) = self.store.course()?.shadow else { return Ok(None) };
        if dry_run {
            return Ok(Some(revision));
        }
        if !self.store.end_shadow(revision)? {
            return Ok(None);
        }
        tracing::info!(revision, author, "not on trial any more");
        self.note(Happened::Shadow { revision, what: OfShadow::Ended(author.to_owned()) });
        self.catch_up()?;
        Ok(Some(revision))
    }

    /// What is on trial, and what nodes say of it, here and to other control planes of the same store. It reads, and so it blocks.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn trial_status(&self) -> Result<Option<TrialStatus>, StoreError> {
        let Some(trial) = self.trial.borrow().clone() else { return Ok(None) };
        let revision = trial.entry.number;
        let (shadow, latest) = (self.store.revision(revision)?, self.current()?);
        let current = shadow.as_ref().map_or(Ok(false), |shadow| self.is_current(shadow, &latest))?;
        let promoted = shadow.filter(|shadow| shadow.documents == latest.documents).map(|_| latest.number);
        let mut findings = self.shadows.findings();
        let others = self.store.shared().map(|shared| shared.findings(revision)).unwrap_or_default();
        others.into_iter().for_each(|other| findings.add(other));
        findings.differences.sort_by_key(|of| Reverse(of.requests));
        let published = self.published.borrow().clone();
        let in_force = published.candidate.map_or(published.stable, |candidate| candidate.serving);
        let entry = trial.entry.clone();
        Ok(Some(TrialStatus {
            revision,
            author: entry.author,
            since: entry.time,
            message: entry.message,
            before: entry.before.unwrap_or_default(),
            current,
            promoted,
            listeners: ListenerChange::between(in_force.fleet(), trial.serving.fleet()),
            evaluated: findings.evaluated,
            differences: findings.differences,
            others: findings.others,
            nodes: self.trial_nodes(revision),
        }))
    }

    /// Who asks for what is on trial, which is of this revision, and who for what is in force alone.
    fn trial_nodes(&self, revision: u64) -> Vec<TrialNode> {
        let others = self.connected().into_iter().map(|node| TrialNode::other(node.id, node.agent));
        let mut nodes: BTreeMap<_, _> = others.map(|node| (node.id.clone(), node)).collect();
        let mut followers = self.store.shared().map(|shared| shared.followers()).unwrap_or_default();
        followers.append(&mut self.shadows.followers());
        nodes.extend(
            followers
                .into_iter()
                .map(|(id, following)| (id.clone(), TrialNode::following(revision, id, following))),
        );
        nodes.into_values().collect()
    }
}
