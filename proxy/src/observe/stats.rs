//! The series that exist, all of them: one block of atomics for each listener and each cluster, one for the process.
//!
//! The tables below name every family once, beside the function that reads it. An owner asks the registry for its
//! block at first use and keeps it, so that a cluster that never saw a request costs nothing.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::cell::{Counter, Gauge, Histogram, Named};
use super::render::{Kind, Lines};

/// Where the durations of requests of clients are, for [`Registry::set_buckets`](super::Registry::set_buckets).
pub const DOWNSTREAM_DURATION: &str = "outrigger_downstream_request_duration_seconds";
/// The same for requests to clusters.
pub const UPSTREAM_DURATION: &str = "outrigger_upstream_request_duration_seconds";

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
    fallbacks: Named,
    faults: Named,
    rate_limit_service: Named,
}

impl ListenerStats {
    pub(super) fn new(bounds: Arc<[f64]>) -> Self {
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
    pub(super) fn new(bounds: Arc<[f64]>) -> Self {
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

/// What the process did.
#[derive(Debug, Default)]
pub struct ProcessStats {
    /// Worker threads.
    pub workers: Gauge,
    /// 1 while the process drains.
    pub draining: Gauge,
    /// How hard pressed the process is: 0 is normal, 1 pressed, 2 overloaded.
    pub overload_level: Gauge,
    /// What was not done for want of room.
    pub shed: Shed,
    /// Lines of the access log that were not written.
    pub access_log_dropped: Arc<Counter>,
    /// Bytes of answers that are kept to fall back to; counted where they are kept.
    pub stale_bytes: Arc<AtomicU64>,
    /// When the identity in force expires, in seconds since 1970; 0 while there is none.
    pub identity_expiry: Gauge,
    /// Identities, roots or revocation lists that came into force.
    pub identity_updates: Counter,
    /// The same, refused or not to be had.
    pub identity_failures: Counter,
    /// Times that keys of tokens could not be fetched, or read.
    pub jwks_failures: Counter,
    pub(super) folded: Counter,
    version: Gauge,
    loaded: Counter,
    refused: Counter,
    succeeded: Gauge,
    loaded_at: Gauge,
}

/// What was not done because the process was pressed or overloaded.
#[derive(Debug, Default)]
pub struct Shed {
    /// Requests refused.
    pub requests: Counter,
    /// Connections closed as soon as they were accepted.
    pub connections: Counter,
    /// Copies of requests not sent.
    pub mirrors: Counter,
    /// Further attempts not made, hedges included.
    pub retries: Counter,
}

impl ProcessStats {
    /// A configuration came into force, the first one included; `version` counts them.
    pub fn config_loaded(&self, version: u64, at: SystemTime) {
        self.version.set(i64::try_from(version).unwrap_or(i64::MAX));
        self.loaded.increment(1);
        self.succeeded.set(1);
        let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.loaded_at.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// An identity came into force, or what belongs to it.
    pub fn identity(&self, expires: SystemTime) {
        self.identity_updates.increment(1);
        let seconds = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.identity_expiry.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// A configuration was refused; the one before stays in force.
    pub fn config_refused(&self) {
        self.refused.increment(1);
        self.succeeded.set(0);
    }
}

/// Most calls carry bodies one way at most, and an add of nothing would still fetch the cache line to write.
fn add(counter: &Counter, bytes: u64) {
    if bytes > 0 {
        counter.increment(bytes);
    }
}

/// Requests by the class of their status.
#[derive(Debug, Default)]
struct Classes([Counter; CLASSES.len()]);

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Written even when nothing was counted, because the rate of a series begins with its second value: without them the
/// first error of a process would not show.
const ALWAYS: [&str; 2] = ["2xx", "5xx"];

impl Classes {
    /// A status above 599 has no meaning; clients treat it as 5xx (RFC 9110, section 15).
    fn of(&self, status: u16) -> &Counter {
        &self.0[usize::from(status / 100).min(CLASSES.len() - 1)]
    }

    fn write(&self, labels: &str, lines: &mut Lines<'_>) -> fmt::Result {
        for (class, counter) in CLASSES.iter().zip(&self.0) {
            if counter.get() > 0 || ALWAYS.contains(class) {
                lines.sample(labels, Some(("code", class)), counter.get())?;
            }
        }
        Ok(())
    }
}

/// One name, and how a block of kind `S` writes its series.
pub(super) struct Family<S> {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) write: Write<S>,
}

/// Reads a block; the text is its rendered labels.
type Write<S> = fn(&S, &str, &mut Lines<'_>) -> fmt::Result;

impl<S> Family<S> {
    const fn counter(name: &'static str, help: &'static str, write: Write<S>) -> Self {
        Self { name, kind: Kind::Counter, help, write }
    }

    const fn gauge(name: &'static str, help: &'static str, write: Write<S>) -> Self {
        Self { name, kind: Kind::Gauge, help, write }
    }

    const fn histogram(name: &'static str, help: &'static str, write: Write<S>) -> Self {
        Self { name, kind: Kind::Histogram, help, write }
    }
}

fn named(by: &Named, key: &str, labels: &str, lines: &mut Lines<'_>) -> fmt::Result {
    by.read().into_iter().try_for_each(|(name, count)| lines.sample(labels, Some((key, name)), count))
}

pub(super) const LISTENER: &[Family<ListenerStats>] = &[
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

pub(super) const CLUSTER: &[Family<ClusterStats>] = &[
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

pub(super) const PROCESS: &[Family<ProcessStats>] = &[
    Family::counter(
        "outrigger_access_log_dropped_lines_total",
        "Access log lines that were not written.",
        |of, labels, lines| lines.sample(labels, None, of.access_log_dropped.get()),
    ),
    Family::gauge("outrigger_build_info", "What runs.", |_, labels, lines| {
        lines.sample(labels, Some(("version", env!("CARGO_PKG_VERSION"))), 1)
    }),
    Family::gauge(
        "outrigger_config_last_reload_success_timestamp_seconds",
        "When the configuration in force was loaded.",
        |of, labels, lines| lines.sample(labels, None, of.loaded_at.get()),
    ),
    Family::gauge(
        "outrigger_config_last_reload_successful",
        "Whether the last configuration was taken.",
        |of, labels, lines| lines.sample(labels, None, of.succeeded.get()),
    ),
    Family::counter(
        "outrigger_config_reloads_total",
        "Configurations read, by result.",
        |of, labels, lines| {
            lines.sample(labels, Some(("result", "failed")), of.refused.get())?;
            lines.sample(labels, Some(("result", "ok")), of.loaded.get())
        },
    ),
    Family::gauge("outrigger_config_version", "Counts the configurations in force.", |of, labels, lines| {
        lines.sample(labels, None, of.version.get())
    }),
    Family::gauge("outrigger_draining", "Whether the process drains.", |of, labels, lines| {
        lines.sample(labels, None, of.draining.get())
    }),
    Family::counter(
        "outrigger_metrics_folded_total",
        "Label sets that were folded into `other`.",
        |of, labels, lines| lines.sample(labels, None, of.folded.get()),
    ),
    Family::gauge(
        "outrigger_identity_expiry_timestamp_seconds",
        "When the identity in force expires; 0 while there is none.",
        |of, labels, lines| lines.sample(labels, None, of.identity_expiry.get()),
    ),
    Family::counter(
        "outrigger_identity_updates_total",
        "Certificates, roots or revocation lists of the identity that came into force.",
        |of, labels, lines| lines.sample(labels, None, of.identity_updates.get()),
    ),
    Family::counter(
        "outrigger_identity_failures_total",
        "Times that the identity could not be renewed, or what was offered was refused.",
        |of, labels, lines| lines.sample(labels, None, of.identity_failures.get()),
    ),
    Family::counter(
        "outrigger_jwks_failures_total",
        "Times that keys of tokens could not be fetched, or read.",
        |of, labels, lines| lines.sample(labels, None, of.jwks_failures.get()),
    ),
    Family::gauge(
        "outrigger_overload_level",
        "How hard pressed the process is: 0 normal, 1 pressed, 2 overloaded.",
        |of, labels, lines| lines.sample(labels, None, of.overload_level.get()),
    ),
    Family::counter(
        "outrigger_overload_shed_total",
        "What was not done because the process was pressed or overloaded.",
        |of, labels, lines| {
            let Shed { requests, connections, mirrors, retries } = &of.shed;
            let all =
                [("connection", connections), ("mirror", mirrors), ("request", requests), ("retry", retries)];
            all.into_iter()
                .try_for_each(|(what, count)| lines.sample(labels, Some(("what", what)), count.get()))
        },
    ),
    Family::gauge(
        "outrigger_stale_bytes",
        "Memory of answers that routes keep to fall back to.",
        |of, labels, lines| lines.sample(labels, None, of.stale_bytes.load(Relaxed)),
    ),
    Family::gauge("outrigger_workers", "Worker threads.", |of, labels, lines| {
        lines.sample(labels, None, of.workers.get())
    }),
];
