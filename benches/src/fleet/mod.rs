//! What the experiments share that bring services and clients of their own: both live in this process, on one thread,
//! so that what is measured is the proxy's choice and not another program's.

pub(crate) mod clients;
pub(crate) mod envoy;
pub(crate) mod service;

use std::fs;
use std::path::Path;
use std::process::Command;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use crate::error::{Doing, Result};
use crate::tools::Tools;

/// The thread's runtime, for services and clients that are not `Send`.
pub(crate) fn runtime() -> Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .doing("starting a runtime")
}

/// Outrigger with this configuration, which is kept in the folder.
pub(crate) fn outrigger(text: &str, folder: &Path, tools: &Tools) -> Result<Command> {
    let file = folder.join("outrigger.yaml");
    fs::write(&file, text).doing(file.display())?;
    let mut command = Command::new(tools.outrigger.as_ref().map_err(Clone::clone)?);
    command.arg("run").arg(file);
    Ok(command)
}
