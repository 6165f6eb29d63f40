//! What a control plane wants to be held up, and what it is told of it: `proto/outrigger/shadow/v1/shadow.proto`.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use outrigger_proto::xds::shadow::{Difference, FOLLOW, Found, Shadow};
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep_until};
use tonic::{Code, Status};

use super::{Kind, Of, Refused, Running, Said, Seen, Tally, Trials};
use crate::control::aside::{Aside, ended};
use crate::control::xds::who_asks;
use crate::identity::backoff::Backoff;

/// Reports no more often than that, whatever is asked for.
const SHORTEST: Duration = Duration::from_secs(1);
/// Reports no less often than that.
const LONGEST: Duration = Duration::from_secs(3600);

/// Does what a control plane wants for as long as the process lives.
pub async fn follow(aside: Aside, trials: Rc<Trials>) {
    let one = async |backoff: &mut Backoff| {
        let ended = stream(&aside, &trials, backoff).await;
        if ended.as_ref().is_err_and(|status| status.code() == Code::Unimplemented) {
            // It is another than that which had something on trial.
            trials.end();
        }
        ended
    };
    aside.keep("trials", one).await;
}

/// One stream, to its end. What is on trial then goes on: it is told again what that is.
async fn stream(aside: &Aside, trials: &Trials, backoff: &mut Backoff) -> Result<Infallible, Status> {
    // One that asks on demand would else be told, and keep, whole tables.
    let first = Found { node: Some(who_asks(&aside.control)), ..Found::default() };
    let mut begun = aside.open::<_, Shadow>(FOLLOW, first).await?;
    let mut every = None;
    let mut next = Instant::now();
    loop {
        tokio::select! {
            shadow = begun.heard.message() => {
                let shadow = shadow?.ok_or_else(ended)?;
                backoff.reset();
                every = trials.hear(&shadow);
                // At once, where there is something to be said that no request need be waited for.
                next = Instant::now() + every.filter(|_| trials.is_running()).unwrap_or_default();
            }
            () = sleep_until(next), if every.is_some() => {
                next = Instant::now() + every.unwrap_or(LONGEST);
                match begun.say.try_reserve() {
                    Ok(place) => match trials.report() {
                        Some(found) => place.send(found),
                        // What was refused is said once.
                        None => every = None,
                    },
                    // It goes on to be counted, and is told with what comes.
                    Err(TrySendError::Full(())) => {}
                    Err(TrySendError::Closed(())) => return Err(ended()),
                }
            }
        }
    }
}

impl Trials {
    /// A control plane says what is on trial; how often it is to be told what is found, if anything is.
    pub(super) fn hear(&self, shadow: &Shadow) -> Option<Duration> {
        if shadow.revision == 0 {
            self.end();
            return None;
        }
        let of = Of::Revision(shadow.revision);
        match Said::by_control_plane(shadow) {
            Ok(said) => self.begin(of, said),
            Err(lines) => self.refuse(of, lines),
        }
        let interval = shadow.interval.and_then(|interval| Duration::try_from(interval).ok());
        Some(interval.unwrap_or_default().clamp(SHORTEST, LONGEST))
    }

    pub(super) fn is_running(&self) -> bool {
        self.state.borrow().running.is_some()
    }

    /// What was found since the last report, or why nothing can be; nothing where that was said.
    pub(super) fn report(&self) -> Option<Found> {
        self.collect();
        let mut state = self.state.borrow_mut();
        if let Some(Refused { of: Of::Revision(revision), lines, told }) = &mut state.refused {
            let is_new = !std::mem::replace(told, true);
            let found = || Found { revision: *revision, refused: lines.clone(), ..Found::default() };
            return is_new.then(found);
        }
        let Running { of: Of::Revision(revision), trial, untold, .. } = state.running.as_mut()? else {
            return None;
        };
        let untold = std::mem::take(untold);
        let evaluated = untold.evaluated();
        let Tally { listeners: _, kinds, others } = untold;
        let names: Vec<_> = trial.names().collect();
        let difference = |(kind, seen)| {
            let (Kind { listener, in_force, shadow }, Seen { requests, example }) = (kind, seen);
            let listener = names.get(listener).map(ToString::to_string).unwrap_or_default();
            Difference { listener, in_force, shadow, requests, example }
        };
        let differences = kinds.into_iter().map(difference).collect();
        let (node, revision) = (None, *revision);
        Some(Found { node, revision, evaluated, differences, others, refused: Vec::new() })
    }
}
