//! What a set promises where zones are weighed.

use proptest::prelude::*;

use super::*;

fn weigh(zones: &[(&str, u32)]) -> ZoneWeights {
    zones.iter().map(|(zone, weight)| ((*zone).into(), *weight)).collect()
}

fn zoned<'a>(balance: &'a Balance, weights: &'a ZoneWeights) -> Settings<'a> {
    Settings { zone_weights: Some(weights), ..settings(balance) }
}

/// One endpoint for each zone that is named, their ids their places.
fn standing(zones: &[&str]) -> Vec<Arc<Endpoint>> {
    let endpoints = endpoints(&vec![1; zones.len()]);
    for (endpoint, zone) in endpoints.iter().zip(zones) {
        endpoint.set_zone(Some(zone));
    }
    endpoints
}

/// What each of these zones gets, in per cent.
fn percent<const N: usize>(set: &EndpointSet, zones: [&str; N]) -> [f64; N] {
    let counts = counts(set, 20_000);
    zones.map(|zone| {
        let own = set.endpoints().iter().filter(|e| e.zone().as_deref() == Some(zone));
        own.map(|e| counts[e.id() as usize]).sum::<usize>() as f64 / 200.0
    })
}

#[track_caller]
fn near<const N: usize>(got: [f64; N], expected: [f64; N], what: &Balance) {
    let is_near = got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 3.0);
    assert!(is_near, "{what:?}: {got:?}, not {expected:?}");
}

fn set_down(set: &EndpointSet, which: impl Fn(&Endpoint) -> bool) {
    for endpoint in set.endpoints().iter().filter(|e| which(e)) {
        endpoint.set_availability(Availability::Unavailable);
    }
    set.refresh();
}

#[test]
fn a_zone_that_is_ill_gives_away_what_it_cannot_carry() {
    let weights = weigh(&[("a", 80), ("b", 20)]);
    for balance in all_kinds() {
        let set = EndpointSet::new(standing(&["a", "b", "a", "a", "a", "b"]), zoned(&balance, &weights));
        near(percent(&set, ["a", "b"]), [80.0, 20.0], &balance);
        set_down(&set, |e| [0, 2].contains(&e.id()));
        // A key moves from those who are down alone: hashes do not look at a zone's health.
        let hashes = matches!(balance, Balance::RingHash(_) | Balance::Maglev(_));
        if !hashes {
            near(percent(&set, ["a", "b"]), [5600.0 / 76.0, 2000.0 / 76.0], &balance);
        }
        set_down(&set, |e| e.zone().as_deref() == Some("a"));
        assert_eq!(percent(&set, ["a", "b"]), [0.0, 100.0], "{balance:?}");
    }
}

#[test]
fn zones_share_what_their_level_gets() {
    let weights = weigh(&[("a", 3), ("b", 1)]);
    for balance in all_kinds() {
        let endpoints = standing(&["a", "b", "a", "b", "a", "b", "a", "b"]);
        endpoints[4..].iter().for_each(|e| e.set_priority(1));
        let set = EndpointSet::new(endpoints, zoned(&balance, &weights));
        near(percent(&set, ["a", "b"]), [75.0, 25.0], &balance);
        // Half of each zone: 70 % of all stays.
        set_down(&set, |e| e.id() < 2);
        let of = |from: u64, counts: &[usize]| counts[from as usize..][..2].iter().sum::<usize>() as f64;
        let counts = counts(&set, 20_000);
        let shares = [of(2, &counts), of(4, &counts) + of(6, &counts)].map(|count| count / 200.0);
        near(shares, [70.0, 30.0], &balance);
        near(percent(&set, ["a", "b"]), [75.0, 25.0], &balance);
        let seen: Vec<_> = set.levels().collect();
        assert_eq!((seen[0].endpoints, seen[0].available, seen[1].available), (4, 2, 4));
        let zone = &seen[1].zones[0];
        assert_eq!((zone.name.as_deref(), zone.weight, zone.endpoints, zone.available), (Some("a"), 3, 2, 2));
        assert!((zone.load - 0.225).abs() < 1e-6, "{zone:?}");
        assert!((seen[0].load - 0.7).abs() < 1e-6, "{:?}", seen[0]);
        // The first level's are gone: the second one's zones take all, by weight.
        set_down(&set, |e| e.priority() == 0);
        near(percent(&set, ["a", "b"]), [75.0, 25.0], &balance);
    }
}

#[test]
fn a_zone_that_weighs_nothing_is_never_used() {
    let weights = weigh(&[("a", 1), ("b", 0)]);
    for balance in all_kinds() {
        let settings = Settings { panic_threshold: Percent::ALL, ..zoned(&balance, &weights) };
        let set = EndpointSet::new(standing(&["b", "a", "b"]), settings);
        assert_eq!(counts(&set, 200), [0, 200, 0]);
        set_down(&set, |e| e.id() == 1);
        assert_eq!(
            counts(&set, 200),
            [0, 200, 0],
            "panic takes those that are down, not those that are not meant"
        );
        assert!(!set.has_any(&[1]));
        assert_eq!(set.endpoints().len(), 3, "they are checked and seen all the same");
        let nobody = EndpointSet::new(standing(&["b"]), settings);
        assert!(nobody.pick(&PickFacts::default(), || 0, |_| true).is_none());
        assert_eq!((nobody.levels().count(), nobody.has_any(&[])), (0, false));
    }
}

