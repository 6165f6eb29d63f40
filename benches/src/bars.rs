//! What Outrigger must reach, as the project set it.
//!
//! The bars were set against HAProxy as it comes, so that is the one they are judged by. The ratio to HAProxy
//! tuned stands beside each verdict: a bar that only the defaults let pass should be seen to be one.

use crate::cases::{Case, Metric};
use crate::proxy::Proxy;
use crate::report::Results;

/// What a figure of Outrigger must not exceed.
#[derive(Clone, Copy, Debug)]
enum Limit {
    /// So many times the best of these peers.
    Times(f64, &'static [Proxy]),
    /// So many times what Outrigger itself needs in another case.
    TimesCase(f64, Case),
    /// A value in the metric's unit.
    Value(f64),
}

/// One bar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    /// Whose figure is judged.
    of: Proxy,
    case: Case,
    metric: Metric,
    limit: Limit,
}

/// How a bar was met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// Outrigger's figure, in the unit of the bar: a ratio or a value.
    pub(crate) found: f64,
    /// Whether that is low enough.
    pub(crate) passed: bool,
}

const PEERS: &[Proxy] = &[Proxy::Haproxy, Proxy::Nginx];
const HAPROXY: &[Proxy] = &[Proxy::Haproxy];
const ALL: &[Proxy] = &[Proxy::Envoy, Proxy::Haproxy, Proxy::Nginx];
const ENVOY: &[Proxy] = &[Proxy::Envoy];
const OURS: &[Proxy] = &[Proxy::Outrigger];

/// All of them.
pub(crate) const BARS: &[Bar] = &[
    bar(Case::H1Small, Metric::Cpu, Limit::Times(1.15, PEERS)),
    bar(Case::H1Small, Metric::Cpu, Limit::Times(0.4, ENVOY)),
    Bar { of: Proxy::OutriggerGuarded, ..bar(Case::H1Small, Metric::Cpu, Limit::Times(1.10, OURS)) },
    bar(Case::H1NewConnection, Metric::Cpu, Limit::Times(1.0, HAPROXY)),
    bar(Case::H2c, Metric::Cpu, Limit::Times(1.5, HAPROXY)),
    bar(Case::H2c, Metric::Cpu, Limit::Times(0.35, ENVOY)),
    bar(Case::TlsH2H1, Metric::Cpu, Limit::Times(1.5, HAPROXY)),
    bar(Case::TlsHandshake, Metric::Cpu, Limit::Times(1.0, ALL)),
    bar(Case::TlsResumed, Metric::Cpu, Limit::Times(1.0, ALL)),
    bar(Case::MtlsPair, Metric::Cpu, Limit::Times(1.0, HAPROXY)),
    bar(Case::Tcp, Metric::CpuPerGb, Limit::Times(1.0, HAPROXY)),
    bar(Case::IdleMemory, Metric::Resident, Limit::Value(10.0)),
    bar(Case::IdleConnection, Metric::PerConnection, Limit::Value(12.0)),
    bar(Case::Routes10000, Metric::Resident, Limit::Value(40.0)),
    bar(Case::Routes10000, Metric::Cpu, Limit::TimesCase(1.15, Case::Routes1)),
];

const fn bar(case: Case, metric: Metric, limit: Limit) -> Bar {
    Bar { of: Proxy::Outrigger, case, metric, limit }
}

impl Bar {
    /// The case that it judges.
    pub(crate) fn case(self) -> Case {
        self.case
    }

    /// The bar in words.
    pub(crate) fn text(self) -> String {
        let title = match self.of {
            Proxy::OutriggerGuarded => format!("with all policies, {}", self.metric.title()),
            _ => self.metric.title().to_owned(),
        };
        match self.limit {
            Limit::Times(factor, peers) => {
                let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
                let best = if peers.len() > 1 { "the best of " } else { "" };
                format!("{title} <= {factor} x {best}{}", peers.join(" and "))
            }
            Limit::TimesCase(factor, case) => format!("{title} <= {factor} x that of {}", case.name()),
            Limit::Value(limit) => format!("{title} <= {limit}"),
        }
    }

