//! An HTTP/2 connection to an endpoint, shared by all requests of a worker.
//!
//! A task of its own drives it: reads what comes, and sends what the requests have written once they all have had
//! their turn (see [`io::deferred`](crate::io::deferred)).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::Notify;

use super::endpoint::{Endpoint, Open, Proven};
use super::error::UpstreamError;
use super::h1::{Answer, Failure};
use super::pool::PoolKey;
use super::trip::Going;
use crate::body::{Body, BodyError};
use crate::gate::Gate;
use crate::h2_stream::{CONNECTION_WINDOW, Pump, PumpError, Received, STREAM_WINDOW};
use crate::identity::Identity;
use crate::io::activity::Activity;
use crate::io::deferred::{Sender, deferred};
use crate::io::stream::Stream;

/// Streams on one connection, even when the upstream allows more: past this another connection is opened.
const MAX_STREAMS: usize = 256;
/// Streams on a connection whose upstream has not said yet how many it takes. One that is too many would be refused, or
/// wait behind streams that never end.
const FIRST_STREAMS: usize = 1;
/// Header list of a response in bytes; a larger one is refused.
const MAX_HEAD: u32 = 256 * 1024;

/// A connection.
#[derive(Debug)]
pub struct Conn {
    requests: RefCell<h2::client::SendRequest<Bytes>>,
    activity: Rc<Activity>,
    endpoint: Arc<Endpoint>,
    gate: Arc<Gate>,
    pool: PoolKey,
    worker: usize,
    idle_timeout: Duration,
    active: Cell<usize>,
    settled: Cell<bool>,
    settle: Notify,
    closed: Cell<bool>,
    close: Notify,
    /// Whether whoever answers is who it has proven to be.
    trust: Trust,
}

/// Whether an upstream is believed; and since when not, by the clock of its connection, in ms.
#[derive(Debug)]
struct Trust {
    proven: Option<Proven>,
    lost: Cell<Option<u64>>,
}

/// What is under way with an upstream that is not believed any longer is given this long to end.
const FAREWELL_MS: u64 = 5000;

impl Conn {
    /// Speaks HTTP/2 with prior knowledge on a fresh connection. Returns before the upstream's settings came: the first
    /// request need not wait for them.
    ///
    /// # Errors
    /// [`UpstreamError::Protocol`].
    pub async fn new(
        stream: Stream,
        mut open: Open,
        (worker, idle_timeout): (usize, Duration),
    ) -> Result<Rc<Self>, UpstreamError> {
        let activity = stream.activity().clone();
        let (io, sender) = deferred(stream);
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD)
            .enable_push(false)
            .initial_max_send_streams(FIRST_STREAMS)
            .handshake::<_, Bytes>(io)
            .await
            .map_err(|_| UpstreamError::Protocol)?;
        let conn = Rc::new(Self {
            requests: RefCell::new(requests),
            activity,
            endpoint: open.endpoint().clone(),
            gate: open.gate().clone(),
            pool: open.pool(),
            worker,
            idle_timeout,
            active: Cell::new(0),
            settled: Cell::new(false),
            settle: Notify::new(),
            closed: Cell::new(false),
            close: Notify::new(),
            trust: Trust { proven: open.take_proven(), lost: Cell::new(None) },
        });
        tokio::task::spawn_local(drive(conn.clone(), connection, sender, open));
        Ok(conn)
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// What counts the connections of its cluster.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Whose requests it carries.
    pub fn pool(&self) -> PoolKey {
        self.pool
    }

    /// Whether another stream can be opened without waiting.
    pub fn has_room(&self) -> bool {
        !self.closed.get()
            && !self.endpoint.is_retired()
            && self.trust.lost.get().is_none()
            && self.active.get() < MAX_STREAMS.min(self.requests.borrow().current_max_send_streams())
            && !self.is_leaving()
    }

