//! TLS towards endpoints: what to show, whom to believe, and who must answer.
//!
//! rustls is asked only whether a certificate is believed; whether it is that of whom was meant is looked at here, right
//! after the handshake and before a byte of anybody's request. So clusters that differ in nothing but their peers share
//! one configuration, and its sessions: ten thousand clusters of a mesh cost what one does.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Weak};

use outrigger_proto::model::{
    Address, Certificate, MutualUpstream, PeerPattern, Roots as RootSource, San, ServerAuth, UpstreamTls,
};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, HandshakeKind};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use webpki::EndEntityCert;

use super::endpoint::Proven;
use crate::identity::pem::{self, PemError};
use crate::identity::secrets::{self, Secrets};
use crate::identity::state::{OfferError, certified};
use crate::identity::tickets::Sessions;
use crate::identity::tls::{Believed, Own, Peers};
use crate::identity::verify::{self, Lists, PeerError, Roots, Shown, identity_of};
use crate::identity::{Identity, provider};
use crate::io::socket::Socket;

/// What is spoken inside (RFC 7301), as far as we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Speak {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Whatever client and service agree on.
    Bytes,
}

/// TLS towards the endpoints of a cluster.
#[derive(Debug)]
pub struct ClientTls {
    /// None as long as a secret has not come: nobody is connected to, least of all in the clear.
    configs: Option<Arc<Configs>>,
    sni: Option<ServerName<'static>>,
    expected: Expected,
    /// What tells connections apart that may not be used for one another.
    key: u64,
}

#[derive(Debug)]
enum Expected {
    /// These, whom the process's identity believes.
    Peers(Box<[PeerPattern]>, Arc<Identity>),
    Names(Box<[San]>),
}

/// One for each thing spoken inside; they share their sessions.
#[derive(Debug)]
struct Configs {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    bytes: Arc<ClientConfig>,
}

impl Configs {
    fn new(believed: Believed, certificate: Arc<dyn ResolvesClientCert>, sessions: Resumption) -> Self {
        let builder = ClientConfig::builder_with_provider(provider().clone());
        let builder = builder.with_safe_default_protocol_versions().expect("the provider has both versions");
        let peers = Arc::new(Peers::new(believed, true));
        let builder = builder.dangerous().with_custom_certificate_verifier(peers);
        let mut config = builder.with_client_cert_resolver(certificate);
        config.resumption = sessions;
        let speaking = |protocol: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocol.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        Self { http1: speaking(&[b"http/1.1"]), http2: speaking(&[b"h2"]), bytes: speaking(&[]) }
    }
}

impl ClientTls {
    /// What tells connections apart that may not be used for one another.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// Whether there is all that a handshake takes.
    pub fn is_ready(&self) -> bool {
        self.configs.is_some()
    }

    /// Does the handshake on a fresh connection, and looks at who answered.
    ///
    /// # Errors
    /// It failed, or somebody else answered.
    pub async fn connect(
        &self,
        socket: Socket,
        to: &Address,
        speak: Speak,
    ) -> Result<(TlsStream<Socket>, Option<Proven>), TlsFailure> {
        let Some(configs) = &self.configs else { return Err(TlsFailure::NoSecret) };
        let config = match speak {
            Speak::Http1 => &configs.http1,
            Speak::Http2 => &configs.http2,
            Speak::Bytes => &configs.bytes,
        };
        // An address is never sent, only used to know the server again.
        let name = self.sni.clone().unwrap_or_else(|| match to {
            Address::Ip(address) => ServerName::IpAddress(address.ip().into()),
            Address::Unix(_) => ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into()),
        });
        let connected = TlsConnector::from(config.clone()).connect(name, socket).await;
        let stream = connected.map_err(|error| match verify::cause_of_io(&error) {
            Some(cause) => TlsFailure::Peer(cause),
            None => TlsFailure::Handshake(error),
        })?;
        let session = stream.get_ref().1;
        let chain = session.peer_certificates().unwrap_or_default();
        let proven = self.check(chain, session.handshake_kind())?;
        if speak == Speak::Http2 && session.alpn_protocol() != Some(b"h2") {
            return Err(TlsFailure::NotHttp2);
        }
        Ok((stream, proven))
    }

    /// Whether it is whom we meant; what is to be asked again of a peer of the mesh.
    fn check(
        &self,
        chain: &[CertificateDer<'_>],
        kind: Option<HandshakeKind>,
    ) -> Result<Option<Proven>, PeerError> {
        match &self.expected {
            Expected::Peers(peers, identity) => {
                let shown = Shown::read(chain, kind)?;
                let id = shown.identity()?;
                let expected = peers.iter().any(|peer| peer.matches(&id));
                if expected {
                    Ok(Some(Proven::new(shown.proof(), identity)))
                } else {
                    Err(PeerError::NotExpected)
                }
            }
            Expected::Names(names) => {
                let leaf = chain.first().ok_or(PeerError::NoCertificate)?;
                verify::still_valid(chain, kind)?;
                let certificate = EndEntityCert::try_from(leaf)?;
                let expected = names.iter().any(|name| has_name(&certificate, leaf, name));
                if expected { Ok(None) } else { Err(PeerError::NotExpected) }
            }
        }
    }
}

