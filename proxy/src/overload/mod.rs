//! Watches over what the process uses, and tells the workers when it becomes too much. Beside the road: it looks four
//! times a second, on the management thread; what comes of what it sees is decided in `policy/overload`.

mod host;

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::model::{Overload as Thresholds, Percent};
use tokio::time::Instant;

pub use self::host::raise_descriptor_limit;
use self::host::{Amount, Memory};
use crate::policy::overload::{Level, Overload, Reading, Readings, Resource};
use crate::worker::Shared;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// While memory is short, what lies about is given back so often: looking for it costs milliseconds.
const RELEASE_EVERY: Duration = Duration::from_secs(10);
/// Descriptors that connections of clients never get: for admin, for files, for the way upstream.
const RESERVE: u64 = 8;

/// Who watches.
#[derive(Debug)]
pub struct Guard {
    shared: Arc<Shared>,
    memory: Memory,
    state: Overload,
    /// What could not be read keeps its last value: it is hardest to read when there is least of it.
    last: (Option<Amount>, Option<Amount>),
    released: Option<Instant>,
}

impl Guard {
    /// Watches from its first look on.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            memory: Memory::find(),
            state: Overload::default(),
            last: (None, None),
            released: None,
        }
    }

    /// Watches for as long as the process lives.
    pub async fn watch(mut self) {
        let mut interval = tokio::time::interval(LOOK_EVERY);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.look();
        }
    }

    /// Reads everything once, and tells the workers.
    fn look(&mut self) {
        let thresholds = self.shared.live.load().mesh.process.overload;
        let was = self.state.worst().0;
        let memory = thresholds.memory.and_then(|_| self.memory.read());
        self.last = (memory.or(self.last.0), host::descriptors().or(self.last.1));
        let (memory, descriptors) = self.last;
        let (readings, open) = readings(&thresholds, (memory, descriptors), self.shared.connections());
        let most = thresholds.connections.map_or(u32::MAX, u32::from);
        self.shared.pressure.set_bounds(most, open);
        let level = self.state.note(&readings);
        self.shared.pressure.set_level(level);
        self.shared.stats.overload_level.set(level as i64);
        if level != was {
            say(self.state.worst(), &readings);
        }
        self.release_memory();
    }

    fn release_memory(&mut self) {
        if self.state.memory() == Level::Normal {
            self.released = None;
        } else if self.released.is_none_or(|at| at.elapsed() >= RELEASE_EVERY) {
            self.shared.release_memory();
            self.released = Some(Instant::now());
        }
    }
}

/// What is used of what may be, and the number of descriptors from which on connections are refused. That one holds even
/// where descriptors are not watched: the reserve is not for clients.
fn readings(
    thresholds: &Thresholds,
    (memory, descriptors): (Option<Amount>, Option<Amount>),
    open: u32,
) -> (Readings, u32) {
    let Thresholds { memory: memory_share, descriptors: descriptor_share, connections } = *thresholds;
    let memory = memory
        .zip(memory_share)
        .map(|(Amount { used, limit }, share)| Reading { used, most: part(limit, share) });
    let most = descriptors.map(|Amount { used: _, limit }| {
        let for_clients = limit.saturating_sub(RESERVE).max(1);
        descriptor_share.map_or(for_clients, |share| part(limit, share).min(for_clients))
    });
    let used = descriptors.filter(|_| descriptor_share.is_some()).zip(most);
    let readings = Readings {
        memory,
        descriptors: used.map(|(Amount { used, limit: _ }, most)| Reading { used, most }),
        connections: connections.map(|most| Reading { used: open.into(), most: most.get().into() }),
    };
    (readings, most.map_or(u32::MAX, |most| u32::try_from(most).unwrap_or(u32::MAX)))
}

/// A share of a limit; at least one.
fn part(limit: u64, share: Percent) -> u64 {
    let part = u128::from(limit) * u128::from(share.millionths()) / u128::from(Percent::ALL.millionths());
    u64::try_from(part).expect("a part is not more than the whole").max(1)
}

/// What has changed, and what can be done about it.
fn say((level, of): (Level, Resource), readings: &Readings) {
    let show = |reading: Option<Reading>| reading.map_or("unwatched".to_owned(), |r| r.to_string());
    let Readings { memory, descriptors, connections } = *readings;
    let (memory, descriptors, connections) = (show(memory), show(descriptors), show(connections));
    let hint = match of {
        Resource::Memory => "give it more memory or more replicas, or raise `overload.memory`",
        Resource::Descriptors => "raise the limit of open files (ulimit -n, LimitNOFILE), or add replicas",
        Resource::Connections => "add replicas, or raise `overload.connections`",
    };
    let was = level.as_str();
    match level {
        Level::Normal => {
            tracing::info!(level = was, memory, descriptors, connections, "no longer pressed: all is served");
        }
        Level::Pressed => tracing::warn!(
            level = was,
            memory,
            descriptors,
            connections,
            hint,
            "pressed: no mirrors, hedges and retries; connections are closed after their answer"
        ),
        Level::Overloaded => tracing::warn!(
            level = was,
            memory,
            descriptors,
            connections,
            hint,
            "overloaded: new requests are answered 503"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn thresholds_are_shares_of_limits() {
        let thresholds = Thresholds { connections: NonZeroU32::new(10), ..Thresholds::default() };
        let memory = Some(Amount { used: 5, limit: 1000 });
        let rows = [
            // The limit of descriptors; from where on it is too much.
            (20_000, 18_000),
            (80, 72),
            // The reserve is more than the tenth that is left.
            (64, 56),
            (4, 1),
        ];
        for (limit, most) in rows {
            let descriptors = Some(Amount { used: 30, limit });
            let (readings, bound) = readings(&thresholds, (memory, descriptors), 3);
            let expected = Readings {
                memory: Some(Reading { used: 5, most: 900 }),
                descriptors: Some(Reading { used: 30, most }),
                connections: Some(Reading { used: 3, most: 10 }),
            };
            assert_eq!((readings, u64::from(bound)), (expected, most));
        }
    }

    #[test]
    fn what_is_not_watched_is_not_read_and_the_reserve_stays() {
        let thresholds = Thresholds { memory: None, descriptors: None, connections: None };
        let amount = |limit| Some(Amount { used: 30, limit });
        assert_eq!(readings(&thresholds, (amount(50), amount(64)), 3), (Readings::default(), 56));
        let endless = (amount(50), amount(u64::MAX));
        assert_eq!(readings(&thresholds, endless, 3), (Readings::default(), u32::MAX));
        let unread = readings(&Thresholds::default(), (None, None), 3);
        assert_eq!(unread, (Readings::default(), u32::MAX));
    }

    #[test]
    fn a_part_is_never_nothing() {
        assert_eq!(part(u64::MAX, Percent::ALL), u64::MAX);
        assert_eq!(part(10, Percent::from_millionths(1).unwrap()), 1);
        assert_eq!(part(0, Percent::ALL), 1);
    }
}
