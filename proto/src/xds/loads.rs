//! Load reports (LRS): what a proxy's clusters were asked, told to its control plane at intervals
//! (<https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/load_stats/v3/lrs.proto>).
//!
//! LRS knows of endpoints alone, and not of what clients got: a route that leads nowhere fails at none of them. So whoever
//! asks for the cluster [`LISTENERS`] too, which nobody else has a reason to, is told what each listener answered and how
//! long that took, as if it were a cluster below that name.

pub use prost_types::Duration;

pub use super::generated::envoy::config::core::v3::Locality;
pub use super::generated::envoy::config::endpoint::v3::cluster_stats::DroppedRequests;
pub use super::generated::envoy::config::endpoint::v3::{
    ClusterStats, EndpointLoadMetricStats, UpstreamLocalityStats,
};
pub use super::generated::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};

/// Where the stream of reports is begun.
pub const STREAM: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";

/// The cluster that stands for all listeners. `/` is in no name of ours.
pub const LISTENERS: &str = "outrigger/listeners";

/// A figure of a listener: requests that took at most so long, in seconds, and longer than the bound before it.
const TOOK: &str = "outrigger.took/";

/// What was answered in some time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Served {
    /// Requests that ended, and well.
    pub good: u64,
    /// Requests that ended with a fault of the service's or of the proxy's: with 5xx, as a rule.
    pub failed: u64,
    /// How long they took: upper bounds in seconds, rising, and how many took longer than the bound before; the last may be
    /// infinite. Those that nothing took are left out.
    pub took: Vec<(f64, u64)>,
}

impl Served {
    /// All that ended.
    pub fn requests(&self) -> u64 {
        self.good + self.failed
    }

    /// The share that failed: 0 to 1.
    pub fn failing(&self) -> f64 {
        if self.failed == 0 { 0.0 } else { self.failed as f64 / self.requests() as f64 }
    }

    /// Both together.
    pub fn add(&mut self, other: &Self) {
        let Self { good, failed, took } = other;
        self.good += good;
        self.failed += failed;
        for (bound, count) in took {
            match self.took.binary_search_by(|(known, _)| known.total_cmp(bound)) {
                Ok(at) => self.took[at].1 += count,
                Err(at) => self.took.insert(at, (*bound, *count)),
            }
        }
    }

    /// What has come since `before`, of counts that only grow.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let known = |bound: f64| before.took.iter().find(|(known, _)| *known == bound).map_or(0, |of| of.1);
        let took = self.took.iter().map(|(bound, count)| (*bound, count.saturating_sub(known(*bound))));
        Self {
            good: self.good.saturating_sub(before.good),
            failed: self.failed.saturating_sub(before.failed),
            took: took.filter(|(_, count)| *count > 0).collect(),
        }
    }

    /// Within how many seconds so many of them ended (`share` of 0 to 1), as near as the bounds say; `None` where nothing did.
    /// Those beyond the last bound count as having taken as long as that.
    pub fn within(&self, share: f64) -> Option<f64> {
        let total: u64 = self.took.iter().map(|(_, count)| count).sum();
        let wanted = share * total as f64;
        let (mut below, mut reached) = (0.0, 0.0);
        for (bound, count) in self.took.iter().filter(|(_, count)| *count > 0) {
            let count = *count as f64;
            if !bound.is_finite() {
                return Some(below);
            }
            if reached + count >= wanted {
                return Some(below + (bound - below) * ((wanted - reached) / count).clamp(0.0, 1.0));
            }
            (below, reached) = (*bound, reached + count);
        }
        (total > 0).then_some(below)
    }
}

/// What a listener answered since the last report, as a cluster of LRS; `active` are under way.
pub fn of_listener(name: &str, served: &Served, active: u64, since: Duration) -> ClusterStats {
    let took = served.took.iter().map(|(bound, count)| EndpointLoadMetricStats {
        metric_name: format!("{TOOK}{bound}"),
        num_requests_finished_with_metric: *count,
        total_metric_value: if bound.is_finite() { bound * *count as f64 } else { 0.0 },
    });
    let stats = UpstreamLocalityStats {
        total_successful_requests: served.good,
        total_error_requests: served.failed,
        total_issued_requests: served.requests(),
        total_requests_in_progress: active,
        load_metric_stats: took.collect(),
        ..UpstreamLocalityStats::default()
    };
    ClusterStats {
        cluster_name: format!("{LISTENERS}/{name}"),
        upstream_locality_stats: vec![stats],
        load_report_interval: Some(since),
        ..ClusterStats::default()
    }
}

