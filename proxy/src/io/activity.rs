//! What a connection's bytes are doing, for those who watch over it from beside: timers and counters.
//!
//! A timer per read would cost more than the read. Each connection notes the tick of its last byte here, and the
//! worker's sweep, a few times a second, looks over all connections at once.

use std::cell::Cell;
use std::rc::Rc;

use super::framing::{Phase, Violation};

/// Time in milliseconds since the worker started, advanced by its sweep: coarse, free to read.
#[derive(Clone, Debug, Default)]
pub struct Ticks(Rc<Cell<u64>>);

impl Ticks {
    /// The time of the last sweep.
    pub fn now(&self) -> u64 {
        self.0.get()
    }

    /// Called by the sweep alone.
    pub fn advance(&self, now: u64) {
        self.0.set(now);
    }
}

/// What one connection's bytes have done. Shared by the stream, its owner and the sweep; all on one thread.
#[derive(Debug)]
pub struct Activity {
    ticks: Ticks,
    last: Cell<u64>,
    received: Cell<u64>,
    sent: Cell<u64>,
    write_blocked: Cell<bool>,
    phase: Cell<Phase>,
    phase_since: Cell<u64>,
    violation: Cell<Option<Violation>>,
}

impl Activity {
    /// A connection that has just been made.
    pub fn new(ticks: Ticks) -> Rc<Self> {
        let now = ticks.now();
        Rc::new(Self {
            ticks,
            last: Cell::new(now),
            received: Cell::new(0),
            sent: Cell::new(0),
            write_blocked: Cell::new(false),
            phase: Cell::new(Phase::BetweenMessages),
            phase_since: Cell::new(now),
            violation: Cell::new(None),
        })
    }

    /// The time of the worker's coarse clock, in ms.
    pub fn now(&self) -> u64 {
        self.ticks.now()
    }

    /// Milliseconds since a byte moved in either direction.
    pub fn idle_ms(&self) -> u64 {
        self.ticks.now().saturating_sub(self.last.get())
    }

    /// Bytes received so far, as seen above TLS.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Bytes sent so far, as seen above TLS.
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Whether the peer does not take what we have for it.
    pub fn write_blocked(&self) -> bool {
        self.write_blocked.get()
    }

    /// Where the peer stands in its message (HTTP/1 only).
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Milliseconds since the peer entered its [`phase`](Self::phase).
    pub fn phase_ms(&self) -> u64 {
        self.ticks.now().saturating_sub(self.phase_since.get())
    }

    /// Why the peer's bytes were refused, if they were.
    pub fn violation(&self) -> Option<Violation> {
        self.violation.get()
    }

    pub(super) fn note_received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
        self.last.set(self.ticks.now());
    }

    pub(super) fn note_sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
        self.last.set(self.ticks.now());
    }

    pub(super) fn note_write_blocked(&self, blocked: bool) {
        self.write_blocked.set(blocked);
    }

    /// Where the peer stands in its message is known.
    pub fn note_phase(&self, phase: Phase) {
        if phase != self.phase.get() {
            self.phase.set(phase);
            self.phase_since.set(self.ticks.now());
        }
    }

    /// The peer's bytes were refused.
    pub fn note_violation(&self, violation: Violation) {
        self.violation.set(Some(violation));
    }
}
