//! The protocol, message by message.

use std::time::Duration;

use super::super::discovered::News;
use super::super::speaks::LONGEST;
use super::super::written::{cluster, field, node, set};
use super::*;

fn response(kind: Kind, version: &str, resources: Vec<Vec<u8>>) -> DiscoveryResponse {
    let resources = resources.into_iter().map(|value| Any { type_url: kind.url(), value });
    DiscoveryResponse {
        version_info: version.to_owned(),
        resources: resources.collect(),
        type_url: kind.url(),
        nonce: format!("{kind}-{version}"),
    }
}

/// Kind, version, nonce, names and whether something is refused, of each request.
fn shown(requests: &[DiscoveryRequest]) -> Vec<String> {
    let show = |request: &DiscoveryRequest| {
        let kind = Kind::of_url(&request.type_url).unwrap();
        let refused = if request.error_detail.is_some() { " refused" } else { "" };
        let (version, nonce) = (&request.version_info, &request.response_nonce);
        format!("{kind} v{version} n{nonce} {}{refused}", request.resource_names.join(","))
    };
    requests.iter().map(show).collect()
}

#[test]
fn a_stream_from_its_beginning() {
    let (mut state, mut sotw) = (State::default(), Sotw::default());
    let first = sotw.begin(&node(), &mut state);
    assert_eq!(shown(&first), ["Cluster v n ", "Listener v n "]);
    assert_eq!((first[0].node.as_ref().unwrap().id.as_str(), first[1].node.is_none()), ("a", true));
    // What refers to endpoints asks for them.
    let (said, refused) =
        sotw.take(&mut state, response(Kind::Cluster, "1", vec![cluster("app", &[])]), Instant::now());
    assert_eq!(
        (shown(&said).as_slice(), refused.len()),
        (&["Cluster v1 nCluster-1 ".to_owned(), "ClusterLoadAssignment v n app".to_owned()][..], 0)
    );
    assert_eq!(state.missing(), "ClusterLoadAssignment[app]");
    assert!(state.news(false).is_none());
    let (said, _) = sotw.take(&mut state, response(Kind::Listener, "1", Vec::new()), Instant::now());
    assert_eq!(shown(&said), ["Listener v1 nListener-1 "]);
    assert!(state.news(false).is_none(), "a cluster without its endpoints is cold");
    let (said, _) =
        sotw.take(&mut state, response(Kind::Endpoints, "1", vec![set("app", &[80])]), Instant::now());
    assert_eq!(shown(&said), ["ClusterLoadAssignment v1 nClusterLoadAssignment-1 app"]);
    let Some(News::All(found)) = state.news(false) else { panic!("all of it is new") };
    assert_eq!((found.clusters.len(), found.endpoints["app"].endpoints.len()), (1, 1));
    assert!(state.news(false).is_none(), "it was told");
    // Endpoints alone: nothing else is touched.
    sotw.take(&mut state, response(Kind::Endpoints, "2", vec![set("app", &[80, 81])]), Instant::now());
    let Some(News::Endpoints(sets)) = state.news(false) else { panic!("endpoints are new") };
    assert_eq!(sets["app"].endpoints.len(), 2);
    // Another stream goes on from there.
    let again = sotw.begin(&node(), &mut state);
    let expected = ["Cluster v1 n ", "Listener v1 n ", "ClusterLoadAssignment v2 n app"];
    assert_eq!(shown(&again), expected);
    assert!(again[0].node.is_some());
}

#[test]
fn one_that_is_refused_keeps_its_last_good_version_and_holds_back_no_other() {
    let (mut state, mut sotw) = (State::default(), Sotw::default());
    sotw.begin(&node(), &mut state);
    sotw.take(&mut state, response(Kind::Listener, "1", Vec::new()), Instant::now());
    sotw.take(
        &mut state,
        response(Kind::Cluster, "1", vec![cluster("a", &[]), cluster("b", &[])]),
        Instant::now(),
    );
    // 9 is `max_requests_per_connection`.
    let bad = cluster("a", &field(9, &[]));
    let (said, refused) =
        sotw.take(&mut state, response(Kind::Cluster, "2", vec![bad, cluster("c", &[])]), Instant::now());
    assert_eq!(shown(&said)[0], "Cluster v1 nCluster-2  refused");
    let detail = said[0].error_detail.as_ref().unwrap();
    assert_eq!(
        (detail.code, detail.message.as_str()),
        (3, "Cluster[a].max_requests_per_connection: not supported")
    );
    assert_eq!(refused.len(), 1);
    // `a` as it was, `b` gone, `c` new.
    assert_eq!(shown(&said)[1], "ClusterLoadAssignment v n a,c");
    assert_eq!(state.missing(), "ClusterLoadAssignment[a], ClusterLoadAssignment[c]");
    // What does not come is waited for, and not for ever.
    let Some(News::All(found)) = state.news(true) else { panic!("it goes on") };
    assert_eq!(found.clusters.len(), 2);
    assert!(found.endpoints["a"].endpoints.is_empty());
}

