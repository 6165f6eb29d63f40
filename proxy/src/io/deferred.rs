//! Writes that wait a moment for each other.
//!
//! The `h2` crate writes every DATA frame of 256 bytes or more with a `writev` of its own. On a connection that
//! carries many streams that is a system call a response. Here what h2 writes is appended to a buffer, and the
//! connection's driver sends the buffer once after it has polled h2, by when all tasks that were ready have said what
//! they had to say. TLS gains twice: fewer writes, fuller records.
//!
//! The buffer is bounded ([`HIGH_WATER`]; above it h2 waits, and so do its streams), and gone while nothing is in it.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes held before h2 is made to wait. One send never carries more than a few times this.
const HIGH_WATER: usize = 64 * 1024;

/// The side that h2 owns.
#[derive(Debug)]
pub struct Deferred<S>(Rc<RefCell<Inner<S>>>);

/// The side that the driver owns.
#[derive(Debug)]
pub struct Sender<S>(Rc<RefCell<Inner<S>>>);

#[derive(Debug)]
struct Inner<S> {
    stream: S,
    out: BytesMut,
    /// The stream has taken bytes that it may still hold (TLS): they are out only once it has been flushed.
    unflushed: bool,
}

/// Splits a stream into the side for h2 and the side that sends.
pub fn deferred<S>(stream: S) -> (Deferred<S>, Sender<S>) {
    let inner = Rc::new(RefCell::new(Inner { stream, out: BytesMut::new(), unflushed: false }));
    (Deferred(inner.clone()), Sender(inner))
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            self.unflushed = true;
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(n);
        }
        if self.unflushed {
            self.out = BytesMut::new();
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.len() < HIGH_WATER { Poll::Ready(Ok(())) } else { self.poll_send(cx) }
    }
}

impl<S: AsyncWrite + Unpin> Sender<S> {
    /// Sends what has been written. Pending when the peer does not take it; the task is woken when it does.
    pub fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Deferred<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Deferred<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_room(cx))?;
        inner.out.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_room(cx))?;
        let mut n = 0;
        for buf in bufs {
            inner.out.extend_from_slice(buf);
            n += buf.len();
        }
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Done at once: the driver sends after it has polled h2.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_send(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes everything at once, and holds it until it has been flushed twice.
    #[derive(Default)]
    struct Holding {
        flushes: usize,
    }

    impl AsyncWrite for Holding {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            if self.flushes < 2 { Poll::Pending } else { Poll::Ready(Ok(())) }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_a_stream_holds_back_is_flushed_later() {
        let (mut io, sender) = deferred(Holding::default());
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(matches!(Pin::new(&mut io).poll_write(cx, b"frame"), Poll::Ready(Ok(5))));
        assert!(sender.poll_send(cx).is_pending());
        assert!(matches!(sender.poll_send(cx), Poll::Ready(Ok(()))));
        assert_eq!(sender.0.borrow().stream.flushes, 2);
        assert!(matches!(sender.poll_send(cx), Poll::Ready(Ok(()))));
        assert_eq!(sender.0.borrow().stream.flushes, 2, "nothing is flushed that was not written");
    }
}
