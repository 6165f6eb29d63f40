//! A message on its way out: its head, then its body as it comes, in the framing that the head announced.
//!
//! What is small is gathered and written together; what is large is written from where it is.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;

use super::head::{Framing, write_trailers};
use crate::body::Body;

/// Data up to so many bytes is copied behind what else is to be written.
const SMALL: usize = 1024;
/// So many bytes are gathered, at most, before they are written.
const GATHERED: usize = 8 * 1024;

/// Why a message could not be sent to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Its body broke off, or is not as long as its head says.
    Body,
    /// The connection takes no more.
    Connection,
}

/// What of a message is still to be sent.
#[derive(Debug)]
pub struct Outgoing {
    framing: Framing,
    /// Bytes to be written first; how many of them have been.
    gathered: Vec<u8>,
    written: usize,
    /// Data to be written after them, and what ends its chunk.
    data: Bytes,
    after: &'static [u8],
    /// How far it has come.
    stage: Stage,
    /// Whether a byte was taken by the connection.
    begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Body,
    /// All that there is to write has been gathered.
    Last,
    Done,
}

impl Outgoing {
    /// A message of which nothing was sent, whose head has been gathered.
    pub fn new(head: Vec<u8>, framing: Framing) -> Self {
        let stage = if framing == Framing::Length(0) { Stage::Last } else { Stage::Body };
        Self { framing, gathered: head, written: 0, data: Bytes::new(), after: b"", stage, begun: false }
    }

    /// Whether the connection has taken a byte of it.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether there is nothing more to send.
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// The space that it was gathered in, to be used again once there is nothing more to send.
    pub fn take_space(&mut self) -> Option<Vec<u8>> {
        let is_there = self.is_done() && self.gathered.capacity() > 0;
        is_there.then(|| std::mem::take(&mut self.gathered))
    }

    /// Sends as much as the body has and the connection takes.
    ///
    /// # Errors
    /// See [`Stopped`]. Where the connection takes no more, nothing more is sent.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (stream, body): (&mut (impl AsyncWrite + Unpin), &mut Body),
    ) -> Poll<Result<(), Stopped>> {
        while self.stage != Stage::Done {
            let waits = self.gather(cx, body)?.is_pending();
            ready!(self.poll_write(cx, stream)).map_err(|_| self.stopped())?;
            if waits || self.stage == Stage::Last {
                ready!(Pin::new(&mut *stream).poll_flush(cx)).map_err(|_| self.stopped())?;
                if waits {
                    return Poll::Pending;
                }
                self.stage = Stage::Done;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn stopped(&mut self) -> Stopped {
        self.stage = Stage::Done;
        Stopped::Connection
    }

    /// Gathers what of the body is there, until it is worth writing. Pending where there is nothing more now.
    fn gather(&mut self, cx: &mut Context<'_>, body: &mut Body) -> Result<Poll<()>, Stopped> {
        while self.stage == Stage::Body && self.data.is_empty() && self.gathered.len() < GATHERED {
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else { return Ok(Poll::Pending) };
            match frame.transpose().map_err(|_| Stopped::Body)?.map(Frame::into_data) {
                Some(Ok(data)) => self.put_data(data)?,
                Some(Err(frame)) => self.put_end(frame.into_trailers().ok())?,
                None => self.put_end(None)?,
            }
            // Whoever sees that it was the last need not ask once more.
            if self.framing == Framing::Length(0) {
                self.stage = Stage::Last;
            }
        }
        Ok(Poll::Ready(()))
    }

    fn put_data(&mut self, data: Bytes) -> Result<(), Stopped> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Stopped::Body)?;
            }
            Framing::UntilClose => {}
            Framing::Chunked { .. } => {
                write_size(&mut self.gathered, data.len());
                self.after = b"\r\n";
            }
        }
        if data.len() > SMALL {
            self.data = data;
        } else {
            self.gathered.extend_from_slice(&data);
            self.gathered.extend_from_slice(std::mem::take(&mut self.after));
        }
        Ok(())
    }

    fn put_end(&mut self, trailers: Option<http::HeaderMap>) -> Result<(), Stopped> {
        match self.framing {
            Framing::Length(0) | Framing::UntilClose => {}
            Framing::Length(_) => return Err(Stopped::Body),
            Framing::Chunked { trailers: true } => {
                write_trailers(&mut self.gathered, &trailers.unwrap_or_default());
            }
            Framing::Chunked { trailers: false } => self.gathered.extend_from_slice(b"0\r\n\r\n"),
        }
        self.stage = Stage::Last;
        Ok(())
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<std::io::Result<()>> {
        loop {
            let gathered = &self.gathered[self.written..];
            let result = match (gathered.is_empty(), self.data.is_empty()) {
                (true, true) => break,
                (false, true) => Pin::new(&mut *stream).poll_write(cx, gathered),
                (true, false) => Pin::new(&mut *stream).poll_write(cx, &self.data),
                (false, false) => {
                    let both = [IoSlice::new(gathered), IoSlice::new(&self.data)];
                    Pin::new(&mut *stream).poll_write_vectored(cx, &both)
                }
            };
            let taken = ready!(result)?;
            if taken == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.begun = true;
            let of_gathered = taken.min(gathered.len());
            self.written += of_gathered;
            self.data.advance(taken - of_gathered);
            if self.data.is_empty() && !self.after.is_empty() {
                // What ends a chunk goes with what comes next.
                self.gathered.extend_from_slice(std::mem::take(&mut self.after));
                break;
            }
        }
        self.gathered.drain(..self.written);
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

/// The size of a chunk, in front of its data.
fn write_size(out: &mut Vec<u8>, mut size: usize) {
    let mut digits = [0; 2 * size_of::<usize>()];
    let mut first = digits.len();
    while size > 0 {
        first -= 1;
        digits[first] = b"0123456789abcdef"[size & 0xf];
        size >>= 4;
    }
    out.extend_from_slice(&digits[first..]);
    out.extend_from_slice(b"\r\n");
}
