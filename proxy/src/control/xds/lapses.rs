//! When resources are gone that are not said again: a control plane may give one so long to live, and say from time to time
//! that it does. <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#resource-ttl>

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use outrigger_proto::model::Name;
use outrigger_proto::xds::Kind;
use tokio::time::Instant;

/// See the module. Pure: the time is an argument.
#[derive(Debug, Default)]
pub(super) struct Lapses {
    by: BTreeMap<(Kind, Name), (Instant, Duration)>,
    order: BTreeSet<(Instant, Kind, Name)>,
}

impl Lapses {
    /// It was said to live so long from now on; for ever, without a time.
    pub(super) fn set(&mut self, kind: Kind, name: &Name, ttl: Option<Duration>, now: Instant) {
        self.forget(kind, name);
        // What lasts longer than there is time to come lasts for ever.
        let Some((ttl, end)) = ttl.and_then(|ttl| Some((ttl, now.checked_add(ttl)?))) else { return };
        self.by.insert((kind, name.clone()), (end, ttl));
        self.order.insert((end, kind, name.clone()));
    }

    /// It is gone, or lives for ever.
    pub(super) fn forget(&mut self, kind: Kind, name: &Name) {
        if self.by.is_empty() {
            return;
        }
        if let Some((end, _)) = self.by.remove(&(kind, name.clone())) {
            self.order.remove(&(end, kind, name.clone()));
        }
    }

    /// How long it was given.
    pub(super) fn ttl(&self, kind: Kind, name: &Name) -> Option<Duration> {
        if self.by.is_empty() {
            return None;
        }
        self.by.get(&(kind, name.clone())).map(|(_, ttl)| *ttl)
    }

    /// When the next one is gone.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(end, _, _)| *end)
    }

    /// The next one that is gone by now.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Kind, Name)> {
        if self.next()? > now {
            return None;
        }
        let (_, kind, name) = self.order.pop_first()?;
        self.by.remove(&(kind, name.clone()));
        Some((kind, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_gone_in_its_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let ttl = |seconds| Some(Duration::from_secs(seconds));
        let [a, b, c] = ["a", "b", "c"].map(|name| Name::new(name).unwrap());
        let mut lapses = Lapses::default();
        lapses.set(Kind::Cluster, &a, ttl(5), start);
        lapses.set(Kind::Endpoints, &a, ttl(3), start);
        lapses.set(Kind::Cluster, &b, ttl(1), start);
        lapses.set(Kind::Cluster, &c, Some(Duration::MAX), start);
        assert_eq!((lapses.next(), lapses.ttl(Kind::Cluster, &a)), (Some(at(1)), ttl(5)));
        // It is said again, and for ever.
        lapses.set(Kind::Cluster, &a, ttl(5), at(4));
        lapses.set(Kind::Cluster, &b, None, at(4));
        assert_eq!(lapses.pop(at(2)), None);
        assert_eq!(lapses.pop(at(8)), Some((Kind::Endpoints, a.clone())));
        assert_eq!(lapses.pop(at(8)), None);
        assert_eq!(lapses.pop(at(9)), Some((Kind::Cluster, a)));
        assert_eq!((lapses.pop(at(99)), lapses.next()), (None, None));
    }
}
