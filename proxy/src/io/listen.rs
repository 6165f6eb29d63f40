//! Descriptors that listen: bound once for the process, accepted from by every thread that wants to.

use std::io;
use std::net::SocketAddr;

use outrigger_proto::model::Address;
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::socket::{Socket, tune};

/// Connections that the kernel holds for us; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
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
