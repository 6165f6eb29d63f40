//! The certificate that is shown to nodes and to people, read again whenever its files change: it lapses while the process
//! lives.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use outrigger_proto::model::PlaneTls;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::sleep;

use crate::ca::Life;
use crate::events::Happened;
use crate::plane::Plane;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What it is called in events.
const NAME: &str = "outrigger-control";

/// See the module.
#[derive(Debug)]
pub struct Shown {
    files: PlaneTls,
    key: ArcSwap<CertifiedKey>,
    last: Mutex<Last>,
}

/// What came of the last look at the files.
#[derive(Debug)]
struct Last {
    seen: Fingerprint,
    /// Why what was there then is not shown.
    failure: Option<String>,
}

/// Tells one state of the files from another: those of Kubernetes are links, which are followed.
type Fingerprint = [Option<(u64, u64, [i64; 4])>; 2];

impl Shown {
    /// Reads it.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it should be.
    pub fn open(files: &PlaneTls) -> Result<Arc<Self>, String> {
        // Before they are read: what is written meanwhile is seen at the first look.
        let last = Mutex::new(Last { seen: fingerprint(files), failure: None });
        Ok(Arc::new(Self { key: ArcSwap::from_pointee(read(files)?), files: files.clone(), last }))
    }

    /// Reads it again where the files are not as they were, or could not be read then.
    fn refresh(&self) {
        let mut last = self.last();
        let now = fingerprint(&self.files);
        if now == last.seen && last.failure.is_none() {
            return;
        }
        last.seen = now;
        match read(&self.files) {
            Ok(key) => {
                last.failure = None;
                self.key.store(Arc::new(key));
                tracing::info!(file = %self.files.certificate.display(), "another certificate is shown from now on");
            }
            // Two files are not changed at once: with the other one it may be right. Said once.
            Err(error) if last.failure.as_ref() != Some(&error) => {
                tracing::error!(error, "the certificate that is shown stays as it was");
                last.failure = Some(error);
            }
            Err(_) => {}
        }
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That it lapses soon, or has, where there is no other.
    fn lapse(&self, now: SystemTime) -> Option<Happened> {
        let life = Life::of(self.key.load().cert.first()?)?;
        if now < life.not_after - life.notice() {
            return None;
        }
        let file = self.files.certificate.display();
        let why = self.last().failure.clone().unwrap_or_else(|| format!("{file} was not replaced"));
        Some(Happened::Expiring {
            whose: NAME.to_owned(),
            serial: life.serial,
            not_after: life.not_after,
            node: None,
            why: format!("{why}; what replaces it is shown without a restart"),
        })
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.load_full())
    }
}

/// Keeps it as its files are, and says of each that it lapses, and when it has, for ever.
pub async fn keep(shown: Arc<Shown>, plane: Arc<Plane>) {
    let mut said = None;
    loop {
        let now = SystemTime::now();
        if let Some(lapse) = shown.lapse(now)
            && let Happened::Expiring { serial, not_after, .. } = &lapse
        {
            let what = Some((serial.clone(), *not_after <= now));
            if said != what {
                tracing::warn!(file = %shown.files.certificate.display(), "the certificate that is shown lapses");
                said = what;
                plane.note(lapse);
            }
        }
        sleep(LOOK_EVERY).await;
        let again = Arc::clone(&shown);
        if tokio::task::spawn_blocking(move || again.refresh()).await.is_err() {
            return;
        }
    }
}

fn fingerprint(PlaneTls { certificate, private_key }: &PlaneTls) -> Fingerprint {
    [certificate, private_key].map(|path| {
        let meta = fs::metadata(path).ok()?;
        // Whose it is, and who may read it, changes no other time.
        let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        Some((meta.ino(), meta.len(), times))
    })
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
        let is_said = |seconds: i64| shown.lapse(at(seconds).into()).is_some();
        assert!(!is_said(749) && is_said(750) && is_said(1001));
        let first = shown.key.load_full();
        shown.refresh();
        assert!(Arc::ptr_eq(&first, &shown.key.load_full()));
        // Of another key.
        fs::write(&files.private_key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        shown.refresh();
        let Some(Happened::Expiring { why, .. }) = shown.lapse(at(999).into()) else { panic!("it lapses") };
        assert!(why.contains("tls.crt: ") && !why.contains("was not replaced"), "{why}");
        fs::remove_file(&files.certificate).unwrap();
        shown.refresh();
        assert!(Arc::ptr_eq(&first, &shown.key.load_full()));
        // Of years it is said a month before.
        let year = 365 * 24 * 3600;
        write(&files, year);
        shown.refresh();
        let month = 30 * 24 * 3600;
        assert!(!is_said(year - month - 1) && is_said(year - month));
        fs::remove_dir_all(directory).unwrap();
    }
}
