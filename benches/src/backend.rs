//! What stands behind every proxy: one nginx worker with bodies of three sizes, and our source and sink.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::{Doing, Result};
use crate::net;
use crate::process::Running;
use crate::proxy::nginx;
use crate::tcp;

/// Bytes of the body at `/` and below it.
const SMALL: usize = 256;

/// The servers, alive until dropped.
#[derive(Debug)]
pub(crate) struct Backend {
    /// HTTP/1.1.
    pub(crate) http1: u16,
    /// HTTP/2 in cleartext, by prior knowledge.
    pub(crate) http2: u16,
    /// Source and sink of bytes.
    pub(crate) tcp: u16,
    _nginx: Running,
}

impl Backend {
    /// Starts the servers with their files in `dir`.
    pub(crate) fn start(nginx: &Path, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).doing(dir.display())?;
        let dir = dir.canonicalize().doing(dir.display())?;
        for (name, bytes) in [("16k", 16 * 1024), ("1m", 1024 * 1024)] {
            fs::write(dir.join(name), vec![b'x'; bytes]).doing("writing the bodies")?;
        }
        let (http1, http2) = (net::free_port()?, net::free_port()?);
        let file = dir.join("nginx.conf");
        fs::write(&file, config(&dir, http1, http2)).doing(file.display())?;
        let mut command = Command::new(nginx);
        command.arg("-p").arg(&dir).arg("-c").arg(&file);
        let mut running = Running::start(command, &dir.join("log"))?;
        running.until(Duration::from_secs(10), || net::answers(http1, "/1m"))?;
        Ok(Self { http1, http2, tcp: tcp::serve()?, _nginx: running })
    }
}

fn config(dir: &Path, http1: u16, http2: u16) -> String {
    let main = nginx::main_context(dir);
    let http = nginx::http_settings(dir);
    let body = "x".repeat(SMALL);
    let locations = format!(
        "    root {};\n    location / {{ return 200 \"{body}\"; }}\n    location = /16k {{ }}\n    location = /1m {{ }}\n",
        dir.display()
    );
    format!(
        "{main}http {{
  {http}
  default_type text/plain;
  open_file_cache max=10;
  server {{
    listen 127.0.0.1:{http1} backlog=4096;
{locations}  }}
  server {{
    listen 127.0.0.1:{http2} http2 backlog=4096;
{locations}  }}
}}
"
    )
}
