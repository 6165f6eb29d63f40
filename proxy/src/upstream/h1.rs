//! An HTTP/1.1 connection to an endpoint, driven by the request that uses it.
//!
//! hyper wants a connection polled as a task of its own, woken by each request and waking it back. Here the connection
//! belongs to the exchange: whoever waits for the response polls the connection, then looks at what came of it. That
//! saves a task, two wake-ups and a turn of the scheduler for each request. On either side of hyper's internal channels
//! stands a waker that wakes nobody, as we look at both sides ourselves; only the socket gets the real one, and the
//! request's body, which comes from elsewhere.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;

use super::endpoint::{Endpoint, Open};
use super::error::UpstreamError;
use super::pool::Pools;
use super::trip::Trip;
use crate::body::{Body, BodyError};
use crate::io::activity::Activity;
use crate::io::stream::Stream;
use crate::io::woken::{Waking, Woken};
use crate::observe::ClusterStats;

/// Head of a response in bytes; a larger one is refused.
const MAX_HEAD: usize = 256 * 1024;

/// A connection, between requests or in one.
#[derive(Debug)]
pub struct Conn {
    requests: http1::SendRequest<Body>,
    driver: http1::Connection<TokioIo<Waking<Stream>>, Body>,
    /// Whom the socket wakes.
    woken: Woken,
    /// What hyper tells itself, and the waker that it does so with.
    told: (Arc<Told>, Waker),
    /// The request in flight has a body, which must wake whoever polls it.
    sending: bool,
    activity: Rc<Activity>,
    open: Open,
    idle_timeout: Duration,
    over: bool,
}

/// Notes that somebody was told to go on.
#[derive(Debug, Default)]
struct Told(AtomicBool);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// What a request came to.
#[derive(Debug)]
pub enum Answer {
    /// A response; its body brings the connection back to the pool.
    Response(Response<Body>),
    /// The upstream agreed to a tunnel.
    Tunnel(Response<Body>, Box<Tunnelled>),
}

/// The upstream's end of a tunnel.
#[derive(Debug)]
pub struct Tunnelled {
    /// The bytes.
    pub stream: Stream,
    /// What counts the connection. Behind it, or one more could be open than may be.
    pub open: Open,
}

/// A request that got no response.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: UpstreamError,
    /// The request, when not a byte of it was sent.
    pub unsent: Option<Box<Request<Body>>>,
    /// Whether a byte of a response came.
    pub answered: bool,
}

impl Conn {
    /// Speaks HTTP/1.1 on a fresh connection.
    ///
    /// # Errors
    /// [`UpstreamError::Protocol`]; hyper's handshake of HTTP/1 does no I/O, so in practice none.
    pub async fn new(
        mut stream: Stream,
        open: Open,
        idle_timeout: Duration,
    ) -> Result<Box<Self>, UpstreamError> {
        let activity = stream.activity().clone();
        stream.guard_responses();
        let woken = Woken::default();
        let (requests, driver) = http1::Builder::new()
            .max_header_size(MAX_HEAD)
            .handshake(TokioIo::new(Waking::new(stream, woken.clone())))
            .await
            .map_err(|_| UpstreamError::Protocol)?;
        let told = Arc::<Told>::default();
        let told = (told.clone(), Waker::from(told));
        let (sending, over) = (false, false);
        Ok(Box::new(Self { requests, driver, woken, told, sending, activity, open, idle_timeout, over }))
    }

    /// What counts it.
    pub fn open(&self) -> &Open {
        &self.open
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.open.endpoint()
    }

    /// The figures of its cluster.
    pub fn stats(&self) -> &ClusterStats {
        self.open.stats()
    }

    /// Whether it has carried nothing for longer than it may.
    pub fn is_stale(&self) -> bool {
        Duration::from_millis(self.activity.idle_ms()) >= self.idle_timeout
    }

    /// Whether a request can be sent, by what is known: whether the upstream has closed it since, an exchange finds
    /// out before it sends.
    pub fn is_ready(&self) -> bool {
        !self.over && self.requests.is_ready()
    }

