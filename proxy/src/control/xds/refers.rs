//! What resources name of others: clusters that they lead to, and secrets.

use std::collections::BTreeSet;

use outrigger_proto::model::{DownstreamTls, Name, Route, RouteTable, UpstreamTls};
use outrigger_proto::xds::{ClusterResource, ListenerResource, RouteSource};

/// The clusters that a table leads to.
pub(super) fn clusters_of(table: &RouteTable) -> BTreeSet<Name> {
    table.routes.iter().flat_map(Route::clusters).cloned().collect()
}

/// The clusters that a listener leads to by what it says itself.
pub(super) fn clusters_beside(ListenerResource { listener, routes }: &ListenerResource) -> BTreeSet<Name> {
    let mut out: BTreeSet<_> = listener.clusters().into_iter().cloned().collect();
    for routes in routes {
        match routes {
            RouteSource::Stated(table) => out.extend(clusters_of(table)),
            RouteSource::None | RouteSource::Rds(_) => {}
        }
    }
    out
}

/// The secrets that a cluster names.
pub(super) fn of_cluster(ClusterResource { cluster, endpoints: _ }: &ClusterResource) -> BTreeSet<Name> {
    cluster.tls.iter().flat_map(UpstreamTls::secrets).map(|secret| secret.name.clone()).collect()
}

/// The secrets that a listener names.
pub(super) fn of_listener(ListenerResource { listener, routes: _ }: &ListenerResource) -> BTreeSet<Name> {
    listener
        .chains
        .each()
        .flat_map(|chain| &chain.tls)
        .flat_map(DownstreamTls::secrets)
        .map(|secret| secret.name.clone())
        .collect()
}
