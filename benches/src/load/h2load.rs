//! `h2load`: HTTP/2, a number of requests.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Load, microseconds};
use crate::error::{Doing, Failure, Result};
use crate::measure::percentile;
use crate::process::Running;

/// Longest run.
const LIMIT: Duration = Duration::from_secs(120);

/// What TLS must have agreed on, as h2load prints it.
const AGREED: [&str; 3] =
    ["TLS Protocol: TLSv1.3", "Cipher: TLS_AES_128_GCM_SHA256", "Server Temp Key: X25519 253 bits"];

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct H2load<'a> {
    /// Connections.
    pub(crate) clients: u64,
    /// Streams of each that are always busy.
    pub(crate) streams: u64,
    /// Requests in all.
    pub(crate) requests: u64,
    /// The one URL; prior knowledge when it is not `https`.
    pub(crate) url: &'a str,
}

impl H2load<'_> {
    /// Runs the load, with its files in `dir`.
    pub(crate) fn run(self, program: &Path, dir: &Path) -> Result<Load> {
        let Self { clients, streams, requests, url } = self;
        // One line for each request: its summary has no percentiles.
        let lines = dir.join("requests.tsv");
        let _absent = fs::remove_file(&lines);
        let mut command = Command::new(program);
        command.args(["--threads=1", "--tls13-ciphers=TLS_AES_128_GCM_SHA256", "--groups=X25519"]);
        command.args([format!("--clients={clients}"), format!("--max-concurrent-streams={streams}")]);
        command.args([format!("--requests={requests}"), format!("--log-file={}", lines.display())]);
        command.arg(url);
        let output = Running::start(command, &dir.join("h2load.log"))?.finish(LIMIT)?;
        let mut load = parse(&output).ok_or_else(|| Failure::new(format!("h2load said: {output}")))?;
        if url.starts_with("https:") {
            load.errors.extend(disagreements(&output));
        }
        let mut times = times(&fs::read_to_string(&lines).doing("reading the times of h2load")?);
        load.p50_us = percentile(&mut times, 50).unwrap_or(0) as f64;
        load.p99_us = percentile(&mut times, 99).unwrap_or(0) as f64;
        Ok(load)
    }
}

/// Microseconds of each request, the third column.
fn times(lines: &str) -> Vec<u64> {
    lines.lines().filter_map(|line| line.split('\t').nth(2)?.trim().parse().ok()).collect()
}

/// What the handshake should have agreed on, and did not.
fn disagreements(output: &str) -> Vec<String> {
    let said = |line: &str| output.lines().any(|one| one.trim() == line);
    AGREED.iter().filter(|line| !said(line)).map(|line| format!("no \"{line}\"")).collect()
}

/// `None` when a line that h2load always prints is not there.
fn parse(output: &str) -> Option<Load> {
    let after = |start: &str| output.lines().find_map(|line| line.trim().strip_prefix(start)).map(str::trim);
    let counted = |line: &str, what: &str| {
        line.split(',').find_map(|part| part.trim().strip_suffix(what)?.trim().parse::<u64>().ok())
    };
    let (requests, codes) = (after("requests:")?, after("status codes:")?);
    let good = counted(codes, "2xx")?;
    let mut errors: Vec<String> = ["failed", "errored", "timeout"]
        .into_iter()
        .filter_map(|what| Some((what, counted(requests, what)?)))
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    let others = counted(requests, "total")?.saturating_sub(good);
    if others > 0 {
        errors.push(format!("{others} answers were not 2xx"));
    }
    match after("Application protocol:") {
        Some("h2" | "h2c") => {}
        Some(other) => errors.push(format!("spoke {other}, not HTTP/2")),
        None => errors.push("no protocol was agreed on".to_owned()),
    }
    let seconds = microseconds(after("finished in")?.split(',').next()?)? / 1e6;
    Some(Load { requests: good, seconds, p50_us: 0.0, p99_us: 0.0, errors })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "starting benchmark...
spawning thread #0: 8 total client(s). 10000 total requests
TLS Protocol: TLSv1.3
Cipher: TLS_AES_128_GCM_SHA256
Server Temp Key: X25519 253 bits
Application protocol: h2
progress: 100% done

finished in 812.50ms, 12307.69 req/s, 4.50MB/s
requests: 10000 total, 10000 started, 10000 done, 10000 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 10000 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 3.66MB (3837421) total, 302.73KB (309997) headers (space savings 96.46%), 2.44MB (2560000) data
";

    #[test]
    fn output() {
        #[track_caller]
        fn check(output: &str, errors: &[&str]) {
            let load = parse(output).unwrap();
            assert_eq!(load.errors, errors);
            assert_eq!(load.seconds, 0.8125);
        }
        check(GOOD, &[]);
        assert_eq!(parse(GOOD).unwrap().requests, 10_000);
        check(&GOOD.replace("10000 2xx, 0 3xx", "9990 2xx, 10 3xx"), &["10 answers were not 2xx"]);
        check(&GOOD.replace("protocol: h2", "protocol: http/1.1"), &["spoke http/1.1, not HTTP/2"]);
        let failed =
            GOOD.replace("0 failed, 0 errored", "3 failed, 3 errored").replace("10000 2xx", "9997 2xx");
        check(&failed, &["3 failed", "3 errored", "3 answers were not 2xx"]);
        assert_eq!(parse("Could not connect to 127.0.0.1"), None);
    }

    #[test]
    fn handshake() {
        #[track_caller]
        fn check(output: &str, missing: usize) {
            assert_eq!(disagreements(output).len(), missing);
        }
        check(GOOD, 0);
        check(&GOOD.replace("X25519 253", "P-256 256"), 1);
        check("", 3);
    }

    #[test]
    fn columns() {
        assert_eq!(times("1700000000000000\t200\t512\n1700000000000100\t200\t1024\n\n"), [512, 1024]);
    }
}
