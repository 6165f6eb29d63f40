//! A revision goes to a few nodes first. If one of them refuses it, or does not take it, or says that more of its requests
//! fail or take longer than elsewhere, it is taken back, and everybody goes on with the one before; if all take it and some
//! time passes, more are told, and at last all.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::model::{Percent, Rollout};
use outrigger_proto::xds::loads::Served;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::events::Happened;
use crate::loads::Loads;
use crate::nodes::NodeStatus;
use crate::plane::Plane;
use crate::serving::Serving;
use crate::store::StoreError;
use crate::store::etcd::Etcd;

/// How often nodes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often others are told what was seen.
const TESTIFY_EVERY: Duration = Duration::from_millis(250);
/// Until a store that could not be written is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// Requests of others that say what is to be expected.
const ENOUGH: u64 = 20;
/// Requests that failed although they were not to be expected to, before anything is made of it.
const FEWEST: f64 = 5.0;
/// Requests of both sides, before anything is made of how long they took.
const TIMED: u64 = 100;
/// What is slower by less is not slow.
const SLOWER: Duration = Duration::from_millis(25);

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
    pub fn to_all(serving: Arc<Serving>) -> Self {
        Self { stable: serving, candidate: None }
    }

    /// The same for as long as the same is served, be it to others.
    pub fn digests(&self) -> ([u8; 32], Option<[u8; 32]>) {
        let Self { stable, candidate } = self;
        (stable.digest, candidate.as_ref().map(|candidate| candidate.serving.digest))
    }

    /// What a node of this id is told.
    pub fn of(&self, node: &str) -> &Arc<Serving> {
        let candidate = self.candidate.as_ref().filter(|candidate| candidate.nodes.contains(node));
        candidate.map_or(&self.stable, |candidate| &candidate.serving)
    }
}

/// How nodes of one control plane fare with a candidate, as they say themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// The candidate.
    pub revision: u64,
    /// So many were told, anywhere, when it was looked at.
    pub chosen: usize,
    /// What those who have taken it have answered since.
    told: Sum,
    /// What others of their groups answered meanwhile.
    others: Sum,
    /// What those who have taken it answered before.
    before: Sum,
    /// For how long at least each of them has said how it fared, in milliseconds; `None` where none of them reports.
    heard: Option<u64>,
}

/// What was answered, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sum {
    good: u64,
    failed: u64,
    /// Without a bound where that is infinite.
    took: Vec<(Option<f64>, u64)>,
}

impl From<Served> for Sum {
    fn from(Served { good, failed, took }: Served) -> Self {
        let took = took.into_iter().map(|(bound, count)| (bound.is_finite().then_some(bound), count));
        Self { good, failed, took: took.collect() }
    }
}

impl From<Sum> for Served {
    fn from(Sum { good, failed, took }: Sum) -> Self {
        let took = took.into_iter().map(|(bound, count)| (bound.unwrap_or(f64::INFINITY), count));
        Self { good, failed, took: took.collect() }
    }
}

/// Leads every revision that is published as a candidate to all nodes, or back, for ever; without rules to all at once.
pub async fn lead(plane: Arc<Plane>, settings: Option<Rollout>) {
    let mut published = plane.published();
    loop {
        let candidate = published.borrow_and_update().candidate.clone();
        if let Some(candidate) = candidate {
            let revision = candidate.serving.revision;
            let led = async {
                match &settings {
                    Some(rules) => steps(&plane, rules, &candidate).await,
                    None => insist(&plane, move |plane| plane.settle(revision)).await,
                }
            };
            // Another one, meanwhile, begins anew.
            tokio::select! {
                () = led => {}
                () = superseded(&mut published, revision) => continue,
            }
        }
        if published.changed().await.is_err() {
            return;
        }
    }
}

/// Tells whoever leads how nodes of this control plane fare with a candidate, where the store is shared, for ever.
pub async fn witness(plane: Arc<Plane>) {
    let Some(shared) = plane.store().shared() else { return };
    let mut published = plane.published();
    loop {
        let candidate = published.borrow_and_update().candidate.clone();
        let Some(candidate) = candidate else {
            shared.account(None);
            if published.changed().await.is_err() {
                return;
            }
            continue;
        };
        let revision = candidate.serving.revision;
        let mut witness = Witness::new(&plane, revision);
        tokio::select! {
            () = witness.testify(shared) => {}
            () = superseded(&mut published, revision) => {}
        }
    }
}

