//! The cascade: three proxies in a row, each before a service of its own, and the last service in trouble. How many
//! requests still succeed, what the trouble costs the others, and how soon it is over once it is over.
//!
//! Both kinds of proxy have what they come with: one retry where a route asks for retries, and whatever bounds those by
//! default. Beside it, a timeout of a second.

mod chain;

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use self::chain::Chain;
use crate::error::Result;
use crate::fleet::clients::{Clients, Shot};
use crate::fleet::runtime;
use crate::fleet::service::{Service, Weather};
use crate::measure::percentile;
use crate::proxy::Proxy;
use crate::tools::Tools;

/// Before the trouble, while it lasts, and after it.
const CALM: Duration = Duration::from_secs(2);
const TROUBLE: Duration = Duration::from_secs(6);
const AFTER: Duration = Duration::from_secs(6);

/// Half of the requests to the last service, a quarter to each of the others.
const PATHS: [&str; 4] = [LAST, "/a", LAST, "/b"];
/// The path of the last service.
const LAST: &str = "/c";

/// What is wrong with the last service.
const TROUBLES: [(&str, Weather); 4] = [
    ("30 % fail", Weather::Failing(30)),
    ("all fail", Weather::Failing(100)),
    ("slow by 2 s", Weather::Slow(Duration::from_secs(2))),
    ("flapping, 0.5 s", Weather::Flapping(Duration::from_millis(500))),
];

/// What one trouble came to.
#[derive(Debug)]
struct Outcome {
    /// Share of the requests to the last service that were answered 200 while it was in trouble.
    goodput: f64,
    /// Requests that reached it for each that a client sent, in the same time.
    amplification: f64,
    /// 99th percentile of latency of requests to the other services, in the same time.
    others_p99: Duration,
    /// Of those, how many failed.
    others_failed: usize,
    /// From the end of the trouble to the last request that failed.
    recovery: Duration,
}

/// Runs all troubles behind both kinds of proxy, and prints the table.
pub(crate) fn run(tools: &Tools, dir: &Path) -> Result<()> {
    let runtime = runtime()?;
    let mut table = String::from(
        "| the last of three services | proxies | goodput | requests at it, for one of a client's | p99 of the others, ms | of them failed | recovered after, s |\n\
         |---|---|---:|---:|---:|---:|---:|\n",
    );
    for (name, weather) in TROUBLES {
        for proxy in [Proxy::Outrigger, Proxy::Envoy] {
            eprintln!("cascade, {name}: {proxy}");
            let outcome = runtime.block_on(experiment(proxy, weather, tools, dir))?;
            let Outcome { goodput, amplification, others_p99, others_failed, recovery } = outcome;
            writeln!(
                table,
                "| {name} | {proxy} | {:.1} % | {amplification:.2} | {:.1} | {others_failed} | {:.1} |",
                goodput * 100.0,
                others_p99.as_secs_f64() * 1e3,
                recovery.as_secs_f64()
            )
            .expect("a String takes all");
        }
    }
    println!("{table}");
    Ok(())
}

async fn experiment(proxy: Proxy, weather: Weather, tools: &Tools, dir: &Path) -> Result<Outcome> {
    let [a, b, c] = [Service::start().await?, Service::start().await?, Service::start().await?];
    let chain = Chain::start(proxy, [a.port(), b.port(), c.port()], tools, dir)?;
    let clients = Clients::start(chain.entry(), &PATHS);
    tokio::time::sleep(CALM).await;
    let (began, before) = (Instant::now(), c.requests());
    c.set(weather);
    tokio::time::sleep(TROUBLE).await;
    c.set(Weather::Well);
    let (ended, reached) = (Instant::now(), c.requests() - before);
    tokio::time::sleep(AFTER).await;
    let shots = clients.finish().await;
    drop(chain);
    Ok(judge(&shots, (began, ended), reached))
}

fn judge(shots: &[Shot], (began, ended): (Instant, Instant), reached: u64) -> Outcome {
    let during: Vec<&Shot> = shots.iter().filter(|shot| (began..ended).contains(&shot.at)).collect();
    let (last, others): (Vec<&Shot>, Vec<&Shot>) = during.into_iter().partition(|shot| shot.path == LAST);
    let good = last.iter().filter(|shot| shot.good).count();
    let mut latencies: Vec<Duration> = others.iter().map(|shot| shot.took).collect();
    let failed_after = shots.iter().filter(|shot| shot.path == LAST && !shot.good && shot.at >= ended);
    let recovery = failed_after.map(|shot| shot.at - ended).max().unwrap_or_default();
    Outcome {
        goodput: good as f64 / last.len().max(1) as f64,
        amplification: reached as f64 / last.len().max(1) as f64,
        others_p99: percentile(&mut latencies, 99).unwrap_or_default(),
        others_failed: others.iter().filter(|shot| !shot.good).count(),
        recovery,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_of_the_time_of_trouble() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let shot = |seconds, to_last, good, ms| Shot {
            at: at(seconds),
            took: Duration::from_millis(ms),
            path: if to_last { LAST } else { "/a" },
            good,
        };
        let shots = [
            shot(0, true, false, 1),
            shot(2, true, true, 1),
            shot(3, true, false, 1),
            shot(3, false, true, 7),
            shot(4, false, false, 9),
            shot(6, true, false, 1),
            shot(7, true, true, 1),
        ];
        let outcome = judge(&shots, (at(1), at(5)), 3);
        assert_eq!((outcome.goodput, outcome.amplification, outcome.others_failed), (0.5, 1.5, 1));
        assert_eq!(
            (outcome.others_p99, outcome.recovery),
            (Duration::from_millis(9), Duration::from_secs(1))
        );
    }
}
