//! The authority that nodes get their identities from: short-lived certificates with a SPIFFE ID (X.509-SVIDs) for keys that
//! never leave the node. Its protocol is `outrigger.identity.v1`.
//!
//! Roots are files of the operator's, or are made in the store. A new one is told to everybody before it signs anything, and
//! an old one stays believed as long as what it signed may live.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use outrigger_proto::model::{Authority as Settings, RootFiles, SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::hex::hex;
use crate::origin::Origin;
use crate::pem::{at, certificates, pem};

/// How long a root that is made here lives.
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How far a node's clock may be behind ours.
const SKEW: Duration = Duration::from_secs(60);
/// No certificate lives shorter: it would lapse while it is being renewed.
const SHORTEST: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct Authority {
    trust_domain: TrustDomain,
    lifetime: Duration,
    /// Where roots are made; `None` where the operator has his own.
    directory: Option<PathBuf>,
    /// The oldest first; not empty.
    roots: Mutex<Vec<Root>>,
}

struct Root {
    certificate: CertificateDer<'static>,
    pem: String,
    /// `None` for one that is believed, and signs nothing.
    issuer: Option<Issuer<'static, KeyPair>>,
    made: SystemTime,
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("made", &self.made).finish_non_exhaustive()
    }
}

/// That a certificate of years lapses is said so long before.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a certificate is good.
#[derive(Clone, Debug)]
pub struct Life {
    /// Its number, in hexadecimal.
    pub serial: String,
    /// From then on.
    pub not_before: SystemTime,
    /// Until then.
    pub not_after: SystemTime,
}

impl Life {
    /// What a certificate says of itself; `None` of what is none.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let validity = parsed.validity();
        Some(Self {
            serial: hex(parsed.raw_serial()),
            not_before: validity.not_before.to_datetime().into(),
            not_after: validity.not_after.to_datetime().into(),
        })
    }

    /// How long before its end it is to be said that it lapses: a month, or a quarter of a shorter life.
    pub(crate) fn notice(&self) -> Duration {
        (self.not_after.duration_since(self.not_before).unwrap_or_default() / 4).min(MONTH)
    }
}

/// A certificate that was signed.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The leaf, as DER.
    pub certificate: Vec<u8>,
    /// When it lapses.
    pub not_after: SystemTime,
    /// Its number, in hexadecimal.
    pub serial: String,
}

/// Nothing was signed.
#[derive(Debug)]
pub enum SignError {
    /// What was asked is not a request for a certificate, or not by whoever has the key.
    Request(String),
    /// The authority cannot.
    Authority(String),
}

impl Authority {
    /// Reads the roots, or makes the first one below `store`.
    ///
    /// # Errors
    /// A file cannot be read or written, or is not what it should be.
    pub fn open(settings: &Settings, store: &Path) -> Result<Self, String> {
        let Settings { trust_domain, root, lifetime, attest: _ } = settings;
        let (directory, roots) = match root {
            Some(files) => (None, own(files)?),
            None => {
                let directory = store.join("ca");
                fs::create_dir_all(&directory).map_err(|error| at(&directory, error))?;
                let mut roots = made(&directory)?;
                if roots.is_empty() {
                    roots.push(make(&directory, 1, trust_domain)?);
                    tracing::info!(directory = %directory.display(), %trust_domain, "made the first root");
                }
                (Some(directory), roots)
            }
        };
        Ok(Self { trust_domain: trust_domain.clone(), lifetime: *lifetime, directory, roots: roots.into() })
    }

    /// Whose identities it gives.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// How long what is signed lives, at the longest.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Until when anything can be signed, by the roots that there are: that of the youngest that signs.
    pub fn root(&self) -> Option<Life> {
        let roots = self.lock();
        roots.iter().rfind(|root| root.issuer.is_some()).and_then(|root| Life::of(&root.certificate))
    }

    /// The roots to be believed, as DER.
    pub fn bundle(&self) -> Vec<Vec<u8>> {
        self.lock().iter().map(|root| root.certificate.to_vec()).collect()
    }

    /// The same as PEM.
    pub fn bundle_pem(&self) -> String {
        self.lock().iter().map(|root| root.pem.as_str()).collect()
    }

    /// Makes a new root, which signs once everybody believes it.
    ///
    /// # Errors
    /// The roots are the operator's own, or it cannot be written.
    pub fn rotate(&self) -> Result<(), String> {
        let mut roots = self.lock();
        let (directory, number) = self.next()?;
        roots.push(make(directory, number, &self.trust_domain)?);
        Ok(())
    }

