//! How hard pressed the process is, and what workers see of it. What is used and how much may be stands in
//! [`Readings`]; who reads them is `overload`, on the management thread. Nothing here needs the time: what keeps the
//! level from flickering is that it falls later than it rises.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

/// Of the most that may be used, in per cent: from here on the process is pressed.
const PRESSED: u128 = 90;
/// So much below where it rose the level falls again.
const SLACK: u128 = 5;

/// How hard pressed the process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// All is done.
    #[default]
    Normal,
    /// What nobody would miss is not done.
    Pressed,
    /// New requests are refused.
    Overloaded,
}

impl Level {
    /// Its name, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Pressed => "pressed",
            Self::Overloaded => "overloaded",
        }
    }
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Bytes.
    Memory,
    /// File descriptors.
    Descriptors,
    /// Connections of clients.
    Connections,
}

/// How much of something is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What is used.
    pub used: u64,
    /// From where on it is too much; above 0.
    pub most: u64,
}

impl std::fmt::Display for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.used, self.most)
    }
}

/// All that is watched; `None` where nobody watches, or nothing can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Bytes.
    pub memory: Option<Reading>,
    /// Open file descriptors.
    pub descriptors: Option<Reading>,
    /// Open connections of clients.
    pub connections: Option<Reading>,
}

/// The level of each thing: one that has fallen does not hold up another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overload {
    memory: Level,
    descriptors: Level,
    connections: Level,
}

impl Overload {
    /// Takes note of what was read; the level of the process is that of the worst.
    pub fn note(&mut self, readings: &Readings) -> Level {
        let Readings { memory, descriptors, connections } = *readings;
        self.memory = judge(self.memory, memory);
        self.descriptors = judge(self.descriptors, descriptors);
        self.connections = judge(self.connections, connections);
        self.worst().0
    }

    /// The level of memory alone.
    pub fn memory(&self) -> Level {
        self.memory
    }

    /// The level of the process, and what it comes from; of several, the one that kills first.
    pub fn worst(&self) -> (Level, Resource) {
        let Self { memory, descriptors, connections } = *self;
        let mut worst = (memory, Resource::Memory);
        for other in [(descriptors, Resource::Descriptors), (connections, Resource::Connections)] {
            if other.0 > worst.0 {
                worst = other;
            }
        }
        worst
    }
}

fn judge(was: Level, reading: Option<Reading>) -> Level {
    let Some(Reading { used, most }) = reading else { return Level::Normal };
    let at = |percent: u128| u128::from(used) * 100 >= u128::from(most) * percent;
    let rises = |to: Level, from: u128| at(from) || (was >= to && at(from - SLACK));
    if rises(Level::Overloaded, 100) {
        Level::Overloaded
    } else if rises(Level::Pressed, PRESSED) {
        Level::Pressed
    } else {
        Level::Normal
    }
}

/// What workers see: a few relaxed loads for each request and connection.
#[derive(Debug)]
pub struct Pressure {
    level: AtomicU8,
    connections: AtomicU32,
    descriptors: AtomicU32,
}

impl Default for Pressure {
    fn default() -> Self {
        let unbounded = || AtomicU32::new(u32::MAX);
        Self { level: AtomicU8::new(0), connections: unbounded(), descriptors: unbounded() }
    }
}

impl Pressure {
    /// The level.
    pub fn level(&self) -> Level {
        match self.level.load(Relaxed) {
            0 => Level::Normal,
            1 => Level::Pressed,
            _ => Level::Overloaded,
        }
    }

    /// Whether what nobody would miss is to be left undone.
    pub fn is_pressed(&self) -> bool {
        self.level() >= Level::Pressed
    }

    /// Whether new requests are to be refused.
    pub fn is_overloaded(&self) -> bool {
        self.level() >= Level::Overloaded
    }

    /// The level is this now.
    pub fn set_level(&self, level: Level) {
        self.level.store(level as u8, Relaxed);
    }

    /// So many connections and descriptors may be open.
    pub fn set_bounds(&self, connections: u32, descriptors: u32) {
        self.connections.store(connections, Relaxed);
        self.descriptors.store(descriptors, Relaxed);
    }

    /// Whether a new connection may stay, beside so many others. The system gives out the lowest number that is free:
    /// a descriptor says by its number how many are open at the least, so that no burst slips through between two looks
    /// of management.
    pub fn has_room(&self, others: u32, descriptor: u32) -> bool {
        others < self.connections.load(Relaxed) && descriptor < self.descriptors.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::Level::*;
    use super::*;

    #[test]
    fn the_level_rises_at_once_and_falls_later() {
        let rows = [
            // Used of 1000, and the level that comes of it after normal, pressed and overloaded.
            (0, [Normal, Normal, Normal]),
            (849, [Normal, Normal, Normal]),
            (850, [Normal, Pressed, Pressed]),
            (899, [Normal, Pressed, Pressed]),
            (900, [Pressed, Pressed, Pressed]),
            (949, [Pressed, Pressed, Pressed]),
            (950, [Pressed, Pressed, Overloaded]),
            (999, [Pressed, Pressed, Overloaded]),
            (1000, [Overloaded, Overloaded, Overloaded]),
            (u64::MAX, [Overloaded, Overloaded, Overloaded]),
        ];
        for (used, expected) in rows {
            let reading = Some(Reading { used, most: 1000 });
            assert_eq!([Normal, Pressed, Overloaded].map(|was| judge(was, reading)), expected, "{used}");
        }
        assert_eq!([Normal, Pressed, Overloaded].map(|was| judge(was, None)), [Normal; 3]);
    }

    #[test]
    fn one_of_one_is_overloaded_and_none_of_it_is_normal() {
        assert_eq!(judge(Normal, Some(Reading { used: 1, most: 1 })), Overloaded);
        assert_eq!(judge(Overloaded, Some(Reading { used: 0, most: 1 })), Normal);
    }

    #[test]
    fn the_process_is_as_hard_pressed_as_the_worst_thing_is() {
        let of = |used| Some(Reading { used, most: 100 });
        let mut overload = Overload::default();
        let rows = [
            ([of(10), of(10), None], (Normal, Resource::Memory)),
            ([of(10), of(95), None], (Pressed, Resource::Descriptors)),
            ([of(100), of(95), of(100)], (Overloaded, Resource::Memory)),
            ([of(94), of(87), of(96)], (Overloaded, Resource::Connections)),
            ([of(10), of(87), of(10)], (Pressed, Resource::Descriptors)),
            ([of(10), None, None], (Normal, Resource::Memory)),
        ];
        for ([memory, descriptors, connections], expected) in rows {
            let readings = Readings { memory, descriptors, connections };
            assert_eq!((overload.note(&readings), overload.worst()), (expected.0, expected), "{readings:?}");
        }
    }

    #[test]
    fn workers_see_the_level_and_the_bounds() {
        let pressure = Pressure::default();
        assert!(pressure.has_room(u32::MAX - 1, u32::MAX - 1) && !pressure.is_pressed());
        for level in [Pressed, Overloaded, Normal] {
            pressure.set_level(level);
            assert_eq!(pressure.level(), level);
        }
        pressure.set_bounds(10, 50);
        let rows = [(9, 49, true), (10, 49, false), (9, 50, false)];
        for (others, descriptor, expected) in rows {
            assert_eq!(pressure.has_room(others, descriptor), expected, "{others} {descriptor}");
        }
    }
}
