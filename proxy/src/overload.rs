//! Memory that runs out: load is shed in a stated order, so that the process is not killed with all that it serves.
//!
//! Management looks at what is used; requests read one atomic. The order is that of [`Level`]. Admin is never shed.
//! Memory that nothing uses is given back first, and each level is left a little below where it was entered, so that
//! nothing swings. Descriptors are guarded where they are handed out: see [`Pressure::takes`].

use std::fs;
use std::num::NonZeroU64;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::observe::resident;

/// What is given up, the least missed first; each holds all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Nothing.
    Calm,
    /// Mirrored requests and hedges are not sent.
    Copies,
    /// What failed is not tried again.
    Retries,
    /// HTTP/1 connections are closed after their answer, so that idle ones go.
    KeepAlive,
    /// Requests are answered 503, with `retry-after`.
    Requests,
    /// New connections are closed.
    Connections,
}

impl Level {
    const ALL: [Self; 6] =
        [Self::Calm, Self::Copies, Self::Retries, Self::KeepAlive, Self::Requests, Self::Connections];
    /// Entered at so many thousandths of the limit.
    const AT: [u64; 6] = [0, 850, 880, 910, 940, 970];
    /// Left at so many below that.
    const SLACK: u64 = 30;

    /// The level after it, with so many thousandths used.
    fn next(self, used: u64) -> Self {
        let at = |slack: u64| {
            let entered = Self::AT.iter().skip(1).take_while(|at| used >= **at - slack).count();
            Self::ALL[entered]
        };
        at(0).max(self.min(at(Self::SLACK)))
    }
}

/// How hard pressed the process is; shared by all threads.
#[derive(Debug)]
pub struct Pressure {
    level: AtomicU8,
    /// Descriptors from this number on are kept for upstream connections and for admin.
    descriptors: RawFd,
}

impl Default for Pressure {
    fn default() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = limit.map_or(RawFd::MAX, |limit| RawFd::try_from(limit).unwrap_or(RawFd::MAX));
        Self { level: AtomicU8::new(0), descriptors: limit - reserve(limit) }
    }
}

/// Of so many descriptors, those that are not given to clients.
fn reserve(limit: RawFd) -> RawFd {
    (limit / 32).clamp(16, 1024).min(limit / 2)
}

impl Pressure {
    /// What is given up now.
    pub fn level(&self) -> Level {
        Level::ALL[usize::from(self.level.load(Relaxed))]
    }

    /// Whether this is given up now.
    pub fn sheds(&self, what: Level) -> bool {
        self.level.load(Relaxed) >= what as u8
    }

    /// Whether a client's connection on this descriptor is to be served. The kernel hands out the lowest that is free
    /// (POSIX), so all below it are taken: one comparison knows how many are left.
    pub fn takes(&self, descriptor: RawFd) -> Result<(), &'static str> {
        if descriptor >= self.descriptors {
            return Err("descriptors");
        }
        if self.sheds(Level::Connections) { Err("overload.memory") } else { Ok(()) }
    }

    /// Takes a measurement, or that there is no limit; whether anything is given up.
    pub fn note(&self, memory: Option<Memory>) -> bool {
        let before = self.level();
        let memory = memory.unwrap_or(Memory { used: 0, limit: NonZeroU64::MAX });
        let used = memory.used.saturating_mul(1000) / memory.limit;
        let level = before.next(used);
        self.level.store(level as u8, Relaxed);
        let Memory { used, limit } = memory;
        if level > before {
            tracing::warn!(shed = ?level, used, %limit, "memory runs out; giving up {level:?} and what comes before");
        } else if level < before {
            tracing::info!(shed = ?level, used, %limit, "memory is freer again");
        }
        level > Level::Calm
    }
}

/// Memory in use, and how much may be, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// In use.
    pub used: u64,
    /// May be used.
    pub limit: NonZeroU64,
}

/// What is used: of the limit that is configured by this process, or else of the cgroup's by all that is in it.
/// `None` where there is no limit, or where the system does not say.
pub fn measure(configured: Option<NonZeroU64>) -> Option<Memory> {
    let read = |path: &str| fs::read_to_string(path).ok();
    match configured {
        Some(limit) => Some(Memory { used: resident()?, limit }),
        None => {
            let groups = read("/proc/self/cgroup")?;
            let own = cgroup(&groups)?;
            // Inside of a container its own group is the root that it sees.
            [format!("/sys/fs/cgroup{own}"), "/sys/fs/cgroup".to_owned()].iter().find_map(|group| {
                let limit = NonZeroU64::new(number(&read(&format!("{group}/memory.max"))?)?)?;
                let current = number(&read(&format!("{group}/memory.current"))?)?;
                let stat = read(&format!("{group}/memory.stat"))?;
                Some(Memory { used: working_set(current, &stat), limit })
            })
        }
    }
}

/// The group of cgroup v2, as `0::/path`.
fn cgroup(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(|path| path.trim_end_matches('/'))
}

/// `max` is no number, and no limit.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// What cannot be taken back without harm, as Kubernetes counts it.
fn working_set(current: u64, stat: &str) -> u64 {
    let inactive = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
    current.saturating_sub(inactive.and_then(number).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn levels_are_entered_in_order_and_left_a_little_later() {
        use Level::*;
        let rows = [
            (Calm, 0, Calm),
            (Calm, 849, Calm),
            (Calm, 850, Copies),
            (Copies, 849, Copies),
            (Copies, 820, Copies),
            (Copies, 819, Calm),
            (Calm, 880, Retries),
            (Calm, 910, KeepAlive),
            (Calm, 940, Requests),
            (Calm, 969, Requests),
            (Calm, 970, Connections),
            (Calm, 5000, Connections),
            (Connections, 940, Connections),
            (Connections, 939, Requests),
            (Connections, 900, KeepAlive),
            (Connections, 100, Calm),
        ];
        for (before, used, after) in rows {
            assert_eq!(before.next(used), after, "{before:?} at {used}");
        }
    }

    proptest! {
        /// The same use again changes nothing, and more use never gives up less.
        #[test]
        fn levels_settle_and_rise(before in 0..6_usize, used in 0..1200_u64, more in 0..300_u64) {
            let level = Level::ALL[before].next(used);
            prop_assert_eq!(level.next(used), level);
            prop_assert!(Level::ALL[before].next(used + more) >= level);
        }
    }

    #[test]
    fn the_last_descriptors_are_kept() {
        let pressure = Pressure { level: AtomicU8::new(0), descriptors: 1024 - reserve(1024) };
        assert_eq!(pressure.takes(991), Ok(()));
        assert_eq!(pressure.takes(992), Err("descriptors"));
        assert_eq!((reserve(20), reserve(256), reserve(1 << 20)), (10, 16, 1024));
        pressure.note(Some(Memory { used: 98, limit: NonZeroU64::new(100).unwrap() }));
        assert_eq!(pressure.takes(3), Err("overload.memory"));
        // The limit was taken out of the configuration.
        pressure.note(None);
        assert_eq!(pressure.takes(3), Ok(()));
    }

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!(cgroup("1:name=x:/a\n0::/pod/b\n"), Some("/pod/b"));
        assert_eq!(cgroup("0::/\n"), Some(""));
        assert_eq!((number("4096\n"), number("max\n")), (Some(4096), None));
        assert_eq!(working_set(100, "anon 5\ninactive_file 30\nactive_file 9\n"), 70);
        assert_eq!(working_set(100, ""), 100);
        assert!(measure(NonZeroU64::new(1 << 30)).unwrap().used > 100_000);
    }
}
