//! HTTP/2 towards a client, on the `h2` crate itself: a task for the connection, one for each stream.
//!
//! The connection's task reads and writes; what the streams' tasks have to say is sent once they all have had their
//! turn (see [`io::deferred`](crate::io::deferred)).

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::{Connection, SendResponse};
use http::header::{self, HeaderMap, HeaderName};
use http::{Request, Response, StatusCode};
use http_body::Body as _;

use super::call::{Call, Ledger, Wanted};
use super::layers::rate_limit::announcement;
use super::stack::Stack;
use super::tunnel;
use crate::body::{Body, BodyError};
use crate::conn::Conn;
use crate::error::ProxyError;
use crate::h2_stream::{CONNECTION_WINDOW, Pump, PumpError, Received, STREAM_WINDOW};
use crate::io::deferred::{Deferred, Sender, deferred};
use crate::io::stream::Stream;
use crate::watch::{Leaving, Stage, Verdict};

/// Streams that the client reset and we have not yet looked at; more end the connection (rapid reset,
/// CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams that we had to reset for the client's errors; more end the connection (CVE-2025-8671).
const LOCAL_RESETS: usize = 256;
/// How long a stream that was reset is remembered, for frames of it still under way.
const RESET_MEMORY: Duration = Duration::from_secs(5);

type Driver = Connection<Deferred<Stream>, Bytes>;

/// Serves a connection until it ends.
pub async fn serve<S: Stack>(conn: Rc<Conn>, stack: S, stream: Stream) {
    conn.watch().enter(Stage::Http2);
    let limits = conn.view().chain.limits.clone();
    let (io, sender) = deferred(stream);
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.streams.get())
        .max_header_list_size(u32::try_from(limits.header_bytes.get()).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(LOCAL_RESETS))
        .reset_stream_duration(RESET_MEMORY)
        .enable_connect_protocol()
        .handshake::<_, Bytes>(io);
    let mut handshake = pin!(handshake);
    let opened = std::future::poll_fn(|cx| {
        let opened = handshake.as_mut().poll(cx);
        if opened.is_pending() && (matches!(sender.poll_send(cx), Poll::Ready(Err(_))) || ends(&conn, cx)) {
            return Poll::Ready(None);
        }
        opened.map(Result::ok)
    });
    let Some(mut driver) = opened.await else { return };
    drive(&conn, &stack, &mut driver, &sender).await;
}

fn ends(conn: &Conn, cx: &Context<'_>) -> bool {
    matches!(
        conn.watch().poll_verdict(cx),
        Some(Verdict::Close | Verdict::IdleTimeout | Verdict::HeaderTimeout)
    )
}

async fn drive<S: Stack>(conn: &Rc<Conn>, stack: &S, driver: &mut Driver, sender: &Sender<Stream>) {
    // A verdict that came during the handshake is gone.
    let mut told = conn.worker().shared().leaving() != Leaving::No;
    if told {
        driver.graceful_shutdown();
    }
    std::future::poll_fn(|cx| {
        match conn.watch().poll_verdict(cx) {
            Some(Verdict::Drain) => {
                told = true;
                driver.graceful_shutdown();
            }
            // Idle: the client is told, and given the time of a round trip.
            Some(Verdict::IdleTimeout) if conn.watch().active() == 0 && !told => {
                told = true;
                driver.graceful_shutdown();
            }
            Some(Verdict::IdleTimeout | Verdict::Close) => return Poll::Ready(()),
            Some(Verdict::Park | Verdict::HeaderTimeout) | None => {}
        }
        let ended = loop {
            match driver.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let call = open(conn, request);
                    tokio::task::spawn_local(answer(stack.clone(), call, respond));
                }
                Poll::Ready(Some(Err(error))) => {
                    note_error(conn, &error);
                    break true;
                }
                Poll::Ready(None) => break true,
                Poll::Pending => break false,
            }
        };
        match sender.poll_send(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(())) if ended => Poll::Ready(()),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    })
    .await;
}

