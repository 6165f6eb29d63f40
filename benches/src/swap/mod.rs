//! The swap: a hundred changes, ten a second, told by one control plane to Outrigger and to Envoy in turns, while clients ask
//! at a fixed rate and hold WebSockets and calls of gRPC open. What breaks, what is closed, and what it costs.
//!
//! Both are told the same documents by the same program, and are otherwise as they come, with one worker. Services and
//! clients live in this process; the rate is far below what either can carry. What a client holds open through a listener
//! that has changed, Envoy cuts once its drain time is over, which is ten minutes as it comes: longer than anybody wants to
//! watch, so it has a second turn with a shorter one.

mod clients;
mod edits;
mod origin;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use self::clients::{Clients, HELD, PAUSE, RATES, Tally};
use self::edits::{Mesh, SEED};
use self::origin::Origin;
use crate::control::Control;
use crate::error::{Doing, Failure, Result};
use crate::fleet::{self, runtime};
use crate::measure::{Usage, percentile};
use crate::net::free_port;
use crate::proxy::Proxy;
use crate::tools::Tools;

const EDITS: u32 = 100;
/// Between two of them.
const STEP: Duration = Duration::from_millis(100);
/// Before anything is counted, and counted without a change.
const WARM: Duration = Duration::from_secs(3);
const CALM: Duration = Duration::from_secs(5);
/// After the last change: what it closes is closed by then.
const AFTER: Duration = Duration::from_secs(2);
/// For the last change.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who has a turn, by name; and Envoy's drain time in seconds, where it is not its own.
const TURNS: [(Proxy, &str, Option<u32>); 3] = [
    (Proxy::Outrigger, "Outrigger", None),
    (Proxy::Envoy, "Envoy", None),
    (Proxy::Envoy, "Envoy, drains for 3 s", Some(3)),
];

/// A while, and what was used in it.
#[derive(Clone, Debug, Default)]
struct Phase {
    tally: Tally,
    cpu: Duration,
}

impl Phase {
    /// Requests and messages.
    fn exchanges(&self) -> usize {
        self.tally.took.len() + self.tally.messages
    }

    fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.exchanges().max(1) as f64
    }

    fn percentile_ms(&self, percent: usize) -> f64 {
        let mut took = self.tally.took.clone();
        percentile(&mut took, percent).unwrap_or_default().as_secs_f64() * 1e3
    }
}

/// What one proxy came to.
#[derive(Clone, Debug, Default)]
struct Outcome {
    calm: Phase,
    changing: Phase,
    /// From the first change to the last.
    took: Duration,
    /// Connections opened to the endpoint that is always there, and closed; then to the one that comes and goes.
    connections: [[usize; 2]; 2],
    /// How much more memory, MiB.
    growth: f64,
    /// Whether it has taken the last change.
    is_in_sync: bool,
}

/// Runs all, and prints the table.
pub(crate) fn run(tools: &Tools, control: &Path, dir: &Path) -> Result<()> {
    println!("# A hundred changes under load\n");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{cores} cores, one worker; {} requests/s by HTTP/1.1 and {} by HTTP/2, {HELD} WebSockets and {HELD} calls of gRPC with a message each every {} ms; seed {SEED}.\n",
        RATES[0],
        RATES[1],
        PAUSE.as_millis()
    );
    let plane = Control::start(control, &dir.join("swap"))?;
    let runtime = runtime()?;
    let mut outcomes = Vec::new();
    for (proxy, name, drain) in TURNS {
        eprintln!("swap: {name}");
        outcomes.push(runtime.block_on(experiment((proxy, drain), &plane, tools, dir))?);
    }
    println!("{}", table(&outcomes));
    Ok(())
}

