//! A control plane that means harm: what it may not name, and that it neither wears a proxy out nor confuses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use outrigger_tests::{Client, Dir, Echo, Origin, Proxy, until};
use serde_json::{Value, json};

use super::super::Running;
use super::{
    Way, answered_by, asked, cluster, control, endpoints, file, kib, python_with_messages, routes, state, to,
};

fn pipe(name: &str, path: &std::path::Path) -> Value {
    let address = json!({ "address": { "pipe": { "path": path } } });
    json!({ "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": address }] }] })
}

/// The last thing that was said of this kind when something was refused.
async fn refusal(control: &mut Running, kind: &str) -> String {
    loop {
        let asked = asked(control, kind).await;
        if asked["error"] != "" {
            return asked["error"].as_str().unwrap().to_owned();
        }
    }
}

async fn names_nothing_of_this_machine(way: Way) {
    let Some(python) = python_with_messages().await else { return };
    let one = Echo::start("one").await;
    let dir = Arc::new(Dir::new());
    let socket = dir.file("app.sock");
    let _behind = Origin::start_unix(&socket, async |mut conn| {
        while conn.request().await.is_some() {
            conn.send(outrigger_tests::origin::ok("secret")).await;
        }
    });
    let victim = dir.write("victim.txt", "somebody's");
    let good = |version: &str| state(version, &[one.address().port()]);
    let (mut plane, port) = control(&python, way, 0, &good("1")).await;
    let proxy = Proxy::start(&file(port)).await;
    answered_by(&proxy, "one").await;
    let mut evil = good("2");
    let mut listener = evil["Listener"][0].clone();
    listener["name"] = "evil".into();
    listener["address"] = json!({ "pipe": { "path": victim } });
    evil["Listener"].as_array_mut().unwrap().push(listener);
    for name in ["near", "admin"] {
        evil["Cluster"].as_array_mut().unwrap().push(cluster(name, &json!({})));
    }
    let sets = evil["ClusterLoadAssignment"].as_array_mut().unwrap();
    sets.push(pipe("near", &socket));
    sets.push(endpoints("admin", &[proxy.admin().port()]));
    let leads = |path: &str, name: &str| to(&json!({ "path_separated_prefix": path }), name);
    let all =
        json!([leads("/near", "near"), leads("/config", "admin"), to(&json!({ "prefix": "/" }), "app")]);
    evil["RouteConfiguration"] = json!([routes("table", &all)]);
    plane.tell(&evil.to_string()).await;
    let said = refusal(&mut plane, "Listener").await;
    assert!(said.contains("Listener[evil]: a control plane may not name the unix socket"), "{said}");
    // What it does not name wrongly comes into force, and leads nowhere where it may not.
    until("admin is out of reach", async || {
        let reply = proxy.get("web", "/config").await;
        (reply.status == 503 && reply.field("x-outrigger-reason") == Some("own_address")).then_some(())
    })
    .await;
    assert_eq!(proxy.get("web", "/near").await.status, 503);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "somebody's");
    answered_by(&proxy, "one").await;
    // Where the file says so, it may.
    let directory = socket.parent().unwrap().display();
    let text = file(port).replace("\" }", &format!("\", sockets: [{directory}] }}"));
    let trusting = Proxy::start(&text).await;
    until("the socket is reached", async || {
        (trusting.get("web", "/near").await.text() == "secret").then_some(())
    })
    .await;
    // And still no file of anybody's is taken away.
    trusting.wait_log("cannot listen").await;
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "somebody's");
}

#[tokio::test]
async fn it_may_name_nothing_of_this_machine() {
    names_nothing_of_this_machine(Way::Sotw).await;
}

#[tokio::test]
async fn it_may_name_nothing_of_this_machine_incrementally() {
    names_nothing_of_this_machine(Way::Delta).await;
}

/// Nonces that are missing, or the same in every answer: what is said counts all the same, and is acknowledged.
async fn nonces_confuse_nobody(way: Way) {
    let Some(python) = python_with_messages().await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let (mut plane, port) = control(&python, way, 0, &state("1", &[one.address().port()])).await;
    let proxy = Proxy::start(&file(port)).await;
    answered_by(&proxy, "one").await;
    for (version, nonce, (origin, name)) in [
        ("2", "", (&two, "two")),
        ("3", "same", (&one, "one")),
        ("4", "same", (&two, "two")),
        ("5", "Cluster-1", (&one, "one")),
    ] {
        let mut next = state(version, &[origin.address().port()]);
        next["Nonce"] = nonce.into();
        plane.tell(&next.to_string()).await;
        answered_by(&proxy, name).await;
    }
    assert_eq!(proxy.metric("outrigger_xds_refused_total").await, 0.0);
}

#[tokio::test]
async fn wrong_nonces_confuse_nobody() {
    nonces_confuse_nobody(Way::Sotw).await;
}

#[tokio::test]
async fn wrong_nonces_confuse_nobody_incrementally() {
    nonces_confuse_nobody(Way::Delta).await;
}

/// Other clusters and another table each time, as fast as they are taken.
async fn churn_wears_nobody_out(way: Way) {
    let Some(python) = python_with_messages().await else { return };
    let one = Echo::start("one").await;
    let churned = |round: usize| {
        let mut next = state(&round.to_string(), &[one.address().port()]);
        next["Quiet"] = true.into();
        for number in 0..20 {
            let name = format!("c{round}-{number}");
            next["Cluster"].as_array_mut().unwrap().push(cluster(&name, &json!({})));
            next["ClusterLoadAssignment"].as_array_mut().unwrap().push(endpoints(&name, &[1]));
        }
        let fixed = json!({ "match": { "path": format!("/{round}") }, "direct_response": { "status": 204 } });
        let all = json!([fixed, to(&json!({ "prefix": "/" }), "app")]);
        next["RouteConfiguration"] = json!([routes("table", &all)]);
        next
    };
    let (mut plane, port) = control(&python, way, 0, &churned(0)).await;
    let proxy = Proxy::start(&file(port)).await;
    answered_by(&proxy, "one").await;
    let (web, over) = (proxy.address("web"), Arc::new(AtomicBool::new(false)));
    let ends = over.clone();
    let asking = tokio::spawn(async move {
        let mut client = Client::connect(web).await;
        let mut asked = 0;
        while !ends.load(SeqCst) {
            assert_eq!(client.get("/").await.status, 200);
            asked += 1;
        }
        asked
    });
    let mut after_some = 0;
    for round in 1..=300 {
        plane.tell(&churned(round).to_string()).await;
        // One that is in force in between, or only the last of all would ever be.
        if round % 10 == 0 {
            let path = format!("/{round}");
            until(&path, async || (proxy.get("web", &path).await.status == 204).then_some(())).await;
        }
        if round == 100 {
            after_some = kib(&proxy, "VmRSS");
        }
    }
    over.store(true, SeqCst);
    assert!(asking.await.unwrap() > 100);
    let now = kib(&proxy, "VmRSS");
    assert!(now < after_some + (16 << 10), "{after_some} KiB, and later {now} KiB");
    let clusters = proxy.ask_json("/clusters").await;
    assert_eq!(clusters["clusters"].as_array().unwrap().len(), 21);
}

#[tokio::test]
async fn endless_churn_wears_nobody_out() {
    churn_wears_nobody_out(Way::Sotw).await;
}

#[tokio::test]
async fn endless_churn_wears_nobody_out_incrementally() {
    churn_wears_nobody_out(Way::Delta).await;
}
