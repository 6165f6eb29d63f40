//! The road of a connection: TLS, then what is spoken, then whoever speaks it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::choose::{Begun, choose};
use super::handshake::{self, Unwrapped};
use crate::conn::{Conn, Ends, OpenGuard, patience};
use crate::http::stack::Stack;
use crate::http::{h1, h2};
use crate::io::activity::Activity;
use crate::io::socket::Socket;
use crate::io::stream::{Stream, Transport};
use crate::live::{ChainViews, Entry, FilterView, ListenerView};
use crate::tcp;
use crate::watch::{Patience, Watch};
use crate::worker::Worker;

/// What an HTTP/2 client says first, and no HTTP/1 client can (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes read to tell the protocol; most requests fit.
const FIRST: usize = 1024;

/// Serves a connection in a task of its own.
pub fn start<S: Stack>(
    worker: &Rc<Worker>,
    stack: &S,
    entry: Entry,
    (socket, peer): (Socket, Option<SocketAddr>),
) {
    let activity = Activity::new(worker.ticks().clone());
    let redirected = if entry.is_redirected() { socket.redirected_from() } else { None };
    let ends = Ends { peer, local: socket.local(), redirected };
    let stack = stack.clone();
    match entry {
        Entry::One(view) => {
            let watch = Rc::new(Watch::new(activity.clone(), patience(&view)));
            let Some(conn) = open(worker, &view, watch, ends) else { return };
            tokio::task::spawn_local(async move {
                match &view.filter {
                    // Boxed, each where it begins: what an idle HTTP/1 connection keeps is the size of this task.
                    FilterView::Tcp(_) => Box::pin(serve_tcp(conn, &view, (socket, activity), None)).await,
                    FilterView::Http(_) => serve_http(conn, stack, &view, (socket, activity), None).await,
                }
            });
        }
        Entry::Several(chains) => {
            let worker = worker.clone();
            tokio::task::spawn_local(async move {
                let chosen = Box::pin(begin(&worker, &chains, (socket, ends), &activity));
                let Some(Chosen { conn, view, socket, begun }) = chosen.await else { return };
                match &view.filter {
                    FilterView::Tcp(_) => Box::pin(serve_tcp(conn, &view, (socket, activity), begun)).await,
                    FilterView::Http(_) => serve_http(conn, stack, &view, (socket, activity), begun).await,
                }
            });
        }
    }
}

/// Whether there is room for it where room is short. Where bytes are passed on, it is what a request is elsewhere.
pub(super) fn is_wanted(worker: &Worker, view: &ListenerView) -> bool {
    match view.filter {
        FilterView::Tcp(_) => !worker.shared().pressure.is_overloaded(),
        FilterView::Http(_) => true,
    }
}

/// A connection of this chain, if it may have one more.
fn open(worker: &Rc<Worker>, view: &Arc<ListenerView>, watch: Rc<Watch>, ends: Ends) -> Option<Rc<Conn>> {
    let Some(open) = OpenGuard::new(view) else {
        view.state.stats.limit("connections");
        tracing::warn!(
            listener = %view.name,
            limit = view.chain.limits.connections,
            "limits.connections is reached: a connection was closed"
        );
        return None;
    };
    Some(Conn::new(worker.clone(), watch, open, ends))
}

/// A connection, and the chain that takes it.
struct Chosen {
    conn: Rc<Conn>,
    view: Arc<ListenerView>,
    socket: Socket,
    begun: Option<Box<Begun>>,
}

/// Finds the chain that takes a connection; `None` when there is none, or it ended before.
async fn begin(
    worker: &Rc<Worker>,
    chains: &ChainViews,
    (mut socket, ends): (Socket, Ends),
    activity: &Rc<Activity>,
) -> Option<Chosen> {
    let peer = ends.peer;
    let before = Patience { header: chains.header_timeout, idle: chains.header_timeout };
    let watch = Rc::new(Watch::new(activity.clone(), before));
    let watched = worker.watch(watch.clone());
    let looked = {
        let mut looking = pin!(choose(chains, &mut socket, ends));
        std::future::poll_fn(|cx| match watch.poll_verdict(cx) {
            Some(_) => Poll::Ready(None),
            None => looking.as_mut().poll(cx).map(Some),
        })
        .await
    };
    match looked {
        Some(Ok((Some(view), begun))) => {
            if !is_wanted(worker, &view) {
                worker.shared().stats.shed.connections.increment(1);
                return None;
            }
            // From here on it is watched as what it is.
            drop(watched);
            watch.set_patience(patience(&view));
            let conn = open(worker, &view, watch, ends)?;
            Some(Chosen { conn, view, socket, begun })
        }
        Some(Ok((None, _))) => {
            chains.stats.error("no_chain");
            tracing::debug!(listener = %chains.name, ?peer, "no chain takes this connection");
            None
        }
        Some(Err(error)) => {
            chains.stats.error("tls_handshake");
            tracing::debug!(listener = %chains.name, ?peer, %error, "TLS handshake failed");
            None
        }
        None => {
            chains.stats.limit("header_timeout");
            None
        }
    }
}

