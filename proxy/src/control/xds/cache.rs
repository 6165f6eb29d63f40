//! What a control plane said last, on disk: a proxy that starts while its control plane is away serves that. A file of its
//! own format: a line that says so, a checksum, and the resources as they were said, in the form of incremental answers.
//! It is read as strictly as the stream is. Nothing secret is written, and what is written only its owner may read.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use outrigger_proto::model::ControlPlane;
use outrigger_proto::xds::Kind;
use outrigger_proto::xds::discovery::Resource;
use prost::Message;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::state::State;

/// How every version of the file begins.
const HEAD: &str = "outrigger xds cache ";
/// The version that is read and written.
const VERSION: &str = "1\n";
/// Bytes that are read.
const LARGEST: u64 = 256 << 20;
/// How long more changes are waited for before they are written.
const SETTLE: Duration = Duration::from_secs(1);
/// Between two writes: so much churn costs so many writes.
const APART: Duration = Duration::from_secs(10);

/// What stands in the file.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Content {
    /// Whose it is: nobody else's configuration is served.
    #[prost(string, tag = "1")]
    pub(super) node: String,
    /// Who said it: its versions mean nothing to another.
    #[prost(string, tag = "2")]
    pub(super) server: String,
    /// In seconds since 1970.
    #[prost(uint64, tag = "3")]
    pub(super) saved: u64,
    /// What was said.
    #[prost(message, repeated, tag = "4")]
    pub(super) resources: Vec<Resource>,
}

/// Of `resources` in it.
const RESOURCES: u32 = 4;

/// Why a file is not served.
#[derive(Debug)]
pub(super) enum Fault {
    Unreadable(io::Error),
    TooLarge,
    Foreign,
    Version(String),
    Damaged,
    Another(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "it cannot be read: {error}"),
            Self::TooLarge => write!(f, "it is larger than {} MiB", LARGEST >> 20),
            Self::Foreign => f.write_str("it is not such a file"),
            Self::Version(version) => write!(f, "it is of another version, `{version}`"),
            Self::Damaged => f.write_str("it is damaged: its checksum does not fit"),
            Self::Another(node) => write!(f, "it is that of another node, `{node}`"),
        }
    }
}

/// Of which kinds resources are written: no secret lies about on disk.
pub(super) fn holds(kind: Kind) -> bool {
    match kind {
        Kind::Secret => false,
        Kind::Cluster | Kind::Endpoints | Kind::Listener | Kind::Routes | Kind::Host => true,
    }
}

/// What this node was told last; `None` where there is no file yet.
///
/// # Errors
/// The file is not served.
pub(super) fn read(path: &Path, node: &str) -> Result<Option<Content>, Fault> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(Fault::Unreadable)?,
    };
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(Fault::Unreadable)?;
    decode(&bytes, node).map(Some)
}

fn decode(bytes: &[u8], node: &str) -> Result<Content, Fault> {
    if bytes.len() as u64 > LARGEST {
        return Err(Fault::TooLarge);
    }
    let versioned = bytes.strip_prefix(HEAD.as_bytes()).ok_or(Fault::Foreign)?;
    let Some(rest) = versioned.strip_prefix(VERSION.as_bytes()) else {
        let line = versioned.split(|byte| *byte == b'\n').next().unwrap_or_default();
        // It stands in a line of the log.
        let version = String::from_utf8_lossy(&line[..line.len().min(16)]).escape_debug().to_string();
        return Err(Fault::Version(version));
    };
    let (sum, body) = rest.split_at_checked(SHA256_OUTPUT_LEN).ok_or(Fault::Damaged)?;
    if digest(&SHA256, body).as_ref() != sum {
        return Err(Fault::Damaged);
    }
    let content = Content::decode(body).map_err(|_| Fault::Damaged)?;
    if content.node != node {
        return Err(Fault::Another(content.node));
    }
    Ok(content)
}

/// The file, in which the sum is wanting still. What stands in a message's list is written one by one, so that thousands
/// are never there twice.
fn encode(content: &Content, each: impl FnOnce(&mut dyn FnMut(&Resource))) -> Vec<u8> {
    let mut bytes =
        [HEAD.as_bytes(), VERSION.as_bytes(), &[0; SHA256_OUTPUT_LEN], &content.encode_to_vec()].concat();
    each(&mut |resource| prost::encoding::message::encode(RESOURCES, resource, &mut bytes));
    bytes
}

fn sum(bytes: &mut [u8]) {
    let (head, body) = bytes.split_at_mut(HEAD.len() + VERSION.len() + SHA256_OUTPUT_LEN);
    head[HEAD.len() + VERSION.len()..].copy_from_slice(digest(&SHA256, body).as_ref());
}

/// In one step: whoever reads, or comes after a fall, finds the old file or the new one.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let written = (|| {
        // One that was left behind may be anybody's to read.
        remove(&fresh)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    })();
    if let Err(error) = written {
        let _ = remove(&fresh);
        return Err(error);
    }
    // The name too is to outlive a fall of the machine.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// When what is written, for as long as a control plane is followed.
#[derive(Debug)]
pub(super) struct Cache {
    path: PathBuf,
    node: String,
    server: String,
    /// When to write, if there is something to.
    due: Option<Instant>,
    /// When it was written last.
    written: Option<Instant>,
    writing: Option<JoinHandle<io::Result<()>>>,
    failed: bool,
}

impl Cache {
    /// Where it is wanted.
    pub(super) fn new(control: &ControlPlane) -> Option<Self> {
        Some(Self {
            path: control.cache.clone()?,
            node: control.node.id.to_string(),
            server: control.server.to_string(),
            due: None,
            written: None,
            writing: None,
            failed: false,
        })
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What this node was told last, if it can be served.
    pub(super) fn read(&self) -> Option<Content> {
        let mut content = match read(&self.path, &self.node) {
            Ok(content) => content?,
            Err(fault) => {
                tracing::error!(cache = %self.path.display(), "what the control plane said last is not served: {fault}");
                return None;
            }
        };
        if content.server != self.server {
            content.resources.iter_mut().for_each(|resource| resource.version.clear());
        }
        Some(content)
    }

    /// Something has changed.
    pub(super) fn note(&mut self, now: Instant) {
        let rested = self.written.map(|written| written + APART);
        self.due.get_or_insert(rested.map_or(now + SETTLE, |rested| rested.max(now + SETTLE)));
    }

    /// It cannot be written yet.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.due = Some(now + SETTLE);
    }

    /// Comes when it is to be written.
    pub(super) async fn due(&mut self) {
        self.finish().await;
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Writes what was said, beside all else that is done, once it is [`Self::due`]. What cannot be written is tried again.
    pub(super) fn write(&mut self, state: &State) {
        (self.due, self.written) = (None, Some(Instant::now()));
        let saved = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (node, server) = (self.node.clone(), self.server.clone());
        let mut bytes = encode(&Content { node, server, saved, resources: Vec::new() }, |say| {
            state.say_again(holds, say)
        });
        let path = self.path.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            sum(&mut bytes);
            write(&path, &bytes)
        }));
    }

    async fn finish(&mut self) {
        let Some(writing) = &mut self.writing else { return };
        let result = writing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        self.writing = None;
        match result {
            Ok(()) => self.failed = false,
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    tracing::error!(cache = %self.path.display(), %error, "what the control plane says cannot be kept; a restart without it will not find it");
                }
                self.note(Instant::now());
            }
        }
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
