//! What the experiments share that bring services and clients of their own: both live in this process, on one thread,
//! so that what is measured is the proxy's choice and not another program's.

pub(crate) mod clients;
pub(crate) mod envoy;
pub(crate) mod service;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use crate::error::{Doing, Result};
use crate::net;
use crate::process::Running;
use crate::proxy::Proxy;
use crate::tools::Tools;

/// Longest time from start to ready.
const STARTING: Duration = Duration::from_secs(20);

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

/// A proxy that is ready, whose one route leads to a cluster of these ports. `how` is what else its configuration says of
/// that cluster: keys for Outrigger, lines indented by four for Envoy. The port is where it listens.
pub(crate) fn before(
    (proxy, how): (Proxy, &str),
    ports: &[u16],
    folder: &Path,
    tools: &Tools,
) -> Result<(Running, u16)> {
    fs::create_dir_all(folder).doing(folder.display())?;
    let listen = net::free_port()?;
    let command = if proxy == Proxy::Envoy {
        let route = "              - { match: { prefix: \"/\" }, route: { cluster: all } }\n";
        envoy::command(&envoy::text(listen, route, &envoy::cluster("all", ports, how)), folder, tools)?
    } else {
        let admin = folder.canonicalize().doing(folder.display())?.join("admin.sock");
        let endpoints: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let text = format!(
            "admin: unix:{}\nlisteners:\n  in:\n    bind: 127.0.0.1:{listen}\n    routes:\n      - {{ to: all }}\n\
             clusters:\n  all: {{ endpoints: [{}], {how} }}\n",
            admin.display(),
            endpoints.join(", ")
        );
        outrigger(&text, folder, tools)?
    };
    Ok((start(command, folder, listen)?, listen))
}

/// Starts a proxy that is to listen there, and waits until it does. Not more: services are served by this very thread.
pub(crate) fn start(command: Command, folder: &Path, listen: u16) -> Result<Running> {
    let mut running = Running::start(command, &folder.join("log"))?;
    running.until(STARTING, || net::connect(listen).is_ok())?;
    Ok(running)
}
