//! Documents of a directory, and proxies that serve what they say.

use outrigger_tests::{Control, Echo, until};

use super::{answered_by, port, proxy, web};

#[tokio::test]
async fn a_directory_drives_proxies_and_what_is_wrong_in_it_changes_nothing() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let control = Control::start("", &[("web.yaml", &web(&[port(&one)]))]);
    let (first, second) = (proxy(&control, "a").await, proxy(&control, "b").await);
    answered_by(&first, "one").await;
    answered_by(&second, "one").await;
    control.wait_in_sync(2, 1).await;
    // Endpoints alone: nothing else is touched.
    let version = first.version().await;
    control.document("web.yaml", &web(&[port(&two)]));
    answered_by(&first, "two").await;
    answered_by(&second, "two").await;
    assert_eq!(first.version().await, version);
    control.wait_in_sync(2, 2).await;
    // A mistake is named with its place, and refused as a whole.
    control.document("web.yaml", &web(&[port(&one)]).replace("to: app", "to: ap"));
    control
        .process()
        .wait_log("web.yaml:2:44: listeners.web.routes[0].to: there is no cluster `ap`; did you mean `app`?")
        .await;
    let refused = until("the event", async || control.events("revision.refused.v1").pop()).await;
    assert!(refused["data"]["why"].as_str().unwrap().contains("did you mean `app`?"), "{refused}");
    control.wait_in_sync(2, 2).await;
    answered_by(&first, "two").await;
    // And the next good one is taken.
    control.document("web.yaml", &web(&[port(&one)]));
    answered_by(&first, "one").await;
    control.wait_in_sync(2, 3).await;
}

#[tokio::test]
async fn groups_tell_nodes_apart_and_who_is_of_none_is_told_nothing() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let second = web(&[port(&two)]).replace("web:", "other:").replace("app", "rest");
    let groups = "proxies:\n  front: { select: { id: \"front-*\" }, listeners: [web] }\n  back: { select: { id: back }, listeners: [other] }\n";
    let control = Control::start(
        "",
        &[("web.yaml", &web(&[port(&one)])), ("other.yaml", &second), ("groups.yaml", groups)],
    );
    let front = proxy(&control, "front-1").await;
    let back = proxy(&control, "back").await;
    answered_by(&front, "one").await;
    assert_eq!(back.get("other", "/").await.status, 200);
    for (proxy, other) in [(&front, "other"), (&back, "web")] {
        assert!(!proxy.log().contains(&format!("listener={other} ")), "{}", proxy.log());
    }
    let nobody = proxy(&control, "nobody").await;
    control.process().wait_log("no group takes this node").await;
    assert!(!nobody.log().contains("listening listener="));
    // A group that comes to take it does so at once.
    control.document(
        "groups.yaml",
        &format!("{groups}  rest: {{ select: {{ id: nobody }}, listeners: [web] }}\n"),
    );
    answered_by(&nobody, "one").await;
}

#[tokio::test]
async fn proxies_serve_on_while_it_is_away_and_it_goes_on_where_it_was() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let control = Control::start("", &[("web.yaml", &web(&[port(&one)]))]);
    let address = control.xds().to_string();
    let proxy = proxy(&control, "a").await;
    answered_by(&proxy, "one").await;
    control.wait_in_sync(1, 1).await;
    let version = proxy.version().await;
    control.process().kill();
    answered_by(&proxy, "one").await;
    // What changed meanwhile is taken over; what did not is not told again.
    let dir = control.dir().clone();
    let control = Control::start_in(dir, &address, "");
    control.wait_in_sync(1, 1).await;
    assert_eq!(proxy.version().await, version);
    control.document("web.yaml", &web(&[port(&two)]));
    answered_by(&proxy, "two").await;
    control.wait_in_sync(1, 2).await;
}

#[tokio::test]
async fn who_is_connected_and_what_each_has_taken_is_shown() {
    let one = Echo::start("one").await;
    let control = Control::start("", &[("web.yaml", &web(&[port(&one)]))]);
    let proxy = proxy(&control, "a").await;
    answered_by(&proxy, "one").await;
    control.wait_in_sync(1, 1).await;
    let status = control.status();
    let node = &status["nodes"][0];
    assert_eq!((&node["id"], &node["cluster"], &node["group"]), (&"a".into(), &"web".into(), &"all".into()));
    assert_eq!(node["way"], "delta");
    for kind in ["Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration"] {
        assert_eq!(node["kinds"][kind]["acked"], 1, "{status:#}");
    }
    drop(proxy);
    until("it is gone", async || control.events("node.down.v1").pop()).await;
    assert_eq!(control.status()["nodes"].as_array().unwrap().len(), 0);
}

/// It reads well, and another process has the port.
#[tokio::test]
async fn what_cannot_come_into_force_is_refused_and_holds_back_nothing_else() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let control =
        Control::start("rollout: { steps: [50%], watch: 200ms }", &[("web.yaml", &web(&[port(&one)]))]);
    let proxy = proxy(&control, "a").await;
    answered_by(&proxy, "one").await;
    control.wait_in_sync(1, 1).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let other = format!("listeners:\n  other: {{ bind: \"{address}\", routes: [{{ to: app }}] }}\n");
    control.document("other.yaml", &other);
    let back = until("it is taken back", async || control.events("rollout.back.v1").pop()).await;
    let why = back["data"]["why"].as_str().unwrap();
    let expected =
        format!("Listener[other]: cannot listen on {address}: Address already in use (os error 98)");
    assert!(why.contains(&expected), "{why}");
    control.wait_in_sync(1, 3).await;
    // Without a rollout it stays, and so does what is beside it; the port is taken when it is free.
    drop(control);
    let control = Control::start("", &[("web.yaml", &web(&[port(&one)])), ("other.yaml", &other)]);
    let proxy = super::proxy(&control, "a").await;
    answered_by(&proxy, "one").await;
    until("it is refused", async || control.events("node.nack.v1").pop()).await;
    control.document("web.yaml", &web(&[port(&two)]).replace("to: app", "to: app, timeout: 9s"));
    answered_by(&proxy, "two").await;
    drop(taken);
    proxy.wait_log(&format!("listening listener=other address={address}")).await;
    assert_eq!(proxy.get("other", "/").await.status, 200);
}
