//! A connection as everything above reads and writes it: a socket, TLS around it or not, bytes already read, the
//! framing guard, and the notes that timers and counters live on.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::activity::Activity;
use super::framing::{Guard, Phase};
use super::leash::Leash;
use super::socket::Socket;
use super::spelling::{Spelling, respell};

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
    guard: Option<Box<Guard>>,
    activity: Rc<Activity>,
    leash: Option<Rc<Leash>>,
    /// What of a head is spelt otherwise than it comes from above, and was not taken.
    dress: Dress,
    /// All that came from above was taken, and flushed.
    flushed: bool,
}

/// How the head is written that has begun, or is about to.
#[derive(Debug)]
enum Dress {
    /// As it comes from above.
    None,
    /// With names spelt so, from its first byte.
    Whole(Spelling),
    /// These are its next bytes, in place of those from above, which are as many.
    Rest(Vec<u8>),
}

impl Dress {
    /// Dresses bytes that are about to be written; how many of them belong to the head.
    fn put_on(&self, bytes: &mut [u8]) -> usize {
        match self {
            Self::None => 0,
            Self::Whole(spelling) => respell(bytes, spelling),
            Self::Rest(rest) => {
                let head = rest.len().min(bytes.len());
                bytes[..head].copy_from_slice(&rest[..head]);
                head
            }
        }
    }

    /// So many of them were taken, of which `head` belonged to it.
    fn wore(&mut self, bytes: &[u8], head: usize, taken: usize) {
        let left = match self {
            Self::Rest(rest) if taken < rest.len() => rest.split_off(taken),
            Self::Whole(_) if taken < head => bytes[taken..head].to_vec(),
            Self::None | Self::Whole(_) | Self::Rest(_) => Vec::new(),
        };
        *self = if left.is_empty() { Self::None } else { Self::Rest(left) };
    }
}

impl Stream {
    /// A connection whose bytes nobody watches.
    pub fn new(transport: Transport, activity: Rc<Activity>) -> Self {
        let (dress, flushed) = (Dress::None, true);
        Self { transport, prefix: Bytes::new(), guard: None, activity, leash: None, dress, flushed }
    }

    /// The notes on this connection.
    pub fn activity(&self) -> &Rc<Activity> {
        &self.activity
    }

    /// Puts bytes back, to be read first. They have been counted and guarded before, or never will be.
    pub fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.prefix.is_empty(), "only what was read last can be put back");
        // Empty bytes may still hold on to the whole buffer that they were cut from.
        self.prefix = if bytes.is_empty() { Bytes::new() } else { bytes };
    }

    /// Puts bytes before all others, which were read where nobody counted.
    pub fn put_back(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.activity.note_received(bytes.len());
            self.unread(bytes);
        }
    }

    /// From here on requests are read, and refused where their framing is ambiguous; `first` has been read already.
    pub fn guard_requests(&mut self, first: Bytes) {
        let guard = Guard::requests().telling(self.activity.heads().clone());
        self.guard = Some(Box::new(guard));
        let mut bytes = BytesMut::from(first);
        self.watch(&mut bytes);
        self.prefix = bytes.freeze();
    }

    /// From here on the bytes are nobody's messages.
    pub fn unguard(&mut self) {
        self.guard = None;
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

    /// Spoils bytes that the guard refuses, so that the HTTP/1 server, which answers requests in their order, comes to answer this
    /// one 400.
    fn watch(&mut self, bytes: &mut [u8]) {
        let Some(guard) = &mut self.guard else { return };
        if let Err(refusal) = guard.feed(bytes) {
            // Only the first is the cause; what follows it was never in frame.
            if self.activity.violation().is_none() {
                self.activity.note_violation(refusal.violation);
            }
            refusal.spoil(bytes);
        }
        self.activity.note_phase(guard.phase());
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
            this.watch(&mut buf.filled_mut()[before..]);
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

    /// Whether what is written now is spelt otherwise than it comes. A head begins where all before it is gone; otherwise nobody
    /// knows where, and it goes as it comes.
    fn is_dressed(&mut self) -> bool {
        if let Some(spelling) = self.activity.take_spelling()
            && self.flushed
        {
            self.dress = Dress::Whole(spelling);
        }
        self.flushed = false;
        !matches!(self.dress, Dress::None)
    }

    fn write_plain(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(leash) = &self.leash {
            leash.check(cx)?;
        }
        let result = Pin::new(&mut self.transport).poll_write(cx, bytes);
        self.wrote(result)
    }

    fn write_dressed(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let head = self.dress.put_on(bytes);
        let result = self.write_plain(cx, bytes);
        if let Poll::Ready(Ok(taken)) = result {
            self.dress.wore(bytes, head, taken);
        }
        result
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_dressed() {
            return this.write_dressed(cx, &mut buf.to_vec());
        }
        this.write_plain(cx, buf)
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
            let bytes = &mut space[..total];
            return if this.is_dressed() {
                this.write_dressed(cx, bytes)
            } else {
                this.write_plain(cx, bytes)
            };
        }
        if this.is_dressed() {
            // As much as hyper has put together: its heads, and what of a body goes with them.
            let first = bufs.iter().find(|buf| !buf.is_empty()).map(|buf| buf.to_vec());
            return this.write_dressed(cx, &mut first.unwrap_or_default());
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
        ready!(Pin::new(&mut this.transport).poll_flush(cx))?;
        this.flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::spelling::tests::spelling;
    use super::*;

    proptest! {
        /// Whatever the peer takes at a time: what was not taken comes from above once more, as it came first.
        #[test]
        fn a_head_that_is_taken_in_parts_is_spelt_throughout(sizes in proptest::collection::vec(0..40usize, 0..20)) {
            let plain = b"GET / HTTP/1.1\r\nhost: test\r\nx-case: host: one\r\n\r\nhost: body";
            let spelt = b"GET / HTTP/1.1\r\nHoSt: test\r\nX-CaSe: host: one\r\n\r\nhost: body";
            let mut dress = Dress::Whole(spelling("HoSt:X-CaSe:"));
            let mut sent = Vec::new();
            for size in sizes.into_iter().chain([plain.len()]) {
                let mut bytes = plain[sent.len()..].to_vec();
                let head = dress.put_on(&mut bytes);
                let taken = size.min(bytes.len());
                sent.extend_from_slice(&bytes[..taken]);
                dress.wore(&bytes, head, taken);
            }
            prop_assert_eq!(sent, spelt.to_vec());
        }
    }
}
