//! Whether a certificate is good, and whose it is (RFC 5280 section 6; X509-SVID, section 5). Pure, but for
//! [`Shown`]: time is an argument.
//!
//! A peer's name is the one URI of its certificate and nothing else: no subject, no DNS name. Which roots may vouch for
//! it is decided by the trust domain in that name, before any signature is looked at; a root of one trust domain says
//! nothing about another's workloads.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrigger_proto::model::{SpiffeError, SpiffeId, TrustDomain, Unknown};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use rustls::{CertificateError, HandshakeKind, OtherError};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::FromDer;

use crate::facts::Proof;

/// What a certificate is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// By who calls.
    Client,
    /// By who is called.
    Server,
}

/// Roots that vouch.
#[derive(Clone, Debug, Default)]
pub struct Roots(Box<[TrustAnchor<'static>]>);

impl Roots {
    /// These roots.
    ///
    /// # Errors
    /// One of them is no certificate.
    pub fn new(certificates: &[CertificateDer<'_>]) -> Result<Self, PeerError> {
        let anchor = |der| webpki::anchor_from_trusted_cert(der).map(|anchor| anchor.to_owned());
        Ok(Self(certificates.iter().map(anchor).collect::<Result<_, _>>()?))
    }
}

/// What says which certificates are no longer good.
#[derive(Debug, Default)]
pub struct Lists {
    lists: Vec<CertRevocationList<'static>>,
    unknown: Unknown,
}

impl Lists {
    /// These lists; without any, nothing is asked.
    ///
    /// # Errors
    /// One of them is no revocation list.
    pub fn new<'a>(
        lists: impl IntoIterator<Item = &'a CertificateRevocationListDer<'static>>,
        unknown: Unknown,
    ) -> Result<Self, PeerError> {
        let owned = |der: &CertificateRevocationListDer<'_>| {
            OwnedCertRevocationList::from_der(der).map(CertRevocationList::from)
        };
        Ok(Self { lists: lists.into_iter().map(owned).collect::<Result<_, _>>()?, unknown })
    }
}

/// Whom we believe about whose workloads.
#[derive(Debug, Default)]
pub struct Trust {
    /// By trust domain.
    pub domains: BTreeMap<TrustDomain, Roots>,
    /// What is no longer good.
    pub lists: Lists,
}

impl Trust {
    /// Who shows this chain, leaf first.
    ///
    /// # Errors
    /// Why nobody is to believe it.
    pub fn verify(&self, chain: Chain<'_>, usage: Usage, now: UnixTime) -> Result<SpiffeId, PeerError> {
        let id = identity_of(chain.leaf)?;
        let roots = self.domains.get(id.trust_domain()).ok_or(PeerError::UnknownTrustDomain)?;
        chain.verify(roots, &self.lists, (usage, now))?;
        Ok(id)
    }
}

/// Certificates as a peer shows them.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a> {
    /// Its own.
    pub leaf: &'a CertificateDer<'a>,
    /// Those between it and a root.
    pub rest: &'a [CertificateDer<'a>],
}

impl<'a> Chain<'a> {
    /// Leaf first; `None` where there is none.
    pub fn new(certificates: &'a [CertificateDer<'a>]) -> Option<Self> {
        let (leaf, rest) = certificates.split_first()?;
        Some(Self { leaf, rest })
    }

    /// Whether these roots vouch for it.
    ///
    /// # Errors
    /// Why not.
    pub fn verify(
        &self,
        roots: &Roots,
        Lists { lists, unknown }: &Lists,
        (usage, now): (Usage, UnixTime),
    ) -> Result<(), PeerError> {
        let leaf = EndEntityCert::try_from(self.leaf)?;
        let usage = match usage {
            Usage::Client => KeyUsage::client_auth(),
            Usage::Server => KeyUsage::server_auth(),
        };
        let lists: Vec<_> = lists.iter().collect();
        let revocation = match RevocationOptionsBuilder::new(&lists) {
            Ok(builder) => {
                let unknown = match unknown {
                    Unknown::Deny => UnknownStatusPolicy::Deny,
                    Unknown::Allow => UnknownStatusPolicy::Allow,
                };
                let builder = builder.with_depth(RevocationCheckDepth::Chain).with_status_policy(unknown);
                Some(builder.with_expiration_policy(ExpirationPolicy::Enforce).build())
            }
            // There are none.
            Err(_) => None,
        };
        let algorithms = super::provider().signature_verification_algorithms.all;
        leaf.verify_for_usage(algorithms, &roots.0, self.rest, now, usage, revocation, None)?;
        Ok(())
    }
}

