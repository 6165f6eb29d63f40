//! TLS towards clients: material from files, checked whole before it is used.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_proto::model::ServerTls;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// TLS of a listener, with what it was made from, so that what has not changed is not made anew: sessions that clients
/// hold stay good.
#[derive(Clone, Debug)]
pub struct Material {
    source: ServerTls,
    certificate: Vec<u8>,
    key_digest: u64,
    /// What listeners use.
    pub config: Arc<ServerConfig>,
}

/// What is wrong with a listener's TLS.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read.
    Unreadable(PathBuf, std::io::Error),
    /// A file holds no certificate.
    NoCertificate(PathBuf),
    /// A file holds no private key, or none that can be used.
    NoKey(PathBuf),
    /// The certificate and the key do not go together, or cannot be used.
    Unusable(PathBuf, rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::NoCertificate(path) => write!(f, "{} holds no PEM certificate", path.display()),
            Self::NoKey(path) => write!(f, "{} holds no PEM private key that can be used", path.display()),
            Self::Unusable(path, rustls::Error::InconsistentKeys(_)) => {
                write!(f, "the private key does not belong to the certificate in {}", path.display())
            }
            Self::Unusable(path, error) => write!(f, "{} cannot be used: {error}", path.display()),
        }
    }
}

impl std::error::Error for TlsError {}

/// Reads and checks a listener's TLS; `old` is used again when nothing has changed.
///
/// # Errors
/// What is wrong, with the file's name.
pub fn load(source: &ServerTls, old: Option<&Material>) -> Result<Material, TlsError> {
    let certificate = read(&source.certificate)?;
    let key = read(&source.private_key)?;
    let key_digest = digest(&key);
    if let Some(old) = old
        && old.source == *source
        && old.certificate == certificate
        && old.key_digest == key_digest
    {
        return Ok(old.clone());
    }
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&certificate).filter_map(Result::ok).collect();
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(source.certificate.clone()));
    }
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| TlsError::NoKey(source.private_key.clone()))?;
    let mut config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| TlsError::Unusable(source.certificate.clone(), error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()
        .map_err(|error| TlsError::Unusable(source.certificate.clone(), error))?;
    // One ticket is what a client that comes back needs; each is a record to encrypt and send.
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(Material { source: source.clone(), certificate, key_digest, config: Arc::new(config) })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::Unreadable(path.to_owned(), error))
}

/// The key itself is not kept; this tells whether it changed.
fn digest(key: &[u8]) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    use std::sync::OnceLock;
    static STATE: OnceLock<RandomState> = OnceLock::new();
    STATE.get_or_init(RandomState::new).hash_one(key)
}
