//! What a set promises, whatever its balancer.

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::model::{Address, Balance, Percent};
use proptest::prelude::*;

use super::super::endpoint::{Availability, Endpoint};
use super::{EndpointSet, PickFacts, Settings, ZoneWeights, hash_of};

mod zones;

const SECOND: Duration = Duration::from_secs(1);

fn all_kinds() -> [Balance; 6] {
    let hash = || Box::new([]);
    [
        Balance::PeakEwma,
        Balance::LeastRequest,
        Balance::RoundRobin,
        Balance::Random,
        Balance::RingHash(hash()),
        Balance::Maglev(hash()),
    ]
}

fn hash_kinds() -> [Balance; 2] {
    [Balance::RingHash(Box::new([])), Balance::Maglev(Box::new([]))]
}

/// Their ids are their places.
fn endpoints(weights: &[u32]) -> Vec<Arc<Endpoint>> {
    let endpoint = |(i, weight): (usize, &u32)| {
        let address = Address::Ip(([127, 0, (i >> 8) as u8, i as u8], 80).into());
        Arc::new(Endpoint::new(i as u64, address, *weight))
    };
    weights.iter().enumerate().map(endpoint).collect()
}

fn settings(balance: &Balance) -> Settings<'_> {
    Settings { balance, ..Settings::default() }
}

fn set(weights: &[u32], balance: &Balance) -> EndpointSet {
    EndpointSet::new(endpoints(weights), settings(balance))
}

/// Levels of so many endpoints, of which the first so many are available.
fn levels(levels: &[(usize, usize)], balance: &Balance, threshold: u32) -> EndpointSet {
    let mut all = endpoints(&vec![1; levels.iter().map(|(_, all)| all).sum()]).into_iter();
    let mut made = Vec::new();
    for (priority, (available, count)) in levels.iter().enumerate() {
        for (i, endpoint) in all.by_ref().take(*count).enumerate() {
            endpoint.set_priority(priority as u8);
            if i >= *available {
                endpoint.set_availability(Availability::Unavailable);
            }
            made.push(endpoint);
        }
    }
    let settings = Settings { panic_threshold: Percent::whole(threshold), ..settings(balance) };
    EndpointSet::new(made, settings)
}

fn key(i: u64) -> Option<u64> {
    hash_of([&i.to_le_bytes()[..]])
}

/// How often each endpoint is picked, each time with another key; nothing is ever sent.
fn counts_at(set: &EndpointSet, picks: usize, now: Duration) -> Vec<usize> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut counts = vec![0; set.endpoints().len()];
    for i in 0..picks {
        let facts = PickFacts { now, hash: key(i as u64), tried: &[] };
        let picked = set.pick(&facts, || rng.u64(..), |_| false).expect("one is available");
        counts[picked.endpoint.id() as usize] += 1;
    }
    counts
}

fn counts(set: &EndpointSet, picks: usize) -> Vec<usize> {
    counts_at(set, picks, Duration::ZERO)
}

fn owner(set: &EndpointSet, hash: Option<u64>, tried: &[u64]) -> u64 {
    let facts = PickFacts { now: Duration::ZERO, hash, tried };
    set.pick(&facts, || unreachable!("the hash decides"), |_| false).expect("one is available").endpoint.id()
}

#[test]
fn an_empty_set_has_no_pick() {
    for balance in all_kinds() {
        assert!(set(&[], &balance).pick(&PickFacts::default(), || 0, |_| true).is_none());
        assert!(!set(&[], &balance).has_any(&[]));
    }
    assert!(EndpointSet::default().pick(&PickFacts::default(), || 0, |_| true).is_none());
}

#[test]
fn round_robin_is_exact() {
    assert_eq!(counts(&set(&[1, 1, 1], &Balance::RoundRobin), 9), [3, 3, 3]);
    assert_eq!(counts(&set(&[5, 1, 2], &Balance::RoundRobin), 16), [10, 2, 4]);
}

#[test]
fn round_robin_steps_past_the_unavailable_without_doubling_its_neighbour() {
    let set = set(&[1, 1, 1, 1], &Balance::RoundRobin);
    set.endpoints()[1].set_availability(Availability::Unavailable);
    assert_eq!(counts(&set, 300), [100, 0, 100, 100]);
}

