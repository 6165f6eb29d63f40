//! Changes of everything that changes while a mesh is in use, one after the other, at random and always the same.

use std::fmt::Write;

/// What the changes are drawn from.
pub(crate) const SEED: u64 = 5;

const BALANCERS: [&str; 4] = ["round-robin", "random", "least-request", "peak-ewma"];

/// A mesh, as it is at the moment.
#[derive(Clone, Debug)]
pub(crate) struct Mesh {
    random: fastrand::Rng,
    /// Where its listener, and one that comes and goes, listen.
    pub(crate) listen: [u16; 2],
    /// Who is always there, and who comes and goes.
    pub(crate) stays: u16,
    pub(crate) comes_and_goes: u16,
    is_there: bool,
    weight: u64,
    timeout: u64,
    connect: u64,
    requests: u64,
    failures: u64,
    idle: u64,
    balance: usize,
    more: [bool; 2],
}

impl Mesh {
    pub(crate) fn new(listen: [u16; 2], stays: u16, comes_and_goes: u16) -> Self {
        Self {
            random: fastrand::Rng::with_seed(SEED),
            listen,
            stays,
            comes_and_goes,
            is_there: true,
            weight: 1,
            timeout: 15,
            connect: 5,
            requests: 1000,
            failures: 5,
            idle: 60,
            balance: 0,
            more: [false; 2],
        }
    }

    /// One change: of endpoints three times in twelve, of clusters four, of routes three, of listeners two.
    pub(crate) fn edit(&mut self) {
        let more = self.random.u64(1..9);
        match self.random.u8(0..12) {
            0 | 1 => self.is_there = !self.is_there,
            2 => self.weight = (self.weight + more) % 10 + 1,
            3 => self.connect = 5 + (self.connect + more) % 10,
            4 => self.requests = 1000 + (self.requests + more) % 10,
            5 => self.failures = 5 + (self.failures + more) % 10,
            6 => self.balance = (self.balance + 1) % BALANCERS.len(),
            7 | 8 => self.timeout = 15 + (self.timeout + more) % 10,
            9 => self.more[0] = !self.more[0],
            10 => self.idle = 60 + (self.idle + more) % 10,
            _ => self.more[1] = !self.more[1],
        }
    }

    /// It as a document.
    pub(crate) fn text(&self) -> String {
        let Self { listen: [port, other], stays, comes_and_goes, weight, timeout, idle, .. } = self;
        let (mut listener, mut route) = (String::new(), String::new());
        if self.more[1] {
            let _ = writeln!(listener, "  more: {{ bind: 127.0.0.1:{other}, routes: [{{ to: app }}] }}");
        }
        if self.more[0] {
            let _ = writeln!(route, "      - {{ match: {{ path: {{ prefix: /more }} }}, to: calls }}");
        }
        let mut endpoints = format!("{{ address: 127.0.0.1:{stays}, weight: {weight} }}");
        if self.is_there {
            let _ = write!(endpoints, ", 127.0.0.1:{comes_and_goes}");
        }
        let cluster = |name: &str, protocol: &str| {
            format!(
                "  {name}:\n    endpoints: [{endpoints}]\n    protocol: {protocol}\n    balance: {}\n    connect_timeout: {}s\n    \
                 circuit_breaker: {{ max_requests: {} }}\n    outlier_detection: {{ consecutive_5xx: {} }}\n",
                BALANCERS[self.balance], self.connect, self.requests, self.failures
            )
        };
        format!(
            "listeners:\n{listener}  web:\n    bind: 127.0.0.1:{port}\n    limits: {{ idle_timeout: {idle}m }}\n    routes:\n{route}      \
             - {{ match: {{ path: {{ exact: /call }} }}, to: calls }}\n      - {{ match: {{ path: {{ exact: /chat }} }}, to: app }}\n      \
             - {{ match: {{ path: {{ exact: /h2 }} }}, to: calls, timeout: {timeout}s }}\n      - {{ to: app, timeout: {timeout}s }}\n\
             clusters:\n{}{}",
            cluster("app", "http1"),
            cluster("calls", "http2")
        )
    }
}
