//! Active health checks: endpoints are asked, apart from their traffic, whether they are well. On the management
//! thread, so that no worker waits for an answer, and no answer for a worker.
//!
//! What a check comes to is decided in [`upstream::health`](crate::upstream::health), who is next in [`watchlist`];
//! here is the task that asks. It alone changes an endpoint's health; workers look at it when they pick. Requests that
//! are in flight when their endpoint turns out to be unwell go on.

mod grpc;
mod h1;
mod h2;
mod probe;
pub mod watchlist;

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use self::watchlist::{Change, Watchlist};
use crate::upstream::health::{Health, Outcome};

pub use self::watchlist::Plan;

/// Checks at once, of all clusters together: each holds a descriptor, and keeps the thread from what else it does.
const AT_ONCE: usize = 64;
/// How often clusters are looked at for endpoints that have come or gone without a new configuration, and for traffic.
const LOOK: Duration = Duration::from_millis(500);

/// The checker. Dropped, it checks no more.
#[derive(Debug)]
pub struct Checker {
    plans: UnboundedSender<Vec<Plan>>,
}

impl Checker {
    /// Checks nothing yet. `epoch` is when the process started.
    pub fn start(epoch: Instant) -> Self {
        let (plans, coming) = unbounded_channel();
        tokio::task::spawn_local(Asking::new(epoch).run(coming));
        Self { plans }
    }

    /// From now on these clusters are checked, and no others.
    pub fn follow(&self, plans: Vec<Plan>) {
        // The task ends only with us, or with the runtime.
        let _ = self.plans.send(plans);
    }
}

#[derive(Debug)]
struct Asking {
    epoch: Instant,
    list: Watchlist,
    rng: fastrand::Rng,
    probes: JoinSet<Outcome>,
    /// The endpoints that are being asked.
    running: HashMap<Id, (u64, AbortHandle)>,
}

impl Asking {
    fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            list: Watchlist::default(),
            rng: fastrand::Rng::new(),
            probes: JoinSet::new(),
            running: HashMap::new(),
        }
    }

    async fn run(mut self, mut coming: UnboundedReceiver<Vec<Plan>>) {
        let mut look = Duration::ZERO;
        loop {
            self.begin();
            let has_room = self.probes.len() < AT_ONCE;
            let wake = self.list.next().filter(|_| has_room).map_or(look, |next| next.min(look));
            tokio::select! {
                plans = coming.recv() => {
                    let Some(plans) = plans else { return };
                    self.list.follow(plans, self.epoch.elapsed(), &mut || self.rng.u64(..));
                    self.give_up_what_has_gone();
                }
                Some(ended) = self.probes.join_next_with_id() => self.done(ended),
                () = sleep_until(self.epoch + wake), if !self.list.is_empty() => {
                    let now = self.epoch.elapsed();
                    if now >= look {
                        self.list.look(now, &mut || self.rng.u64(..));
                        self.give_up_what_has_gone();
                        look = now + LOOK;
                    }
                }
            }
        }
    }

    /// Begins what is due, as far as there is room.
    fn begin(&mut self) {
        let now = self.epoch.elapsed();
        while self.probes.len() < AT_ONCE
            && let Some(job) = self.list.begin(now)
        {
            let endpoint = job.endpoint.id();
            let handle = self.probes.spawn_local(probe::probe(job));
            self.running.insert(handle.id(), (endpoint, handle));
        }
    }

    fn done(&mut self, ended: Result<(Id, Outcome), JoinError>) {
        let (task, outcome) = match ended {
            Ok(ended) => ended,
            // It panicked, and has said so itself; of the endpoint that says nothing.
            Err(error) => (error.id(), Outcome::NotAsked),
        };
        let Some((endpoint, _)) = self.running.remove(&task) else { return };
        let now = self.epoch.elapsed();
        if let Some(change) = self.list.done(endpoint, outcome, now, &mut || self.rng.u64(..)) {
            say(&change);
        }
    }

    /// What is given up is forgotten at once: should its endpoint come back, it is another check's turn.
    fn give_up_what_has_gone(&mut self) {
        let Self { list, running, .. } = self;
        running.retain(|_, (endpoint, handle)| {
            let kept = list.holds(*endpoint);
            if !kept {
                handle.abort();
            }
            kept
        });
    }
}

fn say(change: &Change) {
    let Change { cluster, endpoint, from, to, why } = change;
    let at = endpoint.at();
    let endpoint = &*at.label;
    match (to, from) {
        // After a start it is what everybody expects, and as many lines as there are endpoints.
        (Health::Healthy, Health::Unknown) => tracing::debug!(%cluster, endpoint, "endpoint is healthy"),
        (Health::Healthy, Health::Awaited | Health::Healthy | Health::Unhealthy) => {
            tracing::info!(%cluster, endpoint, "endpoint is healthy");
        }
        (Health::Unknown | Health::Awaited | Health::Unhealthy, _) => {
            tracing::info!(%cluster, endpoint, "endpoint is {}: {why}", to.as_str());
        }
    }
}
