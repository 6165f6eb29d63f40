use std::path::PathBuf;

use outrigger_proto::model::Percent;

use super::noted::BATCH;
use super::*;
use crate::store::file::File;

/// A file that is not there yet.
fn file(name: &str) -> PathBuf {
    let file = std::env::temp_dir().join(format!("outrigger-plane-{name}-{}.redb", std::process::id()));
    let _ = std::fs::remove_file(&file);
    file
}

/// A revision of nothing but this cluster, in force or on trial.
fn changed(plane: &Plane, cluster: &str, shadow: bool) -> u64 {
    let text = format!("clusters: {{ {cluster}: {{ endpoints: [127.0.0.1:1] }} }}\n");
    let documents = [("a.yaml".to_owned(), Some(text))].into();
    plane.change(Change { author: "me".to_owned(), documents, shadow, ..Change::default() }).unwrap().revision
}

fn rollout() -> Rollout {
    Rollout {
        steps: [Percent::whole(50)].into(),
        watch: Rollout::WATCH,
        patience: Rollout::PATIENCE,
        failures: Rollout::FAILURES,
        slowdown: Rollout::SLOWDOWN,
    }
}

/// What is told to all, what to some, and what is on trial.
fn shown(plane: &Plane) -> [u64; 3] {
    let published = plane.published().borrow().clone();
    let candidate = published.candidate.map_or(0, |candidate| candidate.serving.revision);
    let trial = plane.trial().borrow().as_ref().map_or(0, |trial| trial.entry.number);
    [published.stable.revision, candidate, trial]
}

/// Whatever was written in between.
#[tokio::test]
async fn a_candidate_that_says_what_all_are_told_is_told_to_all_when_it_is_taken_back() {
    let file = file("back");
    let rollout = rollout();
    let plane = Plane::open(Arc::new(File::open(&file).unwrap()), Keys::default(), Some(&rollout)).unwrap();
    let change = |name| changed(&plane, name, false);
    assert_eq!((change("a"), shown(&plane)), (1, [1, 0, 0]));
    assert_eq!((change("b"), shown(&plane)), (2, [1, 2, 0]));
    assert_eq!((change("a"), shown(&plane)), (3, [1, 3, 0]));
    plane.take_back(3, "it hangs").unwrap();
    assert_eq!(shown(&plane), [3, 0, 0]);
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn what_is_noted_before_the_end_is_written() {
    let file = file("end");
    let plane = Plane::open(Arc::new(File::open(&file).unwrap()), Keys::default(), None).unwrap();
    let note = || plane.note(Happened::NodeDown { node: "a".to_owned() });
    (0..3 * BATCH).for_each(|_| note());
    plane.close().await;
    // It is over, and ends once.
    note();
    plane.close().await;
    assert_eq!(plane.store().last_event().unwrap(), 3 * BATCH as u64);
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn what_proxies_would_not_take_at_once_is_not_put_on_trial() {
    let file = file("large");
    let plane = Plane::open(Arc::new(File::open(&file).unwrap()), Keys::default(), None).unwrap();
    let text = format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n      - respond: {{ status: 200, body: {} }}\n",
        "x".repeat(33 << 20)
    );
    let documents = [("a.yaml".to_owned(), Some(text))].into();
    let changed = plane.change(Change { documents, shadow: true, ..Change::default() });
    let Err(ChangeError::Invalid(why)) = changed else { panic!("it is on trial") };
    assert!(why.contains("the group `all` would be told 346"), "{why}");
    assert_eq!(shown(&plane), [0, 0, 0]);
    std::fs::remove_file(&file).unwrap();
}

/// In an etcd it does with whatever nodes say, and to whomever.
#[tokio::test]
async fn that_time_passes_wakes_nobody() {
    let file = file("at");
    let plane = Plane::open(Arc::new(File::open(&file).unwrap()), Keys::default(), None).unwrap();
    changed(&plane, "a", false);
    changed(&plane, "b", true);
    let (mut published, mut trial) = (plane.published(), plane.trial());
    published.borrow_and_update();
    trial.borrow_and_update();
    let mut course = plane.store().course().unwrap();
    let show = |course: &Course| plane.show(&mut plane.shown(), course, None).unwrap();
    course.at += 7;
    show(&course);
    assert!(!published.has_changed().unwrap() && !trial.has_changed().unwrap());
    // And what was heard of before is not taken for news.
    show(&Course { at: 6, shadow: None, ..course.clone() });
    assert!(!trial.has_changed().unwrap());
    show(&Course { at: 8, shadow: None, ..course });
    assert!(!published.has_changed().unwrap() && trial.has_changed().unwrap());
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn what_is_on_trial_is_told_to_nobody_and_stays_until_all_are_told_the_same() {
    let (file, rollout) = (file("trial"), rollout());
    let open = || Plane::open(Arc::new(File::open(&file).unwrap()), Keys::default(), Some(&rollout)).unwrap();
    let plane = open();
    // Before anything is in force, too.
    assert_eq!((changed(&plane, "x", true), shown(&plane)), (1, [0, 0, 1]));
    assert_eq!((changed(&plane, "a", false), shown(&plane)), (2, [2, 0, 1]));
    let mut published = plane.published();
    published.borrow_and_update();
    assert_eq!((changed(&plane, "b", true), shown(&plane)), (3, [2, 0, 3]));
    assert_eq!((changed(&plane, "b", true), shown(&plane)), (3, [2, 0, 3]));
    assert!(!published.has_changed().unwrap());
    // Made on something else, it is another.
    assert_eq!((changed(&plane, "c", false), shown(&plane)), (4, [2, 4, 3]));
    assert_eq!((changed(&plane, "b", true), shown(&plane)), (5, [2, 4, 5]));
    assert_eq!(plane.store().latest().unwrap().unwrap().number, 4);
    plane.take_back(4, "it hangs").unwrap();
    assert_eq!(shown(&plane), [6, 0, 5]);
    let promote = || plane.promote(&Promotion::default());
    assert!(matches!(promote(), Err(ChangeError::Refused(_))));
    let is_there = || plane.trial_status().unwrap().map(|status| status.current);
    assert_eq!(is_there(), Some(false));
    assert_eq!((changed(&plane, "b", true), is_there()), (7, Some(true)));
    assert_eq!((promote().unwrap().revision, shown(&plane)), (8, [6, 8, 7]));
    // It is on its way, and that is all that there is to say.
    let is_led = || plane.trial_status().unwrap().map(|status| (status.current, status.promoted));
    assert_eq!((promote().unwrap().revision, is_led()), (8, Some((false, Some(8)))));
    plane.close().await;
    drop(plane);
    let plane = open();
    assert_eq!(shown(&plane), [6, 8, 7]);
    plane.settle(8).unwrap();
    assert_eq!((shown(&plane), plane.end_shadow("me", false).unwrap()), ([8, 0, 0], None));
    // What was in force when it was written, and says the same, has not promoted it.
    assert_eq!((changed(&plane, "c", false), changed(&plane, "b", true), shown(&plane)), (9, 10, [8, 9, 10]));
    assert_eq!((plane.end_shadow("me", true).unwrap(), shown(&plane)), (Some(10), [8, 9, 10]));
    assert_eq!((plane.end_shadow("me", false).unwrap(), shown(&plane)), (Some(10), [8, 9, 0]));
    std::fs::remove_file(&file).unwrap();
}
