//! Our control plane, with nodes that are not ours: PyPI's grpcio with the messages of xds-protos, and as a client of its own.

use outrigger_tests::{Client, Control, Echo, Report, until};
use serde_json::{Value, json};

use super::ext_authz::python_with_messages;
use super::{Running, script};

fn cluster(name: &str) -> String {
    format!("clusters:\n  {name}: {{ endpoints: [127.0.0.1:1] }}\n")
}

/// A node, and what it was told first.
async fn node(python: &std::path::Path, control: &Control, id: &str) -> Running {
    let port = control.xds().port().to_string();
    Running::start(python, &[&script("xds_node.py"), &port, id])
}

fn kinds(control: &Control) -> Vec<Value> {
    let events = control.ok(&["events"]);
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["type"].as_str().unwrap().contains(".rollout.")).collect()
}

#[tokio::test]
async fn what_a_node_refuses_is_shown_with_its_reason() {
    let Some(python) = python_with_messages().await else { return };
    let control = Control::start("", &[("a.yaml", &cluster("a"))]);
    let mut node = node(&python, &control, "n1").await;
    assert_eq!(node.line_with("TOLD").await, "TOLD a");
    node.tell("refuse").await;
    node.line_with("REFUSES").await;
    control.document("b.yaml", &cluster("b"));
    assert_eq!(node.line_with("TOLD").await, "TOLD b");
    let refused = until("the event", async || control.events("node.nack.v1").pop()).await;
    assert_eq!(
        refused["data"],
        json!({ "node": "n1", "revision": 2, "kind": "Cluster", "why": "I would rather not" })
    );
    let status = control.status();
    let kind = &status["nodes"][0]["kinds"]["Cluster"];
    assert_eq!(
        (&kind["told"], &kind["acked"], &kind["nack"]),
        (&json!(2), &json!(1), &json!("I would rather not"))
    );
    assert_eq!(status["nodes"][0]["in_sync"], false);
}

#[tokio::test]
async fn a_revision_goes_to_some_first_and_is_taken_back_when_one_of_them_refuses() {
    let Some(python) = python_with_messages().await else { return };
    let settings = "rollout: { steps: [25%, 50%], watch: 200ms }";
    let control = Control::start(settings, &[("a.yaml", &cluster("a"))]);
    let mut nodes = Vec::new();
    for id in ["n1", "n2", "n3", "n4"] {
        let mut node = node(&python, &control, id).await;
        assert_eq!(node.line_with("TOLD").await, "TOLD a");
        nodes.push(node);
    }
    control.wait_in_sync(4, 1).await;
    // One that all take comes to one, to two, to all.
    control.document("b.yaml", &cluster("b"));
    control.wait_in_sync(4, 2).await;
    until("the event", async || control.events("rollout.done.v1").pop()).await;
    let steps = kinds(&control);
    let of: Vec<_> = steps.iter().map(|step| step["data"]["nodes"].as_array().map(Vec::len)).collect();
    assert_eq!(of, [Some(1), Some(2), None], "{steps:?}");
    for node in &mut nodes {
        assert_eq!(node.line_with("TOLD").await, "TOLD b");
        node.tell("refuse").await;
        node.line_with("REFUSES").await;
    }
    // One that is refused comes to one, and no further.
    control.document("c.yaml", &cluster("c"));
    let back = until("it is taken back", async || control.events("rollout.back.v1").pop()).await;
    assert_eq!(back["data"]["revision"], 3);
    assert!(back["data"]["why"].as_str().unwrap().ends_with("refuses Cluster: I would rather not"), "{back}");
    control.wait_revision(4).await;
    let history = control.json(&["history", "--json"]);
    assert_eq!((&history[0]["author"], &history[0]["rollback_to"]), (&json!("rollout"), &json!(2)));
    let told = until("the one who was told is told otherwise", async || {
        let status = control.status();
        let told = |node: &Value| node["revision"] == 4;
        status["nodes"].as_array().unwrap().iter().all(told).then_some(status)
    })
    .await;
    assert_eq!(told["candidate"], Value::Null);
    // Nobody else ever heard of it.
    let mut heard = 0;
    for node in &mut nodes {
        node.tell("accept").await;
        let mut line = node.line().await;
        while line != "ACCEPTS" {
            heard += usize::from(line == "TOLD c");
            line = node.line().await;
        }
    }
    assert_eq!(heard, 1);
}

