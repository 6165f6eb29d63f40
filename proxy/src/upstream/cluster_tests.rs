//! Clusters over changes of their endpoints and of their settings.

use outrigger_proto::model::Labels;

use super::*;
use crate::upstream::balance::PickFacts;
use crate::upstream::endpoint::Availability;

fn assignment(ports: &[u16]) -> Assignment {
    let address = |port: u16| Address::Ip(([127, 0, 0, 1], port).into());
    let endpoint = |port: &u16| outrigger_proto::model::Endpoint::new(address(*port));
    Assignment { endpoints: ports.iter().map(endpoint).collect() }
}

#[test]
fn an_endpoint_that_stays_keeps_its_state_and_one_that_goes_is_retired() {
    let clusters = Clusters::new(Registry::default(), Instant::now());
    let cluster = clusters.get_or_make(&Name::new("app").expect("a name"));
    clusters.assign(&cluster, &assignment(&[1, 2]));
    let before = cluster.endpoints.load_full();
    clusters.assign(&cluster, &assignment(&[2, 3]));
    let after = cluster.endpoints.load_full();
    assert!(Arc::ptr_eq(&before.endpoints()[1], &after.endpoints()[0]));
    assert!(before.endpoints()[0].is_retired() && !before.endpoints()[1].is_retired());
    assert_ne!(after.endpoints()[1].id(), before.endpoints()[0].id());
}

#[test]
fn one_endpoint_of_a_name_moves_and_keeps_its_connections() {
    let clusters = Clusters::new(Registry::default(), Instant::now());
    let cluster = clusters.get_or_make(&Name::new("app").expect("a name"));
    let of = |uses| {
        let (host, port) = ("app.test".into(), 1.try_into().expect("not zero"));
        Arc::new(model::Cluster::new(Source::Dns { host, port, uses }))
    };
    let now = || cluster.endpoints.load_full();
    clusters.configure(&cluster, &of(DnsUse::First));
    clusters.assign(&cluster, &assignment(&[1]));
    let before = now();
    clusters.assign(&cluster, &assignment(&[2]));
    assert!(Arc::ptr_eq(&before.endpoints()[0], &now().endpoints()[0]));
    let at = now().endpoints()[0].at().clone();
    assert_eq!((&*at.label, at.address.to_string().as_str()), ("127.0.0.1:2", "127.0.0.1:2"));
    assert!(!now().endpoints()[0].is_retired());
    // Each address for itself, one that is gone is gone.
    clusters.configure(&cluster, &of(DnsUse::All));
    clusters.assign(&cluster, &assignment(&[2, 3]));
    assert!(Arc::ptr_eq(&before.endpoints()[0], &now().endpoints()[0]));
    clusters.assign(&cluster, &assignment(&[3]));
    assert!(before.endpoints()[0].is_retired());
}

#[test]
fn a_cluster_that_goes_still_answers_whoever_was_led_there() {
    let clusters = Clusters::new(Registry::default(), Instant::now());
    let name = Name::new("app").expect("a name");
    let cluster = clusters.get_or_make(&name);
    clusters.assign(&cluster, &assignment(&[1, 2]));
    clusters.retain(|_| false);
    let left = cluster.endpoints.load_full();
    assert_eq!(left.endpoints().len(), 2);
    assert!(left.endpoints().iter().all(|endpoint| endpoint.is_retired()));
    // One of the same name is another.
    assert!(clusters.get_or_make(&name).endpoints().endpoints().is_empty());
}

fn labelled(endpoints: &[(u16, &str)]) -> Assignment {
    let mut made = assignment(&endpoints.iter().map(|(port, _)| *port).collect::<Vec<_>>());
    for (endpoint, (_, version)) in made.endpoints.iter_mut().zip(endpoints) {
        endpoint.labels = version_is(version);
    }
    made
}

fn version_is(version: &str) -> Labels {
    Labels([("version".into(), version.into())].into())
}

fn ports(view: &ClusterView) -> Vec<String> {
    view.endpoints().endpoints().iter().map(|e| e.at().label.replace("127.0.0.1:", "")).collect()
}

#[test]
fn a_subset_follows_labels_and_settings_and_shares_its_endpoints() {
    let clusters = Clusters::new(Registry::default(), Instant::now());
    let live = clusters.get_or_make(&Name::new("app").expect("a name"));
    let v2 = Name::new("v2").expect("a name");
    let mut config = model::Cluster::new(model::Source::Static);
    config.subsets.insert(v2.clone(), version_is("v2"));
    let config = Arc::new(config);
    clusters.configure(&live, &config);
    clusters.assign(&live, &labelled(&[(1, "v1"), (2, "v2"), (3, "v2")]));
    let subset = Some(live.subset(&v2));
    let view = ClusterView { config: config.clone(), live: live.clone(), tls: None, subset };
    assert_eq!(ports(&view), ["2", "3"]);
    assert!(Arc::ptr_eq(&view.endpoints().endpoints()[0], &live.endpoints().endpoints()[1]));
    // Health that changes is counted in it as well.
    live.endpoints().endpoints()[1].set_availability(Availability::Unavailable);
    live.refresh();
    assert_eq!(view.endpoints().levels().map(|level| level.available).collect::<Vec<_>>(), [1]);
    clusters.assign(&live, &labelled(&[(1, "v2"), (2, "v1"), (3, "v2")]));
    assert_eq!(ports(&view), ["1", "3"], "those who hold it see what changes");
    let balanced = model::Cluster { balance: model::Balance::Random, ..(*config).clone() };
    clusters.configure(&live, &Arc::new(balanced));
    assert_eq!(ports(&view), ["1", "3"]);
    clusters.assign(&live, &labelled(&[(1, "v1")]));
    assert_eq!(ports(&view), [""; 0]);
    let any = model::Cluster { subset_fallback: model::SubsetFallback::Any, ..(*config).clone() };
    clusters.configure(&live, &Arc::new(any));
    clusters.assign(&live, &labelled(&[(1, "v1"), (4, "v1")]));
    assert_eq!(ports(&view), ["1", "4"], "nobody is in it, and anybody will do");
}

