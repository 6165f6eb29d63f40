//! The diagram, arrow by arrow.

use std::hint;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

use super::super::*;
use super::{Cluster, E500, E503, MS, NONE, OK, SEC, quiet};

#[test]
fn a_phase_survives_its_packing() {
    for phase in [
        Phase::Healthy,
        Phase::HalfOpen,
        Phase::Ejected { until: Duration::ZERO },
        Phase::Ejected { until: Duration::from_nanos(1) },
        Phase::Probing { since: Duration::ZERO },
        Phase::Probing { since: 1_000_000 * SEC + Duration::from_nanos(7) },
    ] {
        let standing = Standing::at(phase);
        assert_eq!(standing.phase(), phase);
        assert_eq!(standing.is_ejected(), phase != Phase::Healthy);
    }
    // Beyond 146 years is never.
    assert!(matches!(Standing::at(Phase::Ejected { until: Duration::MAX }).phase(), Phase::Ejected { .. }));
}

/// Waits until so many have come.
fn meet(come: &AtomicU32, wanted: u32) {
    come.fetch_add(1, SeqCst);
    // Spinning first, so that they go on at the very same moment.
    for spins in 0_u64.. {
        if come.load(SeqCst) >= wanted {
            return;
        }
        if spins < 2_000 { hint::spin_loop() } else { thread::yield_now() }
    }
}

#[test]
fn of_many_threads_one_probes_and_no_more_than_the_share_is_ejected() {
    let cluster = Mutex::new(Cluster::new(9, OutlierDetection::default()));
    let standings = cluster.lock().unwrap().standings.clone();
    thread::scope(|scope| {
        for thread in 0..4 {
            let (cluster, standings) = (&cluster, &standings);
            scope.spawn(move || {
                for round in 0..9 {
                    let place = (thread * 2 + round) % 9;
                    cluster.lock().unwrap().eject(place, Cause::Consecutive5xx, SEC);
                    assert!(standings.iter().filter(|s| s.is_ejected()).count() <= 4);
                }
            });
        }
    });
    let mut cluster = cluster.into_inner().unwrap();
    assert_eq!(cluster.ejected().len(), 4);
    cluster.sweep(100 * SEC);
    let open = &cluster.standings[cluster.ejected()[0]];
    // All at the same moment, again and again; a probe is held until all have asked.
    let (asked, won) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for round in 0..20_000 {
                    meet(&asked, 4 * round + 2);
                    let probe = open.probe(100 * SEC);
                    won.fetch_add(u32::from(probe.is_some()), SeqCst);
                    meet(&asked, 4 * round + 4);
                    assert_eq!(won.load(SeqCst), round + 1);
                    drop(probe);
                }
            });
        }
    });
    assert_eq!(open.phase(), Phase::HalfOpen);
}

#[test]
fn once_around_the_diagram() {
    let mut cluster = Cluster::new(3, OutlierDetection::default());
    let bad = cluster.standings[1].clone();
    assert!(bad.probe(SEC).is_none());
    assert_eq!(
        cluster.eject(1, Cause::Consecutive5xx, SEC),
        Some(Change::Ejected { cause: Cause::Consecutive5xx, length: 30 * SEC })
    );
    assert_eq!(cluster.eject(1, Cause::Consecutive5xx, SEC), None);
    assert_eq!(bad.phase(), Phase::Ejected { until: 31 * SEC });
    assert_eq!(cluster.sweep(30 * SEC), []);
    assert!(bad.probe(40 * SEC).is_none());
    // Time alone does nothing: ejections are ended by a sweep.
    assert_eq!(cluster.sweep(40 * SEC), [(1, Change::HalfOpen)]);
    assert!(bad.is_ejected());

    let probe = bad.probe(41 * SEC).unwrap();
    assert!(bad.probe(42 * SEC).is_none());
    drop(probe);
    assert_eq!(bad.phase(), Phase::HalfOpen);
    let probe = bad.probe(43 * SEC).unwrap();
    assert_eq!(probe.record(E503, MS, &cluster.config), Verdict::Eject(Cause::Probe));
    assert!(bad.probe(43 * SEC).is_none(), "nobody goes there before the detector has spoken");
    assert_eq!(
        cluster.eject(1, Cause::Probe, 43 * SEC),
        Some(Change::Ejected { cause: Cause::Probe, length: 60 * SEC })
    );

    assert_eq!(cluster.sweep(103 * SEC), [(1, Change::HalfOpen)]);
    let probe = bad.probe(104 * SEC).unwrap();
    assert_eq!(probe.record(OK, MS, &cluster.config), Verdict::Returned);
    assert_eq!((bad.phase(), bad.ejections()), (Phase::Healthy, 2));

    // The interval of its return does not count.
    for (now, ejections) in [(110, 2), (120, 1), (130, 0), (140, 0)] {
        assert_eq!(cluster.sweep(now * SEC), []);
        assert_eq!(bad.ejections(), ejections, "{now}");
    }
}

