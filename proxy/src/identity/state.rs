//! What the process can prove, and whom it believes: one immutable value, replaced whole, read by every handshake.
//!
//! TLS configurations hold on to this and not to a certificate, so a renewed certificate changes no configuration and
//! touches no connection. What resumes sessions is bound to it: who was let in by a root that is no longer trusted, or
//! before a list revoked it, proves itself anew.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use outrigger_proto::model::{SpiffeId, TrustDomain, Unknown};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use super::alarm::{self, Standing};
use super::offer::{Accepted, Offer};
use super::verify::{self, Chain, Lists, PeerError, Roots, Shown, Trust, Usage, Validity};
use crate::facts::Proof;

/// What is in force.
#[derive(Debug)]
pub struct Material {
    /// The certificate and its key.
    pub key: Arc<CertifiedKey>,
    /// Who the proxy is.
    pub id: SpiffeId,
    /// When that is true.
    pub validity: Validity,
    /// How long it is good in all, from when it was signed.
    life: Duration,
    /// Whom it believes.
    pub trust: Trust,
    /// What [`Material::trust`] was made of; sessions are bound to it.
    roots: Believed,
}

/// An offer that was checked.
#[derive(Debug)]
pub struct Prepared(Arc<Material>);

/// Roots and lists, to tell whether they changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Believed {
    bundles: BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>,
    crls: Vec<CertificateRevocationListDer<'static>>,
    local: Local,
}

/// What the configuration says of revocation, whatever the identity's source says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Lists.
    pub crls: Vec<CertificateRevocationListDer<'static>>,
    /// What becomes of what no list covers.
    pub unknown: Unknown,
}

impl Believed {
    fn trust(&self) -> Result<Trust, OfferError> {
        let Self { bundles, crls, local } = self;
        let lists = Lists::new(crls.iter().chain(&local.crls), local.unknown).map_err(OfferError::List)?;
        let mut trust = Trust { lists, ..Trust::default() };
        for (domain, roots) in bundles {
            let roots = Roots::new(roots).map_err(|error| OfferError::Root(domain.to_string(), error))?;
            trust.domains.insert(domain.clone(), roots);
        }
        Ok(trust)
    }
}

/// The process's identity, which may come later than the process, and change.
#[derive(Debug, Default)]
pub struct Identity {
    material: ArcSwapOption<Material>,
    /// Held while the material is replaced.
    local: Mutex<Local>,
    /// Counts what was accepted.
    version: AtomicU64,
    /// Counts changes of whom is believed.
    trust_version: AtomicU64,
    /// Why there is no newer one; nothing where the last try went well.
    failure: Mutex<Option<Box<str>>>,
}

/// A certificate of one's own, and how long it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lapse {
    /// Who the proxy is by it.
    pub id: SpiffeId,
    /// Its number, in hexadecimal.
    pub serial: String,
    /// Until when.
    pub not_after: SystemTime,
    /// Why there is no newer one, as far as that is known.
    pub why: Option<Box<str>>,
}

impl Identity {
    /// What is in force; `None` as long as there is nothing.
    pub fn material(&self) -> Option<Arc<Material>> {
        self.material.load_full()
    }

    /// What is in force, if it proves anything at this time.
    pub fn good(&self, now: SystemTime) -> Option<Arc<Material>> {
        let is_good = |material: &Arc<Material>| {
            let Validity { not_before, not_after } = material.validity;
            (not_before..=not_after).contains(&now)
        };
        self.material().filter(is_good)
    }

    /// How it stands at this time.
    pub fn standing(&self, now: SystemTime) -> Standing {
        alarm::standing(self.material().map(|material| (material.validity, material.life)), now)
    }

    /// Until when what is in force is good.
    pub fn lapse(&self) -> Option<Lapse> {
        let material = self.material()?;
        let leaf = material.key.cert.first().and_then(|leaf| EndEntityCert::try_from(leaf).ok());
        let serial = leaf.iter().flat_map(|leaf| leaf.serial()).map(|byte| format!("{byte:02x}")).collect();
        let why = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(Lapse { id: material.id.clone(), serial, not_after: material.validity.not_after, why })
    }

