//! Certificates, keys and lists in files.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use outrigger_proto::model::CertificateFiles;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::offer::Key;

/// Largest file that is read: a bundle of a thousand roots fits, and a path that leads to a device does no harm.
const LARGEST: u64 = 16 << 20;

/// What is wrong with material in a file.
#[derive(Debug)]
pub enum PemError {
    /// It cannot be read.
    Unreadable(PathBuf, io::Error),
    /// It holds no certificate.
    NoCertificate(PathBuf),
    /// It holds no private key that can be used.
    NoKey(PathBuf),
    /// It holds no revocation list.
    NoList(PathBuf),
    /// Something in it is broken.
    Broken(PathBuf),
}

impl fmt::Display for PemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::NoCertificate(path) => write!(f, "{} holds no PEM certificate", path.display()),
            Self::NoKey(path) => write!(f, "{} holds no PEM private key that can be used", path.display()),
            Self::NoList(path) => write!(f, "{} holds no PEM revocation list (X509 CRL)", path.display()),
            Self::Broken(path) => write!(f, "{} is not whole: a PEM block in it is broken", path.display()),
        }
    }
}

impl std::error::Error for PemError {}

/// The certificates of a file, at least one.
///
/// # Errors
/// See [`PemError`].
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(PemError::NoCertificate(path.to_owned())),
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(PemError::Broken(path.to_owned())),
    }
}

/// The first private key of a file.
///
/// # Errors
/// See [`PemError`].
pub fn private_key(path: &Path) -> Result<Key, PemError> {
    let text = read(path)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| PemError::NoKey(path.to_owned()));
    key.map(Zeroizing::new)
}

/// A chain and its key.
///
/// # Errors
/// See [`PemError`].
pub fn pair(files: &CertificateFiles) -> Result<(Vec<CertificateDer<'static>>, Key), PemError> {
    let CertificateFiles { certificate, private_key: key } = files;
    Ok((certificates(certificate)?, private_key(key)?))
}

/// The revocation lists of these files, at least one in each.
///
/// # Errors
/// See [`PemError`].
pub fn lists(paths: &[PathBuf]) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    let mut lists = Vec::new();
    for path in paths {
        let text = read(path)?;
        let before = lists.len();
        for list in CertificateRevocationListDer::pem_slice_iter(&text) {
            lists.push(list.map_err(|_| PemError::Broken(path.clone()))?);
        }
        if lists.len() == before {
            return Err(PemError::NoList(path.clone()));
        }
    }
    Ok(lists)
}

/// Any of these files may hold a key, so what was read is wiped.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, PemError> {
    let unreadable = |error| PemError::Unreadable(path.to_owned(), error);
    let file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_or(0, |metadata| metadata.len()).min(LARGEST);
    // With all the room it needs: a buffer that grows leaves copies behind.
    let room = usize::try_from(size).unwrap_or(0) + 1;
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    file.take(LARGEST).read_to_end(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// Who else than its owner may read or write a file of a key; `None` where nobody may, or it cannot be told.
pub fn exposure(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.mode() & 0o777;
    // A group may read what the kernel shows a pod under `fsGroup`; nobody else may, and nobody may write.
    let exposed = mode & 0o037 != 0;
    exposed
        .then(|| format!("the private key in {} has mode {mode:04o}; expected 0600 or 0400", path.display()))
}