#[test]
fn what_is_said_of_faults_has_a_bound() {
    let refused: Vec<_> = (0..1000)
        .map(|number| {
            let any =
                Any { type_url: Kind::Cluster.url(), value: cluster(&format!("{number}é"), &field(9, &[])) };
            xds::read(Kind::Cluster, &any).unwrap_err()
        })
        .collect();
    let Status { code: _, message } = why(&refused).unwrap();
    assert!(message.len() <= LONGEST + 4 && message.ends_with("\n..."), "{}", message.len());
}

#[test]
fn what_nobody_asked_for_says_nothing() {
    let (mut state, mut sotw) = (State::default(), Sotw::default());
    sotw.begin(&node(), &mut state);
    let other =
        DiscoveryResponse { type_url: "type.googleapis.com/a.B".to_owned(), ..DiscoveryResponse::default() };
    assert_eq!(sotw.take(&mut state, other, Instant::now()), (Vec::new(), Vec::new()));
}

#[test]
fn what_is_wrapped_lives_as_long_as_is_said() {
    let start = Instant::now();
    let wrapped = |name: &str, value: Option<Vec<u8>>| {
        let resource = value.map(|value| Any { type_url: Kind::Cluster.url(), value });
        let ttl = Some(Duration::from_secs(5).try_into().unwrap());
        let resource = Resource { name: name.to_owned(), resource, ttl, ..Resource::default() };
        Any { type_url: format!("type.googleapis.com{WRAPPED}"), value: resource.encode_to_vec() }
    };
    let answer =
        |resources: Vec<Any>| DiscoveryResponse { resources, ..response(Kind::Cluster, "1", Vec::new()) };
    let clusters = |state: &State| {
        let mut names: Vec<_> = state.versions(Kind::Cluster).into_keys().collect();
        names.sort();
        names.join(",")
    };
    let (mut state, mut sotw) = (State::default(), Sotw::default());
    sotw.begin(&node(), &mut state);
    let all = ["a", "b"].map(|name| wrapped(name, Some(cluster(name, &[]))));
    let (_, refused) = sotw.take(&mut state, answer(all.to_vec()), start);
    assert_eq!((refused.len(), clusters(&state).as_str()), (0, "a,b"));
    // That one lives on says nothing of the others.
    sotw.take(&mut state, answer(vec![wrapped("b", None)]), start + Duration::from_secs(1));
    assert_eq!(
        (clusters(&state).as_str(), state.next_lapse()),
        ("a,b", Some(start + Duration::from_secs(5)))
    );
    state.lapse(start + Duration::from_secs(5));
    assert_eq!(clusters(&state), "b");
    // What is not wrapped rightly is refused.
    let bad = [wrapped("other", Some(cluster("a", &[]))), wrapped("", None)];
    let (_, refused) = sotw.take(&mut state, answer(bad.to_vec()), start);
    let words: Vec<_> = refused.iter().map(ToString::to_string).collect();
    assert_eq!(words, ["Cluster[a]: it comes as `other`", "Cluster: what lives on has no name"]);
}

#[test]
fn what_cannot_come_into_force_is_refused_with_the_version_that_is() {
    let (mut state, mut sotw) = (State::default(), Sotw::default());
    sotw.begin(&node(), &mut state);
    fn refused_of((sotw, state): (&mut Sotw, &mut State), version: &str, resources: Vec<Vec<u8>>) -> String {
        let (mut said, refused) =
            sotw.take(state, response(Kind::Cluster, version, resources), Instant::now());
        let unfit = Refused { name: None, errors: Vec::new() };
        sotw.refuse(&mut said[0], &[refused, vec![unfit]].concat());
        shown(&said)[0].clone()
    }
    // There was none before.
    assert_eq!(
        refused_of((&mut sotw, &mut state), "1", vec![cluster("a", &[])]),
        "Cluster v nCluster-1  refused"
    );
    for version in ["2", "3"] {
        sotw.take(&mut state, response(Kind::Cluster, version, vec![cluster("a", &[])]), Instant::now());
    }
    // It does not read well either: the one in force is still the third.
    let bad = cluster("a", &field(9, &[]));
    assert_eq!(refused_of((&mut sotw, &mut state), "4", vec![bad]), "Cluster v3 nCluster-4  refused");
    assert_eq!(
        refused_of((&mut sotw, &mut state), "5", vec![cluster("a", &[])]),
        "Cluster v3 nCluster-5  refused"
    );
}
