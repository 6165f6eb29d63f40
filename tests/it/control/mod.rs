//! The control plane, with our proxy as its node.

mod api;
pub(crate) mod attestation;
mod demo;
mod events;
mod identity;
mod load;
mod nats;
mod nodes;
mod on_demand;
mod replicas;
mod rollouts;
mod secrets;
mod shadow;
mod swap;

use outrigger_tests::{Control, Echo, Proxy};

/// A listener `web` that sends everything to a cluster `app` of these ports.
fn web(ports: &[u16]) -> String {
    let endpoints: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\nclusters:\n  app: {{ endpoints: [{}] }}\n",
        endpoints.join(", ")
    )
}

fn port(echo: &Echo) -> u16 {
    echo.address().port()
}

/// A proxy of this id that is told by this control plane.
async fn proxy(control: &Control, id: &str) -> Proxy {
    Proxy::start(&file(control, id)).await
}

fn file(control: &Control, id: &str) -> String {
    format!("node: {{ id: {id}, cluster: web }}\nxds: {{ server: \"http://{}\" }}\n", control.xds())
}

/// Waits until a listener is answered by this service.
async fn answered_by(proxy: &Proxy, origin: &str) {
    outrigger_tests::until(origin, async || {
        let reply = proxy.get("web", "/").await;
        (reply.status == 200 && outrigger_tests::Report::parse(&reply.body).origin == origin).then_some(())
    })
    .await;
}