#[test]
fn a_verdict_on_a_probe_that_nobody_acts_on_keeps_no_one_out() {
    let mut cluster = Cluster::new(2, OutlierDetection::default());
    cluster.eject(0, Cause::ConsecutiveLocal, SEC);
    cluster.sweep(31 * SEC);
    let verdict = cluster.standings[0].probe(31 * SEC).unwrap().record(NONE, MS, &cluster.config);
    assert_eq!(verdict, Verdict::Eject(Cause::Probe));
    assert_eq!(cluster.sweep(41 * SEC), [(0, Change::HalfOpen)]);
    assert_eq!(
        cluster.eject(0, Cause::Probe, 41 * SEC),
        Some(Change::Ejected { cause: Cause::Probe, length: 60 * SEC }),
        "late, but still"
    );
}

#[test]
fn a_probe_that_hangs_lapses() {
    let mut cluster = Cluster::new(2, OutlierDetection::default());
    let bad = cluster.standings[0].clone();
    let mut lapsed = |now: u32| {
        cluster.eject(0, Cause::Consecutive5xx, now * SEC);
        cluster.sweep((now + 300) * SEC);
        let first = bad.probe((now + 300) * SEC).unwrap();
        assert!(bad.probe((now + 329) * SEC).is_none());
        (first, bad.probe((now + 330) * SEC).unwrap())
    };
    let config = OutlierDetection::default();

    // Given back, it does not take the second's place along.
    let (first, second) = lapsed(0);
    drop(first);
    assert!(matches!(bad.phase(), Phase::Probing { .. }));
    assert_eq!(second.record(OK, MS, &config), Verdict::Returned);
    // A late failure is old news.
    let (first, second) = lapsed(1000);
    assert_eq!(first.record(NONE, 31 * SEC, &config), Verdict::Nothing);
    assert_eq!(second.record(OK, MS, &config), Verdict::Returned);
    // A late success is a success; what the second finds then counts as any request's does.
    let (first, second) = lapsed(2000);
    assert_eq!(first.record(OK, 31 * SEC, &config), Verdict::Returned);
    assert_eq!(second.record(NONE, MS, &config), Verdict::Nothing);
    assert_eq!(bad.phase(), Phase::Healthy);
    for _ in 0..3 {
        assert_eq!(bad.record(NONE, MS, &config), Verdict::Nothing);
    }
    assert_eq!(bad.record(NONE, MS, &config), Verdict::Eject(Cause::ConsecutiveLocal));
}

#[test]
fn a_probe_fails_by_what_a_rule_looks_at() {
    #[track_caller]
    fn check(config: OutlierDetection, outcome: Outcome, wanted: Verdict) {
        let standing = Arc::new(Standing::at(Phase::HalfOpen));
        assert_eq!(standing.probe(SEC).unwrap().record(outcome, MS, &config), wanted);
    }
    let (fails, returned) = (Verdict::Eject(Cause::Probe), Verdict::Returned);
    let local = OutlierDetection { consecutive_local: 5, ..quiet() };
    let gateway = OutlierDetection { consecutive_gateway: 5, ..quiet() };
    let share = OutlierDetection { failure_percent: Percent::whole(50), ..quiet() };
    for (config, e500, e503) in [
        (local, returned, returned),
        (gateway, returned, fails),
        (share, fails, fails),
        (OutlierDetection { consecutive_5xx: 5, ..quiet() }, fails, fails),
        (OutlierDetection { success_rate_deviations: 19, ..quiet() }, fails, fails),
    ] {
        check(config, E500, e500);
        check(config, E503, e503);
        check(config, NONE, fails);
        check(config, OK, returned);
    }
}