#[test]
fn a_new_endpoint_is_awaited_beside_one_that_is_known_to_be_well() {
    let clusters = Clusters::new(Registry::default(), Instant::now());
    let cluster = clusters.get_or_make(&Name::new("app").expect("a name"));
    clusters.assign(&cluster, &assignment(&[1, 2]));
    let usable = |cluster: &Cluster| -> Vec<bool> {
        cluster.endpoints().endpoints().iter().map(|e| e.is_healthy()).collect()
    };
    assert_eq!(usable(&cluster), [true, true], "nothing better is known");
    let well = Record { health: Health::Healthy, ..Record::default() };
    cluster.endpoints().endpoints()[0].health().checked(well, Duration::ZERO);
    clusters.assign(&cluster, &assignment(&[1, 2, 3]));
    assert_eq!(usable(&cluster), [true, true, false]);
    // All that was known has gone: nothing better is known again.
    clusters.assign(&cluster, &assignment(&[4, 5]));
    assert_eq!(usable(&cluster), [true, true]);
}

/// How often each of them is picked at random.
fn picks(cluster: &Cluster, now: Duration) -> Vec<usize> {
    let (set, mut rng) = (cluster.endpoints(), fastrand::Rng::with_seed(7));
    let mut counts = vec![0; set.endpoints().len()];
    for _ in 0..20_000 {
        let facts = PickFacts { now, ..PickFacts::default() };
        let picked = set.pick(&facts, || rng.u64(..), |_| false).expect("one is available");
        let place = set.endpoints().iter().position(|one| one.id() == picked.endpoint.id());
        counts[place.expect("it is one of them")] += 1;
    }
    counts
}

/// What is changed of a cluster, and of its endpoints.
type Edit = fn(&mut model::Cluster, &mut Assignment);

/// Half of a slow start over, a change of anything else does not begin it anew, and whoever is long there begins none.
#[tokio::test(start_paused = true)]
async fn a_slow_start_goes_on_through_changes_and_none_begins_by_one() {
    const SECOND: Duration = Duration::from_secs(1);
    let with = |change: Edit| {
        let mut config = model::Cluster::new(Source::Static);
        (config.balance, config.slow_start) = (model::Balance::Random, 100 * SECOND);
        let mut assignment = assignment(&[1, 2, 3, 4, 5]);
        change(&mut config, &mut assignment);
        (Arc::new(config), assignment)
    };
    let clusters = Clusters::new(Registry::default(), Instant::now());
    let cluster = clusters.get_or_make(&Name::new("app").expect("a name"));
    // The fifth is new.
    let (config, whole) = with(|_, _| {});
    clusters.configure(&cluster, &config);
    clusters.assign(&cluster, &assignment(&[1, 2, 3, 4]));
    tokio::time::advance(500 * SECOND).await;
    clusters.assign(&cluster, &whole);
    tokio::time::advance(50 * SECOND).await;
    let changes: [(&str, Edit); 8] = [
        ("nothing", |_, _| {}),
        ("a timeout", |config, _| config.connect_timeout = 7 * SECOND),
        ("how long connections wait", |config, _| config.idle_timeout = 7 * SECOND),
        ("a threshold", |config, _| config.panic_threshold = model::Percent::whole(3)),
        ("a subset", |config, _| drop(config.subsets.insert(Name::new("v2").unwrap(), version_is("v2")))),
        ("labels", |_, all| all.endpoints.iter_mut().for_each(|one| one.labels = version_is("v2"))),
        ("zones", |_, all| all.endpoints.iter_mut().for_each(|one| one.zone = Some("z".into()))),
        ("their order", |_, all| all.endpoints[..4].reverse()),
    ];
    for (name, change) in changes {
        let (config, all) = with(change);
        clusters.configure(&cluster, &config);
        clusters.assign(&cluster, &all);
        let counts = picks(&cluster, 550 * SECOND);
        // Half a share beside four whole ones.
        let share = counts[4] as f64 / 20_000.0;
        assert!((share - 0.5 / 4.5).abs() < 0.02, "{name}: {share}");
        assert!(counts[..4].iter().all(|count| (4_000..4_900).contains(count)), "{name}: {counts:?}");
    }
    // Switched off and on again, it is where it would have been.
    tokio::time::advance(25 * SECOND).await;
    let (off, all) = with(|config, _| config.slow_start = Duration::ZERO);
    clusters.configure(&cluster, &off);
    clusters.assign(&cluster, &all);
    assert!(picks(&cluster, 575 * SECOND).iter().all(|count| (3_600..4_400).contains(count)));
    clusters.configure(&cluster, &config);
    let share = picks(&cluster, 575 * SECOND)[4] as f64 / 20_000.0;
    assert!((share - 0.75 / 4.75).abs() < 0.02, "{share}");
    // Who goes and comes is new.
    clusters.assign(&cluster, &assignment(&[1, 2, 3, 5]));
    clusters.assign(&cluster, &whole);
    let share = picks(&cluster, 575 * SECOND)[3] as f64 / 20_000.0;
    assert!(share < 0.05, "{share}");
}