async fn experiment(
    (proxy, drain): (Proxy, Option<u32>),
    plane: &Control,
    tools: &Tools,
    dir: &Path,
) -> Result<Outcome> {
    let origins = [Origin::start().await?, Origin::start().await?];
    let mut mesh = Mesh::new([free_port()?, free_port()?], origins[0].port(), origins[1].port());
    plane.asks.apply_beside(mesh.text()).await?;
    let folder = dir.join(format!("swap-{}", proxy.name()));
    fs::create_dir_all(&folder).doing(folder.display())?;
    let mut command = node(proxy, plane.xds, &folder, tools)?;
    if let Some(seconds) = drain {
        command.args(["--drain-time-s", &seconds.to_string()]);
    }
    let running = fleet::start(command, &folder, mesh.listen[0])?;
    let clients = Clients::start(mesh.listen[0]);
    sleep(WARM).await;
    clients.take();
    let mut used = Usage::of(running.group())?;
    sleep(CALM).await;
    let mut phase = || {
        let now = Usage::of(running.group())?;
        let before = std::mem::replace(&mut used, now);
        let phase = Phase { tally: clients.take(), cpu: now.cpu.saturating_sub(before.cpu) };
        Ok::<_, Failure>((phase, now.resident_mib - before.resident_mib))
    };
    let (calm, _) = phase()?;
    let counts = || origins.each_ref().map(|origin| [origin.opened(), origin.closed()]);
    let before = counts();
    let begun = Instant::now();
    let mut ticks = interval(STEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..EDITS {
        ticks.tick().await;
        let old = mesh.text();
        while mesh.text() == old {
            mesh.edit();
        }
        plane.asks.apply_beside(mesh.text()).await?;
    }
    let took = begun.elapsed();
    sleep(AFTER).await;
    let (changing, growth) = phase()?;
    let after = counts();
    let since = |at: usize| [after[at][0] - before[at][0], after[at][1] - before[at][1]];
    let is_in_sync = plane.asks.in_sync(1, PATIENCE).await?;
    Ok(Outcome { calm, changing, took, connections: [since(0), since(1)], growth, is_in_sync })
}

/// A proxy that is told by the control plane, and by nobody else.
fn node(proxy: Proxy, xds: u16, folder: &Path, tools: &Tools) -> Result<Command> {
    if proxy != Proxy::Envoy {
        let admin = folder.canonicalize().doing(folder.display())?.join("admin.sock");
        let text = format!(
            "admin: unix:{}\nworkers: 1\nnode: {{ id: outrigger }}\nxds: {{ server: \"http://127.0.0.1:{xds}\" }}\n",
            admin.display()
        );
        return fleet::outrigger(&text, folder, tools);
    }
    let ads = "{ ads: {}, resource_api_version: V3 }";
    let text = format!(
        "node: {{ id: envoy, cluster: swap }}
dynamic_resources:
  ads_config: {{ api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{{ envoy_grpc: {{ cluster_name: xds }} }}] }}
  lds_config: {ads}
  cds_config: {ads}
static_resources:
  clusters:
{}",
        fleet::envoy::cluster(
            "xds",
            &[xds],
            "    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }
"
        )
    );
    fleet::envoy::command(&text, folder, tools)
}

/// What came of it, a line for each figure.
fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "| | {} | Outrigger / Envoy |\n|---|{}---:|\n",
        TURNS.map(|(_, name, _)| name).join(" | "),
        "---:|".repeat(TURNS.len())
    );
    let mut row = |name: &str, digits: usize, of: &dyn Fn(&Outcome) -> f64| {
        let values: Vec<f64> = outcomes.iter().map(of).collect();
        let cells: Vec<String> = values.iter().map(|value| format!("{value:.digits$}")).collect();
        let ratio = match values[..] {
            [ours, theirs, ..] if ours > 0.0 && theirs > 0.0 => format!("{:.2}", ours / theirs),
            _ => "-".to_owned(),
        };
        let _ = writeln!(text, "| {name} | {} | {ratio} |", cells.join(" | "));
    };
    let count = |value: usize| value as f64;
    let sum = |of: &BTreeMap<String, usize>| of.values().sum::<usize>() as f64;
    row("changes a second", 1, &|o| f64::from(EDITS) / o.took.as_secs_f64());
    row("requests", 0, &|o| count(o.changing.tally.took.len()) + sum(&o.changing.tally.failed));
    row("of these failed", 0, &|o| sum(&o.changing.tally.failed));
    row("messages over what is held open", 0, &|o| count(o.changing.tally.messages));
    row("WebSockets and calls broken off", 0, &|o| sum(&o.changing.tally.broken));
    row("connections of clients closed", 0, &|o| count(o.changing.tally.closed));
    row("connections opened to the endpoint that stays", 0, &|o| count(o.connections[0][0]));
    row("of its connections closed", 0, &|o| count(o.connections[0][1]));
    row("connections opened to the one that comes and goes", 0, &|o| count(o.connections[1][0]));
    row("of its connections closed", 0, &|o| count(o.connections[1][1]));
    row("p50 without changes, ms", 2, &|o| o.calm.percentile_ms(50));
    row("p50 with them, ms", 2, &|o| o.changing.percentile_ms(50));
    row("p99 without changes, ms", 2, &|o| o.calm.percentile_ms(99));
    row("p99 with them, ms", 2, &|o| o.changing.percentile_ms(99));
    row("CPU us per request or message, without changes", 1, &|o| o.calm.cpu_us());
    row("CPU us per request or message, with them", 1, &|o| o.changing.cpu_us());
    row("memory grown by, MiB", 1, &|o| o.growth);
    for ((_, name, _), outcome) in TURNS.iter().zip(outcomes) {
        let Outcome { calm, changing, is_in_sync, .. } = outcome;
        explain(&mut text, name, "failed", &[&calm.tally.failed, &changing.tally.failed]);
        explain(&mut text, name, "broken off", &[&calm.tally.broken, &changing.tally.broken]);
        if !is_in_sync {
            let _ = writeln!(text, "\n{name} has not taken the last change.");
        }
    }
    text
}

/// What happened instead, if something did; first without changes, then with them.
fn explain(text: &mut String, name: &str, what: &str, happened: &[&BTreeMap<String, usize>; 2]) {
    for (when, happened) in ["without changes", "with changes"].iter().zip(happened) {
        for (why, times) in *happened {
            let _ = writeln!(text, "\n{name}, {what} {when}: {times} x {why}");
        }
    }
}
