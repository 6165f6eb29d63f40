//! What was asked of clusters, and answered by listeners, told to the control plane at intervals (LRS). It says whether it
//! wants to hear of it, and how often.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::model::Name;
use outrigger_proto::xds::loads::{
    self, ClusterStats, DroppedRequests, LISTENERS, LoadStatsRequest, LoadStatsResponse, Locality, STREAM,
    Served, UpstreamLocalityStats, of_listener,
};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::control::aside::{Aside, ended};
use crate::control::xds::node;
use crate::identity::backoff::Backoff;
use crate::observe::Registry;
use crate::upstream::{Cluster, Clusters, Endpoint};

/// Reports no more often than that, whatever is asked for.
const SHORTEST: Duration = Duration::from_secs(1);
/// Reports no less often than that.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// By which a server knows that it may ask for all clusters.
const SENDS_ALL: &str = "envoy.lrs.supports_send_all_clusters";

/// Reports for as long as the process lives, whenever somebody wants to hear it.
pub async fn report(aside: Aside, mut figures: Figures) {
    aside.keep("loads", async |backoff| stream(&aside, &mut figures, backoff).await).await;
}

/// One stream, to its end.
async fn stream(aside: &Aside, figures: &mut Figures, backoff: &mut Backoff) -> Result<Infallible, Status> {
    let mut node = node(&aside.control.node);
    node.client_features.push(SENDS_ALL.to_owned());
    let first = LoadStatsRequest { node: Some(node), cluster_stats: Vec::new() };
    let mut begun = aside.open::<_, LoadStatsResponse>(STREAM, first).await?;
    let mut wanted: Option<Wanted> = None;
    let mut next = Instant::now();
    loop {
        let interval = wanted.as_ref().map_or(Duration::MAX, |wanted| wanted.interval);
        tokio::select! {
            answer = begun.heard.message() => {
                let answer = answer?.ok_or_else(ended)?;
                backoff.reset();
                let now = Instant::now();
                if wanted.is_none() {
                    // What came before nobody has asked for.
                    figures.report(&Wanted::default(), now);
                }
                let found = Wanted::of(answer);
                next = now + found.interval;
                wanted = Some(found);
            }
            () = sleep_until(next), if wanted.is_some() => {
                next = Instant::now() + interval;
                let cluster_stats = wanted.as_ref().map(|wanted| figures.report(wanted, Instant::now()));
                let report = LoadStatsRequest { node: None, cluster_stats: cluster_stats.unwrap_or_default() };
                begun.say.send(report).await.map_err(|_| ended())?;
            }
        }
    }
}

/// What is to be reported.
#[derive(Debug, Default, PartialEq)]
struct Wanted {
    all: bool,
    clusters: Vec<String>,
    listeners: bool,
    interval: Duration,
}

impl Wanted {
    fn of(answer: LoadStatsResponse) -> Self {
        // Endpoints one by one are never told apart.
        let LoadStatsResponse {
            clusters,
            send_all_clusters: all,
            load_reporting_interval,
            report_endpoint_granularity: _,
        } = answer;
        let interval = load_reporting_interval.and_then(|interval| Duration::try_from(interval).ok());
        Self {
            all,
            listeners: clusters.iter().any(|name| name == LISTENERS),
            clusters,
            interval: interval.unwrap_or_default().clamp(SHORTEST, LONGEST),
        }
    }

    fn has(&self, name: &Name) -> bool {
        self.all || self.clusters.iter().any(|wanted| wanted == name.as_str())
    }
}

/// Where the figures are, and what of them was told.
#[derive(Debug)]
pub struct Figures {
    clusters: Arc<Clusters>,
    registry: Registry,
    /// Endpoints that had requests, by id, with their cluster; they may have left it since.
    endpoints: HashMap<u64, (Name, Arc<Endpoint>, Counts)>,
    /// Requests that were sent nowhere, by cluster and by why.
    dropped: HashMap<Name, Dropped>,
    listeners: HashMap<Arc<str>, Served>,
    since: Instant,
}

/// Of an endpoint, since it is there.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    issued: u64,
    ended: u64,
    failed: u64,
}

impl Counts {
    fn of(endpoint: &Endpoint) -> Self {
        let active = u64::from(endpoint.active());
        let issued = endpoint.requests();
        Self { issued, ended: issued.saturating_sub(active), failed: endpoint.failures() + endpoint.faults() }
    }
}

impl Figures {
    /// None of it was told yet.
    pub fn new(clusters: Arc<Clusters>, registry: Registry) -> Self {
        let (endpoints, dropped, listeners) = Default::default();
        Self { clusters, registry, endpoints, dropped, listeners, since: Instant::now() }
    }

