//! `outrigger demo --check`: requests through the proxy, each answer looked at, and the proxy's own figures held
//! against them. It passes only if every request was answered once, rightly, and every service had a part in it.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};

use super::client::{Answer, Client};
use super::echo::Service;
use super::table::percent;
use crate::body::Body;

/// How many requests are sent.
pub(super) const REQUESTS: usize = 300;
/// Sent at the same time; every second of them keeps its connection, the others take a new one for each request.
const LANES: usize = 12;
/// For all of it.
const PATIENCE: Duration = Duration::from_secs(15);
/// Failures that are told one by one.
const TOLD: usize = 5;

/// A right answer: who gave it, and how long it took.
type Right = (&'static str, Duration);

/// What came of it.
#[derive(Debug)]
pub(super) struct Report {
    services: Vec<Tally>,
    wrong: Vec<String>,
    /// Requests without any outcome when the time was over.
    unanswered: usize,
}

/// What came of it for one service.
#[derive(Debug)]
struct Tally {
    name: &'static str,
    address: SocketAddr,
    answered: u64,
    took: Duration,
    /// What the proxy says it sent there.
    sent: u64,
}

/// Sends the requests, and waits for what comes of them. `sent` reads the proxy's own figure for an address.
pub(super) async fn run(to: SocketAddr, services: &[Service], sent: impl Fn(SocketAddr) -> u64) -> Report {
    let outcomes = Rc::new(RefCell::new(Vec::new()));
    let names: Rc<[&'static str]> = services.iter().map(|service| service.name).collect();
    let lanes: Vec<_> = (0..LANES)
        .map(|lane| tokio::task::spawn_local(walk(lane, to, names.clone(), outcomes.clone())))
        .collect();
    let all = async {
        for lane in lanes {
            // A lane that panicked leaves requests unanswered, and that is told.
            let _ = lane.await;
        }
    };
    // What is late is unanswered, and that is told.
    let _ = tokio::time::timeout(PATIENCE, all).await;
    Report::new(services, outcomes.take(), sent)
}

async fn walk(
    lane: usize,
    to: SocketAddr,
    names: Rc<[&'static str]>,
    outcomes: Rc<RefCell<Vec<Result<Right, String>>>>,
) {
    let keep = lane.is_multiple_of(2);
    let mut client = Client::new(to);
    for number in (lane..REQUESTS).step_by(LANES) {
        if !keep {
            client = Client::new(to);
        }
        let mut outcome = match client.send(request(number, to, keep)).await {
            Ok(answer) => right(number, &answer, &names),
            Err(lost) => Err(lost.to_string()),
        };
        if outcome.is_ok() && client.connections() > 1 {
            outcome = Err("the connection before it was not kept open".to_owned());
        }
        outcomes.borrow_mut().push(outcome.map_err(|why| format!("request {number}: {why}")));
    }
}

/// Every third is a POST, with bodies from nothing to about 11 KiB.
fn parts(number: usize) -> (Method, String, Bytes) {
    let path = format!("/check/{number}?of={REQUESTS}");
    if number.is_multiple_of(3) {
        (Method::POST, path, format!("<{number}>").repeat(number * 8).into())
    } else {
        (Method::GET, path, Bytes::new())
    }
}

fn request(number: usize, to: SocketAddr, keep: bool) -> Request<Body> {
    let (method, path, body) = parts(number);
    let mut request =
        Request::builder().method(method).uri(path).header("host", to.to_string()).header("x-check", number);
    if !keep {
        request = request.header("connection", "close");
    }
    request.body(Body::full(body)).expect("its parts are valid")
}

/// Who gave this answer, if it is the echo of what was sent.
fn right(number: usize, answer: &Answer, names: &[&'static str]) -> Result<Right, String> {
    let Answer { status, body, took } = answer;
    if *status != StatusCode::OK {
        return Err(format!("{status}: {}", String::from_utf8_lossy(body).trim_end()));
    }
    let text = std::str::from_utf8(body).map_err(|_| "the answer is not text".to_owned())?;
    let (head, echoed) = text.split_once("\n\n").unwrap_or((text.trim_end_matches('\n'), ""));
    let mut lines = head.lines();
    let (method, path, sent) = parts(number);
    let line = lines.next().unwrap_or_default();
    let (name, seen) = line.split_once(": ").unwrap_or_default();
    let Some(name) = names.iter().find(|known| **known == name) else {
        return Err(format!("the answer is none of the services': {line:?}"));
    };
    if seen != format!("{method} {path}") {
        return Err(format!("{name} was asked {seen:?}"));
    }
    if !lines.any(|line| line == format!("x-check: {number}")) {
        return Err(format!("{name} did not get its header"));
    }
    if echoed.as_bytes() != sent {
        return Err(format!("{name} got another body: {} bytes, not {}", echoed.len(), sent.len()));
    }
    Ok((name, *took))
}

impl Report {
    fn new(
        services: &[Service],
        outcomes: Vec<Result<Right, String>>,
        sent: impl Fn(SocketAddr) -> u64,
    ) -> Self {
        let unanswered = REQUESTS.saturating_sub(outcomes.len());
        let mut report = Self { services: Vec::new(), wrong: Vec::new(), unanswered };
        for Service { name, address, delay: _ } in services {
            let sent = sent(*address);
            report.services.push(Tally { name, address: *address, answered: 0, took: Duration::ZERO, sent });
        }
        for outcome in outcomes {
            match outcome {
                Ok((name, took)) => {
                    for tally in report.services.iter_mut().filter(|tally| tally.name == name) {
                        tally.answered += 1;
                        tally.took += took;
                    }
                }
                Err(why) => report.wrong.push(why),
            }
        }
        report
    }

    fn answered(&self) -> u64 {
        self.services.iter().map(|tally| tally.answered).sum()
    }

    /// A line that says that all is well.
    ///
    /// # Errors
    /// All that is not.
    pub(super) fn verdict(&self) -> Result<String, Vec<String>> {
        let Self { services, wrong, unanswered } = self;
        let mut problems: Vec<String> = wrong.iter().take(TOLD).cloned().collect();
        if wrong.len() > TOLD {
            problems.push(format!("... and {} more", wrong.len() - TOLD));
        }
        if *unanswered > 0 {
            problems.push(format!("{unanswered} requests had no outcome within {} s", PATIENCE.as_secs()));
        }
        for Tally { name, address, answered, took: _, sent } in services {
            if *answered == 0 {
                problems.push(format!("{name} ({address}) answered nothing"));
            }
            if answered != sent {
                problems.push(format!("{name} ({address}) answered {answered}, and the proxy counts {sent}"));
            }
        }
        let answering = services.iter().filter(|tally| tally.answered > 0).count();
        let failed = REQUESTS as u64 - self.answered().min(REQUESTS as u64);
        let line = format!("{REQUESTS} requests, {failed} failed, {answering} endpoints answered");
        if problems.is_empty() && failed == 0 && self.answered() == REQUESTS as u64 {
            return Ok(format!("ok: {line}"));
        }
        problems.push(format!("failed: {line}"));
        Err(problems)
    }
}

/// A table of what each service did.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = format!("{:<24}{:>9}{:>9}{:>9}\n", "endpoint", "requests", "share", "mean ms");
        for Tally { name, address, answered, took, sent: _ } in &self.services {
            let label = format!("{address}  {name}");
            let share = percent(*answered, self.answered());
            let mean = took.as_secs_f64() * 1e3 / (*answered).max(1) as f64;
            writeln!(out, "{label:<24}{answered:>9}{share:>7.1} %{mean:>9.2}")?;
        }
        f.write_str(&out)
    }
}

#[cfg(test)]
mod tests;
