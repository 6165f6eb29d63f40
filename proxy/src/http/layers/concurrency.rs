//! How many requests of a route are under way at once, until the last byte of their answer. A request that finds it full
//! waits for its turn, but never past its own deadline. Of a limit that follows the latency, this is also where it is
//! measured: from being let in to the head of the answer.

use std::rc::Rc;

use http::StatusCode;
use http_body::Body as _;
use tokio::time::Instant;

use super::Outcome;
use super::detour::{Detour, Fork, Inner};
use crate::error::ProxyError;
use crate::gate::{Call as Turn, Entry, Waiting};
use crate::http::call::{Call, Ledger};
use crate::http::caller::Caller;
use crate::http::layers::timeout;
use crate::policy::adaptive::Took;
use crate::policy::bulkhead::Bulkhead;
use crate::policy::retry::grpc_status;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct ConcurrencyFork;

impl Fork for ConcurrencyFork {
    fn send<S: Inner>(self, inner: &mut S, call: Call) -> Detour<S::Future> {
        let Some(bulkhead) = bulkhead(&call.ledger) else { return Detour::straight(inner.call(call)) };
        let caller = Caller::of(&call, &bulkhead.config().per);
        match bulkhead.enter(caller.key(), call.ledger.conn().worker().id()) {
            Entry::In(permit) => {
                call.ledger.set_place(permit);
                if bulkhead.is_adaptive() {
                    let timing = Timing::new(&call);
                    return Detour::then(inner.call(call), |outcome| timing.end(outcome));
                }
                Detour::straight(inner.call(call))
            }
            Entry::Full => {
                let error = ProxyError::Crowded(bulkhead.crowd(caller.key()));
                Detour::around(std::future::ready(Err(error)))
            }
            Entry::Line(waiting) => Detour::around(in_line(inner.clone(), call, waiting)),
        }
    }
}

fn bulkhead(ledger: &Ledger) -> Option<&Bulkhead> {
    ledger.limits()?.concurrency.as_deref()
}

async fn in_line<S: Inner>(mut inner: S, call: Call, waiting: Waiting) -> Outcome {
    let bulkhead = bulkhead(&call.ledger).expect("looked at before");
    let end = Instant::now() + bulkhead.config().wait;
    let late = timeout::deadline(&call).filter(|deadline| *deadline < end);
    match tokio::time::timeout_at(late.unwrap_or(end), waiting).await {
        Ok(Turn::In(permit)) => {
            call.ledger.set_place(permit);
            call.ledger.trip().held_up(Instant::now());
        }
        // Nothing is ever handed over here.
        Ok(Turn::Look) => {}
        Err(_) if late.is_some() => return Err(ProxyError::Timeout),
        Err(_) => {
            let caller = Caller::of(&call, &bulkhead.config().per);
            return Err(ProxyError::WaitedTooLong(bulkhead.crowd(caller.key())));
        }
    }
    let timing = bulkhead.is_adaptive().then(|| Timing::new(&call));
    let outcome = inner.call(call).await;
    match timing {
        Some(timing) => timing.end(outcome),
        None => outcome,
    }
}

/// Tells a limit that follows the latency what an answer took, when it is dropped: also one that nobody waits for any more
/// has taken that long.
struct Timing {
    ledger: Rc<Ledger>,
    began: Instant,
    has_body: bool,
    /// It was answered, and what that took is what such a request takes.
    is_whole: bool,
}

impl Timing {
    fn new(call: &Call) -> Self {
        call.ledger.set_timed();
        Self {
            ledger: call.ledger.clone(),
            began: Instant::now(),
            has_body: !call.request.body().is_end_stream(),
            is_whole: false,
        }
    }

    fn end(mut self, outcome: Outcome) -> Outcome {
        self.is_whole = self.ledger.is_plain() && is_good(&outcome);
        outcome
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        let Self { ledger, began, has_body, is_whole } = self;
        let Some(bulkhead) = bulkhead(ledger).filter(|_| !ledger.is_delayed()) else { return };
        let now = Instant::now();
        let received_at = ledger.received_at();
        // What the client takes to send its request is no fault of the service.
        let took = now - received_at.map_or(*began, |at| at.max(*began));
        let took = match (*is_whole, *has_body && received_at.is_none()) {
            (true, _) => Took::Exactly(took),
            (false, false) => Took::MoreThan(took),
            (false, true) => return,
        };
        bulkhead.answered(took, now - ledger.conn().worker().shared().epoch);
    }
}

/// Whether an outcome takes what answers take. Failures come faster, or are waited for in vain.
fn is_good(outcome: &Outcome) -> bool {
    let Ok(response) = outcome else { return false };
    let status = response.status();
    !status.is_server_error()
        && status != StatusCode::TOO_MANY_REQUESTS
        // UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
        && !matches!(grpc_status(response.headers()), Some(2 | 4 | 8 | 13..=15))
}
