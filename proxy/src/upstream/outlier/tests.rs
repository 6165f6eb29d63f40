//! Rule by rule here, arrow by arrow of the diagram in [`phases`], with the time in hand; [`simulation`] plays it all
//! at once.

mod phases;
mod simulation;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;

use super::*;

const SEC: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const OK: Outcome = Outcome::Success;
const E500: Outcome = Outcome::Status5xx { gateway: false };
const E503: Outcome = Outcome::Status5xx { gateway: true };
const NONE: Outcome = Outcome::NoResponse;

/// No rule, few requests to be judged by, otherwise the defaults.
fn quiet() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 0,
        consecutive_local: 0,
        min_requests: NonZeroU32::new(10).unwrap(),
        ..OutlierDetection::default()
    }
}

/// Endpoints, a detector, and how they are spoken to.
struct Cluster {
    standings: Vec<Arc<Standing>>,
    detector: Detector,
    config: OutlierDetection,
}

impl Cluster {
    fn new(n: usize, config: OutlierDetection) -> Self {
        let standings = (0..n).map(|_| Arc::default()).collect();
        Self { standings, detector: Detector::new(Duration::ZERO), config }
    }

    fn all(&self) -> Vec<&Standing> {
        self.standings.iter().map(|s| &**s).collect()
    }

    /// `successes`, each of which took so long, and `failures`.
    fn serve(&self, place: usize, successes: u32, took: Duration, failures: u32) {
        let outcomes = (0..successes).map(|_| OK).chain((0..failures).map(|_| E500));
        for outcome in outcomes {
            let _ = self.standings[place].record(outcome, took, &self.config);
        }
    }

    fn eject(&mut self, place: usize, cause: Cause, now: Duration) -> Option<Change> {
        let endpoints: Vec<&Standing> = self.standings.iter().map(|s| &**s).collect();
        let scene = Scene { endpoints: &endpoints, config: &self.config, now };
        self.detector.eject(&self.standings[place], cause, scene, 0)
    }

    fn sweep(&mut self, now: Duration) -> Changes {
        let endpoints: Vec<&Standing> = self.standings.iter().map(|s| &**s).collect();
        self.detector.sweep(&endpoints, Some(&self.config), now, || 0)
    }

    fn sweep_off(&mut self, now: Duration) -> Changes {
        let endpoints: Vec<&Standing> = self.standings.iter().map(|s| &**s).collect();
        self.detector.sweep(&endpoints, None, now, || 0)
    }

    fn ejected(&self) -> Vec<usize> {
        (0..self.standings.len()).filter(|place| self.standings[*place].is_ejected()).collect()
    }
}

fn ejected(place: usize, cause: Cause, length: Duration) -> (usize, Change) {
    (place, Change::Ejected { cause, length })
}

#[test]
fn failures_in_a_row() {
    #[track_caller]
    fn check(config: OutlierDetection, outcomes: &[Outcome], wanted: &[Option<Cause>]) {
        let standing = Standing::default();
        let got: Vec<_> = outcomes
            .iter()
            .map(|outcome| match standing.record(*outcome, MS, &config) {
                Verdict::Eject(cause) => Some(cause),
                Verdict::Nothing | Verdict::Returned => None,
            })
            .collect();
        assert_eq!(got, wanted);
    }
    use Cause::{Consecutive5xx as All, ConsecutiveGateway as Gateway, ConsecutiveLocal as Local};
    let all = OutlierDetection { consecutive_5xx: 3, ..quiet() };
    let gateway = OutlierDetection { consecutive_gateway: 2, ..quiet() };
    let local = OutlierDetection { consecutive_local: 2, ..quiet() };
    let each =
        OutlierDetection { consecutive_5xx: 2, consecutive_gateway: 2, consecutive_local: 2, ..quiet() };

    check(all, &[E500, E503, NONE], &[None, None, Some(All)]);
    check(all, &[E500, E500, OK, E500, E500, OK], &[None; 6]);
    // Told again, if it could not be ejected.
    check(all, &[E500; 7], &[None, None, Some(All), None, None, Some(All), None]);
    check(gateway, &[E503, E500, E503, NONE], &[None, None, None, Some(Gateway)]);
    // A status, whichever, is a response.
    check(local, &[NONE, E500, NONE, E503, NONE, OK, NONE], &[None; 7]);
    check(local, &[OK, NONE, NONE], &[None, None, Some(Local)]);
    // One verdict, the one that says most; all of them begin anew.
    check(each, &[NONE, NONE, E500, E500], &[None, Some(Local), None, Some(All)]);
    check(each, &[E503, E503, NONE], &[None, Some(Gateway), None]);
    check(OutlierDetection { consecutive_5xx: 1, ..quiet() }, &[E500, E500], &[Some(All), Some(All)]);
    check(quiet(), &[NONE; 20], &[None; 20]);
}

