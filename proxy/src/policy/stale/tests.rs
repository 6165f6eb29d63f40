//! The shelf is held against one that is too simple to be wrong.

use http::header::CACHE_CONTROL;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const fn seconds_of(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn stale(keep: u64, memory: u64) -> Stale {
    let config = model::Stale { keep: seconds_of(keep), max_body: 1, memory };
    Stale::new(config, Arc::default())
}

/// A request that says `lang`, where it says anything.
fn request(lang: Option<u8>) -> HeaderMap {
    let value = |lang| HeaderValue::from_bytes(&[b'a' + lang]).unwrap();
    lang.map(|lang| (header::ACCEPT_LANGUAGE, value(lang))).into_iter().collect()
}

fn terms(request: &HeaderMap, varies: bool) -> Terms {
    let mut head = HeaderMap::new();
    if varies {
        head.insert(header::VARY, HeaderValue::from_static("accept-language"));
    }
    Terms::of(request, &head).unwrap()
}

fn answer(body: &[u8], received: u64) -> Answer {
    Answer::new(&HeaderMap::new(), body.to_vec(), seconds_of(received))
}

#[derive(Clone, Debug)]
enum Step {
    /// A key, a language, whether it matters, and the length of a body that came so many seconds ago.
    Put(u8, Option<u8>, bool, (usize, u64)),
    Find(u8, Option<u8>),
    Forget(u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (key, lang) = (|| 0..6_u8, || proptest::option::of(0..20_u8));
    prop_oneof![
        6 => (key(), lang(), any::<bool>(), (0..900_usize, 0..3_u64))
            .prop_map(|(key, lang, varies, body)| Step::Put(key, lang, varies, body)),
        4 => (key(), lang()).prop_map(|(key, lang)| Step::Find(key, lang)),
        1 => key().prop_map(Step::Forget),
        2 => (0..6_u64).prop_map(Step::Wait),
    ]
}

/// An entry of the simple shelf: its key, its terms, its size, when it was received, its body.
type Naive = (u8, Terms, u64, u64, Vec<u8>);

fn naive_put(all: &mut Vec<Naive>, entry: Naive, memory: u64) {
    // One that came later stays.
    if all.iter().any(|old| (old.0, &old.1) == (entry.0, &entry.1) && old.3 > entry.3) {
        return;
    }
    all.retain(|old| (old.0, &old.1) != (entry.0, &entry.1));
    if all.iter().filter(|old| old.0 == entry.0).count() >= VARIANTS {
        let first = all.iter().position(|old| old.0 == entry.0).unwrap();
        all.remove(first);
    }
    all.push(entry);
    while all.iter().map(|entry| entry.2).sum::<u64>() > memory {
        all.remove(0);
    }
}

/// Expired ones at the front go, as long as it is one after the other.
fn naive_expire(all: &mut Vec<Naive>, now: u64, keep: u64) {
    while all.first().is_some_and(|first| now - first.3 >= keep) {
        all.remove(0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_the_simple_one_does(steps in vec(step(), 0..120), keep in 1..12_u64, memory in 500..12_000_u64) {
        let shelf = stale(keep, memory);
        let (mut all, mut now, mut number) = (Vec::new(), 10, 0_u32);
        for step in steps {
            match step {
                Step::Put(key, lang, varies, (length, ago)) => {
                    number += 1;
                    let mut body = number.to_string().into_bytes();
                    body.resize(body.len() + length, b'.');
                    let (terms, answer) = (terms(&request(lang), varies), answer(&body, now - ago));
                    let size = size(&[key], &terms.vary, &answer);
                    shelf.put(&[key], terms.clone(), answer, seconds_of(now));
                    if size <= memory && ago < keep {
                        naive_expire(&mut all, now, keep);
                        naive_put(&mut all, (key, terms, size, now - ago, body), memory);
                    }
                }
                Step::Find(key, lang) => {
                    let request = request(lang);
                    let found = shelf.find(&[key], &request, seconds_of(now));
                    naive_expire(&mut all, now, keep);
                    let fits = |entry: &&Naive| entry.0 == key && entry.1.fit(&request) && now - entry.3 < keep;
                    let expected = all.iter().rev().find(fits);
                    prop_assert_eq!(found.as_ref().map(|found| &found.body[..]), expected.map(|e| &e.4[..]));
                    if let Some(found) = found {
                        prop_assert!(seconds_of(now) - found.received < seconds_of(keep));
                    }
                }
                Step::Forget(key) => {
                    shelf.forget(&[key]);
                    all.retain(|entry| entry.0 != key);
                }
                Step::Wait(seconds) => now += seconds,
            }
            let held = shelf.lock();
            prop_assert!(held.bytes <= memory);
            prop_assert_eq!(held.bytes, all.iter().map(|entry| entry.2).sum::<u64>());
            prop_assert_eq!(held.order.len(), all.len());
            prop_assert_eq!(held.entries.values().map(Vec::len).sum::<usize>(), all.len());
            prop_assert_eq!(shelf.total.load(Relaxed), held.bytes);
        }
    }
}

#[test]
fn ages_add_up() {
    let rows = [
        (None, "0", "7"),
        (Some("5"), "5", "12"),
        (Some("007"), "7", "14"),
        (Some("99999999999999999999999"), "2147483648", "2147483648"),
        (Some("-1"), "0", "7"),
        (Some("1.5"), "0", "7"),
        (Some(""), "0", "7"),
    ];
    for (age, at_once, later) in rows {
        let head: HeaderMap =
            age.map(|age| (header::AGE, HeaderValue::from_static(age))).into_iter().collect();
        let answer = Answer::new(&head, Vec::new(), Duration::from_millis(1_500));
        for (now, expected) in [(2_499, at_once), (8_500, later)] {
            let head = answer.head(Duration::from_millis(now));
            assert_eq!(head.get_all(header::AGE).iter().collect::<Vec<_>>(), [expected], "{age:?}");
        }
    }
}

#[test]
fn an_answer_keeps_its_fields_and_nothing_of_the_buffers_they_came_in() {
    let buffer = Bytes::from(vec![b'v'; 1 << 20]);
    let mut head = HeaderMap::new();
    head.append("x-many", HeaderValue::from_maybe_shared(buffer.slice(..3)).unwrap());
    head.append("x-many", HeaderValue::from_static("2"));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=1"));
    let answer = Answer::new(&head, b"body".to_vec(), Duration::ZERO);
    drop(head);
    assert!(buffer.is_unique());
    let head = answer.head(Duration::ZERO);
    assert_eq!(head.get_all("x-many").iter().collect::<Vec<_>>(), ["vvv", "2"]);
    assert_eq!(head[CACHE_CONTROL], "max-age=1");
    assert_eq!(&answer.body()[..], b"body");
}

#[test]
fn a_304_renews_what_it_speaks_of() {
    let fields = |text: &[(&'static str, &'static str)]| -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        text.iter().map(field).collect()
    };
    let head = fields(&[
        ("etag", "W/\"1\""),
        ("age", "7"),
        ("content-type", "a/b"),
        ("x-many", "1"),
        ("x-many", "2"),
    ]);
    let nobody = HeaderMap::new();
    for (said, renewed) in [
        (&[("etag", "W/\"1\""), ("x-many", "3"), ("content-type", "c/d")][..], true),
        (&[("etag", "\"1\"")], false),
        (&[("x-many", "3")], false),
        (&[("etag", "W/\"1\""), ("cache-control", "private")], false),
    ] {
        let shelf = stale(10, 10_000);
        let first = Answer::new(&head, b"body".to_vec(), seconds_of(1));
        shelf.put(b"k", Terms::of(&nobody, &head).unwrap(), first, seconds_of(1));
        shelf.renew(b"k", &nobody, &fields(said), seconds_of(9));
        let found = shelf.find(b"k", &nobody, seconds_of(12));
        assert_eq!(found.is_some(), renewed, "{said:?}");
        if let Some(found) = found {
            let head = found.head(seconds_of(12));
            let all = |name: &str| head.get_all(name).iter().cloned().collect::<Vec<_>>();
            assert_eq!(
                (all("age"), all("x-many"), all("content-type")),
                (vec!["3".parse().unwrap()], vec!["3".parse().unwrap()], vec!["a/b".parse().unwrap()])
            );
            assert_eq!(found.body(), "body");
            assert_eq!(shelf.lock().order.len(), 1);
        }
    }
}

#[test]
fn what_a_route_held_is_counted_no_more_when_it_is_gone() {
    let total = Arc::new(AtomicU64::new(0));
    let config = model::Stale { keep: seconds_of(9), max_body: 1, memory: 1 << 20 };
    let make = || Stale::new(config.clone(), Arc::clone(&total));
    let (a, b) = (make(), make());
    for (stale, key) in [(&a, b"1"), (&a, b"2"), (&b, b"1")] {
        stale.put(key, terms(&HeaderMap::new(), false), answer(b"x", 0), seconds_of(0));
    }
    let all = total.load(Relaxed);
    drop(a);
    assert_eq!(total.load(Relaxed) * 3, all);
    drop(b);
    assert_eq!(total.load(Relaxed), 0);
}

#[test]
fn what_is_on_its_way_takes_no_more_room_than_what_is_kept() {
    let shelf = Arc::new(stale(10, 100));
    let held = [shelf.room(60), shelf.room(40)];
    assert!(held.iter().all(Option::is_some) && shelf.room(1).is_none());
    drop(held);
    assert!(shelf.room(100).is_some() && shelf.room(101).is_none());
}
