//! Outlier detection: five endpoints, one of them sick for a while. How much of the sickness clients see, how soon the
//! endpoint is trusted again once it is well, and whether it then stays so.
//!
//! Both proxies have the same rules and balance round robin, as a balancer that keeps away from the sick one by itself
//! would hide what detection does. Nobody retries. What is observed is observed from outside: an endpoint without a
//! request for a while is left out.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Result;
use crate::fleet::clients::{Clients, RATE, Shot};
use crate::fleet::service::{Service, Weather};
use crate::fleet::{self, runtime};
use crate::proxy::Proxy;
use crate::tools::Tools;

/// Before the sickness, while it lasts, and after it.
const CALM: Duration = Duration::from_secs(2);
const SICK: Duration = Duration::from_secs(10);
const AFTER: Duration = Duration::from_secs(8);
/// How often it is looked how many requests the endpoint has had.
const LOOK: Duration = Duration::from_millis(100);
/// Without a request for so long, in which forty would be its share, it is left out.
const QUIET: Duration = Duration::from_millis(500);
/// Endpoints.
const FIVE: usize = 5;
/// What an answer takes.
const FAST: Duration = Duration::from_millis(5);

const SICKNESSES: [(&str, Weather); 3] = [
    ("answers 503", Weather::Failing(100)),
    ("closes connections", Weather::Closing),
    ("is 10 x slower", Weather::Slow(Duration::from_millis(50))),
];

const OUTRIGGER: &str = "balance: round-robin, outlier_detection: { consecutive_5xx: 5, latency_factor: 5, \
     min_requests: 20, interval: 1s, base_ejection: 1s, max_ejected: 50% }";
/// It has no rule about latency.
const ENVOY: &str = "    lb_policy: ROUND_ROBIN
    outlier_detection: { consecutive_5xx: 5, interval: 1s, base_ejection_time: 1s, max_ejection_percent: 50 }
";

/// What one sickness came to.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    /// Requests that failed before the endpoint was left out for the first time.
    failed_before: usize,
    /// Share of the requests that failed while it was sick.
    failed: f64,
    /// Share of the requests in that time that it got.
    share: f64,
    /// How often it was left out in that time.
    left_out: usize,
    /// From its health to at least half of its share of requests; `None` when that was not seen.
    recovery: Option<Duration>,
    /// How often it was left out after that.
    flaps: usize,
}

/// Runs all sicknesses behind both proxies, and prints the table and the verdict.
pub(crate) fn run(tools: &Tools, dir: &Path) -> Result<()> {
    let runtime = runtime()?;
    let mut table = String::from(
        "| one of five | proxy | failed before it was left out | failed while it was sick | its share of requests then | left out, times | its share again after, s | left out after that |\n\
         |---|---|---:|---:|---:|---:|---:|---:|\n",
    );
    let mut ours = Vec::new();
    for (name, weather) in SICKNESSES {
        for (proxy, how) in [(Proxy::Outrigger, OUTRIGGER), (Proxy::Envoy, ENVOY)] {
            eprintln!("outliers, {name}: {proxy}");
            let folder = dir.join(format!("outliers-{}", proxy.name()));
            let outcome = runtime.block_on(experiment((proxy, how), weather, tools, &folder))?;
            let Outcome { failed_before, failed, share, left_out, recovery, flaps } = &outcome;
            let recovery = recovery.map_or("-".to_owned(), |time| format!("{:.1}", time.as_secs_f64()));
            writeln!(
                table,
                "| {name} | {proxy} | {failed_before} | {:.2} % | {:.1} % | {left_out} | {recovery} | {flaps} |",
                failed * 100.0,
                share * 100.0
            )
            .expect("a String takes all");
            if proxy == Proxy::Outrigger {
                ours.push(outcome);
            }
        }
    }
    println!("{table}\n{}", verdict(&ours));
    Ok(())
}

/// Whether Outrigger kept what it promises, in words.
fn verdict(ours: &[Outcome]) -> String {
    let failed = ours.iter().map(|outcome| outcome.failed).fold(0.0, f64::max);
    let recovery: Option<Vec<Duration>> = ours.iter().map(|outcome| outcome.recovery).collect();
    let recovery = recovery.and_then(|all| all.into_iter().max());
    let flaps: usize = ours.iter().map(|outcome| outcome.flaps).sum();
    let word = |passed| if passed { "pass" } else { "FAIL" };
    format!(
        "Outrigger: failed <= 1 % while sick: {:.2} %, {}; its share again within 6 s: {}, {}; left out after that: {flaps}, {}",
        failed * 100.0,
        word(failed <= 0.01),
        recovery.map_or("never".to_owned(), |time| format!("{:.1} s", time.as_secs_f64())),
        word(recovery.is_some_and(|time| time <= Duration::from_secs(6))),
        word(flaps == 0)
    )
}

