//! Listening, in the clear or with TLS, and whom others are believed to be.

mod shown;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use outrigger_proto::model::Address;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

pub use self::shown::Shown;
use crate::pem::certificates;

/// How soon a silent peer is asked whether it is there.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
/// For a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;
/// Connections that are unwrapped and not served yet.
const QUEUE: usize = 64;

/// What TLS needs. Whoever `asks` for a client's certificate is shown one by those that have one.
///
/// # Errors
/// rustls finds something wrong with it.
pub fn acceptor(shown: Arc<Shown>, asks: bool) -> Result<TlsAcceptor, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients =
        if asks { Arc::new(Anybody(provider.clone())) } else { WebPkiClientVerifier::no_client_auth() };
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    let mut config = config.with_client_cert_verifier(clients).with_cert_resolver(shown);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Who vouches for servers: those of a PEM file, or of the system.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn roots(trust: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, String> {
    match trust {
        Some(file) => certificates(file),
        // Some of them may be of no use; without any, nobody is believed.
        None => Ok(rustls_native_certs::load_native_certs().certs),
    }
}

/// With what a server is believed: a PEM file of roots, or those of the system.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn client(trust: Option<&Path>) -> Result<ureq::tls::TlsConfig, String> {
    let roots: Vec<_> = roots(trust)?.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
    Ok(tls.root_certs(RootCerts::from(roots)).build())
}

/// Takes the certificate of whoever has its key. Whether that proves anything is for who is asked for something, each time
/// ([`crate::attest`]): roots come and go while a connection stays, and whoever is not believed may still have a token.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Who is at the other end of a connection, as far as the connection says.
#[derive(Clone, Debug)]
pub struct Peer {
    /// From where, as `10.0.0.7:41234`; empty for this machine.
    pub address: Arc<str>,
    /// Certificates whose first one's key he has, and that nobody has looked at yet; empty where none is shown.
    pub chain: Arc<[CertificateDer<'static>]>,
}

impl Peer {
    fn new(address: &str, connection: &Connection) -> Self {
        let chain = match connection {
            Connection::Plain(_) | Connection::Unix(_) => None,
            Connection::Tls(stream) => stream.get_ref().1.peer_certificates(),
        };
        Self { address: address.into(), chain: chain.unwrap_or_default().into() }
    }
}

impl Connected<IncomingStream<'_, Listener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.remote_addr().clone()
    }
}

/// Where connections come from.
#[derive(Debug)]
pub struct Listener {
    connections: mpsc::Receiver<(Connection, Peer)>,
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
                // What was left behind; what is no socket is somebody's file.
                if std::fs::symlink_metadata(path).is_ok_and(|of| of.file_type().is_socket()) {
                    let _ = std::fs::remove_file(path);
                }
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
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.connections.recv().await {
            Some(accepted) => accepted,
            // Whoever accepts does so for ever.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(Peer { address: self.address.as_str().into(), chain: Arc::default() })
    }
}

/// Listens with a line that is long enough for all nodes of a fleet at once: they all come back when it does.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, accepted: mpsc::Sender<(Connection, Peer)>) {
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
            let peer = Peer::new(&peer.to_string(), &connection);
            let _ = accepted.send((connection, peer)).await;
        });
    }
}

/// Without descriptors, for one, there is nothing to do but to wait.
async fn rest(error: &io::Error) {
    tracing::warn!(%error, "a connection cannot be accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn accept_unix(listener: UnixListener, accepted: mpsc::Sender<(Connection, Peer)>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = Connection::Unix(stream);
                let peer = Peer::new("", &connection);
                if accepted.send((connection, peer)).await.is_err() {
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
