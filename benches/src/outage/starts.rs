//! How long a start takes while the control plane is away, by how much it has told before.

use std::path::Path;

use tokio::time::Instant;

use super::{Fleet, PATIENCE, served, until};
use crate::control::Control;
use crate::error::{Failure, Result};
use crate::measure::percentile;
use crate::net::free_port;

/// Clusters that were told, each with an endpoint, and a route to it.
const SIZES: [usize; 3] = [10, 1_000, 10_000];
/// Starts of each.
const STARTS: usize = 9;

pub(super) async fn measure(outrigger: &Path, control: &Path, dir: &Path) -> Result<()> {
    println!(
        "\n| clusters that were told | from a start without the control plane until it is served, ms: half of them, the longest |"
    );
    println!("|---:|---:|");
    for size in SIZES {
        let plane = Control::start(control, dir)?;
        let at = free_port()?;
        plane.asks.apply(&document(at, size))?;
        let fleet = Fleet { program: outrigger.to_owned(), dir: plane.asks.dir.clone(), xds: plane.xds };
        let told = fleet.start("a", "rest")?;
        if !plane.asks.in_sync(1, PATIENCE).await? {
            return Err(Failure::new(format!("{size} clusters are not told in {PATIENCE:?}")));
        }
        let kept = fleet.dir.join("a").join("kept.xds");
        until("what was said is on disk", || kept.is_file()).await?;
        told.kill();
        plane.kill();
        let mut took = Vec::with_capacity(STARTS);
        for _ in 0..STARTS {
            let begun = Instant::now();
            let running = served(fleet.start("a", "rest")?, at).await?;
            took.push(begun.elapsed());
            running.kill();
        }
        let mut at = |percent| percentile(&mut took, percent).unwrap_or_default().as_millis();
        println!("| {size} | {}, {} |", at(50), at(100));
    }
    Ok(())
}

fn document(at: u16, clusters: usize) -> String {
    let mut out =
        format!("listeners:\n  web: {{ bind: 127.0.0.1:{at}, routes: all }}\nroute_tables:\n  all:\n");
    for number in 0..clusters {
        out += &format!("    - {{ match: {{ path: {{ prefix: /{number}/ }} }}, to: c{number} }}\n");
    }
    out += "clusters:\n";
    for number in 0..clusters {
        out += &format!("  c{number}: {{ endpoints: [127.0.0.1:1] }}\n");
    }
    out
}
