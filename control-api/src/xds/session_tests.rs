use std::collections::{BTreeMap, BTreeSet};

use outrigger_proto::xds::Kind;
use outrigger_proto::xds::discovery::{DeltaDiscoveryRequest, DiscoveryRequest, Status};
use proptest::prelude::*;

use super::session::{Asked, Heard, Session, Told, Verdict, Way};
use crate::serving::View;

type Of<'a> = &'a [(&'a str, &'a str)];

/// A view with one listener, one table, and these clusters and endpoints.
fn view(revision: u64, clusters: Of<'_>, endpoints: Of<'_>, table: &str) -> View {
    let of = [
        (Kind::Cluster, clusters),
        (Kind::Endpoints, endpoints),
        (Kind::Listener, &[("web", "1")]),
        (Kind::Routes, &[("table", table)]),
    ];
    View::of(revision, &of)
}

fn request(kind: Kind, more: &[&str], nonce: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.url(),
        resource_names_subscribe: more.iter().map(|name| (*name).to_owned()).collect(),
        response_nonce: nonce.to_owned(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn hear(session: &mut Session, request: DeltaDiscoveryRequest) -> Option<Heard> {
    session.hear(Asked::delta(request).unwrap())
}

/// Takes what is told next, which is of this kind, and says yes.
#[track_caller]
fn take(session: &mut Session, view: &View, kind: Kind) -> (Vec<String>, Vec<String>) {
    let told = session.tell(view).expect("something is told");
    assert_eq!(told.kind, kind);
    let heard = hear(session, request(kind, &[], &told.nonce)).unwrap();
    assert_eq!(heard, Heard { kind, revision: view.revision, verdict: Verdict::Ack });
    names(told)
}

fn names(told: Told) -> (Vec<String>, Vec<String>) {
    (told.put.into_iter().map(|(name, _)| name.to_string()).collect(), told.gone)
}

/// A node that has all of this view.
fn settled(view: &View) -> Session {
    let mut session = Session::new(Way::Delta);
    for kind in [Kind::Cluster, Kind::Listener] {
        hear(&mut session, request(kind, &[], ""));
    }
    let endpoints: Vec<_> = view.kind(Kind::Endpoints).all().map(|(name, _)| name.as_str()).collect();
    hear(&mut session, request(Kind::Endpoints, &endpoints, ""));
    hear(&mut session, request(Kind::Routes, &["table"], ""));
    while let Some(told) = session.tell(view) {
        hear(&mut session, request(told.kind, &[], &told.nonce));
    }
    assert!(session.is_settled(view));
    session
}

#[test]
fn each_kind_waits_for_the_answer_to_those_before_it() {
    let view = view(1, &[("a", "1"), ("b", "1")], &[("a", "1"), ("b", "1")], "1");
    let mut session = Session::new(Way::Delta);
    hear(&mut session, request(Kind::Listener, &[], ""));
    hear(&mut session, request(Kind::Cluster, &[], ""));
    let told = session.tell(&view).unwrap();
    assert_eq!((told.kind, told.put.len()), (Kind::Cluster, 2));
    assert_eq!(session.tell(&view), None);
    hear(&mut session, request(Kind::Endpoints, &["a", "b"], ""));
    // Endpoints need not wait: Envoy answers for clusters only when it has them.
    assert_eq!(take(&mut session, &view, Kind::Endpoints).0, ["a", "b"]);
    assert_eq!(session.tell(&view), None);
    hear(&mut session, request(Kind::Cluster, &[], &told.nonce));
    assert_eq!(take(&mut session, &view, Kind::Listener).0, ["web"]);
    assert!(session.is_settled(&view));
    assert_eq!(session.tell(&view), None);
}

#[test]
fn a_change_is_told_alone_and_what_is_gone_at_last() {
    let before = view(1, &[("a", "1"), ("b", "1")], &[("a", "1"), ("b", "1")], "to a");
    let mut session = settled(&before);
    let after = view(2, &[("b", "1"), ("c", "1")], &[("b", "2"), ("c", "1")], "to b");
    assert_eq!(take(&mut session, &after, Kind::Cluster), (vec!["c".into()], vec![]));
    // As a client does: whose cluster it has, it wants to hear of.
    hear(&mut session, request(Kind::Endpoints, &["c"], ""));
    assert_eq!(take(&mut session, &after, Kind::Endpoints), (vec!["b".into(), "c".into()], vec![]));
    assert_eq!(take(&mut session, &after, Kind::Routes).0, ["table"]);
    assert_eq!(take(&mut session, &after, Kind::Cluster), (vec![], vec!["a".into()]));
    assert_eq!(take(&mut session, &after, Kind::Endpoints), (vec![], vec!["a".into()]));
    assert_eq!(session.tell(&after), None);
}

#[test]
fn what_was_refused_is_not_told_again_until_it_is_another() {
    let before = view(1, &[("a", "1")], &[("a", "1")], "1");
    let mut session = settled(&before);
    let bad = view(2, &[("a", "bad")], &[("a", "2")], "1");
    let told = session.tell(&bad).unwrap();
    let mut refusal = request(Kind::Cluster, &[], &told.nonce);
    refusal.error_detail = Some(Status { message: "Cluster[a].x: no".to_owned(), ..Status::default() });
    let verdict = Verdict::Nack("Cluster[a].x: no".to_owned());
    assert_eq!(hear(&mut session, refusal), Some(Heard { kind: Kind::Cluster, revision: 2, verdict }));
    // The others go on.
    assert_eq!(take(&mut session, &bad, Kind::Endpoints).0, ["a"]);
    assert_eq!(session.tell(&bad), None);
    assert_eq!(take(&mut session, &view(3, &[("a", "1")], &[("a", "2")], "1"), Kind::Cluster).0, ["a"]);
}

#[test]
fn what_is_too_much_for_one_answer_comes_in_several_that_count_as_one() {
    let view = view(3, &[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"), ("e", "1")], &[], "1");
    let refuse = |told: &Told| {
        let error_detail = Some(Status { message: "no".to_owned(), ..Status::default() });
        DeltaDiscoveryRequest { error_detail, ..request(Kind::Cluster, &[], &told.nonce) }
    };
    for refuses in [false, true] {
        let mut session = Session::new(Way::Delta);
        for kind in [Kind::Cluster, Kind::Listener] {
            hear(&mut session, request(kind, &[], ""));
        }
        for said in [["a", "b"], ["c", "d"]] {
            let told = session.tell(&view).unwrap();
            assert_eq!(session.tell(&view), None, "nothing else is told within them");
            let is_bad = refuses && said[0] == "a";
            let answer = if is_bad { refuse(&told) } else { request(Kind::Cluster, &[], &told.nonce) };
            assert_eq!(hear(&mut session, answer).is_some(), is_bad, "half of them is no revision");
            assert_eq!(names(told), (said.map(str::to_owned).into(), vec![]));
        }
        let told = session.tell(&view).unwrap();
        let heard = hear(&mut session, request(Kind::Cluster, &[], &told.nonce));
        let whole = Heard { kind: Kind::Cluster, revision: 3, verdict: Verdict::Ack };
        assert_eq!(heard, (!refuses).then_some(whole), "what was refused before is not in force by it");
        assert_eq!(names(told), (vec!["e".to_owned()], vec![]));
        assert_eq!(take(&mut session, &view, Kind::Listener).0, ["web"]);
    }
}

#[test]
fn what_was_begun_is_ended_where_the_rest_of_it_is_no_more() {
    let mut session = settled(&view(1, &[("a", "1")], &[], "1"));
    let larger = view(2, &[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")], &[], "1");
    let told = session.tell(&larger).unwrap();
    assert_eq!(hear(&mut session, request(Kind::Cluster, &[], &told.nonce)), None);
    assert_eq!(names(told), (vec!["b".into(), "c".into()], vec![]));
    let smaller = view(3, &[("a", "1"), ("b", "1"), ("c", "1")], &[], "1");
    assert_eq!(take(&mut session, &smaller, Kind::Cluster), (vec![], vec![]));
    assert_eq!(session.tell(&smaller), None);
}

#[test]
fn whoever_comes_back_is_told_what_differs() {
    let view = view(7, &[("a", "1"), ("b", "2")], &[], "1");
    let mut session = Session::new(Way::Delta);
    let has = BTreeMap::from([("a".into(), "1".into()), ("b".into(), "1".into()), ("x".into(), "1".into())]);
    hear(
        &mut session,
        DeltaDiscoveryRequest { initial_resource_versions: has, ..request(Kind::Cluster, &[], "") },
    );
    assert_eq!(take(&mut session, &view, Kind::Cluster), (vec!["b".into()], vec!["x".into()]));
    assert_eq!(session.tell(&view), None);
}

#[test]
fn who_asks_for_what_is_not_there_is_told_so_and_told_when_it_comes() {
    let mut session = Session::new(Way::Delta);
    hear(&mut session, request(Kind::Endpoints, &["a"], ""));
    assert_eq!(take(&mut session, &view(1, &[], &[], "1"), Kind::Endpoints), (vec![], vec!["a".into()]));
    let there = view(2, &[], &[("a", "1")], "1");
    assert_eq!(take(&mut session, &there, Kind::Endpoints), (vec!["a".into()], vec![]));
    let mut fewer = request(Kind::Endpoints, &[], "");
    fewer.resource_names_unsubscribe = vec!["a".to_owned()];
    hear(&mut session, fewer);
    assert_eq!(session.tell(&view(3, &[], &[("a", "2")], "1")), None);
}

fn state(kind: Kind, names: &[&str], nonce: &str) -> Asked {
    let resource_names = names.iter().map(|name| (*name).to_owned()).collect();
    let request = DiscoveryRequest {
        type_url: kind.url(),
        resource_names,
        response_nonce: nonce.to_owned(),
        ..Default::default()
    };
    Asked::sotw(request).unwrap()
}

#[test]
fn by_the_state_of_the_world_what_is_gone_is_still_said_while_something_leads_there() {
    let before = view(1, &[("a", "1")], &[], "to a");
    let mut session = Session::new(Way::Sotw);
    session.hear(state(Kind::Cluster, &[], ""));
    session.hear(state(Kind::Routes, &["table"], ""));
    while let Some(told) = session.tell(&before) {
        let names: &[&str] = if told.kind == Kind::Routes { &["table"] } else { &[] };
        session.hear(state(told.kind, names, &told.nonce));
    }
    let after = view(2, &[("b", "1")], &[], "to b");
    let told = session.tell(&after).unwrap();
    session.hear(state(Kind::Cluster, &[], &told.nonce));
    assert_eq!(names(told).0, ["b", "a"]);
    let told = session.tell(&after).unwrap();
    // Of an answer before: nothing is heard of it.
    assert_eq!(session.hear(state(Kind::Routes, &["table"], "0")), None);
    assert_eq!(session.tell(&after), None);
    session.hear(state(Kind::Routes, &["table"], &told.nonce));
    let told = session.tell(&after).unwrap();
    session.hear(state(Kind::Cluster, &[], &told.nonce));
    assert_eq!(names(told).0, ["b"]);
    assert_eq!(session.tell(&after), None);
}

#[test]
fn by_the_state_of_the_world_more_is_asked_for_with_the_nonce_of_the_last_answer() {
    let view = view(1, &[], &[("a", "1"), ("b", "1")], "1");
    let mut session = Session::new(Way::Sotw);
    session.hear(state(Kind::Endpoints, &["a"], ""));
    let told = session.tell(&view).unwrap();
    let nonce = told.nonce.clone();
    assert_eq!(names(told).0, ["a"]);
    assert!(session.hear(state(Kind::Endpoints, &["a"], &nonce)).is_some());
    assert_eq!(session.tell(&view), None);
    assert_eq!(session.hear(state(Kind::Endpoints, &["a", "b"], &nonce)), None);
    assert_eq!(names(session.tell(&view).unwrap()).0, ["b"]);
}

#[test]
fn what_a_refused_table_leads_to_stays() {
    let before = view(1, &[("a", "1")], &[("a", "1")], "to a");
    let mut session = settled(&before);
    let after = view(2, &[], &[], "to nowhere");
    let told = session.tell(&after).unwrap();
    let refusal = DeltaDiscoveryRequest {
        error_detail: Some(Status::default()),
        ..request(Kind::Routes, &[], &told.nonce)
    };
    assert!(matches!(hear(&mut session, refusal).unwrap().verdict, Verdict::Nack(_)));
    assert_eq!(session.tell(&after), None);
    // One that it takes lets go of it.
    let better = view(3, &[], &[], "to nobody");
    assert_eq!(take(&mut session, &better, Kind::Routes).0, ["table"]);
    assert_eq!(take(&mut session, &better, Kind::Cluster), (vec![], vec!["a".into()]));
}

#[test]
fn endpoints_of_a_cluster_that_is_another_are_told_again() {
    let mut session = settled(&view(1, &[("a", "1"), ("b", "1")], &[("a", "1"), ("b", "1")], "1"));
    let after = view(2, &[("a", "2"), ("b", "1")], &[("a", "1"), ("b", "1")], "1");
    assert_eq!(take(&mut session, &after, Kind::Cluster).0, ["a"]);
    assert_eq!(take(&mut session, &after, Kind::Endpoints).0, ["a"]);
    assert_eq!(session.tell(&after), None);
}

/// What a client has, who does as he is told: clusters, their endpoints, and where the table leads.
#[derive(Debug)]
struct Client {
    way: Way,
    clusters: BTreeMap<String, String>,
    endpoints: BTreeMap<String, String>,
    leads: BTreeSet<String>,
    /// Of the last answer with endpoints.
    nonce: String,
}

impl Client {
    fn new(way: Way) -> Self {
        let (clusters, endpoints, leads, nonce) = Default::default();
        Self { way, clusters, endpoints, leads, nonce }
    }

    /// What he asks at first.
    fn begin(&self) -> Vec<Asked> {
        let of = [(Kind::Cluster, &[][..]), (Kind::Listener, &[]), (Kind::Routes, &["table"])];
        let ask = |(kind, names): (Kind, &[&str])| match self.way {
            Way::Delta => Asked::delta(request(kind, names, "")).unwrap(),
            Way::Sotw => state(kind, names, ""),
        };
        of.into_iter().map(ask).collect()
    }

    fn take(&mut self, told: &Told) {
        // By the state of the world nobody hears what is gone, but for what is not among all there are.
        let gone = |name: &String| self.way == Way::Delta && told.gone.contains(name);
        let put = told.put.iter().map(|(name, item)| (name.to_string(), item.version.to_string()));
        match told.kind {
            Kind::Cluster if self.way == Way::Sotw => self.clusters = put.collect(),
            Kind::Cluster => {
                self.clusters.extend(put);
                self.clusters.retain(|name, _| !gone(name));
            }
            Kind::Endpoints => {
                self.endpoints.extend(put);
                self.endpoints.retain(|name, _| !gone(name));
                self.nonce.clone_from(&told.nonce);
            }
            Kind::Routes => {
                for (_, version) in put {
                    self.leads =
                        version.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
                }
            }
            Kind::Listener | Kind::Host | Kind::Secret => {}
        }
    }

    /// Says yes. Of whose clusters he has heard, he wants the endpoints, and of those that are gone no longer.
    fn answer(&mut self, told: &Told) -> Vec<Asked> {
        let mut asked = Vec::new();
        if told.kind == Kind::Cluster {
            asked.push(match self.way {
                Way::Delta => {
                    let more = told.put.iter().map(|(name, _)| name.to_string());
                    let request = DeltaDiscoveryRequest {
                        resource_names_subscribe: more
                            .filter(|name| !self.endpoints.contains_key(name))
                            .collect(),
                        resource_names_unsubscribe: told.gone.clone(),
                        ..request(Kind::Endpoints, &[], "")
                    };
                    self.endpoints.retain(|name, _| !told.gone.contains(name));
                    Asked::delta(request).unwrap()
                }
                Way::Sotw => {
                    self.endpoints.retain(|name, _| self.clusters.contains_key(name));
                    self.wants(Kind::Endpoints, &self.nonce)
                }
            });
        }
        asked.push(match self.way {
            Way::Delta => Asked::delta(request(told.kind, &[], &told.nonce)).unwrap(),
            Way::Sotw => self.wants(told.kind, &told.nonce),
        });
        asked
    }

    /// All that he wants of a kind, as it is said each time by the state of the world.
    fn wants(&self, kind: Kind, nonce: &str) -> Asked {
        let clusters: Vec<_> = self.clusters.keys().map(String::as_str).collect();
        let names: &[&str] = match kind {
            Kind::Endpoints => &clusters,
            Kind::Routes => &["table"],
            Kind::Cluster | Kind::Listener | Kind::Host | Kind::Secret => &[],
        };
        state(kind, names, nonce)
    }

    /// No request meets a cluster that is not there, or one without its endpoints.
    fn assert_warm(&self) {
        for name in &self.leads {
            assert!(
                self.clusters.contains_key(name) && self.endpoints.contains_key(name),
                "{name} is cold: {self:?}"
            );
        }
    }
}

/// Clusters with versions, of which those with an even version are led to.
fn random_view(revision: u64, clusters: &BTreeMap<u8, u8>) -> View {
    let named: Vec<_> =
        clusters.iter().map(|(name, version)| (format!("c{name}"), version.to_string())).collect();
    let of: Vec<_> = named.iter().map(|(name, version)| (name.as_str(), version.as_str())).collect();
    let leads: Vec<_> =
        clusters.iter().filter(|(_, v)| *v % 2 == 0).map(|(name, _)| format!("c{name}")).collect();
    view(revision, &of, &of, &leads.join(","))
}

/// Tells a client these views, a few steps of each, and all of the last.
fn tell_all(way: Way, views: &[(BTreeMap<u8, u8>, u8)]) {
    let (mut session, mut client) = (Session::new(way), Client::new(way));
    for asked in client.begin() {
        session.hear(asked);
    }
    let mut unanswered: Vec<Told> = Vec::new();
    let all =
        views.iter().zip(1..).map(|((clusters, steps), revision)| (random_view(revision, clusters), *steps));
    let all: Vec<_> = all.collect();
    for (at, (view, steps)) in all.iter().enumerate() {
        let last = at + 1 == all.len();
        let mut left = if last { u8::MAX } else { *steps };
        while left > 0 {
            left -= 1;
            if let Some(told) = session.tell(view) {
                client.take(&told);
                client.assert_warm();
                unanswered.push(told);
                continue;
            }
            let Some(told) = unanswered.pop() else { break };
            for asked in client.answer(&told) {
                session.hear(asked);
            }
            client.assert_warm();
        }
    }
    let (last, _) = &all[all.len() - 1];
    assert!(session.is_settled(last));
    let expected: BTreeMap<_, _> = last
        .kind(Kind::Cluster)
        .all()
        .map(|(name, item)| (name.to_string(), item.version.to_string()))
        .collect();
    assert_eq!((&client.clusters, &client.endpoints), (&expected, &expected));
}

fn views() -> impl Strategy<Value = Vec<(BTreeMap<u8, u8>, u8)>> {
    proptest::collection::vec((proptest::collection::btree_map(0..5_u8, 0..4_u8, 0..5), 0..6_u8), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_in_between_nothing_is_cold_and_all_arrives(views in views()) {
        tell_all(Way::Delta, &views);
    }

    #[test]
    fn by_the_state_of_the_world_nothing_is_cold_either_and_all_arrives(views in views()) {
        tell_all(Way::Sotw, &views);
    }
}