#[test]
fn second_attempts_use_no_turns() {
    // With turns used for them, all first attempts would go to the one that is down.
    let set = set(&[1, 1], &Balance::RoundRobin);
    let mut first_attempts = [0, 0];
    for _ in 0..100 {
        let first = set.pick(&PickFacts::default(), || 0, |_| false).expect("there are two").endpoint.id();
        first_attempts[first as usize] += 1;
        if first == 0 {
            let mut rng = fastrand::Rng::with_seed(3);
            let facts = PickFacts { tried: &[0], ..PickFacts::default() };
            let second = set.pick(&facts, || rng.u64(..), |_| false).expect("there are two");
            assert_eq!(second.endpoint.id(), 1);
        }
    }
    assert_eq!(first_attempts, [50, 50]);
}

#[test]
fn least_request_avoids_the_busy_one() {
    let set = set(&[1, 1], &Balance::LeastRequest);
    let _busy = set.endpoints()[0].lease();
    assert_eq!(counts(&set, 100), [0, 100]);
}

#[test]
fn peak_ewma_avoids_the_slow_one_also_where_weights_differ() {
    for weights in [[1, 1], [3, 1]] {
        let set = set(&weights, &Balance::PeakEwma);
        set.endpoints()[0].answered(100 * SECOND, Duration::ZERO);
        set.endpoints()[1].answered(SECOND, Duration::ZERO);
        assert_eq!(counts(&set, 100), [0, 100]);
    }
}

#[test]
fn peak_ewma_shares_by_weight_what_measures_about_the_same() {
    let set = set(&[1, 3], &Balance::PeakEwma);
    set.endpoints()[0].answered(SECOND, Duration::ZERO);
    set.endpoints()[1].answered(SECOND * 5 / 4, Duration::ZERO);
    let counts = counts(&set, 10_000);
    assert!((2_300..2_700).contains(&counts[0]), "{counts:?}");
}

#[test]
fn least_request_keeps_what_is_in_flight_in_proportion_to_weights() {
    let set = set(&[1, 2, 4, 1], &Balance::LeastRequest);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut leases = Vec::new();
    for _ in 0..8_000 {
        let picked = set.pick(&PickFacts::default(), || rng.u64(..), |_| false).expect("there are four");
        leases.push(picked.endpoint.lease());
        if leases.len() > 800 {
            leases.swap_remove(rng.usize(..800));
        }
    }
    for (endpoint, expected) in set.endpoints().iter().zip([100, 200, 400, 100]) {
        let (least, most) = (expected * 7 / 10, expected * 13 / 10);
        assert!((least..most).contains(&endpoint.active()), "{} for {expected}", endpoint.active());
    }
}

#[test]
fn the_few_that_are_left_share_evenly() {
    for balance in all_kinds() {
        let set = levels(&[(5, 100)], &balance, 0);
        let counts = counts(&set, 10_000);
        for (i, count) in counts.iter().enumerate() {
            // A ring is coarse; what goes by looking at all is even.
            let fits = if i < 5 { (1_000..3_000).contains(count) } else { *count == 0 };
            assert!(fits, "{balance:?} {:?}", &counts[..6]);
        }
    }
}

#[test]
fn levels_share_by_health() {
    let percent = |levels_of: &[(usize, usize)], balance: &Balance| {
        let set = levels(levels_of, balance, 0);
        let counts = counts(&set, 20_000);
        let share = |priority: u8| {
            let own = set.endpoints().iter().filter(|e| e.priority() == priority);
            own.map(|e| counts[e.id() as usize]).sum::<usize>() as f64 / 200.0
        };
        [share(0), share(1)]
    };
    for balance in all_kinds() {
        let check = |first: usize, second: usize, expected: [f64; 2]| {
            let got = percent(&[(first, 100), (second, 100)], &balance);
            assert!((got[0] - expected[0]).abs() < 2.0, "{balance:?} {first} {second}: {got:?}");
            assert!((got[1] - expected[1]).abs() < 2.0, "{balance:?} {first} {second}: {got:?}");
        };
        check(100, 100, [100.0, 0.0]);
        check(72, 100, [100.0, 0.0]);
        check(50, 100, [70.0, 30.0]);
        check(25, 100, [35.0, 65.0]);
        check(25, 25, [50.0, 50.0]);
        check(0, 100, [0.0, 100.0]);
    }
}

#[test]
fn what_is_known_of_levels_can_be_seen() {
    let set = levels(&[(5, 10), (10, 10)], &Balance::Random, 0);
    let levels: Vec<_> = set.levels().collect();
    assert_eq!((levels[0].available, levels[0].endpoints, levels[0].priority), (5, 10, 0));
    assert_eq!((levels[1].available, levels[1].endpoints, levels[1].priority), (10, 10, 1));
    assert!((levels[0].load - 0.7).abs() < 1e-6 && (levels[1].load - 0.3).abs() < 1e-6);
    assert!(!levels[0].panic && !levels[1].panic);
}

