//! The balancers: five endpoints, one of them ten times slower than the rest, and how soon each balancer keeps away
//! from it. The first requests count too: what a balancer must learn is part of its cost.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::error::Result;
use crate::fleet::clients::Clients;
use crate::fleet::service::{Service, Weather};
use crate::fleet::{self, runtime};
use crate::measure::percentile;
use crate::proxy::Proxy;
use crate::tools::Tools;

/// How long each balancer is asked.
const LOAD: Duration = Duration::from_secs(10);
/// Until four of the endpoints answer, and until the fifth does.
const FAST: Duration = Duration::from_millis(5);
const SLOW: Duration = Duration::from_millis(50);

/// Round robin's 99th percentile, so many times, is what peak-ewma's must not exceed.
const BAR: f64 = 0.5;

/// Each with its name in the proxy's configuration.
const BALANCERS: [(Proxy, &str); 6] = [
    (Proxy::Outrigger, "round-robin"),
    (Proxy::Outrigger, "random"),
    (Proxy::Outrigger, "least-request"),
    (Proxy::Outrigger, "peak-ewma"),
    (Proxy::Envoy, "ROUND_ROBIN"),
    (Proxy::Envoy, "LEAST_REQUEST"),
];

/// What one balancer came to.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Outcome {
    p50: Duration,
    p99: Duration,
    /// Share of all requests that the slow endpoint had.
    slow: f64,
    /// Requests that were not answered 200.
    failed: usize,
}

/// Runs all balancers, and prints the table and the verdict.
pub(crate) fn run(tools: &Tools, dir: &Path) -> Result<()> {
    let runtime = runtime()?;
    let mut table = String::from(
        "| proxy | balancer | p50, ms | p99, ms | share of the slow endpoint | failed |\n|---|---|---:|---:|---:|---:|\n",
    );
    let mut outcomes = Vec::new();
    for (proxy, balancer) in BALANCERS {
        eprintln!("balancers: {proxy}, {balancer}");
        let outcome = runtime.block_on(experiment(proxy, balancer, tools, dir))?;
        let Outcome { p50, p99, slow, failed } = outcome;
        let (p50, p99, slow) = (p50.as_secs_f64() * 1e3, p99.as_secs_f64() * 1e3, slow * 100.0);
        writeln!(table, "| {proxy} | {balancer} | {p50:.1} | {p99:.1} | {slow:.1} % | {failed} |")
            .expect("a String takes all");
        outcomes.push((balancer, outcome));
    }
    println!("{table}\n{}", verdict(&outcomes));
    Ok(())
}

/// Whether peak-ewma reached its bar, in words.
fn verdict(outcomes: &[(&str, Outcome)]) -> String {
    let p99 = |name| {
        let (_, outcome) = outcomes.iter().find(|(balancer, _)| *balancer == name)?;
        Some(outcome.p99.as_secs_f64())
    };
    let ratio = p99("peak-ewma").zip(p99("round-robin")).map(|(ours, theirs)| ours / theirs);
    let (found, passed) = match ratio {
        Some(ratio) => (format!("{ratio:.2}"), if ratio <= BAR { "pass" } else { "FAIL" }),
        None => ("-".to_owned(), "not measured"),
    };
    format!("p99 of peak-ewma <= {BAR} x round-robin: {found}, {passed}")
}

async fn experiment(proxy: Proxy, balancer: &str, tools: &Tools, dir: &Path) -> Result<Outcome> {
    let mut services = Vec::new();
    for _ in 0..4 {
        let service = Service::start().await?;
        service.set(Weather::Slow(FAST));
        services.push(service);
    }
    let slow = Service::start().await?;
    slow.set(Weather::Slow(SLOW));
    services.push(slow);

    let folder = dir.join(format!("balancers-{}-{}", proxy.name(), balancer.to_lowercase()));
    let ports: Vec<u16> = services.iter().map(Service::port).collect();
    let how = if proxy == Proxy::Envoy {
        format!("    lb_policy: {balancer}\n")
    } else {
        format!("balance: {balancer}")
    };
    let (_running, listen) = fleet::before((proxy, &how), &ports, &folder, tools)?;

    let clients = Clients::start(listen, &["/"]);
    tokio::time::sleep(LOAD).await;
    let shots = clients.finish().await;
    let reached: Vec<u64> = services.iter().map(Service::requests).collect();
    let mut times: Vec<Duration> = shots.iter().map(|shot| shot.took).collect();
    Ok(Outcome {
        p50: percentile(&mut times, 50).unwrap_or_default(),
        p99: percentile(&mut times, 99).unwrap_or_default(),
        slow: share_of_last(&reached),
        failed: shots.iter().filter(|shot| !shot.good).count(),
    })
}

fn share_of_last(reached: &[u64]) -> f64 {
    let all: u64 = reached.iter().sum();
    reached.last().copied().unwrap_or_default() as f64 / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        assert_eq!(share_of_last(&[3, 3, 2]), 0.25);
        assert_eq!(share_of_last(&[]), 0.0);
    }

    #[test]
    fn verdicts() {
        let row = |name, ms| {
            let p99 = Duration::from_millis(ms);
            (name, Outcome { p50: p99, p99, slow: 0.0, failed: 0 })
        };
        let text = |ms| verdict(&[row("round-robin", 50), row("peak-ewma", ms)]);
        assert!(text(25).ends_with("0.50, pass"));
        assert!(text(26).ends_with("0.52, FAIL"));
        assert!(verdict(&[row("round-robin", 50)]).ends_with("not measured"));
    }
}
