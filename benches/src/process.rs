//! Programs that we start, and that must be gone when we are.
//!
//! Each stands in a process group of its own: nginx forks, and a group ends as one. The guard ends it on
//! every way out of a scope, panics included; a watcher ends all of them on a signal.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::error::{Doing, Failure, Result};

/// How often a waiting loop looks again.
const POLL: Duration = Duration::from_millis(2);

/// How long a program may take to end by itself, so that a master can still collect its workers.
const LEAVING: Duration = Duration::from_millis(500);

/// The groups that are alive. Starting and signalling both hold the lock, so none slips between them.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn groups() -> MutexGuard<'static, Vec<Pid>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A started program. Dropping it ends its process group.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    group: Pid,
    log: PathBuf,
    name: String,
}

impl Running {
    /// Starts `command` with its output in the file `log`.
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let name = Path::new(command.get_program())
            .file_name()
            .map_or_else(|| "?".to_owned(), |name| name.to_string_lossy().into_owned());
        let out = File::create(log).doing(log.display())?;
        let err = out.try_clone().doing(log.display())?;
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let mut alive = groups();
        let child = command.spawn().doing(format_args!("starting {name}"))?;
        let group = Pid::from_child(&child);
        alive.push(group);
        Ok(Self { child, group, log: log.to_owned(), name })
    }

    /// The process group, which is also the id of its first process.
    pub(crate) fn group(&self) -> Pid {
        self.group
    }

    /// Waits for its end, at most `limit`; a status other than 0 is a failure. Returns what it printed.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait().doing(format_args!("waiting for {}", self.name))? {
                Some(status) if status.success() => return Ok(self.output()),
                Some(status) => return Err(self.complaint(&format!("ended with {status}"))),
                None if Instant::now() > deadline => {
                    return Err(self.complaint(&format!("still running after {limit:?}")));
                }
                None => thread::sleep(POLL),
            }
        }
    }

    /// Asks it to end, and waits for that as [`Self::finish`] does.
    pub(crate) fn leave(self, limit: Duration) -> Result<String> {
        let _already_gone = kill_process_group(self.group, Signal::TERM);
        self.finish(limit)
    }

    /// Ends it at once.
    pub(crate) fn kill(self) {
        let _already_gone = kill_process_group(self.group, Signal::KILL);
    }

    /// Asks `ready` again and again until it agrees, at most `limit`. Fails early when the program ends.
    pub(crate) fn until(&mut self, limit: Duration, ready: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !ready() {
            if let Some(status) = self.child.try_wait().doing(format_args!("waiting for {}", self.name))? {
                return Err(self.complaint(&format!("ended with {status} before it was ready")));
            }
            if Instant::now() > deadline {
                return Err(self.complaint(&format!("not ready after {limit:?}")));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// `failure`, and what the program printed last, which often says why.
    pub(crate) fn explain(&self, failure: &Failure) -> Failure {
        match self.last_words() {
            words if words.is_empty() => failure.clone(),
            words => Failure::new(format!("{failure} ({}: {words})", self.name)),
        }
    }

    fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn last_words(&self) -> String {
        let output = self.output();
        let mut last: Vec<&str> = output.lines().rev().take(3).collect();
        last.reverse();
        last.join(" / ")
    }

    /// `what` happened, and the last words of the program.
    fn complaint(&self, what: &str) -> Failure {
        Failure::new(format!("{} {what}: {}", self.name, self.last_words()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _already_gone = kill_process_group(self.group, Signal::TERM);
        let deadline = Instant::now() + LEAVING;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        let mut alive = groups();
        let _already_gone = kill_process_group(self.group, Signal::KILL);
        alive.retain(|group| *group != self.group);
        drop(alive);
        let _already_gone = self.child.wait();
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP end everything started here, then this program.
pub(crate) fn end_with_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .doing("starting the watcher of signals")?;
    let mut signals = {
        let _context = runtime.enter();
        let of = |kind| signal(kind).doing("watching for signals");
        [of(SignalKind::interrupt())?, of(SignalKind::terminate())?, of(SignalKind::hangup())?]
    };
    thread::spawn(move || {
        runtime.block_on(async {
            let [interrupt, terminate, hangup] = &mut signals;
            let _either = std::future::poll_fn(|cx| {
                let any = [interrupt.poll_recv(cx), terminate.poll_recv(cx), hangup.poll_recv(cx)];
                any.into_iter().find(std::task::Poll::is_ready).unwrap_or(std::task::Poll::Pending)
            })
            .await;
        });
        // Held to the end: nothing may start any more.
        let alive = groups();
        for group in alive.iter() {
            let _already_gone = kill_process_group(*group, Signal::KILL);
        }
        std::process::exit(130);
    });
    Ok(())
}
