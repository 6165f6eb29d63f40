//! What a cluster counts.

use std::sync::Arc;
use std::time::Duration;

use super::super::cell::{Counter, Gauge, Histogram, Named};
use super::{Classes, Family, UPSTREAM_DURATION, add, named};

/// What one cluster did.
#[derive(Debug)]
pub struct ClusterStats {
    /// Requests in flight.
    pub active: Gauge,
    /// Open connections.
    pub connections: Gauge,
    /// Established connections.
    pub connections_total: Counter,
    /// Of the open connections, those that wait in a pool.
    pub idle: Gauge,
    /// Requests sent again because a reused connection died before it answered.
    pub replays: Counter,
    /// Attempts beyond the first.
    pub retries: Counter,
    /// Attempts beside one that was slow; they are no retries.
    pub hedges: Counter,
    /// Copies that were sent here.
    pub mirrors: Counter,
    /// Copies that were not sent, or given up.
    pub mirrors_dropped: Counter,
    /// Requests for which nobody looked whether their endpoint was well, as too few are.
    pub panics: Counter,
    /// Ejections that would have left out too many.
    pub spared: Counter,
    ejections: Named,
    retries_skipped: Named,
    overflows: Named,
    requests: Classes,
    duration: Histogram,
    received: Counter,
    sent: Counter,
    connect_failures: Named,
    health_checks: Named,
    /// One more than there are; 0 while nobody checks.
    healthy: Gauge,
}

impl ClusterStats {
    pub(in super::super) fn new(bounds: Arc<[f64]>) -> Self {
        Self {
            active: Gauge::default(),
            connections: Gauge::default(),
            connections_total: Counter::default(),
            idle: Gauge::default(),
            replays: Counter::default(),
            retries: Counter::default(),
            hedges: Counter::default(),
            mirrors: Counter::default(),
            mirrors_dropped: Counter::default(),
            panics: Counter::default(),
            spared: Counter::default(),
            ejections: Named::default(),
            retries_skipped: Named::default(),
            overflows: Named::default(),
            requests: Classes::default(),
            duration: Histogram::new(bounds),
            received: Counter::default(),
            sent: Counter::default(),
            connect_failures: Named::default(),
            health_checks: Named::default(),
            healthy: Gauge::default(),
        }
    }

    /// A request ended. `status` is what the endpoint answered, 0 if it answered nothing.
    pub fn request(&self, status: u16, took: Duration) {
        self.requests.of(status).increment(1);
        self.duration.record(took);
    }

    /// How much was led there so far, requests and connections, and whether something of it is under way.
    pub fn used(&self) -> (u64, bool) {
        let busy = self.active.get() > 0 || self.connections.get() > self.idle.get();
        (self.requests.sum() + self.connections_total.get(), busy)
    }

    /// An endpoint was ejected, for this cause.
    pub fn ejected(&self, cause: &'static str) {
        self.ejections.of(cause).increment(1);
    }

    /// An attempt that was wanted was not made; `reason` says why.
    pub fn retry_skipped(&self, reason: &'static str) {
        self.retries_skipped.of(reason).increment(1);
    }

    /// A limit of the cluster's circuit breaker was reached; `which` is its name in the configuration.
    pub fn overflow(&self, which: &'static str) {
        self.overflows.of(which).increment(1);
    }

    /// Requests that a circuit breaker refused, by its limit.
    pub fn overflowed(&self) -> Vec<(&'static str, u64)> {
        self.overflows.read()
    }

    /// A connection was not established.
    pub fn connect_failure(&self, reason: &'static str) {
        self.connect_failures.of(reason).increment(1);
    }

    /// An endpoint was checked; `result` is what the check found.
    pub fn health_check(&self, result: &'static str) {
        self.health_checks.of(result).increment(1);
    }

    /// So many endpoints may be used by their checks; `None` while nobody checks.
    pub fn endpoints_healthy(&self, count: Option<usize>) {
        self.healthy.set(count.map_or(0, |count| i64::try_from(count).unwrap_or(i64::MAX - 1) + 1));
    }

    /// Bytes of bodies, or of TCP, received from endpoints and sent to them.
    pub fn bytes(&self, received: u64, sent: u64) {
        add(&self.received, received);
        add(&self.sent, sent);
    }
}

