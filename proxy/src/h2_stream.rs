//! One HTTP/2 stream's bodies, the same towards clients and upstreams: what is received, read with flow control, and
//! what is sent, pumped as the peer takes it (RFC 9113 section 5.2).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame, SizeHint};

use crate::body::{Body, BodyError};

/// Window of a stream, in bytes: what one slow reader may make us hold.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// Window of a connection, in bytes. h2 allows half of it for the overhead of small frames, which must leave room for
/// chatty streams.
pub const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// The body of a stream as it is received.
#[derive(Debug)]
pub struct Received {
    stream: h2::RecvStream,
    /// What to call it when the peer breaks off.
    broken: BodyError,
    /// What is still to come, when the head said so.
    rest: Option<u64>,
    data_ended: bool,
}

impl Received {
    /// `headers` are the message's, for its length.
    pub fn new(stream: h2::RecvStream, headers: &HeaderMap, broken: BodyError) -> Self {
        let length = headers.get(http::header::CONTENT_LENGTH).map(HeaderValue::as_bytes);
        let rest = length.and_then(|l| std::str::from_utf8(l).ok()).and_then(|l| l.parse().ok());
        Self { stream, broken, rest, data_ended: false }
    }

    /// More bytes may come: what has been taken is given back to the peer's window.
    fn take(&mut self, bytes: &Bytes) {
        // Fails only for a stream that is gone, which the next read says.
        let _ = self.stream.flow_control().release_capacity(bytes.len());
        if let Some(rest) = &mut self.rest {
            *rest = rest.saturating_sub(bytes.len() as u64);
        }
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if !this.data_ended {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    this.take(&bytes);
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                // Also NO_ERROR: behind the end of a message it is no error here (RFC 9113 section 8.1), and before it the
                // message is cut.
                Some(Err(_)) => return Poll::Ready(Some(Err(this.broken))),
                None => this.data_ended = true,
            }
        }
        Poll::Ready(match ready!(this.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(None) => None,
            Err(_) => Some(Err(this.broken)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.rest {
            Some(rest) => SizeHint::with_exact(rest),
            None if self.stream.is_end_stream() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

/// Why a body was not sent to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PumpError {
    /// The peer reset the stream, or the connection is gone.
    Reset,
    /// The body broke off; the stream has been reset.
    Body(BodyError),
}

/// Sends a body on a stream.
#[derive(Debug)]
pub struct Pump {
    body: Body,
    stream: h2::SendStream<Bytes>,
    held: Bytes,
}

impl Pump {
    /// The stream's head must have been sent, without its end.
    pub fn new(body: Body, stream: h2::SendStream<Bytes>) -> Self {
        Self { body, stream, held: Bytes::new() }
    }

    /// Sends on; ready when the end has been handed to the connection.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        loop {
            if !self.held.is_empty() {
                ready!(self.poll_held(cx))?;
                if self.held.is_empty() && self.body.is_end_stream() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                // Nothing to send: all that can happen is that the peer loses interest.
                ready!(self.stream.poll_reset(cx)).ok();
                return Poll::Ready(Err(PumpError::Reset));
            };
            match frame.map(|f| f.map(Frame::into_data)) {
                None => {
                    return Poll::Ready(
                        self.stream.send_data(Bytes::new(), true).map_err(|_| PumpError::Reset),
                    );
                }
                Some(Ok(Ok(bytes))) if bytes.is_empty() && self.body.is_end_stream() => {
                    return Poll::Ready(self.stream.send_data(bytes, true).map_err(|_| PumpError::Reset));
                }
                Some(Ok(Ok(bytes))) => self.held = bytes,
                Some(Ok(Err(frame))) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return Poll::Ready(self.stream.send_trailers(trailers).map_err(|_| PumpError::Reset));
                }
                Some(Err(error)) => {
                    self.stream.send_reset(if error == BodyError::Upstream {
                        Reason::INTERNAL_ERROR
                    } else {
                        Reason::CANCEL
                    });
                    return Poll::Ready(Err(PumpError::Body(error)));
                }
            }
        }
    }

    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        self.stream.reserve_capacity(self.held.len());
        let mut room = self.stream.capacity();
        if room == 0 {
            room = match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(room)) => room,
                Some(Err(_)) | None => return Poll::Ready(Err(PumpError::Reset)),
            };
        }
        let bytes = self.held.split_to(room.min(self.held.len()));
        let end = self.held.is_empty() && self.body.is_end_stream();
        Poll::Ready(self.stream.send_data(bytes, end).map_err(|_| PumpError::Reset))
    }
}
