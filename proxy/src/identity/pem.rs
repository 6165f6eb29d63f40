//! Certificates, keys and lists in files and other texts.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use outrigger_proto::model::{CertificateFiles, Name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::offer::Key;

/// Largest file that is read: a bundle of a thousand roots fits, and a path that leads to a device does no harm.
const LARGEST: u64 = 16 << 20;

/// What holds material.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// A file.
    File(PathBuf),
    /// A secret of the control plane.
    Secret(Name),
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Secret(name) => write!(f, "the secret `{name}`"),
        }
    }
}

/// What is wrong with material.
#[derive(Debug)]
pub enum PemError {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// It holds no certificate.
    NoCertificate(Held),
    /// It holds no private key that can be used.
    NoKey(Held),
    /// It holds no revocation list.
    NoList(Held),
    /// Something in it is broken.
    Broken(Held),
    /// It is not there, or holds something else.
    NoSecret(Name),
}

impl fmt::Display for PemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::NoCertificate(held) => write!(f, "{held} holds no PEM certificate"),
            Self::NoKey(held) => write!(f, "{held} holds no PEM private key that can be used"),
            Self::NoList(held) => write!(f, "{held} holds no PEM revocation list (X509 CRL)"),
            Self::Broken(held) => write!(f, "{held} is not whole: a PEM block in it is broken"),
            Self::NoSecret(name) => write!(f, "the secret `{name}` has not come, or holds something else"),
        }
    }
}

impl std::error::Error for PemError {}

/// The certificates of a file, at least one.
///
/// # Errors
/// See [`PemError`].
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    certificates_in(&read(path)?, || Held::File(path.to_owned()))
}

/// The certificates of a text, at least one.
///
/// # Errors
/// See [`PemError`].
pub fn certificates_in(
    text: &[u8],
    held: impl Fn() -> Held,
) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(PemError::NoCertificate(held())),
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(PemError::Broken(held())),
    }
}

/// The first private key of a file.
///
/// # Errors
/// See [`PemError`].
pub fn private_key(path: &Path) -> Result<Key, PemError> {
    private_key_in(&read(path)?, || Held::File(path.to_owned()))
}

/// The first private key of a text.
///
/// # Errors
/// See [`PemError`].
pub fn private_key_in(text: &[u8], held: impl Fn() -> Held) -> Result<Key, PemError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|_| PemError::NoKey(held())).map(Zeroizing::new)
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
        lists.extend(lists_in(&read(path)?, || Held::File(path.clone()))?);
    }
    Ok(lists)
}

/// The revocation lists of a text, at least one.
///
/// # Errors
/// See [`PemError`].
pub fn lists_in(
    text: &[u8],
    held: impl Fn() -> Held,
) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(text).collect();
    match lists {
        Ok(lists) if lists.is_empty() => Err(PemError::NoList(held())),
        Ok(lists) => Ok(lists),
        Err(_) => Err(PemError::Broken(held())),
    }
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
