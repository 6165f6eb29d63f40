use std::collections::BTreeSet;
use std::time::Duration;

use outrigger_proto::model::{Config, Mesh};
use outrigger_proto::xds::shadow::Shadow;
use outrigger_proto::xds::{self, ListenerResource, Resource, RouteSource};
use outrigger_proto::yaml;

use super::*;
use crate::facts::ReqHead;
use crate::shadow::{Bench, Fate, Found, Held, Placed};

const NOW: &str = "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes: [{ to: app }]\nclusters:\n  app: { endpoints: [\"127.0.0.1:1\"] }\n";

fn mesh(text: &str) -> Mesh {
    let env = |_: &str| None;
    let source = yaml::Source { name: "next.yaml", text, base: std::path::Path::new(""), env: &env };
    let yaml::Parsed { config: Config { mesh, endpoints: _ }, warnings: _ } = yaml::parse(&source).unwrap();
    mesh
}

fn trials() -> Trials {
    Trials { threads: Weak::new(), registry: Registry::default(), state: RefCell::default() }
}

/// The listeners and tables of a file, as a control plane says them.
fn shadow(revision: u64, text: &str) -> Shadow {
    let mesh = mesh(text);
    let listener = |(name, listener): (&Name, &outrigger_proto::model::Listener)| {
        let routes = [RouteSource::Rds(name.clone())].into();
        let resource = ListenerResource { listener: listener.clone(), routes };
        xds::write(name, &Resource::Listener(Box::new(resource))).unwrap()
    };
    Shadow {
        revision,
        listeners: mesh.listeners.iter().map(listener).collect(),
        routes: mesh
            .route_tables
            .iter()
            .map(|(name, table)| xds::write(name, &Resource::Routes(table.clone())).unwrap())
            .collect(),
        interval: None,
    }
}

/// What a worker would find: one request that fares the same, and one that does not.
fn find(trials: &Trials) {
    let state = trials.state.borrow();
    let Running { trial, common, .. } = state.running.as_ref().unwrap();
    let bench = Bench::new(trial.clone(), common.clone());
    let held = Held { by: (1, 1), listener: Some(0), place: Placed::Nowhere, fitting: None };
    for (in_force, would) in [(Fate::NoRoute, Fate::NoRoute), (Fate::NoRoute, Fate::Closed)] {
        bench.note(&held, (&in_force, &would), "/", || "GET a.test/".to_owned());
    }
    bench.hand_over();
}

#[test]
fn a_control_plane_is_told_what_is_found_once() {
    let trials = trials();
    assert_eq!(trials.hear(&shadow(7, NOW)), Some(Duration::from_secs(1)));
    find(&trials);
    let found = trials.report().unwrap();
    assert_eq!((found.node, found.revision, found.evaluated, found.others), (None, 7, 2, 0));
    let difference = &found.differences[0];
    let words = [&difference.listener, &difference.in_force, &difference.shadow, &difference.example];
    assert_eq!(words, ["web", "no route", "closed: no chain takes it", "GET a.test/"]);
    assert_eq!((difference.requests, found.refused.len()), (1, 0));
    // That it is held up is told where nothing has come.
    let found = trials.report().unwrap();
    assert_eq!((found.revision, found.evaluated, found.differences.len()), (7, 0, 0));
    // What is said again goes on, as after a stream has broken off.
    find(&trials);
    trials.hear(&shadow(7, NOW));
    find(&trials);
    assert_eq!(trials.report().unwrap().evaluated, 4);
    let metric = "outrigger_shadow_requests_total{differs=\"true\",listener=\"web\"} 3";
    assert!(trials.registry.render().contains(metric), "{}", trials.registry.render());
    assert_eq!(trials.show()["evaluated"], 6);
    // Another begins anew, and revision 0 ends it.
    trials.hear(&shadow(8, NOW));
    assert_eq!(trials.show()["evaluated"], 0);
    assert_eq!(trials.hear(&Shadow::default()), None);
    assert!(trials.report().is_none());
    assert_eq!(trials.show()["listeners"], json!([]));
}

#[test]
fn what_would_be_refused_is_told_once_and_nothing_is_held_up() {
    let trials = trials();
    trials.hear(&shadow(7, NOW));
    let mut bad = shadow(8, NOW);
    bad.listeners[0].value.extend([0xfa, 0x07, 0x00]);
    let twice = bad.routes[0].clone();
    bad.routes.push(twice);
    assert!(trials.hear(&bad).is_some() && !trials.is_running());
    let found = trials.report().unwrap();
    assert_eq!((found.revision, found.evaluated), (8, 0));
    assert!(found.refused[0].starts_with("Listener[web]"), "{:?}", found.refused);
    assert_eq!(found.refused[1], "RouteConfiguration[web]: it is there twice");
    assert!(trials.report().is_none());
    assert_eq!(trials.show()["refused"], json!(found.refused));
    // A new stream hears of it again.
    trials.hear(&bad);
    assert!(trials.report().is_some());
    let mut alone = shadow(9, NOW);
    alone.routes.clear();
    trials.hear(&alone);
    let refused = trials.report().unwrap().refused;
    assert_eq!(refused, ["listeners.web: the route table `web` is not there"]);
    trials.hear(&shadow(10, NOW));
    assert_eq!(trials.show()["refused"], Value::Null);
}

#[test]
fn a_file_begins_again_where_what_is_in_force_has_changed() {
    let trials = trials();
    let of = || Of::File("next.yaml".to_owned());
    trials.begin(of(), Said::by_file(&mesh(NOW)));
    find(&trials);
    // It was read again, and says the same.
    trials.begin(of(), Said::by_file(&mesh(NOW)));
    assert_eq!(
        (trials.show()["evaluated"].clone(), trials.show()["source"].clone()),
        (json!(2), json!("next.yaml"))
    );
    assert!(trials.report().is_none(), "no control plane has asked");
    trials.begin_again();
    assert_eq!((trials.show()["evaluated"].clone(), trials.is_running()), (json!(0), true));
    trials.refuse(of(), vec!["next.yaml:1:1: what is this?".to_owned()]);
    assert!(!trials.is_running() && trials.report().is_none());
}

#[test]
fn what_the_file_says_itself_is_not_on_trial() {
    let trials = trials();
    let names = || trials.show()["listeners"].clone();
    trials.set_own(&mesh(NOW));
    let both =
        NOW.replace("clusters:", "  other: { bind: \"127.0.0.1:0\", routes: [{ to: app }] }\nclusters:");
    trials.hear(&shadow(7, &both));
    assert_eq!(names(), json!(["other"]));
    trials.set_own(&Mesh::default());
    trials.begin_again();
    assert_eq!(names(), json!(["other", "web"]));
    // A file on trial is held up whole.
    trials.set_own(&mesh(NOW));
    trials.begin(Of::File("next.yaml".to_owned()), Said::by_file(&mesh(NOW)));
    assert_eq!(names(), json!(["web"]));
}

#[test]
fn a_table_that_the_file_has_is_the_one_that_would_be_asked() {
    let said = Said::by_file(&mesh(NOW));
    let own =
        Own { listeners: BTreeSet::new(), tables: [(Name::new("web").unwrap(), Arc::default())].into() };
    let found = |own: Option<&Own>| {
        let (method, headers) = (http::Method::GET, http::HeaderMap::new());
        let head = ReqHead { host: "a.test", path: "/", query: None, method: &method, headers: &headers };
        said.trial(1, own).unwrap().at(0).chain(0).find(&head)
    };
    assert!(matches!(found(None), Found::Route(0)) && matches!(found(Some(&own)), Found::None));
}
