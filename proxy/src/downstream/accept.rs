//! Where connections arrive: one listening descriptor for each bind, which all workers accept from.
//!
//! A descriptor for each worker (`SO_REUSEPORT`) would lose its backlog when it is closed, and spread connections by
//! chance. Here whoever wakes first accepts, and passes the connection to the worker that has the fewest.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use outrigger_proto::model::{Address, Name};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Notify;

use super::serve;
use crate::http::stack::Stack;
use crate::io::socket::{Socket, tune};
use crate::worker::{Load, Worker};

/// Connections that the kernel holds for us; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Connections accepted before other tasks get their turn.
const BURST: usize = 32;
/// After an error that is ours (no descriptors left): the next try.
const PAUSE: Duration = Duration::from_millis(100);

/// A descriptor that listens, and what it really got bound to.
#[derive(Debug)]
pub struct Bound {
    descriptor: Listening,
    /// Where it listens; the port is known even when 0 was asked for.
    pub address: Address,
}

#[derive(Debug)]
enum Listening {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Bound {
    /// Listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(address: &Address) -> io::Result<Self> {
        match address {
            Address::Ip(address) => {
                let socket =
                    RawSocket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
                if address.is_ipv6() {
                    socket.set_only_v6(false)?;
                }
                // A restart must not wait for old connections to be forgotten.
                socket.set_reuse_address(true)?;
                tune(&socket);
                socket.set_nonblocking(true)?;
                socket.bind(&(*address).into())?;
                socket.listen(BACKLOG)?;
                let listener = std::net::TcpListener::from(socket);
                let address = Address::Ip(listener.local_addr()?);
                Ok(Self { descriptor: Listening::Tcp(listener), address })
            }
            Address::Unix(path) => {
                // What a process that crashed left behind; one that still listens is not disturbed.
                if std::os::unix::net::UnixStream::connect(path).is_err() {
                    let _ = std::fs::remove_file(path);
                }
                let listener = std::os::unix::net::UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                Ok(Self { descriptor: Listening::Unix(listener), address: address.clone() })
            }
        }
    }

    /// The same descriptor, for this thread's runtime.
    ///
    /// # Errors
    /// The operating system's: no descriptors left.
    pub fn on_this_thread(&self) -> io::Result<Accepting> {
        Ok(match &self.descriptor {
            Listening::Tcp(listener) => Accepting::Tcp(TcpListener::from_std(listener.try_clone()?)?),
            Listening::Unix(listener) => Accepting::Unix(UnixListener::from_std(listener.try_clone()?)?),
        })
    }
}

/// A descriptor that a runtime accepts from.
#[derive(Debug)]
pub enum Accepting {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
}

/// A connection between threads.
#[derive(Debug)]
pub struct Accepted {
    descriptor: OwnedFd,
    peer: Option<SocketAddr>,
    /// The listener it came to.
    pub listener: Name,
    /// Counts for the other worker from now on: what comes with it in one burst must see it.
    _load: Load,
}

impl Accepting {
    /// The next connection and its peer; `None` is the peer of a unix socket.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Socket::Tcp(stream), Some(peer)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), None))
            }
        }
    }
}

impl Accepted {
    fn new((socket, peer): Arrival, listener: Name, load: Load) -> io::Result<Self> {
        let descriptor = match socket {
            Socket::Tcp(stream) => stream.into_std()?.into(),
            Socket::Unix(stream) => stream.into_std()?.into(),
        };
        Ok(Self { descriptor, peer, listener, _load: load })
    }

    fn into_socket(self) -> io::Result<(Socket, Option<SocketAddr>)> {
        let socket = match self.peer {
            Some(_) => Socket::Tcp(TcpStream::from_std(self.descriptor.into())?),
            None => Socket::Unix(UnixStream::from_std(self.descriptor.into())?),
        };
        Ok((socket, self.peer))
    }
}

/// Passes a connection to another worker.
pub type PassOn = Rc<dyn Fn(usize, Accepted)>;

/// Accepts until told to stop; connections that the kernel holds for us by then are still taken.
pub async fn accept<S: Stack>(worker: Rc<Worker>, stack: S, listener: Name, from: Source) {
    let Source { bound, stop, pass_on } = from;
    let accepting = match bound.on_this_thread() {
        Ok(accepting) => accepting,
        Err(error) => return tracing::error!(%listener, %error, "this worker cannot accept connections"),
    };
    drop(bound);
    let mut stopped = pin!(stop.notified());
    let mut accepted = 0_usize;
    loop {
        let mut next = pin!(accepting.accept());
        let arrival = std::future::poll_fn(|cx| match next.as_mut().poll(cx) {
            Poll::Ready(arrival) => Poll::Ready(Some(arrival)),
            Poll::Pending => stopped.as_mut().poll(cx).map(|()| None),
        });
        match arrival.await {
            None => return,
            Some(Ok(arrival)) => place(&worker, &stack, &listener, arrival, &pass_on),
            // The client's: it hung up while it waited.
            Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Some(Err(error)) => {
                tracing::error!(%listener, %error, "cannot accept connections; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
        accepted += 1;
        if accepted.is_multiple_of(BURST) {
            tokio::task::yield_now().await;
        }
    }
}

/// Where a worker accepts from, until when, and what it does with connections that others should have.
pub struct Source {
    /// The descriptor.
    pub bound: Arc<Bound>,
    /// Told when to stop.
    pub stop: Rc<Notify>,
    /// Passes a connection to another worker.
    pub pass_on: PassOn,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("bound", &self.bound).finish_non_exhaustive()
    }
}

type Arrival = (Socket, Option<SocketAddr>);

fn place<S: Stack>(
    worker: &Rc<Worker>,
    stack: &S,
    listener: &Name,
    (socket, peer): Arrival,
    pass_on: &PassOn,
) {
    let target = worker.fewest();
    if target == worker.id() {
        serve::start(worker, stack, listener, (socket, peer));
        return;
    }
    let load = Load::new(worker.shared(), target);
    match Accepted::new((socket, peer), listener.clone(), load) {
        Ok(accepted) => pass_on(target, accepted),
        Err(error) => tracing::warn!(%listener, %error, "a connection was lost between workers"),
    }
}

/// Takes a connection that another worker has accepted.
pub fn take<S: Stack>(worker: &Rc<Worker>, stack: &S, accepted: Accepted) {
    let listener = accepted.listener.clone();
    match accepted.into_socket() {
        Ok(arrival) => serve::start(worker, stack, &listener, arrival),
        Err(error) => tracing::warn!(%listener, %error, "a connection was lost between workers"),
    }
}
