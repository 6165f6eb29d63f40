//! TLS towards clients: what listeners use, made of files and secrets that are checked whole, or of the process's identity.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, OnceLock};

use outrigger_proto::model::{Certificate, ClientAuth, ClientTrust, Mutual, ServerTls};
use rustls::ServerConfig;
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};

use crate::identity::pem::{self, PemError};
use crate::identity::secrets::{self, Secrets};
use crate::identity::state::{OfferError, certified};
use crate::identity::tickets::Tickets;
use crate::identity::tls::{Believed, ByHost, ListenerTls, Own, Peers};
use crate::identity::verify::{Lists, PeerError, Roots};
use crate::identity::{Identity, provider};

/// TLS of a listener, with what it was made from, so that what has not changed is not made anew: sessions that clients
/// hold stay good.
#[derive(Clone, Debug)]
pub struct Material {
    source: ServerTls,
    speaks: Speaks,
    content: u64,
    config: Arc<ServerConfig>,
}

impl Material {
    /// What the listener uses.
    pub fn tls(&self) -> ListenerTls {
        ListenerTls { config: self.config.clone(), identity: None, permissive: false }
    }
}

/// What is spoken inside (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Speaks {
    /// HTTP/2 or HTTP/1.1.
    Http,
    /// Whatever client and service agree on.
    Bytes,
}

impl Speaks {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Self::Bytes => Vec::new(),
        }
    }
}

/// What is wrong with a listener's TLS.
#[derive(Debug)]
pub enum TlsError {
    /// A file or a secret.
    Pem(PemError),
    /// A certificate and its key.
    Pair(Certificate, OfferError),
    /// Roots or lists for clients.
    Clients(PeerError),
    /// The random source of the system.
    Random,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(error) => error.fmt(f),
            Self::Pair(certificate, error) => write!(f, "{error} ({})", secrets::place(certificate)),
            Self::Clients(error) => write!(f, "what clients are checked against cannot be used: {error}"),
            Self::Random => write!(f, "the system has no random numbers to give"),
        }
    }
}

impl std::error::Error for TlsError {}

impl From<PemError> for TlsError {
    fn from(error: PemError) -> Self {
        Self::Pem(error)
    }
}

/// Reads and checks a listener's own TLS; `old` is used again when nothing has changed.
///
/// # Errors
/// What is wrong, with the file's name, or the secret's.
pub fn load(
    source: &ServerTls,
    speaks: Speaks,
    secrets: &Secrets,
    old: Option<&Material>,
) -> Result<Material, TlsError> {
    let mut hasher = hasher();
    let mut keys = Vec::with_capacity(source.certificates.len());
    for certificate in &source.certificates {
        let (chain, key) = secrets.pair(certificate)?;
        chain.hash(&mut hasher);
        key.secret_der().hash(&mut hasher);
        let key = certified(chain, &key).map_err(|error| TlsError::Pair(certificate.clone(), error))?;
        keys.push(Arc::new(key));
    }
    let clients = match &source.client {
        ClientAuth::None => None,
        ClientAuth::Optional(trust) => Some((client_trust(trust, secrets, &mut hasher)?, false)),
        ClientAuth::Required(trust) => Some((client_trust(trust, secrets, &mut hasher)?, true)),
    };
    let content = hasher.finish();
    if let Some(old) = old
        && (&old.source, old.speaks, old.content) == (source, speaks, content)
    {
        return Ok(old.clone());
    }
    let verifier = clients.map(|(believed, mandatory)| Arc::new(Peers::new(believed, mandatory)));
    let mut config = config(speaks, verifier, Arc::new(ByHost::new(&keys)));
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|_| TlsError::Random)?;
    Ok(Material { source: source.clone(), speaks, content, config: Arc::new(config) })
}

fn client_trust(
    trust: &ClientTrust,
    secrets: &Secrets,
    hasher: &mut impl Hasher,
) -> Result<Believed, TlsError> {
    let ClientTrust { roots, revocation } = trust;
    let secrets::Believed { roots, crls: mut lists } = secrets.bundle(roots)?;
    lists.extend(pem::lists(&revocation.crls)?);
    roots.hash(hasher);
    lists.iter().for_each(|list| list.as_ref().hash(hasher));
    let roots = Roots::new(&roots).map_err(TlsError::Clients)?;
    let lists = Lists::new(&lists, revocation.unknown).map_err(TlsError::Clients)?;
    Ok(Believed::Roots(roots, lists))
}

/// TLS with the process's identity, for all listeners that use it: one configuration for each thing spoken inside.
#[derive(Debug)]
pub struct Mesh {
    identity: Arc<Identity>,
    http: Arc<ServerConfig>,
    bytes: Arc<ServerConfig>,
}

impl Mesh {
    /// With this identity, whatever it is by the time of a handshake.
    pub fn new(identity: Arc<Identity>) -> Self {
        let tickets = Arc::new(Tickets::new(identity.clone()));
        let config = |speaks| {
            let peers = Peers::new(Believed::Mesh(identity.clone()), true);
            let mut config = config(speaks, Some(Arc::new(peers)), Arc::new(Own(identity.clone())));
            config.ticketer = tickets.clone();
            Arc::new(config)
        };
        Self { http: config(Speaks::Http), bytes: config(Speaks::Bytes), identity }
    }

    /// What a listener uses.
    pub fn tls(&self, mutual: Mutual, speaks: Speaks) -> ListenerTls {
        let config = match speaks {
            Speaks::Http => &self.http,
            Speaks::Bytes => &self.bytes,
        };
        ListenerTls {
            config: config.clone(),
            identity: Some(self.identity.clone()),
            permissive: mutual == Mutual::Permissive,
        }
    }
}

fn config(
    speaks: Speaks,
    clients: Option<Arc<Peers>>,
    certificates: Arc<dyn ResolvesServerCert>,
) -> ServerConfig {
    let clients = clients.map_or_else(WebPkiClientVerifier::no_client_auth, |clients| clients as _);
    let builder = ServerConfig::builder_with_provider(provider().clone());
    let builder = builder.with_safe_default_protocol_versions().expect("the provider has both versions");
    let mut config = builder.with_client_cert_verifier(clients).with_cert_resolver(certificates);
    config.alpn_protocols = speaks.protocols();
    // One ticket is what a client that comes back needs; each is a record to encrypt and send.
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    // Ours: a client that was talked into a weak order must not have it. All of them are strong as it is.
    config.ignore_client_order = true;
    config
}

/// Keys themselves are not kept; this tells whether they changed.
fn hasher() -> impl Hasher {
    static STATE: OnceLock<RandomState> = OnceLock::new();
    STATE.get_or_init(RandomState::new).build_hasher()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_keep_to_what_the_build_says() {
        let mesh = Mesh::new(Arc::default());
        for config in [&mesh.http, &mesh.bytes] {
            assert_eq!(config.fips(), cfg!(feature = "fips"));
        }
    }
}