    /// Whether the upstream has said that it takes no more streams (GOAWAY), while it finishes those it has.
    fn is_leaving(&self) -> bool {
        // This handle sends nothing itself, so being asked has no effect on anybody.
        let mut requests = self.requests.borrow_mut();
        !matches!(requests.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
    }

    /// Whether the upstream has yet to say how many streams it takes.
    pub fn is_settling(&self) -> bool {
        !self.settled.get() && !self.closed.get()
    }

    /// Waits until the upstream has said how many streams it takes, or is gone.
    pub async fn settled(&self) {
        while self.is_settling() {
            self.settle.notified().await;
        }
    }

    /// Whether it carries no stream.
    pub fn is_idle(&self) -> bool {
        self.active.get() == 0
    }

    /// Whether it is of no more use.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Whether it has carried nothing for longer than it may.
    pub fn is_stale(&self) -> bool {
        self.is_idle() && Duration::from_millis(self.activity.idle_ms()) >= self.idle_timeout
    }

    /// Whether it is to end, as whoever answers is not believed any longer: at once where nothing is under way, and after
    /// a while in any case.
    pub fn is_to_be_cut(&self, identity: &Identity) -> bool {
        let Trust { proven, lost } = &self.trust;
        if proven.as_ref().is_none_or(|proven| proven.is_believed(identity)) {
            lost.set(None);
            return false;
        }
        let now = self.activity.now();
        let since = lost.get().unwrap_or(now);
        lost.set(Some(since));
        self.is_idle() || now.saturating_sub(since) >= FAREWELL_MS
    }

    /// Ends an idle connection.
    pub fn close(&self) {
        self.closed.set(true);
        self.close.notify_one();
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(super) async fn exchange(self: Rc<Self>, going: &Going<'_>) -> Result<Answer, Failure> {
        let ticket = Ticket::new(self);
        let conn = &ticket.0;
        let failure = |error| Failure { error, is_whole: false, sent: true, answered: false };
        // A handle of our own: where it must wait, another's would wake somebody else.
        let mut requests = conn.requests.borrow().clone();
        if let Err(error) = std::future::poll_fn(|cx| requests.poll_ready(cx)).await {
            let error = classify(&error);
            return Err(Failure { error, is_whole: true, sent: false, answered: false });
        }
        let (head, body) = going.take_request().into_parts();
        let ends = body.is_end_stream();
        let sent = requests.send_request(Request::from_parts(head, ()), ends);
        let (mut response, stream) = sent.map_err(|e| failure(classify(&e)))?;
        let mut pump = (!ends).then(|| Pump::new(body, stream));
        let response = std::future::poll_fn(|cx| {
            if let Poll::Ready(Err(PumpError::Body(_))) = poll_pump(&mut pump, cx) {
                return Poll::Ready(Err(UpstreamError::RequestBody));
            }
            Pin::new(&mut response).poll(cx).map_err(|e| classify(&e))
        });
        let (head, stream) = response.await.map_err(failure)?.into_parts();
        if stream.is_end_stream() && pump.is_none() {
            return Ok(Answer::Response(Response::from_parts(head, Body::empty())));
        }
        let received = Received::new(stream, &head.headers, BodyError::Upstream);
        let body = Body::source(Box::pin(Streaming { received, pump, _ticket: ticket }));
        Ok(Answer::Response(Response::from_parts(head, body)))
    }
}

fn poll_pump(pump: &mut Option<Pump>, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
    let Some(sending) = pump else { return Poll::Ready(Ok(())) };
    let result = ready!(sending.poll(cx));
    *pump = None;
    Poll::Ready(result)
}

fn classify(error: &h2::Error) -> UpstreamError {
    match error.reason() {
        Some(Reason::REFUSED_STREAM) => UpstreamError::Refused,
        Some(Reason::NO_ERROR) if error.is_go_away() => UpstreamError::Refused,
        Some(_) if error.is_reset() && error.is_remote() => UpstreamError::Reset,
        Some(_) if error.is_library() => UpstreamError::Protocol,
        Some(_) | None => UpstreamError::Closed,
    }
}

type Driven = h2::client::Connection<crate::io::deferred::Deferred<Stream>, Bytes>;

async fn drive(conn: Rc<Conn>, mut connection: Driven, sender: Sender<Stream>, open: Open) {
    let closing = conn.close.notified();
    let mut closing = std::pin::pin!(closing);
    std::future::poll_fn(|cx| {
        let ended = Pin::new(&mut connection).poll(cx).is_ready();
        let broken = matches!(sender.poll_send(cx), Poll::Ready(Err(_)));
        // An upstream's first bytes are its settings (RFC 9113 section 3.4).
        if !conn.settled.get() && conn.activity.received() > 0 {
            conn.settled.set(true);
            conn.settle.notify_waiters();
        }
        if ended || broken || closing.as_mut().poll(cx).is_ready() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    conn.closed.set(true);
    conn.settle.notify_waiters();
    // The socket first: whoever is let in for it must not be one too many at the upstream.
    drop((connection, sender));
    drop(open);
}

/// A stream in use.
#[derive(Debug)]
struct Ticket(Rc<Conn>);

impl Ticket {
    fn new(conn: Rc<Conn>) -> Self {
        conn.active.set(conn.active.get() + 1);
        Self(conn)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let conn = &self.0;
        conn.active.set(conn.active.get() - 1);
        // Its cluster may have all the connections that it may have: then somebody waits for this room.
        if conn.gate.waiting() > 0 && !conn.gate.hand_over(conn.pool.tag(conn.worker)) && conn.is_idle() {
            conn.close();
        }
    }
}

/// A response's body as it comes, while the request's may still be going.
struct Streaming {
    received: Received,
    pump: Option<Pump>,
    _ticket: Ticket,
}

impl http_body::Body for Streaming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Poll::Ready(Err(PumpError::Body(error))) = poll_pump(&mut this.pump, cx) {
            return Poll::Ready(Some(Err(error)));
        }
        Pin::new(&mut this.received).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.received.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.received.size_hint()
    }
}
