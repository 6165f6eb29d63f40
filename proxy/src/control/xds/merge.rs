//! One configuration of what a file says and what a control plane does. Where both say something of a name, the file does.

use std::collections::BTreeMap;

use outrigger_proto::model::{
    Action, Cluster, Config, DownstreamTls, Filter, FilterChain, Forward, Mesh, Name, Respond, Route,
    RouteTable, Split,
};

use super::Discovered;
use crate::identity::secrets::Secrets;

/// What is served of both. A route to a cluster that nobody has is answered with 503, as by Envoy; of several the others
/// are used. A listener of bytes that has nowhere to pass them to is left out, and so is one whose TLS has nothing to show:
/// nobody is served in the clear who was to be served otherwise. A cluster like that is there, and answers with 503.
pub fn merge(own: &Config, found: &Discovered) -> Config {
    let mut config = own.clone();
    let Discovered { listeners, route_tables, clusters, endpoints, secrets } = found;
    for (name, cluster) in clusters {
        if config.mesh.clusters.contains_key(name) {
            continue;
        }
        config.mesh.clusters.insert(name.clone(), cluster.clone());
        config.endpoints.extend(endpoints.get(name).map(|set| (name.clone(), set.clone())));
    }
    let Mesh { clusters, route_tables: tables, listeners: all, identity, .. } = &mut config.mesh;
    for (name, table) in route_tables {
        tables.entry(name.clone()).or_insert_with(|| led(table, clusters));
    }
    for (name, listener) in listeners {
        // With one chain less, others would take its connections.
        let mut tls = listener.chains.each().filter_map(|chain| chain.tls.as_ref());
        if let Some(why) = tls.find_map(|tls| unproven(tls, secrets, identity.is_some())) {
            tracing::warn!(listener = %name, "{why}: it is left out");
            continue;
        }
        let leads = |chain: &FilterChain| match &chain.filter {
            Filter::Http(http) => tables.contains_key(&http.routes),
            Filter::Tcp(tcp) => tcp.to.targets.iter().all(|target| clusters.contains_key(&target.to.cluster)),
        };
        if listener.chains.each().all(leads) {
            all.entry(name.clone()).or_insert_with(|| listener.clone());
        } else {
            tracing::warn!(listener = %name, "it leads to a cluster that nobody has, and is left out");
        }
    }
    config
}

/// Why there is nothing to show to a client, if there is not.
fn unproven(tls: &DownstreamTls, secrets: &Secrets, is_somebody: bool) -> Option<String> {
    match tls {
        DownstreamTls::Mutual(_) => {
            (!is_somebody).then(|| "the proxy has no identity to prove (`identity` of its file)".to_owned())
        }
        DownstreamTls::Own(_) => {
            let missing = tls.secrets().find(|secret| !secrets.have(*secret))?;
            Some(format!("the secret `{}` has not come, or holds something else", missing.name))
        }
    }
}

/// The table, as far as it leads somewhere.
fn led(table: &RouteTable, clusters: &BTreeMap<Name, std::sync::Arc<Cluster>>) -> RouteTable {
    let is_there = |name: &Name| clusters.contains_key(name);
    let leads = |route: &Route| match &route.action {
        Action::Forward(forward) => forward.to.targets.iter().all(|target| is_there(&target.to.cluster)),
        Action::Redirect(_) | Action::Respond(_) => true,
    };
    if table.routes.iter().all(leads) {
        return table.clone();
    }
    let mended = |route: &Route| {
        let Action::Forward(forward) = &route.action else { return route.clone() };
        let targets = forward.to.targets.iter().filter(|target| is_there(&target.to.cluster));
        let targets: Vec<_> = targets.cloned().collect();
        let action = if targets.is_empty() {
            let status = http::StatusCode::SERVICE_UNAVAILABLE;
            Action::Respond(Respond { status, body: "outrigger: there is no such cluster\n".into() })
        } else {
            Action::Forward(Forward { to: Split { targets }, ..forward.clone() })
        };
        Route { action, ..route.clone() }
    };
    RouteTable { routes: table.routes.iter().map(mended).collect(), on_demand: table.on_demand }
}
