//! Hosts on demand (VHDS): a table of routes may say that there are more hosts, of which each is told when a request comes
//! for it. So what a proxy holds grows with what is called through it, and not with all that there is to call.

use prost_types::Any;

use super::write::{routes_of, write};
use super::{Refused, Resource};
use crate::model::{HostPattern, Match, Name, Route, RouteTable};

/// By which a proxy says that it asks for clusters and hosts as it needs them (`Node.client_features`).
pub const ON_DEMAND: &str = "outrigger.on_demand";

/// By which the routes of a host are asked for: `TABLE/HOST`. `None` for a host that is no name.
pub fn host_name(table: &Name, host: &str) -> Option<Name> {
    Name::new(&format!("{table}/{host}"))
}

/// The table and the host of such a name. A table may have a `/` in its name, a host has none.
pub fn of_host_name(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('/').filter(|(table, host)| !table.is_empty() && !host.is_empty())
}

/// Writes the routes that a host has in a table, whoever they are written for; `None` where it has none.
///
/// # Errors
/// What cannot be said.
pub fn write_host(name: &Name, table: &RouteTable, host: &str) -> Option<Result<Any, Refused>> {
    // A pattern is nobody's host.
    if host.contains('*') {
        return None;
    }
    let pattern = HostPattern::Exact(host.to_ascii_lowercase().into());
    let routes = routes_of(&table.routes, &pattern).into_iter().map(|route| {
        let matches = Match { hosts: vec![pattern.clone()], ..route.matches.clone() };
        Route { matches, ..route.clone() }
    });
    let routes: Vec<_> = routes.collect();
    if routes.is_empty() {
        return None;
    }
    let table = RouteTable { routes: routes.into(), on_demand: false };
    Some(write(name, &Resource::Host(table)))
}
