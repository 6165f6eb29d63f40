//! The protocol, message by message.

use outrigger_proto::xds::discovery::Any;

use super::super::state::News;
use super::super::written::{cluster, field, node, set};
use super::*;

fn resource(kind: Kind, name: &str, version: &str, value: Vec<u8>) -> Resource {
    let any = Any { type_url: kind.url(), value };
    Resource { name: name.to_owned(), version: version.to_owned(), resource: Some(any) }
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
    let (said, refused) = delta.take(&mut state, response(Kind::Cluster, "c1", clusters.to_vec(), &[]));
    assert_eq!(shown(&said), ["Cluster nc1 + - ", "ClusterLoadAssignment n +a,b - "]);
    assert!(refused.is_empty());
    delta.take(&mut state, response(Kind::Listener, "l1", Vec::new(), &[]));
    let sets = ["a", "b"].map(|name| resource(Kind::Endpoints, name, "1", set(name, &[80])));
    let (said, _) = delta.take(&mut state, response(Kind::Endpoints, "e1", sets.to_vec(), &[]));
    assert_eq!(shown(&said), ["ClusterLoadAssignment ne1 + - "]);
    let Some(News::All(found)) = state.news(false) else { panic!("all of it is new") };
    assert_eq!(found.clusters.len(), 2);
    // One set of endpoints, and nothing else.
    let one = vec![resource(Kind::Endpoints, "b", "2", set("b", &[80, 81]))];
    delta.take(&mut state, response(Kind::Endpoints, "e2", one, &[]));
    let Some(News::Endpoints(sets)) = state.news(false) else { panic!("endpoints are new") };
    assert_eq!(sets.keys().map(Name::as_str).collect::<Vec<_>>(), ["b"]);
    // One cluster is gone, and with it its endpoints.
    let (said, _) = delta.take(&mut state, response(Kind::Cluster, "c2", Vec::new(), &["a"]));
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
    delta.take(&mut state, response(Kind::Cluster, "c1", good, &[]));
    let mixed = vec![
        resource(Kind::Cluster, "a", "2", cluster("a", &field(8, &[]))),
        resource(Kind::Cluster, "c", "1", cluster("c", &[])),
        resource(Kind::Cluster, "d", "1", cluster("other", &[])),
        // It lives on.
        Resource { name: "a".to_owned(), version: "1".to_owned(), resource: None },
    ];
    let (said, refused) = delta.take(&mut state, response(Kind::Cluster, "c2", mixed, &[]));
    assert_eq!(shown(&said), ["Cluster nc2 + -  refused", "ClusterLoadAssignment n +c - "]);
    let message = &said[0].error_detail.as_ref().unwrap().message;
    assert_eq!(message, "Cluster[a].health_checks: not supported\nCluster[other]: it comes as `d`");
    assert_eq!(refused.len(), 2);
    let again = delta.begin(&node(), &mut state);
    assert_eq!(shown(&again)[0], "Cluster n + - a=1,c=1");
}

#[test]
fn that_there_is_none_is_an_answer() {
    let (mut state, mut delta) = (State::default(), Delta);
    delta.begin(&node(), &mut state);
    delta.take(&mut state, response(Kind::Listener, "l1", Vec::new(), &[]));
    let clusters = ["a", "b"].map(|name| resource(Kind::Cluster, name, "1", cluster(name, &[])));
    delta.take(&mut state, response(Kind::Cluster, "c1", clusters.to_vec(), &[]));
    let one = vec![resource(Kind::Endpoints, "a", "1", set("a", &[80]))];
    delta.take(&mut state, response(Kind::Endpoints, "e1", one, &[]));
    assert_eq!((state.missing().as_str(), state.news(false)), ("ClusterLoadAssignment[b]", None));
    let (said, _) = delta.take(&mut state, response(Kind::Endpoints, "e2", Vec::new(), &["b"]));
    assert_eq!(shown(&said), ["ClusterLoadAssignment ne2 + - "]);
    let Some(News::All(found)) = state.news(false) else { panic!("nothing is waited for") };
    assert_eq!((found.endpoints["a"].endpoints.len(), found.endpoints["b"].endpoints.len()), (1, 0));
    // It is asked for all the same, and comes when it comes.
    let again = delta.begin(&node(), &mut state);
    assert_eq!(shown(&again)[2], "ClusterLoadAssignment n +a,b - a=1");
    let one = vec![resource(Kind::Endpoints, "b", "1", set("b", &[80]))];
    delta.take(&mut state, response(Kind::Endpoints, "e3", one, &[]));
    assert!(matches!(state.news(false), Some(News::Endpoints(_))));
}
