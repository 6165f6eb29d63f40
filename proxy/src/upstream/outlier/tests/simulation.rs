//! Clusters in motion: endpoints fail, heal, slow down, come and go, configurations change, requests are cancelled.

use std::num::NonZeroU32;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::standing::PROBE_LAPSE;
use super::super::*;
use super::{E500, E503, MS, NONE, OK, SEC};

/// How an endpoint really is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Truth {
    Well,
    Slow,
    Fails,
    Dead,
    /// Fails every other time.
    Flaky,
}

struct Server {
    standing: Arc<Standing>,
    truth: Truth,
    /// It has failed a request at least once.
    blemished: bool,
    /// It was slow at least once.
    slowed: bool,
    /// When it last came back; probes from before are requests like any other.
    returned: Option<Duration>,
}

impl Server {
    fn new() -> Self {
        Self { standing: Arc::default(), truth: Truth::Well, blemished: false, slowed: false, returned: None }
    }

    fn answer(&mut self, rng: &mut fastrand::Rng) -> (Outcome, Duration) {
        let outcome = match self.truth {
            Truth::Well | Truth::Slow => OK,
            Truth::Fails => E500,
            Truth::Dead => NONE,
            Truth::Flaky => *rng.choice([OK, E503]).as_ref().unwrap(),
        };
        self.blemished |= outcome != OK;
        self.slowed |= self.truth == Truth::Slow;
        (outcome, if self.truth == Truth::Slow { 200 * MS } else { rng.u32(8..=12) * MS })
    }
}

/// A request on its way.
struct Flight {
    standing: Arc<Standing>,
    probe: Option<(Probe, Duration)>,
}

struct World {
    rng: fastrand::Rng,
    now: Duration,
    servers: Vec<Server>,
    flights: Vec<Flight>,
    detector: Detector,
    config: Option<OutlierDetection>,
    /// Of all endpoints, how often one was ejected or came back.
    turns: u32,
    failed: u32,
}

