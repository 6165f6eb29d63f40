//! The demonstration's own HTTP/1.1 client: it sends what `curl` would, and the gentle traffic that gives a newcomer
//! something to see.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::body::Body;
use crate::watch::Leaving;
use crate::worker::Shared;

/// For a connection and a whole answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// What one connection of the traffic is asked to carry: each request is well answered before the next is due.
const RATE_PER_LANE: u32 = 20;

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Lost {
    /// There is no connection.
    Connect(io::Error),
    /// It broke.
    Broken(hyper::Error),
    /// Nothing came in time.
    Slow,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Broken(error) => {
                // hyper's errors tell their own level only.
                let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                write!(f, "the connection broke: {error}{cause}")
            }
            Self::Slow => write!(f, "no answer within {} s", PATIENCE.as_secs()),
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// From the request's first byte to the answer's last, without connecting.
    pub(super) took: Duration,
}

/// One connection at a time, opened when it is needed.
#[derive(Debug)]
pub(super) struct Client {
    to: SocketAddr,
    open: Option<SendRequest<Body>>,
    connections: u32,
}

impl Client {
    /// Not connected yet.
    pub(super) fn new(to: SocketAddr) -> Self {
        Self { to, open: None, connections: 0 }
    }

    /// How often it had to connect.
    pub(super) fn connections(&self) -> u32 {
        self.connections
    }

    /// Sends a request and waits for all of the answer.
    ///
    /// # Errors
    /// Why there is none. Nothing is sent twice: a request that is lost is reported lost.
    pub(super) async fn send(&mut self, request: Request<Body>) -> Result<Answer, Lost> {
        timeout(PATIENCE, self.exchange(request)).await.unwrap_or(Err(Lost::Slow))
    }

    async fn exchange(&mut self, request: Request<Body>) -> Result<Answer, Lost> {
        let mut sender = match self.open.take() {
            Some(open) => open,
            None => self.connect().await?,
        };
        // A connection that was closed after the last answer is no loss: nothing was sent on it.
        if sender.ready().await.is_err() {
            sender = self.connect().await?;
        }
        let start = Instant::now();
        let (head, body) = sender.send_request(request).await.map_err(Lost::Broken)?.into_parts();
        let body = collect(body).await.map_err(Lost::Broken)?;
        self.open = Some(sender);
        Ok(Answer { status: head.status, body, took: start.elapsed() })
    }

    async fn connect(&mut self) -> Result<SendRequest<Body>, Lost> {
        let stream = TcpStream::connect(self.to).await.map_err(Lost::Connect)?;
        stream.set_nodelay(true).map_err(Lost::Connect)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(Lost::Broken)?;
        // What breaks it is told to the request that it carried.
        tokio::task::spawn_local(async move { drop(connection.await) });
        self.connections += 1;
        Ok(sender)
    }
}

/// All bytes of a body.
///
/// # Errors
/// What broke it off.
pub(super) async fn collect<B: http_body::Body<Data = Bytes>>(body: B) -> Result<Bytes, B::Error> {
    let mut body = pin!(body);
    let mut bytes = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}

/// What the demonstration sends itself, so that there is something to see.
#[derive(Debug)]
pub(super) struct Traffic {
    to: SocketAddr,
    shared: Arc<Shared>,
    failed: Cell<u64>,
    last_failure: RefCell<Option<String>>,
}

impl Traffic {
    /// Sends this many requests a second, until the proxy is told to leave.
    pub(super) fn start(to: SocketAddr, shared: Arc<Shared>, per_second: u32) -> Rc<Self> {
        let traffic = Rc::new(Self { to, shared, failed: Cell::new(0), last_failure: RefCell::default() });
        let lanes = per_second.div_ceil(RATE_PER_LANE);
        for lane in 0..lanes {
            let start = Instant::now() + Duration::from_secs(1) * lane / per_second;
            tokio::task::spawn_local(
                traffic.clone().lane(start, Duration::from_secs(1) * lanes / per_second),
            );
        }
        traffic
    }

    /// How many of its requests failed, and why the last did.
    pub(super) fn failures(&self) -> Option<(u64, String)> {
        self.last_failure.borrow().clone().map(|why| (self.failed.get(), why))
    }

    async fn lane(self: Rc<Self>, start: Instant, every: Duration) {
        let mut turns = tokio::time::interval_at(start, every);
        turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut client = Client::new(self.to);
        loop {
            turns.tick().await;
            // Whoever goes on asking keeps the proxy from draining.
            if self.shared.leaving() != Leaving::No {
                return;
            }
            let request = Request::get("/demo").header("host", self.to.to_string()).body(Body::empty());
            let why = match client.send(request.expect("its parts are valid")).await {
                Ok(answer) if answer.status.is_success() => continue,
                Ok(answer) => answer.status.to_string(),
                Err(_) if self.shared.leaving() != Leaving::No => return,
                Err(lost) => lost.to_string(),
            };
            self.failed.set(self.failed.get() + 1);
            *self.last_failure.borrow_mut() = Some(why);
        }
    }
}
