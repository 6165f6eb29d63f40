//! The configuration file: read, and watched for change.
//!
//! The watch looks at what the path leads to, not at the path: Kubernetes swaps a symbolic link two directories up
//! when a mounted ConfigMap changes. Looking costs a few system calls a second, and works on every file system, which
//! change notifications do not.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outrigger_proto::error::{ConfigError, ConfigErrors};
use outrigger_proto::model::{DownstreamTls, Filter, JwksSource, Mesh, UpstreamTls};
use outrigger_proto::yaml::{self, Parsed};

/// How often the watch looks.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Largest file that is read: well above 100,000 routes, and a bound for a path that leads to a device.
const LARGEST: u64 = 64 * 1024 * 1024;

/// Where the configuration is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// Standard input, read once.
    Stdin,
    /// Nothing is written: the environment names a control plane, which says all there is.
    Environment,
}

/// Without it nobody would say what is served.
const SERVER: &str = "OUTRIGGER_XDS_SERVER";

impl Origin {
    /// `-` is standard input. Without a word it is the environment, if that says enough.
    pub fn new(argument: Option<&str>) -> Option<Self> {
        match argument {
            Some("-") => Some(Self::Stdin),
            Some(path) => Some(Self::File(path.into())),
            None => variable(SERVER).filter(|server| !server.is_empty()).map(|_| Self::Environment),
        }
    }

    /// What it is called in messages.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "<stdin>".to_owned(),
            Self::Environment => "<environment>".to_owned(),
        }
    }

    /// Reads and understands it.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(&self) -> Result<Parsed, ConfigErrors> {
        let name = self.name();
        let text = self.read().map_err(|error| ConfigErrors {
            source: name.clone(),
            errors: vec![ConfigError {
                place: None,
                path: String::new(),
                problem: unreadable(&error),
                hint: None,
            }],
        })?;
        let base = match self {
            Self::File(path) => path.parent().unwrap_or(Path::new("")),
            Self::Stdin | Self::Environment => Path::new(""),
        };
        yaml::parse(&yaml::Source { name: &name, text: &text, base, env: &variable })
    }

    fn read(&self) -> io::Result<String> {
        let mut text = String::new();
        match self {
            Self::File(path) => fs::File::open(path)?.take(LARGEST).read_to_string(&mut text)?,
            Self::Stdin => io::stdin().lock().take(LARGEST).read_to_string(&mut text)?,
            Self::Environment => {
                text.push_str("{}");
                text.len()
            }
        };
        Ok(text)
    }
}

/// Of the environment; the name of the host is known without it.
fn variable(name: &str) -> Option<String> {
    let host =
        || (name == "HOSTNAME").then(|| rustix::system::uname().nodename().to_str().ok().map(str::to_owned));
    std::env::var(name).ok().or_else(|| host().flatten())
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

/// What files looked like when they were last read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(Vec<(PathBuf, Option<Look>)>);

/// Which file it is, and when it was last changed.
type Look = (u64, u64, u64, i64, i64);

impl Fingerprint {
    /// Looks at the file and at all files that the configuration names.
    pub fn of(origin: &Origin, mesh: &Mesh) -> Self {
        let mut paths = Vec::new();
        if let Origin::File(path) = origin {
            paths.push(path.clone());
        }
        for chain in mesh.listeners.values().flat_map(|listener| listener.chains.each()) {
            paths.extend(chain.tls.iter().flat_map(DownstreamTls::files).cloned());
            let Filter::Http(http) = &chain.filter else { continue };
            paths.extend(http.jwt.iter().filter_map(|issuer| match &issuer.keys {
                JwksSource::File(path) => Some(path.clone()),
                JwksSource::Url { .. } | JwksSource::Inline(_) => None,
            }));
        }
        for cluster in mesh.clusters.values() {
            paths.extend(cluster.tls.iter().flat_map(UpstreamTls::files).cloned());
        }
        paths.extend(mesh.identity.iter().flat_map(|identity| identity.files()).cloned());
        paths.sort_unstable();
        paths.dedup();
        Self(paths.into_iter().map(|path| (path.clone(), look(&path))).collect())
    }

    /// Whether anything looks different now.
    pub fn has_changed(&self) -> bool {
        self.0.iter().any(|(path, then)| look(path) != *then)
    }
}

fn look(path: &Path) -> Option<Look> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}
