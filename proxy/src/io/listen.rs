//! Descriptors that listen: bound once for the process, accepted from by every thread that wants to.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;

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
                // What a process that crashed left behind; one that still listens is not disturbed, and what is no socket is
                // somebody's file.
                let is_socket = std::fs::symlink_metadata(path).is_ok_and(|of| of.file_type().is_socket());
                if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_was_left_behind_is_replaced_and_nothing_else() {
        let path = std::env::temp_dir().join(format!("outrigger-listen-{}", std::process::id()));
        let address = Address::Unix(path.clone());
        std::fs::write(&path, "somebody's").unwrap();
        assert_eq!(Bound::new(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's");
        std::fs::remove_file(&path).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound = Bound::new(&address).unwrap();
        assert!(Bound::new(&address).is_err(), "one listens there");
        drop(bound);
        std::fs::remove_file(&path).unwrap();
    }
}
