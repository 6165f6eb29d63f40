//! PostgreSQL through a TCP listener, with psql and pgbench.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use outrigger_tests::peer::{Ran, peer, skip};
use outrigger_tests::wait::until_for;
use outrigger_tests::{Dir, Proxy};
use rustix::process::Signal;

use super::{LONG, Running, free_port, quiet, run};

/// The user and group that a server started by root runs as: it refuses to be root. `nobody` everywhere.
const NOBODY: (&str, &str, u32) = ("--reuid=65534", "--regid=65534", 65534);

struct Scene {
    psql: PathBuf,
    proxy: Proxy,
    server: Running,
    _dir: Dir,
}

/// Debian keeps the server's programs off `PATH`.
fn server_program(name: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok().into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin").join(name)).find(|path| path.is_file());
    found.or_else(|| peer(name).map(|peer| peer.path().clone()))
}

/// A command as somebody who is not root.
fn unprivileged<'a>(program: &'a Path, args: &[&'a str]) -> Option<(PathBuf, Vec<&'a str>)> {
    if !rustix::process::geteuid().is_root() {
        return Some((program.to_owned(), args.to_vec()));
    }
    let setpriv = peer("setpriv")?;
    let head = [NOBODY.0, NOBODY.1, "--clear-groups", program.to_str()?];
    Some((setpriv.path().clone(), [&head[..], args].concat()))
}

impl Scene {
    async fn start() -> Option<Self> {
        let psql = peer("psql")?.path().clone();
        let (Some(initdb), Some(postgres)) = (server_program("initdb"), server_program("postgres")) else {
            skip("the PostgreSQL server is not installed");
            return None;
        };
        let dir = Dir::new();
        let data = dir.file("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
        if rustix::process::geteuid().is_root() {
            chown(&data, Some(NOBODY.2), Some(NOBODY.2)).unwrap();
        }
        let data = data.to_str().expect("a path of ours");
        let args = ["-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8"];
        let (program, args) = unprivileged(&initdb, &args)?;
        run(&program, &args, b"").await.ok();
        let port = free_port().to_string();
        let sockets = format!("unix_socket_directories={data}");
        let args =
            ["-D", data, "-h", "127.0.0.1", "-p", &port, "-F", "-c", "max_connections=40", "-c", &sockets];
        let (program, args) = unprivileged(&postgres, &args)?;
        let server = Running::start(program, &args);
        let proxy = Proxy::start(&format!(
            "listeners:\n  database: {{ bind: 127.0.0.1:0, tcp: {{ to: postgres, idle_timeout: 1h }} }}\n\
             clusters:\n  postgres: {{ dns: \"localhost:{port}\" }}\n"
        ))
        .await;
        let scene = Self { psql, proxy, server, _dir: dir };
        until_for(LONG, "PostgreSQL answers", async || scene.sql("select 1").await.success.then_some(()))
            .await;
        Some(scene)
    }

    fn port(&self) -> String {
        self.proxy.address("database").port().to_string()
    }

    async fn sql(&self, text: &str) -> Ran {
        let port = self.port();
        let args =
            ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", "postgres", "-X", "-q", "-A", "-t"];
        run(&self.psql, &[&args[..], &["-v", "ON_ERROR_STOP=1"]].concat(), text.as_bytes()).await
    }

    /// An orderly end, so that no shared memory is left behind.
    async fn stop(mut self) {
        quiet(&self.proxy).await;
        self.server.signal(Signal::QUIT);
        until_for(LONG, "PostgreSQL ends", async || self.server.child.try_wait().unwrap()).await;
    }
}

#[tokio::test]
async fn psql_and_pgbench() {
    let Some(scene) = Scene::start().await else { return };
    assert_eq!(scene.sql("select 6 * 7;").await.ok(), "42\n");
    let rows = scene.sql("select n, md5(n::text) from generate_series(1, 100000) n;").await.ok();
    assert_eq!(rows.lines().count(), 100_000);
    assert!(rows.ends_with("100000|14ee22eaba297944c96afdbe5b16c65b\n"));
    let wide = scene.sql("select repeat('0123456789', 524288);").await.ok();
    assert!(wide.trim_end() == "0123456789".repeat(524_288), "5 MiB do not come as they are");
    let mut copy = "create table t (n int, text text);\ncopy t from stdin;\n".to_owned();
    copy.extend((0..50_000).map(|n| format!("{n}\trow {n}\n")));
    copy += "\\.\nselect count(*), sum(n) from t;\n";
    assert_eq!(scene.sql(&copy).await.ok(), "50000|1249975000\n");
    let notified = scene.sql("listen news;\nnotify news, 'hello';\nselect 1;\n").await.ok();
    assert!(notified.contains("Asynchronous notification \"news\" with payload \"hello\""), "{notified}");
    let wrong = scene.sql("select nonsense;").await;
    assert!(!wrong.success && wrong.stderr.contains("nonsense"), "{}", wrong.stderr);
    pgbench(&scene).await;
    scene.stop().await;
}

async fn pgbench(scene: &Scene) {
    let Some(pgbench) = peer("pgbench") else { return };
    let port = scene.port();
    let to = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
    run(pgbench.path(), &[&to[..], &["-i", "-q", "postgres"]].concat(), b"").await.ok();
    let load = ["-n", "-c", "8", "-t", "50", "--connect", "postgres"];
    let said = run(pgbench.path(), &[&to[..], &load].concat(), b"").await.ok();
    assert!(said.contains("number of transactions actually processed: 400/400"), "{said}");
    assert!(said.contains("number of failed transactions: 0"), "{said}");
}