/// What a report says was answered: by listeners, where it tells of them; else by clusters.
pub fn served(report: &[ClusterStats]) -> Served {
    let is_listener = |stats: &&ClusterStats| stats.cluster_name.starts_with(LISTENERS);
    let tells_of_listeners = report.iter().any(|stats| is_listener(&stats));
    let mut all = Served::default();
    for stats in report.iter().filter(|stats| is_listener(stats) == tells_of_listeners) {
        for group in &stats.upstream_locality_stats {
            let took = group.load_metric_stats.iter().filter_map(|figure| {
                let bound = figure.metric_name.strip_prefix(TOOK)?.parse().ok()?;
                Some((bound, figure.num_requests_finished_with_metric))
            });
            let mut took: Vec<(f64, u64)> = took.collect();
            took.sort_by(|a, b| a.0.total_cmp(&b.0));
            all.add(&Served {
                good: group.total_successful_requests,
                failed: group.total_error_requests,
                took,
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn took(of: &[(f64, u64)]) -> Served {
        Served { took: of.to_vec(), ..Served::default() }
    }

    #[test]
    fn how_long_most_took_is_read_between_bounds() {
        type Buckets = &'static [(f64, u64)];
        let table: [(Buckets, f64, Option<f64>); 7] = [
            (&[], 0.5, None),
            (&[(0.1, 10)], 0.5, Some(0.05)),
            (&[(0.1, 10)], 1.0, Some(0.1)),
            (&[(0.1, 90), (0.5, 10)], 0.9, Some(0.1)),
            (&[(0.1, 90), (0.5, 10)], 0.95, Some(0.3)),
            // Beyond the last bound nothing is known but that.
            (&[(0.1, 1), (f64::INFINITY, 9)], 0.5, Some(0.1)),
            (&[(f64::INFINITY, 9)], 0.5, Some(0.0)),
        ];
        for (of, share, expected) in table {
            let is = took(of).within(share);
            let near = is.zip(expected).is_none_or(|(is, expected)| (is - expected).abs() < 1e-9);
            assert!(near && is.is_some() == expected.is_some(), "{of:?} {share}: {is:?}");
        }
    }

    #[test]
    fn where_listeners_are_told_of_clusters_do_not_count() {
        let group = UpstreamLocalityStats {
            total_successful_requests: 3,
            total_error_requests: 1,
            ..UpstreamLocalityStats::default()
        };
        let cluster = ClusterStats {
            cluster_name: "app".to_owned(),
            upstream_locality_stats: vec![group.clone(), group],
            ..ClusterStats::default()
        };
        let of = |report: &[ClusterStats]| {
            let Served { good, failed, took: _ } = served(report);
            (good, failed)
        };
        assert_eq!(of(&[cluster.clone(), cluster.clone()]), (12, 4));
        let listener = Served { good: 5, failed: 0, took: Vec::new() };
        assert_eq!(of(&[cluster, of_listener("web", &listener, 0, Duration::default())]), (5, 0));
    }

    fn random() -> impl Strategy<Value = Served> {
        let bound = prop_oneof![Just(f64::INFINITY), (1..40_u32).prop_map(|of| f64::from(of) / 1000.0)];
        let took = prop::collection::vec((bound, 1..100_u64), 0..6);
        (0..1000_u64, 0..1000_u64, took).prop_map(|(good, failed, mut took)| {
            took.sort_by(|a, b| a.0.total_cmp(&b.0));
            took.dedup_by(|a, b| a.0 == b.0);
            Served { good, failed, took }
        })
    }

    proptest! {
        #[test]
        fn what_is_told_of_a_listener_is_what_is_heard(of in random()) {
            prop_assert_eq!(served(&[of_listener("a/b", &of, 1, Duration::default())]), of);
        }

        #[test]
        fn what_came_since_and_what_was_before_is_all(before in random(), more in random()) {
            let mut all = before.clone();
            all.add(&more);
            prop_assert_eq!(all.since(&before), more);
        }
    }
}
