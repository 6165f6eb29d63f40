//! Where routes lead to and no cluster is, of a control plane that tells all clusters unasked and in whatever order: such
//! routes wait a while for it, so that no request meets the gap. What is in force goes on meanwhile.

use std::collections::BTreeSet;

use outrigger_proto::model::Name;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    awaited: BTreeSet<Name>,
    /// Those that were waited for and did not come.
    given_up: BTreeSet<Name>,
    /// Those that it has taken away and that may be in force still.
    gone: BTreeSet<Name>,
    /// Whether there was a look.
    looked: bool,
}

impl Ahead {
    /// Looks anew at what is led to and not there. What is in force is another's, as the file's; unless it was taken away.
    pub(super) fn look(&mut self, missing: impl Iterator<Item = Name>, is_served: impl Fn(&Name) -> bool) {
        let missing: BTreeSet<_> =
            missing.filter(|name| self.gone.contains(name) || !is_served(name)).collect();
        self.given_up.retain(|name| missing.contains(name));
        self.awaited = missing.difference(&self.given_up).cloned().collect();
        // Whoever begins is told all clusters there are: what leads to others leads nowhere. But for those that are taken away
        // before it has heard the rest: what leads there is about to be another.
        if !std::mem::replace(&mut self.looked, true) {
            let nowhere = self.awaited.difference(&self.gone).cloned().collect::<Vec<_>>();
            nowhere.into_iter().for_each(|name| self.give_up_on(name));
        }
    }

    /// What is waited for.
    pub(super) fn awaited(&self) -> &BTreeSet<Name> {
        &self.awaited
    }

    /// It is not waited for any longer, until nothing leads there in between.
    pub(super) fn give_up(&mut self) {
        self.given_up.append(&mut self.awaited);
    }

    /// Nor is this.
    pub(super) fn give_up_on(&mut self, name: Name) {
        self.awaited.remove(&name);
        self.given_up.insert(name);
    }

    /// The control plane has taken a cluster away.
    pub(super) fn note_gone(&mut self, name: &Name) {
        self.gone.insert(name.clone());
    }

    /// All that was said is in force.
    pub(super) fn arrive(&mut self) {
        self.gone.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(ahead: &mut Ahead, missing: &[&str]) -> Vec<String> {
        let missing = missing.iter().map(|name| Name::new(name).unwrap());
        ahead.look(missing, |name| name.as_str() == "served");
        ahead.awaited().iter().map(Name::to_string).collect()
    }

    #[test]
    fn what_is_led_to_and_not_there_is_waited_for_once() {
        let mut ahead = Ahead::default();
        assert_eq!(look(&mut ahead, &["nowhere"]), Vec::<String>::new());
        assert_eq!(look(&mut ahead, &["nowhere", "a", "served"]), ["a"]);
        assert_eq!(look(&mut ahead, &["a", "b", "served"]), ["a", "b"]);
        ahead.give_up();
        assert_eq!(look(&mut ahead, &["a", "b", "c"]), ["c"]);
        // Nothing leads there in between.
        assert_eq!(look(&mut ahead, &["b"]), Vec::<String>::new());
        assert_eq!(look(&mut ahead, &["a", "b"]), ["a"]);
        // What was taken away is in force for a while, and not to be relied on.
        ahead.note_gone(&Name::new("served").unwrap());
        assert_eq!(look(&mut ahead, &["served"]), ["served"]);
        ahead.arrive();
        assert_eq!(look(&mut ahead, &["served"]), Vec::<String>::new());
    }

    #[test]
    fn what_is_taken_away_before_all_was_told_is_waited_for() {
        let mut ahead = Ahead::default();
        ahead.note_gone(&Name::new("gone").unwrap());
        assert_eq!(look(&mut ahead, &["nowhere", "gone"]), ["gone"]);
    }
}