    /// Where the next root would be made, and its number.
    ///
    /// # Errors
    /// The roots are the operator's own, or the directory cannot be read.
    pub fn next(&self) -> Result<(&Path, usize), String> {
        let Some(directory) = &self.directory else {
            return Err(
                "the root is a file of yours (`ca.root`): put the new one first there, and start again"
                    .into(),
            );
        };
        let number = numbers(directory)?.last().map_or(1, |last| last + 1);
        Ok((directory, number))
    }

    /// Signs for whoever has the key in this request (PKCS #10, as DER), and has shown that. Of what it says nothing is
    /// believed but the key.
    ///
    /// # Errors
    /// See [`SignError`].
    pub fn sign(
        &self,
        request: &[u8],
        (id, origin): (&SpiffeId, Origin),
        lifetime: Duration,
    ) -> Result<Signed, SignError> {
        let request = CertificateSigningRequestDer::from(request);
        let request = CertificateSigningRequestParams::from_der(&request);
        let request = request.map_err(|error| SignError::Request(error.to_string()))?;
        let now = SystemTime::now();
        let lifetime =
            if lifetime.is_zero() { self.lifetime } else { lifetime.min(self.lifetime).max(SHORTEST) };
        let (not_before, not_after) = (now - SKEW, now + lifetime);
        let serial = origin.serial();
        let uri = id.as_str().try_into().map_err(|_| SignError::Request(format!("`{id}` is not ASCII")))?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.distinguished_name = DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = OffsetDateTime::from(not_before);
        params.not_after = OffsetDateTime::from(not_after);
        let roots = self.lock();
        let issuer = signer(&roots, now, self.lifetime);
        let issuer = issuer.ok_or_else(|| SignError::Authority("no root has a key".to_owned()))?;
        let signed = params.signed_by(&request.public_key, issuer);
        let signed = signed.map_err(|error| SignError::Authority(error.to_string()))?;
        Ok(Signed { certificate: signed.der().to_vec(), not_after, serial: hex(&serial) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Root>> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The youngest root that everybody knows by now: nodes hear of it when they renew, within one lifetime. Of those that nobody
/// may know yet, the oldest.
fn signer(roots: &[Root], now: SystemTime, lifetime: Duration) -> Option<&Issuer<'static, KeyPair>> {
    let is_known = |root: &&Root| now.duration_since(root.made).is_ok_and(|age| age >= lifetime);
    let signs = |root: &&Root| root.issuer.is_some();
    let known = roots.iter().filter(signs).rfind(is_known);
    known.or_else(|| roots.iter().find(signs)).and_then(|root| root.issuer.as_ref())
}

/// The operator's: the first signs, all are believed.
fn own(RootFiles { certificate, private_key }: &RootFiles) -> Result<Vec<Root>, String> {
    let all = certificates(certificate)?;
    let mut key = Some(key(private_key)?);
    let roots = all.into_iter().map(|der| {
        let issuer = key.take().map(|key| issuer(&der, key)).transpose();
        let issuer = issuer.map_err(|error| at(certificate, error))?;
        Ok(Root { pem: pem(&der), certificate: der, issuer, made: SystemTime::UNIX_EPOCH })
    });
    let roots: Vec<_> = roots.collect::<Result<_, String>>()?;
    if roots.is_empty() { Err(at(certificate, "there is no certificate in it")) } else { Ok(roots) }
}

fn key(path: &Path) -> Result<KeyPair, String> {
    let text = fs::read_to_string(path).map_err(|error| at(path, error))?;
    KeyPair::from_pem(&text).map_err(|error| at(path, error))
}

/// Who signs with this key, which is checked to be the certificate's: with another one nobody would believe what is signed.
fn issuer(certificate: &CertificateDer<'_>, key: KeyPair) -> Result<Issuer<'static, KeyPair>, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    if *parsed.public_key().subject_public_key.data != *key.public_key_raw() {
        return Err("the private key does not belong to the certificate".to_owned());
    }
    Issuer::from_ca_cert_der(certificate, key).map_err(|error| error.to_string())
}

/// Who is asked for in this request; it need not say.
pub(crate) fn asked(request: &[u8]) -> Option<String> {
    let request =
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request)).ok()?;
    request.params.subject_alt_names.iter().find_map(|name| match name {
        SanType::URI(uri) => Some(uri.to_string()),
        _ => None,
    })
}

fn paths(directory: &Path, number: usize) -> (PathBuf, PathBuf) {
    (directory.join(format!("root-{number}.crt")), directory.join(format!("root-{number}.key")))
}

/// Those that were made here, the oldest first.
fn made(directory: &Path) -> Result<Vec<Root>, String> {
    let roots = numbers(directory)?.into_iter().map(|number| {
        let (certificate, private_key) = paths(directory, number);
        let der = CertificateDer::from_pem_file(&certificate).map_err(|error| at(&certificate, error))?;
        let issuer = issuer(&der, key(&private_key)?).map_err(|error| at(&certificate, error))?;
        let made = fs::metadata(&certificate).and_then(|meta| meta.modified());
        let made = made.map_err(|error| at(&certificate, error))?;
        Ok(Root { pem: pem(&der), certificate: der, issuer: Some(issuer), made })
    });
    roots.collect()
}

/// The numbers of those that are there: some may have been taken away.
fn numbers(directory: &Path) -> Result<BTreeSet<usize>, String> {
    let files = fs::read_dir(directory).map_err(|error| at(directory, error))?;
    let number = |name: &str| name.strip_prefix("root-")?.strip_suffix(".crt")?.parse().ok();
    let numbers = files.map(|file| {
        let file = file.map_err(|error| at(directory, error))?;
        Ok(file.file_name().to_str().and_then(number))
    });
    numbers.filter_map(Result::transpose).collect()
}

fn make(directory: &Path, number: usize, domain: &TrustDomain) -> Result<Root, String> {
    let (certificate, private_key) = paths(directory, number);
    let failed = |error: rcgen::Error| format!("a root cannot be made: {error}");
    let key = KeyPair::generate().map_err(failed)?;
    let now = SystemTime::now();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, format!("{domain} root {number}"));
    let uri = format!("spiffe://{domain}").try_into().map_err(failed)?;
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::from(now - SKEW);
    params.not_after = OffsetDateTime::from(now + ROOT_LIFE);
    let signed = params.self_signed(&key).map_err(failed)?;
    // The key first: without its certificate it is nothing yet.
    let mut fresh = fs::OpenOptions::new();
    fresh.write(true).create(true).truncate(true).mode(0o600);
    write(&private_key, &key.serialize_pem(), &fresh)?;
    write(&certificate, &signed.pem(), fs::OpenOptions::new().write(true).create_new(true).mode(0o644))?;
    let issuer = Issuer::from_ca_cert_der(signed.der(), key).map_err(failed)?;
    Ok(Root { certificate: signed.der().clone(), pem: signed.pem(), issuer: Some(issuer), made: now })
}

