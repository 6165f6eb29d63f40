//! Who we are, and whom we believe: TLS of both sides. Material is named here, never held: whoever serves reads it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Name, PeerPattern, TrustDomain};

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

/// A certificate and its key, and where they come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Certificate {
    /// Files.
    Files(CertificateFiles),
    /// The control plane's secret of this name.
    Secret(Name),
}

impl Certificate {
    /// The secret by which a control plane means what the proxy's own identity shows.
    pub const OWN: &str = "default";

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let files = match self {
            Self::Files(files) => Some(files.files()),
            Self::Secret(_) => None,
        };
        files.into_iter().flatten()
    }

    fn secret(&self) -> Option<SecretRef<'_>> {
        match self {
            Self::Files(_) => None,
            Self::Secret(name) => Some(SecretRef { name, holds: Holds::Certificate }),
        }
    }
}

/// Roots, and where they come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bundle {
    /// A PEM file.
    File(PathBuf),
    /// The control plane's secret of this name, with the revocation lists that it may have.
    Secret(Name),
}

impl Bundle {
    /// The secret by which a control plane means whom the proxy's own identity believes.
    pub const OWN: &str = "ROOTCA";

    fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::File(file) => Some(file),
            Self::Secret(_) => None,
        }
    }

    fn secret(&self) -> Option<SecretRef<'_>> {
        match self {
            Self::File(_) => None,
            Self::Secret(name) => Some(SecretRef { name, holds: Holds::Roots }),
        }
    }
}

/// A secret of the control plane that something cannot be served without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretRef<'a> {
    /// Which.
    pub name: &'a Name,
    /// What it is to hold.
    pub holds: Holds,
}

/// What a secret holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holds {
    /// A certificate and its key.
    Certificate,
    /// Roots.
    Roots,
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
        let own = self.own();
        let trust = own.and_then(|own| own.client.trust());
        let certificates = own.into_iter().flat_map(|own| &own.certificates);
        let trusted =
            trust.into_iter().flat_map(|trust| trust.revocation.crls.iter().chain(trust.roots.file()));
        certificates.flat_map(Certificate::files).chain(trusted)
    }

    /// Every secret of the control plane that is named.
    pub fn secrets(&self) -> impl Iterator<Item = SecretRef<'_>> {
        let own = self.own();
        let certificates = own.into_iter().flat_map(|own| &own.certificates);
        let trust = own.and_then(|own| own.client.trust()).and_then(|trust| trust.roots.secret());
        certificates.filter_map(Certificate::secret).chain(trust)
    }

    fn own(&self) -> Option<&ServerTls> {
        match self {
            Self::Own(own) => Some(own),
            Self::Mutual(_) => None,
        }
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
    pub certificates: Box<[Certificate]>,
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

impl ClientAuth {
    fn trust(&self) -> Option<&ClientTrust> {
        match self {
            Self::None => None,
            Self::Optional(trust) | Self::Required(trust) => Some(trust),
        }
    }
}

/// Which clients' certificates are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTrust {
    /// Who vouches for them.
    pub roots: Bundle,
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
        self.server().into_iter().flat_map(|server| {
            let own = server.certificate.iter().flat_map(Certificate::files);
            own.chain(server.roots.bundle().and_then(Bundle::file)).chain(&server.revocation.crls)
        })
    }

    /// Every secret of the control plane that is named.
    pub fn secrets(&self) -> impl Iterator<Item = SecretRef<'_>> {
        self.server().into_iter().flat_map(|server| {
            let own = server.certificate.as_ref().and_then(Certificate::secret);
            own.into_iter().chain(server.roots.bundle().and_then(Bundle::secret))
        })
    }

    fn server(&self) -> Option<&ServerAuth> {
        match self {
            Self::Server(server) => Some(server),
            Self::Mutual(_) => None,
        }
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
    pub certificate: Option<Certificate>,
    /// Which certificates are no longer good.
    pub revocation: Revocation,
}

/// Who vouches for a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// Whom the system trusts.
    #[default]
    System,
    /// These roots.
    Of(Bundle),
}

impl Roots {
    /// Whom of the configuration's own.
    pub(crate) fn bundle(&self) -> Option<&Bundle> {
        match self {
            Self::System => None,
            Self::Of(bundle) => Some(bundle),
        }
    }
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
