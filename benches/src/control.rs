//! Our control plane, as everybody here starts it and asks it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Pid;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::error::{Doing, Failure, Result};
use crate::net::{answers, free_port};
use crate::process::Running;

/// For a start, and for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at its nodes.
const LOOK: Duration = Duration::from_millis(100);

/// One that runs, with nothing kept from before.
#[derive(Debug)]
pub(crate) struct Control {
    running: Running,
    /// Where nodes ask.
    pub(crate) xds: u16,
    /// Its command line.
    pub(crate) asks: Asks,
}

/// The command line of a control plane, for whatever thread.
#[derive(Clone, Debug)]
pub(crate) struct Asks {
    program: PathBuf,
    /// What stands in it is its own.
    pub(crate) dir: PathBuf,
    /// Where people ask.
    pub(crate) api: u16,
}

/// One that was killed, and what it kept.
#[derive(Debug)]
pub(crate) struct Dead {
    xds: u16,
    asks: Asks,
}

impl Control {
    /// Starts it in a directory that is made anew.
    pub(crate) fn start(program: &Path, dir: &Path) -> Result<Self> {
        // What an earlier run has kept would be told.
        let _none_yet = fs::remove_dir_all(dir);
        fs::create_dir_all(dir).doing(dir.display())?;
        let dir = dir.canonicalize().doing(dir.display())?;
        let (xds, api) = (free_port()?, free_port()?);
        let settings = dir.join("control.yaml");
        let text = format!("xds: 127.0.0.1:{xds}\napi: 127.0.0.1:{api}\nstore: store\n");
        fs::write(&settings, text).doing(settings.display())?;
        Dead { xds, asks: Asks { program: program.to_owned(), dir, api } }.start()
    }

    /// Its process group.
    pub(crate) fn group(&self) -> Pid {
        self.running.group()
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) fn kill(self) -> Dead {
        let Self { running, xds, asks } = self;
        running.kill();
        Dead { xds, asks }
    }
}

impl Dead {
    /// Starts it again where it was.
    pub(crate) fn start(self) -> Result<Control> {
        let Self { xds, asks } = self;
        let mut command = Command::new(&asks.program);
        command.arg("run").arg(asks.dir.join("control.yaml"));
        let mut running = Running::start(command, &asks.dir.join("control.log"))?;
        running.until(PATIENCE, || answers(asks.api, "/ready"))?;
        Ok(Control { running, xds, asks })
    }
}

impl Asks {
    /// Runs the command line to its end, with its output in a file of this name; what it printed.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, args: &[A], log: &str) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(args).args(["--server", &format!("http://127.0.0.1:{}", self.api)]);
        command.arg("--token-file").arg(self.dir.join("store/admin.token"));
        Running::start(command, &self.dir.join(log))?.finish(PATIENCE)
    }

    /// Applies this document, in place of the one before.
    pub(crate) fn apply(&self, text: &str) -> Result<()> {
        let document = self.dir.join("mesh.yaml");
        fs::write(&document, text).doing(document.display())?;
        self.run(&[OsStr::new("apply"), document.as_os_str()], "apply.log").map(drop)
    }

    /// The same, while clients and services of this thread go on.
    pub(crate) async fn apply_beside(&self, text: String) -> Result<()> {
        let asks = self.clone();
        let applied = spawn_blocking(move || asks.apply(&text)).await;
        applied.map_err(|_| Failure::new("the change was not made"))?
    }

    /// Whether so many nodes have taken everything, waiting for it as long.
    pub(crate) async fn in_sync(&self, nodes: usize, patience: Duration) -> Result<bool> {
        let end = Instant::now() + patience;
        while Instant::now() < end {
            let asks = self.clone();
            let asked = spawn_blocking(move || asks.run(&["status", "--json"], "status.log")).await;
            let status = asked.map_err(|_| Failure::new("the control plane was not asked"))??;
            if status.matches("\"in_sync\": true").count() == nodes {
                return Ok(true);
            }
            sleep(LOOK).await;
        }
        Ok(false)
    }
}
