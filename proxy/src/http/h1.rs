//! HTTP/1.1 towards a client: one request after the other is read, answered, and written; and what remains of a connection
//! that waits.
//!
//! Pipelined requests are answered in their order: what follows a request is read while it is answered, so that a client that
//! goes away is noticed, and looked at after that.
//!
//! A connection that has been idle for a moment waits as a bare socket ([`park`]); its next byte wakes it.

mod wire;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use self::wire::{Sink, Wire};
use super::call::{Call, Ledger, Wanted};
use super::layers::rate_limit::announcement;
use super::stack::Stack;
use super::tunnel;
use crate::body::Body;
use crate::conn::{Conn, Tunnel};
use crate::error::ProxyError;
use crate::h1::{Asked, Malformed, Outgoing, Refused, RequestHead, read_request, write_response};
use crate::io::spelling::Spelling;
use crate::io::stream::Stream;
use crate::policy::limiter::Announcement;
use crate::watch::{Stage, Verdict};

/// First bytes read from a connection that was parked.
const WAKE: usize = 512;
/// What is read, at most, from a client that has had its last answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// Serves a connection until it ends.
pub async fn serve<S: Stack>(conn: Rc<Conn>, stack: S, mut stream: Stream) {
    loop {
        conn.watch().enter(Stage::Http1);
        // On the heap, and gone while parked: it is large.
        let left = Box::pin(active(&conn, &stack, stream)).await;
        // None of its requests waits for anything any more.
        conn.timer().disarm();
        match left {
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

/// What becomes of a connection that is not served any longer.
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
    let (bytes, fields) = (limits.header_bytes.get(), limits.headers.get());
    let wire = Wire::new(conn.clone(), stream, bytes);
    let mut stack = stack.clone();
    let end = loop {
        let head = poll_fn(|cx| match ends(conn, cx) {
            Some(verdict) => Poll::Ready(Err(End::Verdict(verdict))),
            None => wire.poll_head(cx).map(|head| head.map_err(End::from)),
        });
        let head = match head.await {
            Ok(Some(head)) => read_request(&head, fields).map_err(End::from),
            // It has ended its side between two requests, or in the middle of one.
            Ok(None) if wire.is_whole() => Err(End::Last { is_whole: true }),
            Ok(None) => Err(End::Gone),
            Err(end) => Err(end),
        };
        let head = match head {
            Ok(head) => head,
            Err(end) => break end,
        };
        if let Err(end) = serve_one(&wire, &mut stack, head).await {
            break end;
        }
    };
    let Some(stream) = wire.take() else { return Left::Ended };
    left(conn, stream, end)
}

/// What ends a connection's being served.
enum End {
    Verdict(Verdict),
    /// The client is gone, or its answer broke off.
    Gone,
    /// What it sent is no request.
    Refused(ProxyError),
    Tunnel(Box<Tunnel>),
    /// The last answer has been given; whether its request was read whole.
    Last {
        is_whole: bool,
    },
}

impl From<Malformed> for End {
    fn from(malformed: Malformed) -> Self {
        Self::Refused(match malformed {
            Malformed::TooManyFields => ProxyError::TooManyHeaders,
            Malformed::TargetTooLong => ProxyError::TargetTooLong,
            Malformed::Line => ProxyError::Head("malformed"),
        })
    }
}

impl From<Refused> for End {
    fn from(refused: Refused) -> Self {
        Self::Refused(match refused {
            Refused::Framing(violation) => ProxyError::Head(violation.code()),
            Refused::HeadTooLarge => ProxyError::HeadTooLarge,
        })
    }
}

/// What the sweep wants that ends it: to drain is to go on, as the answers say that they are the last.
fn ends(conn: &Conn, cx: &Context<'_>) -> Option<Verdict> {
    let verdict = conn.watch().poll_verdict(cx).filter(|verdict| *verdict != Verdict::Drain)?;
    if verdict == Verdict::IdleTimeout && conn.watch().active() > 0 {
        conn.set_ended(ProxyError::IdleTimeout);
    }
    Some(verdict)
}

fn left(conn: &Conn, stream: Stream, end: End) -> Left {
    match end {
        End::Verdict(Verdict::Park) => Left::Parked(stream),
        End::Verdict(Verdict::HeaderTimeout) => {
            // To a connection that never said anything there is nothing to answer.
            // Nor to one that has not taken its last answer: ours would stand in the middle of it.
            let asked = conn.watch().activity().received() > 0 && !stream.activity().write_blocked();
            Left::Refused(asked.then_some(stream), ProxyError::HeaderTimeout)
        }
        End::Verdict(Verdict::IdleTimeout | Verdict::Close | Verdict::Drain) | End::Gone => Left::Ended,
        End::Refused(error) => Left::Refused(Some(stream), error),
        End::Tunnel(tunnel) => Left::Tunnel(stream, tunnel),
        End::Last { is_whole: true } => Left::Whole(stream),
        End::Last { is_whole: false } => Left::Lingering(stream),
    }
}

/// Serves one request; an error when no other can follow it.
async fn serve_one<S: Stack>(wire: &Rc<Wire>, stack: &mut S, head: RequestHead) -> Result<(), End> {
    let RequestHead { request, asked, expects, spelling } = head;
    let body = if wire.is_whole() { Body::empty() } else { Body::source(Box::pin(wire.body(expects))) };
    let request = Box::new(request.map(|()| body));
    let ledger = Ledger::open(wire.conn().clone(), &request, spelling);
    let call = Call { request, tunnel: Wanted::Nothing, ledger: ledger.clone() };
    let response = {
        let answering = pin!(stack.call(call));
        answer(wire, answering).await?
    };
    let tunnel = ledger.take_tunnel().map(|upstream| Box::new(Tunnel { upstream, meter: ledger.clone() }));
    let (names, limits) = (ledger.trip().take_answer_spelling(), announcement(&ledger));
    drop(ledger);
    let persists = send(wire, response, (asked, names, limits)).await?;
    if let Some(tunnel) = tunnel {
        return Err(End::Tunnel(tunnel));
    }
    let is_whole = poll_fn(|cx| wire.poll_end_request(cx)).await;
    if persists && is_whole { Ok(()) } else { Err(End::Last { is_whole }) }
}

/// Waits for the answer, or for its being of use to nobody.
async fn answer<F>(wire: &Wire, mut answering: Pin<&mut F>) -> Result<Response<Body>, End>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    poll_fn(|cx| {
        if let Some(verdict) = ends(wire.conn(), cx) {
            return Poll::Ready(Err(End::Verdict(verdict)));
        }
        if let Poll::Ready(Ok(response)) = answering.as_mut().poll(cx) {
            return Poll::Ready(Ok(response));
        }
        wire.poll_gone(cx).map(|()| Err(End::Gone))
    })
    .await
}

/// Writes an answer; whether another may follow.
async fn send(
    wire: &Wire,
    response: Response<Body>,
    (mut asked, names, limits): (Asked, Option<Spelling>, Option<Announcement>),
) -> Result<bool, End> {
    // Whether the client goes on with its body or with another request nobody could tell.
    asked.persists &= !wire.is_held_back();
    let space = wire.space();
    let mut head = space.take_write();
    head.extend_from_slice(wire.begin_answer());
    let date = wire.conn().worker().date();
    let more = |head: &mut Vec<u8>| limits.iter().for_each(|limits| limits.write(head));
    let (framing, persists) = write_response(&mut head, &response, asked, (names.as_ref(), &date, more));
    let mut out = Outgoing::new(head, framing);
    let mut body = response.into_body();
    poll_fn(|cx| {
        if let Some(verdict) = ends(wire.conn(), cx) {
            return Poll::Ready(Err(End::Verdict(verdict)));
        }
        match out.poll(cx, (&mut Sink(wire), &mut body)) {
            Poll::Ready(sent) => Poll::Ready(sent.map_err(|_| End::Gone)),
            Poll::Pending => wire.poll_gone(cx).map(|()| Err(End::Gone)),
        }
    })
    .await?;
    if let Some(written) = out.take_space() {
        space.put_write(written);
    }
    Ok(persists)
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
    let at_once = poll_fn(|cx| Poll::Ready(Pin::new(&mut stream).poll_shutdown(cx).is_ready()));
    if !at_once.await {
        let _ = Box::pin(tokio::time::timeout(LINGER, stream.shutdown())).await;
    }
}

/// Ends our side, and reads on for a moment: a socket that is closed with unread bytes in it is reset, and the reset can
/// overtake the answer (RFC 9112 section 9.6).
async fn linger(conn: &Conn, mut stream: Stream) {
    conn.watch().enter(Stage::Tunnel);
    stream.leave_http();
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
    let woken = poll_fn(|cx| {
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