    /// What has come since the last report, of clusters and listeners to which something has.
    fn report(&mut self, wanted: &Wanted, now: Instant) -> Vec<ClusterStats> {
        let since = now.duration_since(std::mem::replace(&mut self.since, now));
        let since = loads::Duration::try_from(since).unwrap_or_default();
        let clusters = self.clusters.all();
        let mut groups = self.groups(&clusters);
        let before = std::mem::take(&mut self.dropped);
        let mut out = Vec::new();
        for cluster in &clusters {
            let dropped = cluster.stats_in_use().map(|stats| stats.overflowed()).unwrap_or_default();
            let news = dropped_since(before.get(cluster.name()), &dropped);
            if !dropped.is_empty() {
                self.dropped.insert(cluster.name().clone(), dropped);
            }
            let groups = groups.remove(cluster.name()).unwrap_or_default();
            if wanted.has(cluster.name()) && !(groups.is_empty() && news.is_empty()) {
                out.push(of_cluster(cluster.name(), groups, news, since));
            }
        }
        // Of clusters that are gone, what came last.
        let gone = groups.into_iter().filter(|(name, _)| wanted.has(name));
        out.extend(gone.map(|(name, groups)| of_cluster(&name, groups, Vec::new(), since)));
        let before = std::mem::take(&mut self.listeners);
        for (name, stats) in self.registry.listeners() {
            let served = stats.served();
            let news = before.get(&name).map_or_else(|| served.clone(), |before| served.since(before));
            if wanted.listeners {
                let active = stats.requests_active.get().try_into().unwrap_or_default();
                out.push(of_listener(&name, &news, active, since));
            }
            self.listeners.insert(name, served);
        }
        out
    }

    /// By cluster, of the endpoints that had requests.
    fn groups(&mut self, clusters: &[Arc<Cluster>]) -> BTreeMap<Name, Groups> {
        for cluster in clusters {
            for endpoint in cluster.endpoints().endpoints().iter().filter(|endpoint| endpoint.requests() > 0)
            {
                if let Entry::Vacant(place) = self.endpoints.entry(endpoint.id()) {
                    place.insert((cluster.name().clone(), endpoint.clone(), Counts::default()));
                }
            }
        }
        let mut out: BTreeMap<Name, Groups> = BTreeMap::new();
        self.endpoints.retain(|_, (name, endpoint, told)| {
            let now = Counts::of(endpoint);
            let before = std::mem::replace(told, now);
            let active = endpoint.active();
            if now.issued > before.issued || now.ended > before.ended || active > 0 {
                let place = (endpoint.zone(), endpoint.priority());
                let group = out.entry(name.clone()).or_default().entry(place).or_default();
                let failed = now.failed.saturating_sub(before.failed);
                group.total_issued_requests += now.issued.saturating_sub(before.issued);
                group.total_error_requests += failed;
                group.total_successful_requests +=
                    now.ended.saturating_sub(before.ended).saturating_sub(failed);
                group.total_requests_in_progress += u64::from(active);
            }
            !(endpoint.is_retired() && active == 0)
        });
        out
    }
}

/// Requests that were sent nowhere, by why.
type Dropped = Vec<(&'static str, u64)>;

/// By zone and priority.
type Groups = BTreeMap<(Option<Box<str>>, u8), UpstreamLocalityStats>;

fn of_cluster(
    name: &Name,
    groups: Groups,
    dropped: Vec<DroppedRequests>,
    since: loads::Duration,
) -> ClusterStats {
    let group = |((zone, priority), stats): ((Option<Box<str>>, u8), UpstreamLocalityStats)| {
        let zone = zone.map(String::from).unwrap_or_default();
        let locality = Locality { zone, ..Locality::default() };
        UpstreamLocalityStats { locality: Some(locality), priority: priority.into(), ..stats }
    };
    ClusterStats {
        cluster_name: name.to_string(),
        total_dropped_requests: dropped.iter().map(|of| of.dropped_count).sum(),
        dropped_requests: dropped,
        upstream_locality_stats: groups.into_iter().map(group).collect(),
        load_report_interval: Some(since),
        ..ClusterStats::default()
    }
}

fn dropped_since(before: Option<&Dropped>, now: &Dropped) -> Vec<DroppedRequests> {
    let known =
        |why: &str| before.into_iter().flatten().find(|(known, _)| *known == why).map_or(0, |of| of.1);
    let news = now.iter().map(|(why, count)| (why, count.saturating_sub(known(why))));
    let news = news.filter(|(_, count)| *count > 0);
    news.map(|(why, count)| DroppedRequests { category: (*why).to_owned(), dropped_count: count }).collect()
}

#[cfg(test)]
#[path = "loads_tests.rs"]
mod tests;
