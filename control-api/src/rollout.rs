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

async fn steps(plane: &Arc<Plane>, Rollout { steps, watch, patience }: &Rollout, serving: &Arc<Serving>) {
    let revision = serving.revision;
    let groups: BTreeSet<_> = serving.fleet().groups.iter().map(|group| group.name.to_string()).collect();
    let mut chosen = BTreeSet::new();
    for share in steps {
        loop {
            chosen.extend(choose(&newest(plane), &groups, *share));
            // Where nobody is there nothing is proven.
            if !chosen.is_empty() {
                break;
            }
            sleep(LOOK_EVERY).await;
        }
        plane.offer(serving, chosen.clone());
        let nodes = chosen.iter().cloned().collect();
        plane.note(Happened::RolloutStep { revision, percent: share.fraction() * 100.0, nodes });
        tracing::info!(revision, nodes = chosen.len(), "told to some");
        let begun = Instant::now();
        let mut behind = BTreeMap::new();
        loop {
            let now = match judge(revision, &chosen, &newest(plane)) {
                Ok(now) => now,
                Err(why) => return blocking(plane, move |plane| plane.take_back(revision, &why)).await,
            };
            behind.retain(|node, _| now.contains(node));
            for node in now {
                let since = behind.entry(node).or_insert_with(Instant::now);
                if since.elapsed() >= *patience {
                    let why = format!("a node has not taken it within {patience:?}: {}", names(&behind));
                    return blocking(plane, move |plane| plane.take_back(revision, &why)).await;
                }
            }
            if behind.is_empty() && begun.elapsed() >= *watch {
                break;
            }
            sleep(LOOK_EVERY).await;
        }
    }
    let serving = Arc::clone(serving);
    blocking(plane, move |plane| plane.settle(&serving)).await;
}

/// Does what may wait for the disk.
async fn blocking(plane: &Arc<Plane>, work: impl FnOnce(&Plane) + Send + 'static) {
    let plane = Arc::clone(plane);
    // Whoever stops the process stops this too.
    let _ = tokio::task::spawn_blocking(move || work(&plane)).await;
}

fn names<T>(of: &BTreeMap<String, T>) -> String {
    of.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Of each node its newest stream: an older one may not have been missed yet.
fn newest(plane: &Plane) -> Vec<NodeStatus> {
    let by_id: BTreeMap<_, _> = plane.nodes.all().into_iter().map(|node| (node.id.clone(), node)).collect();
    by_id.into_values().collect()
}

/// So many of each group, at least one of those who are there: the same ones each time, for the same share.
fn choose(nodes: &[NodeStatus], groups: &BTreeSet<String>, share: Percent) -> BTreeSet<String> {
    let mut by_group: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
    // Whoever is of no group of this revision is told nothing of it.
    let told =
        nodes.iter().filter_map(|node| Some((node, node.group.as_ref().filter(|of| groups.contains(*of))?)));
    for (node, group) in told {
        let mut hasher = DefaultHasher::new();
        node.id.hash(&mut hasher);
        by_group.entry(group).or_default().push((hasher.finish(), &node.id));
    }
    let mut out = BTreeSet::new();
    for ids in by_group.values_mut() {
        ids.sort_unstable();
        ids.dedup();
        let most = (ids.len() as f64 * share.fraction()).ceil() as usize;
        out.extend(ids.iter().take(most.max(1)).map(|(_, id)| (*id).to_owned()));
    }
    out
}

/// Who of the chosen has not taken this revision yet.
///
/// # Errors
/// Who refuses it, and why.
fn judge(revision: u64, chosen: &BTreeSet<String>, nodes: &[NodeStatus]) -> Result<BTreeSet<String>, String> {
    // Whoever is gone may be gone because of it.
    let mut behind = chosen.clone();
    for node in nodes.iter().filter(|node| chosen.contains(&node.id)) {
        let refused = node.kinds.iter().find_map(|(kind, of)| {
            let why = of.nack.as_ref().filter(|_| of.refused == revision)?;
            Some(format!("node {} refuses {kind}: {why}", node.id))
        });
        if let Some(why) = refused {
            return Err(why);
        }
        if node.settled && node.revision == revision {
            behind.remove(&node.id);
        }
    }
    Ok(behind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::KindStatus;

    fn node(id: &str, revision: u64, nack: Option<&str>) -> NodeStatus {
        let refused = if nack.is_some() { revision } else { 0 };
        let kind = KindStatus { told: revision, acked: 0, nack: nack.map(str::to_owned), refused };
        NodeStatus {
            id: id.to_owned(),
            cluster: String::new(),
            agent: String::new(),
            labels: BTreeMap::new(),
            group: Some(id[..1].to_owned()),
            way: "delta",
            since: String::new(),
            revision,
            settled: true,
            in_sync: nack.is_none(),
            kinds: [("Cluster".to_owned(), kind)].into(),
        }
    }

    #[test]
    fn of_each_group_some_are_chosen_and_more_include_fewer() {
        let groups: BTreeSet<_> = ["a", "b"].map(str::to_owned).into();
        let nodes: Vec<_> =
            (0..10).map(|n| node(&format!("a{n}"), 1, None)).chain([node("b0", 1, None)]).collect();
        let of = |percent| choose(&nodes, &groups, Percent::whole(percent));
        assert_eq!((of(1).len(), of(50).len(), of(100).len()), (2, 6, 11));
        assert!(of(1).contains("b0") && of(1).is_subset(&of(50)));
        // Nobody, and whoever is of no group that there is.
        let nobody = NodeStatus { group: None, ..node("c0", 0, None) };
        assert!(choose(&[nobody, node("d0", 1, None)], &groups, Percent::whole(10)).is_empty());
    }

    #[test]
    fn one_that_refuses_takes_it_back_and_others_are_waited_for() {
        let chosen: BTreeSet<_> = ["a1", "a2"].map(str::to_owned).into();
        let (good, bad, old) = (node("a1", 2, None), node("a2", 2, Some("no")), node("a2", 1, None));
        let behind = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
        let before = NodeStatus { revision: 2, ..node("a2", 1, Some("of the one before")) };
        type Judged = Result<BTreeSet<String>, String>;
        let table: [(&[NodeStatus], Judged); 6] = [
            (&[good.clone(), node("a2", 2, None)], behind(&[])),
            (&[good.clone(), old], behind(&["a2"])),
            (&[good.clone(), bad], Err("node a2 refuses Cluster: no".to_owned())),
            // Whoever was not told says nothing of it; whoever is gone may be gone because of it.
            (&[good.clone(), node("a3", 1, Some("no"))], behind(&["a2"])),
            (&[], behind(&["a1", "a2"])),
            (&[good, before], behind(&[])),
        ];
        for (nodes, expected) in table {
            assert_eq!(judge(2, &chosen, nodes), expected, "{nodes:?}");
        }
    }
}
