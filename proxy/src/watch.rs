//! Who watches over connections that wait: one sweep a worker, a few times a second, in place of a timer for each read.
//!
//! What a connection is doing is plain data; [`judge`] decides from it, purely, and the sweep tells the connection's
//! task, which acts.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use crate::io::activity::{Activity, Ticks};
use crate::io::framing::Phase;

/// An HTTP/1 connection gives its buffers back after this long without a byte.
const PARK_AFTER_MS: u64 = 1000;

/// While the process is overloaded a connection may be idle for this long: longer than a client that means to go on
/// takes, so that few are closed just as they are used.
const CROWDED_IDLE_MS: u64 = 5000;

/// What one whom nobody wants to serve any longer is given to end: for answers that are on their way.
const FAREWELL_MS: u64 = 5000;

/// Connections of a listener that is gone may be idle for so long: their clients are on their way with a request, or not.
const GONE_QUIET_MS: u64 = 2000;

/// Whose connection it is, to be asked again whether it may stay when what decides about that has changed.
pub trait Subject: std::fmt::Debug {
    /// Whether it would be let in now.
    fn is_welcome(&self) -> bool;
}

/// What a connection is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// TLS handshake, or the first bytes that tell the protocol.
    Opening,
    /// HTTP/1, in use or about to be.
    Http1,
    /// HTTP/1, idle, its buffers given back.
    Parked,
    /// HTTP/2.
    Http2,
    /// Bytes.
    Tunnel,
}

/// What the sweep wants of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Give the buffers back.
    Park,
    /// The request's head took too long.
    HeaderTimeout,
    /// Nothing moved for too long.
    IdleTimeout,
    /// Finish what is in flight, then end: HTTP/2 is told by GOAWAY.
    Drain,
    /// End now.
    Close,
}

/// How far the process is on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leaving {
    /// It stays.
    #[default]
    No,
    /// Readiness is withdrawn; answers carry `connection: close`.
    Draining,
    /// Idle connections end.
    Quiet,
    /// All connections end.
    Over,
}

/// How the process stands, as far as connections are touched by it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// How far it is on its way out.
    pub leaving: Leaving,
    /// Whether it needs the room that idle connections take.
    pub crowded: bool,
}

/// The limits a connection is held to.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a whole head.
    pub header: Duration,
    /// For any byte.
    pub idle: Duration,
}

/// A connection, as the sweep sees it.
#[derive(Debug)]
pub struct Watch {
    activity: Rc<Activity>,
    stage: Cell<Stage>,
    active: Cell<u32>,
    verdict: Cell<Option<Verdict>>,
    drained: Cell<bool>,
    patience: Cell<Patience>,
    waker: RefCell<Waker>,
    subject: RefCell<Option<Weak<dyn Subject>>>,
    /// Since when it is not to be here, by the worker's clock.
    unwelcome: Cell<Option<u64>>,
    /// Since when its listener is gone, by the same.
    gone: Cell<Option<u64>>,
}

impl Watch {
    /// A connection that has just been accepted.
    pub fn new(activity: Rc<Activity>, patience: Patience) -> Self {
        Self {
            activity,
            stage: Cell::new(Stage::Opening),
            active: Cell::new(0),
            verdict: Cell::new(None),
            drained: Cell::new(false),
            patience: Cell::new(patience),
            waker: RefCell::new(Waker::noop().clone()),
            subject: RefCell::default(),
            unwelcome: Cell::new(None),
            gone: Cell::new(None),
        }
    }

    /// Whose connection it is.
    pub fn set_subject(&self, subject: Weak<dyn Subject>) {
        *self.subject.borrow_mut() = Some(subject);
    }

    /// Asks whether it would still be let in. To be called when what decides about that has changed.
    pub fn reconsider(&self) {
        // Who it is is not known yet, and what is decided now would be about nobody.
        if self.stage.get() == Stage::Opening {
            return;
        }
        let subject = self.subject.borrow().as_ref().and_then(Weak::upgrade);
        let Some(subject) = subject else { return };
        let since = self.unwelcome.get().unwrap_or_else(|| self.activity.now());
        self.unwelcome.set((!subject.is_welcome()).then_some(since));
    }

    /// Whether it is about to end, as it would no longer be let in.
    pub fn is_unwelcome(&self) -> bool {
        self.unwelcome.get().is_some()
    }

    /// Whether there still is the listener that it came to.
    pub fn set_gone(&self, gone: bool) {
        let since = self.gone.get().unwrap_or_else(|| self.activity.now());
        self.gone.set(gone.then_some(since));
    }

