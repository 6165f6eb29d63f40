//! The proxy between programs and libraries that are not ours: what they take for granted is what it must do.

mod control;
mod csds;
mod curl;
mod envoy;
mod ext_authz;
mod few_streams;
mod grpc;
mod grpc_health;
mod loads;
mod lrs;
mod postgres;
mod redis;
mod rls;
mod sds;
mod second_opinion;
mod swap;
mod third_party;
mod tls;
mod websocket;
mod xds;
mod xds_chains;
mod xds_original;
mod xds_secrets;
mod xds_tls;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use outrigger_tests::peer::{Ran, skip};
use outrigger_tests::wait::{PATIENCE, until, within};
use outrigger_tests::{Dir, Proxy};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Environment variable that names a Python with the libraries.
const PYTHON: &str = "OUTRIGGER_PEERS_PYTHON";
/// A whole script or load, on a busy machine.
const LONG: Duration = Duration::from_secs(90);

/// The Python that has these modules. `None`, and a line that says so, when there is none.
async fn python(modules: &[&str]) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's directory");
    let own = || root.join("target/peers/bin/python");
    let path = std::env::var_os(PYTHON).map_or_else(own, PathBuf::from);
    if !path.is_file() {
        skip(&format!("a Python with {} is not installed", modules.join(", ")));
        return None;
    }
    for module in modules {
        if !run(&path, &["-c", &format!("import {module}")], b"").await.success {
            skip(&format!("Python's {module} is not installed"));
            return None;
        }
    }
    Some(path)
}

fn script(name: &str) -> String {
    format!("{}/it/peers/scripts/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs a program to its end, with more patience than for one answer.
async fn run(program: &Path, args: &[&str], stdin: &[u8]) -> Ran {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let mut input = child.stdin.take().unwrap();
    let feeding = async move {
        // It may have read enough before it has read all.
        let _ = input.write_all(stdin).await;
    };
    let ended = tokio::time::timeout(LONG, async { tokio::join!(feeding, child.wait_with_output()).1 });
    let output =
        ended.await.unwrap_or_else(|_| panic!("{} {args:?}: not done in {LONG:?}", program.display()));
    let output = output.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { success: output.status.success(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A program that runs beside the test; killed when dropped.
#[derive(Debug)]
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The scripts end when this is closed.
    stdin: ChildStdin,
}

impl Running {
    /// Starts it; what it writes to standard error is the test's.
    fn start(program: impl AsRef<Path>, args: &[&str]) -> Self {
        Self::start_with(program, args, &[])
    }

    /// The same, with these variables in its environment.
    fn start_with(program: impl AsRef<Path>, args: &[&str], env: &[(&str, String)]) -> Self {
        let program = program.as_ref();
        let mut command = Command::new(program);
        command.envs(env.iter().map(|(name, value)| (name, value)));
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, stdin }
    }

    /// Gives it a line to read.
    async fn tell(&mut self, line: &str) {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// Its next line.
    async fn line(&mut self) -> String {
        let line = within("a line from the peer", self.lines.next_line()).await.unwrap();
        line.unwrap_or_else(|| panic!("{:?} ended without a word", self.child))
    }

    /// The line that holds `text`, where it says so much in between.
    async fn line_with(&mut self, text: &str) -> String {
        let mut seen = String::new();
        let looking = async {
            loop {
                let line = self.line().await;
                if line.contains(text) {
                    return line;
                }
                seen += &line;
                seen.push('\n');
            }
        };
        let found = tokio::time::timeout(PATIENCE, looking).await;
        found.unwrap_or_else(|_| panic!("the peer has not said {text:?} but:\n{seen}"))
    }

    /// The port of a script that serves.
    async fn port(&mut self) -> u16 {
        let line = self.line().await;
        line.strip_prefix("PORT ")
            .and_then(|port| port.parse().ok())
            .unwrap_or_else(|| panic!("not a port: {line}"))
    }

    /// Sends a signal.
    fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        rustix::process::kill_process(pid.expect("it runs"), signal).unwrap();
    }
}

/// Waits until the proxy holds nothing of its clients any more: no connection, no request, none upstream.
async fn quiet(proxy: &Proxy) {
    const GAUGES: [&str; 3] = [
        "outrigger_downstream_connections{",
        "outrigger_downstream_requests_active{",
        "outrigger_upstream_requests_active{",
    ];
    let busy = |line: &&str| GAUGES.iter().any(|gauge| line.starts_with(gauge)) && !line.ends_with(" 0");
    until("the proxy lets go of all clients", async || {
        let metrics = proxy.ask("/metrics").await.text();
        assert!(
            metrics.contains(GAUGES[0]) && metrics.contains(GAUGES[1]),
            "gauges are missing from:\n{metrics}"
        );
        metrics.lines().find(busy).is_none().then_some(())
    })
    .await;
}

/// A port that nobody listens on, for programs that cannot choose their own.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Writes `tls.crt` and `tls.key` for `localhost` and 127.0.0.1; gives the path of the CA to trust.
fn certify(dir: &Dir) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // By default a leaf would have the same name, and look as if it had signed itself.
    params.distinguished_name.push(DnType::CommonName, "CA of the tests");
    let key = KeyPair::generate().unwrap();
    let ca = dir.write("ca.crt", &params.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(params, key);
    let mut leaf = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    dir.write("tls.crt", &leaf.signed_by(&key, &issuer).unwrap().pem());
    dir.write("tls.key", &key.serialize_pem());
    ca.to_str().expect("a path of ours").to_owned()
}