#[test]
fn counts_survive_a_reload() {
    let standing = Standing::default();
    let before = OutlierDetection { consecutive_5xx: 10, ..quiet() };
    for _ in 0..5 {
        assert_eq!(standing.record(E500, MS, &before), Verdict::Nothing);
    }
    let after = OutlierDetection { consecutive_5xx: 3, ..quiet() };
    assert_eq!(standing.record(E500, MS, &after), Verdict::Eject(Cause::Consecutive5xx));
}

#[test]
fn of_many_threads_one_is_told_for_each_time() {
    let standing = Standing::default();
    let config = OutlierDetection { consecutive_5xx: 7, ..quiet() };
    let told = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..7_000 {
                    let verdict = standing.record(E500, MS, &config);
                    told.fetch_add(u32::from(verdict != Verdict::Nothing), Relaxed);
                }
            });
        }
    });
    assert_eq!(told.into_inner(), 4_000);
}

#[test]
fn a_shorter_bound_holds_for_ejections_under_way() {
    let mut cluster = Cluster::new(2, OutlierDetection::default());
    cluster.eject(0, Cause::Consecutive5xx, SEC);
    cluster.config.max_ejection = 5 * SEC;
    assert_eq!(cluster.sweep(10 * SEC), []);
    assert_eq!(cluster.sweep(15 * SEC), [(0, Change::HalfOpen)]);
}

#[test]
fn so_many_may_be_left_out() {
    #[track_caller]
    fn check(n: usize, percent: u32, wanted: usize) {
        let mut cluster =
            Cluster::new(n, OutlierDetection { max_ejected: Percent::whole(percent), ..quiet() });
        for place in 0..n {
            let ejection = cluster.eject(place, Cause::Consecutive5xx, SEC);
            let cause = Cause::Consecutive5xx;
            let length = 30 * SEC;
            let wanted =
                if place < wanted { Change::Ejected { cause, length } } else { Change::Spared(cause) };
            assert_eq!(ejection, Some(wanted), "{n} {percent} {place}");
        }
    }
    for (n, percent, wanted) in [
        (1, 50, 0),
        (1, 100, 0),
        (2, 0, 1),
        (2, 50, 1),
        (2, 100, 2),
        (3, 50, 1),
        (5, 10, 1),
        (5, 50, 2),
        (5, 59, 2),
        (5, 60, 3),
        (100, 33, 33),
    ] {
        check(n, percent, wanted);
    }
}

#[test]
fn ejections_grow_to_a_bound() {
    let config =
        OutlierDetection { base_ejection: 30 * SEC, max_ejection: 100 * SEC, ..OutlierDetection::default() };
    let standing = Standing::default();
    for (random, length, counted) in [
        (0, 30 * SEC, 1),
        (u64::MAX, 66 * SEC, 2),
        (0, 90 * SEC, 3),
        (u64::MAX, 100 * SEC, 4),
        (u64::MAX, 100 * SEC, 4),
    ] {
        assert_eq!(standing.eject(&config, 7 * SEC, random), length);
        assert_eq!(standing.phase(), Phase::Ejected { until: 7 * SEC + length });
        assert_eq!(standing.ejections(), counted);
    }
    let (base, max) = (Duration::ZERO, Duration::MAX);
    let odd = OutlierDetection { base_ejection: base, max_ejection: max, ..config };
    assert_eq!(standing.eject(&odd, SEC, u64::MAX), Duration::ZERO);
    let odd = OutlierDetection { base_ejection: max, max_ejection: max, ..config };
    assert_eq!(standing.eject(&odd, SEC, u64::MAX), Duration::MAX);
}

#[test]
fn a_share_of_failures_and_the_worst_first() {
    let config = OutlierDetection {
        failure_percent: Percent::whole(50),
        max_ejected: Percent::whole(40),
        ..OutlierDetection { base_ejection: 5 * SEC, ..quiet() }
    };
    let mut cluster = Cluster::new(5, config);
    let counts = [(5, 5), (6, 5), (2, 8), (1, 9), (0, 9)];
    for (place, (successes, failures)) in counts.into_iter().enumerate() {
        cluster.serve(place, successes, MS, failures);
    }
    let (cause, length) = (Cause::FailurePercent, 5 * SEC);
    // The second is below the share; the last has had too few requests.
    let wanted = [ejected(3, cause, length), ejected(2, cause, length), (0, Change::Spared(cause))];
    assert_eq!(cluster.sweep(10 * SEC), wanted);
    // Counts are of one interval.
    assert_eq!(cluster.sweep(11 * SEC), []);
}

