//! A mesh of many hosts, of which a proxy holds what is called through it.

use std::fmt::Write;

use outrigger_tests::{Control, Echo, Origin, Proxy, Reply, Report, until};

use super::port;

/// Hosts, each with a cluster that is called as it.
fn mesh(hosts: &[(&str, u16)]) -> String {
    let (mut routes, mut clusters) = (String::new(), String::new());
    for (host, port) in hosts {
        let _ = writeln!(routes, "      - {{ match: {{ host: {host}.test }}, to: {host} }}");
        let _ = writeln!(clusters, "  {host}: {{ endpoints: [127.0.0.1:{port}] }}");
    }
    format!("listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n{routes}clusters:\n{clusters}")
}

async fn start(control: &Control, on_demand: &str) -> Proxy {
    let proxy = Proxy::start(&format!(
        "node: {{ id: a, cluster: web }}\nxds: {{ server: \"http://{}\", on_demand: {on_demand} }}\n",
        control.xds()
    ))
    .await;
    proxy.wait_log("listening listener=web").await;
    proxy
}

async fn call(proxy: &Proxy, host: &str) -> Reply {
    let mut client = proxy.client("web").await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    client.reply().await
}

async fn origin(proxy: &Proxy, host: &str) -> String {
    let reply = call(proxy, host).await;
    assert_eq!(reply.status, 200, "{host}: {}", reply.text());
    Report::parse(&reply.body).origin
}

async fn clusters(proxy: &Proxy) -> Vec<String> {
    let all = proxy.ask_json("/clusters").await;
    let names = all["clusters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cluster| cluster["name"].as_str().unwrap().to_owned());
    names.collect()
}

#[tokio::test]
async fn only_what_is_called_is_held() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let mut hosts = vec![("one", port(&one)), ("two", port(&two))];
    let others: Vec<_> = (0..200).map(|number| format!("other-{number}")).collect();
    hosts.extend(others.iter().map(|other| (other.as_str(), 1)));
    let control = Control::start("", &[("web.yaml", &mesh(&hosts))]);
    let proxy = start(&control, "true").await;
    assert_eq!(clusters(&proxy).await, Vec::<String>::new());
    // The first request for a host waits for it, and all the same ones with it; in whatever letters it is written.
    let mut waiting = Vec::new();
    for host in ["one.test", "ONE.test:80", "one.test.", "one.test"] {
        let mut client = proxy.client("web").await;
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        waiting.push(client);
    }
    for client in &mut waiting {
        assert_eq!(Report::parse(&client.reply().await.body).origin, "one");
    }
    assert_eq!(clusters(&proxy).await, ["one"]);
    assert_eq!(origin(&proxy, "two.test").await, "two");
    assert_eq!(clusters(&proxy).await, ["one", "two"]);
    let reply = call(&proxy, "nobody.test").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (404, Some("no_route")));
    control.wait_in_sync(1, 1).await;
    // What is held changes as everything does, and what was not there comes.
    control.document("web.yaml", &mesh(&[("one", port(&two)), ("two", port(&two)), ("nobody", port(&one))]));
    until("it is the other", async || (origin(&proxy, "one.test").await == "two").then_some(())).await;
    until("it has come", async || (call(&proxy, "nobody.test").await.status == 200).then_some(())).await;
    assert_eq!(clusters(&proxy).await, ["nobody", "one", "two"]);
    // What is gone goes.
    control.document("web.yaml", &mesh(&[("one", port(&one))]));
    until("it is gone", async || (call(&proxy, "two.test").await.status == 404).then_some(())).await;
    until("and its cluster", async || (clusters(&proxy).await == ["one"]).then_some(())).await;
    control.wait_in_sync(1, 3).await;
    // Without a control plane what is held is served, and of the rest it is said that nothing is known of it.
    control.process().kill();
    assert_eq!(origin(&proxy, "one.test").await, "one");
    let reply = call(&proxy, "other-1.test").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (503, Some("route_awaited")));
}

#[tokio::test]
async fn what_is_called_no_more_is_let_go() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let (slow, open) = Origin::gated().await;
    let slow_port = slow.address().rsplit(':').next().unwrap().parse().unwrap();
    let hosts = [("one", port(&one)), ("two", port(&two)), ("slow", slow_port)];
    let control = Control::start("", &[("web.yaml", &mesh(&hosts))]);
    let proxy = start(&control, "{ idle: 1s }").await;
    let mut waits = proxy.client("web").await;
    waits.send("GET / HTTP/1.1\r\nHost: slow.test\r\n\r\n").await;
    slow.wait_requests(1).await;
    assert_eq!(origin(&proxy, "two.test").await, "two");
    until("the one that nobody calls is gone, and those that are called are not", async || {
        assert_eq!(origin(&proxy, "one.test").await, "one");
        (clusters(&proxy).await == ["one", "slow"]).then_some(())
    })
    .await;
    proxy.wait_log("VirtualHost[web/two.test]: nobody has called it for 1s, and it is let go").await;
    control.wait_in_sync(1, 1).await;
    // Called again, it is there again.
    assert_eq!(origin(&proxy, "two.test").await, "two");
    open.send(true).unwrap();
    assert_eq!(waits.reply().await.status, 200);
    until("all are gone", async || clusters(&proxy).await.is_empty().then_some(())).await;
}
