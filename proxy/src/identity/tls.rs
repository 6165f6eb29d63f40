//! How rustls asks: which certificate to show, and whether to believe one. Held by TLS configurations in place of
//! certificates and roots, so that these can change while those stay.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use webpki::EndEntityCert;

use super::verify::{Chain, Lists, Roots, Usage};
use super::{Identity, provider};

/// What a listener does about TLS.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    /// How.
    pub config: Arc<ServerConfig>,
    /// Who checks clients, where they prove who they are.
    pub identity: Option<Arc<Identity>>,
    /// Whether clients may speak in the clear.
    pub permissive: bool,
}

/// Shows the process's own certificate, whatever it is by then.
#[derive(Debug)]
pub struct Own(pub Arc<Identity>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.material().map(|material| material.key.clone())
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.material().map(|material| material.key.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Whom a certificate is checked against.
#[derive(Debug)]
pub enum Believed {
    /// The roots of the trust domain that it names.
    Mesh(Arc<Identity>),
    /// These roots, whatever it names. Whether it is the one that is meant is another's to check.
    Roots(Roots, Lists),
}

/// Checks what peers show.
#[derive(Debug)]
pub struct Peers {
    believed: Believed,
    /// Of clients: whether they must show something.
    mandatory: bool,
}

impl Peers {
    /// Peers that must be believed; of clients those that show nothing are let pass unless that is `mandatory`.
    pub fn new(believed: Believed, mandatory: bool) -> Self {
        Self { believed, mandatory }
    }

    fn verify(&self, chain: Chain<'_>, usage: Usage, now: UnixTime) -> Result<(), Error> {
        match &self.believed {
            Believed::Mesh(identity) => identity.verify(chain, usage, now).map(|_| ())?,
            Believed::Roots(roots, lists) => chain.verify(roots, lists, (usage, now))?,
        }
        Ok(())
    }
}

impl ClientCertVerifier for Peers {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// No hints: roots may change, and their names are nobody's business.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(Chain { leaf, rest }, Usage::Client, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Peers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(Chain { leaf, rest }, Usage::Server, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ClientCertVerifier::verify_tls12_signature(self, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ClientCertVerifier::verify_tls13_signature(self, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ClientCertVerifier::supported_verify_schemes(self)
    }
}

/// Several certificates, one for each host that a client may name (RFC 6066 section 3).
pub struct ByHost {
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// By what stands behind `*.`.
    wildcard: HashMap<Box<str>, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl ByHost {
    /// Of two that are for the same host, the one written first is shown; for a host that none is for, the first of all.
    pub fn new(keys: &[Arc<CertifiedKey>]) -> Self {
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for key in keys {
            let Some(leaf) = key.cert.first().and_then(|leaf| EndEntityCert::try_from(leaf).ok()) else {
                continue;
            };
            for name in leaf.valid_dns_names() {
                let name = name.to_ascii_lowercase();
                match name.strip_prefix("*.") {
                    Some(suffix) => wildcard.entry(suffix.into()).or_insert_with(|| key.clone()),
                    None => exact.entry(name.into()).or_insert_with(|| key.clone()),
                };
            }
        }
        Self { exact, wildcard, first: keys.first().cloned() }
    }

    fn find(&self, host: &str) -> Option<&Arc<CertifiedKey>> {
        let host = host.to_ascii_lowercase();
        self.exact.get(&*host).or_else(|| self.wildcard.get(host.split_once('.')?.1))
    }
}

impl fmt::Debug for ByHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.exact.keys().chain(self.wildcard.keys());
        f.debug_list().entries(hosts).finish()
    }
}

impl ResolvesServerCert for ByHost {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = hello.server_name().and_then(|host| self.find(host));
        found.or(self.first.as_ref()).cloned()
    }
}