#[test]
fn below_the_threshold_all_are_used() {
    for balance in all_kinds() {
        let panicking = levels(&[(4, 10)], &balance, 50);
        assert!(counts(&panicking, 5_000).iter().all(|count| *count > 100), "{balance:?}");
        let picked = panicking.pick(&PickFacts::default(), || 0, |_| false).expect("all are used");
        assert!(picked.panic);
        let calm = levels(&[(5, 10)], &balance, 50);
        assert!(counts(&calm, 1_000)[5..].iter().all(|count| *count == 0), "{balance:?}");
        // Nothing is left, and nobody has counted since.
        for endpoint in calm.endpoints() {
            endpoint.set_availability(Availability::Unavailable);
        }
        assert!(calm.has_any(&[]));
        assert!(calm.pick(&PickFacts::default(), || 0, |_| false).expect("all are used").panic);
    }
}

#[test]
fn a_level_that_emptied_since_it_was_counted_gives_to_the_others() {
    for balance in all_kinds() {
        let set = levels(&[(10, 10), (10, 10)], &balance, 0);
        for endpoint in &set.endpoints()[..10] {
            endpoint.set_availability(Availability::Unavailable);
        }
        let counts = counts(&set, 500);
        assert_eq!(counts[10..].iter().sum::<usize>(), 500, "{balance:?}");
    }
}

#[test]
fn the_share_of_a_new_endpoint_grows() {
    for balance in &all_kinds()[..4] {
        let endpoints = endpoints(&[1; 5]);
        endpoints[0].set_since(100 * SECOND);
        let settings = Settings { slow_start: 100 * SECOND, ..settings(balance) };
        let set = EndpointSet::new(endpoints, settings);
        for (age, factor) in [(0, 0.1), (10, 0.1), (25, 0.25), (50, 0.5), (75, 0.75), (100, 1.0), (500, 1.0)]
        {
            let counts = counts_at(&set, 20_000, (100 + age) * SECOND);
            let (got, expected) = (counts[0] as f64 / 20_000.0, factor / (4.0 + factor));
            assert!((got - expected).abs() < 0.02, "{balance:?} {age}: {got}, not {expected}");
        }
    }
}

#[test]
fn where_all_are_new_none_waits_for_another() {
    for balance in &all_kinds()[..4] {
        let settings = Settings { slow_start: 100 * SECOND, ..settings(balance) };
        let set = EndpointSet::new(endpoints(&[1; 5]), settings);
        for count in counts_at(&set, 20_000, SECOND) {
            assert!((3_600..4_400).contains(&count), "{balance:?} {count}");
        }
    }
    let settings = Settings { slow_start: 100 * SECOND, ..settings(&Balance::PeakEwma) };
    let set = EndpointSet::new(endpoints(&[1; 2]), settings);
    set.endpoints()[0].answered(SECOND, SECOND);
    assert_eq!(counts_at(&set, 100, SECOND), [0, 100], "the slow one is avoided from the start");
}

#[test]
fn a_key_has_one_endpoint_whatever_order_they_come_in() {
    for balance in hash_kinds() {
        let weights: Vec<u32> = (1..31).collect();
        let set = set(&weights, &balance);
        let mut back = endpoints(&weights);
        back.reverse();
        let other = EndpointSet::new(back, settings(&balance));
        for i in 0..1000 {
            assert_eq!(owner(&set, key(i), &[]), owner(&other, key(i), &[]));
        }
    }
}

#[test]
fn keys_of_the_unavailable_spread_and_others_stay() {
    for balance in hash_kinds() {
        let set = set(&[1; 10], &balance);
        let before: Vec<u64> = (0..10_000).map(|i| owner(&set, key(i), &[])).collect();
        let retried: Vec<u64> = (0..10_000).map(|i| owner(&set, key(i), &[4])).collect();
        set.endpoints()[4].set_availability(Availability::Unavailable);
        let after: Vec<u64> = (0..10_000).map(|i| owner(&set, key(i), &[])).collect();
        let mut heirs = [0; 10];
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || *before == 4);
            heirs[*after as usize] += usize::from(*before == 4);
        }
        assert!((0..10).all(|i| (i == 4) == (heirs[i] == 0)), "{heirs:?}");
        assert_eq!(retried, after, "a second attempt goes where the key would go without the first one's");
    }
}

