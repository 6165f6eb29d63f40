//! A stream that wakes somebody else than whoever polls it.
//!
//! hyper polls its socket and its channels with one waker. Whoever looks at the channels himself need not be woken by
//! them, and each such wake-up is a whole turn of a task for nothing; so the socket's waker is said beside the poll.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Whom a stream wakes.
#[derive(Clone, Debug)]
pub struct Woken(Rc<RefCell<Waker>>);

impl Default for Woken {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(Waker::noop().clone())))
    }
}

impl Woken {
    /// From the next poll on, this one.
    pub fn set(&self, waker: &Waker) {
        self.0.borrow_mut().clone_from(waker);
    }
}

/// A stream that wakes whom [`Woken`] says.
#[derive(Debug)]
pub struct Waking<S> {
    stream: S,
    woken: Woken,
}

impl<S: Unpin> Waking<S> {
    /// `woken` is shared with whoever says whom.
    pub fn new(stream: S, woken: Woken) -> Self {
        Self { stream, woken }
    }

    /// The stream itself.
    pub fn into_inner(self) -> S {
        self.stream
    }

    fn polled<T>(&mut self, poll: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> T) -> T {
        let waker = self.woken.0.borrow();
        poll(Pin::new(&mut self.stream), &mut Context::from_waker(&waker))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Waking<S> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().polled(|stream, cx| stream.poll_read(cx, buf))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Waking<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().polled(|stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().polled(|stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().polled(|stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().polled(|stream, cx| stream.poll_shutdown(cx))
    }
}
