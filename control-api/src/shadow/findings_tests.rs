use super::*;

fn difference(shadow: &str, requests: u64) -> Difference {
    let of = str::to_owned;
    Difference {
        listener: of("web"),
        in_force: of("to a"),
        shadow: of(shadow),
        requests,
        example: of("GET x/"),
    }
}

fn found(revision: u64, evaluated: u64, differences: &[Difference]) -> Found {
    Found { revision, evaluated, differences: differences.to_vec(), ..Found::default() }
}

/// Revision 7 is on trial, and these are told of it.
fn on_trial(nodes: &[&str]) -> Shadows {
    let shadows = Shadows::default();
    for node in nodes {
        assert!(shadows.connect(node, "outrigger 1", Asks::All));
    }
    shadows.begin(7);
    nodes.iter().for_each(|node| shadows.note_told(node, 7));
    shadows
}

fn refused_by(shadows: &Shadows, node: &str) -> Vec<String> {
    shadows.followers().remove(node).unwrap().refused
}

#[test]
fn what_nodes_find_is_added_up_by_way() {
    let shadows = on_trial(&["a", "b"]);
    let first = shadows.note("a", found(7, 10, &[difference("to b", 2), difference("no route", 1)]));
    assert_eq!(first.len(), 2, "{first:?}");
    assert!(shadows.note("a", found(7, 5, &[difference("to b", 3)])).is_empty());
    assert!(shadows.note("b", Found { others: 4, ..found(7, 20, &[difference("to b", 1)]) }).is_empty());
    let findings = shadows.findings();
    let ways: Vec<_> =
        findings.differences.iter().map(|of| (of.shadow.as_str(), of.requests, of.nodes)).collect();
    assert_eq!((findings.revision, findings.evaluated, findings.others), (7, 35, 4));
    assert_eq!(ways, [("no route", 1, 1), ("to b", 6, 2)]);
    // And over control planes.
    let mut sum = findings.clone();
    sum.add(findings);
    assert_eq!(
        (sum.evaluated, sum.others, sum.differences[1].requests, sum.differences[1].nodes),
        (70, 8, 12, 4)
    );
}

#[test]
fn what_is_not_on_trial_for_a_node_is_left_out_of_account() {
    let shadows = on_trial(&["a"]);
    shadows.connect("b", "", Asks::All);
    for (node, revision) in [("a", 6), ("a", 0), ("b", 7), ("c", 7)] {
        assert!(shadows.note(node, found(revision, 10, &[difference("to b", 1)])).is_empty());
    }
    shadows.note("a", found(7, 10, &[]));
    assert_eq!(shadows.findings().evaluated, 10);
    // Another one begins with nothing, and knows who asks.
    shadows.begin(8);
    shadows.note("a", found(7, 10, &[]));
    assert_eq!(shadows.findings(), Findings { revision: 8, ..Findings::default() });
    let agent = "outrigger 1".to_owned();
    let a = Following { agent, on_demand: false, revision: 0, heard: 0, refused: Vec::new() };
    assert_eq!(shadows.followers()["a"], a);
}

#[test]
fn who_goes_is_not_forgotten_with_what_it_said() {
    let shadows = on_trial(&["a"]);
    shadows.note("a", found(7, 1, &[difference("to b", 1)]));
    shadows.disconnect("a");
    assert!(shadows.followers().is_empty());
    shadows.connect("a", "", Asks::All);
    shadows.note_told("a", 7);
    shadows.note("a", found(7, 1, &[difference("to b", 1)]));
    let findings = shadows.findings();
    assert_eq!((findings.differences[0].requests, findings.differences[0].nodes), (2, 1));
}

#[test]
fn whoever_is_told_is_not_heard_by_that() {
    let shadows = on_trial(&["a", "b", "c"]);
    shadows.note("a", found(7, 0, &[]));
    shadows.note("b", Found { refused: vec!["no".to_owned()], ..found(7, 0, &[]) });
    let heard: Vec<_> = shadows.followers().into_values().map(|following| following.heard).collect();
    assert_eq!(heard, [7, 0, 0]);
}

