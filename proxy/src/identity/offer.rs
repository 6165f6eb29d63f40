//! What a source of identity hands over, and what becomes of it. Nothing here has been checked yet.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use outrigger_proto::model::{SpiffeId, TrustDomain};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::Identity;
use crate::observe::ProcessStats;

/// A private key, wiped when it is dropped: what is refused is never loaded by who would wipe it.
pub type Key = Zeroizing<PrivateKeyDer<'static>>;

/// What a source has to offer, not yet checked.
pub struct Offer {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: Key,
    /// The roots of each trust domain.
    pub bundles: BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>,
    /// Revocation lists that came with it.
    pub crls: Vec<CertificateRevocationListDer<'static>>,
    /// It was signed for us just now, whatever it says of its beginning: authorities put that into the past.
    pub is_fresh: bool,
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chain, key: _, bundles, crls, is_fresh } = self;
        let (chain, crls) = (chain.len(), crls.len());
        f.debug_struct("Offer")
            .field("chain", &chain)
            .field("bundles", bundles)
            .field("crls", &crls)
            .field("is_fresh", is_fresh)
            .finish_non_exhaustive()
    }
}

/// What was checked, and is in force now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Who the proxy is.
    pub id: SpiffeId,
    /// From then on.
    pub not_before: SystemTime,
    /// Until then.
    pub not_after: SystemTime,
}

/// Whom sources offer to.
#[derive(Clone, Debug)]
pub struct Taker {
    /// What is in force.
    pub identity: Arc<Identity>,
    /// What is told of it.
    pub stats: Arc<ProcessStats>,
}

impl Taker {
    /// Puts an offer in force, if all of it is good; what came of it is logged and counted.
    pub fn take(&self, offer: Offer) -> Option<Accepted> {
        let version = self.identity.version();
        match self.identity.accept(offer, SystemTime::now()) {
            Ok(accepted) => {
                self.identity.note_try(None);
                if self.identity.version() != version {
                    self.stats.identity(accepted.not_after);
                    tracing::info!(id = %accepted.id, "the identity is in force");
                }
                Some(accepted)
            }
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    /// There was nothing to be had, or nothing good.
    pub fn failed(&self, error: &dyn fmt::Display) {
        self.stats.identity_failures.increment(1);
        self.identity.note_try(Some(error.to_string()));
        tracing::warn!(%error, "the identity could not be renewed; the last good one stays");
    }
}
