//! What a proxy holds of a mesh: all of it, or, on demand, the ten hosts that are called through it.
//!
//! Each host of the mesh is a route and a cluster of its own, told by our control plane. A service that answers is the control
//! plane's own `/live`, as nothing here depends on what answers.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::control::{Asks, Control};
use crate::error::{Doing, Failure, Result};
use crate::measure::Usage;
use crate::net::{answers_for, free_port};
use crate::process::Running;

/// Hosts of the mesh.
const SIZES: [usize; 3] = [10, 1_000, 10_000];
/// Hosts that are called.
const CALLED: usize = 10;
/// Clusters of a mesh of which little is called, and what a proxy may hold of it, MiB.
const CLUSTERS: usize = 10_000;
const MOST: f64 = 40.0;
/// Until a proxy serves.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures both ways in meshes of all sizes, and prints the table.
pub(crate) fn run((outrigger, control): (&Path, &Path), dir: &Path) -> Result<()> {
    println!("\n# What a proxy holds of a mesh\n");
    println!("Resident memory after {CALLED} hosts were called, each with a cluster of its own.\n");
    println!("| hosts | all of it | on demand |");
    println!("|---|---|---|");
    for hosts in SIZES {
        let control = Control::start(control, &dir.join("held"))?;
        let Asks { dir, api, .. } = &control.asks;
        let port = free_port()?;
        control.asks.apply(&mesh((hosts, hosts), port, *api))?;
        let mut cells = Vec::new();
        for on_demand in [false, true] {
            cells.push(format!("{:.1} MiB", held(outrigger, dir, (control.xds, port, on_demand))?));
        }
        println!("| {hosts} | {} |", cells.join(" | "));
    }
    let control = Control::start(control, &dir.join("held"))?;
    let Asks { dir, api, .. } = &control.asks;
    let port = free_port()?;
    control.asks.apply(&mesh((CALLED, CLUSTERS), port, *api))?;
    let held = held(outrigger, dir, (control.xds, port, false))?;
    let verdict = if held <= MOST { "as it is to be" } else { "MORE THAN IT IS TO BE" };
    println!("\n{CLUSTERS} clusters, {CALLED} of them called: {held:.1} MiB; at most {MOST} MiB: {verdict}");
    Ok(())
}

/// So many routes, each of a host, and so many clusters.
fn mesh((hosts, all): (usize, usize), port: u16, service: u16) -> String {
    let (mut routes, mut clusters) = (String::new(), String::new());
    for number in 0..hosts {
        let _ = writeln!(routes, "      - {{ match: {{ host: h{number}.mesh }}, to: c{number} }}");
    }
    for number in 0..all {
        let _ = writeln!(clusters, "  c{number}: {{ endpoints: [127.0.0.1:{service}] }}");
    }
    format!("listeners:\n  web:\n    bind: 127.0.0.1:{port}\n    routes:\n{routes}clusters:\n{clusters}")
}

fn held(outrigger: &Path, dir: &Path, (xds, port, on_demand): (u16, u16, bool)) -> Result<f64> {
    let file = dir.join("proxy.yaml");
    let text = format!(
        "admin: \"unix:{}\"\nnode: {{ id: held }}\nxds: {{ server: \"http://127.0.0.1:{xds}\", on_demand: {on_demand} }}\n",
        dir.join("admin.sock").display()
    );
    fs::write(&file, text).doing(file.display())?;
    let mut command = Command::new(outrigger);
    command.arg("run").arg(&file);
    let mut running = Running::start(command, &dir.join("proxy.log"))?;
    for number in 0..CALLED {
        running.until(PATIENCE, || answers_for(port, &format!("h{number}.mesh"), "/live"))?;
    }
    let usage = Usage::of(running.group())?;
    if usage.resident_mib <= 0.0 {
        return Err(Failure::new("the proxy holds nothing"));
    }
    Ok(usage.resident_mib)
}