fn write(path: &Path, text: &str, how: &fs::OpenOptions) -> Result<(), String> {
    let file = how.open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(|error| at(path, error))
}

#[cfg(test)]
mod tests {
    use outrigger_proto::model::Attest;

    use super::*;

    /// Found at the start, and not by everybody who gets a certificate.
    #[test]
    fn a_key_is_its_certificates() {
        let directory = std::env::temp_dir().join(format!("outrigger-ca-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let domain = TrustDomain::new("mesh.test").unwrap();
        let opened = |certificate: usize, key: usize| {
            let files = RootFiles {
                certificate: directory.join(format!("root-{certificate}.crt")),
                private_key: directory.join(format!("root-{key}.key")),
            };
            let (lifetime, attest) = (Settings::LIFETIME, Attest::default());
            let settings = Settings { trust_domain: domain.clone(), root: Some(files), lifetime, attest };
            Authority::open(&settings, &directory)
        };
        for number in 1..=2 {
            make(&directory, number, &domain).unwrap();
        }
        assert!(opened(1, 1).is_ok());
        let error = opened(1, 2).unwrap_err();
        assert!(error.ends_with("root-1.crt: the private key does not belong to the certificate"), "{error}");
        // Also of those that were made here.
        assert_eq!(made(&directory).unwrap().len(), 2);
        fs::copy(directory.join("root-1.key"), directory.join("root-2.key")).unwrap();
        let error = made(&directory).unwrap_err();
        assert!(error.ends_with("root-2.crt: the private key does not belong to the certificate"), "{error}");
        fs::remove_dir_all(&directory).unwrap();
    }
}
