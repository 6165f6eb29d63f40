//! The protocol, message by message.

use std::time::Duration;

use outrigger_proto::xds::discovery::Any;

use super::super::discovered::News;
use super::super::written::{cluster, field, node, set};
use super::*;
use crate::observe::Registry;

fn resource(kind: Kind, name: &str, version: &str, value: Vec<u8>) -> Resource {
    let any = Any { type_url: kind.url(), value };
    Resource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(any),
        ..Resource::default()
    }
}

fn response(kind: Kind, nonce: &str, resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        resources,
        type_url: kind.url(),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        nonce: nonce.to_owned(),
        ..DeltaDiscoveryResponse::default()
    }
}

/// Kind, nonce, what is wanted from now on and no longer, what is there, and whether something is refused.
fn shown(requests: &[DeltaDiscoveryRequest]) -> Vec<String> {
    let show = |request: &DeltaDiscoveryRequest| {
        let kind = Kind::of_url(&request.type_url).unwrap();
        let mut there: Vec<_> = request.initial_resource_versions.iter().collect();
        there.sort();
        let there: Vec<_> = there.into_iter().map(|(name, version)| format!("{name}={version}")).collect();
        let (more, less) = (&request.resource_names_subscribe, &request.resource_names_unsubscribe);
        let refused = if request.error_detail.is_some() { " refused" } else { "" };
        let nonce = &request.response_nonce;
        format!("{kind} n{nonce} +{} -{} {}{refused}", more.join(","), less.join(","), there.join(","))
    };
    requests.iter().map(show).collect()
}

#[test]
fn only_what_changes_is_said() {
    let (mut state, mut delta) = (State::default(), Delta);
    let first = delta.begin(&node(), &mut state);
    assert_eq!(shown(&first), ["Cluster n + - ", "Listener n + - "]);
    assert!(first[0].node.is_some() && first[1].node.is_none());
    let clusters = ["a", "b"].map(|name| resource(Kind::Cluster, name, "1", cluster(name, &[])));
    let (said, refused) =
        delta.take(&mut state, response(Kind::Cluster, "c1", clusters.to_vec(), &[]), Instant::now());
    assert_eq!(shown(&said), ["Cluster nc1 + - ", "ClusterLoadAssignment n +a,b - "]);
    assert!(refused.is_empty());
    delta.take(&mut state, response(Kind::Listener, "l1", Vec::new(), &[]), Instant::now());
    let sets = ["a", "b"].map(|name| resource(Kind::Endpoints, name, "1", set(name, &[80])));
    let (said, _) =
        delta.take(&mut state, response(Kind::Endpoints, "e1", sets.to_vec(), &[]), Instant::now());
    assert_eq!(shown(&said), ["ClusterLoadAssignment ne1 + - "]);
    let Some(News::All(found)) = state.news(false) else { panic!("all of it is new") };
    assert_eq!(found.clusters.len(), 2);
    // One set of endpoints, and nothing else.
    let one = vec![resource(Kind::Endpoints, "b", "2", set("b", &[80, 81]))];
    delta.take(&mut state, response(Kind::Endpoints, "e2", one, &[]), Instant::now());
    let Some(News::Endpoints(sets)) = state.news(false) else { panic!("endpoints are new") };
    assert_eq!(sets.keys().map(Name::as_str).collect::<Vec<_>>(), ["b"]);
    // One cluster is gone, and with it its endpoints.
    let (said, _) = delta.take(&mut state, response(Kind::Cluster, "c2", Vec::new(), &["a"]), Instant::now());
    assert_eq!(shown(&said), ["Cluster nc2 + - ", "ClusterLoadAssignment n + -a "]);
    let Some(News::All(found)) = state.news(false) else { panic!("a cluster is gone") };
    assert_eq!(found.clusters.len(), 1);
    // Another stream says what is there.
    let again = delta.begin(&node(), &mut state);
    assert_eq!(shown(&again), ["Cluster n + - b=1", "Listener n + - ", "ClusterLoadAssignment n +b - b=2"]);
}

#[test]
fn one_that_is_refused_keeps_its_last_good_version() {
    let (mut state, mut delta) = (State::default(), Delta);
    delta.begin(&node(), &mut state);
    let good = vec![resource(Kind::Cluster, "a", "1", cluster("a", &[]))];
    delta.take(&mut state, response(Kind::Cluster, "c1", good, &[]), Instant::now());
    let mixed = vec![
        resource(Kind::Cluster, "a", "2", cluster("a", &field(9, &[]))),
        resource(Kind::Cluster, "c", "1", cluster("c", &[])),
        resource(Kind::Cluster, "d", "1", cluster("other", &[])),
        // It lives on.
        Resource { name: "a".to_owned(), version: "1".to_owned(), ..Resource::default() },
    ];
    let (said, refused) = delta.take(&mut state, response(Kind::Cluster, "c2", mixed, &[]), Instant::now());
    assert_eq!(shown(&said), ["Cluster nc2 + -  refused", "ClusterLoadAssignment n +c - "]);
    let message = &said[0].error_detail.as_ref().unwrap().message;
    assert_eq!(
        message,
        "Cluster[a].max_requests_per_connection: not supported\nCluster[other]: it comes as `d`"
    );
    assert_eq!(refused.len(), 2);
    let again = delta.begin(&node(), &mut state);
    assert_eq!(shown(&again)[0], "Cluster n + - a=1,c=1");
}

