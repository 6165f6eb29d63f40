//! How many workers there are.

use std::num::NonZeroUsize;

use outrigger_proto::model::Mesh;

/// The CPUs that we may use: the affinity mask, or the cgroup's quota rounded up, whichever is less. (The standard
/// library rounds the quota down, which leaves a third of a quota of 1.5 unused.)
fn cpus() -> usize {
    let affinity = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize);
    let quota = std::fs::read_to_string("/sys/fs/cgroup/cpu.max").ok().and_then(|text| quota(&text));
    affinity.min(quota.unwrap_or(usize::MAX)).max(1)
}

/// `cpu.max` of cgroup v2: `max 100000`, or `150000 100000` for one and a half CPUs.
fn quota(text: &str) -> Option<usize> {
    let mut words = text.split_whitespace();
    let (quota, period): (usize, usize) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (period > 0).then(|| quota.div_ceil(period))
}

/// How many workers a configuration asks for.
pub fn workers(mesh: &Mesh) -> usize {
    mesh.process.workers.map_or_else(cpus, NonZeroUsize::get)
}

/// Whether so many were wanted as are not running.
pub(super) fn workers_differ(wanted: Option<NonZeroUsize>, running: usize) -> bool {
    wanted.is_some_and(|wanted| wanted.get() != running)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_rounded_up() {
        let rows = [
            ("max 100000", None),
            ("150000 100000", Some(2)),
            ("100000 100000\n", Some(1)),
            ("50000 100000", Some(1)),
        ];
        for (text, expected) in rows {
            assert_eq!(quota(text), expected, "{text}");
        }
    }
}
