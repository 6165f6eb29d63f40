//! A public key infrastructure for tests: authorities of trust domains, and the certificates that they sign, good ones
//! and others.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::dir::Dir;
use crate::wire::Client;

/// The trust domain of the tests.
pub const DOMAIN: &str = "cluster.local";

/// What [`identity`] has written, as a proxy's own.
pub const IDENTITY: &str =
    "identity: { files: { certificate: own.crt, private_key: own.key, trust: { cluster.local: ca.crt } } }\n";

/// A directory with an identity in it: `own.crt`, `own.key`, `ca.crt`.
pub fn identity(authority: &Authority, path: &str) -> Arc<Dir> {
    let dir = Arc::new(Dir::new());
    dir.write("ca.crt", &authority.pem());
    authority.svid(path).write(&dir, "own");
    dir
}

/// Who signs for a trust domain.
pub struct Authority {
    /// Its name.
    pub domain: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Authority").field(&self.domain).finish()
    }
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Svid {
    /// Leaf first.
    pub chain: String,
    /// The leaf's.
    pub key: String,
    /// The leaf's.
    pub serial: SerialNumber,
}

impl Authority {
    /// A root of its own.
    pub fn new(domain: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // Two of one trust domain are not to be taken for one.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("root {} of {domain}", NEXT.fetch_add(1, Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { domain: domain.to_owned(), issuer }
    }

    /// Its root.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A SPIFFE ID of its trust domain.
    pub fn id(&self, path: &str) -> String {
        format!("spiffe://{}{path}", self.domain)
    }

    /// A good certificate for a workload.
    pub fn svid(&self, path: &str) -> Svid {
        self.sign(leaf(&[&self.id(path)]))
    }

    /// A good certificate of a host, and of no workload.
    pub fn named(&self, host: &str) -> Svid {
        let mut params = leaf(&[]);
        params.subject_alt_names.push(SanType::DnsName(host.try_into().unwrap()));
        self.sign(params)
    }

    /// A good certificate that is so for this long.
    pub fn svid_for(&self, path: &str, lifetime: Duration) -> Svid {
        let mut params = leaf(&[&self.id(path)]);
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - Duration::from_secs(1), now + lifetime);
        self.sign(params)
    }

    /// Whatever this is.
    pub fn sign(&self, mut params: CertificateParams) -> Svid {
        let key = KeyPair::generate().unwrap();
        static NEXT: AtomicU64 = AtomicU64::new(1000);
        let serial = SerialNumber::from(NEXT.fetch_add(1, Relaxed));
        params.serial_number = Some(serial.clone());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Svid { chain: certificate.pem(), key: key.serialize_pem(), serial }
    }

    /// A list that takes these back, as PEM; good from a minute ago for so long.
    pub fn revoke(&self, revoked: &[&Svid], lifetime: Duration) -> String {
        let now = OffsetDateTime::now_utc();
        let revoked = revoked.iter().map(|svid| rcgen::RevokedCertParams {
            serial_number: svid.serial.clone(),
            revocation_time: now - Duration::from_secs(1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = rcgen::CertificateRevocationListParams {
            this_update: now - Duration::from_secs(60),
            next_update: now + lifetime,
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// The issuer itself, to sign what is no certificate of a workload.
    pub fn issuer(&self) -> &CertifiedIssuer<'static, KeyPair> {
        &self.issuer
    }
}

/// What a workload's certificate is made of, with these URIs.
pub fn leaf(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - Duration::from_secs(60), now + Duration::from_secs(3600));
    params
}

impl Svid {
    /// Writes it as `{name}.crt` and `{name}.key`.
    pub fn write(&self, dir: &Dir, name: &str) -> PathBuf {
        let key = dir.write(&format!("{name}.key"), &self.key);
        std::fs::set_permissions(key, PermissionsExt::from_mode(0o600)).unwrap();
        dir.write(&format!("{name}.crt"), &self.chain)
    }

    /// Its certificates.
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.chain.as_bytes()).map(Result::unwrap).collect()
    }

    /// Its key.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// A client that believes every server and shows this, or nothing.
pub fn client_config(shows: Option<&Svid>, alpn: &[&str]) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match shows {
        Some(svid) => builder.with_client_auth_cert(svid.certificates(), svid.private_key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// The same, of one who does not care whether the key is the certificate's.
pub fn client_config_unchecked(shows: &Svid) -> Arc<ClientConfig> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = provider.key_provider.load_private_key(shows.private_key()).unwrap();
    let certified = rustls::sign::CertifiedKey::new(shows.certificates(), key);
    let builder =
        ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions().unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody));
    Arc::new(builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified))))
}

/// Connects with TLS. In TLS 1.3 a server that refuses says so after the handshake.
///
/// # Errors
/// The handshake's.
pub async fn connect(
    to: std::net::SocketAddr,
    sni: &str,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    let name = ServerName::try_from(sni.to_owned()).unwrap();
    TlsConnector::from(config.clone()).connect(name, stream).await
}

/// An HTTP/1.1 client that shows this, or nothing.
pub async fn client(to: std::net::SocketAddr, shows: Option<&Svid>) -> Client<TlsStream<TcpStream>> {
    Client::over(connect(to, "localhost", &client_config(shows, &["http/1.1"])).await.unwrap())
}

/// The certificate of whoever listens there, as DER.
pub async fn shown(to: std::net::SocketAddr) -> Option<Vec<u8>> {
    let stream = connect(to, "localhost", &client_config(None, &["http/1.1"])).await.ok()?;
    Some(stream.get_ref().1.peer_certificates()?.first()?.to_vec())
}

/// What a client that shows this comes to see: a status, or none, as it is not served.
pub async fn status(to: std::net::SocketAddr, shows: Option<&Svid>, path: &str) -> Option<u16> {
    let stream = connect(to, "localhost", &client_config(shows, &["http/1.1"])).await.ok()?;
    Client::over(stream).try_get(path).await.map(|reply| reply.status)
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
