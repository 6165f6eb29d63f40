use outrigger_proto::model::{Address, Assignment, Probe};

use super::*;
use crate::observe::Registry;
use crate::upstream::Clusters;

/// A list, its clusters and a clock that is turned by hand.
struct Scene {
    registry: Registry,
    clusters: Clusters,
    list: Watchlist,
    now: Duration,
    rng: fastrand::Rng,
}

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> HealthCheck {
    HealthCheck::new(Probe::Tcp)
}

impl Scene {
    fn new() -> Self {
        let registry = Registry::default();
        let clusters = Clusters::new(registry.clone(), tokio::time::Instant::now());
        Self { registry, clusters, list: Watchlist::default(), now: SECOND, rng: fastrand::Rng::with_seed(7) }
    }

    fn cluster(&self, name: &str) -> Arc<Cluster> {
        self.clusters.get_or_make(&Name::new(name).expect("a name"))
    }

    fn assign(&self, name: &str, ports: impl IntoIterator<Item = u16>) {
        let address = |port| Address::Ip(([127, 0, 0, 1], port).into());
        let endpoint = |port| outrigger_proto::model::Endpoint::new(address(port));
        let endpoints = ports.into_iter().map(endpoint).collect();
        self.clusters.assign(&self.cluster(name), &Assignment { endpoints });
    }

    fn follow(&mut self, wanted: &[(&str, HealthCheck)]) {
        let plan = |(name, check): &(&str, HealthCheck)| Plan {
            cluster: self.cluster(name),
            check: check.clone(),
            protocol: Protocol::Auto,
            tls: None,
        };
        let plans = wanted.iter().map(plan).collect();
        self.list.follow(plans, self.now, &mut || self.rng.u64(..));
    }

    fn look(&mut self) {
        self.list.look(self.now, &mut || self.rng.u64(..));
    }

    /// Lets so much time pass, answering each check as it becomes due; how many there were.
    fn pass(&mut self, time: Duration, outcome: impl Fn(&Endpoint) -> Outcome) -> usize {
        let end = self.now + time;
        let mut checks = 0;
        while let Some(at) = self.list.next().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            while let Some(job) = self.list.begin(self.now) {
                let outcome = outcome(&job.endpoint);
                self.list.done(job.endpoint.id(), outcome, self.now, &mut || self.rng.u64(..));
                checks += 1;
            }
        }
        self.now = end;
        checks
    }

    fn health(&self, name: &str) -> Vec<Health> {
        let set = self.cluster(name).endpoints().clone();
        set.endpoints().iter().map(|e| e.health().record().health).collect()
    }

    fn gauge(&self) -> Option<String> {
        let text = self.registry.render();
        let value = text.lines().find_map(|line| line.strip_prefix("outrigger_upstream_endpoints_healthy{"));
        value.map(|line| line.rsplit(' ').next().expect("a value").to_owned())
    }
}

fn fine(_: &Endpoint) -> Outcome {
    Outcome::Passed
}

/// Endpoint 2 refuses connections.
fn second_refuses(endpoint: &Endpoint) -> Outcome {
    if endpoint.at().label.ends_with(":2") { Outcome::Refused } else { Outcome::Passed }
}

#[test]
fn endpoints_are_checked_soon_and_then_by_the_interval() {
    let mut scene = Scene::new();
    scene.assign("app", [1, 2]);
    scene.follow(&[("app", settings())]);
    assert_eq!(scene.gauge().as_deref(), Some("2"), "those that nobody has asked yet are used");
    assert_eq!(scene.pass(SECOND / 10, second_refuses), 2);
    assert_eq!(scene.health("app"), [Health::Healthy, Health::Unhealthy]);
    assert_eq!(scene.gauge().as_deref(), Some("1"));
    // The one that is well waits for traffic, the other one does not.
    let checks = scene.pass(10 * SECOND, second_refuses);
    assert!((10..=11).contains(&checks), "{checks}");
    assert_eq!(scene.pass(5 * SECOND, fine), 2, "two in a row make it well, and then it waits too");
    assert_eq!(scene.health("app"), [Health::Healthy; 2]);
}

#[test]
fn traffic_brings_checks_forward_and_silence_lets_them_wait() {
    let mut scene = Scene::new();
    scene.assign("app", 1..=10);
    scene.follow(&[("app", settings())]);
    assert_eq!(scene.pass(50 * SECOND, fine), 10, "nobody uses it");
    let busy = scene.cluster("app").endpoints().endpoints()[3].lease();
    scene.look();
    assert_eq!(scene.pass(5 * SECOND, fine), 10, "within one interval all are known again");
    for _ in 0..10 {
        scene.look();
        scene.pass(SECOND / 2, fine);
    }
    let before = scene.pass(5 * SECOND, fine);
    assert!((10..=12).contains(&before), "{before}");
    drop(busy);
    scene.look();
    scene.pass(10 * SECOND, fine);
    let after = scene.pass(40 * SECOND, fine);
    assert_eq!(after, 0, "it is idle again");
}

