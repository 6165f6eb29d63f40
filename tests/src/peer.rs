//! Programs that are not ours: found, run, and where one is missing the test says so.

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;

use crate::wait::within;

/// Names the Python of an environment that holds peers as well; `tests/run` sets it.
const PYTHON: &str = "OUTRIGGER_PEERS_PYTHON";

/// A program.
#[derive(Clone, Debug)]
pub struct Peer(PathBuf);

/// What a program did.
#[derive(Debug)]
pub struct Ran {
    /// Whether it ended well.
    pub success: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// The program of this name. `None`, and a line that says so, when it is not installed: the test has nothing to do.
///
/// # Panics
/// It is not installed, and `CI` is `true`.
pub fn peer(name: &str) -> Option<Peer> {
    if let Some(path) = find(name) {
        return Some(Peer(path));
    }
    skip(&format!("{name} is not installed"));
    None
}

/// Says that a test is skipped, and why.
///
/// # Panics
/// `CI` is `true`.
pub fn skip(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}, and CI needs it");
    // Not by a macro, whose output is kept back when a test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = std::env::var_os(PYTHON).and_then(|python| Some(PathBuf::from(python).parent()?.to_owned()));
    // Behind those of the machine: some of what stands there is a library's.
    let mut dirs = std::env::split_paths(&path).chain(beside).map(|dir| dir.join(name));
    dirs.find(|path| path.is_file())
}

impl Peer {
    /// Where it is.
    pub fn path(&self) -> &PathBuf {
        &self.0
    }

    /// Runs it to its end.
    pub async fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ran {
        self.run_with(args, b"").await
    }

    /// Runs it to its end, with this standard input.
    pub async fn run_with<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>, stdin: &[u8]) -> Ran {
        use std::process::Stdio;
        use tokio::io::AsyncWriteExt;
        let mut command = tokio::process::Command::new(&self.0);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        // It may have read enough before it has read all.
        let _ = child.stdin.take().unwrap().write_all(stdin).await;
        let output = within("the peer ends", child.wait_with_output()).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { success: output.status.success(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ran {
    /// Its standard output; panics unless it ended well.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.success, "the peer failed:\n{}\n{}", self.stdout, self.stderr);
        self.stdout
    }
}
