//! The series that exist, all of them: one block of atomics for each listener and each cluster, one for the process.
//!
//! The table of each names every family once, beside the function that reads it. An owner asks the registry for its
//! block at first use and keeps it, so that a cluster that never saw a request costs nothing.

mod cluster;
mod listener;
mod process;

use std::fmt;

pub(super) use self::cluster::CLUSTER;
pub use self::cluster::ClusterStats;
pub(super) use self::listener::LISTENER;
pub use self::listener::ListenerStats;
pub(super) use self::process::PROCESS;
pub use self::process::{ProcessStats, Shed};
use super::cell::{Counter, Named};
use super::render::{Kind, Lines};

/// Where the durations of requests of clients are, for [`Registry::set_buckets`](super::Registry::set_buckets).
pub const DOWNSTREAM_DURATION: &str = "outrigger_downstream_request_duration_seconds";
/// The same for requests to clusters.
pub const UPSTREAM_DURATION: &str = "outrigger_upstream_request_duration_seconds";

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

    fn sum(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
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