#[test]
fn a_zone_that_is_not_named_weighs_one() {
    let weights = weigh(&[("a", 3)]);
    for balance in all_kinds() {
        let endpoints = standing(&["a", "new", "nowhere", "nowhere"]);
        endpoints[2..].iter().for_each(|e| e.set_zone(None));
        let set = EndpointSet::new(endpoints, zoned(&balance, &weights));
        near(percent(&set, ["a", "new"]), [60.0, 20.0], &balance);
    }
}

#[test]
fn in_panic_zones_share_by_weight() {
    let weights = weigh(&[("a", 3), ("b", 1)]);
    for balance in all_kinds() {
        let settings = Settings { panic_threshold: Percent::whole(60), ..zoned(&balance, &weights) };
        let set = EndpointSet::new(standing(&["a", "a", "b", "b"]), settings);
        set_down(&set, |e| e.zone().as_deref() == Some("a"));
        near(percent(&set, ["a", "b"]), [75.0, 25.0], &balance);
    }
}

#[test]
fn a_zone_that_emptied_since_it_was_counted_gives_to_its_neighbours_first() {
    let weights = weigh(&[("a", 1), ("b", 1)]);
    for balance in all_kinds() {
        let endpoints = standing(&["a", "b", "a"]);
        endpoints[2].set_priority(1);
        let set = EndpointSet::new(endpoints, zoned(&balance, &weights));
        set.endpoints()[0].set_availability(Availability::Unavailable);
        assert_eq!(counts(&set, 200), [0, 200, 0], "{balance:?}");
        let facts = PickFacts { hash: key(1), tried: &[1], ..PickFacts::default() };
        let picked = set.pick(&facts, || 0, |_| false).expect("the next level has one");
        assert_eq!(picked.endpoint.id(), 2, "{balance:?}");
    }
}

#[test]
fn the_share_of_a_new_endpoint_grows_within_its_zone() {
    let weights = weigh(&[("a", 1), ("b", 1)]);
    for balance in &all_kinds()[..4] {
        let endpoints = standing(&["a", "a", "b"]);
        endpoints[0].set_since(100 * SECOND);
        let settings = Settings { slow_start: 100 * SECOND, ..zoned(balance, &weights) };
        let set = EndpointSet::new(endpoints, settings);
        let counts = counts_at(&set, 20_000, 150 * SECOND);
        let share = |count: usize| count as f64 / 200.0;
        near([share(counts[2])], [50.0], balance);
        assert!(counts[0] * 5 < counts[1] * 4, "{balance:?} {counts:?}");
    }
}

#[test]
fn keys_stay_in_their_zone_while_their_endpoint_is_well() {
    let weights = weigh(&[("a", 9), ("b", 1)]);
    for balance in hash_kinds() {
        let set = EndpointSet::new(standing(&["a", "a", "a", "b", "b"]), zoned(&balance, &weights));
        let owners = |set: &EndpointSet| (0..2_000).map(|i| owner(set, key(i), &[])).collect::<Vec<_>>();
        let before = owners(&set);
        set_down(&set, |e| e.id() < 2);
        for (old, new) in before.iter().zip(owners(&set)) {
            assert!(*old < 2 || *old == new, "{balance:?}");
        }
    }
}

/// Where one joins, its zone has the share that it had: a key of another zone moves to it only where another one of its
/// zone gives one back.
#[test]
fn who_joins_a_zone_moves_few_keys_of_another() {
    let weights = weigh(&[("a", 1), ("b", 1)]);
    for balance in hash_kinds() {
        let few = EndpointSet::new(standing(&["a", "a", "b", "b"]), zoned(&balance, &weights));
        let more = EndpointSet::new(standing(&["a", "a", "b", "b", "b"]), zoned(&balance, &weights));
        let (mut others, mut own) = (0, 0);
        for i in 0..5_000 {
            let (old, new) = (owner(&few, key(i), &[]), owner(&more, key(i), &[]));
            others += usize::from(old < 2 && old != new);
            own += usize::from(old >= 2 && old != new);
        }
        // A sixth of all keys is the newcomer's, by half from its own zone.
        assert!(others < 500 && own < 1_000, "{balance:?}: {others} {own}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn shares_follow_the_weights_of_zones(
        zones in prop::collection::vec((1_u32..10, prop::collection::vec(1_u32..5, 1..6)), 1..4),
    ) {
        let names = ["a", "b", "c"];
        let weights: ZoneWeights =
            zones.iter().zip(names).map(|((weight, _), name)| (name.into(), *weight)).collect();
        let own: Vec<u32> = zones.iter().flat_map(|(_, own)| own.clone()).collect();
        let sum: u32 = weights.values().sum();
        for balance in all_kinds() {
            let endpoints = endpoints(&own);
            let places = zones.iter().zip(names).flat_map(|((_, own), name)| own.iter().map(move |_| name));
            for (endpoint, name) in endpoints.iter().zip(places) {
                endpoint.set_zone(Some(name));
            }
            let set = EndpointSet::new(endpoints, zoned(&balance, &weights));
            let got = percent(&set, names);
            for (name, got) in names.iter().zip(got) {
                let expected = weights.get(*name).map_or(0.0, |weight| f64::from(*weight) * 100.0 / f64::from(sum));
                // A ring's points lie as they fall.
                let bound = if matches!(balance, Balance::RingHash(_)) { 8.0 } else { 2.0 };
                prop_assert!((got - expected).abs() < bound, "{balance:?} {name}: {got}, not {expected}");
            }
        }
    }
}
