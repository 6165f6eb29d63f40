//! Listening, in the clear or with TLS.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use outrigger_proto::model::{Address, PlaneTls};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How soon a silent peer is asked whether it is there.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
/// For a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;
/// Connections that are unwrapped and not served yet.
const QUEUE: usize = 64;

/// What TLS needs, read once.
///
/// # Errors
/// A file cannot be read, or is not what it should be.
pub fn acceptor(tls: &PlaneTls) -> Result<TlsAcceptor, String> {
    let PlaneTls { certificate, private_key } = tls;
    let wrong = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| wrong(certificate, &error))?;
    let key = PrivateKeyDer::from_pem_file(private_key).map_err(|error| wrong(private_key, &error))?;
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.map_err(|error| wrong(certificate, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Where connections come from.
#[derive(Debug)]
pub struct Listener {
    connections: mpsc::Receiver<(Connection, String)>,
    address: String,
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn bind(address: &Address, tls: Option<TlsAcceptor>) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot listen on {address}: {error}");
        let (accepted, connections) = mpsc::channel(QUEUE);
        let address = match address {
            Address::Ip(ip) => {
                let listener = listen(*ip).map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?;
                tokio::spawn(accept(listener, tls, accepted));
                bound.to_string()
            }
            Address::Unix(path) => {
                let _ = std::fs::remove_file(path);
                let listener = UnixListener::bind(path).map_err(failed)?;
                let owner_alone = std::fs::Permissions::from_mode(0o600);
                std::fs::set_permissions(path, owner_alone).map_err(failed)?;
                tokio::spawn(accept_unix(listener, accepted));
                format!("unix:{}", path.display())
            }
        };
        Ok(Self { connections, address })
    }

    /// Where it listens, once the port is known.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = String;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.connections.recv().await {
            Some(accepted) => accepted,
            // Whoever accepts does so for ever.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address.clone())
    }
}

/// Listens with a line that is long enough for all nodes of a fleet at once: they all come back when it does.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    accepted: mpsc::Sender<(Connection, String)>,
) {
    loop {
        let (stream, peer): (TcpStream, SocketAddr) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                rest(&error).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        // A node that has gone without a word is not taken for one that is there.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE);
        let (tls, accepted) = (tls.clone(), accepted.clone());
        // Apart: whoever does not finish a handshake holds nobody up.
        tokio::spawn(async move {
            let connection = match tls {
                None => Connection::Plain(stream),
                Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => Connection::Tls(Box::new(stream)),
                    Ok(Err(_)) | Err(_) => return,
                },
            };
            let _ = accepted.send((connection, peer.to_string())).await;
        });
    }
}

/// Without descriptors, for one, there is nothing to do but to wait.
async fn rest(error: &io::Error) {
    tracing::warn!(%error, "a connection cannot be accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn accept_unix(listener: UnixListener, accepted: mpsc::Sender<(Connection, String)>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if accepted.send((Connection::Unix(stream), String::new())).await.is_err() {
                    return;
                }
            }
            Err(error) => rest(&error).await,
        }
    }
}

/// A connection.
#[derive(Debug)]
pub enum Connection {
    /// In the clear.
    Plain(TcpStream),
    /// Within TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// On this machine.
    Unix(UnixStream),
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Connection::Plain($stream) => $call,
            Connection::Tls($stream) => $call,
            Connection::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