/// When a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From then on.
    pub not_before: SystemTime,
    /// Until then.
    pub not_after: SystemTime,
}

impl Validity {
    fn of(parsed: &X509Certificate<'_>) -> Self {
        let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let validity = parsed.validity();
        Self {
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        }
    }
}

/// How long after its certificate has expired a peer may resume a session that it began before: as long as the ticket
/// that it got at the last moment is good. Without this a peer whose certificate is renewed in time would be refused for
/// coming back with a ticket that is not as new.
pub const GRACE: Duration = Duration::from_secs(600);

/// What a chain that was believed shows, read once; leaf first.
#[derive(Debug)]
pub struct Shown<'a> {
    chain: &'a [CertificateDer<'a>],
    leaf: X509Certificate<'a>,
}

impl<'a> Shown<'a> {
    /// What the handshake has shown. A resumed one has shown nothing: what the first had shown must not have expired long
    /// ago.
    ///
    /// # Errors
    /// There is nothing, or it has.
    pub fn read(chain: &'a [CertificateDer<'a>], kind: Option<HandshakeKind>) -> Result<Self, PeerError> {
        let leaf = parse(chain.first().ok_or(PeerError::NoCertificate)?)?;
        let shown = Self { chain, leaf };
        if kind == Some(HandshakeKind::Resumed) && SystemTime::now() > shown.validity().not_after + GRACE {
            return Err(PeerError::Expired);
        }
        Ok(shown)
    }

    /// When it is good.
    pub fn validity(&self) -> Validity {
        Validity::of(&self.leaf)
    }

    /// Whose it is.
    ///
    /// # Errors
    /// It is not that of a workload.
    pub fn identity(&self) -> Result<SpiffeId, PeerError> {
        named(&self.leaf)
    }

    /// What is to be kept of it.
    pub fn proof(&self) -> Proof {
        // Of a session that was resumed, the certificate may have expired since it began.
        let good = SystemTime::now().min(self.validity().not_after);
        let chain = self.chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Proof { chain, at: good.duration_since(UNIX_EPOCH).unwrap_or_default() }
    }
}

/// Of whom nothing but this is asked: what a resumed handshake rests on must not have expired long ago.
///
/// # Errors
/// It has.
pub fn still_valid(chain: &[CertificateDer<'_>], kind: Option<HandshakeKind>) -> Result<(), PeerError> {
    match kind {
        Some(HandshakeKind::Resumed) => Shown::read(chain, kind).map(|_| ()),
        _ => Ok(()),
    }
}

/// Whose certificate this is, by what it says itself.
///
/// # Errors
/// It is not that of a workload.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Result<SpiffeId, PeerError> {
    named(&parse(certificate)?)
}

/// Whose it is, as DER: its subject, and the names beside that. A renewed one says the same.
pub fn holder_of<'a>(certificate: &'a CertificateDer<'_>) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let parsed = parse(certificate).ok()?;
    let names = parsed.extensions().iter().find(|one| one.oid == OID_X509_EXT_SUBJECT_ALT_NAME);
    Some((parsed.tbs_certificate.subject.as_raw(), names.map(|names| names.value)))
}

/// By whom it was signed, as DER.
pub fn issuer_of<'a>(certificate: &'a CertificateDer<'_>) -> Option<&'a [u8]> {
    parse(certificate).ok().map(|parsed| parsed.tbs_certificate.issuer.as_raw())
}