#[test]
fn without_a_hash_a_pick_is_random() {
    for balance in hash_kinds() {
        let set = set(&[1; 4], &balance);
        let mut rng = fastrand::Rng::with_seed(7);
        let mut counts = [0; 4];
        for _ in 0..4_000 {
            let picked = set.pick(&PickFacts::default(), || rng.u64(..), |_| false).expect("there are four");
            counts[picked.endpoint.id() as usize] += 1;
        }
        assert!(counts.iter().all(|count| (700..1300).contains(count)), "{counts:?}");
    }
}

#[test]
fn a_half_open_endpoint_takes_requests_with_a_permit_alone() {
    for balance in all_kinds() {
        let set = set(&[1; 3], &balance);
        set.endpoints()[0].set_availability(Availability::HalfOpen);
        // Whatever made it so also made it slow.
        set.endpoints()[0].answered(1000 * SECOND, Duration::ZERO);
        assert_eq!(counts(&set, 1_000)[0], 0, "{balance:?}");
        let mut permits = 0;
        let mut probes = 0;
        let mut rng = fastrand::Rng::with_seed(7);
        for i in 0..1_000 {
            let facts = PickFacts { hash: key(i), ..PickFacts::default() };
            let claim = |_: &Arc<Endpoint>| {
                permits += u64::from(permits < 5);
                permits <= 5 && probes < permits
            };
            let picked = set.pick(&facts, || rng.u64(..), claim).expect("two are available");
            probes += u64::from(picked.endpoint.id() == 0);
        }
        assert_eq!((permits, probes), (5, 5), "{balance:?}");
        // Alone, it is found.
        set.endpoints()[1].set_availability(Availability::Unavailable);
        set.endpoints()[2].set_availability(Availability::Unavailable);
        assert!(set.pick(&PickFacts::default(), || rng.u64(..), |_| true).is_some(), "{balance:?}");
        assert!(set.pick(&PickFacts::default(), || rng.u64(..), |_| false).is_none(), "{balance:?}");
    }
}

/// Of 20,000 keys, how many had another owner than `gone` and have changed it, and how many were its own.
fn moved(weights: &[u32], gone: usize, balance: &Balance) -> (usize, usize) {
    let before = set(weights, balance);
    let mut left = endpoints(weights);
    left.remove(gone);
    let after = EndpointSet::new(left, settings(balance));
    let (mut others, mut own) = (0, 0);
    for i in 0..20_000 {
        let (old, new) = (owner(&before, key(i), &[]), owner(&after, key(i), &[]));
        own += usize::from(old == gone as u64);
        others += usize::from(old != gone as u64 && old != new);
    }
    (others, own)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn without_load_shares_follow_weights(weights in prop::collection::vec(1_u32..10, 1..8)) {
        let picks = 20_000;
        let sum: u32 = weights.iter().sum();
        // What chance allows, and in hundredths what the balancer's table or ring is exact to.
        let kinds = all_kinds().into_iter().zip([0.0, 0.0, 0.0, 0.0, 40.0, 2.0]);
        for (balance, coarse) in kinds {
            // The second of two is another one: nobody can have more than all, or less than its draws.
            let pairs = matches!(balance, Balance::PeakEwma | Balance::LeastRequest);
            let counts = counts(&set(&weights, &balance), picks);
            for (count, weight) in counts.iter().zip(&weights) {
                let expected = picks as f64 * f64::from(*weight) / f64::from(sum);
                let bound = 6.0 * expected.sqrt() + 1.0 + expected * coarse / 100.0;
                prop_assert!((*count as f64 - expected).abs() < bound, "{balance:?} {pairs} {counts:?} {weights:?}");
            }
        }
    }

    #[test]
    fn a_ring_moves_the_keys_of_the_leaver_alone(n in 2_usize..=32, gone: prop::sample::Index) {
        let (others, own) = moved(&vec![1; n], gone.index(n), &Balance::RingHash(Box::new([])));
        prop_assert_eq!(others, 0);
        let fair = 20_000 / n;
        prop_assert!((fair / 2..fair * 2).contains(&own), "{} of {}", own, fair);
    }

    #[test]
    fn maglev_moves_few_keys_of_others(n in 2_usize..20, gone: prop::sample::Index) {
        let (others, own) = moved(&vec![1; n], gone.index(n), &Balance::Maglev(Box::new([])));
        prop_assert!(others < 20_000 * 5 / 100, "{} of {}", others, n);
        let fair = 20_000 / n;
        prop_assert!((fair * 9 / 10..=fair * 11 / 10).contains(&own), "{} of {}", own, fair);
    }
}

