//! An identity in files. Whoever watches them reads them again when they change.

use std::collections::BTreeMap;
use std::path::PathBuf;

use outrigger_proto::model::{CertificateFiles, TrustDomain};

use super::offer::Offer;
use super::pem::{self, PemError};

/// What the files hold now.
///
/// # Errors
/// A file cannot be read, or holds something else.
pub fn read(own: &CertificateFiles, trust: &BTreeMap<TrustDomain, PathBuf>) -> Result<Offer, PemError> {
    let (chain, key) = pem::pair(own)?;
    let bundles = trust.iter().map(|(domain, path)| Ok((domain.clone(), pem::certificates(path)?)));
    let bundles = bundles.collect::<Result<_, PemError>>()?;
    Ok(Offer { chain, key, bundles, crls: Vec::new(), is_fresh: false })
}
