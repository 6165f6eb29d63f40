//! What the process tells about itself: series for Prometheus, and one line a request.
//!
//! Handles are passed in; there is no global. What runs for each request, recording a value and formatting a line,
//! takes no lock and allocates nothing. What is rare (a new cluster, a scrape, a batch of lines) pays for that: it
//! runs behind a mutex or on a thread of its own. Labels come from the configuration or from small fixed sets, never
//! from a request, so no client can make a series.

pub mod access_log;
pub mod cell;
mod escape;
mod format;
mod host;
pub mod journal;
pub mod registry;
mod render;
pub mod stats;
pub mod writer;

pub use self::access_log::{Logger, Peer, Queue, Record, queue};
pub use self::cell::{Counter, Gauge, Held, Histogram, Named};
pub use self::host::{kib, open_descriptors, resident_memory};
pub use self::registry::Registry;
pub use self::stats::{ClusterStats, ListenerStats, ProcessStats};
pub use self::writer::Writer;
