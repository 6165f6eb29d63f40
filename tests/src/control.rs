//! The control plane under test: the real binary, as a process with a store of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use rustix::process::Signal;
use serde_json::Value;

use crate::dir::Dir;
use crate::process::{self, Process};
use crate::wait::{PATIENCE, until};

/// A running control plane.
#[derive(Debug)]
pub struct Control {
    process: Process,
    dir: Arc<Dir>,
}

/// The binary under test.
pub fn binary() -> PathBuf {
    process::binary("outrigger-control", "OUTRIGGER_CONTROL_BIN")
}

/// Runs its command line to its end.
pub fn outrigger_control(args: &[&str]) -> Output {
    Command::new(binary()).args(args).output().unwrap()
}

impl Control {
    /// Starts it on free ports, with these further settings, and documents for its directory.
    pub fn start(settings: &str, documents: &[(&str, &str)]) -> Self {
        let dir = Arc::new(Dir::new());
        std::fs::create_dir(dir.file("mesh")).unwrap();
        for (name, text) in documents {
            dir.write(&format!("mesh/{name}"), text);
        }
        Self::start_in(dir, "127.0.0.1:0", settings)
    }

    /// The same in a directory of its own from before, where nodes ask at this address.
    pub fn start_in(dir: Arc<Dir>, xds: &str, settings: &str) -> Self {
        Self::start_with(dir, xds, "store", settings)
    }

    /// The same with another store, whose directory is `store` too.
    pub fn start_with(dir: Arc<Dir>, xds: &str, store: &str, settings: &str) -> Self {
        let text = format!("xds: {xds}\napi: 127.0.0.1:0\nstore: {store}\ndocuments: mesh\n{settings}\n");
        let file = dir.write("control.yaml", &text);
        let mut command = Command::new(binary());
        command.arg("run").arg(file);
        Self { process: Process::spawn("the control plane", command), dir }
    }

    /// Its directory: `mesh` holds the documents, `store` what it keeps.
    pub fn dir(&self) -> &Arc<Dir> {
        &self.dir
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Where nodes ask.
    pub fn xds(&self) -> SocketAddr {
        self.process.wait_address(" listening for nodes (xDS) address=").expect("it listens for nodes")
    }

    /// Where people ask.
    pub fn api(&self) -> SocketAddr {
        self.process.wait_address(" listening for people (API) address=").expect("it listens for people")
    }

    /// Writes a document of its directory, as a deployment would.
    pub fn document(&self, name: &str, text: &str) {
        self.dir.write(&format!("mesh/{name}"), text);
    }

    /// The command line, asking this control plane with its first token.
    pub fn run(&self, args: &[&str]) -> Output {
        let server = format!("http://{}", self.api());
        let mut command = Command::new(binary());
        command.args(args).env("OUTRIGGER_CONTROL", server);
        command.env("OUTRIGGER_CONTROL_TOKEN_FILE", self.dir.file("store/admin.token"));
        command.output().unwrap()
    }

    /// The same, where nothing goes wrong; what it prints.
    ///
    /// # Panics
    /// It fails.
    pub fn ok(&self, args: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.run(args);
        assert!(status.success(), "{args:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    /// The same, as JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    /// What is shown of its nodes.
    pub fn status(&self) -> Value {
        self.json(&["status", "--json"])
    }

    /// Waits until so many nodes have all of this revision.
    pub async fn wait_in_sync(&self, nodes: usize, revision: u64) {
        let end = tokio::time::Instant::now() + PATIENCE;
        let mut seen = Value::Null;
        while tokio::time::Instant::now() < end {
            seen = self.status();
            let of = seen["nodes"].as_array().unwrap();
            if seen["revision"] == revision
                && of.len() == nodes
                && of.iter().all(|node| node["in_sync"] == true)
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("not {nodes} nodes in sync with revision {revision}: {seen:#}");
    }

    /// Waits until this revision is in force.
    pub async fn wait_revision(&self, revision: u64) {
        until(&format!("revision {revision}"), async || {
            (self.status()["revision"] == revision).then_some(())
        })
        .await;
    }

    /// The events so far, of this type.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let all = self.ok(&["events"]);
        let all = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|event| event["type"] == format!("dev.outrigger.{kind}")).collect()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }
}
