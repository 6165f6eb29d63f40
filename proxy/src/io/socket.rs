//! One stream socket, TCP or unix, behind one type.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use outrigger_proto::model::Address;
use rustix::net::RecvFlags;
use tokio::io::{Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Keep-alive probes start after this much silence: long enough to be free, short enough to notice a peer that
/// vanished before a NAT forgets the flow.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A connected stream socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP, with `TCP_NODELAY`.
    Tcp(TcpStream),
    /// A unix stream socket.
    Unix(UnixStream),
}

/// No Nagle delay, keep-alive probes on. On Linux the connections that a listening socket accepts inherit them, so
/// they are set there once and cost no connection anything.
pub fn tune(socket: &socket2::Socket) {
    // Both are refinements: a socket that refuses them still carries bytes.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE));
}

/// Whether an address is one of this machine's, whichever port: what is sent there is sent from there. Who is let bind to it is
/// no sign, as some let anybody bind to anything (`ip_nonlocal_bind`).
///
/// # Errors
/// It cannot be found out: no descriptor is left, or the machine does not have this family of addresses.
pub fn is_local(address: SocketAddr) -> io::Result<bool> {
    let ip = address.ip().to_canonical();
    Ok(ip.is_loopback() || source_towards(address)? == Some(ip))
}

/// From which address this machine would send there; `None` where it knows no way. Nothing is sent.
///
/// # Errors
/// As of [`is_local`].
pub fn source_towards(address: SocketAddr) -> io::Result<Option<IpAddr>> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    match socket.connect(address) {
        Ok(()) => Ok(Some(socket.local_addr()?.ip().to_canonical())),
        Err(_) => Ok(None),
    }
}

impl Socket {
    /// Connects to `address`.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Ip(address) => {
                let stream = TcpStream::connect(address).await?;
                tune(&socket2::SockRef::from(&stream));
                Ok(Self::Tcp(stream))
            }
            Address::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
        }
    }
}

impl Socket {
    /// Our end of it; `None` for a unix socket.
    pub fn local(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Where it was going before the kernel redirected it to us; `None` where it did not, or nothing is known of it: a
    /// connection that came to our own address was going there. Asked of the kernel each time.
    pub fn redirected_from(&self) -> Option<SocketAddr> {
        let Self::Tcp(stream) = self else { return None };
        let local = stream.local_addr().ok()?;
        let socket = socket2::SockRef::from(stream);
        // By the family of the address, not of the socket: one that listens for both has IPv4 in it.
        let original = match local.ip().to_canonical() {
            IpAddr::V4(_) => socket.original_dst_v4(),
            IpAddr::V6(_) => socket.original_dst_v6(),
        };
        let original = original.ok()?.as_socket()?;
        let same =
            (original.ip().to_canonical(), original.port()) == (local.ip().to_canonical(), local.port());
        (!same).then_some(original)
    }

    /// Looks at bytes without taking them; 0 at the end.
    pub fn poll_peek(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => stream.poll_peek(cx, &mut ReadBuf::new(buf)),
            Self::Unix(stream) => loop {
                ready!(stream.poll_read_ready(cx))?;
                let peek = || Ok(rustix::net::recv(stream, &mut *buf, RecvFlags::PEEK)?.0);
                match stream.try_io(Interest::READABLE, peek) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
            },
        }
    }
}

either_stream!(Socket { Tcp, Unix });