    /// Looks at what the socket says. From here on the socket wakes nobody.
    pub fn rest(&mut self) {
        self.drive(&mut Context::from_waker(Waker::noop()));
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if self.over {
            return;
        }
        self.woken.set(cx.waker());
        let (told, waker) = &self.told;
        told.0.store(false, Relaxed);
        let waker = if self.sending { cx.waker() } else { waker };
        // hyper's error, if any, reaches the exchange through its response or body.
        self.over = self.driver.poll_without_shutdown(&mut Context::from_waker(waker)).is_ready();
        // hyper has put something off, or tokio's budget has run out, which its channels would say only later.
        if told.0.load(Relaxed) || !tokio::task::coop::has_budget_remaining() {
            cx.waker().wake_by_ref();
        }
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn exchange(
        mut self: Box<Self>,
        pools: &Rc<Pools>,
        request: Box<Request<Body>>,
        trip: &Trip,
    ) -> Result<Answer, Failure> {
        self.activity.spell(trip.spelling());
        let method = request.method().clone();
        let asks = method == Method::CONNECT || request.headers().contains_key(header::UPGRADE);
        self.sending = !request.body().is_end_stream();
        self.activity.ask(method.clone());
        let received = self.activity.received();
        let mut response = pin!(self.requests.try_send_request(*request));
        let result = std::future::poll_fn(|cx| {
            self.drive(cx);
            match response.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending if self.over => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        let spelling = self.activity.heads().borrow_mut().take_last();
        if matches!(result, Some(Ok(_))) {
            trip.note_answer_spelling(spelling);
        }
        match result {
            // A change of protocol that nobody asked for: what follows could be anything.
            Some(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS && !asks => {
                Err(Failure { error: UpstreamError::Protocol, unsent: None, answered: true })
            }
            // Boxed, as it is rare: the future of every exchange has room for it.
            Some(Ok(response)) if tunnels(&method, response.status()) => {
                Ok(Box::pin(self.tunnel(pools, response)).await)
            }
            Some(Ok(response)) => Ok(self.answer(pools, response)),
            Some(Err(error)) => Err(self.failure(error, received)),
            None => Err(Failure { error: UpstreamError::Closed, unsent: None, answered: false }),
        }
    }

    fn failure(&self, mut error: TrySendError<Request<Body>>, received: u64) -> Failure {
        let unsent = error.take_message().map(Box::new);
        let answered = self.activity.received() > received;
        let error = error.into_error();
        let error = if self.activity.violation().is_some() || error.is_parse() {
            UpstreamError::Protocol
        } else if error.is_user() {
            UpstreamError::RequestBody
        } else {
            UpstreamError::Closed
        };
        Failure { error, unsent, answered }
    }

    fn answer(self: Box<Self>, pools: &Rc<Pools>, response: Response<Incoming>) -> Answer {
        let (head, incoming) = response.into_parts();
        let mut body =
            Streaming { conn: Some(self), incoming, first: None, pools: pools.clone(), woken: true };
        // Most responses came whole with their head: the connection is free again before the head is passed on.
        let body = match body.poll_now() {
            Whole::Empty => Body::empty(),
            Whole::Full(bytes) => Body::full(bytes),
            Whole::Partial => Body::source(Box::pin(body)),
        };
        Answer::Response(Response::from_parts(head, body))
    }

    async fn tunnel(mut self: Box<Self>, pools: &Pools, response: Response<Incoming>) -> Answer {
        std::future::poll_fn(|cx| {
            self.drive(cx);
            if self.over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let parts = self.driver.into_parts();
        let mut stream = parts.io.into_inner().into_inner();
        stream.unguard();
        stream.unread(parts.read_buf);
        let mut open = self.open;
        pools.watch_over(&mut stream, &mut open);
        Answer::Tunnel(response.map(|_| Body::empty()), Box::new(Tunnelled { stream, open }))
    }
}

fn tunnels(method: &Method, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || (method == Method::CONNECT && status.is_success())
}

/// A response's body as it comes; owns the connection until it has come whole.
struct Streaming {
    conn: Option<Box<Conn>>,
    incoming: Incoming,
    first: Option<Result<Frame<Bytes>, BodyError>>,
    pools: Rc<Pools>,
    /// Whether the connection was last polled on behalf of a task that it may wake.
    woken: bool,
}

enum Whole {
    Empty,
    Full(Bytes),
    Partial,
}

impl Streaming {
    /// What of the body is there without waiting.
    fn poll_now(&mut self) -> Whole {
        if self.incoming.is_end_stream() {
            self.release();
            return Whole::Empty;
        }
        match self.poll_incoming(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) if self.conn.is_none() && frame.is_data() => {
                Whole::Full(frame.into_data().unwrap_or_default())
            }
            Poll::Ready(Some(first)) => {
                self.first = Some(first);
                Whole::Partial
            }
            Poll::Ready(None) => Whole::Empty,
            Poll::Pending => Whole::Partial,
        }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut driven = false;
        loop {
            match Pin::new(&mut self.incoming).poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(Ok(frame))) => {
                    if self.incoming.is_end_stream() {
                        self.release();
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Err(_))) => {
                    self.conn = None;
                    return Poll::Ready(Some(Err(BodyError::Upstream)));
                }
                Poll::Ready(None) => {
                    self.release();
                    return Poll::Ready(None);
                }
                Poll::Pending if driven => return Poll::Pending,
                Poll::Pending => {}
            }
            let Some(conn) = &mut self.conn else { return Poll::Ready(Some(Err(BodyError::Upstream))) };
            if conn.over {
                self.conn = None;
                continue;
            }
            self.woken = !cx.waker().will_wake(Waker::noop());
            conn.drive(cx);
            driven = !conn.over;
        }
    }

    /// The body has come whole: the connection may serve the next request.
    fn release(&mut self) {
        if let Some(mut conn) = self.conn.take() {
            // Where it is not ready yet, or would wake us when the upstream closes it, it is polled once more.
            if self.woken || !conn.is_ready() {
                conn.rest();
            }
            self.pools.put_h1(conn);
        }
    }
}

impl http_body::Body for Streaming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match this.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => this.poll_incoming(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held = match &self.first {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len) as u64,
            Some(Err(_)) => return SizeHint::default(),
            None => 0,
        };
        match self.incoming.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + held),
            None => SizeHint::default(),
        }
    }
}
