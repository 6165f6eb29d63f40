//! The proxy under test: the real binary, as a process with a configuration of its own.
//!
//! Where it listens is read from its log, as whoever lets it choose ports has to.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};

use crate::dir::Dir;
use crate::process::{self, Process};
use crate::wait::{PATIENCE, until};
use crate::wire::{Client, Reply};

/// Environment variable that names the binary.
const BINARY: &str = "OUTRIGGER_BIN";

/// The binary under test.
///
/// # Panics
/// There is none.
pub fn binary() -> PathBuf {
    process::binary("outrigger", BINARY)
}

/// Runs the command line to its end.
pub fn outrigger(args: &[&str], stdin: &str) -> std::process::Output {
    outrigger_with(args, stdin, &[])
}

/// The same, with these variables in its environment.
pub fn outrigger_with(args: &[&str], stdin: &str, env: &[(&str, &str)]) -> std::process::Output {
    use std::io::Write;
    let mut child = Command::new(binary())
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have read enough before it has read all.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    process: Process,
    file: PathBuf,
    dir: Arc<Dir>,
}

impl Proxy {
    /// Starts it with this configuration and waits until it is ready. Without a word about `admin` it gets a free
    /// port there.
    pub async fn start(config: &str) -> Self {
        Self::start_in(Arc::new(Dir::new()), config).await
    }

    /// The same, in a directory that holds other files already.
    pub async fn start_in(dir: Arc<Dir>, config: &str) -> Self {
        let file = dir.write("outrigger.yaml", &with_admin(config));
        let proxy = Self::spawn(dir, &file, &[]);
        proxy.wait_ready().await;
        proxy
    }

    /// Starts it with this configuration, and waits until it is ready; beside it `next.yaml` of its directory is on trial.
    pub async fn start_with_trial(config: &str, next: &str) -> Self {
        let dir = Arc::new(Dir::new());
        let file = dir.write("outrigger.yaml", &with_admin(config));
        let next = dir.write("next.yaml", next);
        let mut command = Command::new(binary());
        command.arg("run").arg(&file).arg("--shadow").arg(next);
        let proxy = Self::run(command, dir, &file);
        proxy.wait_ready().await;
        proxy
    }

    /// Starts it with this file, and waits for nothing.
    pub fn spawn(dir: Arc<Dir>, file: &Path, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary());
        command.arg("run").arg(file).envs(env.iter().copied());
        Self::run(command, dir, file)
    }

    /// Starts it without a file, and waits for nothing.
    pub fn spawn_without_file(env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary());
        command.arg("run").envs(env.iter().copied());
        Self::run(command, Arc::new(Dir::new()), Path::new(""))
    }

    /// Starts it where it may have so many descriptors, and waits until it is ready.
    pub async fn start_with_descriptors(most: u32, config: &str) -> Self {
        let dir = Arc::new(Dir::new());
        let file = dir.write("outrigger.yaml", &with_admin(config));
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {most}; exec \"$0\" run \"$1\"");
        command.arg("-c").arg(script).arg(binary()).arg(&file);
        let proxy = Self::run(command, dir, &file);
        proxy.wait_ready().await;
        proxy
    }

    fn run(command: Command, dir: Arc<Dir>, file: &Path) -> Self {
        Self { process: Process::spawn("the proxy", command), file: file.to_owned(), dir }
    }

    async fn wait_ready(&self) {
        until("the proxy is ready", async || {
            if let Some(status) = self.exited() {
                panic!("the proxy ended with {status}:\n{}", self.log());
            }
            let admin = self.find_admin()?;
            let reply = Client::try_connect(admin).await?.try_get("/ready").await?;
            (reply.status == 200).then_some(())
        })
        .await;
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid().as_raw_nonzero().get().unsigned_abs()
    }

    /// Its directory.
    pub fn dir(&self) -> &Arc<Dir> {
        &self.dir
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.process.stdout()
    }

    /// Waits until its log holds this.
    pub async fn wait_log(&self, text: &str) {
        self.process.wait_log(text).await;
    }

    /// Where the listener of this name listens.
    pub fn address(&self, listener: &str) -> SocketAddr {
        let marker = format!(" listening listener={listener} address=");
        let found = self.process.wait_address(&marker);
        found.unwrap_or_else(|| panic!("no listener {listener} in:\n{}", self.log()))
    }

    /// Where admin listens.
    pub fn admin(&self) -> SocketAddr {
        self.find_admin().expect("admin listens")
    }

    fn find_admin(&self) -> Option<SocketAddr> {
        self.process.address(" admin listening address=")
    }

    /// A raw connection to a listener.
    pub async fn client(&self, listener: &str) -> Client {
        Client::connect(self.address(listener)).await
    }

    /// One GET to a listener, on a connection of its own.
    pub async fn get(&self, listener: &str, path: &str) -> Reply {
        self.client(listener).await.get(path).await
    }

    /// One GET to admin.
    pub async fn ask(&self, path: &str) -> Reply {
        Client::connect(self.admin()).await.get(path).await
    }

    /// One GET to admin that answers JSON.
    pub async fn ask_json(&self, path: &str) -> serde_json::Value {
        let reply = self.ask(path).await;
        serde_json::from_slice(&reply.body)
            .unwrap_or_else(|error| panic!("{path}: {error}: {}", reply.text()))
    }

    /// The value of a series, as `name{label="value"}` is written; 0 when it is not there.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.ask("/metrics").await.text();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a series is as it should be.
    pub async fn wait_metric(&self, series: &str, good: impl Fn(f64) -> bool) {
        let mut seen = 0.0;
        let end = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < end {
            seen = self.metric(series).await;
            if good(seen) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{series} stays at {seen}");
    }

    /// The version of the configuration in force.
    pub async fn version(&self) -> u64 {
        self.ask_json("/config").await["version"].as_u64().unwrap()
    }

    /// Writes another configuration in place of the one it runs with; it is found without being told.
    pub fn rewrite(&self, config: &str) {
        let name = self.file.file_name().unwrap().to_str().unwrap();
        self.dir.write(name, &with_admin(config));
    }

    /// Brings another configuration into force, by SIGHUP, and waits until it is.
    pub async fn reload(&self, config: &str) {
        let before = self.version().await;
        self.rewrite(config);
        self.signal(Signal::HUP);
        until("the new configuration is in force", async || (self.version().await > before).then_some(()))
            .await;
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// From now on it may have so many descriptors.
    pub fn limit_descriptors(&self, most: u64) {
        // It has inherited ours.
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: Some(most), maximum };
        prlimit(Some(self.process.pid()), Resource::Nofile, limit).unwrap();
    }

    /// How it ended, if it has.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.process.exited()
    }

    /// Waits until it has ended.
    pub async fn exit(&self, patience: Duration) -> ExitStatus {
        self.process.exit(patience).await
    }
}

/// Adds a free port for admin, and two workers, unless the configuration says otherwise.
pub fn with_admin(config: &str) -> String {
    let says = |key: &str| config.lines().any(|line| line.starts_with(key));
    let mut head = String::new();
    if !says("admin:") {
        head.push_str("admin: 127.0.0.1:0\n");
    }
    if !says("workers:") {
        head.push_str("workers: 2\n");
    }
    head + config
}