/// No proxy at all: the library finds its endpoints by our control plane, and balances over them.
#[tokio::test]
async fn a_client_of_grpc_finds_its_services_without_a_proxy() {
    let Some(python) = python_with_messages().await else { return };
    let control = Control::start("", &[]);
    let bootstrap = json!({
        "xds_servers": [{
            "server_uri": control.xds().to_string(),
            "channel_creds": [{ "type": "insecure" }],
            "server_features": ["xds_v3"],
        }],
        "node": { "id": "client" },
    });
    let env = [("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap.to_string())];
    let mut client = Running::start_with(&python, &[&script("grpc_xds.py")], &env);
    let ports = client.line_with("PORTS").await;
    let ports: Vec<_> = ports.split(' ').skip(1).collect();
    let document = |endpoints: &str| {
        format!(
            "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: who }}] }}\n\
             clusters:\n  who: {{ endpoints: [{endpoints}], balance: round-robin, protocol: http2 }}\n"
        )
    };
    let both = format!("127.0.0.1:{}, 127.0.0.1:{}", ports[0], ports[1]);
    control.document("web.yaml", &document(&both));
    client.tell("20").await;
    let answers = client.line_with("ANSWERS").await;
    let of: Vec<u32> = answers.split(' ').skip(1).map(|number| number.parse().unwrap()).collect();
    assert_eq!(of[0] + of[1], 20);
    assert!(of[0] >= 8 && of[1] >= 8, "{answers}");
    control.wait_in_sync(1, 1).await;
    assert!(control.status()["nodes"][0]["agent"].as_str().unwrap().starts_with("gRPC"));
    // It follows.
    control.document("web.yaml", &document(&format!("127.0.0.1:{}", ports[1])));
    control.wait_in_sync(1, 2).await;
    until("all go to the other", async || {
        client.tell("10").await;
        (client.line_with("ANSWERS").await == "ANSWERS 0 10").then_some(())
    })
    .await;
}

/// Envoy waits for what it is told in an order of its own: clusters that come and change later must not make it wait for long.
async fn envoy_follows(way: &str) {
    let Some(envoy) = super::envoy::Envoy::find().await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let document = |clusters: &[(&str, &Echo)], to: &str, balance: &str| {
        let clusters: String = clusters
            .iter()
            .map(|(name, echo)| {
                format!("  {name}: {{ endpoints: [\"{}\"], balance: {balance} }}\n", echo.address())
            })
            .collect();
        format!("listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: {to} }}] }}\nclusters:\n{clusters}")
    };
    let control = Control::start("", &[("web.yaml", &document(&[("first", &one)], "first", "random"))]);
    let envoy = envoy.run(&super::envoy::node("envoy", control.xds(), way)).await;
    let answers = async |origin: &str| {
        until(origin, async || {
            let reply = Client::connect(envoy.address_of("web")).await.get("/").await;
            (reply.status == 200 && Report::parse(&reply.body).origin == origin).then_some(())
        })
        .await;
    };
    answers("one").await;
    control.wait_in_sync(1, 1).await;
    // One more, to which all goes; then the first is gone; then the other is another.
    control.document("web.yaml", &document(&[("first", &one), ("second", &two)], "second", "random"));
    answers("two").await;
    control.wait_in_sync(1, 2).await;
    control.document("web.yaml", &document(&[("second", &two)], "second", "random"));
    control.wait_in_sync(1, 3).await;
    control.document("web.yaml", &document(&[("second", &one)], "second", "round-robin"));
    answers("one").await;
    control.wait_in_sync(1, 4).await;
}

#[tokio::test]
async fn envoy_follows_what_changes() {
    envoy_follows("DELTA_GRPC").await;
}

#[tokio::test]
async fn envoy_follows_the_state_of_the_world() {
    envoy_follows("GRPC").await;
}
