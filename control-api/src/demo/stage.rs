//! What the acts share: the mesh, its traffic, who may tell them to end, and how it is all told.

use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::mesh::Mesh;
use super::traffic::{Seen, Traffic};

/// How often a line says what goes on.
const LINE: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// For what is to become true.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why it is over before its end.
#[derive(Debug)]
pub(super) enum End {
    /// It was told to end.
    Told,
    /// Something cannot be done, or did not happen.
    Failed(String),
}

impl From<String> for End {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// See the module.
pub(super) struct Stage {
    // Whoever asks goes before those who answer.
    traffic: Option<Traffic>,
    pub(super) mesh: Mesh,
    told_to_end: mpsc::Receiver<()>,
    /// When there was a line last, and what was seen by then.
    last: (Instant, Seen),
}

impl Stage {
    /// Nothing runs yet. The programs are ours and the proxy's.
    pub(super) fn new(
        programs: (PathBuf, PathBuf),
        directory: PathBuf,
        runtime: Handle,
        told_to_end: mpsc::Receiver<()>,
    ) -> Self {
        let mesh = Mesh::new(programs, directory, runtime);
        Self { mesh, traffic: None, told_to_end, last: (Instant::now(), Seen::default()) }
    }

    /// Begins to send requests.
    pub(super) fn start_traffic(&mut self) {
        let fronts = self.mesh.addresses().remove("front").unwrap_or_default();
        self.traffic = Some(Traffic::start(self.mesh.runtime(), fronts));
        self.last = (Instant::now(), Seen::default());
    }

    /// What the client has seen so far.
    pub(super) fn seen(&self) -> Seen {
        self.traffic.as_ref().map(Traffic::seen).unwrap_or_default()
    }

    /// The value that `look` comes to have.
    ///
    /// # Errors
    /// It has none in time; what else is wrong.
    pub(super) fn until<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&mut Self) -> Result<Option<T>, String>,
    ) -> Result<T, End> {
        let begun = Instant::now();
        loop {
            if let Some(value) = look(self)? {
                return Ok(value);
            }
            if begun.elapsed() >= PATIENCE {
                return Err(End::Failed(format!("not within {PATIENCE:?}: {what}")));
            }
            self.pause(LOOK)?;
        }
    }

    /// Lets it go on for a while.
    ///
    /// # Errors
    /// It was told to end.
    pub(super) fn watch(&mut self, time: Duration) -> Result<(), End> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.pause(LOOK)?;
        }
        Ok(())
    }

    fn pause(&mut self, time: Duration) -> Result<(), End> {
        match self.told_to_end.recv_timeout(time) {
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => return Err(End::Told),
        }
        if self.traffic.is_some() && self.last.0.elapsed() >= LINE {
            let seen = self.seen();
            let since = seen.since(&self.last.1);
            say(&format!("     {}{}", since.outcome(), since.shares()));
            self.last = (Instant::now(), seen);
        }
        Ok(())
    }

    /// What the processes said last.
    pub(super) fn logs(&self) -> String {
        self.mesh.last_words()
    }
}

/// A line.
pub(super) fn say(line: &str) {
    // A reader that has seen enough (`| head`) is no failure.
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
