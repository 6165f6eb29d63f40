//! `wrk`: HTTP/1.1, for a number of seconds.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Load, microseconds};
use crate::error::{Doing, Failure, Result};
use crate::process::Running;

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wrk<'a> {
    /// Connections that are always busy.
    pub(crate) connections: usize,
    /// Whole seconds.
    pub(crate) seconds: u64,
    /// Scheme, host and port.
    pub(crate) origin: &'a str,
    /// Paths, asked for in turn.
    pub(crate) paths: &'a [String],
    /// A new connection for each request.
    pub(crate) fresh: bool,
}

impl Wrk<'_> {
    /// Runs the load, with its files in `dir`.
    pub(crate) fn run(self, program: &Path, dir: &Path) -> Result<Load> {
        let Self { connections, seconds, origin, paths, fresh } = self;
        let first = paths.first().ok_or_else(|| Failure::new("nothing to ask for"))?;
        let mut command = Command::new(program);
        command.args(["--threads", "1", "--latency", "--timeout", "10s"]);
        command.args(["--connections", &connections.to_string(), "--duration", &format!("{seconds}s")]);
        if fresh {
            command.args(["--header", "Connection: close"]);
        }
        if paths.len() > 1 {
            let script = dir.join("paths.lua");
            fs::write(&script, in_turn(paths)).doing(script.display())?;
            command.arg("--script").arg(script);
        }
        command.arg(format!("{origin}{first}"));
        let limit = Duration::from_secs(seconds + 30);
        let output = Running::start(command, &dir.join("wrk.log"))?.finish(limit)?;
        parse(&output).ok_or_else(|| Failure::new(format!("wrk said: {output}")))
    }
}

/// The requests are formatted once: the generator must not be what is measured.
fn in_turn(paths: &[String]) -> String {
    let mut script = "local requests, turn = {}, 0\ninit = function()\n".to_owned();
    for path in paths {
        writeln!(script, "  requests[#requests + 1] = wrk.format(\"GET\", \"{path}\")")
            .expect("a String takes all");
    }
    script
        .push_str("end\nrequest = function()\n  turn = turn % #requests + 1\n  return requests[turn]\nend\n");
    script
}

/// `None` when a line that wrk always prints is not there.
fn parse(output: &str) -> Option<Load> {
    let after = |start: &str| output.lines().find_map(|line| line.trim().strip_prefix(start)).map(str::trim);
    let mut load = Load {
        p50_us: microseconds(after("50%")?)?,
        p99_us: microseconds(after("99%")?)?,
        ..Load::default()
    };
    let (requests, rest) = output.lines().find_map(|line| line.trim().split_once(" requests in "))?;
    load.requests = requests.parse().ok()?;
    load.seconds = microseconds(rest.split(',').next()?)? / 1e6;
    if let Some(errors) = after("Socket errors:") {
        load.errors.push(format!("socket errors: {errors}"));
    }
    if let Some(count) = after("Non-2xx or 3xx responses:") {
        load.errors.push(format!("{count} answers were not 2xx"));
    }
    Some(load)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Running 2s test @ http://127.0.0.1:20001/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.10ms  412.03us  12.33ms   91.20%
    Req/Sec    29.20k     1.10k   31.00k    70.00%
  Latency Distribution
     50%    1.05ms
     75%    1.20ms
     90%    1.41ms
     99%    2.91ms
  58123 requests in 2.00s, 23.10MB read
Requests/sec:  29051.21
Transfer/sec:     11.55MB
";

    #[test]
    fn output() {
        #[track_caller]
        fn check(output: &str, expected: Option<Load>) {
            assert_eq!(parse(output), expected);
        }
        let good = Load { requests: 58_123, seconds: 2.0, p50_us: 1050.0, p99_us: 2910.0, errors: vec![] };
        check(GOOD, Some(good.clone()));
        let bad = "  Socket errors: connect 0, read 7, write 0, timeout 0\n  Non-2xx or 3xx responses: 12\nRequests/sec";
        let errors = vec![
            "socket errors: connect 0, read 7, write 0, timeout 0".to_owned(),
            "12 answers were not 2xx".to_owned(),
        ];
        check(&GOOD.replace("Requests/sec", bad), Some(Load { errors, ..good }));
        check("unable to connect to 127.0.0.1:20001 Connection refused", None);
    }
}
