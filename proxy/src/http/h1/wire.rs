//! A client's connection in use, shared by whoever serves it and by the body of the request in hand, which is read as it is
//! asked for.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::AsyncWrite;
use tokio::task::coop;

use crate::body::BodyError;
use crate::conn::Conn;
use crate::h1::{Cut, Reader, Refused, Space};
use crate::io::stream::Stream;

/// What is read of further requests, at most, while one is being answered.
const AHEAD: usize = 64 * 1024;
/// What is read of a body that nobody wants, at most, so that the connection need not end.
const UNWANTED: usize = 64 * 1024;
/// The interim answer to a request that expects it (RFC 9110 section 15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The connection. No part of it is held while something else is polled.
pub(super) struct Wire {
    conn: Rc<Conn>,
    /// Gone when the connection has left for something else.
    stream: RefCell<Option<Stream>>,
    reader: RefCell<Reader>,
    /// What is to be written before the answer: of a `100`, once the body is asked for.
    interim: Cell<&'static [u8]>,
    /// Of it, something was written that may not have left yet.
    is_unflushed: Cell<bool>,
    /// The body is told to come when it is first asked for.
    expects: Cell<bool>,
    /// Which request is in hand: the body of one before it has nothing to read here.
    request: Cell<u64>,
}

impl Wire {
    /// A connection whose next byte begins a head, which has so many bytes at most.
    pub(super) fn new(conn: Rc<Conn>, stream: Stream, most: usize) -> Rc<Self> {
        Rc::new(Self {
            conn,
            stream: RefCell::new(Some(stream)),
            reader: RefCell::new(Reader::requests(most)),
            interim: Cell::new(b""),
            is_unflushed: Cell::new(false),
            expects: Cell::new(false),
            request: Cell::new(0),
        })
    }

    /// Whose it is.
    pub(super) fn conn(&self) -> &Rc<Conn> {
        &self.conn
    }

    /// What its worker reads to and writes from.
    pub(super) fn space(&self) -> &Space {
        self.conn.worker().upstream().pools().space()
    }

    /// Takes the connection away, with what was read and belongs to no request.
    pub(super) fn take(&self) -> Option<Stream> {
        // What is left of a body is not to be had here any more.
        self.request.set(self.request.get() + 1);
        let mut stream = self.stream.take()?;
        let rest = self.reader.replace(Reader::requests(0)).into_rest();
        stream.unread(rest);
        Some(stream)
    }

    fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut stream = self.stream.borrow_mut();
        let Some(stream) = stream.as_mut() else { return Poll::Ready(Ok(false)) };
        self.reader.borrow_mut().poll_fill(cx, stream, self.space())
    }

    /// Notes where the client stands, and why its bytes were refused.
    fn note<T>(&self, reader: &Reader, result: &Result<T, Refused>) {
        let activity = self.conn.watch().activity();
        if let Err(Refused::Framing(violation)) = result {
            activity.note_violation(*violation);
        }
        activity.note_phase(reader.phase());
    }

    /// The head of the next request; `None` at the end of all.
    pub(super) fn poll_head(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Refused>> {
        loop {
            let mut reader = self.reader.borrow_mut();
            let head = reader.next_head();
            self.note(&reader, &head);
            if let Some(head) = head? {
                return Poll::Ready(Ok(Some(head)));
            }
            drop(reader);
            if !matches!(ready!(self.poll_fill(cx)), Ok(true)) {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// Whether the request in hand has come to its end.
    pub(super) fn is_whole(&self) -> bool {
        self.reader.borrow().is_whole()
    }

    /// The body of the request whose head was read.
    pub(super) fn body(self: &Rc<Self>, expects: bool) -> Incoming {
        self.expects.set(expects);
        let is_sized = self.reader.borrow().to_come().is_some();
        Incoming { wire: self.clone(), request: self.request.get(), is_sized, is_over: false }
    }

    /// Waits for the client to go away while its request is answered. What it sends meanwhile is kept, up to a bound; where it
    /// has sent more requests and then ended its side, it waits for their answers.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        while self.is_whole() && self.reader.borrow().unread() < AHEAD {
            match ready!(self.poll_fill(cx)) {
                Ok(true) => {}
                Ok(false) if self.reader.borrow().unread() > 0 => return Poll::Pending,
                Ok(false) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Whether the body waits for a `100` that it will not get, once an answer has begun.
    pub(super) fn is_held_back(&self) -> bool {
        self.expects.get()
    }

    /// An answer is about to be written: whoever asks for the body from now on is too late for a `100`. What of one is left to
    /// be written stands before the answer.
    pub(super) fn begin_answer(&self) -> &'static [u8] {
        self.expects.set(false);
        self.interim.replace(b"")
    }

    /// The answer has been written: whether the next request can be told from what is left of this one. Waits for nothing but
    /// this task's turn.
    pub(super) fn poll_end_request(&self, cx: &mut Context<'_>) -> Poll<bool> {
        self.request.set(self.request.get() + 1);
        let mut left = UNWANTED;
        loop {
            let mut reader = self.reader.borrow_mut();
            let cut = reader.cut();
            self.note(&reader, &cut);
            match cut {
                Ok(Cut::End | Cut::Trailers(_)) => {
                    reader.rest();
                    return Poll::Ready(true);
                }
                Ok(Cut::Data(data)) => match left.checked_sub(data.len()) {
                    Some(less) => left = less,
                    None => return Poll::Ready(false),
                },
                Ok(Cut::Nothing) => {
                    drop(reader);
                    match self.poll_fill(cx) {
                        Poll::Ready(Ok(true)) => {}
                        Poll::Pending if !coop::has_budget_remaining() => return Poll::Pending,
                        Poll::Pending | Poll::Ready(_) => return Poll::Ready(false),
                    }
                }
                Err(_) => return Poll::Ready(false),
            }
        }
    }

    /// Writes what is left of a `100`.
    fn poll_interim(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.expects.take() {
            self.interim.set(CONTINUE);
        }
        if self.interim.get().is_empty() && !self.is_unflushed.get() {
            return Poll::Ready(Ok(()));
        }
        let mut stream = self.stream.borrow_mut();
        let Some(stream) = stream.as_mut() else { return Poll::Ready(Ok(())) };
        while !self.interim.get().is_empty() {
            let n = ready!(Pin::new(&mut *stream).poll_write(cx, self.interim.get()))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim.set(&self.interim.get()[n..]);
            self.is_unflushed.set(true);
        }
        ready!(Pin::new(stream).poll_flush(cx))?;
        self.is_unflushed.set(false);
        Poll::Ready(Ok(()))
    }
}

/// The body of an HTTP/1 request.
pub(super) struct Incoming {
    wire: Rc<Wire>,
    request: u64,
    /// Its length was known when it began.
    is_sized: bool,
    is_over: bool,
}

impl Incoming {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, BodyError>> {
        if self.request != self.wire.request.get() {
            return Poll::Ready(Err(BodyError::Client));
        }
        ready!(self.wire.poll_interim(cx)).map_err(|_| BodyError::Client)?;
        loop {
            let mut reader = self.wire.reader.borrow_mut();
            let cut = reader.cut();
            self.wire.note(&reader, &cut);
            match cut.map_err(|_| BodyError::Client)? {
                Cut::Data(data) => {
                    self.is_over = reader.is_whole();
                    return Poll::Ready(Ok(Some(Frame::data(data))));
                }
                Cut::Trailers(trailers) => {
                    self.is_over = true;
                    return Poll::Ready(Ok(Some(Frame::trailers(trailers))));
                }
                Cut::End => return Poll::Ready(Ok(None)),
                Cut::Nothing => {}
            }
            drop(reader);
            if !matches!(ready!(self.wire.poll_fill(cx)), Ok(true)) {
                return Poll::Ready(Err(BodyError::Client));
            }
        }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        let next = ready!(this.poll_next(cx));
        this.is_over |= matches!(next, Ok(None) | Err(_));
        Poll::Ready(next.transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }

    fn size_hint(&self) -> SizeHint {
        match self.wire.reader.borrow().to_come() {
            _ if self.is_over => SizeHint::with_exact(0),
            Some(to_come) if self.is_sized && self.request == self.wire.request.get() => {
                SizeHint::with_exact(to_come)
            }
            Some(_) | None => SizeHint::default(),
        }
    }
}

/// The connection as an answer is written to it.
pub(super) struct Sink<'a>(pub(super) &'a Wire);

impl Sink<'_> {
    fn poll<T>(&self, poll: impl FnOnce(Pin<&mut Stream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match self.0.stream.borrow_mut().as_mut() {
            Some(stream) => poll(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for Sink<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write_vectored(cx, bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(cx))
    }
}
