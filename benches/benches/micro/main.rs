//! The hot pieces of the proxy, each alone and beside its budget: `cargo bench -p outrigger-benches --bench micro`.
//!
//! HAProxy and nginx take some 30 us of CPU for a small request, most of it in the kernel, and the bars of
//! `src/bars.rs` are multiples of that. What Outrigger adds around hyper and the kernel gets a tenth. The budgets share
//! it out: finding the route 300 ns, picking the endpoint 100, the path 100, the guards 500 for each direction, the
//! figures 100, a log line 1000. What runs once for a configuration comes out of the 50 ms from start to ready.
//!
//! A budget stands in the printed name. Nothing fails when one is exceeded: what runs beside this takes caches and
//! clock speed, so a single figure is a hint. Only sizes are certain, so they alone are asserted.

mod clock;
mod config;
mod framing;
mod observe;
mod path;
mod pick;
mod request;
mod routing;
mod size;
mod tables;

use std::fmt::Display;
use std::time::Duration;

use criterion::BenchmarkId;

use crate::clock::ThreadTime;

type Criterion = criterion::Criterion<ThreadTime>;

fn main() {
    let mut criterion = criterion::Criterion::default()
        .with_measurement(ThreadTime)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        // The default takes as long again as some of the measuring, for a digit that nobody reads.
        .nresamples(10_000)
        .configure_from_args();
    routing::bench(&mut criterion);
    pick::bench(&mut criterion);
    path::bench(&mut criterion);
    framing::bench(&mut criterion);
    observe::bench(&mut criterion);
    config::bench(&mut criterion);
    request::bench(&mut criterion);
    criterion.final_summary();
    size::check();
}

/// The name of a piece with its budget, such as `300 ns`.
fn within(budget: &str, piece: impl Display) -> BenchmarkId {
    BenchmarkId::from_parameter(format_args!("{piece} (<= {budget})"))
}
