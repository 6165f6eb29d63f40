//! What a listener counts.

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::xds::loads::Served;

use super::super::cell::{Counter, Gauge, Histogram, Named, Spread};
use super::{Classes, DOWNSTREAM_DURATION, Family, add, named};

/// One status of each class that answers.
const ANSWERED: [u16; 4] = [200, 300, 400, 500];

/// What one listener did.
#[derive(Debug)]
pub struct ListenerStats {
    /// Open connections.
    pub connections: Gauge,
    /// Accepted connections.
    pub connections_total: Counter,
    /// Requests in flight, from the whole head to the last byte of the response.
    pub requests_active: Gauge,
    requests: Classes,
    duration: Histogram,
    received: Counter,
    sent: Counter,
    limits: Named,
    errors: Named,
    security: Named,
    authorization: Named,
    jwt: Named,
    external_authorization: Named,
    fallbacks: Named,
    faults: Named,
    rate_limit_service: Named,
}

impl ListenerStats {
    pub(in super::super) fn new(bounds: Arc<[f64]>) -> Self {
        Self {
            connections: Gauge::default(),
            connections_total: Counter::default(),
            requests_active: Gauge::default(),
            requests: Classes::default(),
            duration: Histogram::new(bounds),
            received: Counter::default(),
            sent: Counter::default(),
            limits: Named::default(),
            errors: Named::default(),
            security: Named::default(),
            authorization: Named::default(),
            jwt: Named::default(),
            external_authorization: Named::default(),
            fallbacks: Named::default(),
            faults: Named::default(),
            rate_limit_service: Named::default(),
        }
    }

    /// A request ended. `status` is what the client got, 0 if it got none.
    pub fn request(&self, status: u16, took: Duration) {
        self.requests.of(status).increment(1);
        self.duration.record(took);
    }

    /// What it has answered so far. What nobody waited for any more is neither good nor failed.
    pub fn served(&self) -> Served {
        let total: u64 = ANSWERED.iter().map(|status| self.requests.of(*status).get()).sum();
        let failed = self.requests.of(500).get();
        let mut before = 0;
        let Spread { buckets, sum: _, count } = self.duration.read();
        let all = buckets.into_iter().chain([(f64::INFINITY, count)]);
        let took = all.map(|(bound, below)| (bound, below - std::mem::replace(&mut before, below)));
        Served { good: total - failed, failed, took: took.filter(|(_, count)| *count > 0).collect() }
    }

    /// A limit was hit; `which` is its name in the configuration.
    pub fn limit(&self, which: &'static str) {
        self.limits.of(which).increment(1);
    }

    /// We answered for somebody, or a connection broke; `reason` is a reason code of ours.
    pub fn error(&self, reason: &'static str) {
        self.errors.of(reason).increment(1);
    }

    /// A token was `good`, or not good for this reason.
    pub fn jwt(&self, result: &'static str) {
        self.jwt.of(result).increment(1);
    }

    /// A service was asked whether a request is let in; `result` is what came of it.
    pub fn external_authorization(&self, result: &'static str) {
        self.external_authorization.of(result).increment(1);
    }

    /// A connection came as one of `mtls`, `tls` or `plaintext`, to a listener that knows of TLS.
    pub fn security(&self, which: &'static str) {
        self.security.of(which).increment(1);
    }

    /// The listener's rules have decided so about a request or a connection.
    pub fn authorization(&self, decision: &'static str) {
        self.authorization.of(decision).increment(1);
    }

    /// A route's fallback of this kind was served.
    pub fn fallback(&self, kind: &'static str) {
        self.fallbacks.of(kind).increment(1);
    }

    /// A request was made to fail on purpose; `kind` is how.
    pub fn fault(&self, kind: &'static str) {
        self.faults.of(kind).increment(1);
    }

    /// A rate limit service was asked, or needed not be; `result` is what came of it.
    pub fn rate_limit_service(&self, result: &'static str) {
        self.rate_limit_service.of(result).increment(1);
    }

    /// Bytes of bodies, or of TCP, received from clients and sent to them.
    pub fn bytes(&self, received: u64, sent: u64) {
        add(&self.received, received);
        add(&self.sent, sent);
    }
}

pub(in super::super) const LISTENER: &[Family<ListenerStats>] = &[
    Family::gauge("outrigger_downstream_connections", "Open connections of clients.", |of, labels, lines| {
        lines.sample(labels, None, of.connections.get())
    }),
    Family::counter(
        "outrigger_downstream_connections_total",
        "Accepted connections.",
        |of, labels, lines| lines.sample(labels, None, of.connections_total.get()),
    ),
    Family::counter(
        "outrigger_downstream_errors_total",
        "Requests and connections that failed, by reason.",
        |of, labels, lines| named(&of.errors, "reason", labels, lines),
    ),
    Family::counter(
        "outrigger_downstream_authorization_total",
        "Requests, and connections of TCP, by what `authorization` decided: allowed, denied, would_allow or would_deny.",
        |of, labels, lines| named(&of.authorization, "decision", labels, lines),
    ),
    Family::counter(
        "outrigger_downstream_external_authorization_total",
        "Requests that a service was asked about (`external_authorization`), by result: ok, denied or error.",
        |of, labels, lines| named(&of.external_authorization, "result", labels, lines),
    ),
    Family::counter(
        "outrigger_downstream_jwt_total",
        "Tokens of requests, and tokens that were missing, by result: good, or why not.",
        |of, labels, lines| named(&of.jwt, "result", labels, lines),
    ),
    Family::counter(
        "outrigger_downstream_security_total",
        "Connections to listeners with TLS, by how they came: mtls, tls or plaintext.",
        |of, labels, lines| named(&of.security, "security", labels, lines),
    ),
    Family::counter(
        "outrigger_downstream_fallbacks_total",
        "Requests that a route's fallback answered, by kind.",
        |of, labels, lines| named(&of.fallbacks, "kind", labels, lines),
    ),
    Family::counter(
        "outrigger_downstream_faults_total",
        "Requests that were made to fail on purpose, by kind.",
        |of, labels, lines| named(&of.faults, "kind", labels, lines),
    ),
    Family::counter("outrigger_downstream_limits_total", "Limits that were hit.", |of, labels, lines| {
        named(&of.limits, "limit", labels, lines)
    }),
    Family::counter(
        "outrigger_downstream_rate_limit_service_total",
        "Requests that a rate limit service decided on, by result.",
        |of, labels, lines| named(&of.rate_limit_service, "result", labels, lines),
    ),
    Family::counter(
        "outrigger_downstream_received_bytes_total",
        "Body bytes received from clients.",
        |of, labels, lines| lines.sample(labels, None, of.received.get()),
    ),
    Family::histogram(
        DOWNSTREAM_DURATION,
        "From the head of a request to the end of its response.",
        |of, labels, lines| lines.histogram(labels, &of.duration),
    ),
    Family::gauge("outrigger_downstream_requests_active", "Requests in flight.", |of, labels, lines| {
        lines.sample(labels, None, of.requests_active.get())
    }),
    Family::counter(
        "outrigger_downstream_requests_total",
        "Requests, by class of the status sent.",
        |of, labels, lines| of.requests.write(labels, lines),
    ),
    Family::counter(
        "outrigger_downstream_sent_bytes_total",
        "Body bytes sent to clients.",
        |of, labels, lines| lines.sample(labels, None, of.sent.get()),
    ),
];
