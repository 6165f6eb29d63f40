//! Certificates that are still good: of ours, and of authorities that the operator names. Whoever has one, and its key, is who it
//! says; and so a token is needed once.
//!
//! TLS has checked that the key is there ([`crate::tls`]); all else is checked here, each time, as roots come and go and what
//! was good when a connection began may have lapsed since.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use outrigger_proto::model::SpiffeId;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use tonic::Status;
use webpki::{EndEntityCert, Error as E, KeyUsage};

use super::{By, Proven, joins};
use crate::ca::Authority;
use crate::origin::Origin;
use crate::pem::{at, certificates};
use crate::plane::Plane;

/// See the module.
#[derive(Debug)]
pub(super) struct Certificates {
    /// The roots of others.
    others: Vec<TrustAnchor<'static>>,
}

/// Why a certificate proves nothing.
type Refused = &'static str;

impl Certificates {
    /// Reads the roots of others, if any are named.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn open(others: Option<&Path>) -> Result<Self, String> {
        let Some(path) = others else { return Ok(Self { others: Vec::new() }) };
        let roots = anchors(certificates(path)?.iter()).map_err(|error| at(path, error))?;
        if roots.is_empty() {
            return Err(at(path, "there is no certificate in it"));
        }
        Ok(Self { others: roots })
    }

    /// Who shows this chain, and wants another certificate for that.
    pub(super) fn renews(
        &self,
        plane: &Plane,
        authority: &Authority,
        chain: &[CertificateDer<'static>],
    ) -> Result<Option<Proven>, Status> {
        let Some(proven) = self.shown(plane, authority, chain)? else { return Ok(None) };
        match proven.origin {
            // Whoever grants it wants to be asked each time.
            Origin::Verifier => Err(Status::unauthenticated(
                "this certificate goes back to the verifier, which wants to see its token again",
            )),
            Origin::Join(_) | Origin::Root(_) => Ok(Some(proven)),
        }
    }

    /// Who shows this chain; `None` where none is shown.
    pub(super) fn shown(
        &self,
        plane: &Plane,
        authority: &Authority,
        chain: &[CertificateDer<'static>],
    ) -> Result<Option<Proven>, Status> {
        let Some((leaf, rest)) = chain.split_first() else { return Ok(None) };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let found = self.verify(authority, (leaf, rest), UnixTime::since_unix_epoch(since));
        let refused = |why| Status::unauthenticated(format!("the certificate that was shown {why}"));
        let (id, origin) = found.map_err(refused)?;
        match origin {
            Origin::Join(join) => joins::still_good(plane, join)?,
            Origin::Root(_) | Origin::Verifier => {}
        }
        Ok(Some(Proven { id, origin, by: By::Certificate }))
    }

    /// Whose certificate this is, and what it goes back to.
    fn verify(
        &self,
        authority: &Authority,
        (leaf, rest): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        now: UnixTime,
    ) -> Result<(SpiffeId, Origin), Refused> {
        let leaf = EndEntityCert::try_from(leaf).map_err(words)?;
        let bundle: Vec<_> = authority.bundle().into_iter().map(CertificateDer::from).collect();
        let own = anchors(bundle.iter()).map_err(words)?;
        let id = named(&leaf)?;
        let of_ours = below(&leaf, rest, &own, now).map(|_| Origin::of_serial(leaf.serial()));
        let origin = match of_ours {
            Ok(Some(Origin::Root(root))) => {
                // What it goes back to may have been taken out of the file.
                let is_named = self.others.iter().any(|other| id_of(other) == root);
                is_named
                    .then_some(Origin::Root(root))
                    .ok_or("goes back to a root that is not believed any more")
            }
            Ok(Some(origin)) => Ok(origin),
            // It is below a root of ours, but not by us, unless it is older than this.
            Ok(None) => self.of_others(&leaf, rest, now).map_err(|error| match error {
                E::UnknownIssuer | E::InvalidSignatureForPublicKey => {
                    "goes back to nothing that is known here"
                }
                error => words(error),
            }),
            // Roots may be called the same, and have other keys.
            Err(E::UnknownIssuer | E::InvalidSignatureForPublicKey) => {
                self.of_others(&leaf, rest, now).map_err(words)
            }
            Err(error) => Err(words(error)),
        };
        Ok((id, origin?))
    }

    fn of_others(
        &self,
        leaf: &EndEntityCert<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Origin, E> {
        below(leaf, rest, &self.others, now).map(Origin::Root)
    }
}

fn anchors<'a>(roots: impl Iterator<Item = &'a CertificateDer<'a>>) -> Result<Vec<TrustAnchor<'static>>, E> {
    roots.map(|root| webpki::anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned())).collect()
}

/// The one of these roots that it is below.
fn below(
    leaf: &EndEntityCert<'_>,
    rest: &[CertificateDer<'_>],
    roots: &[TrustAnchor<'_>],
    now: UnixTime,
) -> Result<[u8; 8], E> {
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let usage = KeyUsage::client_auth();
    let path = leaf.verify_for_usage(algorithms, roots, rest, now, usage, None, None)?;
    Ok(id_of(path.anchor()))
}

fn id_of(root: &TrustAnchor<'_>) -> [u8; 8] {
    let hash = digest(&SHA256, &root.subject_public_key_info);
    let mut id = [0; 8];
    id.copy_from_slice(&hash.as_ref()[..8]);
    id
}

/// Its one name (X509-SVID section 2).
fn named(leaf: &EndEntityCert<'_>) -> Result<SpiffeId, Refused> {
    let mut names = leaf.valid_uri_names();
    let name = names.next().ok_or("names no SPIFFE ID")?;
    if names.next().is_some() {
        return Err("has several URI names");
    }
    let id = SpiffeId::new(name).map_err(|_| "names no SPIFFE ID")?;
    if id.path().is_empty() { Err("is that of a trust domain, and of no workload") } else { Ok(id) }
}

fn words(error: E) -> Refused {
    match error {
        E::CertExpired { .. } => "has lapsed",
        E::CertNotValidYet { .. } => "is not good yet",
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => "is of nobody who is believed here",
        E::CaUsedAsEndEntity => "is that of an authority",
        E::RequiredEkuNotFoundContext(_) => "is not for clients",
        _ => "is not good",
    }
}
