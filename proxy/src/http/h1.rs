//! HTTP/1.1 towards a client: hyper reads and writes it, this decides when it may, and what remains of a connection
//! that waits.
//!
//! hyper holds some 16 KiB of buffers for a connection, in use or not. A connection that has been idle for a moment is
//! taken out of hyper's hands and waits as a bare socket ([`park`]); its next byte puts it back.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::call::{Call, Ledger, Wanted};
use super::stack::Stack;
use super::tunnel;
use crate::body::Body;
use crate::conn::{Conn, Tunnel};
use crate::error::ProxyError;
use crate::io::framing::Phase;
use crate::io::stream::Stream;
use crate::watch::{Stage, Verdict};

/// A head is read whole before anything else of its message, so this bounds hyper's reading buffer too.
const MIN_BUFFER: usize = 8 * 1024;
/// First bytes read from a connection that was parked.
const WAKE: usize = 512;
/// What is read, at most, from a client that has had its last answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// Serves a connection until it ends.
pub async fn serve<S: Stack>(conn: Rc<Conn>, stack: S, mut stream: Stream) {
    loop {
        conn.watch().enter(Stage::Http1);
        match active(&conn, &stack, stream).await {
            Left::Parked(idle) => stream = idle,
            Left::Tunnel(client, tunnel) => return Box::pin(tunnel::joined(&conn, client, *tunnel)).await,
            Left::Refused(client, error) => return Box::pin(refuse(&conn, client, error)).await,
            Left::Whole(client) => return shut(client).await,
            Left::Lingering(client) => return Box::pin(linger(&conn, client)).await,
            Left::Ended => return,
        }
        conn.watch().enter(Stage::Parked);
        conn.worker().shared().note_freed();
        if !park(&conn, &mut stream).await {
            return;
        }
    }
}

/// What becomes of a connection when hyper lets go of it.
enum Left {
    Parked(Stream),
    Tunnel(Stream, Box<Tunnel>),
    /// A request did not become one in time; the stream is there when an answer can be given.
    Refused(Option<Stream>, ProxyError),
    /// The last answer has been given, and its request read.
    Whole(Stream),
    /// The last answer is on its way to a client that may still be sending.
    Lingering(Stream),
    Ended,
}

async fn active<S: Stack>(conn: &Rc<Conn>, stack: &S, stream: Stream) -> Left {
    let limits = &conn.view().chain.limits;
    let (bytes, headers) = (limits.header_bytes.get(), limits.headers.get());
    let service = Requests { conn: conn.clone(), stack: RefCell::new(stack.clone()), slot: Slot::default() };
    // On the heap, and gone while parked: it is large.
    let mut driver = Box::new(
        http1::Builder::new()
            .max_headers(headers)
            .max_header_size(bytes)
            .max_buf_size(bytes.max(MIN_BUFFER))
            .serve_connection(TokioIo::new(stream), service),
    );
    let end = std::future::poll_fn(|cx| match conn.watch().poll_verdict(cx) {
        Some(Verdict::Drain) | None => driver.poll_without_shutdown(cx).map(End::Driver),
        Some(verdict) => {
            if verdict == Verdict::IdleTimeout && conn.watch().active() > 0 {
                conn.set_ended(ProxyError::IdleTimeout);
            }
            Poll::Ready(End::Verdict(verdict))
        }
    });
    let end = end.await;
    // Whatever the end is: left there, it would hold the connection that holds it.
    let tunnel = conn.take_tunnel();
    let parts = driver.into_parts();
    let mut stream = parts.io.into_inner();
    let unread = parts.read_buf.len();
    stream.unread(parts.read_buf);
    match end {
        End::Verdict(Verdict::Park) => Left::Parked(stream),
        End::Verdict(Verdict::HeaderTimeout) => {
            // To a connection that never said anything there is nothing to answer.
            // Nor to one that has not taken its last answer: ours would stand in the middle of it.
            let asked = stream.activity().received() > 0 && !stream.activity().write_blocked();
            Left::Refused(asked.then_some(stream), ProxyError::HeaderTimeout)
        }
        End::Verdict(Verdict::IdleTimeout | Verdict::Close | Verdict::Drain) => Left::Ended,
        End::Driver(Ok(())) => match tunnel {
            Some(tunnel) => Left::Tunnel(stream, Box::new(tunnel)),
            // The answer came before the request's end.
            None if stream.activity().phase() == Phase::Body => Left::Lingering(stream),
            None => Left::Whole(stream),
        },
        End::Driver(Err(error)) => match refusal(&error, &stream, unread >= bytes) {
            Some(error) => {
                Ledger::refused(conn, error);
                Left::Lingering(stream)
            }
            None => Left::Ended,
        },
    }
}

enum End {
    Driver(hyper::Result<()>),
    Verdict(Verdict),
}

