//! Limits that a service counts: whether it is asked, and what, of a listener's routes.

use outrigger_tests::{Client, Echo};

use super::{Differences, Envoy, Meant, Three, row};
use crate::peers::{Running, python, script};

pub(super) const ROWS: [(&str, &[&str]); 32] = [
    ("/header", &[]),
    ("/header", &["x-user: a"]),
    ("/header", &["x-user: a", "x-user: b"]),
    ("/query", &[]),
    ("/query?q=a", &[]),
    ("/query?q=a%20b&q=c", &[]),
    ("/query?p=a", &[]),
    ("/clusters", &[]),
    ("/nodes", &[]),
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
    ("/value", &[]),
    // What was asked so often is too much.
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
    // Each of the three asks a question twice at the most, but for the last of the rows above.
    let mut service = Running::start(&python, &[&script("rls_server.py"), "6"]);
    let one = Echo::start("one").await;
    let document = include_str!("limits.yaml").replace("RLS", &service.port().await.to_string());
    let document = document.replace("ONE", &one.address().to_string());
    let three = Three::start(&envoy, &document).await;
    let mut differences = Differences::new(MEANT);
    for (target, fields) in ROWS {
        let row = row("web", "GET", "limits.test", target, fields);
        let mut came = Vec::new();
        // One after the other, so that it is known who has asked.
        for address in three.addresses("web") {
            let mut client = Client::connect(address).await;
            client.send(&row.request).await;
            let reply = client.reply().await;
            // Whoever was asked has seen it.
            let asked =
                if reply.field("x-seen").is_some() { service.line().await } else { "nobody".to_owned() };
            came.push(format!("{} {asked}", reply.status));
        }
        let [mut by_file, by_xds, envoys]: [String; 3] = came.try_into().expect("three");
        if target == "/nodes" {
            // By a file alone a proxy is no node, and of no cluster: of the two descriptors there is one.
            assert_ne!(by_file, by_xds);
            by_file.clone_from(&by_xds);
        }
        differences.note(&row.name, [by_file, by_xds, envoys]);
    }
    differences.end(ROWS.len());
}
