//! What an upstream sends, cut into heads and pieces of bodies. No I/O here.
//!
//! The framing guard decides where each ends: what it refuses is cut nowhere, and what it lets through in one way only.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};

use super::head::{self, Head};
use crate::io::framing::{Guard, Kind, Phase, Refusal};

/// A head, or a trailer section, in bytes; a larger one is refused.
const MAX_HEAD: usize = 256 * 1024;

/// One connection's responses.
#[derive(Debug)]
pub(super) struct Reader {
    guard: Guard,
    /// What was read, and was not cut off yet; so much of it is known to be of one head, or of trailers.
    unread: BytesMut,
    scanned: usize,
}

/// What stands at the front.
#[derive(Debug)]
pub(super) enum Next {
    /// An interim response.
    Interim(StatusCode),
    /// The head of a response.
    Head(Head),
    /// More has to be read.
    Nothing,
}

/// A piece of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// A part of its content.
    Data(Bytes),
    /// Its trailers. With them it ends.
    Trailers(HeaderMap),
    /// It has ended.
    End,
    /// More has to be read.
    Nothing,
}

/// Why a response is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its framing leaves room for doubt.
    Framing(Refusal),
    /// Its head or its trailers have more bytes or fields than they may have.
    TooLarge,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Framing(refusal) => refusal.fmt(f),
            Self::TooLarge => f.write_str("too many fields, or too long ones"),
        }
    }
}

impl Reader {
    pub(super) fn new() -> Self {
        Self { guard: Guard::responses(), unread: BytesMut::new(), scanned: 0 }
    }

    /// A request with this method is sent: what comes next answers it.
    pub(super) fn expect(&mut self, method: &Method) {
        self.guard.expect_response_to(method);
    }

    /// This came. What follows what is here in the same block is joined to it without being copied.
    pub(super) fn put(&mut self, bytes: BytesMut) {
        if self.unread.is_empty() {
            self.unread = bytes;
        } else {
            self.unread.unsplit(bytes);
        }
    }

    /// Where what comes may be put instead, behind what is here.
    pub(super) fn space(&mut self) -> &mut BytesMut {
        &mut self.unread
    }

    /// Lets go of a block of which nothing is left.
    pub(super) fn let_go(&mut self) {
        if self.unread.is_empty() {
            self.unread = BytesMut::new();
        }
    }

    /// What was read and belongs to no response.
    pub(super) fn into_rest(self) -> Bytes {
        self.unread.freeze()
    }

    /// Whether all that was read is of responses that have come to their end.
    pub(super) fn is_idle(&self) -> bool {
        self.unread.is_empty() && self.is_whole()
    }

    /// Whether the response that was begun has come to its end.
    pub(super) fn is_whole(&self) -> bool {
        self.guard.phase() == Phase::BetweenMessages
    }

    /// Whether a body is being read.
    pub(super) fn is_in_body(&self) -> bool {
        self.guard.phase() == Phase::Body
    }

    /// Whether the body's end is that of the connection.
    pub(super) fn is_until_close(&self) -> bool {
        self.guard.is_until_close()
    }

    /// Bytes of the body that are still to come, where its head has said how many there are.
    pub(super) fn to_come(&self) -> Option<u64> {
        self.guard.to_come()
    }

    /// Scans on: whether there was something to scan, and of which kind it was.
    fn scan(&mut self) -> Result<Option<(Kind, usize)>, Refused> {
        let Some(rest) = self.unread.get(self.scanned..).filter(|rest| !rest.is_empty()) else {
            return Ok(None);
        };
        let part = self.guard.next(rest).map_err(Refused::Framing)?;
        if matches!(part.kind, Kind::Head | Kind::Trailers) {
            self.scanned += part.length;
            if self.scanned > MAX_HEAD {
                return Err(Refused::TooLarge);
            }
        }
        Ok(Some((part.kind, part.length)))
    }

    /// The head, or section, that was scanned.
    fn take_scanned(&mut self) -> Bytes {
        self.unread.split_to(std::mem::take(&mut self.scanned)).freeze()
    }

    /// The next head.
    pub(super) fn next(&mut self) -> Result<Next, Refused> {
        loop {
            let heads = self.guard.messages();
            if self.scan()?.is_none() {
                return Ok(Next::Nothing);
            }
            if self.guard.messages() > heads {
                let head = self.take_scanned();
                return match head::status(&head) {
                    Some(status)
                        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS =>
                    {
                        Ok(Next::Interim(status))
                    }
                    Some(_) | None => head::read(&head).map(Next::Head).ok_or(Refused::TooLarge),
                };
            }
        }
    }

    /// The next piece of the body whose head was read.
    pub(super) fn cut(&mut self) -> Result<Cut, Refused> {
        while !self.is_whole() {
            match self.scan()? {
                None => return Ok(Cut::Nothing),
                Some((Kind::Data, length)) => return Ok(Cut::Data(self.unread.split_to(length).freeze())),
                Some((Kind::Coding, length)) => self.unread.advance(length),
                Some((Kind::Trailers | Kind::Head, _)) => {}
            }
        }
        let section = self.take_scanned();
        let trailers = head::read_trailers(&section).ok_or(Refused::TooLarge)?;
        Ok(if trailers.is_empty() { Cut::End } else { Cut::Trailers(trailers) })
    }
}
