//! Zones: who stands where, and what that makes of the weights.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::super::endpoint::Endpoint;

/// The weight of a zone that nobody has named: an endpoint that comes from elsewhere is used.
const UNNAMED: u32 = 1;
/// What the weights that are hashed by add up to, of all zones of a level: fine enough for shares of one in thousands,
/// and a power of two, so that a ring thins all points alike.
const HASHED: u64 = 1 << 26;

/// What each zone weighs, whatever its number of endpoints; 0 is never used.
pub type ZoneWeights = BTreeMap<Box<str>, u32>;

/// An endpoint, and where it stands.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) endpoint: Arc<Endpoint>,
    priority: u8,
    /// Only where zones are weighed.
    zone: Option<Place>,
}

/// A zone and its weight; in the order in which they stand in a level.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Behind all others.
    unused: bool,
    name: Option<Box<str>>,
    weight: u32,
}

impl Placed {
    pub(super) fn new(endpoint: Arc<Endpoint>, weights: Option<&ZoneWeights>) -> Self {
        let zone = weights.map(|weights| {
            let name = endpoint.zone();
            let weight = name.as_ref().and_then(|name| weights.get(name)).copied().unwrap_or(UNNAMED);
            Place { unused: weight == 0, name, weight }
        });
        Self { priority: endpoint.priority(), endpoint, zone }
    }

    /// By priority, then by zone; else as they were given.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        (self.priority, &self.zone).cmp(&(other.priority, &other.zone))
    }

    /// Its zone weighs nothing.
    pub(super) fn is_unused(&self) -> bool {
        self.zone.as_ref().is_some_and(|zone| zone.unused)
    }

    pub(super) fn priority(&self) -> u8 {
        self.priority
    }

    pub(super) fn is_beside(&self, other: &Self) -> bool {
        self.priority == other.priority && self.zone == other.zone
    }

    fn weight(&self) -> u32 {
        self.endpoint.weight().max(1)
    }
}

/// A zone of a level.
#[derive(Debug)]
pub(super) struct Zone {
    /// `None` for those who stand nowhere.
    pub(super) name: Option<Box<str>>,
    pub(super) weight: u32,
    /// Its endpoints, among those of the group.
    pub(super) members: Range<usize>,
}

/// The zones of the members of a group; none where they are not weighed.
pub(super) fn zones(members: &[Placed]) -> Box<[Zone]> {
    let mut first = 0;
    let zone = |members: &[Placed]| {
        let Place { unused: _, name, weight } = members[0].zone.clone()?;
        let from = first;
        first += members.len();
        Some(Zone { name, weight, members: from..first })
    };
    members.chunk_by(Placed::is_beside).filter_map(zone).collect()
}

/// The weights of members among which one is drawn.
pub(super) fn weights(members: &[Placed]) -> Vec<u32> {
    members.iter().map(Placed::weight).collect()
}

/// Those of members whose keys are hashed, so that the ones of a zone add up to its share. Health has no part in them:
/// keys would move from those who are well.
pub(super) fn hashed_weights(members: &[Placed], zones: &[Zone]) -> Vec<u32> {
    let mut weights = weights(members);
    let all: u64 = zones.iter().map(|zone| u64::from(zone.weight)).sum();
    for zone in zones {
        let own = &mut weights[zone.members.clone()];
        let sum: u64 = own.iter().map(|weight| u64::from(*weight)).sum();
        let share = u128::from(HASHED) * u128::from(zone.weight);
        for weight in own {
            let scaled = share * u128::from(*weight) / (u128::from(all) * u128::from(sum));
            *weight = u32::try_from(scaled).expect("no more than all").max(1);
        }
    }
    weights
}