fn named(parsed: &X509Certificate<'_>) -> Result<SpiffeId, PeerError> {
    // A certificate that may sign others is not a workload's (X509-SVID section 5.2).
    let signs = parsed.key_usage().ok().flatten().is_some_and(|usage| {
        let usage = usage.value;
        usage.key_cert_sign() || usage.crl_sign()
    });
    if parsed.is_ca() || signs {
        return Err(PeerError::NotALeaf);
    }
    let names = parsed.subject_alternative_name().map_err(|_| PeerError::Malformed)?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next().ok_or(PeerError::NoUri)?;
    if uris.next().is_some() {
        return Err(PeerError::SeveralUris);
    }
    let id = SpiffeId::new(uri).map_err(PeerError::NotSpiffe)?;
    // That of a trust domain is for who signs (X509-SVID section 3).
    if id.path().is_empty() { Err(PeerError::NotALeaf) } else { Ok(id) }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PeerError> {
    match X509Certificate::from_der(certificate) {
        Ok((&[], parsed)) => Ok(parsed),
        Ok(_) | Err(_) => Err(PeerError::Malformed),
    }
}

/// Why a certificate is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// There is none.
    NoCertificate,
    /// It cannot be read.
    Malformed,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// Nobody whom we believe vouches for it.
    UnknownIssuer,
    /// It is not for what it is used for.
    WrongUsage,
    /// It may sign others, which a workload's may not.
    NotALeaf,
    /// It names nobody.
    NoUri,
    /// It names more than one.
    SeveralUris,
    /// What it names is no workload.
    NotSpiffe(SpiffeError),
    /// It is of a trust domain that nobody vouches for.
    UnknownTrustDomain,
    /// A signature is not good.
    BadSignature,
    /// It has been taken back.
    Revoked,
    /// Nobody says whether it has been taken back.
    UnknownRevocation,
    /// What says so is too old.
    OldRevocationList,
    /// Its chain is longer, or wider, than anybody needs.
    TooComplex,
    /// A constraint of its issuer is broken.
    Constraint,
    /// It is good, but not of whom we meant to reach.
    NotExpected,
}

/// A word for each, for logs and labels: of a client's certificate, and of an upstream's.
macro_rules! reasons {
    ($($error:pat => $word:literal,)*) => {
        impl PeerError {
            /// A word for it, where it is a client's.
            pub fn reason(self) -> &'static str {
                match self { $($error => concat!("tls_", $word),)* }
            }

            /// A word for it, where it is an upstream's.
            pub fn upstream_reason(self) -> &'static str {
                match self { $($error => concat!("upstream_tls_", $word),)* }
            }
        }
    };
}

reasons! {
    Self::NoCertificate => "no_certificate",
    Self::Malformed => "malformed_certificate",
    Self::Expired => "expired",
    Self::NotYetValid => "not_yet_valid",
    Self::UnknownIssuer => "unknown_issuer",
    Self::WrongUsage => "wrong_usage",
    Self::NotALeaf => "not_a_leaf",
    Self::NoUri => "no_uri",
    Self::SeveralUris => "several_uris",
    Self::NotSpiffe(_) => "not_spiffe",
    Self::UnknownTrustDomain => "unknown_trust_domain",
    Self::BadSignature => "bad_signature",
    Self::Revoked => "revoked",
    Self::UnknownRevocation => "unknown_revocation",
    Self::OldRevocationList => "old_revocation_list",
    Self::TooComplex => "too_complex",
    Self::Constraint => "constraint",
    Self::NotExpected => "not_expected",
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCertificate => "no certificate was shown",
            Self::Malformed => "the certificate cannot be read",
            Self::Expired => "the certificate has expired",
            Self::NotYetValid => "the certificate is not valid yet",
            Self::UnknownIssuer => "no trusted root vouches for the certificate",
            Self::WrongUsage => "the certificate is for another use (extended key usage)",
            Self::NotALeaf => "the certificate is that of an authority, not of a workload",
            Self::NoUri => "the certificate has no URI name",
            Self::SeveralUris => "the certificate has more than one URI name",
            Self::NotSpiffe(error) => {
                return write!(f, "the certificate's URI name is no SPIFFE ID: {error}");
            }
            Self::UnknownTrustDomain => "no root is known for the certificate's trust domain",
            Self::BadSignature => "a signature in the chain is not good",
            Self::Revoked => "the certificate has been revoked",
            Self::UnknownRevocation => "no revocation list covers the certificate",
            Self::OldRevocationList => "the revocation list that covers the certificate has expired",
            Self::TooComplex => "the chain is too long",
            Self::Constraint => "a constraint of the certificate's issuer is broken",
            Self::NotExpected => "the certificate is not of whom was meant to be reached",
        })
    }
}