    /// Whether its listener is gone.
    pub fn is_gone(&self) -> bool {
        self.gone.get().is_some()
    }

    /// What its bytes are doing.
    pub fn activity(&self) -> &Rc<Activity> {
        &self.activity
    }

    /// What it is about now.
    pub fn enter(&self, stage: Stage) {
        self.stage.set(stage);
    }

    /// The limits changed.
    pub fn set_patience(&self, patience: Patience) {
        self.patience.set(patience);
    }

    /// Requests in flight.
    pub fn active(&self) -> u32 {
        self.active.get()
    }

    /// A request begins.
    pub fn begin(&self) {
        self.active.set(self.active.get() + 1);
    }

    /// A request ended.
    pub fn end(&self) {
        self.active.set(self.active.get() - 1);
    }

    /// What the sweep wants, if anything; `cx` is woken when it comes to want something.
    pub fn poll_verdict(&self, cx: &Context<'_>) -> Option<Verdict> {
        let verdict = self.verdict.take();
        if verdict.is_none() && !self.waker.borrow().will_wake(cx.waker()) {
            *self.waker.borrow_mut() = cx.waker().clone();
        }
        verdict
    }

    /// Looks at the connection; tells its task when something is wanted.
    pub fn sweep(&self, standing: Standing) {
        let since =
            |time: &Cell<Option<u64>>| time.get().map(|since| self.activity.now().saturating_sub(since));
        let facts = Facts {
            stage: self.stage.get(),
            active: self.active.get(),
            phase: self.activity.phase(),
            phase_ms: self.activity.phase_ms(),
            idle_ms: self.activity.idle_ms(),
            fresh: self.activity.received() == 0,
            write_blocked: self.activity.write_blocked(),
            drained: self.drained.get(),
            unwelcome_ms: since(&self.unwelcome),
            gone_ms: since(&self.gone),
        };
        let Some(verdict) = judge(&facts, self.patience.get(), standing) else { return };
        if verdict == Verdict::Drain {
            self.drained.set(true);
        }
        self.verdict.set(Some(verdict));
        self.waker.borrow().wake_by_ref();
    }
}

/// One HTTP/2 stream, as the sweep sees it. Its connection may be busy while it stands still: a client that opens
/// streams and takes nothing makes us hold what it asked for.
#[derive(Debug)]
pub struct StreamWatch {
    ticks: Ticks,
    moved: Cell<u64>,
    patience_ms: u64,
    idle: Cell<bool>,
    waker: RefCell<Waker>,
}

impl StreamWatch {
    /// A stream that has just been opened.
    pub fn new(ticks: Ticks, patience: Patience) -> Self {
        Self {
            moved: Cell::new(ticks.now()),
            ticks,
            patience_ms: patience.idle.as_millis() as u64,
            idle: Cell::new(false),
            waker: RefCell::new(Waker::noop().clone()),
        }
    }

    /// A byte of it moved.
    pub fn touch(&self) {
        self.moved.set(self.ticks.now());
    }

    /// Whether nothing has moved for too long; `cx` is woken when that comes to be.
    pub fn poll_idle(&self, cx: &Context<'_>) -> bool {
        if !self.waker.borrow().will_wake(cx.waker()) {
            *self.waker.borrow_mut() = cx.waker().clone();
        }
        self.idle.get()
    }

