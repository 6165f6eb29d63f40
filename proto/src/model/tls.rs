//! Who we are, and whom we believe: TLS of both sides. Material is named here, never held: whoever serves reads it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{PeerPattern, TrustDomain};

/// Who this proxy is, and who vouches for its peers. What `mtls` uses on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Where certificate, key and roots come from.
    pub source: IdentitySource,
    /// Which of its peers' certificates are no longer good.
    pub revocation: Revocation,
}

impl Identity {
    /// Every file that is named, but for a token's: that one is read when it is needed.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let (own, trust): (_, Vec<_>) = match &self.source {
            IdentitySource::Files { own, trust } => (Some(own), trust.values().collect()),
            IdentitySource::WorkloadApi(_) => (None, Vec::new()),
            IdentitySource::Csr(csr) => (None, csr.trust.iter().collect()),
        };
        own.into_iter().flat_map(CertificateFiles::files).chain(trust).chain(&self.revocation.crls)
    }
}

/// Where an identity comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentitySource {
    /// Files, read again when they change.
    Files {
        /// The certificate and its key.
        own: CertificateFiles,
        /// PEM file of the roots of each trust domain; that of the certificate is among them.
        trust: BTreeMap<TrustDomain, PathBuf>,
    },
    /// The SPIFFE Workload API, on this unix socket.
    WorkloadApi(PathBuf),
    /// A signing service, which makes a certificate for a key that stays here.
    Csr(Csr),
}

/// How a certificate is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    /// `https://host:port`, or `http://` on loopback.
    pub server: Box<str>,
    /// PEM file of the roots that the service's certificate is checked against; the system's by default.
    pub trust: Option<PathBuf>,
    /// File of the token that says who asks; read anew each time.
    pub token: Option<PathBuf>,
    /// How long a certificate should live. The service may grant less.
    pub lifetime: Duration,
}

impl Csr {
    /// What is asked for by default.
    pub const LIFETIME: Duration = Duration::from_secs(24 * 3600);
}

/// Which certificates are no longer good (RFC 5280 section 5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocation {
    /// PEM files of revocation lists, read again when they change. Without any, none is asked for.
    pub crls: Box<[PathBuf]>,
    /// What becomes of a certificate whose issuer has no list among them.
    pub unknown: Unknown,
}

/// What becomes of what is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// It is refused.
    #[default]
    Deny,
    /// It is let pass.
    Allow,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// PEM file of the chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file of the leaf's private key.
    pub private_key: PathBuf,
}

impl CertificateFiles {
    fn files(&self) -> [&PathBuf; 2] {
        let Self { certificate, private_key } = self;
        [certificate, private_key]
    }
}

/// TLS towards the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownstreamTls {
    /// With certificates of its own.
    Own(ServerTls),
    /// With the proxy's identity, asking the client for one.
    Mutual(Mutual),
}

impl DownstreamTls {
    /// Every file that is named.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let own = match self {
            Self::Own(own) => Some(own),
            Self::Mutual(_) => None,
        };
        let trust = own.and_then(|own| match &own.client {
            ClientAuth::None => None,
            ClientAuth::Optional(trust) | ClientAuth::Required(trust) => Some(trust),
        });
        let certificates = own.into_iter().flat_map(|own| &own.certificates);
        let trusted = trust.into_iter().flat_map(|trust| trust.revocation.crls.iter().chain([&trust.roots]));
        certificates.flat_map(CertificateFiles::files).chain(trusted)
    }
}

/// Whether a client must say who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutual {
    /// Nobody is served who does not.
    Strict,
    /// Who speaks in the clear is served too, on the same port, as nobody.
    Permissive,
}

/// TLS with certificates of the listener's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// At least one. A client gets the one that is for the host it names (SNI), by the certificates' own DNS names, exact
    /// before wildcard; otherwise the first.
    pub certificates: Box<[CertificateFiles]>,
    /// Whether clients are asked for a certificate. Such a certificate says that a client is known to these roots, but is
    /// no SPIFFE identity: that takes `mtls`.
    pub client: ClientAuth,
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// Not.
    #[default]
    None,
    /// They may have none; one that is not good is refused.
    Optional(ClientTrust),
    /// Without a good one nobody is served.
    Required(ClientTrust),
}

/// Which clients' certificates are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTrust {
    /// PEM file of the roots.
    pub roots: PathBuf,
    /// Which of them are no longer good.
    pub revocation: Revocation,
}

/// TLS towards an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamTls {
    /// With the proxy's identity, by the endpoint's.
    Mutual(MutualUpstream),
    /// By names that the endpoint's certificate must have.
    Server(Box<ServerAuth>),
}

impl UpstreamTls {
    /// Every file that is named.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let server = match self {
            Self::Server(server) => Some(&**server),
            Self::Mutual(_) => None,
        };
        server.into_iter().flat_map(|server| {
            let roots = match &server.roots {
                Roots::File(file) => Some(file),
                Roots::System => None,
            };
            let own = server.certificate.iter().flat_map(CertificateFiles::files);
            own.chain(roots).chain(&server.revocation.crls)
        })
    }
}

/// How an endpoint proves to be who is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MutualUpstream {
    /// At least one: who may answer.
    pub peers: Box<[PeerPattern]>,
    /// The host to name (SNI); none by default.
    pub sni: Option<Box<str>>,
}

/// How an endpoint proves to be who is meant, outside of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAuth {
    /// Who vouches for it.
    pub roots: Roots,
    /// The host to name (SNI), if any.
    pub sni: Option<Box<str>>,
    /// At least one: a name that its certificate must have.
    pub sans: Box<[San]>,
    /// What we show when we are asked who we are.
    pub certificate: Option<CertificateFiles>,
    /// Which certificates are no longer good.
    pub revocation: Revocation,
}

/// Who vouches for a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// Whom the system trusts.
    #[default]
    System,
    /// A PEM file of roots.
    File(PathBuf),
}

/// A name in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum San {
    /// A host, in lower case; a certificate's wildcard stands for one label (RFC 9525 section 6.3).
    Dns(Box<str>),
    /// An address.
    Ip(IpAddr),
    /// A workload, by the one URI that the certificate has.
    Spiffe(PeerPattern),
}
