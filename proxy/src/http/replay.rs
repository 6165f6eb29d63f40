//! A request that may have to be sent more than once: its head is kept, and of its body what has been read so far, up to
//! a bound. Past the bound nothing is kept, and the request cannot be sent again.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Body as _, Frame, SizeHint};

use crate::body::{Body, BodyError, kept};

/// A request that can be sent again.
#[derive(Debug)]
pub struct Original {
    head: Request<()>,
    /// `None` when there is no body.
    tape: Option<Rc<RefCell<Tape>>>,
}

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

impl Original {
    /// Keeps up to `max` bytes of the body. One that says it is larger is not kept at all.
    pub fn new(request: Request<Body>, max: u64) -> Self {
        let (head, body) = request.into_parts();
        let tape = (!body.is_end_stream()).then(|| {
            let state = if body.size_hint().lower() > max { State::Passing } else { State::Keeping };
            Rc::new(RefCell::new(Tape { source: body, pieces: Vec::new(), kept: 0, max, state }))
        });
        Self { head: Request::from_parts(head, ()), tape }
    }

    /// The head.
    pub fn head(&self) -> &Request<()> {
        &self.head
    }

    /// Whether there is no body.
    pub fn is_bodiless(&self) -> bool {
        self.tape.is_none()
    }

    /// Whether it can be sent once more.
    pub fn is_whole(&self) -> bool {
        self.tape.as_ref().is_none_or(|tape| tape.borrow().state != State::Passing)
    }

    /// The request, from its beginning. The one before is of no use any more: only the last copy reads on.
    pub fn copy(&self) -> Box<Request<Body>> {
        let body = match &self.tape {
            None => Body::empty(),
            Some(tape) => Body::source(Box::pin(Reader { tape: tape.clone(), position: 0 })),
        };
        Box::new(self.head.clone().map(|()| body))
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

    fn original(parts: &[&'static str], max: u64) -> Original {
        let body = Body::source(Box::pin(Parts(parts.iter().copied().collect(), false)));
        Original::new(Request::new(body), max)
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
        let original = original(&["a", "b", "c"], 10);
        assert_eq!(read(original.copy().body_mut(), 2), "ab");
        assert!(original.is_whole());
        assert_eq!(read(original.copy().body_mut(), 9), "abc");
        let mut third = original.copy();
        assert_eq!(read(third.body_mut(), 3), "abc");
        assert!(third.body().is_end_stream());
    }

    #[test]
    fn a_large_body_is_sent_once() {
        let original = original(&["aaaa", "bbbb", "cccc"], 6);
        let mut first = original.copy();
        assert_eq!(read(first.body_mut(), 1), "aaaa");
        assert!(original.is_whole());
        assert_eq!(read(first.body_mut(), 9), "bbbbcccc");
        assert!(!original.is_whole());
        let said = Original::new(Request::new(Body::full(Bytes::from_static(b"1234567"))), 6);
        assert!(!said.is_whole() && said.copy().body().size_hint().exact() == Some(7));
    }

    #[test]
    fn without_a_body_nothing_is_kept() {
        let original = Original::new(Request::new(Body::empty()), 0);
        assert!(original.is_bodiless() && original.is_whole() && original.copy().body().is_end_stream());
    }
}