#[test]
fn that_there_is_none_is_an_answer() {
    let (mut state, mut delta) = (State::default(), Delta);
    delta.begin(&node(), &mut state);
    delta.take(&mut state, response(Kind::Listener, "l1", Vec::new(), &[]), Instant::now());
    let clusters = ["a", "b"].map(|name| resource(Kind::Cluster, name, "1", cluster(name, &[])));
    delta.take(&mut state, response(Kind::Cluster, "c1", clusters.to_vec(), &[]), Instant::now());
    let one = vec![resource(Kind::Endpoints, "a", "1", set("a", &[80]))];
    delta.take(&mut state, response(Kind::Endpoints, "e1", one, &[]), Instant::now());
    assert_eq!((state.missing().as_str(), state.news(false)), ("ClusterLoadAssignment[b]", None));
    let (said, _) =
        delta.take(&mut state, response(Kind::Endpoints, "e2", Vec::new(), &["b"]), Instant::now());
    assert_eq!(shown(&said), ["ClusterLoadAssignment ne2 + - "]);
    let Some(News::All(found)) = state.news(false) else { panic!("nothing is waited for") };
    assert_eq!((found.endpoints["a"].endpoints.len(), found.endpoints["b"].endpoints.len()), (1, 0));
    // It is asked for all the same, and comes when it comes.
    let again = delta.begin(&node(), &mut state);
    assert_eq!(shown(&again)[2], "ClusterLoadAssignment n +a,b - a=1");
    let one = vec![resource(Kind::Endpoints, "b", "1", set("b", &[80]))];
    delta.take(&mut state, response(Kind::Endpoints, "e3", one, &[]), Instant::now());
    assert!(matches!(state.news(false), Some(News::Endpoints(_))));
}

#[test]
fn what_is_not_said_again_in_its_time_is_gone() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let lives =
        |resource: Resource| Resource { ttl: Some(Duration::from_secs(5).try_into().unwrap()), ..resource };
    let (mut state, mut delta) = (State::default(), Delta);
    delta.begin(&node(), &mut state);
    delta.take(&mut state, response(Kind::Listener, "l1", Vec::new(), &[]), start);
    let clusters = ["a", "b"].map(|name| lives(resource(Kind::Cluster, name, "1", cluster(name, &[]))));
    delta.take(&mut state, response(Kind::Cluster, "c1", clusters.to_vec(), &[]), start);
    let sets = ["a", "b"].map(|name| resource(Kind::Endpoints, name, "1", set(name, &[80])));
    delta.take(&mut state, response(Kind::Endpoints, "e1", sets.to_vec(), &[]), start);
    assert!(matches!(state.news(false), Some(News::All(_))));
    // Only that one lives on; of what is not there nothing can.
    let on = ["b", "c"]
        .map(|name| Resource { resource: None, ..lives(resource(Kind::Cluster, name, "1", Vec::new())) });
    delta.take(&mut state, response(Kind::Cluster, "c2", on.to_vec(), &[]), at(4));
    assert_eq!((state.next_lapse(), state.news(false)), (Some(at(5)), None));
    state.lapse(at(5));
    assert_eq!(shown(&delta.subscribe(&mut state)), ["ClusterLoadAssignment n + -a "]);
    let Some(News::All(found)) = state.news(false) else { panic!("a cluster is gone") };
    assert_eq!(found.clusters.keys().map(Name::as_str).collect::<Vec<_>>(), ["b"]);
    // Said without a time, it lives for ever.
    let for_ever = vec![resource(Kind::Cluster, "b", "1", cluster("b", &[]))];
    delta.take(&mut state, response(Kind::Cluster, "c3", for_ever, &[]), at(6));
    assert_eq!(state.next_lapse(), None);
}

#[test]
fn what_has_no_effect_is_counted_where_it_is_accepted() {
    let registry = Registry::default();
    let (mut state, mut delta) = (State::default().with_stats(registry.process()), Delta);
    delta.begin(&node(), &mut state);
    // 5 is `per_connection_buffer_limit_bytes`, which has none, and 9 `max_requests_per_connection`, which is refused.
    let limit = field(5, &[]);
    let both = [&limit[..], &field(9, &[])].concat();
    let clusters = [("good", &limit), ("bad", &both), ("plain", &Vec::new()), ("also", &limit)];
    let clusters = clusters.map(|(name, more)| resource(Kind::Cluster, name, "1", cluster(name, more)));
    let other = resource(Kind::Cluster, "other", "1", cluster("elsewhere", &limit));
    let all = [&clusters[..], &[other]].concat();
    let (_, refused) = delta.take(&mut state, response(Kind::Cluster, "c1", all, &[]), Instant::now());
    assert_eq!(refused.len(), 2);
    let text = registry.render();
    let counted: Vec<_> = text.lines().filter(|line| line.starts_with("outrigger_xds_ignored_")).collect();
    let field = "envoy.config.cluster.v3.Cluster.per_connection_buffer_limit_bytes";
    assert_eq!(counted, [format!("outrigger_xds_ignored_fields_total{{field=\"{field}\"}} 2")]);
}
