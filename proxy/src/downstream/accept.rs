//! Where connections arrive: one listening descriptor for each bind, which all workers accept from.
//!
//! A descriptor for each worker (`SO_REUSEPORT`) would lose its backlog when it is closed, and spread connections by
//! chance. Here whoever wakes first accepts, and passes the connection to the worker that has the fewest.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use outrigger_proto::model::Name;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::serve;
use crate::http::stack::Stack;
use crate::io::listen::Bound;
use crate::io::socket::Socket;
use crate::live::Entry;
use crate::worker::{Load, Worker};

/// Connections accepted before other tasks get their turn.
const BURST: usize = 32;
/// After an error that is ours (no descriptors left): the next try.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection between threads.
#[derive(Debug)]
pub struct Accepted {
    descriptor: OwnedFd,
    peer: Option<SocketAddr>,
    /// The listener it came to.
    entry: Entry,
    /// Counts for the other worker from now on: what comes with it in one burst must see it.
    _load: Load,
}

impl Accepted {
    fn new((socket, peer): Arrival, entry: Entry, load: Load) -> io::Result<Self> {
        let descriptor = match socket {
            Socket::Tcp(stream) => stream.into_std()?.into(),
            Socket::Unix(stream) => stream.into_std()?.into(),
        };
        Ok(Self { descriptor, peer, entry, _load: load })
    }

    fn into_socket(self) -> io::Result<(Socket, Option<SocketAddr>)> {
        let socket = match self.peer {
            Some(_) => Socket::Tcp(TcpStream::from_std(self.descriptor.into())?),
            None => Socket::Unix(UnixStream::from_std(self.descriptor.into())?),
        };
        Ok((socket, self.peer))
    }
}

/// Passes a connection to another worker.
pub type PassOn = Rc<dyn Fn(usize, Accepted)>;

/// Accepts until told to stop; connections that the kernel holds for us by then are still taken.
pub async fn accept<S: Stack>(worker: Rc<Worker>, stack: S, listener: Name, from: Source) {
    let Source { bound, stop, pass_on } = from;
    let mut stopped = pin!(stop.notified());
    let mut failing = false;
    let accepting = loop {
        match bound.on_this_thread() {
            Ok(accepting) => break accepting,
            Err(error) => report(&mut failing, &listener, &error),
        }
        if is_stopped_during_pause(stopped.as_mut()).await {
            return;
        }
    };
    drop(bound);
    let Some(mut entry) = current(&worker, &listener) else { return };
    let mut accepted = 0_usize;
    loop {
        let mut next = pin!(accepting.accept());
        let arrival = std::future::poll_fn(|cx| match next.as_mut().poll(cx) {
            Poll::Ready(arrival) => Poll::Ready(Some(arrival)),
            Poll::Pending => stopped.as_mut().poll(cx).map(|()| None),
        });
        match arrival.await {
            None => return,
            Some(Ok(arrival)) => {
                // A listener that was renamed or removed meanwhile serves what it still accepts as it last was.
                entry = current(&worker, &listener).unwrap_or(entry);
                failing = false;
                if has_room(&worker, &entry, &arrival.0) {
                    place(&worker, &stack, &entry, arrival, &pass_on);
                } else {
                    // Closed at once: to leave it with the kernel would have the client wait for nothing.
                    worker.shared().stats.shed.connections.increment(1);
                }
            }
            // The client's: it hung up while it waited.
            Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Some(Err(error)) => {
                report(&mut failing, &listener, &error);
                if is_stopped_during_pause(stopped.as_mut()).await {
                    return;
                }
            }
        }
        accepted += 1;
        if accepted.is_multiple_of(BURST) {
            tokio::task::yield_now().await;
        }
    }
}

/// Once for each spell of failures.
fn report(failing: &mut bool, listener: &Name, error: &io::Error) {
    if !std::mem::replace(failing, true) {
        tracing::error!(%listener, %error, "cannot accept connections; trying again");
    }
}

async fn is_stopped_during_pause(stopped: Pin<&mut Notified<'_>>) -> bool {
    tokio::select! {
        () = tokio::time::sleep(PAUSE) => false,
        () = stopped => true,
    }
}

/// Where a worker accepts from, until when, and what it does with connections that others should have.
pub struct Source {
    /// The descriptor.
    pub bound: Arc<Bound>,
    /// Told when to stop.
    pub stop: Rc<Notify>,
    /// Passes a connection to another worker.
    pub pass_on: PassOn,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("bound", &self.bound).finish_non_exhaustive()
    }
}

fn current(worker: &Worker, listener: &Name) -> Option<Entry> {
    worker.with_snapshot(|snapshot| snapshot.listeners.get(listener).cloned())
}

/// Whether a connection may stay. Where bytes are passed on, it is what a request is elsewhere.
fn has_room(worker: &Worker, entry: &Entry, socket: &Socket) -> bool {
    let descriptor = match socket {
        Socket::Tcp(stream) => stream.as_raw_fd(),
        Socket::Unix(stream) => stream.as_raw_fd(),
    };
    let shared = worker.shared();
    let refused = match entry {
        Entry::One(view) => !serve::is_wanted(worker, view),
        // That is decided when it is known what is done with it.
        Entry::Several(_) => false,
    };
    !refused && shared.pressure.has_room(shared.connections(), descriptor.unsigned_abs())
}

type Arrival = (Socket, Option<SocketAddr>);

fn place<S: Stack>(worker: &Rc<Worker>, stack: &S, entry: &Entry, arrival: Arrival, pass_on: &PassOn) {
    let target = worker.fewest();
    if target == worker.id() {
        serve::start(worker, stack, entry.clone(), arrival);
        return;
    }
    let load = Load::new(worker.shared(), target);
    match Accepted::new(arrival, entry.clone(), load) {
        Ok(accepted) => pass_on(target, accepted),
        Err(error) => lost(entry, &error),
    }
}

/// Takes a connection that another worker has accepted.
pub fn take<S: Stack>(worker: &Rc<Worker>, stack: &S, accepted: Accepted) {
    let entry = accepted.entry.clone();
    match accepted.into_socket() {
        Ok(arrival) => serve::start(worker, stack, entry, arrival),
        Err(error) => lost(&entry, &error),
    }
}

fn lost(entry: &Entry, error: &io::Error) {
    tracing::warn!(listener = %entry.name(), %error, "a connection was lost between workers");
}
