//! A directory of documents, taken over whenever it changes.
//!
//! It is looked at, not listened to, as the proxy looks at its file: that works on every file system, and with the symbolic
//! links by which Kubernetes changes a mounted ConfigMap.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::events::Happened;
use crate::plane::{ChangeError, Plane};
use crate::store::StoreError;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What a file looks like: another, or changed, looks otherwise.
type Look = (u64, u64, u64, i64, i64);

/// Reads the documents, by file name. Hidden files, and such that do not end in `.yaml` or `.yml`, are no documents.
///
/// # Errors
/// The directory, or a document, cannot be read.
pub fn read(directory: &Path) -> io::Result<BTreeMap<String, String>> {
    let documents = files(directory)?.into_iter().map(|(name, path)| {
        let text = fs::read_to_string(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok((name, text))
    });
    documents.collect()
}

/// Takes over what changes, for ever. What is wrong is said once, and what was right goes on.
pub async fn watch(directory: PathBuf, plane: Arc<Plane>) {
    let mut seen = None;
    loop {
        let look = look(&directory).ok();
        if seen.as_ref() != Some(&look) {
            let (directory, plane) = (directory.clone(), Arc::clone(&plane));
            // What could not be looked at is looked at again.
            match tokio::task::spawn_blocking(move || take_over(&directory, &plane)).await {
                Ok(true) => seen = Some(look),
                Ok(false) => {}
                Err(_) => return,
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether it was looked at, good or not.
fn take_over(directory: &Path, plane: &Plane) -> bool {
    let why = match read(directory).map(|documents| plane.take_over(&documents)) {
        Ok(Ok(())) => return true,
        // Whoever asks it says so.
        Ok(Err(ChangeError::Store(StoreError::Away(_)))) => return false,
        Ok(Err(ChangeError::Store(error))) => {
            tracing::error!(%error, "the directory is not taken over");
            return false;
        }
        Ok(Err(error)) => error.to_string(),
        Err(error) => format!("{}: {error}", directory.display()),
    };
    for line in why.lines() {
        tracing::error!("refused: {line}; the last good revision stays");
    }
    plane.note(Happened::Refused { author: "directory".to_owned(), why });
    true
}

fn files(directory: &Path) -> io::Result<BTreeMap<String, PathBuf>> {
    let mut out = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let is_document = path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
        if let Some(name) = name.filter(|name| is_document && !name.starts_with('.')) {
            out.insert(name, path);
        }
    }
    Ok(out)
}

fn look(directory: &Path) -> io::Result<Vec<(String, Look)>> {
    let looks = files(directory)?.into_iter().map(|(name, path)| {
        let meta = fs::metadata(path)?;
        Ok((name, (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec())))
    });
    looks.collect()
}
