//! Connections of the process's own, off the road of requests: to who signs certificates and to who publishes keys. They
//! are named by an address, and checked against roots of their own.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Uri;
use http::uri::Scheme;
use hyper_util::rt::TokioIo;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::pem::{self, PemError};
use super::{Identity, provider, verify};

/// A connection, with TLS around it or not.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Shows the process's own certificate to whoever asks for one. One that has lapsed proves nothing, and neither does one of
/// nobody who is believed there: showing it could end what would go on without.
#[derive(Debug)]
struct Good(Arc<Identity>);

impl ResolvesClientCert for Good {
    fn resolve(&self, believed: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let material = self.0.good(SystemTime::now())?;
        let of_theirs =
            |certificate| verify::issuer_of(certificate).is_some_and(|issuer| believed.contains(&issuer));
        (believed.is_empty() || material.key.cert.iter().any(of_theirs)).then(|| material.key.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A server that is named by an address.
#[derive(Clone, Debug)]
pub struct Server {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
}

impl Server {
    /// The server of this address, by TLS if its scheme is `https`; `trust` is a PEM file of its roots, the system's
    /// without one, and `alpn` what is spoken (RFC 7301). Where it asks who we are, it is shown `own`.
    ///
    /// # Errors
    /// The roots cannot be read.
    pub fn new(
        uri: &Uri,
        trust: Option<&Path>,
        alpn: &[&[u8]],
        own: Option<&Arc<Identity>>,
    ) -> Result<Self, PemError> {
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        Ok(Self {
            host: uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            tls: if secure { Some(tls(trust, alpn, own)?) } else { None },
        })
    }

    /// Connects to it.
    ///
    /// # Errors
    /// It cannot be reached, or is not believed.
    pub async fn connect(&self) -> io::Result<Box<dyn Io>> {
        let socket = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let Some(tls) = &self.tls else { return Ok(Box::new(socket)) };
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(TlsConnector::from(tls.clone()).connect(name, socket).await?))
    }
}

/// A connection for gRPC to a server that is named by an address, within so long; where it asks who we are, it is shown `own`.
///
/// # Errors
/// Why there is none, in words.
pub async fn channel(
    server: &str,
    trust: Option<&Path>,
    own: Option<&Arc<Identity>>,
    patience: Duration,
) -> Result<Channel, String> {
    let uri: Uri = server.parse().map_err(|_| "no address")?;
    let server = Server::new(&uri, trust, &[b"h2"], own).map_err(|error| error.to_string())?;
    let connector = tower::service_fn(move |_: Uri| {
        let server = server.clone();
        async move { server.connect().await.map(TokioIo::new) }
    });
    // The scheme of the address would have tonic ask for TLS of its own.
    let plain = format!("http://{}", uri.authority().map_or("localhost", |authority| authority.as_str()));
    let endpoint = Endpoint::from_shared(plain).map_err(|error| error.to_string())?;
    let connected = endpoint.connect_timeout(patience).connect_with_connector(connector).await;
    connected.map_err(|error| root_cause(&error))
}

fn tls(
    trust: Option<&Path>,
    alpn: &[&[u8]],
    own: Option<&Arc<Identity>>,
) -> Result<Arc<ClientConfig>, PemError> {
    let roots = match trust {
        Some(path) => pem::certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots);
    let builder = ClientConfig::builder_with_provider(provider().clone());
    let builder = builder.with_safe_default_protocol_versions().expect("the provider has both versions");
    let builder = builder.with_root_certificates(store);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(Good(own.clone()))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// What lies at the bottom of an error: what is wrapped around it says that there was one.
pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use outrigger_proto::model::TrustDomain;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
    use rustls::pki_types::PrivateKeyDer;
    use zeroize::Zeroizing;

    use super::super::offer::Offer;
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// An identity whose certificate lapses at this time, and who has signed that.
    fn lapsing(at: SystemTime) -> (Good, Vec<u8>) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "the root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI("spiffe://a.test/x".try_into().unwrap())];
        (params.not_before, params.not_after) = ((at - 2 * HOUR).into(), at.into());
        let leaf = params.signed_by(&key, &root).unwrap().der().clone();
        let domain = TrustDomain::new("a.test").unwrap();
        let offer = Offer {
            chain: vec![leaf],
            key: Zeroizing::new(PrivateKeyDer::Pkcs8(key.serialize_der().into())),
            bundles: BTreeMap::from([(domain, vec![root.der().clone()])]),
            crls: Vec::new(),
            is_fresh: false,
        };
        let identity = Arc::new(Identity::default());
        identity.accept(offer, at - HOUR).unwrap();
        let signer = verify::issuer_of(root.der()).unwrap().to_vec();
        (Good(identity), signer)
    }

    #[test]
    fn what_proves_nothing_is_not_shown() {
        let now = SystemTime::now();
        let (good, signer) = lapsing(now + HOUR);
        let shows = |good: &Good, believed: &[&[u8]]| good.resolve(believed, &[]).is_some();
        assert!(shows(&good, &[]) && shows(&good, &[b"another", &signer]));
        assert!(!shows(&good, &[b"another"]), "showing it could end what would go on without");
        let (lapsed, signer) = lapsing(now - Duration::from_secs(1));
        assert!(!shows(&lapsed, &[]) && !shows(&lapsed, &[&signer]));
        assert!(!shows(&Good(Arc::default()), &[]), "there is none yet");
    }
}