/// Endpoints as they come: weight, priority, zone, state.
fn any_endpoints() -> impl Strategy<Value = Vec<Arc<Endpoint>>> {
    let state = prop_oneof![
        Just(Availability::Available),
        Just(Availability::HalfOpen),
        Just(Availability::Unavailable),
        Just(Availability::Unavailable),
    ];
    let zone = prop::sample::select(vec![None, Some("a"), Some("b"), Some("c")]);
    prop::collection::vec((1_u32..5, 0_u8..3, zone, state), 1..25).prop_map(|specs| {
        let weights: Vec<u32> = specs.iter().map(|(weight, _, _, _)| *weight).collect();
        let endpoints = endpoints(&weights);
        for (endpoint, (_, priority, zone, state)) in endpoints.iter().zip(specs) {
            endpoint.set_priority(priority);
            endpoint.set_zone(zone);
            endpoint.set_availability(state);
        }
        endpoints
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The heart of it: whoever is there is found, nobody else is picked, and it ends.
    #[test]
    fn a_pick_is_available_and_found_if_there_is_one(
        endpoints in any_endpoints(),
        tried in prop::collection::vec(0_u64..25, 0..4),
        kind in 0_usize..6,
        threshold in prop_oneof![Just(0_u32), 1_u32..=100],
        zone_weights in prop::option::of((0_u32..3, 1_u32..9)),
        late: bool,
        luck in prop_oneof![Just(None), Just(Some(0)), Just(Some(u64::MAX))],
        seed: u64,
    ) {
        let states: Vec<Availability> = endpoints.iter().map(|e| e.availability()).collect();
        let zone_weights: Option<ZoneWeights> =
            zone_weights.map(|(a, b)| [("a".into(), a), ("b".into(), b)].into());
        let settings = Settings {
            balance: &all_kinds()[kind],
            slow_start: SECOND,
            panic_threshold: Percent::whole(threshold),
            zone_weights: zone_weights.as_ref(),
        };
        if late {
            // Counts are behind: all were available when they were taken.
            endpoints.iter().for_each(|e| e.set_availability(Availability::Available));
        }
        let set = EndpointSet::new(endpoints, settings);
        for endpoint in set.endpoints() {
            endpoint.set_availability(states[endpoint.id() as usize]);
        }
        let is_meant = |e: &Endpoint| {
            let weight = zone_weights.as_ref().zip(e.zone()).and_then(|(weights, zone)| weights.get(&zone));
            weight != Some(&0)
        };
        let left = |state| {
            let open = |e: &Arc<Endpoint>| e.availability() == state && !tried.contains(&e.id());
            set.endpoints().iter().any(|e| open(e) && is_meant(e))
        };
        let mut rng = fastrand::Rng::with_seed(seed);
        for permits in [false, true] {
            let (mut draws, mut claimed) = (0, None);
            let random = || {
                draws += 1;
                luck.unwrap_or_else(|| rng.u64(..))
            };
            let claim = |endpoint: &Arc<Endpoint>| {
                assert!(claimed.is_none(), "a permit was taken in vain");
                claimed = permits.then(|| endpoint.id());
                permits
            };
            let facts = PickFacts { now: Duration::ZERO, hash: Some(seed), tried: &tried };
            let picked = set.pick(&facts, random, claim);
            prop_assert!(draws < 400, "{draws}");
            let found = left(Availability::Available) || permits && left(Availability::HalfOpen);
            prop_assert!(picked.is_some() || !found);
            if !permits {
                prop_assert_eq!(picked.is_some(), set.has_any(facts.tried));
            }
            let Some(picked) = picked else { continue };
            prop_assert!(!tried.contains(&picked.endpoint.id()) && is_meant(picked.endpoint));
            prop_assert!(set.endpoints().iter().any(|e| Arc::ptr_eq(e, picked.endpoint)));
            prop_assert!(!picked.panic || threshold > 0);
            match picked.endpoint.availability() {
                Availability::Available => prop_assert_eq!(claimed, None),
                Availability::HalfOpen if !picked.panic => prop_assert_eq!(claimed, Some(picked.endpoint.id())),
                Availability::HalfOpen | Availability::Unavailable => prop_assert!(picked.panic),
            }
        }
    }
}