impl World {
    fn new(seed: u64, n: usize, config: OutlierDetection) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            now: SEC,
            servers: (0..n).map(|_| Server::new()).collect(),
            flights: Vec::new(),
            detector: Detector::new(SEC),
            config: Some(config),
            turns: 0,
            failed: 0,
        }
    }

    /// As a balancer would: a probe if one is to be had, else anyone who is well.
    fn send(&mut self) {
        let probe = self.servers.iter().find_map(|server| {
            let probe = server.standing.probe(self.now)?;
            for other in self.flights.iter().filter(|f| Arc::ptr_eq(&f.standing, &server.standing)) {
                let over = |(_, since): &(Probe, Duration)| {
                    self.now >= *since + PROBE_LAPSE || server.returned.is_some_and(|at| at >= *since)
                };
                assert!(other.probe.as_ref().is_none_or(over), "two probes at a time");
            }
            Some(Flight { standing: server.standing.clone(), probe: Some((probe, self.now)) })
        });
        let well: Vec<_> = self.servers.iter().filter(|server| !server.standing.is_ejected()).collect();
        let flight = probe.or_else(|| {
            let server = self.rng.choice(well)?;
            Some(Flight { standing: server.standing.clone(), probe: None })
        });
        self.flights.extend(flight);
    }

    /// Some request ends.
    fn land(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let Flight { standing, probe } = self.flights.swap_remove(self.rng.usize(..self.flights.len()));
        // Nobody records while detection is off.
        let Some(config) = self.config else { return };
        let server = self.servers.iter_mut().position(|s| Arc::ptr_eq(&s.standing, &standing));
        let (outcome, took) = match server {
            Some(place) => self.servers[place].answer(&mut self.rng),
            None => (NONE, MS),
        };
        self.failed += u32::from(outcome != OK);
        let verdict = match probe {
            Some((probe, _)) => probe.record(outcome, took, &config),
            None => standing.record(outcome, took, &config),
        };
        match verdict {
            Verdict::Nothing => {}
            Verdict::Returned => self.returned(server.expect("it is there")),
            Verdict::Eject(cause) => self.eject(&standing, cause),
        }
    }

    fn eject(&mut self, target: &Standing, cause: Cause) {
        let config = self.config.expect("who records has one");
        let endpoints: Vec<&Standing> = self.servers.iter().map(|s| &*s.standing).collect();
        let scene = Scene { endpoints: &endpoints, config: &config, now: self.now };
        let change = self.detector.eject(target, cause, scene, self.rng.u64(..));
        if let Some(Change::Ejected { cause, length }) = change {
            self.turns += 1;
            assert_length(&config, length);
            let server = self.servers.iter().find(|s| std::ptr::eq(&*s.standing, target));
            assert!(server.is_none_or(|s| s.blemished), "ejected without a failure: {cause:?}");
        }
    }

    fn sweep(&mut self) {
        let config = self.config.unwrap_or_default();
        if self.now < self.detector.due(config.interval) {
            return;
        }
        let endpoints: Vec<&Standing> = self.servers.iter().map(|s| &*s.standing).collect();
        let rng = &mut self.rng;
        let changes = self.detector.sweep(&endpoints, self.config.as_ref(), self.now, || rng.u64(..));
        for (place, change) in changes {
            match change {
                Change::Ejected { cause, length } => {
                    self.turns += 1;
                    assert_length(&config, length);
                    let server = &self.servers[place];
                    let guilty = if cause == Cause::Latency { server.slowed } else { server.blemished };
                    assert!(guilty, "{cause:?}");
                }
                Change::Returned => self.returned(place),
                Change::Spared(_) | Change::HalfOpen => {}
            }
        }
    }

    /// What the caller does when the set of endpoints or the configuration has changed.
    fn fit(&mut self) {
        if let Some(config) = &self.config {
            let endpoints: Vec<&Standing> = self.servers.iter().map(|s| &*s.standing).collect();
            for (place, change) in self.detector.fit(&endpoints, config) {
                assert_eq!(change, Change::Returned);
                self.returned(place);
            }
        }
    }

    fn returned(&mut self, place: usize) {
        self.turns += 1;
        self.servers[place].returned = Some(self.now);
    }

    fn disturb(&mut self) {
        match self.rng.u32(..100) {
            0..40 => {
                let truths = [Truth::Well, Truth::Slow, Truth::Fails, Truth::Dead, Truth::Flaky];
                let (truth, place) = (self.rng.choice(truths).unwrap(), self.rng.usize(..self.servers.len()));
                self.servers[place].truth = truth;
            }
            40..50 if self.servers.len() < 12 => self.servers.push(Server::new()),
            50..60 if self.servers.len() > 1 => {
                let gone = self.rng.usize(..self.servers.len());
                self.servers.swap_remove(gone);
            }
            60..65 => self.config = some_config(&mut self.rng),
            // Cancelled.
            65..88 if !self.flights.is_empty() => {
                self.flights.swap_remove(self.rng.usize(..self.flights.len()));
            }
            // Lost, permit and all.
            88..90 if !self.flights.is_empty() => {
                std::mem::forget(self.flights.swap_remove(self.rng.usize(..self.flights.len())));
            }
            // A long silence.
            90..95 => self.now += 40 * SEC,
            _ => {}
        }
        self.fit();
    }

    fn step(&mut self, disturbances: bool) {
        self.now += self.rng.u32(1..200) * MS;
        self.send();
        while self.flights.len() > 8 || self.rng.bool() && !self.flights.is_empty() {
            self.land();
        }
        self.sweep();
        if disturbances && self.rng.u32(..8) == 0 {
            self.disturb();
        }
        self.check();
    }

    fn check(&self) {
        let n = self.servers.len();
        let out = self.out();
        assert!(n > 1 || out == 0 || self.config.is_none(), "the only endpoint");
        if let Some(config) = &self.config {
            let share = out as f64 / n as f64;
            assert!(share <= config.max_ejected.fraction() || out == 1 && n > 1, "{out} of {n}");
        }
    }

    fn out(&self) -> usize {
        self.servers.iter().filter(|server| server.standing.is_ejected()).count()
    }
}

#[track_caller]
fn assert_length(config: &OutlierDetection, length: Duration) {
    assert!((config.base_ejection..=config.max_ejection).contains(&length), "{length:?}");
}

