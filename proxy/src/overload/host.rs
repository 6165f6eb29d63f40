//! What the system says of memory and descriptors: cgroup v2 (the kernel's `cgroup-v2.rst`), `/proc` (proc(5)) and
//! getrlimit(2). What cannot be read is `None`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::observe;

/// Where cgroup v2 is mounted, in containers and beside them.
const MOUNT: &str = "/sys/fs/cgroup";

/// What is used of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) used: u64,
    pub(super) limit: u64,
}

/// Where memory is read.
#[derive(Debug)]
pub(super) struct Memory {
    /// The directory of our cgroup, and of all above it.
    groups: Vec<PathBuf>,
    /// What the machine has.
    total: Option<u64>,
}

impl Memory {
    /// Finds our cgroup. A process is moved from one to another before it starts, if ever.
    pub(super) fn find() -> Self {
        let ours = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self { groups: groups(Path::new(MOUNT), own(&ours)), total: observe::kib(&meminfo, "MemTotal:") }
    }

    /// Bytes. A limit that is above what the machine has is none.
    pub(super) fn read(&self) -> Option<Amount> {
        let total = self.total;
        let limits = self.groups.iter().filter_map(|group| bytes(&group.join("memory.max")));
        let limit = limits.min().filter(|limit| total.is_none_or(|total| *limit < total));
        let in_cgroup = || {
            let limit = limit?;
            let used = self.groups.iter().find_map(|group| used(group))?;
            Some(Amount { used, limit })
        };
        let of_the_machine = || {
            let used = observe::resident_memory()?;
            Some(Amount { used, limit: limit.or(total)? })
        };
        in_cgroup().or_else(of_the_machine)
    }
}

/// Our path in `/proc/self/cgroup`: the line of v2 has the number 0 and no controllers.
fn own(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/")
}

/// The directories of a cgroup and of all above it. One outside of what we see begins with `/..`.
fn groups(mount: &Path, own: &str) -> Vec<PathBuf> {
    let inside = own.trim_start_matches('/');
    let outside = inside.split('/').any(|part| part == "..");
    let all = mount.join(if outside { "" } else { inside });
    all.ancestors().take_while(|group| group.starts_with(mount)).map(Path::to_owned).collect()
}

/// One number; `max` is none.
fn bytes(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// What a cgroup holds but for the cache of files, which the kernel takes back before it kills anybody: a log that is
/// written and read again would else look like load.
fn used(group: &Path) -> Option<u64> {
    let current = bytes(&group.join("memory.current"))?;
    let stat = fs::read_to_string(group.join("memory.stat")).ok()?;
    Some(current.saturating_sub(cached(&stat)))
}

fn cached(stat: &str) -> u64 {
    let of = |key: &str| stat.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
    of("inactive_file ").unwrap_or(0) + of("active_file ").unwrap_or(0)
}

/// Open descriptors, and how many may be (`RLIMIT_NOFILE`, which others may change while we run).
pub(super) fn descriptors() -> Option<Amount> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    match observe::open_descriptors() {
        Ok(used) => Some(Amount { used, limit }),
        Err(error) if is_exhausted(&error) => Some(Amount { used: limit, limit }),
        Err(_) => None,
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error())
}

/// Takes as many descriptors as the system grants: shells and service managers set the soft limit to 1024 for programs
/// that use select(2), which we do not.
pub fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::info!(from = current, to = maximum, "the limit of open files was raised"),
        Err(error) => tracing::warn!(%error, limit = current, "the limit of open files stays as it is"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_cgroup_is_found_and_all_above_it() {
        let rows = [
            ("0::/\n", &["/c"][..]),
            ("9:name=systemd:/x\n0::/a/b\n", &["/c/a/b", "/c/a", "/c"]),
            ("4:memory:/a\n", &["/c"]),
            ("0::/../../a\n", &["/c"]),
            ("", &["/c"]),
        ];
        for (text, expected) in rows {
            let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(groups(Path::new("/c"), own(text)), expected, "{text}");
        }
    }

    #[test]
    fn numbers_are_found() {
        assert_eq!(cached("anon 7\ninactive_file 100\nactive_file 20\n"), 120);
        assert_eq!(cached("anon 7\n"), 0);
    }

    #[test]
    fn this_process_is_read() {
        let Amount { used, limit } = Memory::find().read().unwrap();
        assert!(used > 100_000 && limit > used, "{used} {limit}");
        let Amount { used, limit } = descriptors().unwrap();
        assert!((3..limit).contains(&used), "{used} {limit}");
    }

    #[test]
    fn the_smallest_limit_above_us_counts_and_the_cache_does_not() {
        let root = std::env::temp_dir().join(format!("outrigger-cgroup-{}", std::process::id()));
        let own = root.join("pod/own");
        fs::create_dir_all(&own).unwrap();
        let write = |file: &str, text: &str| fs::write(root.join(file), text).unwrap();
        write("pod/memory.max", "1000\n");
        write("pod/own/memory.max", "max\n");
        write("pod/own/memory.current", "700\n");
        write("pod/own/memory.stat", "anon 300\ninactive_file 300\nactive_file 50\n");
        let memory = Memory { groups: groups(&root, "/pod/own"), total: None };
        let found = memory.read();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, Some(Amount { used: 350, limit: 1000 }));
    }
}
