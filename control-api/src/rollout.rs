//! A revision goes to a few nodes first. If one of them refuses it, or does not take it, it is taken back, and everybody goes
//! on with the one before; if all take it and some time passes, more are told, and at last all.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::model::{Percent, Rollout};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::events::Happened;
use crate::nodes::NodeStatus;
use crate::plane::Plane;
use crate::serving::Serving;

/// How often nodes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// For a node to take what it was told.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is served: to all, or while a revision is on its way, to most.
#[derive(Clone, Debug)]
pub struct Published {
    /// To whoever is told nothing else.
    pub stable: Arc<Serving>,
    /// To a few.
    pub candidate: Option<Candidate>,
}

/// A revision on its way.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What it says.
    pub serving: Arc<Serving>,
    /// Who is told, by id.
    pub nodes: Arc<BTreeSet<String>>,
}

impl Published {
    /// To all.
    pub fn to_all(serving: Serving) -> Self {
        Self { stable: Arc::new(serving), candidate: None }
    }

    /// What a node of this id is told.
    pub fn of(&self, node: &str) -> &Arc<Serving> {
        let candidate = self.candidate.as_ref().filter(|candidate| candidate.nodes.contains(node));
        candidate.map_or(&self.stable, |candidate| &candidate.serving)
    }
}

/// What becomes of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It goes on.
    Wait,
    /// All is well, and was for long enough.
    Next,
    /// It is taken back, for this reason.
    Back(String),
}

/// Leads every revision that is published as a candidate to all nodes, or back.
pub async fn lead(plane: Arc<Plane>, settings: Rollout) {
    let mut published = plane.published();
    loop {
        let candidate = published.borrow_and_update().candidate.clone();
        if let Some(candidate) = candidate {
            // Another one, meanwhile, begins anew.
            tokio::select! {
                () = steps(&plane, &settings, &candidate.serving) => {}
                () = superseded(&mut published, candidate.serving.revision) => continue,
            }
        }
        if published.changed().await.is_err() {
            return;
        }
    }
}

async fn superseded(published: &mut watch::Receiver<Published>, revision: u64) {
    let is_another =
        |now: &Published| now.candidate.as_ref().is_none_or(|it| it.serving.revision != revision);
    let _ = published.wait_for(is_another).await;
}

async fn steps(plane: &Arc<Plane>, Rollout { steps, watch }: &Rollout, serving: &Arc<Serving>) {
    let revision = serving.revision;
    let mut chosen = BTreeSet::new();
    for share in steps {
        chosen.extend(choose(&plane.nodes.all(), *share));
        plane.offer(serving, chosen.clone());
        let nodes = chosen.iter().cloned().collect();
        plane.note(Happened::RolloutStep { revision, percent: share.fraction() * 100.0, nodes });
        tracing::info!(revision, nodes = chosen.len(), "told to some");
        let begun = Instant::now();
        loop {
            match judge(revision, &chosen, &plane.nodes.all(), (begun.elapsed(), *watch)) {
                Verdict::Wait => sleep(LOOK_EVERY).await,
                Verdict::Next => break,
                Verdict::Back(why) => return plane.take_back(revision, &why).await,
            }
        }
    }
    plane.settle(serving);
    plane.note(Happened::RolloutDone { revision });
    tracing::info!(revision, "told to all");
}

/// So many of each group, at least one of those who are there: the same ones each time, for the same share.
fn choose(nodes: &[NodeStatus], share: Percent) -> BTreeSet<String> {
    let mut groups: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
    for node in nodes {
        let mut hasher = DefaultHasher::new();
        node.id.hash(&mut hasher);
        groups
            .entry(node.group.as_deref().unwrap_or_default())
            .or_default()
            .push((hasher.finish(), &node.id));
    }
    let mut out = BTreeSet::new();
    for ids in groups.values_mut() {
        ids.sort_unstable();
        ids.dedup();
        let most = (ids.len() as f64 * share.fraction()).ceil() as usize;
        out.extend(ids.iter().take(most.max(1)).map(|(_, id)| (*id).to_owned()));
    }
    out
}

/// What to make of what the chosen say of this revision, so long after they were told.
fn judge(
    revision: u64,
    chosen: &BTreeSet<String>,
    nodes: &[NodeStatus],
    (elapsed, watch): (Duration, Duration),
) -> Verdict {
    let mut behind = Vec::new();
    for node in nodes.iter().filter(|node| chosen.contains(&node.id)) {
        let refused = node.kinds.iter().find_map(|(kind, of)| {
            let why = of.nack.as_ref().filter(|_| of.told == revision)?;
            Some(format!("node {} refuses {kind}: {why}", node.id))
        });
        if let Some(why) = refused {
            return Verdict::Back(why);
        }
        if !(node.in_sync && node.revision == revision) {
            behind.push(node.id.as_str());
        }
    }
    match behind.first() {
        Some(first) if elapsed >= PATIENCE => {
            Verdict::Back(format!("node {first} has not taken it within {PATIENCE:?}"))
        }
        None if elapsed >= watch => Verdict::Next,
        Some(_) | None => Verdict::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::KindStatus;

    fn node(id: &str, revision: u64, nack: Option<&str>) -> NodeStatus {
        let kind = KindStatus { told: revision, acked: 0, nack: nack.map(str::to_owned) };
        NodeStatus {
            id: id.to_owned(),
            cluster: String::new(),
            agent: String::new(),
            labels: BTreeMap::new(),
            group: Some(id[..1].to_owned()),
            way: "delta",
            since: String::new(),
            revision,
            in_sync: nack.is_none(),
            kinds: [("Cluster".to_owned(), kind)].into(),
        }
    }

    #[test]
    fn of_each_group_some_are_chosen_and_more_include_fewer() {
        let nodes: Vec<_> =
            (0..10).map(|n| node(&format!("a{n}"), 1, None)).chain([node("b0", 1, None)]).collect();
        let of = |percent| choose(&nodes, Percent::whole(percent));
        assert_eq!((of(1).len(), of(50).len(), of(100).len()), (2, 6, 11));
        assert!(of(1).contains("b0") && of(1).is_subset(&of(50)));
        assert!(choose(&[], Percent::whole(10)).is_empty());
    }

    #[test]
    fn one_that_refuses_takes_it_back_and_others_are_waited_for() {
        let chosen: BTreeSet<_> = ["a1", "a2"].map(str::to_owned).into();
        let watch = Duration::from_secs(1);
        let (soon, later, late) = (Duration::ZERO, watch, PATIENCE);
        let (good, bad, old) = (node("a1", 2, None), node("a2", 2, Some("no")), node("a2", 1, None));
        let table: [(&[NodeStatus], Duration, Verdict); 7] = [
            (&[good.clone(), node("a2", 2, None)], soon, Verdict::Wait),
            (&[good.clone(), node("a2", 2, None)], later, Verdict::Next),
            (&[good.clone(), old.clone()], later, Verdict::Wait),
            (&[good.clone(), old], late, Verdict::Back("node a2 has not taken it within 30s".into())),
            (&[good.clone(), bad], soon, Verdict::Back("node a2 refuses Cluster: no".into())),
            // Whoever was not told says nothing of it, and whoever is gone neither.
            (&[good.clone(), node("a3", 1, Some("no"))], later, Verdict::Next),
            (&[good], later, Verdict::Next),
        ];
        for (nodes, elapsed, expected) in table {
            assert_eq!(judge(2, &chosen, nodes, (elapsed, watch)), expected, "{nodes:?} {elapsed:?}");
        }
    }
}