#[test]
fn a_share_of_failures_needs_no_others_but_the_last_endpoint_stays() {
    let config = OutlierDetection { failure_percent: Percent::whole(50), ..quiet() };
    for (n, wanted) in
        [(2, ejected(0, Cause::FailurePercent, 30 * SEC)), (1, (0, Change::Spared(Cause::FailurePercent)))]
    {
        let mut cluster = Cluster::new(n, config);
        cluster.serve(0, 0, MS, 10);
        assert_eq!(cluster.sweep(10 * SEC), [wanted]);
    }
}

#[test]
fn deviations_of_the_success_rate() {
    #[track_caller]
    fn check(counts: &[(u32, u32)], wanted: &[usize]) {
        let mut cluster =
            Cluster::new(counts.len(), OutlierDetection { success_rate_deviations: 19, ..quiet() });
        for (place, (successes, failures)) in counts.iter().enumerate() {
            cluster.serve(place, *successes, MS, *failures);
        }
        let cause = Cause::SuccessRate;
        let wanted: Vec<_> = wanted.iter().map(|place| ejected(*place, cause, 30 * SEC)).collect();
        assert_eq!(cluster.sweep(10 * SEC), wanted);
    }
    let (good, bad) = ((100, 0), (50, 50));
    check(&[good, good, bad, good, good], &[2]);
    // Too few to say so, or too few of them with requests.
    check(&[good, good, bad, good], &[]);
    check(&[good, good, bad, good, (9, 0)], &[]);
    // All alike, however bad; or too scattered.
    check(&[bad; 6], &[]);
    check(&[(0, 20); 6], &[]);
    check(&[good, (90, 10), (80, 20), (70, 30), (60, 40)], &[]);
    // A failure that chance explains.
    check(&[good, good, good, good, (99, 1)], &[]);
    check(&[good, good, good, good, (97, 3)], &[4]);
}

#[test]
fn an_endpoint_that_two_rules_find_is_ejected_once() {
    let share = OutlierDetection { failure_percent: Percent::whole(50), ..quiet() };
    let mut cluster = Cluster::new(5, OutlierDetection { success_rate_deviations: 19, ..share });
    for place in 0..5 {
        cluster.serve(place, if place == 3 { 0 } else { 100 }, MS, if place == 3 { 100 } else { 0 });
    }
    assert_eq!(cluster.sweep(10 * SEC), [ejected(3, Cause::FailurePercent, 30 * SEC)]);
}

#[test]
fn latency_beside_the_median() {
    #[track_caller]
    fn check(millis: &[u32], wanted: &[usize]) {
        let mut cluster = Cluster::new(millis.len(), OutlierDetection { latency_factor: 30, ..quiet() });
        for (place, millis) in millis.iter().enumerate() {
            cluster.serve(place, 10, *millis * MS, 0);
        }
        let wanted: Vec<_> = wanted.iter().map(|place| ejected(*place, Cause::Latency, 30 * SEC)).collect();
        assert_eq!(cluster.sweep(10 * SEC), wanted);
    }
    check(&[10, 10, 30], &[2]);
    check(&[10, 10, 29], &[]);
    check(&[10, 20, 44, 70], &[]);
    check(&[10, 20, 20, 300, 90], &[3, 4]);
    check(&[10, 500], &[]);
    check(&[0, 0, 0], &[]);
}

#[test]
fn an_endpoint_that_fails_fast_makes_nobody_slow() {
    let mut cluster = Cluster::new(5, OutlierDetection { latency_factor: 20, ..quiet() });
    for place in 0..3 {
        cluster.serve(place, 2, MS, 50);
    }
    cluster.serve(3, 10, 50 * MS, 0);
    cluster.serve(4, 10, 60 * MS, 0);
    assert_eq!(cluster.sweep(10 * SEC), []);
}

#[test]
fn a_sweep_is_due_an_interval_after_the_last() {
    let mut cluster = Cluster::new(1, quiet());
    assert_eq!(cluster.detector.due(10 * SEC), 10 * SEC);
    cluster.sweep(12 * SEC);
    assert_eq!(cluster.detector.due(10 * SEC), 22 * SEC);
}
