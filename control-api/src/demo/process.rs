//! A process of the demonstration, with its log in a file that somebody may read. It ends when its value does.

use std::fmt::Display;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Lines of a log that are shown where something is wrong.
const SHOWN: usize = 5;

/// See the module.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program run FILE` in a directory; its log goes to `log`.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn run(program: &Path, file: &Path, log: PathBuf) -> Result<Self, String> {
        let failed = |error: &dyn Display| format!("{} cannot be started: {error}", program.display());
        let errors = File::create(&log).map_err(|error| failed(&error))?;
        let output = errors.try_clone().map_err(|error| failed(&error))?;
        let mut command = Command::new(program);
        command.arg("run").arg(file).stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        // What is set for others would change what is shown: another level of the log, a cache, a name.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OUTRIGGER_") {
                command.env_remove(name);
            }
        }
        let child = command.spawn().map_err(|error| failed(&error))?;
        Ok(Self { child, log })
    }

    /// The address behind `marker` in the last line of its log that has it, once there is one.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn address(&mut self, marker: &str) -> Result<Option<SocketAddr>, String> {
        let ended = self.child.try_wait().map_err(|error| error.to_string())?;
        let log = self.log();
        match (found(&log, marker), ended) {
            (Some(address), _) => Ok(Some(address)),
            (None, None) => Ok(None),
            (None, Some(status)) => Err(format!("{} ended ({status}); its log:\n{}", self.name(), end(&log))),
        }
    }

    fn name(&self) -> String {
        let stem = self.log.file_stem().unwrap_or_default().to_string_lossy();
        if stem == "control" { "the control plane".to_owned() } else { format!("the proxy of {stem}") }
    }

    /// What it has written.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last of what it has written.
    pub(super) fn last_words(&self) -> String {
        end(&self.log())
    }

    /// Sends a signal.
    pub(super) fn signal(&self, signal: Signal) {
        // It may be gone already.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn found(log: &str, marker: &str) -> Option<SocketAddr> {
    let (_, behind) = log.lines().rev().find_map(|line| line.split_once(marker))?;
    behind.split_whitespace().next()?.trim_matches('"').parse().ok()
}

fn end(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].iter().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_from_the_last_line_that_says_it() {
        let log = "INFO listening listener=web address=127.0.0.1:1\nINFO admin listening address=127.0.0.1:2\n\
                   INFO listening listener=web address=127.0.0.1:3 more\n";
        assert_eq!(found(log, " listening listener=web address="), Some(([127, 0, 0, 1], 3).into()));
        assert_eq!(found(log, " listening listener=we address="), None);
        assert_eq!(end("a\nb\nc\nd\ne\nf\n").lines().next(), Some("    b"));
    }
}