    /// `None` when a figure that it needs was not measured. Every peer that it names is needed.
    pub(crate) fn judge(self, results: &Results) -> Option<Verdict> {
        let ratio = |case, proxy| results.ratio((self.case, self.of), (case, proxy), self.metric);
        let (found, limit) = match self.limit {
            Limit::Value(limit) => (results.figure(self.case, self.of, self.metric)?, limit),
            Limit::TimesCase(factor, case) => (ratio(case, Proxy::Outrigger)?, factor),
            Limit::Times(factor, peers) => {
                let ratios = peers.iter().map(|peer| ratio(self.case, *peer));
                let of_best = ratios.collect::<Option<Vec<f64>>>()?.into_iter().fold(0.0, f64::max);
                (of_best, factor)
            }
        };
        Some(Verdict { found, passed: found <= limit })
    }

    /// Outrigger's figure as so many times that of HAProxy tuned. Decides nothing. `None` when either was not
    /// measured, and for bars that do not name HAProxy.
    pub(crate) fn to_tuned(self, results: &Results) -> Option<f64> {
        match self.limit {
            Limit::Times(_, peers) if peers.contains(&Proxy::Haproxy) => {
                results.ratio((self.case, Proxy::Outrigger), (self.case, Proxy::HaproxyTuned), self.metric)
            }
            Limit::Times(..) | Limit::TimesCase(..) | Limit::Value(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(figures: &[(Case, Proxy, f64)]) -> Results {
        let mut results = Results::default();
        for (case, proxy, figure) in figures {
            results.add(*case, *proxy, Ok([(Metric::Cpu, *figure)].into()));
        }
        results
    }

    #[track_caller]
    fn check(limit: Limit, figures: &[(Case, Proxy, f64)], expected: Option<(f64, bool)>) {
        let verdict = bar(Case::H1Small, Metric::Cpu, limit).judge(&results(figures));
        assert_eq!(verdict.map(|verdict| (verdict.found, verdict.passed)), expected);
    }

    #[test]
    fn verdicts() {
        let ours = (Case::H1Small, Proxy::Outrigger, 30.0);
        let nginx = (Case::H1Small, Proxy::Nginx, 24.0);
        let haproxy = (Case::H1Small, Proxy::Haproxy, 40.0);
        check(Limit::Value(30.0), &[ours], Some((30.0, true)));
        check(Limit::Value(29.0), &[ours], Some((30.0, false)));
        check(Limit::Value(1.0), &[nginx], None);
        check(Limit::Times(1.15, PEERS), &[ours, nginx, haproxy], Some((1.25, false)));
        check(Limit::Times(1.15, PEERS), &[ours, nginx], None);
        check(Limit::Times(1.0, HAPROXY), &[ours, haproxy], Some((0.75, true)));
        let other = (Case::Routes1, Proxy::Outrigger, 20.0);
        check(Limit::TimesCase(1.15, Case::Routes1), &[ours, other], Some((1.5, false)));
    }

    #[test]
    fn haproxy_tuned_decides_nothing() {
        let ours = (Case::H1Small, Proxy::Outrigger, 30.0);
        let haproxy = (Case::H1Small, Proxy::Haproxy, 40.0);
        let tuned = (Case::H1Small, Proxy::HaproxyTuned, 20.0);
        check(Limit::Times(1.0, HAPROXY), &[ours, haproxy, tuned], Some((0.75, true)));
        check(Limit::Times(1.0, HAPROXY), &[ours, tuned], None);
    }

    #[test]
    fn ratio_to_haproxy_tuned() {
        #[track_caller]
        fn check(limit: Limit, figures: &[(Case, Proxy, f64)], expected: Option<f64>) {
            assert_eq!(bar(Case::H1Small, Metric::Cpu, limit).to_tuned(&results(figures)), expected);
        }
        let ours = (Case::H1Small, Proxy::Outrigger, 30.0);
        let tuned = (Case::H1Small, Proxy::HaproxyTuned, 20.0);
        check(Limit::Times(1.0, HAPROXY), &[ours, tuned], Some(1.5));
        check(Limit::Times(1.15, PEERS), &[ours, tuned], Some(1.5));
        check(Limit::Times(1.0, HAPROXY), &[ours], None);
        check(Limit::Times(0.4, ENVOY), &[ours, tuned], None);
        check(Limit::Value(10.0), &[ours, tuned], None);
    }
}
