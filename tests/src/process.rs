//! A program of ours as a process: killed when dropped, its log printed if the test fails.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{PATIENCE, until, until_for};

/// The binary of this name: that which `variable` names, or the one that cargo made.
///
/// # Panics
/// There is none.
pub fn binary(name: &str, variable: &str) -> PathBuf {
    let beside = || {
        // `target/debug/NAME`, seen from `target/debug/deps/it-...`.
        let own = std::env::current_exe().unwrap();
        own.ancestors().nth(2).unwrap().join(name)
    };
    let path = std::env::var_os(variable).map_or_else(beside, PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not there: run `cargo build -p {name}`, or name the binary in {variable}; `tests/run` does both",
        path.display()
    );
    path
}

/// See the module.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Mutex<Child>,
    pid: Pid,
    log: Text,
    stdout: Text,
}

/// What a process has written to a pipe so far; who waits for more is told.
#[derive(Clone, Debug, Default)]
struct Text(Arc<(Mutex<String>, Condvar)>);

impl Text {
    fn get(&self) -> String {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits until `find` finds something. The thread that reads the pipe may be behind what the process has done.
    fn wait<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (text, more) = &*self.0;
        let text = text.lock().unwrap();
        let (text, _) = more.wait_timeout_while(text, PATIENCE, |text| find(text).is_none()).unwrap();
        find(&text)
    }
}

impl Process {
    /// Starts it, and waits for nothing.
    pub fn spawn(name: &'static str, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = collect(child.stderr.take().unwrap());
        let stdout = collect(child.stdout.take().unwrap());
        let pid = Pid::from_child(&child);
        Self { name, child: Mutex::new(child), pid, log, stdout }
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        self.log.get()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.get()
    }

    /// Waits until its log holds this.
    pub async fn wait_log(&self, text: &str) {
        until(&format!("the log says {text:?}"), async || self.log().contains(text).then_some(())).await;
    }

    /// The address behind `marker` in the last line of its log that has it, once there is one.
    pub fn wait_address(&self, marker: &str) -> Option<SocketAddr> {
        self.log.wait(|log| address(log, marker))
    }

    /// The same, if there is one now.
    pub fn address(&self, marker: &str) -> Option<SocketAddr> {
        address(&self.log(), marker)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// How it ended, if it has.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    /// Waits until it has ended.
    pub async fn exit(&self, patience: Duration) -> ExitStatus {
        until_for(patience, &format!("{} ends", self.name), async || self.exited()).await
    }

    /// Ends it at once, and waits until it has.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}---", self.name, self.log());
        }
    }
}

fn address(log: &str, marker: &str) -> Option<SocketAddr> {
    let line = log.lines().rfind(|line| line.contains(marker) && !line.contains("no longer"))?;
    let (_, address) = line.split_once(marker)?;
    address.split_whitespace().next()?.trim_matches('"').parse().ok()
}

/// Reads to the end in a thread of its own, so that the process never waits for us.
fn collect(from: impl Read + Send + 'static) -> Text {
    let text = Text::default();
    let into = text.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let (text, more) = &*into.0;
            let mut text = text.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
            more.notify_all();
        }
    });
    text
}
