//! Tunnels: after both sides have agreed (`101`, or a 2xx to CONNECT), bytes are passed on as they are until both have
//! ended. Not before: bytes that a client sent early wait until the upstream has agreed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body::{Body, BodyError, Side};
use crate::conn::{Conn, Tunnel};
use crate::io::copy::pump;
use crate::io::stream::Stream;
use crate::upstream::Tunnelled;
use crate::watch::Stage;

/// Bytes read at once for a client's HTTP/2 stream.
const CHUNK: usize = 16 * 1024;

/// Joins an HTTP/1 client's connection with the upstream's.
pub async fn joined(conn: &Conn, mut client: Stream, tunnel: Tunnel) {
    let Tunnel { mut upstream, meter } = tunnel;
    conn.watch().enter(Stage::Tunnel);
    client.leave_http();
    let (received, sent) = (client.activity().received(), client.activity().sent());
    conn.until_ended(pump(&mut client, &mut upstream.stream)).await;
    let activity = conn.watch().activity();
    // Neither side has a limit: the request that asked for the tunnel has been admitted.
    let _ = meter.passed(Side::Request, (activity.received() - received) as usize);
    let _ = meter.passed(Side::Response, (activity.sent() - sent) as usize);
}

/// The upstream's end of a tunnel as the body of an answer: what the upstream sends is the body, and what the client
/// sends on `request` goes to the upstream (RFC 9113 section 8.5).
pub fn body(upstream: Box<Tunnelled>, request: Body) -> Body {
    Body::source(Box::pin(Joined { upstream, request: Some(request), held: Bytes::new() }))
}

struct Joined {
    upstream: Box<Tunnelled>,
    /// Until the client has ended its side.
    request: Option<Body>,
    held: Bytes,
}

impl Joined {
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        loop {
            while !self.held.is_empty() {
                let n = ready!(Pin::new(&mut self.upstream.stream).poll_write(cx, &self.held));
                let n = n.map_err(|_| BodyError::Upstream)?;
                let _ = self.held.split_to(n);
            }
            let Some(request) = &mut self.request else { return Poll::Ready(Ok(())) };
            match ready!(Pin::new(request).poll_frame(cx)) {
                Some(Ok(frame)) => self.held = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => {
                    let _ = ready!(Pin::new(&mut self.upstream.stream).poll_shutdown(cx));
                    self.request = None;
                }
            }
        }
    }
}

impl http_body::Body for Joined {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Poll::Ready(Err(error)) = this.poll_up(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        let mut space = [0; CHUNK];
        let mut buf = ReadBuf::new(&mut space);
        match ready!(Pin::new(&mut this.upstream.stream).poll_read(cx, &mut buf)) {
            Ok(()) if buf.filled().is_empty() => Poll::Ready(None),
            Ok(()) => Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(buf.filled()))))),
            Err(_) => Poll::Ready(Some(Err(BodyError::Upstream))),
        }
    }
}