async fn experiment(proxy: (Proxy, &str), weather: Weather, tools: &Tools, folder: &Path) -> Result<Outcome> {
    let mut services = Vec::new();
    for _ in 0..FIVE {
        let service = Service::start().await?;
        service.set(Weather::Slow(FAST));
        services.push(service);
    }
    let ports: Vec<u16> = services.iter().map(Service::port).collect();
    let (_running, listen) = fleet::before(proxy, &ports, folder, tools)?;
    let sick = &services[0];
    let clients = Clients::start(listen, &["/"]);
    let mut looks = Vec::new();
    watch(sick, CALM, &mut looks).await;
    let began = Instant::now();
    sick.set(weather);
    watch(sick, SICK, &mut looks).await;
    let ended = Instant::now();
    sick.set(Weather::Slow(FAST));
    watch(sick, AFTER, &mut looks).await;
    Ok(judge(&clients.finish().await, &looks, (began, ended)))
}

/// Requests that the endpoint had had by then.
type Look = (Instant, u64);

async fn watch(service: &Service, length: Duration, looks: &mut Vec<Look>) {
    let end = Instant::now() + length;
    let mut ticks = tokio::time::interval(LOOK);
    while Instant::now() < end {
        ticks.tick().await;
        looks.push((Instant::now(), service.requests()));
    }
}

fn judge(shots: &[Shot], looks: &[Look], (began, ended): (Instant, Instant)) -> Outcome {
    let pauses = pauses(looks);
    let first = pauses.iter().copied().find(|at| *at >= began).unwrap_or(ended);
    let during: Vec<&Shot> = shots.iter().filter(|shot| (began..ended).contains(&shot.at)).collect();
    let failed = |shot: &&&Shot| !shot.good;
    let had = |by: Instant| looks.iter().rev().find(|(at, _)| *at <= by).map_or(0, |(_, count)| *count);
    let back = back(looks, ended);
    Outcome {
        failed_before: during.iter().filter(failed).filter(|shot| shot.at <= first).count(),
        failed: during.iter().filter(failed).count() as f64 / during.len().max(1) as f64,
        share: (had(ended) - had(began)) as f64 / during.len().max(1) as f64,
        left_out: pauses.iter().filter(|at| (began..ended).contains(at)).count(),
        recovery: back.map(|at| at - ended),
        flaps: back.map_or(0, |back| pauses.iter().filter(|at| **at > back).count()),
    }
}

/// When it began to be without requests for at least [`QUIET`].
fn pauses(looks: &[Look]) -> Vec<Instant> {
    let mut pauses = Vec::new();
    for same in looks.chunk_by(|a, b| a.1 == b.1) {
        let (Some((from, _)), Some((to, _))) = (same.first(), same.last()) else { continue };
        if *to - *from >= QUIET {
            pauses.push(*from);
        }
    }
    pauses
}

/// From when on, after it was well, it had at least half of its share within a second.
fn back(looks: &[Look], well: Instant) -> Option<Instant> {
    let half = RATE / FIVE as u64 / 2;
    let after = looks.iter().enumerate().filter(|(_, (at, _))| *at >= well);
    let mut enough = after.filter(|(index, (at, count))| {
        let later = looks[*index..].iter().find(|(later, _)| *later - *at >= Duration::from_secs(1));
        later.is_some_and(|(_, later)| later - count >= half)
    });
    enough.next().map(|(_, (at, _))| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every 100 ms, at an endpoint that has so many requests between them.
    fn looks(start: Instant, steps: &[(u32, u64)]) -> Vec<Look> {
        let (mut at, mut count, mut looks) = (start, 0, vec![(start, 0)]);
        for (times, more) in steps {
            for _ in 0..*times {
                at += LOOK;
                count += more;
                looks.push((at, count));
            }
        }
        looks
    }

    #[test]
    fn what_is_left_out_and_what_is_back_is_seen_by_its_requests() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        // Well for 1 s, out for 2 s, one request that finds out, out for 1 s, back, and out once more.
        let looks = looks(start, &[(10, 8), (20, 0), (1, 1), (10, 0), (20, 8), (6, 0)]);
        assert_eq!(pauses(&looks), [at(1000), at(3100), at(6100)]);
        let shot = |ms, good| Shot { at: at(ms), took: Duration::from_millis(5), path: "/", good };
        let shots =
            [shot(900, false), shot(1000, false), shot(1100, true), shot(3050, false), shot(3200, true)];
        let outcome = judge(&shots, &looks, (at(900), at(3500)));
        assert_eq!((outcome.failed_before, outcome.left_out, outcome.flaps), (2, 2, 1));
        assert_eq!((outcome.failed, outcome.recovery), (0.6, Some(Duration::from_millis(100))));
    }

    #[test]
    fn verdicts() {
        let good = Outcome {
            failed_before: 5,
            failed: 0.005,
            share: 0.01,
            left_out: 4,
            recovery: Some(Duration::from_secs(3)),
            flaps: 0,
        };
        let all = |outcome: Outcome| verdict(&[good.clone(), outcome]);
        assert_eq!(all(good.clone()).matches("pass").count(), 3);
        for worse in [
            Outcome { failed: 0.02, ..good.clone() },
            Outcome { recovery: None, ..good.clone() },
            Outcome { flaps: 1, ..good.clone() },
        ] {
            assert_eq!(all(worse).matches("FAIL").count(), 1);
        }
    }
}
