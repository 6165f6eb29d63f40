//! A connection as everything above reads and writes it: a socket, TLS around it or not, bytes already read, and the
//! notes that timers and counters live on.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::activity::Activity;
use super::framing::Phase;
use super::leash::Leash;
use super::socket::Socket;

/// Up to this many bytes are copied together and sent: cheaper than `writev`, which takes a longer way in the kernel.
const SMALL: usize = 2048;

/// What carries the bytes.
#[derive(Debug)]
pub enum Transport {
    /// The socket itself.
    Plain(Socket),
    /// TLS, of either side. Boxed: its session is large, and plain connections should not pay for it.
    Tls(Box<TlsStream<Socket>>),
}

either_stream!(Transport { Plain, Tls });

/// A connection.
#[derive(Debug)]
pub struct Stream {
    transport: Transport,
    /// Bytes that were read before, to be read again first.
    prefix: Bytes,
    activity: Rc<Activity>,
    leash: Option<Rc<Leash>>,
}

impl Stream {
    /// A connection whose bytes nobody watches.
    pub fn new(transport: Transport, activity: Rc<Activity>) -> Self {
        Self { transport, prefix: Bytes::new(), activity, leash: None }
    }

    /// The notes on this connection.
    pub fn activity(&self) -> &Rc<Activity> {
        &self.activity
    }

    /// Puts bytes back, to be read first. They have been counted before, or never will be.
    pub fn unread(&mut self, bytes: Bytes) {
        // Empty bytes may still hold on to the whole buffer that they were cut from.
        if bytes.is_empty() {
            return;
        }
        self.prefix =
            if self.prefix.is_empty() { bytes } else { [bytes, self.prefix.clone()].concat().into() };
    }

    /// Puts bytes before all others, which were read where nobody counted.
    pub fn put_back(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.activity.note_received(bytes.len());
            self.unread(bytes);
        }
    }

    /// From here on the bytes are nobody's messages.
    pub fn leave_http(&mut self) {
        self.activity.note_phase(Phase::Tunnel);
    }

    /// From here on it may be ended from outside.
    pub fn hold_by(&mut self, leash: Rc<Leash>) {
        self.leash = Some(leash);
    }

    /// The socket alone, when nothing stands between it and the bytes: what the kernel can splice.
    pub fn plain_tcp(&mut self) -> Option<&mut tokio::net::TcpStream> {
        match &mut self.transport {
            Transport::Plain(Socket::Tcp(stream)) if self.prefix.is_empty() && self.leash.is_none() => {
                Some(stream)
            }
            Transport::Plain(_) | Transport::Tls(_) => None,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.prefix.is_empty() {
            let n = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix[..n]);
            this.prefix.advance(n);
            if this.prefix.is_empty() {
                this.prefix = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        if let Some(leash) = &this.leash {
            leash.check(cx)?;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.transport).poll_read(cx, buf))?;
        let n = buf.filled().len() - before;
        if n > 0 {
            this.activity.note_received(n);
        }
        Poll::Ready(Ok(()))
    }
}

impl Stream {
    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.note_write_blocked(result.is_pending());
        if let Poll::Ready(Ok(n)) = result {
            self.activity.note_sent(n);
        }
        result
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(leash) = &this.leash {
            leash.check(cx)?;
        }
        let result = Pin::new(&mut this.transport).poll_write(cx, buf);
        this.wrote(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total <= SMALL {
            let mut space = [0; SMALL];
            let mut free = &mut space[..];
            for buf in bufs {
                free.put_slice(buf);
            }
            return Pin::new(this).poll_write(cx, &space[..total]);
        }
        if let Some(leash) = &this.leash {
            leash.check(cx)?;
        }
        let result = Pin::new(&mut this.transport).poll_write_vectored(cx, bufs);
        this.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Whoever waits for the other side only flushes this one.
        if let Some(leash) = &this.leash {
            leash.check(cx)?;
        }
        let flushed = Pin::new(&mut this.transport).poll_flush(cx);
        // Of TLS, what was taken from above may still be here.
        this.activity.note_write_blocked(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }
}
