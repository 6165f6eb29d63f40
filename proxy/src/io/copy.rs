//! Two connections joined: bytes pumped both ways, each direction ended on its own (half-close), never more read than
//! the other side takes.
//!
//! Small exchanges go through one scratch buffer that all connections of a thread share, so an idle pair holds none.
//! A direction that fills the buffer is a bulk transfer, and is moved inside the kernel by `splice(2)` when both ends
//! are plain TCP.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::stream::Stream;

const SCRATCH: usize = 64 * 1024;
/// What the kernel lets an unprivileged process have (`fs.pipe-max-size`), and past what more gains nothing.
const PIPE: usize = 1024 * 1024;
/// Rounds of one direction before other tasks get their turn.
const ROUNDS: usize = 16;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Pumps until both directions have ended, or one fails.
///
/// # Errors
/// The first failure of either side; what was moved until then is in the streams' activity.
pub async fn pump(a: &mut Stream, b: &mut Stream) -> io::Result<()> {
    let (mut there, mut back) = (Half::default(), Half::default());
    std::future::poll_fn(|cx| {
        let there = there.poll(cx, a, b)?;
        let back = back.poll(cx, b, a)?;
        if there.is_ready() && back.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

/// One direction.
#[derive(Debug, Default)]
struct Half {
    /// Read, and not yet taken by the other side.
    rest: Vec<u8>,
    written: usize,
    pipe: Option<Pipe>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Copy,
    Splice,
    /// The sender has ended; the end is to be passed on.
    Ending,
    Ended,
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
}

impl Half {
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Stream, to: &mut Stream) -> Poll<io::Result<()>> {
        for _ in 0..ROUNDS {
            match self.stage {
                Stage::Copy => ready!(self.poll_copy(cx, from, to))?,
                Stage::Splice => ready!(self.poll_splice(cx, from, to))?,
                Stage::Ending => {
                    // The peer may be gone already; its own direction says so.
                    let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.stage = Stage::Ended;
                }
                Stage::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(cx, to))?;
        BUFFER.with_borrow_mut(|buffer| {
            let mut buf = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut buf))?;
            let read = buf.filled();
            if read.is_empty() {
                self.stage = Stage::Ending;
                return Poll::Ready(Ok(()));
            }
            let written = match Pin::new(&mut *to).poll_write(cx, read)? {
                Poll::Ready(n) => n,
                Poll::Pending => 0,
            };
            if written < read.len() {
                self.rest.extend_from_slice(&read[written..]);
            } else if read.len() == SCRATCH && from.plain_tcp().is_some() && to.plain_tcp().is_some() {
                self.pipe = Pipe::new();
                if self.pipe.is_some() {
                    self.stage = Stage::Splice;
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<io::Result<()>> {
        while self.written < self.rest.len() {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.rest[self.written..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
        }
        self.rest = Vec::new();
        self.written = 0;
        Pin::new(to).poll_flush(cx)
    }

    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
    ) -> Poll<io::Result<()>> {
        let pipe = self.pipe.as_mut().expect("made before this stage is entered");
        let (received, sent) = (from.activity().clone(), to.activity().clone());
        let (Some(source), Some(sink)) = (from.plain_tcp(), to.plain_tcp()) else {
            unreachable!("streams stay what they were when this stage was entered")
        };
        // The pipe is filled only when it is empty: "would block" then can only mean the socket.
        if pipe.held == 0 {
            match ready!(pipe.poll_fill(cx, source)) {
                Ok(0) => self.stage = Stage::Ending,
                Ok(n) => {
                    pipe.held = n;
                    received.note_received(n);
                }
                // This pair of sockets cannot be spliced (an LSM, an odd kernel): bytes can still be copied.
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                    self.stage = Stage::Copy;
                }
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
        while pipe.held > 0 {
            let n = ready!(pipe.poll_drain(cx, sink))?;
            pipe.held -= n;
            sent.note_sent(n);
        }
        Poll::Ready(Ok(()))
    }
}

impl Pipe {
    /// `None` when the process is short of descriptors: splicing is a refinement.
    fn new() -> Option<Self> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE);
        Some(Self { read, write, held: 0 })
    }

    fn poll_fill(&self, cx: &mut Context<'_>, source: &TcpStream) -> Poll<io::Result<usize>> {
        loop {
            ready!(source.poll_read_ready(cx))?;
            let result = source.try_io(Interest::READABLE, || {
                let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
                Ok(rustix::pipe::splice(source, None, &self.write, None, PIPE, flags)?)
            });
            match result {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_drain(&self, cx: &mut Context<'_>, sink: &TcpStream) -> Poll<io::Result<usize>> {
        loop {
            ready!(sink.poll_write_ready(cx))?;
            let result = sink.try_io(Interest::WRITABLE, || {
                let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
                Ok(rustix::pipe::splice(&self.read, None, sink, None, self.held, flags)?)
            });
            match result {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                result => return Poll::Ready(result),
            }
        }
    }
}