#[test]
fn requests_that_came_and_went_between_two_looks_are_traffic() {
    let mut scene = Scene::new();
    scene.assign("app", [1]);
    scene.follow(&[("app", settings())]);
    scene.pass(20 * SECOND, fine);
    scene.look();
    assert_eq!(scene.pass(5 * SECOND, fine), 0);
    drop(scene.cluster("app").endpoints().endpoints()[0].lease());
    scene.look();
    assert_eq!(scene.pass(5 * SECOND, fine), 1);
}

#[test]
fn endpoints_come_and_go_without_a_new_configuration() {
    let mut scene = Scene::new();
    scene.assign("app", [1, 2]);
    scene.follow(&[("app", settings())]);
    scene.pass(SECOND, fine);
    let gone = scene.cluster("app").endpoints().endpoints()[0].clone();
    let stays = scene.cluster("app").endpoints().endpoints()[1].clone();
    scene.assign("app", [2, 3]);
    assert_eq!(scene.health("app"), [Health::Healthy, Health::Awaited]);
    scene.look();
    assert!(!scene.list.holds(gone.id()) && scene.list.holds(stays.id()));
    assert_eq!(scene.gauge().as_deref(), Some("1"));
    assert_eq!(scene.pass(SECOND / 2, fine), 1, "the new one alone");
    assert_eq!(scene.health("app"), [Health::Healthy; 2]);
    assert_eq!(scene.gauge().as_deref(), Some("2"));
}

#[test]
fn what_is_found_of_an_endpoint_that_has_gone_does_not_count() {
    let mut scene = Scene::new();
    scene.assign("app", [1]);
    scene.follow(&[("app", settings())]);
    scene.now += SECOND;
    let job = scene.list.begin(scene.now).expect("one is due");
    assert!(scene.list.begin(scene.now).is_none(), "it is being checked");
    scene.assign("app", [2]);
    scene.look();
    assert!(scene.list.done(job.endpoint.id(), Outcome::Refused, scene.now, &mut || 0).is_none());
    assert_eq!(job.endpoint.health().record().health, Health::Unknown);
    assert_eq!(scene.gauge().as_deref(), Some("1"));
}

#[test]
fn other_settings_keep_the_states() {
    let mut scene = Scene::new();
    scene.assign("app", [1, 2]);
    scene.follow(&[("app", settings())]);
    scene.pass(SECOND / 2, second_refuses);
    let mut other = settings();
    other.probe = Probe::Http("/healthz".into());
    scene.follow(&[("app", other.clone())]);
    assert_eq!(scene.health("app"), [Health::Healthy, Health::Unhealthy]);
    scene.now += SECOND / 10;
    let job = scene.list.begin(scene.now).expect("asked soon by the new settings");
    assert_eq!(job.plan.check, other);
    // The same settings again disturb nobody.
    scene.list.done(job.endpoint.id(), Outcome::Passed, scene.now, &mut || 0);
    scene.pass(SECOND / 10, second_refuses);
    let next = scene.list.next();
    scene.follow(&[("app", other)]);
    assert_eq!(scene.list.next(), next);
}

#[test]
fn without_settings_all_are_well_and_nobody_is_asked() {
    let mut scene = Scene::new();
    scene.assign("app", [1, 2]);
    scene.assign("other", [3]);
    scene.follow(&[("app", settings()), ("other", settings())]);
    scene.pass(SECOND, second_refuses);
    // One that has come meanwhile is awaited, and the list has not seen it.
    scene.assign("app", [1, 2, 4]);
    scene.follow(&[("other", settings())]);
    assert_eq!(scene.health("app"), [Health::Unknown; 3]);
    assert_eq!(scene.cluster("app").endpoints().endpoints()[1].health().record().last, None);
    assert_eq!(scene.gauge().as_deref(), Some("1"), "the other cluster's");
    assert!(!scene.list.is_empty());
    scene.clusters.retain(|_| false);
    scene.follow(&[]);
    assert!(scene.list.is_empty() && scene.list.next().is_none() && scene.list.entries.is_empty());
    assert_eq!(scene.gauge(), None);
}

#[test]
fn a_thousand_are_not_asked_in_one_instant() {
    let mut scene = Scene::new();
    scene.assign("app", 1..=1000);
    scene.follow(&[("app", settings())]);
    let mut most = 0;
    for _ in 0..20 {
        most = most.max(scene.pass(SECOND / 10, fine));
    }
    assert_eq!(scene.health("app"), [Health::Healthy; 1000]);
    assert!(most < 100, "{most} in a tenth of a second");
}
