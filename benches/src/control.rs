//! Our control plane, as everybody here starts it and asks it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Pid;

use crate::error::{Doing, Result};
use crate::net::{answers, free_port};
use crate::process::Running;

/// For a start, and for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

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
        let mut command = Command::new(program);
        command.arg("run").arg(&settings);
        let mut running = Running::start(command, &dir.join("control.log"))?;
        running.until(PATIENCE, || answers(api, "/ready"))?;
        Ok(Self { running, xds, asks: Asks { program: program.to_owned(), dir, api } })
    }

    /// Its process group.
    pub(crate) fn group(&self) -> Pid {
        self.running.group()
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
}
