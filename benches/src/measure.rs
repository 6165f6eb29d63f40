//! What a process group has used, read from `/proc` (proc(5)), and the middle of several readings.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Pid;

use crate::error::{Failure, Result};

/// `/proc/PID/stat` counts in `USER_HZ`, which is 100 on every Linux that we build for.
const TICK: Duration = Duration::from_millis(10);

/// What one reading of a group gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// User and system time of all its processes since they began.
    pub(crate) cpu: Duration,
    /// Resident memory in MiB. Pages that its processes share count once.
    pub(crate) resident_mib: f64,
}

impl Usage {
    /// Reads all processes of `group`; fails when there are none.
    pub(crate) fn of(group: Pid) -> Result<Self> {
        let members = members(group);
        if members.is_empty() {
            return Err(Failure::new("the process is gone"));
        }
        let cpu = members.iter().map(|process| cpu(process)).sum();
        let memory: Vec<Memory> = members.iter().filter_map(|process| Memory::of(process)).collect();
        let private: u64 = memory.iter().map(|one| one.private).sum();
        let shared = memory.iter().map(|one| one.resident - one.private).max().unwrap_or(0);
        let resident_mib = (private + shared) as f64 / 1024.0;
        Ok(Self { cpu, resident_mib })
    }
}

/// Folders of `/proc` whose process belongs to `group`.
fn members(group: Pid) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let id = group.as_raw_nonzero().get().to_string();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| stat(path).is_some_and(|fields| fields.get(2) == Some(&id)))
        .collect()
}

/// Fields of `stat` after the program's name: state, ppid, pgrp, ... The name may hold spaces and parentheses.
fn stat(process: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(process.join("stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Nanoseconds by thread are exact but forget threads that ended; the total in ticks remembers them.
fn cpu(process: &Path) -> Duration {
    let threads: Duration = fs::read_dir(process.join("task"))
        .into_iter()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse().ok())
        .map(Duration::from_nanos)
        .sum();
    let ticks: u32 = stat(process)
        .and_then(|fields| Some(fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?))
        .unwrap_or(0);
    threads.max(TICK * ticks)
}

/// Memory of one process, KiB.
struct Memory {
    resident: u64,
    private: u64,
}

impl Memory {
    fn of(process: &Path) -> Option<Self> {
        let text = fs::read_to_string(process.join("smaps_rollup")).ok()?;
        let of = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok())
        };
        Some(Self { resident: of("Rss:")?, private: of("Private_Clean:")? + of("Private_Dirty:")? })
    }
}

/// The middle value, or the mean of the middle two; `None` without values.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// The value below which `percent` of `values` lie (nearest rank); sorts them. `None` without values.
pub(crate) fn percentile<T: Copy + Ord>(values: &mut [T], percent: usize) -> Option<T> {
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        #[track_caller]
        fn check(values: &[f64], expected: Option<f64>) {
            assert_eq!(median(values), expected);
        }
        check(&[], None);
        check(&[3.0], Some(3.0));
        check(&[9.0, 1.0, 2.0], Some(2.0));
        check(&[4.0, 1.0, 2.0, 9.0], Some(3.0));
    }

    #[test]
    fn percentiles() {
        #[track_caller]
        fn check(percent: usize, expected: u64) {
            let mut values: Vec<u64> = (1..=200).rev().collect();
            assert_eq!(percentile(&mut values, percent), Some(expected));
        }
        check(50, 100);
        check(99, 198);
        check(100, 200);
        assert_eq!(percentile::<u64>(&mut [], 50), None);
    }

    #[test]
    fn our_own_group_has_used_something() {
        let usage = Usage::of(rustix::process::getpgrp()).unwrap();
        assert!(usage.resident_mib > 0.1, "{usage:?}");
    }
}
