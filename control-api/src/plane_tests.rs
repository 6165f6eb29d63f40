use outrigger_proto::model::Percent;

use super::*;
use crate::store::file::File;

/// Whatever was written in between.
#[tokio::test]
async fn a_candidate_that_says_what_all_are_told_is_told_to_all_when_it_is_taken_back() {
    let file = std::env::temp_dir().join(format!("outrigger-plane-back-{}.redb", std::process::id()));
    let _ = std::fs::remove_file(&file);
    let rollout = Rollout {
        steps: [Percent::whole(50)].into(),
        watch: Rollout::WATCH,
        patience: Rollout::PATIENCE,
        failures: Rollout::FAILURES,
        slowdown: Rollout::SLOWDOWN,
    };
    let plane = Plane::open(Arc::new(File::open(&file).unwrap()), None, Some(&rollout)).unwrap();
    let change = |cluster: &str| {
        let text = format!("clusters: {{ {cluster}: {{ endpoints: [127.0.0.1:1] }} }}\n");
        let documents = [("a.yaml".to_owned(), Some(text))].into();
        plane.change(Change { author: "me".to_owned(), documents, ..Change::default() }).unwrap().revision
    };
    let shown = || {
        let published = plane.published().borrow().clone();
        (published.stable.revision, published.candidate.map(|candidate| candidate.serving.revision))
    };
    assert_eq!((change("a"), shown()), (1, (1, None)));
    assert_eq!((change("b"), shown()), (2, (1, Some(2))));
    assert_eq!((change("a"), shown()), (3, (1, Some(3))));
    plane.take_back(3, "it hangs").unwrap();
    assert_eq!(shown(), (3, None));
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn what_is_noted_before_the_end_is_written() {
    let file = std::env::temp_dir().join(format!("outrigger-plane-{}.redb", std::process::id()));
    let _ = std::fs::remove_file(&file);
    let plane = Plane::open(Arc::new(File::open(&file).unwrap()), None, None).unwrap();
    let note = || plane.note(Happened::NodeDown { node: "a".to_owned() });
    (0..3 * BATCH).for_each(|_| note());
    plane.close().await;
    // It is over, and ends once.
    note();
    plane.close().await;
    assert_eq!(plane.store().last_event().unwrap(), 3 * BATCH as u64);
    std::fs::remove_file(&file).unwrap();
}
