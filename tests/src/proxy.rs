//! The proxy under test: the real binary, as a process with a configuration of its own.
//!
//! Where it listens is read from its log, as whoever lets it choose ports has to.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use crate::dir::Dir;
use crate::wait::{PATIENCE, until, until_for};
use crate::wire::{Client, Reply};

/// Environment variable that names the binary.
const BINARY: &str = "OUTRIGGER_BIN";

/// The binary under test.
///
/// # Panics
/// There is none.
pub fn binary() -> PathBuf {
    let path = std::env::var_os(BINARY).map_or_else(beside, PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not there: run `cargo build -p outrigger`, or name the binary in {BINARY}; `tests/run` does both",
        path.display()
    );
    path
}

/// `target/debug/outrigger`, seen from `target/debug/deps/it-...`.
fn beside() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(2).unwrap().join("outrigger")
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

/// A running proxy; killed when dropped, its log printed if the test fails.
#[derive(Debug)]
pub struct Proxy {
    child: Mutex<Child>,
    pid: Pid,
    log: Text,
    stdout: Text,
    file: PathBuf,
    dir: Arc<Dir>,
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

    fn run(mut command: Command, dir: Arc<Dir>, file: &Path) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = collect(child.stderr.take().unwrap());
        let stdout = collect(child.stdout.take().unwrap());
        let pid = Pid::from_child(&child);
        Self { child: Mutex::new(child), pid, log, stdout, file: file.to_owned(), dir }
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
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Its directory.
    pub fn dir(&self) -> &Arc<Dir> {
        &self.dir
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

    /// Where the listener of this name listens.
    pub fn address(&self, listener: &str) -> SocketAddr {
        let marker = format!(" listening listener={listener} address=");
        let found = self.log.wait(|log| find(log, &marker));
        found.unwrap_or_else(|| panic!("no listener {listener} in:\n{}", self.log()))
    }

    /// Where admin listens.
    pub fn admin(&self) -> SocketAddr {
        self.find_admin().expect("admin listens")
    }

    fn find_admin(&self) -> Option<SocketAddr> {
        find(&self.log(), " admin listening address=")
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
        kill_process(self.pid, signal).unwrap();
    }

    /// From now on it may have so many descriptors.
    pub fn limit_descriptors(&self, most: u64) {
        // It has inherited ours.
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: Some(most), maximum };
        prlimit(Some(self.pid), Resource::Nofile, limit).unwrap();
    }

    /// How it ended, if it has.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    /// Waits until it has ended.
    pub async fn exit(&self, patience: Duration) -> ExitStatus {
        until_for(patience, "the proxy ends", async || self.exited()).await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the proxy ---\n{}---", self.log());
        }
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

/// The address behind `marker` in the last line that has it.
fn find(log: &str, marker: &str) -> Option<SocketAddr> {
    let line = log.lines().rfind(|line| line.contains(marker) && !line.contains("no longer"))?;
    let (_, address) = line.split_once(marker)?;
    address.split_whitespace().next()?.parse().ok()
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
