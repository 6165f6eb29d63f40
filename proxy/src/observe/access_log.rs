//! One line for each request and each TCP connection.
//!
//! A worker formats into a buffer of its own and hands whole batches to a thread that writes them; the queue between
//! them is bounded in bytes. A worker never waits: when the disk or the reader of a pipe does not keep up, batches are
//! dropped and their lines counted. Where no log is wanted there is no [`Logger`], and nothing is paid.

use std::cell::RefCell;
use std::fmt;
use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use outrigger_proto::model::{Address, LogFormat};

use super::cell::Counter;
use super::format::{self, Clock};

/// A buffer that holds this much is handed over without waiting for the next flush. Bytes.
const BATCH: usize = 16 * 1024;
/// Room for the line that passes the mark, so that the buffer seldom grows.
const SLACK: usize = 1024;
/// Batches that wait at most; each takes a slot even when a flush made it small.
const SLOTS: usize = 256;

/// What waits for the writer at most, for [`queue`]. Bytes.
pub const QUEUE_BYTES: usize = SLOTS * (BATCH + SLACK);

/// What is known of a request, or of a TCP connection, once it is over. What is empty, zero or `None` is not known,
/// or does not apply; it is left out of the line.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When it began.
    pub start: SystemTime,
    /// From its begin to its end.
    pub duration: Duration,
    /// `HTTP/1.1`, `HTTP/2` or `TCP`.
    pub protocol: &'a str,
    /// Who asked.
    pub client: Peer,
    /// The listener's name.
    pub listener: &'a str,
    /// The route that matched, by its place in the configuration: `public.routes[2]`.
    pub route: &'a str,
    /// The request's method.
    pub method: &'a str,
    /// The request's host, as it was sent.
    pub host: &'a [u8],
    /// The path.
    pub path: &'a [u8],
    /// What stands behind the `?`.
    pub query: Option<&'a [u8]>,
    /// The client's own name for itself.
    pub user_agent: &'a [u8],
    /// The status that the client got.
    pub status: u16,
    /// Envoy's response flag, such as `UF`; `-` is none.
    pub flag: &'a str,
    /// The reason code, when the answer is ours.
    pub reason: &'static str,
    /// Bytes of the body, or of TCP, that came from the client.
    pub bytes_received: u64,
    /// The same, sent to the client.
    pub bytes_sent: u64,
    /// The cluster's name.
    pub cluster: &'a str,
    /// The endpoint that was tried last.
    pub endpoint: Option<&'a Address>,
    /// How often it was tried.
    pub attempts: u32,
    /// The SPIFFE ID that the client has proven.
    pub identity: &'a str,
    /// What became of it by the listener's `authorization`, where that is worth a word.
    pub authorization: &'a str,
    /// What was served instead of the cluster's answer: `cluster` or `response`.
    pub fallback: &'static str,
    /// How long a connection to the endpoint took, if a new one was made.
    pub connect: Option<Duration>,
    /// From sending the request to the head of the response.
    pub first_byte: Option<Duration>,
}

/// The other side of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// TCP.
    Ip(SocketAddr),
    /// A unix socket, whose clients have no address.
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// Lines on their way to the writer: what workers clone, each to make its [`Logger`].
#[derive(Clone, Debug)]
pub struct Queue {
    batches: SyncSender<Message>,
    shared: Arc<Shared>,
}

/// The writer's end of a [`Queue`].
#[derive(Debug)]
pub struct Lines {
    pub(super) batches: Receiver<Message>,
    pub(super) wake: SyncSender<Message>,
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) enum Message {
    Batch(Batch),
    /// Look at the signals.
    Wake,
}

/// Whole lines.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) text: Vec<u8>,
    pub(super) lines: u64,
}

/// What the ends of a queue share. The signals stand beside the queue because one that is full takes none.
#[derive(Debug)]
pub(super) struct Shared {
    /// Bytes that wait, by what they take in memory.
    waiting: AtomicUsize,
    limit: usize,
    dropped: Arc<Counter>,
    pub(super) reopen: AtomicBool,
    pub(super) finish: AtomicBool,
}

/// A queue that holds at most `bytes` ([`QUEUE_BYTES`] is a good measure); lines beyond that are counted in `dropped`.
pub fn queue(bytes: usize, dropped: Arc<Counter>) -> (Queue, Lines) {
    let (sender, batches) = sync_channel(SLOTS);
    let shared = Arc::new(Shared {
        waiting: AtomicUsize::new(0),
        limit: bytes,
        dropped,
        reopen: AtomicBool::new(false),
        finish: AtomicBool::new(false),
    });
    let lines = Lines { batches, wake: sender.clone(), shared: Arc::clone(&shared) };
    (Queue { batches: sender, shared }, lines)
}