/// Does something as long as this control plane leads, and anew whenever it comes to lead.
pub async fn while_leading<F: Future<Output = ()>>(plane: Arc<Plane>, work: impl Fn() -> F) {
    let mut leads = plane.leads();
    loop {
        let Ok(since) = leads.wait_for(Option::is_some).await.map(|since| *since) else { return };
        // Whoever leads without others does for ever.
        let lost = async {
            if leads.wait_for(|now| *now != since).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = work() => return,
            () = lost => tracing::warn!("this control plane does not lead any more"),
        }
    }
}

async fn superseded(published: &mut watch::Receiver<Published>, revision: u64) {
    let is_another =
        |now: &Published| now.candidate.as_ref().is_none_or(|it| it.serving.revision != revision);
    let _ = published.wait_for(is_another).await;
}

async fn steps(plane: &Arc<Plane>, rules: &Rollout, Candidate { serving, nodes }: &Candidate) {
    let revision = serving.revision;
    let groups: BTreeSet<_> = serving.fleet().groups.iter().map(|group| group.name.to_string()).collect();
    let mut watch = Watch { rules, witness: Witness::new(plane, revision) };
    // Whoever led it before has told these.
    let mut chosen = BTreeSet::clone(nodes);
    for share in &rules.steps {
        loop {
            chosen.extend(choose(&newest(plane), &groups, *share));
            // Where nobody is there nothing is proven.
            if !chosen.is_empty() {
                break;
            }
            sleep(LOOK_EVERY).await;
        }
        let told = Arc::new(chosen.clone());
        insist(plane, move |plane| plane.offer(revision, &told)).await;
        let nodes = chosen.iter().cloned().collect();
        plane.note(Happened::RolloutStep { revision, percent: share.fraction() * 100.0, nodes });
        tracing::info!(revision, nodes = chosen.len(), "told to some");
        if let Err(why) = watch.step(&chosen).await {
            return insist(plane, move |plane| plane.take_back(revision, &why)).await;
        }
    }
    insist(plane, move |plane| plane.settle(revision)).await;
}

/// What is looked at while a revision is on its way.
struct Watch<'p> {
    rules: &'p Rollout,
    witness: Witness<'p>,
}

