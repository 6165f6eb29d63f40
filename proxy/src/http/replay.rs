//! The body of a request that may have to be sent more than once: what has been read of it so far is kept, up to a bound.
//! Past the bound nothing is kept, and the request cannot be sent again.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use crate::body::{Body, BodyError, kept};

/// A body that can be sent again; nothing where there is none.
#[derive(Debug)]
pub struct Replay(Option<Rc<RefCell<Tape>>>);

/// A body, and what has been read of it.
#[derive(Debug)]
struct Tape {
    source: Body,
    pieces: Vec<Piece>,
    kept: u64,
    max: u64,
    state: State,
}

#[derive(Clone, Debug)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// More may come, and is kept.
    Keeping,
    /// More may come, and is passed on and forgotten.
    Passing,
    /// All of it has been read and kept.
    Whole,
}

impl Replay {
    /// Keeps up to `max` bytes of a body, from now on. One that says it is larger is not kept at all.
    pub fn of(body: &mut Body, max: u64) -> Self {
        if body.is_end_stream() {
            return Self(None);
        }
        let state = if body.size_hint().lower() > max { State::Passing } else { State::Keeping };
        let source = std::mem::replace(body, Body::empty());
        let tape = Tape { source, pieces: Vec::new(), kept: 0, max, state };
        let this = Self(Some(Rc::new(RefCell::new(tape))));
        *body = this.body();
        this
    }

    /// Whether there is no body.
    pub fn is_bodiless(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it can be sent once more.
    pub fn is_whole(&self) -> bool {
        self.0.as_ref().is_none_or(|tape| tape.borrow().state != State::Passing)
    }

    /// The body, from its beginning. The one before is of no use any more: only the last one reads on.
    pub fn body(&self) -> Body {
        match &self.0 {
            None => Body::empty(),
            Some(tape) => Body::source(Box::pin(Reader { tape: tape.clone(), position: 0 })),
        }
    }
}

impl Tape {
    fn keep(&mut self, piece: &Piece) {
        if self.state != State::Keeping {
            return;
        }
        if let Piece::Data(bytes) = piece {
            self.kept += bytes.len() as u64;
        }
        if self.kept > self.max {
            self.state = State::Passing;
            self.pieces = Vec::new();
        } else {
            self.pieces.push(match piece {
                Piece::Data(bytes) => Piece::Data(kept(bytes)),
                Piece::Trailers(_) => piece.clone(),
            });
        }
    }

    fn is_over(&self) -> bool {
        self.state == State::Whole || self.source.is_end_stream()
    }
}

/// A body that reads what was kept, then what comes.
struct Reader {
    tape: Rc<RefCell<Tape>>,
    position: usize,
}

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let tape = self.tape.clone();
        let mut tape = tape.borrow_mut();
        if let Some(piece) = tape.pieces.get(self.position) {
            self.position += 1;
            return Poll::Ready(Some(Ok(piece.clone().into())));
        }
        let piece = match ready!(Pin::new(&mut tape.source).poll_frame(cx)) {
            None => {
                if tape.state == State::Keeping {
                    tape.state = State::Whole;
                }
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                // It will not be whole any more.
                tape.state = State::Passing;
                return Poll::Ready(Some(Err(error)));
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => Piece::Data(bytes),
                Err(frame) => Piece::Trailers(frame.into_trailers().unwrap_or_default()),
            },
        };
        tape.keep(&piece);
        self.position = tape.pieces.len();
        Poll::Ready(Some(Ok(piece.into())))
    }

    fn is_end_stream(&self) -> bool {
        let tape = self.tape.borrow();
        self.position >= tape.pieces.len() && tape.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        let tape = self.tape.borrow();
        let kept: u64 = tape.pieces.iter().skip(self.position).map(Piece::len).sum();
        match tape.source.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + kept),
            None => SizeHint::default(),
        }
    }
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Data(bytes) => bytes.len() as u64,
            Self::Trailers(_) => 0,
        }
    }
}

impl From<Piece> for Frame<Bytes> {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Data(bytes) => Self::data(bytes),
            Piece::Trailers(trailers) => Self::trailers(trailers),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use super::*;

    /// Gives its parts one by one, with a wait before each.
    struct Parts(VecDeque<&'static str>, bool);

    impl http_body::Body for Parts {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            self.1 = !self.1;
            if self.1 {
                return Poll::Pending;
            }
            Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes())))))
        }
    }

    /// A body, and what is kept of it.
    fn replay(parts: &[&'static str], max: u64) -> (Body, Replay) {
        let mut body = Body::source(Box::pin(Parts(parts.iter().copied().collect(), false)));
        let replay = Replay::of(&mut body, max);
        (body, replay)
    }

    /// Reads up to so many frames.
    fn read(body: &mut Body, frames: usize) -> String {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut text = String::new();
        let mut left = frames;
        while left > 0 {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => {}
                Poll::Ready(Some(Ok(frame))) => {
                    text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
                    left -= 1;
                }
                Poll::Ready(Some(Err(error))) => panic!("{error}"),
                Poll::Ready(None) => return text,
            }
        }
        text
    }

    #[test]
    fn what_was_read_comes_again_and_then_the_rest() {
        let (mut first, replay) = replay(&["a", "b", "c"], 10);
        assert_eq!(read(&mut first, 2), "ab");
        assert!(replay.is_whole());
        assert_eq!(read(&mut replay.body(), 9), "abc");
        let mut third = replay.body();
        assert_eq!(read(&mut third, 3), "abc");
        assert!(third.is_end_stream());
    }

    #[test]
    fn a_large_body_is_sent_once() {
        let (mut first, replay) = replay(&["aaaa", "bbbb", "cccc"], 6);
        assert_eq!(read(&mut first, 1), "aaaa");
        assert!(replay.is_whole());
        assert_eq!(read(&mut first, 9), "bbbbcccc");
        assert!(!replay.is_whole());
        let said = Replay::of(&mut Body::full(Bytes::from_static(b"1234567")), 6);
        assert!(!said.is_whole() && said.body().size_hint().exact() == Some(7));
    }

    #[test]
    fn without_a_body_nothing_is_kept() {
        let replay = Replay::of(&mut Body::empty(), 0);
        assert!(replay.is_bodiless() && replay.is_whole() && replay.body().is_end_stream());
    }
}