#[test]
fn what_was_found_is_forgotten_when_something_else_is_in_force() {
    let shadows = on_trial(&["a", "b"]);
    shadows.connect("late", "", Asks::All);
    let say = |node| shadows.note(node, Found { others: 1, ..found(7, 10, &[difference("to b", 2)]) }).len();
    assert_eq!((say("a"), say("b")), (1, 0));
    shadows.begin_again();
    assert_eq!(shadows.findings(), Findings { revision: 7, ..Findings::default() });
    let told: Vec<_> = shadows.followers().into_values().map(|following| following.revision).collect();
    assert_eq!(told, [7, 7, 0]);
    // What comes first may be of before, and an event is no news.
    assert_eq!((say("a"), shadows.findings().evaluated), (0, 0));
    assert_eq!(say("a"), 0);
    // Who is told of it only now compares with what is in force now.
    shadows.note_told("late", 7);
    assert_eq!(say("late"), 0);
    let findings = shadows.findings();
    assert_eq!((findings.evaluated, findings.others), (20, 2));
    assert_eq!((findings.differences[0].requests, findings.differences[0].nodes), (4, 2));
}

#[test]
fn that_one_refuses_it_is_told_once() {
    let shadows = on_trial(&["a"]);
    let refused = |lines: &[&str]| Found {
        refused: lines.iter().map(|line| (*line).to_owned()).collect(),
        ..found(7, 0, &[])
    };
    assert_eq!(shadows.note("a", refused(&["no\x1b[2J"])).len(), 1);
    assert!(shadows.note("a", refused(&["no", "never"])).is_empty());
    assert_eq!(refused_by(&shadows, "a"), ["no", "never"]);
    shadows.note("a", refused(&["no\x1b[2J"]));
    assert_eq!(refused_by(&shadows, "a"), ["no [2J"]);
    // A report that says nothing takes nothing back.
    shadows.note("a", found(7, 0, &[]));
    assert_eq!(refused_by(&shadows, "a").len(), 1);
    shadows.note("a", found(7, 1, &[]));
    assert!(refused_by(&shadows, "a").is_empty());
}

#[test]
fn a_node_that_makes_things_up_is_bounded() {
    let shadows = on_trial(&["liar", "a"]);
    let many: Vec<_> = (0..2000).map(|n| difference(&format!("{n:04}{}", "ä".repeat(2000)), 1)).collect();
    let happened =
        shadows.note("liar", Found { refused: vec!["x".repeat(5000); 100], ..found(7, u64::MAX, &many) });
    let refused = refused_by(&shadows, "liar");
    assert!(refused.len() == LINES && refused.iter().all(|line| line.len() <= TEXT));
    shadows.note("liar", found(7, u64::MAX, &many));
    let findings = shadows.findings();
    assert_eq!(
        (findings.differences.len(), findings.others),
        (KINDS_OF_NODE, 2 * (2000 - KINDS_OF_NODE as u64))
    );
    assert!(findings.differences.iter().all(|of| of.shadow.len() <= WORDS));
    assert!(happened.len() <= TOLD + 1 && findings.evaluated == u64::MAX);
    // Others are still heard.
    shadows.note("a", found(7, 1, &[difference("to b", 1)]));
    assert_eq!(shadows.findings().differences.len(), KINDS_OF_NODE + 1);
}

#[test]
fn many_that_refuse_are_shown_and_not_all_told() {
    let nodes: Vec<_> = (0..3 * REFUSALS).map(|n| n.to_string()).collect();
    let shadows = on_trial(&nodes.iter().map(String::as_str).collect::<Vec<_>>());
    let refused = || Found { refused: vec!["no".to_owned(), "never".to_owned()], ..found(7, 0, &[]) };
    let told: Vec<_> = nodes.iter().flat_map(|node| shadows.note(node, refused())).collect();
    assert_eq!(told.len(), REFUSALS);
    let what = OfShadow::Refused { node: "0".to_owned(), why: "no".to_owned() };
    assert_eq!(told[0], Happened::Shadow { revision: 7, what });
    assert!(nodes.iter().all(|node| refused_by(&shadows, node).len() == 2));
    // Of another they are told anew.
    shadows.begin(8);
    shadows.note_told("0", 8);
    assert_eq!(shadows.note("0", Found { revision: 8, ..refused() }).len(), 1);
}

#[test]
fn many_that_make_things_up_are_bounded_too() {
    let nodes: Vec<_> = (0..10).map(|n| n.to_string()).collect();
    let shadows = on_trial(&nodes.iter().map(String::as_str).collect::<Vec<_>>());
    let mut told = 0;
    for node in &nodes {
        let many: Vec<_> = (0..KINDS_OF_NODE).map(|n| difference(&format!("{node} {n}"), 1)).collect();
        told += shadows.note(node, found(7, 100, &many)).len();
    }
    let findings = shadows.findings();
    assert_eq!((findings.differences.len(), findings.others, told), (KINDS, 500, TOLD));
}