impl std::error::Error for PeerError {}

impl From<webpki::Error> for PeerError {
    fn from(error: webpki::Error) -> Self {
        use webpki::Error as E;
        match error {
            E::CertExpired { .. } => Self::Expired,
            E::CertNotValidYet { .. } => Self::NotYetValid,
            E::UnknownIssuer | E::EndEntityUsedAsCa | E::CertDistrusted => Self::UnknownIssuer,
            E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => Self::WrongUsage,
            E::CaUsedAsEndEntity => Self::NotALeaf,
            E::CertRevoked => Self::Revoked,
            E::UnknownRevocationStatus => Self::UnknownRevocation,
            E::CrlExpired { .. } => Self::OldRevocationList,
            E::MaximumPathBuildCallsExceeded
            | E::MaximumPathDepthExceeded
            | E::MaximumSignatureChecksExceeded
            | E::MaximumNameConstraintComparisonsExceeded => Self::TooComplex,
            E::NameConstraintViolation | E::PathLenConstraintViolated => Self::Constraint,
            E::InvalidSignatureForPublicKey
            | E::InvalidCrlSignatureForPublicKey
            | E::SignatureAlgorithmMismatch => Self::BadSignature,
            E::CertNotValidForName(_) => Self::NotExpected,
            _ => Self::Malformed,
        }
    }
}

impl From<PeerError> for rustls::Error {
    /// The peer is told by an alert (RFC 8446 section 6.2); what has none of its own travels inside.
    fn from(error: PeerError) -> Self {
        Self::InvalidCertificate(match error {
            PeerError::Malformed => CertificateError::BadEncoding,
            PeerError::Expired => CertificateError::Expired,
            PeerError::NotYetValid => CertificateError::NotValidYet,
            PeerError::UnknownIssuer => CertificateError::UnknownIssuer,
            PeerError::WrongUsage => CertificateError::InvalidPurpose,
            PeerError::Revoked => CertificateError::Revoked,
            PeerError::UnknownRevocation => CertificateError::UnknownRevocationStatus,
            PeerError::OldRevocationList => CertificateError::ExpiredRevocationList,
            PeerError::NoCertificate
            | PeerError::NotALeaf
            | PeerError::NoUri
            | PeerError::SeveralUris
            | PeerError::NotSpiffe(_)
            | PeerError::UnknownTrustDomain
            | PeerError::BadSignature
            | PeerError::TooComplex
            | PeerError::Constraint
            | PeerError::NotExpected => CertificateError::Other(OtherError(std::sync::Arc::new(error))),
        })
    }
}

/// Why a handshake failed, where a certificate was why.
pub fn cause(error: &rustls::Error) -> Option<PeerError> {
    match error {
        rustls::Error::NoCertificatesPresented => Some(PeerError::NoCertificate),
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::Other(OtherError(inner)) => inner.downcast_ref().copied(),
            CertificateError::BadEncoding => Some(PeerError::Malformed),
            CertificateError::Expired => Some(PeerError::Expired),
            CertificateError::NotValidYet => Some(PeerError::NotYetValid),
            CertificateError::UnknownIssuer => Some(PeerError::UnknownIssuer),
            CertificateError::InvalidPurpose => Some(PeerError::WrongUsage),
            CertificateError::Revoked => Some(PeerError::Revoked),
            CertificateError::UnknownRevocationStatus => Some(PeerError::UnknownRevocation),
            CertificateError::ExpiredRevocationList => Some(PeerError::OldRevocationList),
            _ => Some(PeerError::BadSignature),
        },
        _ => None,
    }
}

/// The same of what an I/O error wraps.
pub fn cause_of_io(error: &std::io::Error) -> Option<PeerError> {
    error.get_ref()?.downcast_ref::<rustls::Error>().and_then(cause)
}