#[test]
fn what_was_under_way_at_an_ejection_does_not_count() {
    let config = OutlierDetection { failure_percent: Percent::whole(50), consecutive_5xx: 5, ..quiet() };
    let mut cluster = Cluster::new(2, config);
    cluster.serve(0, 0, MS, 4);
    cluster.eject(0, Cause::ConsecutiveLocal, SEC);
    for _ in 0..50 {
        assert_eq!(cluster.standings[0].record(E500, MS, &config), Verdict::Nothing);
    }
    cluster.sweep(31 * SEC);
    let verdict = cluster.standings[0].probe(31 * SEC).unwrap().record(OK, MS, &config);
    assert_eq!(verdict, Verdict::Returned);
    assert_eq!(cluster.standings[0].record(E500, MS, &config), Verdict::Nothing);
    assert_eq!(cluster.sweep(41 * SEC), []);
}

#[test]
fn all_come_back_when_detection_is_off() {
    let mut cluster = Cluster::new(4, OutlierDetection::default());
    for off in [true, false] {
        cluster.config = OutlierDetection::default();
        cluster.eject(1, Cause::Consecutive5xx, SEC);
        cluster.eject(3, Cause::Consecutive5xx, SEC);
        cluster.sweep(40 * SEC);
        let probe = cluster.standings[1].probe(40 * SEC).unwrap();
        let changes = if off {
            cluster.sweep_off(50 * SEC)
        } else {
            cluster.config = quiet();
            cluster.sweep(50 * SEC)
        };
        assert_eq!(changes, [(1, Change::Returned), (3, Change::Returned)]);
        assert_eq!(probe.record(NONE, MS, &cluster.config), Verdict::Nothing);
        // The same, had it failed a moment before.
        assert_eq!(cluster.eject(1, Cause::Probe, 50 * SEC), None);
        assert!(cluster.ejected().is_empty());
        assert!(cluster.all().iter().all(|s| s.ejections() == 0));
    }
}

#[test]
fn who_was_left_out_fills_in_for_those_who_left() {
    let mut cluster = Cluster::new(6, OutlierDetection::default());
    for (place, now) in [(0, 3), (1, 1), (2, 2)] {
        assert_eq!(
            cluster.eject(place, Cause::Consecutive5xx, now * SEC),
            Some(Change::Ejected { cause: Cause::Consecutive5xx, length: 30 * SEC })
        );
    }
    cluster.standings.truncate(4);
    let endpoints: Vec<&Standing> = cluster.standings.iter().map(|s| &**s).collect();
    let changes = cluster.detector.fit(&endpoints, &cluster.config);
    assert_eq!(changes, [(1, Change::Returned)], "the one with the least time left");
    // The same by a sweep, down to the only endpoint.
    cluster.standings.truncate(1);
    assert_eq!(cluster.sweep(10 * SEC), [(0, Change::Returned)]);
    // A failed probe whose endpoint has become the only one: it has to do.
    let mut cluster = Cluster::new(2, OutlierDetection::default());
    cluster.eject(0, Cause::Consecutive5xx, SEC);
    cluster.sweep(31 * SEC);
    let probe = cluster.standings[0].probe(31 * SEC).unwrap();
    cluster.standings.truncate(1);
    assert_eq!(probe.record(NONE, MS, &cluster.config), Verdict::Eject(Cause::Probe));
    assert_eq!(cluster.eject(0, Cause::Probe, 31 * SEC), Some(Change::Spared(Cause::Probe)));
    assert!(cluster.ejected().is_empty());
}