/// A connection that we ended says which rule it broke.
fn note_error(conn: &Conn, error: &h2::Error) {
    if error.is_library() {
        let reason = match error.reason() {
            Some(Reason::ENHANCE_YOUR_CALM) => "h2_enhance_your_calm",
            Some(Reason::FLOW_CONTROL_ERROR) => "h2_flow_control_error",
            Some(Reason::COMPRESSION_ERROR) => "h2_compression_error",
            Some(_) | None => "h2_protocol_error",
        };
        Ledger::refused(conn, ProxyError::Head(reason));
    }
}

/// Outside the stream's task, which would keep room for what the request was made of.
fn open(conn: &Rc<Conn>, request: Request<h2::RecvStream>) -> Call {
    let (head, stream) = request.into_parts();
    let body = if stream.is_end_stream() {
        Body::empty()
    } else {
        Body::source(Box::pin(Received::new(stream, &head.headers, BodyError::Client)))
    };
    let request = Box::new(Request::from_parts(head, body));
    let ledger = Ledger::open(conn.clone(), &request, None);
    Call { request, tunnel: Wanted::Nothing, ledger }
}

async fn answer<S: Stack>(mut stack: S, call: Call, mut respond: SendResponse<Bytes>) {
    let ledger = call.ledger.clone();
    // However this ends.
    let _uncycle = Uncycle(ledger.clone());
    let answered = {
        // Gone before the reply, whose room it takes.
        let mut answering = pin!(stack.call(call));
        let answered = std::future::poll_fn(|cx| {
            if let Poll::Ready(Ok(response)) = answering.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            if ledger.is_idle(cx) {
                ledger.set_error(ProxyError::IdleTimeout);
                return Poll::Ready(None);
            }
            // A client that resets the stream wants nothing of what is under way for it.
            respond.poll_reset(cx).map(|_| None)
        });
        answered.await
    };
    if let Some(response) = answered {
        reply(&ledger, respond, response).await;
    }
}

/// What a client sends into a tunnel is counted by the ledger that keeps it until the tunnel stands: left there, the two
/// would hold each other for ever.
struct Uncycle(Rc<Ledger>);

impl Drop for Uncycle {
    fn drop(&mut self) {
        drop(self.0.take_tunnel_request());
    }
}

async fn reply(ledger: &Ledger, mut respond: SendResponse<Bytes>, response: Response<Body>) {
    let (mut head, mut body) = response.into_parts();
    let request = ledger.take_tunnel_request();
    if let Some(upstream) = ledger.take_tunnel() {
        head.status = StatusCode::OK;
        body = tunnel::body(upstream, request.unwrap_or_else(Body::empty));
    }
    shape(&mut head.headers);
    if let Some(limits) = announcement(ledger) {
        limits.add(&mut head.headers);
    }
    let ends = body.is_end_stream();
    let Ok(stream) = respond.send_response(Response::from_parts(head, ()), ends) else { return };
    if ends {
        return;
    }
    let mut pump = Pump::new(body, stream);
    let pumped = std::future::poll_fn(|cx| match pump.poll(cx) {
        // Dropped, it resets the stream.
        Poll::Pending if ledger.is_idle(cx) => {
            ledger.set_error(ProxyError::IdleTimeout);
            Poll::Ready(Err(PumpError::Reset))
        }
        pumped => pumped,
    });
    match pumped.await {
        Ok(()) | Err(PumpError::Reset) => {}
        Err(PumpError::Body(error)) => ledger.set_error(error.into()),
    }
}

/// Takes out what HTTP/2 has no place for (RFC 9113 section 8.2.2).
fn shape(headers: &mut HeaderMap) {
    const GONE: [HeaderName; 3] = [header::CONNECTION, header::UPGRADE, header::TRANSFER_ENCODING];
    // Most have none of them, and a look costs less than three removals.
    if headers.keys().any(|name| GONE.contains(name)) {
        for name in GONE {
            headers.remove(name);
        }
    }
}
