//! Who is worse than the others: the rules that look at shares and means of an interval.

use std::collections::HashSet;

use outrigger_proto::model::{OutlierDetection, Percent};

use super::{Cause, Standing};

/// Endpoints it takes to judge by deviations, as in Envoy: one of n is never more than the root of n - 1 deviations
/// below the mean, so that of four not even one that fails always would be beyond the usual 1.9.
const DEVIATION_PEERS: usize = 5;
/// Endpoints it takes to judge by the median: of two, nobody can say which is the odd one.
const MEDIAN_PEERS: usize = 3;
/// An endpoint that is well and has had enough requests in an interval to be judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    place: usize,
    requests: u32,
    failures: u32,
    /// What successes took, together.
    nanos: u64,
}

impl Sample {
    fn successes(self) -> u32 {
        self.requests.saturating_sub(self.failures)
    }

    fn success_rate(self) -> f64 {
        f64::from(self.successes()) / f64::from(self.requests)
    }

    fn latency(self) -> f64 {
        self.nanos as f64 / f64::from(self.successes())
    }
}

/// Takes everybody's counts: those of an endpoint that is not judged now are gone too, also what slipped in as it was
/// ejected.
pub(super) fn samples(endpoints: &[&Standing], config: &OutlierDetection) -> Vec<Sample> {
    let sample = |(place, endpoint): (usize, &&Standing)| {
        let (requests, failures, nanos) = endpoint.take();
        let judged = requests >= config.min_requests.get() && !endpoint.is_ejected();
        judged.then_some(Sample { place, requests, failures, nanos })
    };
    endpoints.iter().enumerate().filter_map(sample).collect()
}

/// Who is to be left out, the worst by each rule first, in case not all of them may be. Nobody twice.
pub(super) fn suspects(samples: &[Sample], config: &OutlierDetection) -> Vec<(usize, Cause)> {
    let rules = [
        (failing(samples, config), Cause::FailurePercent),
        (deviating(samples, config), Cause::SuccessRate),
        (slow(samples, config), Cause::Latency),
    ];
    let (mut seen, mut all) = (HashSet::new(), Vec::new());
    for (mut found, cause) in rules {
        found.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let mut places: Vec<_> = found.into_iter().map(|(place, _)| place).collect();
        places.retain(|place| seen.insert(*place));
        all.extend(places.into_iter().map(|place| (place, cause)));
    }
    all
}

/// By the share of failures. Each with how bad it is, as in the other rules.
fn failing(samples: &[Sample], config: &OutlierDetection) -> Vec<(usize, f64)> {
    if config.failure_percent == Percent::ZERO {
        return Vec::new();
    }
    let share = |n: u32, of: Percent| u64::from(n) * u64::from(of.millionths());
    let fails = |s: &&Sample| share(s.failures, Percent::ALL) >= share(s.requests, config.failure_percent);
    samples.iter().filter(fails).map(|s| (s.place, 1.0 - s.success_rate())).collect()
}

/// By the distance to the mean of the success rates, in standard deviations of these rates.
fn deviating(samples: &[Sample], config: &OutlierDetection) -> Vec<(usize, f64)> {
    if config.success_rate_deviations == 0 || samples.len() < DEVIATION_PEERS {
        return Vec::new();
    }
    let factor = f64::from(config.success_rate_deviations) / 10.0;
    let n = samples.len() as f64;
    let mean = samples.iter().map(|s| s.success_rate()).sum::<f64>() / n;
    let variance = samples.iter().map(|s| (s.success_rate() - mean).powi(2)).sum::<f64>() / n;
    let judge = |s: &Sample| {
        // Were all alike, a rate out of so few requests would still scatter by this much. Without it the first
        // failure among endpoints that never fail would be an outlier.
        let chance = mean * (1.0 - mean) / f64::from(s.requests);
        let below = mean - s.success_rate();
        (below > factor * variance.max(chance).sqrt()).then_some((s.place, below))
    };
    samples.iter().filter_map(judge).collect()
}

/// By the mean latency, beside the median of all means.
fn slow(samples: &[Sample], config: &OutlierDetection) -> Vec<(usize, f64)> {
    let enough = |s: &&Sample| s.successes() >= config.min_requests.get();
    let mut means: Vec<f64> = samples.iter().filter(enough).map(|s| s.latency()).collect();
    if config.latency_factor == 0 || means.len() < MEDIAN_PEERS {
        return Vec::new();
    }
    means.sort_by(f64::total_cmp);
    let median = (means[(means.len() - 1) / 2] + means[means.len() / 2]) / 2.0;
    let bound = median * f64::from(config.latency_factor) / 10.0;
    let is_slow = |s: &&Sample| median > 0.0 && s.latency() >= bound;
    samples.iter().filter(enough).filter(is_slow).map(|s| (s.place, s.latency())).collect()
}