    /// Looks at the stream; tells its task when it is idle.
    pub fn sweep(&self) {
        if self.ticks.now().saturating_sub(self.moved.get()) >= self.patience_ms {
            self.idle.set(true);
            self.waker.borrow().wake_by_ref();
        }
    }
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
struct Facts {
    stage: Stage,
    active: u32,
    phase: Phase,
    phase_ms: u64,
    idle_ms: u64,
    fresh: bool,
    write_blocked: bool,
    drained: bool,
    /// For how long it has not been welcome.
    unwelcome_ms: Option<u64>,
    /// For how long its listener has been gone.
    gone_ms: Option<u64>,
}

fn judge(facts: &Facts, patience: Patience, standing: Standing) -> Option<Verdict> {
    let Standing { leaving, crowded } = standing;
    // Of a listener that is gone all is seen off as if the process went.
    let leaving = leaving.max(match facts.gone_ms {
        None => Leaving::No,
        Some(0..GONE_QUIET_MS) => Leaving::Draining,
        Some(_) => Leaving::Quiet,
    });
    let header_ms = patience.header.as_millis() as u64;
    let idle_ms = patience.idle.as_millis() as u64;
    if leaving == Leaving::Over {
        return Some(Verdict::Close);
    }
    let late = match facts.stage {
        Stage::Opening => facts.phase_ms >= header_ms,
        Stage::Http1 => {
            facts.active == 0
                && facts.phase_ms >= header_ms
                && (facts.phase == Phase::Head || (facts.fresh && facts.phase == Phase::BetweenMessages))
        }
        Stage::Parked | Stage::Http2 | Stage::Tunnel => false,
    };
    if late {
        return Some(Verdict::HeaderTimeout);
    }
    if facts.idle_ms >= idle_ms {
        return Some(Verdict::IdleTimeout);
    }
    let idle = facts.active == 0 && facts.phase == Phase::BetweenMessages && !facts.write_blocked;
    if let Some(verdict) = facts.unwelcome_ms.and_then(|since| farewell(facts, idle, since)) {
        return Some(verdict);
    }
    let in_the_way = crowded && facts.idle_ms >= CROWDED_IDLE_MS;
    match facts.stage {
        Stage::Http1 | Stage::Parked if idle && (leaving >= Leaving::Quiet || in_the_way) => {
            Some(Verdict::Close)
        }
        Stage::Http1 if idle && !facts.fresh && facts.idle_ms >= PARK_AFTER_MS => Some(Verdict::Park),
        Stage::Http2 if leaving >= Leaving::Draining && !facts.drained => Some(Verdict::Drain),
        Stage::Http2 if in_the_way && facts.active == 0 && !facts.drained => Some(Verdict::Drain),
        // It has been told, and had the time of a round trip; whether it answers is up to the client.
        Stage::Http2 if leaving >= Leaving::Quiet && facts.active == 0 && facts.idle_ms >= PARK_AFTER_MS => {
            Some(Verdict::Close)
        }
        Stage::Opening | Stage::Http1 | Stage::Parked | Stage::Http2 | Stage::Tunnel => None,
    }
}

/// How one who is not welcome any longer is seen off: what is on its way may still arrive, nothing new may begin.
fn farewell(facts: &Facts, idle: bool, since: u64) -> Option<Verdict> {
    match facts.stage {
        // What it is let in by has not been looked at yet.
        Stage::Opening => None,
        Stage::Tunnel | Stage::Parked => Some(Verdict::Close),
        Stage::Http1 | Stage::Http2 if since >= FAREWELL_MS => Some(Verdict::Close),
        Stage::Http1 => idle.then_some(Verdict::Close),
        Stage::Http2 if !facts.drained => Some(Verdict::Drain),
        Stage::Http2 => (facts.active == 0 && facts.idle_ms >= PARK_AFTER_MS).then_some(Verdict::Close),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { header: Duration::from_secs(10), idle: Duration::from_secs(3600) };
    const IDLE: Facts = Facts {
        stage: Stage::Http1,
        active: 0,
        phase: Phase::BetweenMessages,
        phase_ms: 500,
        idle_ms: 500,
        fresh: false,
        write_blocked: false,
        drained: false,
        unwelcome_ms: None,
        gone_ms: None,
    };

    #[test]
    fn a_stream_is_idle_once_nothing_has_moved_for_long_enough() {
        let ticks = Ticks::default();
        let watch = StreamWatch::new(ticks.clone(), Patience { idle: Duration::from_secs(1), ..PATIENCE });
        let cx = Context::from_waker(Waker::noop());
        let mut seen = Vec::new();
        for now in [500, 999, 1400, 1999, 2400] {
            ticks.advance(now);
            if now == 999 {
                watch.touch();
            }
            watch.sweep();
            seen.push(watch.poll_idle(&cx));
        }
        assert_eq!(seen, [false, false, false, true, true]);
    }

    #[test]
    fn verdicts() {
        let late = Facts { phase: Phase::Head, phase_ms: 10_000, ..IDLE };
        let silent = Facts { fresh: true, phase_ms: 10_000, ..IDLE };
        let old = Facts { idle_ms: 3_600_000, ..IDLE };
        let quiet = Facts { idle_ms: 1000, ..IDLE };
        let busy = Facts { active: 1, idle_ms: 5000, ..IDLE };
        let stuck = Facts { active: 1, idle_ms: 3_600_000, ..IDLE };
        let slow_reader = Facts { write_blocked: true, idle_ms: 5000, ..IDLE };
        let handshake = Facts { stage: Stage::Opening, phase_ms: 10_000, ..IDLE };
        let parked = Facts { stage: Stage::Parked, idle_ms: 5000, ..IDLE };
        let h2 = Facts { stage: Stage::Http2, active: 3, ..IDLE };
        let told = Facts { drained: true, ..h2 };
        let rows = [
            (IDLE, Leaving::No, None),
            (late, Leaving::No, Some(Verdict::HeaderTimeout)),
            (silent, Leaving::No, Some(Verdict::HeaderTimeout)),
            (old, Leaving::No, Some(Verdict::IdleTimeout)),
            (quiet, Leaving::No, Some(Verdict::Park)),
            (busy, Leaving::No, None),
            (stuck, Leaving::No, Some(Verdict::IdleTimeout)),
            (slow_reader, Leaving::No, None),
            (handshake, Leaving::No, Some(Verdict::HeaderTimeout)),
            (parked, Leaving::No, None),
            (parked, Leaving::Draining, None),
            (parked, Leaving::Quiet, Some(Verdict::Close)),
            (busy, Leaving::Quiet, None),
            (h2, Leaving::Draining, Some(Verdict::Drain)),
            (told, Leaving::Quiet, None),
            (Facts { active: 0, idle_ms: 1000, ..told }, Leaving::Quiet, Some(Verdict::Close)),
            (busy, Leaving::Over, Some(Verdict::Close)),
        ];
        for (facts, leaving, expected) in rows {
            let standing = Standing { leaving, crowded: false };
            assert_eq!(judge(&facts, PATIENCE, standing), expected, "{facts:?} {leaving:?}");
        }
    }

    #[test]
    fn who_is_not_welcome_any_longer_is_seen_off() {
        let told = Facts { unwelcome_ms: Some(0), ..IDLE };
        let late = |facts| Facts { unwelcome_ms: Some(5000), ..facts };
        let busy = Facts { active: 1, ..told };
        let h2 = Facts { stage: Stage::Http2, ..busy };
        let rows = [
            (told, Some(Verdict::Close)),
            (busy, None),
            (late(busy), Some(Verdict::Close)),
            (Facts { stage: Stage::Parked, ..told }, Some(Verdict::Close)),
            (Facts { stage: Stage::Tunnel, ..busy }, Some(Verdict::Close)),
            (Facts { stage: Stage::Opening, ..told }, None),
            (h2, Some(Verdict::Drain)),
            (Facts { drained: true, ..h2 }, None),
            (late(Facts { drained: true, ..h2 }), Some(Verdict::Close)),
            (Facts { drained: true, active: 0, idle_ms: 1000, ..h2 }, Some(Verdict::Close)),
        ];
        for (facts, expected) in rows {
            assert_eq!(judge(&facts, PATIENCE, Standing::default()), expected, "{facts:?}");
        }
    }

    #[test]
    fn who_came_to_a_listener_that_is_gone_is_seen_off() {
        let now = Facts { gone_ms: Some(0), ..IDLE };
        let later = |facts| Facts { gone_ms: Some(2000), ..facts };
        let h2 = Facts { stage: Stage::Http2, active: 3, ..now };
        let rows = [
            (now, None),
            (later(now), Some(Verdict::Close)),
            (later(Facts { stage: Stage::Parked, ..now }), Some(Verdict::Close)),
            (later(Facts { active: 1, ..now }), None),
            (later(Facts { phase: Phase::Head, ..now }), None),
            (later(Facts { stage: Stage::Tunnel, ..now }), None),
            (h2, Some(Verdict::Drain)),
            (later(Facts { drained: true, ..h2 }), None),
            (later(Facts { drained: true, active: 0, idle_ms: 1000, ..h2 }), Some(Verdict::Close)),
        ];
        for (facts, expected) in rows {
            assert_eq!(judge(&facts, PATIENCE, Standing::default()), expected, "{facts:?}");
        }
    }

    #[test]
    fn where_room_is_needed_idle_connections_go() {
        let idle = Facts { idle_ms: 5000, ..IDLE };
        let parked = Facts { stage: Stage::Parked, ..idle };
        let h2 = Facts { stage: Stage::Http2, ..idle };
        let rows = [
            (idle, Some(Verdict::Close)),
            (parked, Some(Verdict::Close)),
            (Facts { idle_ms: 4999, ..parked }, None),
            (Facts { active: 1, ..idle }, None),
            (Facts { phase: Phase::Head, ..idle }, None),
            (Facts { write_blocked: true, ..idle }, None),
            (h2, Some(Verdict::Drain)),
            (Facts { drained: true, ..h2 }, None),
            (Facts { active: 1, ..h2 }, None),
            (Facts { stage: Stage::Tunnel, ..idle }, None),
        ];
        for (facts, expected) in rows {
            let standing = Standing { leaving: Leaving::No, crowded: true };
            assert_eq!(judge(&facts, PATIENCE, standing), expected, "{facts:?}");
        }
    }
}
