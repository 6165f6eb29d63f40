//! The road of a connection: TLS, then what is spoken, then whoever speaks it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::handshake::{self, Unwrapped};
use crate::conn::{Conn, OpenGuard, patience};
use crate::http::stack::Stack;
use crate::http::{h1, h2};
use crate::io::activity::Activity;
use crate::io::socket::Socket;
use crate::io::stream::{Stream, Transport};
use crate::live::{FilterView, ListenerView};
use crate::tcp;
use crate::watch::Watch;
use crate::worker::Worker;

/// What an HTTP/2 client says first, and no HTTP/1 client can (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes read to tell the protocol; most requests fit.
const FIRST: usize = 1024;

/// Serves a connection in a task of its own.
pub fn start<S: Stack>(
    worker: &Rc<Worker>,
    stack: &S,
    view: Arc<ListenerView>,
    (socket, peer): (Socket, Option<SocketAddr>),
) {
    let Some(open) = OpenGuard::new(&view) else {
        view.state.stats.limit("connections");
        return tracing::warn!(
            listener = %view.name,
            limit = view.config.chain.limits.connections,
            "limits.connections is reached: a connection was closed"
        );
    };
    let activity = Activity::new(worker.ticks().clone());
    let watch = Rc::new(Watch::new(activity.clone(), patience(&view)));
    let conn = Conn::new(worker.clone(), watch, open, (peer, socket.local()));
    let stack = stack.clone();
    tokio::task::spawn_local(async move {
        match &view.filter {
            // Boxed, each where it begins: what an idle HTTP/1 connection keeps is the size of this task.
            FilterView::Tcp(_) => Box::pin(serve_tcp(conn, &view, socket, activity)).await,
            FilterView::Http(_) => serve_http(conn, stack, &view, (socket, activity)).await,
        }
    });
}

async fn serve_tcp(conn: Rc<Conn>, view: &Arc<ListenerView>, socket: Socket, activity: Rc<Activity>) {
    let Some((transport, _)) = unwrap(&conn, view, socket).await else { return };
    tcp::serve(&conn, view, Stream::new(transport, activity)).await;
}

async fn serve_http<S: Stack>(
    conn: Rc<Conn>,
    stack: S,
    view: &Arc<ListenerView>,
    (socket, activity): (Socket, Rc<Activity>),
) {
    let Some((transport, alpn)) = unwrap(&conn, view, socket).await else { return };
    let mut stream = Stream::new(transport, activity);
    match alpn {
        Alpn::H2 => Box::pin(h2::serve(conn, stack, stream)).await,
        Alpn::H1 => {
            stream.guard_requests(Bytes::new());
            h1::serve(conn, stack, stream).await;
        }
        Alpn::Unsaid => match detect(&conn, &mut stream).await {
            Some((true, first)) => {
                stream.unread(first);
                Box::pin(h2::serve(conn, stack, stream)).await;
            }
            Some((false, first)) => {
                stream.guard_requests(first);
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

/// Takes TLS off, where the listener has it; `None` when that failed.
async fn unwrap(conn: &Conn, view: &ListenerView, socket: Socket) -> Option<(Transport, Alpn)> {
    let Some(tls) = &view.tls else { return Some((Transport::Plain(socket), Alpn::Unsaid)) };
    let mut unwrapping = Box::pin(handshake::unwrap(tls, socket));
    let unwrapped = std::future::poll_fn(|cx| match conn.watch().poll_verdict(cx) {
        Some(_) => Poll::Ready(None),
        None => unwrapping.as_mut().poll(cx).map(Some),
    });
    match unwrapped.await {
        Some(Ok(Unwrapped::Clear(socket))) => {
            view.state.stats.security("plaintext");
            Some((Transport::Plain(socket), Alpn::Unsaid))
        }
        Some(Ok(Unwrapped::Tls(stream, proven))) => {
            view.state.stats.security(if proven.identity.is_some() { "mtls" } else { "tls" });
            conn.set_proven(proven);
            let alpn = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Alpn::H2,
                Some(b"http/1.1") => Alpn::H1,
                Some(_) | None => Alpn::Unsaid,
            };
            Some((Transport::Tls(Box::new((*stream).into())), alpn))
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
            of(|conn, stack: S, view, arrival| async move { serve_http(conn, stack, &view, arrival).await })
        }
        let size = future(&stack());
        assert!(size <= 1200, "{size} bytes");
    }
}
