//! A directory that is gone when the test is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A directory of the test's own.
#[derive(Debug)]
pub struct Dir(PathBuf);

impl Default for Dir {
    fn default() -> Self {
        Self::new()
    }
}

impl Dir {
    /// An empty one, under a name short enough for unix sockets.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("outrigger-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file in one step, as editors and deployments do: nobody sees half of it.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let (path, fresh) = (self.file(name), self.file(&format!("{name}.fresh")));
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What a process that outlived the test still writes there is no failure of the test.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
