//! A limit that holds for the whole process, exactly, with a line for those who wait for their turn.
//!
//! Entering and leaving are one atomic operation each as long as nobody waits. The line has a lock; it is the
//! contended path, and the only one that wakes another thread.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Whose turn it is: the worker that waits, and what it waits for.
pub type Tag = (usize, u64);

/// Of so many things handed over to who waits on the same thread, one goes to who has waited longest anywhere.
const SHARE: u32 = 8;

/// At most so many are in at once.
#[derive(Debug)]
pub struct Gate {
    max: AtomicU32,
    used: AtomicU32,
    /// The length of the line, to be read without its lock.
    waiting: AtomicU32,
    handed: AtomicU32,
    line: Mutex<VecDeque<Arc<Turn>>>,
}

/// Somebody who is in; leaves when dropped.
#[derive(Debug)]
pub struct Permit(Arc<Gate>);

/// How an attempt to enter went.
#[derive(Debug)]
pub enum Entry {
    /// In.
    In(Permit),
    /// In line.
    Line(Waiting),
    /// The line is full.
    Full,
}

/// What waiting came to.
#[derive(Debug)]
pub enum Call {
    /// In.
    In(Permit),
    /// What was waited for may be had without entering: look again.
    Look,
}

/// A place in the line, given up when dropped.
#[derive(Debug)]
pub struct Waiting {
    gate: Arc<Gate>,
    turn: Arc<Turn>,
}

#[derive(Debug)]
struct Turn {
    tag: Tag,
    state: AtomicU8,
    waker: Mutex<Waker>,
}

const WAITS: u8 = 0;
const GRANTED: u8 = 1;
const LOOK: u8 = 2;
const TAKEN: u8 = 3;

impl Turn {
    fn call(&self, state: u8) {
        self.state.store(state, SeqCst);
        self.waker.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }
}

impl Gate {
    /// For so many at once.
    pub fn new(max: u32) -> Arc<Self> {
        Arc::new(Self {
            max: AtomicU32::new(max),
            used: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            handed: AtomicU32::new(0),
            line: Mutex::default(),
        })
    }

    /// From now on for so many. Who is in stays in.
    pub fn set_max(&self, max: u32) {
        if self.max.swap(max, SeqCst) < max {
            self.advance(&mut self.lock());
        }
    }

    /// How many may be in at once.
    pub fn max(&self) -> u32 {
        self.max.load(SeqCst)
    }

    /// How many are in.
    pub fn used(&self) -> u32 {
        self.used.load(SeqCst)
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(SeqCst)
    }

    /// Enters, if there is room and nobody waits who came before.
    pub fn try_enter(self: &Arc<Self>) -> Option<Permit> {
        (self.waiting() == 0 && self.take()).then(|| Permit(self.clone()))
    }

    /// Enters, or joins a line of at most so many.
    pub fn enter(self: &Arc<Self>, tag: Tag, line_max: u32) -> Entry {
        if let Some(permit) = self.try_enter() {
            return Entry::In(permit);
        }
        let mut line = self.lock();
        if line.is_empty() && self.take() {
            return Entry::In(Permit(self.clone()));
        }
        if line.len() >= line_max as usize {
            return Entry::Full;
        }
        let turn =
            Arc::new(Turn { tag, state: AtomicU8::new(WAITS), waker: Mutex::new(Waker::noop().clone()) });
        line.push_back(turn.clone());
        self.note(&line);
        // Who left before the line was seen to have somebody in it has called nobody.
        self.advance(&mut line);
        Entry::Line(Waiting { gate: self.clone(), turn })
    }

    /// Something that can be used without entering has become free, of use to who waits with this tag. `true` when one
    /// of them was called to look; `false` when it should be let go of instead, for the good of the others.
    pub fn hand_over(&self, tag: Tag) -> bool {
        if self.waiting() == 0 {
            return false;
        }
        let mut line = self.lock();
        let Some(position) = line.iter().position(|turn| turn.tag == tag) else { return false };
        if position > 0 && self.handed.fetch_add(1, SeqCst) % SHARE == SHARE - 1 {
            return false;
        }
        let turn = line.remove(position).expect("found there");
        self.note(&line);
        turn.call(LOOK);
        true
    }

    fn take(&self) -> bool {
        let max = self.max();
        self.used.fetch_update(SeqCst, SeqCst, |used| (used < max).then_some(used + 1)).is_ok()
    }

    fn leave(&self) {
        self.used.fetch_sub(1, SeqCst);
        if self.waiting() > 0 {
            self.advance(&mut self.lock());
        }
    }

    /// Lets in who is first in line, as far as there is room.
    fn advance(&self, line: &mut VecDeque<Arc<Turn>>) {
        while !line.is_empty() && self.take() {
            let turn = line.pop_front().expect("not empty");
            self.note(line);
            turn.call(GRANTED);
        }
    }