impl Watch<'_> {
    /// Watches those who are told by now for as long as a step takes.
    ///
    /// # Errors
    /// Why it is to be taken back.
    async fn step(&mut self, chosen: &BTreeSet<String>) -> Result<(), String> {
        let begun = Instant::now();
        let mut behind = BTreeMap::new();
        loop {
            let nodes = newest(self.witness.plane);
            let late = judge(self.witness.revision, chosen, &nodes)?;
            behind.retain(|node, _| late.contains(node));
            let account = self.witness.look(chosen, &late, &nodes);
            for node in late {
                let since = behind.entry(node).or_insert_with(Instant::now);
                if since.elapsed() >= self.rules.patience {
                    return Err(format!(
                        "a node has not taken it within {:?}: {}",
                        self.rules.patience,
                        names(&behind)
                    ));
                }
            }
            let is_heard = self.weigh(account, chosen, begun)?;
            if behind.is_empty() && begun.elapsed() >= self.rules.watch && is_heard {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Whether whoever reports, here or to another control plane, has said how it fared for as long as a step is watched. One that
    /// falls silent is not waited for.
    ///
    /// # Errors
    /// In what those who were told fare worse than is to be expected.
    fn weigh(&self, own: Account, chosen: &BTreeSet<String>, begun: Instant) -> Result<bool, String> {
        let Witness { plane, revision, begun: _, taken: _ } = &self.witness;
        let shared = plane.store().shared();
        let (mut accounts, owes) =
            shared.map_or_else(Default::default, |shared| shared.accounts(*revision, chosen));
        accounts.push(own);
        let (mut told, mut others, mut before) = (Served::default(), Served::default(), Served::default());
        let mut heard = None;
        for account in accounts {
            told.add(&account.told.into());
            others.add(&account.others.into());
            before.add(&account.before.into());
            heard = heard.into_iter().chain(account.heard).min();
        }
        // Where not enough others were asked, what they themselves answered before says what is to be expected.
        let expected = if others.requests() >= ENOUGH { &others } else { &before };
        fail_alike(&told, expected, self.rules)?;
        let watch = self.rules.watch;
        let is_heard = !owes && heard.is_none_or(|heard| Duration::from_millis(heard) >= watch);
        let is_over = is_heard || begun.elapsed() >= watch + 3 * plane.loads.interval();
        // Whoever has just taken something is slow for a moment: with new connections, with nothing at hand yet.
        if is_over {
            take_alike(&told, expected, self.rules)?;
        }
        Ok(is_over)
    }
}

/// What nodes of this control plane make of a candidate.
struct Witness<'p> {
    plane: &'p Arc<Plane>,
    revision: u64,
    /// When it began.
    begun: Instant,
    /// Who has taken it, and since when.
    taken: BTreeMap<String, Instant>,
}

impl<'p> Witness<'p> {
    fn new(plane: &'p Arc<Plane>, revision: u64) -> Self {
        Self { plane, revision, begun: Instant::now(), taken: BTreeMap::new() }
    }

    /// Looks, and tells, for ever.
    async fn testify(&mut self, shared: &Etcd) {
        let published = self.plane.published();
        loop {
            let chosen = published.borrow().candidate.as_ref().map(|it| Arc::clone(&it.nodes));
            let (chosen, nodes) = (chosen.unwrap_or_default(), newest(self.plane));
            // That one refuses it, whoever leads sees by itself.
            let late = judge(self.revision, &chosen, &nodes).unwrap_or_else(|_| BTreeSet::clone(&chosen));
            shared.account(Some(self.look(&chosen, &late, &nodes)));
            sleep(TESTIFY_EVERY).await;
        }
    }

    /// What those who have taken it by now have answered since, and what is to be expected: what others of theirs answered
    /// meanwhile, and what they themselves answered before. Who is connected elsewhere says nothing here.
    fn look(&mut self, chosen: &BTreeSet<String>, late: &BTreeSet<String>, nodes: &[NodeStatus]) -> Account {
        let now = Instant::now();
        self.taken.retain(|node, _| chosen.contains(node) && !late.contains(node));
        for node in chosen.difference(late) {
            self.taken.entry(node.clone()).or_insert(now);
        }
        let loads = &self.plane.loads;
        let sum = |of: &mut dyn Iterator<Item = (&String, (Instant, Instant))>| {
            let mut sum = Served::default();
            of.for_each(|(node, time)| sum.add(&loads.between(node, time).0));
            sum.into()
        };
        let (mut told, mut heard) = (Served::default(), None);
        for (node, since) in &self.taken {
            let (served, time) = loads.between(node, (*since, now));
            told.add(&served);
            let time = loads.reports(node).then_some(time.as_millis() as u64);
            heard = heard.into_iter().chain(time).min();
        }
        let groups: BTreeSet<_> =
            nodes.iter().filter(|node| chosen.contains(&node.id)).map(|of| &of.group).collect();
        let of_theirs =
            nodes.iter().filter(|node| !chosen.contains(&node.id) && groups.contains(&node.group));
        let others = sum(&mut of_theirs.map(|node| (&node.id, (self.begun, now))));
        let since = self.begun.checked_sub(Loads::MEMORY).unwrap_or(self.begun);
        let before = sum(&mut self.taken.keys().map(|node| (node, (since, self.begun))));
        let (revision, chosen) = (self.revision, chosen.len());
        Account { revision, chosen, told: told.into(), others, before, heard }
    }
}

/// Whether about as few requests to those who were told fail as is to be expected.
///
/// # Errors
/// That more do.
fn fail_alike(told: &Served, others: &Served, rules: &Rollout) -> Result<(), String> {
    let per_cent = |share: f64| format!("{:.1} %", share * 100.0);
    let expected = others.failing() * told.requests() as f64;
    let more = told.failing() - others.failing();
    if told.failed as f64 - expected >= FEWEST && more > rules.failures.fraction() {
        return Err(format!(
            "of {} requests to those who were told {} failed, and of {} to others, or before, {}",
            told.requests(),
            per_cent(told.failing()),
            others.requests(),
            per_cent(others.failing())
        ));
    }
    Ok(())
}

/// Whether they take about as long as is to be expected.
///
/// # Errors
/// That they are slower.
fn take_alike(told: &Served, others: &Served, rules: &Rollout) -> Result<(), String> {
    let (Some(slow), Some(usual)) = (told.within(0.95), others.within(0.95)) else { return Ok(()) };
    let are_enough = told.requests() >= TIMED && others.requests() >= TIMED;
    if are_enough && slow > usual * rules.slowdown && slow > usual + SLOWER.as_secs_f64() {
        let ms = |seconds: f64| format!("{:.0} ms", seconds * 1000.0);
        return Err(format!(
            "95 of 100 requests to those who were told end within {}, and to others, or before, within {}",
            ms(slow),
            ms(usual)
        ));
    }
    Ok(())
}

/// Does what may wait for a disk or a network, until it is done: a store that is away comes back.
async fn insist(
    plane: &Arc<Plane>,
    work: impl Fn(&Plane) -> Result<(), StoreError> + Clone + Send + 'static,
) {
    loop {
        let (plane, work) = (Arc::clone(plane), work.clone());
        match tokio::task::spawn_blocking(move || work(&plane)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::error!(%error, "a rollout waits for the store"),
            // Whoever stops the process stops this too.
            Err(_) => return,
        }
        sleep(PAUSE).await;
    }
}

fn names<T>(of: &BTreeMap<String, T>) -> String {
    of.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Of each node its newest stream: an older one may not have been missed yet.
fn newest(plane: &Plane) -> Vec<NodeStatus> {
    let by_id: BTreeMap<_, _> = plane.connected().into_iter().map(|node| (node.id.clone(), node)).collect();
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
            way: "delta".to_owned(),
            since: String::new(),
            revision,
            settled: true,
            in_sync: nack.is_none(),
            kinds: [("Cluster".to_owned(), kind)].into(),
            load: None,
        }
    }

    #[test]
    fn those_who_were_told_are_held_against_others() {
        let rules = Rollout {
            steps: [Percent::whole(10)].into(),
            watch: Rollout::WATCH,
            failures: Rollout::FAILURES,
            slowdown: Rollout::SLOWDOWN,
            patience: Rollout::PATIENCE,
        };
        let of = |good, failed, seconds| Served { good, failed, took: vec![(seconds, good + failed)] };
        let check = |told: &Served, others: &Served, expected: Result<(), &str>| {
            let found = fail_alike(told, others, &rules).and_then(|()| take_alike(told, others, &rules));
            assert_eq!(found, expected.map_err(str::to_owned), "{told:?} {others:?}");
        };
        let (nothing, well) = (Served::default(), of(1000, 0, 0.01));
        check(&nothing, &well, Ok(()));
        check(&well, &nothing, Ok(()));
        // A few may always fail, and as many as elsewhere.
        check(&of(6, 4, 0.01), &well, Ok(()));
        check(&of(1000, 40, 0.01), &well, Ok(()));
        check(&of(80, 20, 0.01), &of(840, 160, 0.01), Ok(()));
        check(
            &of(90, 10, 0.01),
            &well,
            Err(
                "of 100 requests to those who were told 10.0 % failed, and of 1000 to others, or before, 0.0 %",
            ),
        );
        check(
            &of(0, 5, 0.01),
            &nothing,
            Err("of 5 requests to those who were told 100.0 % failed, and of 0 to others, or before, 0.0 %"),
        );
        // As slow as that only of many, and by more than nothing.
        check(&of(99, 0, 1.0), &well, Ok(()));
        check(&of(1000, 0, 0.03), &well, Ok(()));
        check(&of(1000, 0, 0.03), &of(1000, 0, 0.005), Ok(()));
        check(
            &of(1000, 0, 0.1),
            &well,
            Err(
                "95 of 100 requests to those who were told end within 95 ms, and to others, or before, within 10 ms",
            ),
        );
    }

    #[test]
    fn what_others_write_is_what_they_counted() {
        let served = Served { good: 7, failed: 1, took: vec![(0.1, 5), (f64::INFINITY, 3)] };
        let account = Account { revision: 2, chosen: 1, told: served.clone().into(), ..Account::default() };
        let text = serde_json::to_string(&account).unwrap();
        let read: Account = serde_json::from_str(&text).unwrap();
        assert_eq!((Served::from(read.told.clone()), read), (served, account));
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
