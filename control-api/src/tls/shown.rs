//! The certificate that is shown to nodes and to people.

use std::sync::Arc;
use std::time::SystemTime;

use outrigger_proto::model::PlaneTls;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::ca::Life;
use crate::events::Happened;
use crate::watched::{Kept, Look, Watched, certificate};

/// What it is called in events.
const NAME: &str = "outrigger-control";

/// See the module.
#[derive(Debug)]
pub struct Shown(Watched<CertifiedKey>);

impl Shown {
    /// Reads it.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it should be.
    pub fn open(files: &PlaneTls) -> Result<Arc<Self>, String> {
        let (read, paths) = (files.clone(), [files.certificate.clone(), files.private_key.clone()]);
        let read = move || certificate(&read).map(|(both, _)| both);
        Watched::open(paths, read).map(Self).map(Arc::new)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.now())
    }
}

impl Kept for Shown {
    fn refresh(&self) {
        match self.0.refresh() {
            Ok(Look::Same) => {}
            Ok(Look::Other) => {
                tracing::info!(file = %self.0.file().display(), "another certificate is shown from now on");
            }
            Err(error) => tracing::error!(error, "the certificate that is shown stays as it was"),
        }
    }

    fn lapse(&self, now: SystemTime) -> Option<Happened> {
        let life = Life::of(self.0.now().cert.first()?)?;
        self.0.lapse(NAME, life, now)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
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
        let first = shown.0.now();
        shown.refresh();
        assert!(Arc::ptr_eq(&first, &shown.0.now()));
        // Of another key.
        fs::write(&files.private_key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        shown.refresh();
        let Some(Happened::Expiring { why, .. }) = shown.lapse(at(999).into()) else { panic!("it lapses") };
        assert!(why.contains("tls.crt: ") && !why.contains("was not replaced"), "{why}");
        fs::remove_file(&files.certificate).unwrap();
        shown.refresh();
        assert!(Arc::ptr_eq(&first, &shown.0.now()));
        // Of years it is said a month before.
        let year = 365 * 24 * 3600;
        write(&files, year);
        shown.refresh();
        let month = 30 * 24 * 3600;
        assert!(!is_said(year - month - 1) && is_said(year - month));
        fs::remove_dir_all(directory).unwrap();
    }
}