async fn serve_tcp(
    conn: Rc<Conn>,
    view: &Arc<ListenerView>,
    (socket, activity): (Socket, Rc<Activity>),
    begun: Option<Box<Begun>>,
) {
    let Some((transport, _, first)) = unwrap(&conn, view, socket, begun).await else { return };
    let mut stream = Stream::new(transport, activity);
    stream.put_back(first);
    tcp::serve(&conn, view, stream).await;
}

async fn serve_http<S: Stack>(
    conn: Rc<Conn>,
    stack: S,
    view: &Arc<ListenerView>,
    (socket, activity): (Socket, Rc<Activity>),
    begun: Option<Box<Begun>>,
) {
    let Some((transport, alpn, first)) = unwrap(&conn, view, socket, begun).await else { return };
    let mut stream = Stream::new(transport, activity);
    stream.put_back(first);
    match alpn {
        Alpn::H2 => Box::pin(h2::serve(conn, stack, stream)).await,
        Alpn::H1 => {
            h1::serve(conn, stack, stream).await;
        }
        Alpn::Unsaid => match detect(&conn, &mut stream).await {
            Some((true, first)) => {
                stream.unread(first);
                Box::pin(h2::serve(conn, stack, stream)).await;
            }
            Some((false, first)) => {
                stream.unread(first);
                h1::serve(conn, stack, stream).await;
            }
            None => {}
        },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alpn {
    H1,
    H2,
    Unsaid,
}

/// Takes TLS off, where the listener has it; `None` when that failed. Where it has none, what was read of it comes too.
async fn unwrap(
    conn: &Conn,
    view: &ListenerView,
    socket: Socket,
    begun: Option<Box<Begun>>,
) -> Option<(Transport, Alpn, Bytes)> {
    let Some(tls) = &view.tls else {
        let first = begun.map_or_else(Bytes::new, |begun| begun.bytes);
        return Some((Transport::Plain(socket), Alpn::Unsaid, first));
    };
    let mut unwrapping = Box::pin(handshake::unwrap(tls, socket, begun));
    let unwrapped = std::future::poll_fn(|cx| match conn.watch().poll_verdict(cx) {
        Some(_) => Poll::Ready(None),
        None => unwrapping.as_mut().poll(cx).map(Some),
    });
    match unwrapped.await {
        Some(Ok(Unwrapped::Clear(socket))) => {
            view.state.stats.security("plaintext");
            Some((Transport::Plain(socket), Alpn::Unsaid, Bytes::new()))
        }
        Some(Ok(Unwrapped::Tls(stream, proven))) => {
            view.state.stats.security(if proven.identity.is_some() { "mtls" } else { "tls" });
            conn.set_proven(proven);
            let alpn = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Alpn::H2,
                Some(b"http/1.1") => Alpn::H1,
                Some(_) | None => Alpn::Unsaid,
            };
            Some((Transport::Tls(Box::new((*stream).into())), alpn, Bytes::new()))
        }
        Some(Err(error)) => {
            view.state.stats.error(error.reason());
            tracing::debug!(listener = %view.name, peer = ?conn.peer(), %error, "TLS handshake failed");
            None
        }
        None => {
            view.state.stats.limit("header_timeout");
            None
        }
    }
}

/// Reads until it is certain whether this is HTTP/2; `None` when the connection ended before.
async fn detect(conn: &Conn, stream: &mut Stream) -> Option<(bool, Bytes)> {
    let mut first = BytesMut::new();
    loop {
        let read = std::future::poll_fn(|cx| {
            if conn.watch().poll_verdict(cx).is_some() {
                return Poll::Ready(None);
            }
            let mut space = [0; FIRST];
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    first.extend_from_slice(buf.filled());
                    Poll::Ready(Some(()))
                }
                Poll::Ready(_) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        read.await?;
        let n = first.len().min(PREFACE.len());
        if first[..n] != PREFACE[..n] {
            return Some((false, first.freeze()));
        }
        if n == PREFACE.len() {
            return Some((true, first.freeze()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::stack::stack;

    /// What an idle HTTP/1 connection costs beside its socket is mostly this future: it must not grow unseen.
    #[test]
    fn the_future_of_a_connection_stays_small() {
        fn future<S: Stack>(_: &S) -> usize {
            fn of<S: Stack, F: Future>(
                _: impl Fn(Rc<Conn>, S, Arc<ListenerView>, (Socket, Rc<Activity>)) -> F,
            ) -> usize {
                size_of::<F>()
            }
            of(
                |conn, stack: S, view, arrival| async move { serve_http(conn, stack, &view, arrival, None).await },
            )
        }
        let size = future(&stack());
        assert!(size <= 1200, "{size} bytes");
    }
}