fn some_config(rng: &mut fastrand::Rng) -> Option<OutlierDetection> {
    let config = OutlierDetection {
        consecutive_5xx: rng.u32(..6),
        consecutive_gateway: rng.u32(..4),
        consecutive_local: rng.u32(..4),
        success_rate_deviations: rng.choice([0, 10, 19]).unwrap(),
        failure_percent: Percent::whole(rng.choice([0, 30, 85]).unwrap()),
        latency_factor: rng.choice([0, 30]).unwrap(),
        min_requests: NonZeroU32::new(rng.u32(1..20)).unwrap(),
        interval: rng.u32(1..10) * SEC,
        base_ejection: rng.u32(1..20) * SEC,
        max_ejection: rng.u32(20..60) * SEC,
        max_ejected: Percent::whole(rng.u32(..=100)),
    };
    (rng.u32(..10) > 0).then_some(config)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens(seed: u64, n in 1_usize..10) {
        let mut world = World::new(seed, n, OutlierDetection::default());
        world.config = some_config(&mut world.rng);
        for _ in 0..4_000 {
            world.step(true);
        }
        // All is well again: whatever was before, everybody returns within the longest ejection, a sweep before and
        // one after it, and a lost probe's time.
        world.servers.iter_mut().for_each(|server| server.truth = Truth::Well);
        let config = world.config.unwrap_or_default();
        while !world.flights.is_empty() {
            world.land();
        }
        let bound = world.now + config.max_ejection + 2 * config.interval + PROBE_LAPSE;
        while world.now < bound {
            world.step(false);
        }
        prop_assert_eq!(world.out(), 0);
        // And stays: forgotten, one by one.
        let turns = world.turns;
        let bound = world.now + 80 * config.interval;
        while world.now < bound {
            world.step(false);
        }
        prop_assert_eq!(world.turns, turns);
        prop_assert!(world.servers.iter().all(|server| server.standing.ejections() == 0));
    }

    #[test]
    fn one_of_five_fails_always_then_heals(seed: u64, down in 60_u32..1200) {
        let mut world = World::new(seed, 5, OutlierDetection::default());
        let serve = |world: &mut World, seconds: u32| {
            let until = world.now + seconds * SEC;
            while world.now < until {
                world.now += 10 * MS;
                world.send();
                world.land();
                world.sweep();
                world.check();
            }
        };
        let bad = world.servers[2].standing.clone();
        world.servers[2].truth = Truth::Dead;
        serve(&mut world, 10);
        // No more than the threshold of a thousand requests.
        prop_assert!(bad.is_ejected());
        prop_assert_eq!(world.failed, 5);

        // While it is down it costs a request for each ejection, and these get longer: the n-th ends after
        // 30 s x n(n + 1) / 2 at the earliest, up to the bound of 300 s.
        serve(&mut world, down);
        let most = (1..).find(|n| 30 * n.min(&10) * (n.min(&10) + 1) / 2 + 300 * (n.max(&10) - 10) > down + 10).unwrap();
        prop_assert!(world.failed < 5 + most, "{} of {most}", world.failed);
        prop_assert!(world.turns <= most);

        // It heals, is back after what was left of its ejection and an interval, and that was that.
        let (turns, failed) = (world.turns, world.failed);
        world.servers[2].truth = Truth::Well;
        serve(&mut world, 300 + 11);
        prop_assert!(!bad.is_ejected());
        serve(&mut world, 120);
        prop_assert_eq!((world.turns, world.failed), (turns + 1, failed));
        prop_assert_eq!(bad.ejections(), 0);
    }

    #[test]
    fn an_endpoint_that_fails_now_and_then_does_not_flap(seed: u64) {
        let mut world = World::new(seed, 5, OutlierDetection::default());
        world.servers[0].truth = Truth::Flaky;
        for _ in 0..60_000 {
            world.now += 10 * MS;
            world.send();
            world.land();
            world.sweep();
        }
        // In ten minutes, of which the n-th ejection takes at least n half minutes, less what is forgotten between.
        prop_assert!(world.turns <= 30, "{}", world.turns);
    }
}
