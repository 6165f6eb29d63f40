//! Clusters that are in force as they were said before: what they are by now waits for something. Their endpoints were those
//! of a set that they may follow no longer, and others may still. It is nowhere in force in two versions.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_proto::model::Name;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// The set that each of them has its endpoints from.
    sets: BTreeMap<Name, Name>,
    moved: BTreeSet<Name>,
}

impl Left {
    /// A cluster that is in force with the endpoints of this set is another, or gone; unless it was so before.
    pub(super) fn note(&mut self, cluster: &Name, set: &Name) {
        self.sets.entry(cluster.clone()).or_insert_with(|| set.clone());
    }

    /// A set is another.
    pub(super) fn note_moved(&mut self, set: &Name) {
        let of_set = self.sets.iter().filter(|(_, of)| *of == set);
        self.moved.extend(of_set.map(|(cluster, _)| cluster.clone()));
    }

    /// A cluster is in force with the endpoints that it has by now.
    pub(super) fn arrive(&mut self, cluster: &Name) {
        self.sets.remove(cluster);
        self.moved.remove(cluster);
    }

    /// All of them are.
    pub(super) fn arrive_all(&mut self) {
        self.sets.clear();
        self.moved.clear();
    }

    /// Those whose set is another since this was last called.
    pub(super) fn take_moved(&mut self) -> Vec<(Name, Name)> {
        let moved = std::mem::take(&mut self.moved);
        moved
            .into_iter()
            .filter_map(|cluster| self.sets.get(&cluster).cloned().map(|set| (cluster, set)))
            .collect()
    }
}