fn has_name(certificate: &EndEntityCert<'_>, leaf: &CertificateDer<'_>, name: &San) -> bool {
    let name = match name {
        San::Dns(host) => match ServerName::try_from(&**host) {
            Ok(name) => name,
            Err(_) => return false,
        },
        San::Ip(ip) => ServerName::IpAddress((*ip).into()),
        San::Spiffe(peer) => return identity_of(leaf).is_ok_and(|id| peer.matches(&id)),
    };
    certificate.verify_is_valid_for_subject_name(&name).is_ok()
}

/// Why there is no TLS.
#[derive(Debug)]
pub enum TlsFailure {
    /// The other side is not believed, or not who was meant.
    Peer(PeerError),
    /// The handshake failed.
    Handshake(io::Error),
    /// The other side does not speak HTTP/2.
    NotHttp2,
    /// A secret of the control plane has not come.
    NoSecret,
}

impl From<PeerError> for TlsFailure {
    fn from(error: PeerError) -> Self {
        Self::Peer(error)
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(error) => error.fmt(f),
            Self::Handshake(error) => error.fmt(f),
            Self::NotHttp2 => {
                write!(f, "the endpoint did not agree to HTTP/2 (ALPN); write `protocol: http1`")
            }
            Self::NoSecret => write!(f, "a secret that the cluster needs has not come"),
        }
    }
}

/// Makes TLS of clusters, sharing what is the same.
#[derive(Debug)]
pub struct ClientTlsStore {
    identity: Arc<Identity>,
    mesh: Arc<Configs>,
    by_content: HashMap<u64, Weak<Configs>>,
    state: RandomState,
}

impl ClientTlsStore {
    /// Nothing yet; the mesh's is of this identity, whatever it is by the time of a handshake.
    pub fn new(identity: Arc<Identity>) -> Self {
        let sessions = Resumption::store(Arc::new(Sessions::new(identity.clone())));
        let mesh = Configs::new(Believed::Mesh(identity.clone()), Arc::new(Own(identity.clone())), sessions);
        Self { identity, mesh: Arc::new(mesh), by_content: HashMap::new(), state: RandomState::new() }
    }

    /// TLS as a cluster wants it, with its files read. Without its secrets it is there, and fails.
    ///
    /// # Errors
    /// What is wrong with a file.
    pub fn make(
        &mut self,
        source: &UpstreamTls,
        secrets: &Secrets,
    ) -> Result<Arc<ClientTls>, ClientTlsError> {
        let name = |host: &Option<Box<str>>| {
            host.as_deref().and_then(|host| ServerName::try_from(host.to_owned()).ok())
        };
        let mut hasher = self.state.build_hasher();
        let (configs, sni, expected) = match source {
            UpstreamTls::Mutual(MutualUpstream { peers, sni }) => {
                peers.hash(&mut hasher);
                (Some(self.mesh.clone()), name(sni), Expected::Peers(peers.clone(), self.identity.clone()))
            }
            UpstreamTls::Server(server) => {
                let configs = match source.secrets().all(|secret| secrets.have(secret)) {
                    true => Some(self.configs(server, secrets)?),
                    false => None,
                };
                configs.as_ref().map(|(_, key)| key).hash(&mut hasher);
                let configs = configs.map(|(configs, _)| configs);
                server.sans.iter().for_each(|san| format!("{san:?}").hash(&mut hasher));
                (configs, name(&server.sni), Expected::Names(server.sans.clone()))
            }
        };
        sni.hash(&mut hasher);
        let key = hasher.finish();
        Ok(Arc::new(ClientTls { configs, sni, expected, key }))
    }

