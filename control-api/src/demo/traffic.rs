//! The client of the demonstration: it asks the front all the time, a replica at a time, and counts who answers.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::documents::SERVICES;
use super::service::{Answer, call};

/// Between two requests.
const EVERY: Duration = Duration::from_millis(25);
/// Under way at once. On a machine that is busy with other things the client does not make it worse.
const AT_ONCE: usize = 8;

/// What was seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Requests that have an outcome.
    pub(super) requests: u64,
    /// Those without the answer that they were to have.
    pub(super) failed: u64,
    /// Why the last of them failed.
    pub(super) why: Option<String>,
    /// How many each replica had a part in.
    pub(super) by: BTreeMap<String, u64>,
    /// How many came of each version of the configuration.
    pub(super) versions: BTreeMap<String, u64>,
}

/// The client, for as long as this value lives.
#[derive(Debug)]
pub(super) struct Traffic {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Traffic {
    /// Begins to ask these, one after the other.
    pub(super) fn start(runtime: &Handle, fronts: Vec<SocketAddr>) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        Self { task: runtime.spawn(ask(fronts, Arc::clone(&seen))), seen }
    }

    /// What was seen so far.
    pub(super) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn ask(fronts: Vec<SocketAddr>, seen: Arc<Mutex<Seen>>) {
    let mut turns = tokio::time::interval(EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let free = Arc::new(Semaphore::new(AT_ONCE));
    for front in fronts.into_iter().cycle() {
        turns.tick().await;
        let Ok(one) = Arc::clone(&free).acquire_owned().await else { return };
        let seen = Arc::clone(&seen);
        // Apart: one that waits holds up no other.
        tokio::spawn(async move {
            let outcome = call(front).await;
            lock(&seen).note(outcome);
            drop(one);
        });
    }
}

impl Seen {
    fn note(&mut self, outcome: Result<Answer, String>) {
        self.requests += 1;
        match outcome {
            Ok(Answer { status, version, body }) if status.is_success() => {
                for who in body.split_whitespace() {
                    *self.by.entry(who.to_owned()).or_default() += 1;
                }
                *self.versions.entry(version.unwrap_or_default()).or_default() += 1;
            }
            Ok(Answer { status, version: _, body }) => self.fail(format!("{status}: {}", body.trim_end())),
            Err(lost) => self.fail(lost),
        }
    }

    /// How many there were and failed, and why the last did.
    pub(super) fn outcome(&self) -> String {
        let Self { requests, failed, why, by: _, versions: _ } = self;
        let why = why.as_ref().map(|why| format!(" (the last: {why})")).unwrap_or_default();
        format!("{requests} requests, {failed} failed{why}")
    }

    fn fail(&mut self, why: String) {
        self.failed += 1;
        self.why = Some(why);
    }

    /// What was seen since then.
    pub(super) fn since(&self, before: &Self) -> Self {
        let Self { requests, failed, why, by, versions } = self;
        Self {
            requests: requests - before.requests,
            failed: failed - before.failed,
            why: why.clone().filter(|_| *failed > before.failed),
            by: less(by, &before.by),
            versions: less(versions, &before.versions),
        }
    }

    /// Of the answers that a replica of this service has a part in, each one's in percent.
    fn shares_of(&self, service: &str) -> BTreeMap<&str, f64> {
        let is_its = |who: &str| who.rsplit_once('-').is_some_and(|(of, _)| of == service);
        let counts = || self.by.iter().filter(|(who, _)| is_its(who));
        let all: u64 = counts().map(|(_, count)| count).sum();
        counts().map(|(who, count)| (who.as_str(), 100.0 * *count as f64 / all as f64)).collect()
    }

    /// Who answers what share, for a line.
    pub(super) fn shares(&self) -> String {
        let mut out = String::new();
        for service in SERVICES {
            out.push_str(" |");
            for (who, share) in self.shares_of(service) {
                // Writing to a string cannot fail.
                let _ = write!(out, " {who} {share:.0} %");
            }
        }
        out
    }
}

/// What has come since, without what has not.
fn less(now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let since = |(key, count): (&String, &u64)| (key.clone(), count - before.get(key).copied().unwrap_or(0));
    now.iter().map(since).filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn answer(status: StatusCode, version: &str, body: &str) -> Result<Answer, String> {
        Ok(Answer { status, version: Some(version.to_owned()), body: body.to_owned() })
    }

    #[test]
    fn who_answers_what_share_is_counted_since_then() {
        let mut seen = Seen::default();
        seen.note(answer(StatusCode::OK, "one", "front-1 cart-1\n"));
        let before = seen.clone();
        seen.note(answer(StatusCode::OK, "two", "front-1 cart-2\n"));
        seen.note(answer(StatusCode::OK, "two", "front-2 cart-2\n"));
        seen.note(answer(StatusCode::BAD_GATEWAY, "two", "front-2 has no answer\n"));
        seen.note(Err("nothing".to_owned()));
        let since = seen.since(&before);
        assert_eq!((since.requests, since.failed, since.why.as_deref()), (4, 2, Some("nothing")));
        assert_eq!(since.versions, BTreeMap::from([("two".to_owned(), 2)]));
        assert_eq!(since.shares(), " | front-1 50 % front-2 50 % | cart-2 100 % |");
        assert_eq!(seen.shares(), " | front-1 67 % front-2 33 % | cart-1 33 % cart-2 67 % |");
        assert_eq!(seen.since(&seen), Seen { by: BTreeMap::new(), ..Seen::default() });
    }
}
