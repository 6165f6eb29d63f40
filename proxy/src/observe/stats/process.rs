//! What the process counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::cell::{Counter, Gauge, Named};
use super::{Family, named};

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
    /// Whether the control plane is there.
    pub xds_connected: Gauge,
    /// Whether what is served of the control plane's is what it said before we began.
    pub xds_cached: Gauge,
    /// Resources of the control plane's that were refused.
    pub xds_refused: Counter,
    ignored: Named,
    pub(in super::super) folded: Counter,
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
        self.loaded_at.set(seconds(at));
    }

    /// An identity came into force, or what belongs to it.
    pub fn identity(&self, expires: SystemTime) {
        self.identity_updates.increment(1);
        self.identity_expiry.set(seconds(expires));
    }

    /// A resource of the control plane's was accepted, and this field of it has no effect; whether none was before that had it.
    pub fn xds_ignored(&self, field: &'static str) -> bool {
        let count = self.ignored.of(field);
        count.increment(1);
        count.get() == 1
    }

    /// A configuration was refused; the one before stays in force.
    pub fn config_refused(&self) {
        self.refused.increment(1);
        self.succeeded.set(0);
    }
}

/// Since 1970.
fn seconds(at: SystemTime) -> i64 {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

pub(in super::super) const PROCESS: &[Family<ProcessStats>] = &[
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
        "outrigger_xds_cached",
        "Whether the control plane has not spoken yet and what it said before the start is served, from `xds.cache`.",
        |of, labels, lines| lines.sample(labels, None, of.xds_cached.get()),
    ),
    Family::gauge(
        "outrigger_xds_connected",
        "Whether the control plane is there; 0 without one.",
        |of, labels, lines| lines.sample(labels, None, of.xds_connected.get()),
    ),
    Family::counter(
        "outrigger_xds_ignored_fields_total",
        "Resources of the control plane's that were accepted with a field that has no effect, by field.",
        |of, labels, lines| named(&of.ignored, "field", labels, lines),
    ),
    Family::counter(
        "outrigger_xds_refused_total",
        "Resources of the control plane's that were refused.",
        |of, labels, lines| lines.sample(labels, None, of.xds_refused.get()),
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