    fn note(&self, line: &VecDeque<Arc<Turn>>) {
        self.waiting.store(u32::try_from(line.len()).unwrap_or(u32::MAX), SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Turn>>> {
        // Nothing is done under this lock that could leave the line half changed.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// What it is a permit for.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Waiting {
    /// Whether it was called to look.
    pub fn is_to_look(&self) -> bool {
        self.turn.state.load(SeqCst) == LOOK
    }
}

impl Future for Waiting {
    type Output = Call;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Call> {
        // The waker first: who calls after it was looked for finds it.
        self.turn.waker.lock().unwrap_or_else(PoisonError::into_inner).clone_from(cx.waker());
        match self.turn.state.load(SeqCst) {
            GRANTED => {
                self.turn.state.store(TAKEN, SeqCst);
                Poll::Ready(Call::In(Permit(self.gate.clone())))
            }
            LOOK => Poll::Ready(Call::Look),
            _ => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut line = self.gate.lock();
        line.retain(|turn| !Arc::ptr_eq(turn, &self.turn));
        self.gate.note(&line);
        drop(line);
        // It was called in, and does not come.
        if self.turn.state.load(SeqCst) == GRANTED {
            self.gate.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn poll(waiting: &mut Waiting) -> Poll<Call> {
        Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[track_caller]
    fn line(gate: &Arc<Gate>, tag: Tag) -> Waiting {
        match gate.enter(tag, 10) {
            Entry::Line(waiting) => waiting,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_comes_first_is_let_in_first() {
        let gate = Gate::new(1);
        let inside = gate.try_enter().expect("there is room");
        let (mut first, mut second) = (line(&gate, (0, 1)), line(&gate, (1, 1)));
        assert!(poll(&mut first).is_pending() && gate.waiting() == 2);
        drop(inside);
        let Poll::Ready(Call::In(inside)) = poll(&mut first) else { panic!("it was its turn") };
        assert!(poll(&mut second).is_pending());
        assert!(gate.try_enter().is_none(), "nobody goes past the line");
        drop(inside);
        assert!(matches!(poll(&mut second), Poll::Ready(Call::In(_))));
        drop((first, second));
        assert_eq!((gate.used(), gate.waiting()), (0, 0));
    }

    #[test]
    fn the_line_has_an_end() {
        let gate = Gate::new(1);
        let _inside = gate.try_enter();
        let _first = line(&gate, (0, 0));
        assert!(matches!(gate.enter((0, 0), 1), Entry::Full));
        assert!(matches!(Gate::new(0).enter((0, 0), 0), Entry::Full));
    }

    #[test]
    fn who_gives_up_takes_nothing_along() {
        let gate = Gate::new(1);
        let inside = gate.try_enter();
        let (first, mut second) = (line(&gate, (0, 0)), line(&gate, (0, 0)));
        drop(inside);
        // The first has been called, and is gone before it looked.
        drop(first);
        assert!(matches!(poll(&mut second), Poll::Ready(Call::In(_))));
        drop(second);
        assert_eq!(gate.used(), 0);
    }

    #[test]
    fn what_is_handed_over_goes_to_its_own_but_not_always() {
        let gate = Gate::new(1);
        let _inside = gate.try_enter();
        let _elder = line(&gate, (9, 9));
        let mut handed = 0;
        for _ in 0..SHARE {
            let mut waiting = line(&gate, (1, 5));
            handed += u32::from(gate.hand_over((1, 5)));
            let _ = poll(&mut waiting);
        }
        assert_eq!(handed, SHARE - 1);
        assert!(!gate.hand_over((1, 6)), "nobody waits for that");
    }

    #[test]
    fn a_wider_gate_lets_in_who_waits() {
        let gate = Gate::new(0);
        let mut waiting = line(&gate, (0, 0));
        gate.set_max(1);
        assert!(matches!(poll(&mut waiting), Poll::Ready(Call::In(_))));
    }

    #[test]
    fn never_one_more_over_all_threads() {
        const MAX: u32 = 3;
        let (gate, inside, over) =
            (Gate::new(MAX), Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let visit = |permit: Permit| {
            if inside.fetch_add(1, SeqCst) >= MAX {
                over.store(true, SeqCst);
            }
            std::hint::spin_loop();
            inside.fetch_sub(1, SeqCst);
            drop(permit);
        };
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (gate, visit) = (&gate, &visit);
                scope.spawn(move || {
                    for turn in 0..2000_u32 {
                        match gate.enter((thread, 0), 4) {
                            Entry::In(permit) => visit(permit),
                            Entry::Full => std::thread::yield_now(),
                            // Some give up at once, the others wait.
                            Entry::Line(_) if turn % 3 == 0 => {}
                            Entry::Line(mut waiting) => loop {
                                match poll(&mut waiting) {
                                    Poll::Ready(Call::In(permit)) => break visit(permit),
                                    Poll::Ready(Call::Look) => break,
                                    Poll::Pending => std::thread::yield_now(),
                                }
                            },
                        }
                    }
                });
            }
        });
        assert!(!over.load(SeqCst));
        assert_eq!((gate.used(), gate.waiting()), (0, 0));
    }
}
