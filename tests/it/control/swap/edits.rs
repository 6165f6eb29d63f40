//! A hundred changes at random, as fast as they are taken, while clients ask by HTTP/1.1 and HTTP/2 and hold WebSockets and
//! calls of gRPC open.

use std::fmt::Write;

use outrigger_tests::load::{Load, OnClose};
use outrigger_tests::{Echo, Origin};

use super::super::{answered_by, port, proxy};
use super::{Held, Plane, connections, sockets};

const EDITS: usize = 100;

/// All that a change may be of.
#[derive(Clone, Debug)]
struct Mesh {
    /// Which of those who come and go are there.
    there: Vec<bool>,
    weight: u64,
    /// At first none: what is held open lives by the timeout that it began under.
    timeout: u64,
    connect: u64,
    balance: usize,
    requests: u64,
    failures: u64,
    slow_start: u64,
    body: u64,
    /// Further routes, listeners and clusters, by their numbers.
    routes: Vec<u64>,
    listeners: Vec<u64>,
    clusters: Vec<u64>,
    /// Of a hundred requests, so many go to another cluster.
    aside: u64,
}

impl Mesh {
    const BALANCERS: [&str; 5] =
        ["round-robin", "random", "least-request", "peak-ewma", "{ ring-hash: { hash: [source] } }"];

    fn new() -> Self {
        Self {
            there: vec![true, false],
            weight: 1,
            timeout: 0,
            connect: 5,
            balance: 0,
            requests: 1000,
            failures: 5,
            slow_start: 0,
            body: 1,
            routes: Vec::new(),
            listeners: Vec::new(),
            clusters: Vec::new(),
            aside: 0,
        }
    }

    /// What comes or goes of further things.
    fn toggle(of: &mut Vec<u64>, random: &mut fastrand::Rng) {
        let number = random.u64(0..5);
        match of.iter().position(|one| *one == number) {
            Some(at) => drop(of.remove(at)),
            None => of.push(number),
        }
    }

    /// One change.
    fn edit(&mut self, random: &mut fastrand::Rng) {
        let other = |old: u64, random: &mut fastrand::Rng| (old + random.u64(1..50)) % 50 + 1;
        match random.u8(0..13) {
            0 | 1 => {
                let one = random.usize(0..self.there.len());
                self.there[one] = !self.there[one];
            }
            2 => self.weight = other(self.weight, random),
            3 => self.timeout = 30 + other(self.timeout, random),
            4 => self.connect = 5 + other(self.connect, random),
            5 => self.balance = (self.balance + random.usize(1..5)) % 5,
            6 => self.requests = 1000 + other(self.requests, random),
            7 => self.failures = 5 + other(self.failures, random),
            8 => self.slow_start = other(self.slow_start, random),
            9 => self.body = other(self.body, random),
            10 => Self::toggle(&mut self.routes, random),
            11 => Self::toggle(&mut self.listeners, random),
            _ if random.bool() => Self::toggle(&mut self.clusters, random),
            _ => self.aside = (self.aside + random.u64(1..90)) % 90,
        }
    }

    fn text(&self, stage: &Stage) -> String {
        let (mut listeners, mut routes, mut clusters) = (String::new(), String::new(), String::new());
        for number in &self.listeners {
            let _ =
                writeln!(listeners, "  more-{number}: {{ bind: 127.0.0.1:0, routes: [{{ to: aside }}] }}");
        }
        for number in &self.routes {
            let _ = writeln!(routes, "      - {{ match: {{ path: {{ prefix: /x{number} }} }}, to: aside }}");
        }
        for number in &self.clusters {
            let _ = writeln!(clusters, "  more-{number}: {{ endpoints: [127.0.0.1:1] }}");
        }
        let there = stage.come_and_go.iter().zip(&self.there).filter(|(_, there)| **there);
        let mut endpoints = format!("{{ address: \"{}\", weight: {} }}", stage.stays.address(), self.weight);
        for (echo, _) in there {
            let _ = write!(endpoints, ", \"{}\"", echo.address());
        }
        let aside = if self.aside == 0 { String::new() } else { format!(", aside: {}", self.aside) };
        let timeout = if self.timeout == 0 { String::new() } else { format!(", timeout: {}s", self.timeout) };
        format!(
            "listeners:
{listeners}  web:
    bind: 127.0.0.1:0
    limits: {{ body: {}MiB }}
    routes:
{routes}      - {{ match: {{ path: {{ prefix: /chat }} }}, to: sockets }}
      - {{ to: {{ app: {}{aside} }}{timeout} }}
clusters:
{clusters}  sockets: {{ endpoints: [\"{}\"] }}
  aside: {{ endpoints: [127.0.0.1:{}] }}
  app:
    endpoints: [{endpoints}]
    balance: {}
    connect_timeout: {}s
    slow_start: {}s
    circuit_breaker: {{ max_requests: {} }}
    outlier_detection: {{ consecutive_5xx: {} }}
",
            self.body,
            100 - self.aside,
            stage.sockets.address(),
            port(&stage.aside),
            Self::BALANCERS[self.balance],
            self.connect,
            self.slow_start,
            self.requests,
            self.failures,
        )
    }
}

struct Stage {
    stays: Echo,
    come_and_go: [Echo; 2],
    aside: Echo,
    sockets: Origin,
}

#[tokio::test]
async fn a_hundred_changes_at_random_break_nothing() {
    let seed = fastrand::u64(..);
    eprintln!("the changes are those of seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stage = Stage {
        stays: Echo::start("stays").await,
        come_and_go: [Echo::start("first").await, Echo::start("second").await],
        aside: Echo::start("aside").await,
        sockets: sockets().await,
    };
    let mut mesh = Mesh::new();
    let mut plane = Plane::start(&mesh.text(&stage));
    let proxy = proxy(&plane.control, "a").await;
    answered_by(&proxy, "stays").await;
    let to = proxy.address("web");
    let mut held = Held::open(&proxy, 4).await;
    let loads = [Load::start(to, "/", 4, OnClose::Reconnect), Load::start_h2(to, "/", 2)];
    // Of those who come and go, how many connections may have ended: those that there were when they had gone.
    let mut may_end = [0; 2];
    for _ in 0..EDITS {
        let before = mesh.clone();
        while mesh.text(&stage) == before.text(&stage) {
            mesh.edit(&mut random);
        }
        for (number, echo) in stage.come_and_go.iter().enumerate() {
            if mesh.there[number] && !before.there[number] {
                // Whoever was on the way there has arrived.
                plane.taken().await;
                more(&loads, 20).await;
                may_end[number] = echo.opened();
            }
        }
        plane.apply(&mesh.text(&stage));
        held.say().await;
        more(&loads, 4).await;
        for (number, echo) in stage.come_and_go.iter().enumerate().filter(|(number, _)| mesh.there[*number]) {
            assert!(
                echo.closed() <= may_end[number],
                "{:?}, {} may have ended",
                connections(echo),
                may_end[number]
            );
        }
    }
    plane.taken().await;
    held.say().await;
    for load in loads {
        let outcome = load.stop().await;
        assert_eq!((outcome.failures, outcome.closes), (Vec::new(), 0));
    }
    for (of, closed) in [("stays", stage.stays.closed()), ("aside", stage.aside.closed())] {
        assert_eq!(closed, 0, "connections to {of}");
    }
    assert_eq!(stage.sockets.closed(), 0);
}

/// Waits until each of them has so many further answers.
async fn more(loads: &[Load], answers: usize) {
    for load in loads {
        load.more(answers).await;
    }
}
