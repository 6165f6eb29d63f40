//! What the kernel says of this process, under the names that Prometheus clients agree on. Linux's `/proc`, proc(5).
//!
//! Read when asked for, never kept. What cannot be read is left out: a sandbox may hide `/proc`.

use std::fs;
use std::io;

use super::render::Kind;

/// `USER_HZ`: the unit of times in `/proc/*/stat`. 100 on every architecture that Rust's Linux targets run on with a
/// libc; the kernel's own HZ does not show here.
const TICKS: f64 = 100.0;

/// One value.
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) value: f64,
}

/// What can be read of this process.
pub(super) fn read() -> Vec<Sample> {
    let text = |path| fs::read_to_string(path).ok();
    let stat = text("/proc/self/stat");
    let started = || Some(boot(&text("/proc/stat")?)? + field(stat.as_deref()?, STARTED)? / TICKS);
    let all = [
        (
            "process_cpu_seconds_total",
            Kind::Counter,
            "CPU time, user and system.",
            stat.as_deref().and_then(cpu),
        ),
        (
            "process_open_fds",
            Kind::Gauge,
            "Open file descriptors.",
            open_descriptors().ok().map(|open| open as f64),
        ),
        (
            "process_resident_memory_bytes",
            Kind::Gauge,
            "Resident memory.",
            resident_memory().map(|bytes| bytes as f64),
        ),
        ("process_start_time_seconds", Kind::Gauge, "When the process began, Unix time.", started()),
    ];
    let known =
        |(name, kind, help, value): (_, _, _, Option<f64>)| Some(Sample { name, kind, help, value: value? });
    all.into_iter().filter_map(known).collect()
}

/// Resident memory of this process, in bytes.
///
/// From `status` and not `statm`, which counts in pages of a size that it does not say.
pub fn resident_memory() -> Option<u64> {
    kib(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Open descriptors of this process.
///
/// # Errors
/// Those of reading `/proc`; EMFILE where there is none left to read it with.
pub fn open_descriptors() -> io::Result<u64> {
    match fs::metadata("/proc/self/fd")?.len() {
        // Linux before 6.2 does not say it here: they are counted, which takes one itself.
        0 => Ok(fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as u64),
        open => Ok(open),
    }
}

/// The bytes of a line such as `VmRSS:  5120 kB`.
pub fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

// Numbers of fields of `/proc/self/stat`, as proc(5) counts them.
const USER: usize = 14;
const SYSTEM: usize = 15;
const STARTED: usize = 22;

/// The process's name stands second, in parentheses, and may hold anything: count from behind it.
fn field(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn cpu(stat: &str) -> Option<f64> {
    Some((field(stat, USER)? + field(stat, SYSTEM)?) / TICKS)
}

fn boot(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 3 0 12345 1 2";

    #[test]
    fn fields_are_found() {
        assert_eq!(cpu(STAT), Some(2.0));
        assert_eq!(field(STAT, STARTED), Some(12345.0));
        assert_eq!(field("7 (short) S 1", STARTED), None);
        assert_eq!(cpu(""), None);
        assert_eq!(kib("Name:\tx\nVmRSS:\t    5120 kB\nThreads:\t3\n", "VmRSS:"), Some(5_242_880));
        assert_eq!(kib("Name:\tx\n", "VmRSS:"), None);
        assert_eq!(boot("cpu 1 2\nbtime 1700000000\nprocesses 5\n"), Some(1_700_000_000.0));
    }

    #[test]
    fn this_process_is_read() {
        let all = read();
        let names: Vec<_> = all.iter().map(|sample| sample.name).collect();
        let expected = [
            "process_cpu_seconds_total",
            "process_open_fds",
            "process_resident_memory_bytes",
            "process_start_time_seconds",
        ];
        assert_eq!(names, expected);
        assert!(all[1].value >= 3.0 && all[2].value > 100_000.0 && all[3].value > 1.6e9);
    }
}
