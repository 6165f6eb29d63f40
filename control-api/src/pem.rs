//! PEM (RFC 7468): certificates in files, and what is given out as text.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

/// What is wrong with a file.
pub(crate) fn at(path: &Path, error: impl fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

/// The certificates in a file; there may be none.
///
/// # Errors
/// It cannot be read.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    all.map_err(|error| at(file, error))
}

/// A certificate as text.
pub(crate) fn pem(der: &CertificateDer<'_>) -> String {
    std::mem::take(&mut *labelled("CERTIFICATE", der))
}

/// Anything as text, which is wiped when it is dropped, as it may be a key.
pub(crate) fn labelled(label: &str, der: &[u8]) -> Zeroizing<String> {
    let text = Zeroizing::new(STANDARD.encode(der));
    // Room for all of it: what has to move leaves a copy behind.
    let lines = text.len().div_ceil(64);
    let around = 2 * (label.len() + "-----BEGIN -----\n".len());
    let mut out = Zeroizing::new(String::with_capacity(text.len() + lines + around));
    *out += "-----BEGIN ";
    *out += label;
    *out += "-----\n";
    for line in 0..lines {
        *out += &text[line * 64..text.len().min((line + 1) * 64)];
        out.push('\n');
    }
    *out += "-----END ";
    *out += label;
    *out += "-----\n";
    out
}
