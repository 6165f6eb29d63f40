//! Limits that a service counts: whether it is asked, and what, of a listener's routes. As a node, by what a control plane says.

use outrigger_tests::{Client, Control, Echo, Proxy};

use super::{Differences, Envoy, Meant, follows, node, row};
use crate::peers::{Running, python, script};

const ROWS: [(&str, &[&str]); 29] = [
    ("/header", &[]),
    ("/header", &["x-user: a"]),
    ("/header", &["x-user: a", "x-user: b"]),
    ("/query", &[]),
    ("/query?q=a", &[]),
    ("/query?q=a%20b&q=c", &[]),
    ("/query?p=a", &[]),
    ("/clusters", &[]),
    ("/when", &[]),
    ("/when", &["x-beta: 1"]),
    ("/when", &["x-beta: 1", "x-user: a"]),
    ("/when", &["x-user: a"]),
    ("/when?q=a", &[]),
    ("/when?q=ab", &["x-beta: 1"]),
    ("/when?q=b", &["x-beta: 1"]),
    ("/text?q=a%20b", &[]),
    ("/text?q=a%2520b", &[]),
    ("/text?q=a+b", &[]),
    ("/text?q=a%2Bb", &[]),
    ("/text?q=%25", &[]),
    ("/text?q=%", &[]),
    ("/text?q%20q=1", &[]),
    ("/text?q+q=1", &[]),
    // A value that is there and empty is one.
    ("/header", &["x-user:"]),
    ("/query?q=", &[]),
    ("/query?q", &[]),
    ("/query?q=&q=a", &[]),
    ("/value", &[]),
    ("/free", &[]),
];

const MEANT: Meant = &[(
    "web: GET /query",
    "what counts the same in each descriptor is said once, as all services know it; Envoy says it in each",
)];

#[tokio::test]
async fn what_a_service_is_asked_is_what_envoy_asks() {
    let (Some(python), Some(envoy)) = (python(&["grpc"]).await, Envoy::find().await) else { return };
    let mut service = Running::start(&python, &[&script("rls_server.py")]);
    let one = Echo::start("one").await;
    let document = include_str!("limits.yaml").replace("RLS", &service.port().await.to_string());
    let document = document.replace("ONE", &one.address().to_string());
    let control = Control::start("", &[("mesh.yaml", &document)]);
    let told = Proxy::start(&follows(&control)).await;
    let envoy = envoy.run(&node("envoy", control.xds(), "DELTA_GRPC")).await;
    let mut differences = Differences::new(MEANT);
    for (target, fields) in ROWS {
        let row = row("web", "GET", "limits.test", target, fields);
        let mut came = Vec::new();
        for address in [told.address("web"), envoy.address_of("web")] {
            let mut client = Client::connect(address).await;
            client.send(&row.request).await;
            let reply = client.reply().await;
            // Whoever was asked has seen it.
            let asked =
                if reply.field("x-seen").is_some() { service.line().await } else { "nobody".to_owned() };
            came.push(format!("{} {asked}", reply.status));
        }
        let [ours, envoys]: [String; 2] = came.try_into().unwrap();
        differences.note(&row.name, [ours.clone(), ours, envoys]);
    }
    differences.end(ROWS.len());
}
