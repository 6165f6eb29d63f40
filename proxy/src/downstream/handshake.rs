//! TLS taken off a connection, and what it has told of the client.

use std::fmt::Write as _;
use std::io;
use std::task::{Context, Poll};

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderValue;
use rustls::ServerConnection;
use rustls::pki_types::CertificateDer;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{StartHandshake, TlsAcceptor};

use super::choose::Begun;
use crate::facts::Proven;
use crate::identity::Identity;
use crate::identity::tls::ListenerTls;
use crate::identity::verify::{self, PeerError, Shown, Usage};
use crate::io::socket::Socket;

/// What a TLS record that begins a handshake begins with (RFC 8446 section 5.1). No HTTP request does.
const HANDSHAKE: u8 = 22;

/// A connection after the handshake, or as it came.
pub(super) enum Unwrapped {
    /// There is none.
    Clear(Socket),
    /// It is over.
    Tls(Box<TlsStream<Socket>>, Proven),
}

/// Why a client is not served.
#[derive(Debug)]
pub(super) enum HandshakeError {
    /// What it shows is not believed.
    Peer(PeerError),
    /// The handshake failed otherwise.
    Other(io::Error),
}

impl HandshakeError {
    /// A word for it, for logs and labels.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Peer(error) => error.reason(),
            Self::Other(_) => "tls_handshake",
        }
    }
}

impl std::fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Peer(error) => error.fmt(f),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl From<PeerError> for HandshakeError {
    fn from(error: PeerError) -> Self {
        Self::Peer(error)
    }
}

/// Does the handshake, or goes on with one that has begun; where the listener lets clients speak in the clear, only if that
/// is not what comes.
pub(super) async fn unwrap(
    tls: &ListenerTls,
    socket: Socket,
    begun: Option<Box<Begun>>,
) -> Result<Unwrapped, HandshakeError> {
    if tls.permissive && !begins_handshake(&socket).await.map_err(HandshakeError::Other)? {
        return Ok(Unwrapped::Clear(socket));
    }
    let believed_by = tls.identity.as_ref().map(|identity| identity.trust_version());
    let accepted = match begun {
        None => TlsAcceptor::from(tls.config.clone()).accept(socket).await,
        Some(begun) => {
            let Begun { accepted, bytes: _ } = *begun;
            StartHandshake::from_parts(accepted, socket).into_stream(tls.config.clone()).await
        }
    };
    let stream = accepted.map_err(|error| match verify::cause_of_io(&error) {
        Some(cause) => HandshakeError::Peer(cause),
        None => HandshakeError::Other(error),
    })?;
    let proven = proven(stream.get_ref().1, tls.identity.as_deref())?;
    // A client may take its time between its certificate and the end: whom we believe may have changed since.
    if let (Some(identity), Some(proof)) = (&tls.identity, &proven.proof)
        && believed_by != Some(identity.trust_version())
        && !identity.still_believes(proof, Usage::Client)
    {
        return Err(PeerError::UnknownIssuer.into());
    }
    Ok(Unwrapped::Tls(Box::new(stream), proven))
}

/// Looks at the first byte and leaves it where it is. A client that ends before it says anything speaks in the clear.
pub(super) async fn begins_handshake(socket: &Socket) -> io::Result<bool> {
    let mut first = [0];
    let read = std::future::poll_fn(|cx: &mut Context<'_>| -> Poll<io::Result<usize>> {
        socket.poll_peek(cx, &mut first)
    });
    Ok(read.await? == 1 && first[0] == HANDSHAKE)
}

fn proven(session: &ServerConnection, identity: Option<&Identity>) -> Result<Proven, PeerError> {
    let sni = session.server_name().map(|name| name.to_ascii_lowercase().into());
    let Some(chain) = session.peer_certificates() else { return Ok(Proven { sni, ..Proven::default() }) };
    let leaf = chain.first().ok_or(PeerError::NoCertificate)?;
    let Some(identity) = identity else {
        verify::still_valid(chain, session.handshake_kind())?;
        return Ok(Proven { sni, certificate: forwarded(leaf, None), ..Proven::default() });
    };
    let shown = Shown::read(chain, session.handshake_kind())?;
    let id = shown.identity()?;
    let by = identity.material().map(|material| material.id.clone());
    let certificate = forwarded(leaf, Some((id.as_str(), by.as_ref().map(|by| by.as_str()))));
    Ok(Proven { identity: Some(id), sni, certificate, proof: Some(shown.proof()) })
}

/// The element of `x-forwarded-client-cert`, in Envoy's form.
fn forwarded(leaf: &CertificateDer<'_>, names: Option<(&str, Option<&str>)>) -> Option<HeaderValue> {
    let mut text = String::new();
    if let Some((_, Some(by))) = names {
        // A SPIFFE ID has no character that would have to be quoted.
        let _ = write!(text, "By={by};");
    }
    text.push_str("Hash=");
    for byte in digest(&SHA256, leaf).as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    if let Some((uri, _)) = names {
        let _ = write!(text, ";URI={uri}");
    }
    HeaderValue::try_from(text).ok()
}
