//! What a source of identity hands over, and what becomes of it. Nothing here has been checked yet.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use outrigger_proto::model::{SpiffeId, TrustDomain};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// What a source has to offer, not yet checked.
pub struct Offer {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// The roots of each trust domain.
    pub bundles: BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>,
    /// Revocation lists that came with it.
    pub crls: Vec<CertificateRevocationListDer<'static>>,
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chain, key: _, bundles, crls } = self;
        let (chain, crls) = (chain.len(), crls.len());
        f.debug_struct("Offer")
            .field("chain", &chain)
            .field("bundles", bundles)
            .field("crls", &crls)
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