pub(in super::super) const CLUSTER: &[Family<ClusterStats>] = &[
    Family::counter(
        "outrigger_upstream_connect_failures_total",
        "Connections that were not established, by reason.",
        |of, labels, lines| named(&of.connect_failures, "reason", labels, lines),
    ),
    Family::gauge("outrigger_upstream_connections", "Open connections to endpoints.", |of, labels, lines| {
        lines.sample(labels, None, of.connections.get())
    }),
    Family::gauge("outrigger_upstream_connections_idle", "Connections in the pool.", |of, labels, lines| {
        lines.sample(labels, None, of.idle.get())
    }),
    Family::counter(
        "outrigger_upstream_connections_total",
        "Established connections.",
        |of, labels, lines| lines.sample(labels, None, of.connections_total.get()),
    ),
    Family::gauge(
        "outrigger_upstream_endpoints_healthy",
        "Endpoints that their health checks let have requests.",
        |of, labels, lines| match of.healthy.get() {
            0 => Ok(()),
            count => lines.sample(labels, None, count - 1),
        },
    ),
    Family::counter(
        "outrigger_upstream_health_checks_total",
        "Health checks of endpoints, by result.",
        |of, labels, lines| named(&of.health_checks, "result", labels, lines),
    ),
    Family::counter(
        "outrigger_upstream_ejections_spared_total",
        "Endpoints that were not ejected, as too many would have been.",
        |of, labels, lines| lines.sample(labels, None, of.spared.get()),
    ),
    Family::counter(
        "outrigger_upstream_ejections_total",
        "Endpoints that outlier detection ejected, by cause.",
        |of, labels, lines| named(&of.ejections, "cause", labels, lines),
    ),
    Family::counter(
        "outrigger_upstream_hedges_total",
        "Attempts beside one that was slow.",
        |of, labels, lines| lines.sample(labels, None, of.hedges.get()),
    ),
    Family::counter(
        "outrigger_upstream_mirrors_dropped_total",
        "Copies of requests that were not sent, or given up.",
        |of, labels, lines| lines.sample(labels, None, of.mirrors_dropped.get()),
    ),
    Family::counter("outrigger_upstream_mirrors_total", "Copies of requests.", |of, labels, lines| {
        lines.sample(labels, None, of.mirrors.get())
    }),
    Family::counter(
        "outrigger_upstream_overflows_total",
        "Requests that a circuit breaker refused, by limit.",
        |of, labels, lines| named(&of.overflows, "limit", labels, lines),
    ),
    Family::counter(
        "outrigger_upstream_panics_total",
        "Requests sent to any endpoint, well or not, as too few are well (panic_threshold).",
        |of, labels, lines| lines.sample(labels, None, of.panics.get()),
    ),
    Family::counter(
        "outrigger_upstream_received_bytes_total",
        "Body bytes received from endpoints.",
        |of, labels, lines| lines.sample(labels, None, of.received.get()),
    ),
    Family::counter(
        "outrigger_upstream_replays_total",
        "Requests sent again after a reused connection died.",
        |of, labels, lines| lines.sample(labels, None, of.replays.get()),
    ),
    Family::histogram(
        UPSTREAM_DURATION,
        "From sending a request to the end of its response.",
        |of, labels, lines| lines.histogram(labels, &of.duration),
    ),
    Family::gauge("outrigger_upstream_requests_active", "Requests in flight.", |of, labels, lines| {
        lines.sample(labels, None, of.active.get())
    }),
    Family::counter(
        "outrigger_upstream_requests_total",
        "Requests, by class of the status received.",
        |of, labels, lines| of.requests.write(labels, lines),
    ),
    Family::counter(
        "outrigger_upstream_retries_skipped_total",
        "Attempts that were wanted and not made, by reason.",
        |of, labels, lines| named(&of.retries_skipped, "reason", labels, lines),
    ),
    Family::counter("outrigger_upstream_retries_total", "Attempts beyond the first.", |of, labels, lines| {
        lines.sample(labels, None, of.retries.get())
    }),
    Family::counter(
        "outrigger_upstream_sent_bytes_total",
        "Body bytes sent to endpoints.",
        |of, labels, lines| lines.sample(labels, None, of.sent.get()),
    ),
];