    /// Forgets what no cluster uses.
    pub fn forget(&mut self) {
        self.by_content.retain(|_, configs| configs.strong_count() > 0);
    }

    /// How to connect, and what tells connections apart: who is believed and who we say that we are, but not by which
    /// certificate, or each renewal would open them all anew.
    fn configs(
        &mut self,
        server: &ServerAuth,
        secrets: &Secrets,
    ) -> Result<(Arc<Configs>, u64), ClientTlsError> {
        let ServerAuth { roots, sni: _, sans: _, certificate, revocation } = server;
        let secrets::Believed { roots, crls: mut lists } = match roots {
            RootSource::System => secrets::Believed { roots: system_roots()?, crls: Vec::new() },
            RootSource::Of(bundle) => secrets.bundle(bundle)?,
        };
        lists.extend(pem::lists(&revocation.crls)?);
        let own = certificate.as_ref().map(|certificate| secrets.pair(certificate)).transpose()?;
        let mut hasher = self.state.build_hasher();
        roots.hash(&mut hasher);
        lists.iter().for_each(|list| list.as_ref().hash(&mut hasher));
        (revocation.unknown as u8).hash(&mut hasher);
        let mut of_key = hasher.clone();
        let holder = own.as_ref().map(|(chain, _)| chain.first().and_then(verify::holder_of));
        holder.hash(&mut of_key);
        let key = of_key.finish();
        own.as_ref().map(|(chain, key)| (chain, key.secret_der())).hash(&mut hasher);
        let content = hasher.finish();
        if let Some(known) = self.by_content.get(&content).and_then(Weak::upgrade) {
            return Ok((known, key));
        }
        let roots = Roots::new(&roots)?;
        let lists = Lists::new(&lists, revocation.unknown)?;
        let shown: Arc<dyn ResolvesClientCert> = match (own, certificate) {
            (Some((chain, private)), Some(from)) => {
                let pair =
                    certified(chain, &private).map_err(|error| ClientTlsError::Pair(from.clone(), error))?;
                Arc::new(SingleCertAndKey::from(pair))
            }
            (_, _) => Arc::new(Nothing),
        };
        let configs =
            Arc::new(Configs::new(Believed::Roots(roots, lists), shown, Resumption::in_memory_sessions(256)));
        self.by_content.insert(content, Arc::downgrade(&configs));
        Ok((configs, key))
    }
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>, ClientTlsError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(ClientTlsError::NoSystemRoots);
    }
    Ok(found.certs)
}

/// Nothing to show.
#[derive(Debug)]
struct Nothing;

impl ResolvesClientCert for Nothing {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// What is wrong with a cluster's TLS.
#[derive(Debug)]
pub enum ClientTlsError {
    /// A file or a secret.
    Pem(PemError),
    /// A certificate and its key.
    Pair(Certificate, OfferError),
    /// Roots or lists.
    Roots(PeerError),
    /// The system trusts nobody.
    NoSystemRoots,
}

impl From<PemError> for ClientTlsError {
    fn from(error: PemError) -> Self {
        Self::Pem(error)
    }
}

impl From<PeerError> for ClientTlsError {
    fn from(error: PeerError) -> Self {
        Self::Roots(error)
    }
}

impl fmt::Display for ClientTlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(error) => error.fmt(f),
            Self::Pair(certificate, error) => write!(f, "{error} ({})", secrets::place(certificate)),
            Self::Roots(error) => write!(f, "what endpoints are checked against cannot be used: {error}"),
            Self::NoSystemRoots => {
                write!(
                    f,
                    "the system has no trusted roots; install its CA certificates, or write `trust: file`"
                )
            }
        }
    }
}

impl std::error::Error for ClientTlsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_keep_to_what_the_build_says() {
        let store = ClientTlsStore::new(Arc::default());
        for config in [&store.mesh.http1, &store.mesh.http2, &store.mesh.bytes] {
            assert_eq!(config.fips(), cfg!(feature = "fips"));
        }
    }
}
