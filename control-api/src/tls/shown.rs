//! The certificate that is shown to nodes and to people, read again whenever its files change: it lapses while the process
//! lives.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use outrigger_proto::model::PlaneTls;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::sleep;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::events::Happened;
use crate::hex::hex;
use crate::plane::Plane;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// That it lapses is said no sooner than this before.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);
/// What it is called in events.
const NAME: &str = "outrigger-control";

/// See the module.
#[derive(Debug)]
pub struct Shown {
    files: PlaneTls,
    key: ArcSwap<CertifiedKey>,
}

/// Tells one state of the files from another: those of Kubernetes are links, which are followed.
type Fingerprint = [Option<(u64, u64, i64, i64)>; 2];

impl Shown {
    /// Reads it.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it should be.
    pub fn open(files: &PlaneTls) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self { key: ArcSwap::from_pointee(read(files)?), files: files.clone() }))
    }

    fn fingerprint(&self) -> Fingerprint {
        [&self.files.certificate, &self.files.private_key].map(|path| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
        })
    }

    /// Reads it again where the files are not as they were.
    fn refresh(&self, seen: &mut Fingerprint) {
        let now = self.fingerprint();
        if std::mem::replace(seen, now) == now {
            return;
        }
        match read(&self.files) {
            Ok(key) => {
                self.key.store(Arc::new(key));
                tracing::info!(file = %self.files.certificate.display(), "another certificate is shown from now on");
            }
            // Two files are not changed at once: with the other one it may be right.
            Err(error) => tracing::error!(error, "the certificate that is shown stays as it was"),
        }
    }

    /// That it lapses soon, or has, where there is no other.
    fn lapse(&self, now: SystemTime) -> Option<Happened> {
        let key = self.key.load();
        let (_, leaf) = X509Certificate::from_der(key.cert.first()?).ok()?;
        let [begin, end] = [leaf.validity().not_before, leaf.validity().not_after]
            .map(|time| SystemTime::from(time.to_datetime()));
        let life = end.duration_since(begin).unwrap_or_default();
        let file = self.files.certificate.display();
        (now >= end - (life / 4).min(MONTH)).then(|| Happened::Expiring {
            whose: NAME.to_owned(),
            serial: hex(leaf.raw_serial()),
            not_after: end,
            node: None,
            why: format!("{file} was not replaced; what replaces it is shown without a restart"),
        })
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.load_full())
    }
}

/// Keeps it as its files are, and says once of each that it lapses, for ever.
pub async fn keep(shown: Arc<Shown>, plane: Arc<Plane>) {
    let mut seen = shown.fingerprint();
    let mut said = None;
    loop {
        if let Some(lapse) = shown.lapse(SystemTime::now())
            && let Happened::Expiring { serial, .. } = &lapse
            && said.as_ref() != Some(serial)
        {
            tracing::warn!(file = %shown.files.certificate.display(), "the certificate that is shown lapses");
            said = Some(serial.clone());
            plane.note(lapse);
        }
        sleep(LOOK_EVERY).await;
        let again = Arc::clone(&shown);
        let looked = tokio::task::spawn_blocking(move || {
            again.refresh(&mut seen);
            seen
        });
        let Ok(now) = looked.await else { return };
        seen = now;
    }
}

fn read(PlaneTls { certificate, private_key }: &PlaneTls) -> Result<CertifiedKey, String> {
    let wrong = |path: &Path, error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| wrong(certificate, &error))?;
    let key = PrivateKeyDer::from_pem_file(private_key).map_err(|error| wrong(private_key, &error))?;
    let provider = aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| wrong(certificate, &error))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{CertificateParams, KeyPair};
    use time::OffsetDateTime;

    use super::*;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(1_700_000_000 + seconds)
    }

    /// Made anew, of so long a life.
    fn write(files: &PlaneTls, life: i64) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (at(0), at(life));
        fs::write(&files.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&files.private_key, key.serialize_pem()).unwrap();
    }

    fn files() -> (PathBuf, PlaneTls) {
        let directory = std::env::temp_dir().join(format!("outrigger-shown-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let [certificate, private_key] = ["tls.crt", "tls.key"].map(|name| directory.join(name));
        (directory, PlaneTls { certificate, private_key })
    }

    #[test]
    fn what_replaces_it_is_shown_and_what_is_wrong_is_not() {
        let (directory, files) = files();
        write(&files, 1000);
        let shown = Shown::open(&files).unwrap();
        let mut seen = shown.fingerprint();
        let is_said = |seconds: i64| shown.lapse(at(seconds).into()).is_some();
        assert!(!is_said(749) && is_said(750) && is_said(1001));
        let first = shown.key.load_full();
        shown.refresh(&mut seen);
        assert!(Arc::ptr_eq(&first, &shown.key.load_full()));
        // Of another key.
        fs::write(&files.private_key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        shown.refresh(&mut seen);
        fs::remove_file(&files.certificate).unwrap();
        shown.refresh(&mut seen);
        assert!(Arc::ptr_eq(&first, &shown.key.load_full()));
        // Of years it is said a month before.
        let year = 365 * 24 * 3600;
        write(&files, year);
        shown.refresh(&mut seen);
        let month = 30 * 24 * 3600;
        assert!(!is_said(year - month - 1) && is_said(year - month));
        fs::remove_dir_all(directory).unwrap();
    }
}
