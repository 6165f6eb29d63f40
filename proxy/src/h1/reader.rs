//! What a peer sends, cut into heads and pieces of bodies.
//!
//! The framing guard decides where each ends: what it refuses is cut nowhere, and what it lets through in one way only.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, Method};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::head;
use super::space::Space;
use crate::io::framing::{Guard, Kind, Phase, Violation};

/// Bytes of a long body that are read at once, at least and at most.
const STREAMED: usize = 64 * 1024;
const MOST_STREAMED: usize = 256 * 1024;
/// A body of which so much comes at once is a long one.
const LONG: usize = 16 * 1024;

/// What one peer sends.
#[derive(Debug)]
pub struct Reader {
    guard: Guard,
    /// What was read, and was not cut off yet; so much of it is known to be of one head, or of trailers.
    unread: BytesMut,
    scanned: usize,
    /// Bytes that a head, or a trailer section, may have.
    most: usize,
    /// How much of a long body is read at once; 0 until it has turned out to be one.
    appetite: usize,
    /// Why nothing is taken any more.
    refused: Option<Refused>,
}

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A part of its content.
    Data(Bytes),
    /// Its trailers. With them it ends.
    Trailers(HeaderMap),
    /// It has ended.
    End,
    /// More has to be read.
    Nothing,
}

/// Why what a peer sends is refused, from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its framing leaves room for doubt, or its trailers are too many.
    Framing(Violation),
    /// A head is too large.
    HeadTooLarge,
}

const TRAILERS: Refused = Refused::Framing(Violation::Trailers);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Framing(violation) => violation.fmt(f),
            Self::HeadTooLarge => f.write_str("a head is too large"),
        }
    }
}

impl Reader {
    fn new(guard: Guard, most: usize) -> Self {
        Self { guard, unread: BytesMut::new(), scanned: 0, most, appetite: 0, refused: None }
    }

    /// Of what a client sends; a head has so many bytes at most.
    pub fn requests(most: usize) -> Self {
        Self::new(Guard::requests(), most)
    }

    /// Of what a server sends, which is refused unless it is [expected](Self::expect).
    pub fn responses(most: usize) -> Self {
        Self::new(Guard::responses(), most)
    }

    /// A request with this method is sent: what comes next answers it.
    pub fn expect(&mut self, method: &Method) {
        self.guard.expect_response_to(method);
    }

    /// Reads what there is; `false` at the end.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
        space: &Space,
    ) -> Poll<io::Result<bool>> {
        if self.guard.to_come().is_some_and(|to_come| to_come >= STREAMED as u64) {
            self.appetite = self.appetite.max(STREAMED);
        }
        if self.appetite > 0 {
            return self.poll_stream(cx, stream);
        }
        let read = ready!(space.poll_read(cx, stream))?;
        let more = !read.is_empty();
        if read.len() >= LONG && self.guard.phase() == Phase::Body {
            self.appetite = STREAMED;
        }
        self.put(read);
        Poll::Ready(Ok(more))
    }

    /// The same of a long body, which has a buffer of its own.
    fn poll_stream(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<bool>> {
        if self.unread.capacity() - self.unread.len() < self.appetite / 4 {
            self.unread.reserve(self.appetite);
        }
        let offered = self.unread.capacity() - self.unread.len();
        let read = pin!(stream.read_buf(&mut self.unread)).poll(cx);
        if read.is_pending() && self.unread.is_empty() {
            // Whoever waits holds no buffer.
            self.unread = BytesMut::new();
        }
        let n = ready!(read)?;
        if n == offered {
            self.appetite = (2 * self.appetite).min(MOST_STREAMED);
        }
        Poll::Ready(Ok(n > 0))
    }

    /// This came. What follows what is here in the same block is joined to it without being copied.
    pub(super) fn put(&mut self, bytes: BytesMut) {
        if self.unread.is_empty() {
            self.unread = bytes;
        } else {
            self.unread.unsplit(bytes);
        }
    }

    /// A message has ended, and the next may be long in coming.
    pub fn rest(&mut self) {
        self.appetite = 0;
        if self.unread.is_empty() {
            // It would hold on to its block.
            self.unread = BytesMut::new();
        }
    }

    /// What was read and belongs to no message.
    pub fn into_rest(mut self) -> Bytes {
        if self.is_whole() {
            // An empty line before a head that has not come.
            self.unread.advance(self.scanned);
        }
        self.unread.freeze()
    }

    /// Bytes that were read and not cut off.
    pub fn unread(&self) -> usize {
        self.unread.len()
    }

    /// Where the peer stands in its message, as far as it was cut.
    pub fn phase(&self) -> Phase {
        self.guard.phase()
    }

    /// Whether the message that was begun has come to its end.
    pub fn is_whole(&self) -> bool {
        self.phase() == Phase::BetweenMessages
    }

    /// Whether the body's end is that of the connection.
    pub fn is_until_close(&self) -> bool {
        self.guard.is_until_close()
    }

    /// Bytes of the body that are still to come, where its head has said how many there are.
    pub fn to_come(&self) -> Option<u64> {
        self.guard.to_come()
    }

    /// Scans on: of which kind what comes next is, and how much there is of it.
    fn scan(&mut self) -> Result<Option<(Kind, usize)>, Refused> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        let Some(rest) = self.unread.get(self.scanned..).filter(|rest| !rest.is_empty()) else {
            return Ok(None);
        };
        let part = self.guard.next(rest).map_err(|refusal| Refused::Framing(refusal.violation))?;
        if matches!(part.kind, Kind::Head | Kind::Trailers) {
            self.scanned += part.length;
            if self.scanned > self.most {
                let is_head = part.kind == Kind::Head;
                return Err(self.refuse(if is_head { Refused::HeadTooLarge } else { TRAILERS }));
            }
        }
        if self.is_whole() {
            // What follows is read ahead at most.
            self.appetite = 0;
        }
        Ok(Some((part.kind, part.length)))
    }

    fn refuse(&mut self, refused: Refused) -> Refused {
        *self.refused.insert(refused)
    }

    /// The head, or section, that was scanned.
    fn take_scanned(&mut self) -> Bytes {
        self.unread.split_to(std::mem::take(&mut self.scanned)).freeze()
    }

    /// The next head, with its empty line; `None` when more has to be read.
    ///
    /// # Errors
    /// See [`Refused`]; once refused, all is.
    pub fn next_head(&mut self) -> Result<Option<Bytes>, Refused> {
        let heads = self.guard.messages();
        while self.guard.messages() == heads {
            // Of anything else, such as a tunnel, no head comes.
            if !matches!(self.scan()?, Some((Kind::Head, _))) {
                return Ok(None);
            }
        }
        Ok(Some(self.take_scanned()))
    }

    /// The next piece of the body whose head was read.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn cut(&mut self) -> Result<Cut, Refused> {
        while !self.is_whole() || self.refused.is_some() {
            match self.scan()? {
                None => return Ok(Cut::Nothing),
                Some((Kind::Data, length)) => return Ok(Cut::Data(self.unread.split_to(length).freeze())),
                Some((Kind::Coding, length)) => self.unread.advance(length),
                Some((Kind::Trailers | Kind::Head, _)) => {}
            }
        }
        if self.scanned == 0 {
            return Ok(Cut::End);
        }
        let section = self.take_scanned();
        let trailers = head::read_trailers(&section).map_err(|_| self.refuse(TRAILERS))?;
        Ok(if trailers.is_empty() { Cut::End } else { Cut::Trailers(trailers) })
    }
}