impl Queue {
    /// Takes what `batch` holds, or counts it as dropped; empty afterwards either way.
    fn send(&self, batch: &mut Batch) {
        let size = batch.text.capacity();
        let waiting = self.shared.waiting.fetch_add(size, Ordering::Relaxed);
        if waiting.saturating_add(size) > self.shared.limit {
            // The buffer is kept: while the writer hangs, not even memory is asked for.
            self.shared.release(size);
            self.shared.drop_lines(mem::take(&mut batch.lines));
            batch.text.clear();
            return;
        }
        let whole = Batch { text: mem::take(&mut batch.text), lines: mem::take(&mut batch.lines) };
        let lines = whole.lines;
        if self.batches.try_send(Message::Batch(whole)).is_err() {
            self.shared.release(size);
            self.shared.drop_lines(lines);
        }
    }
}

impl Shared {
    /// A batch of this size waits no longer.
    pub(super) fn release(&self, size: usize) {
        self.waiting.fetch_sub(size, Ordering::Relaxed);
    }

    pub(super) fn drop_lines(&self, lines: u64) {
        self.dropped.increment(lines);
    }
}

/// One worker's way into the log. Cheap to clone on its thread; what is left in its buffer goes out with the last one.
#[derive(Clone, Debug)]
pub struct Logger(Rc<Worker>);

#[derive(Debug)]
struct Worker {
    format: LogFormat,
    queue: Queue,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    clock: Clock,
    batch: Batch,
}

impl Logger {
    /// A logger for the thread that calls.
    pub fn new(format: LogFormat, queue: Queue) -> Self {
        let batch = Batch { text: Vec::new(), lines: 0 };
        Self(Rc::new(Worker { format, queue, state: RefCell::new(State { clock: Clock::default(), batch }) }))
    }

    /// Writes a line. It stands in a buffer until that is full or [`flush`](Self::flush) is called.
    pub fn log(&self, record: &Record<'_>) {
        let Worker { format, queue, state } = &*self.0;
        let State { clock, batch } = &mut *state.borrow_mut();
        // Asked for at once, and only while there are lines: an idle worker holds none.
        if batch.text.capacity() == 0 {
            batch.text.reserve_exact(BATCH + SLACK);
        }
        format::line(*format, clock, record, &mut batch.text);
        batch.lines += 1;
        if batch.text.len() >= BATCH {
            queue.send(batch);
        }
    }

    /// Hands over what is there. To be called every 100 ms or so; does nothing when there is nothing.
    pub fn flush(&self) {
        self.0.flush();
    }
}

impl Worker {
    fn flush(&self) {
        let batch = &mut self.state.borrow_mut().batch;
        if batch.lines > 0 {
            self.queue.send(batch);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::format::tests::request;

    #[test]
    fn a_full_queue_drops_and_counts() {
        let dropped = Arc::new(Counter::default());
        let (queue, lines) = queue(2 * (BATCH + SLACK), Arc::clone(&dropped));
        let logger = Logger::new(LogFormat::Json, queue.clone());
        for expected in [0, 0, 1, 2] {
            logger.log(&request());
            logger.flush();
            logger.flush();
            assert_eq!(dropped.get(), expected);
        }
        let Message::Batch(batch) = lines.batches.recv().unwrap() else { panic!("a batch was sent") };
        assert_eq!((batch.lines, batch.text.iter().filter(|byte| **byte == b'\n').count()), (1, 1));
        lines.shared.release(batch.text.capacity());
        logger.log(&request());
        logger.clone().flush();
        assert_eq!(dropped.get(), 2, "there is room again");
        drop(lines);
        lines_after_the_writer(&logger, &dropped);
    }

    #[track_caller]
    fn lines_after_the_writer(logger: &Logger, dropped: &Counter) {
        logger.log(&request());
        logger.flush();
        assert_eq!(dropped.get(), 3);
    }

    #[test]
    fn a_full_buffer_goes_without_a_flush() {
        let (queue, lines) = queue(QUEUE_BYTES, Arc::default());
        let logger = Logger::new(LogFormat::Text, queue);
        let sent = |lines: &Lines| match lines.batches.try_recv() {
            Ok(Message::Batch(batch)) => Some((batch.lines, batch.text.len())),
            Ok(Message::Wake) | Err(_) => None,
        };
        let mut logged = 0;
        let (count, bytes) = loop {
            logger.log(&request());
            logged += 1;
            if let Some(batch) = sent(&lines) {
                break batch;
            }
        };
        assert_eq!(count, logged);
        assert!((BATCH..BATCH + SLACK).contains(&bytes), "{bytes}");
        logger.log(&request());
        drop(logger);
        assert_eq!(sent(&lines).map(|(count, _)| count), Some(1), "the rest goes with the logger");
    }
}
