//! What stands in files, read again whenever these change: certificates lapse while the process lives.
//!
//! They are looked at, not listened to, as a directory of documents is ([`crate::directory`]).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use std::{fmt, iter};

use arc_swap::ArcSwap;
use outrigger_proto::model::PlaneTls;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use tokio::time::sleep;
use zeroize::Zeroizing;

use crate::ca::Life;
use crate::events::Happened;
use crate::pem::{at, certificates, labelled};
use crate::plane::Plane;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What is read out of files.
pub(crate) struct Watched<T> {
    files: Box<[PathBuf]>,
    read: Box<dyn Fn() -> Result<T, String> + Send + Sync>,
    now: ArcSwap<T>,
    last: Mutex<Last>,
}

/// What came of the last look at the files.
struct Last {
    seen: Fingerprint,
    /// Why what was there then is not used.
    failure: Option<String>,
}

/// Tells one state of the files from another: those of Kubernetes are links, which are followed.
type Fingerprint = Box<[Option<(u64, u64, [i64; 4])>]>;

/// It may hold a key.
impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("files", &self.files).finish_non_exhaustive()
    }
}

impl<T> Watched<T> {
    /// Reads it; the first file is the one that it is known by.
    ///
    /// # Errors
    /// What `read` says.
    pub(crate) fn open(
        files: impl Into<Box<[PathBuf]>>,
        read: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let files = files.into();
        // Before they are read: what is written meanwhile is seen at the first look.
        let last = Mutex::new(Last { seen: fingerprint(&files), failure: None });
        Ok(Self { now: ArcSwap::from_pointee(read()?), files, read: Box::new(read), last })
    }

    /// What was good of it last.
    pub(crate) fn now(&self) -> Arc<T> {
        self.now.load_full()
    }

    /// Reads it again where the files are not as they were, or could not be read then. `Err` says what is wrong, once.
    pub(crate) fn refresh(&self) -> Result<Look, String> {
        let mut last = self.last();
        let now = fingerprint(&self.files);
        if now == last.seen && last.failure.is_none() {
            return Ok(Look::Same);
        }
        last.seen = now;
        match (self.read)() {
            Ok(read) => {
                last.failure = None;
                self.now.store(Arc::new(read));
                Ok(Look::Other)
            }
            // Two files are not changed at once: with the other one it may be right.
            Err(error) if last.failure.as_ref() != Some(&error) => {
                last.failure = Some(error.clone());
                Err(error)
            }
            Err(_) => Ok(Look::Same),
        }
    }

    /// That it lapses soon, or has, where there is no other; `whose` it is stands in the event.
    pub(crate) fn lapse(&self, whose: &str, life: Life, now: SystemTime) -> Option<Happened> {
        if now < life.not_after - life.notice() {
            return None;
        }
        let not_replaced = || format!("{} was not replaced", self.file().display());
        let why = self.last().failure.clone().unwrap_or_else(not_replaced);
        Some(Happened::Expiring {
            whose: whose.to_owned(),
            serial: life.serial,
            not_after: life.not_after,
            node: None,
            why: format!("{why}; what replaces it is used without a restart"),
        })
    }

    /// The one that it is known by.
    pub(crate) fn file(&self) -> &Path {
        self.files.first().map_or(Path::new(""), PathBuf::as_path)
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is as it was.
    Same,
    /// There is another in its place.
    Other,
}

/// What is kept as its files are.
pub(crate) trait Kept: Send + Sync {
    /// Reads it again where its files have changed, and says what came of that.
    fn refresh(&self);

    /// That it lapses soon, or has.
    fn lapse(&self, now: SystemTime) -> Option<Happened>;
}

/// Keeps all of them as their files are, and says of each that it lapses, and when it has, for ever.
pub(crate) async fn keep(all: Vec<Arc<dyn Kept>>, plane: Arc<Plane>) {
    let mut said: Vec<_> = iter::repeat_n(None, all.len()).collect();
    let all: Arc<[_]> = all.into();
    loop {
        let now = SystemTime::now();
        for (kept, said) in all.iter().zip(&mut said) {
            if let Some(lapse) = kept.lapse(now)
                && let Happened::Expiring { whose, serial, not_after, .. } = &lapse
            {
                let what = Some((serial.clone(), *not_after <= now));
                if *said != what {
                    tracing::warn!(whose, "a certificate lapses");
                    *said = what;
                    plane.note(lapse);
                }
            }
        }
        sleep(LOOK_EVERY).await;
        let again = Arc::clone(&all);
        if tokio::task::spawn_blocking(move || again.iter().for_each(|kept| kept.refresh())).await.is_err() {
            return;
        }
    }
}

fn fingerprint(files: &[PathBuf]) -> Fingerprint {
    let of = |path: &PathBuf| {
        let meta = fs::metadata(path).ok()?;
        // Whose it is, and who may read it, changes no other time.
        let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        Some((meta.ino(), meta.len(), times))
    };
    files.iter().map(of).collect()
}

/// A certificate and its key, which belong together, and that key as PEM: whatever else is in its file is told to nobody.
///
/// # Errors
/// A file cannot be read, or is not what it should be.
pub(crate) fn certificate(files: &PlaneTls) -> Result<(CertifiedKey, Zeroizing<String>), String> {
    let PlaneTls { certificate, private_key } = files;
    let chain = certificates(certificate)?;
    let text = fs::read(private_key).map(Zeroizing::new).map_err(|error| at(private_key, error))?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| at(private_key, error))?;
    let key = Zeroizing::new(key);
    let label = match &*key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    let text = labelled(label, key.secret_der());
    let both = CertifiedKey::from_der(chain, key.clone_key(), &aws_lc_rs::default_provider());
    Ok((both.map_err(|error| at(certificate, error))?, text))
}