    /// How the last try to get a newer one went.
    pub(super) fn note_try(&self, failure: Option<String>) {
        let failure = failure.map(String::into_boxed_str);
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// How often it has changed.
    pub fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    /// How often it has changed whom is believed.
    pub fn trust_version(&self) -> u64 {
        self.trust_version.load(Relaxed)
    }

    /// Puts an offer in force, if all of it is good.
    ///
    /// # Errors
    /// What is wrong; what was in force stays.
    pub fn accept(&self, offer: Offer, now: SystemTime) -> Result<Accepted, OfferError> {
        let local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = self.prepare(offer, &local, now)?;
        Ok(self.install(prepared))
    }

    /// The configuration says so of revocation from now on.
    ///
    /// # Errors
    /// A list is none; what was in force stays.
    pub fn set_local(&self, new: Local) -> Result<(), OfferError> {
        let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = self.material()
            && current.roots.local != new
        {
            let roots = Believed { local: new.clone(), ..current.roots.clone() };
            let Material { key, id, validity, life, trust: _, roots: _ } = &*current;
            let (key, id, trust) = (key.clone(), id.clone(), roots.trust()?);
            let (validity, life) = (*validity, *life);
            self.install(Prepared(Arc::new(Material { key, id, validity, life, trust, roots })));
        }
        *local = new;
        Ok(())
    }

    /// Checks all of an offer: the chain leads to a root of the certificate's own trust domain, the key is the
    /// certificate's, it names a workload, and its time is now. What is in force already is not asked again: that it has
    /// expired meanwhile must hold up nothing else.
    ///
    /// # Errors
    /// What is wrong.
    pub fn prepare(&self, offer: Offer, local: &Local, now: SystemTime) -> Result<Prepared, OfferError> {
        let Offer { chain, key, bundles, crls, is_fresh } = offer;
        let roots = Believed { bundles, crls, local: local.clone() };
        // Also of a certificate that is in force: another key beside it is a mistake that would be found too late.
        let key = Arc::new(certified(chain, &key)?);
        if let Some(current) = self.material()
            && current.roots == roots
            && current.key.cert == key.cert
        {
            return Ok(Prepared(current));
        }
        let mut trust = roots.trust()?;
        // A list that takes our own back, or has expired, must still keep others out: it comes after.
        let lists = std::mem::take(&mut trust.lists);
        let chain = Chain::new(&key.cert).ok_or(OfferError::Own(PeerError::NoCertificate))?;
        let unix = now.duration_since(SystemTime::UNIX_EPOCH).map(UnixTime::since_unix_epoch);
        let unix = unix.unwrap_or(UnixTime::since_unix_epoch(Duration::ZERO));
        trust.verify(chain, Usage::Client, unix).map_err(OfferError::Own)?;
        let id = trust.verify(chain, Usage::Server, unix).map_err(OfferError::Own)?;
        trust.lists = lists;
        let validity = Shown::read(&key.cert, None).map_err(OfferError::Own)?.validity();
        let begin = if is_fresh { now.max(validity.not_before) } else { validity.not_before };
        let life = validity.not_after.duration_since(begin).unwrap_or_default();
        Ok(Prepared(Arc::new(Material { key, id, validity, life, trust, roots })))
    }

    /// Puts in force what was checked.
    pub fn install(&self, Prepared(new): Prepared) -> Accepted {
        let Validity { not_before, not_after } = new.validity;
        let accepted = Accepted { id: new.id.clone(), not_before, not_after };
        let old = self.material.swap(Some(new.clone()));
        if old.as_ref().is_some_and(|old| Arc::ptr_eq(old, &new)) {
            return accepted;
        }
        self.version.fetch_add(1, Relaxed);
        if old.is_none_or(|old| old.roots != new.roots) {
            self.trust_version.fetch_add(1, Relaxed);
        }
        accepted
    }

    /// The configuration has none any more.
    pub fn forget(&self) {
        if self.material.swap(None).is_some() {
            self.version.fetch_add(1, Relaxed);
            self.trust_version.fetch_add(1, Relaxed);
        }
    }

    /// Whether what somebody has proven is still believed: a root may have been withdrawn, a certificate revoked. That it
    /// has expired meanwhile ends nothing.
    pub fn still_believes(&self, Proof { chain, at }: &Proof, usage: Usage) -> bool {
        let chain = Chain::new(chain);
        chain.is_some_and(|chain| self.verify(chain, usage, UnixTime::since_unix_epoch(*at)).is_ok())
    }

    /// Whether a peer's chain is still believed.
    ///
    /// # Errors
    /// Why not.
    pub fn verify(&self, chain: Chain<'_>, usage: Usage, now: UnixTime) -> Result<SpiffeId, PeerError> {
        match &*self.material.load() {
            Some(material) => material.trust.verify(chain, usage, now),
            None => Err(PeerError::UnknownTrustDomain),
        }
    }
}

/// A chain with its key, which is checked to be the leaf's.
///
/// # Errors
/// The key cannot be used, or is another's.
pub fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<CertifiedKey, OfferError> {
    // rustls wipes what it is given.
    let key = super::provider().key_provider.load_private_key(key.clone_key());
    let key = key.map_err(|_| OfferError::Key)?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => OfferError::OtherKey,
        _ => OfferError::Own(verify::cause(&error).unwrap_or(PeerError::Malformed)),
    })?;
    Ok(certified)
}

/// Why an offer was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferError {
    /// The certificate is not good.
    Own(PeerError),
    /// The key cannot be used.
    Key,
    /// The key is another certificate's.
    OtherKey,
    /// A root of this trust domain is no certificate.
    Root(String, PeerError),
    /// A revocation list is none.
    List(PeerError),
}

impl fmt::Display for OfferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(error) => write!(f, "{error}"),
            Self::Key => write!(f, "the private key is of a kind that cannot be used"),
            Self::OtherKey => write!(f, "the private key does not belong to the certificate"),
            Self::Root(domain, error) => write!(f, "a root of `{domain}` cannot be used: {error}"),
            Self::List(_) => write!(f, "a revocation list cannot be read"),
        }
    }
}

impl std::error::Error for OfferError {}