/// Why hyper, or the guard before it, refused a head. hyper has answered.
fn refusal(error: &hyper::Error, stream: &Stream, full: bool) -> Option<ProxyError> {
    if let Some(violation) = stream.activity().violation() {
        return Some(ProxyError::Head(violation.code()));
    }
    if error.is_parse_too_large() {
        if error.to_string().contains("URI") {
            return Some(ProxyError::TargetTooLong);
        }
        // hyper has one word for both.
        return Some(if full { ProxyError::HeadTooLarge } else { ProxyError::TooManyHeaders });
    }
    error.is_parse().then_some(ProxyError::Head("malformed"))
}

/// Gives the answer that is due, and lets the client read it before the connection ends.
async fn refuse(conn: &Conn, stream: Option<Stream>, error: ProxyError) {
    Ledger::refused(conn, error);
    let Some(mut stream) = stream else { return };
    let status = error.answer().status;
    let answer = format!(
        "HTTP/1.1 {} {}\r\nconnection: close\r\ncontent-length: 0\r\nx-outrigger-reason: {}\r\n\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        error.answer().reason
    );
    // The client may be gone; it has been given its chance.
    if let Ok(Ok(())) = tokio::time::timeout(LINGER, stream.write_all(answer.as_bytes())).await {
        linger(conn, stream).await;
    }
}

/// Ends our side. Most sockets take it at once; one whose client reads nothing is not waited for without end.
async fn shut(mut stream: Stream) {
    let at_once = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut stream).poll_shutdown(cx).is_ready()));
    if !at_once.await {
        let _ = Box::pin(tokio::time::timeout(LINGER, stream.shutdown())).await;
    }
}

/// Ends our side, and reads on for a moment: a socket that is closed with unread bytes in it is reset, and the reset can
/// overtake the answer (RFC 9112 section 9.6).
async fn linger(conn: &Conn, mut stream: Stream) {
    conn.watch().enter(Stage::Tunnel);
    stream.unguard();
    let rest = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut space = [0; WAKE];
        let mut left = LINGER_BYTES;
        while let Ok(n @ 1..) = stream.read(&mut space).await {
            left = left.saturating_sub(n);
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// Waits, holding nothing but the socket, for the next request; `false` when none will come.
async fn park(conn: &Conn, stream: &mut Stream) -> bool {
    let woken = std::future::poll_fn(|cx| {
        if let Some(Verdict::Close | Verdict::IdleTimeout) = conn.watch().poll_verdict(cx) {
            return Poll::Ready(None);
        }
        let mut space = [0; WAKE];
        let mut buf = ReadBuf::new(&mut space);
        match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                Poll::Ready(Some(Bytes::copy_from_slice(buf.filled())))
            }
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    match woken.await {
        Some(bytes) => {
            stream.unread(bytes);
            true
        }
        None => false,
    }
}

/// hyper's view of the stack.
struct Requests<S: Stack> {
    conn: Rc<Conn>,
    stack: RefCell<S>,
    slot: Slot<S::Future>,
}

impl<S: Stack> hyper::service::Service<Request<Incoming>> for Requests<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Answering<S::Future> {
        let request = Box::new(request.map(Body::client));
        let ledger = Ledger::open(self.conn.clone(), &request);
        let call = Call { request, tunnel: Wanted::Nothing, ledger: ledger.clone() };
        self.slot.fill(self.stack.borrow_mut().call(call));
        Answering { slot: self.slot.clone(), ledger }
    }
}

/// Where the answer of a connection's one request in flight is worked out. hyper wants futures that can be moved, the
/// stack's cannot; this is the box that every request would need, made once a connection.
struct Slot<F>(Rc<RefCell<Pin<Box<Option<F>>>>>);

impl<F> Slot<F> {
    fn fill(&self, future: F) {
        self.0.borrow_mut().as_mut().set(Some(future));
    }
}

impl<F> Default for Slot<F> {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(Box::pin(None))))
    }
}

impl<F> Clone for Slot<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Answering<F> {
    slot: Slot<F>,
    ledger: Rc<Ledger>,
}

impl<F: Future<Output = Result<Response<Body>, Infallible>>> Future for Answering<F> {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.slot.0.borrow_mut();
        let future = slot.as_mut().as_pin_mut().expect("filled before hyper polls it");
        let Poll::Ready(Ok(mut response)) = future.poll(cx) else { return Poll::Pending };
        slot.as_mut().set(None);
        *response.version_mut() = Version::HTTP_11;
        let conn = self.ledger.conn();
        conn.watch().activity().spell(self.ledger.trip().take_answer_spelling());
        if let Some(upstream) = self.ledger.take_tunnel() {
            self.ledger.conn().offer_tunnel(Tunnel { upstream, meter: self.ledger.clone() });
        }
        Poll::Ready(Ok(response))
    }
}

impl<F> Drop for Answering<F> {
    fn drop(&mut self) {
        // The client went away in the middle: what was under way for it ends now, not with the connection's memory.
        self.slot.0.borrow_mut().as_mut().set(None);
    }
}
