//! How a control plane writes a configuration: resources of xDS v3 (<https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol>).
//!
//! Of the API there is a subset (`proto/proto/envoy`): what is honoured. A resource is looked at twice: [`walk`] finds in its
//! raw bytes what is not in the subset, and the translation what cannot be meant. Either refuses it whole, with the path of
//! each fault; nothing is ignored but what `XDS.md` calls harmless, and [`accept`] tells of that.

mod any;
mod cluster;
mod cx;
pub mod discovery;
pub mod events;
mod expression;
mod filters;
mod hash;
mod hosts;
mod listener;
pub mod loads;
mod route;
mod schema;
mod secret;
pub mod shadow;
pub mod status;
#[cfg(test)]
mod tests;
mod tls;
mod walk;
mod write;

use std::fmt;

use prost::Message;

pub use self::cluster::{ClusterResource, EndpointSource};
pub use self::hosts::{ON_DEMAND, host_name, of_host_name, write_host};
pub use self::listener::{ListenerResource, RouteSource};
pub use self::secret::{Secret, Wiped};
pub use self::write::{write, write_for_clients};
use crate::error::ConfigError;
use crate::model::{Assignment, Name, RouteTable};

/// The messages, as they were generated.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::nursery
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}

/// What kinds of resources there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// CDS.
    Cluster,
    /// SDS.
    Secret,
    /// EDS.
    Endpoints,
    /// LDS.
    Listener,
    /// RDS.
    Routes,
    /// VHDS: routes of a host, asked for when a request comes for it.
    Host,
}

impl Kind {
    /// In the order in which they are asked for: nothing is sent where nobody answers yet, or nothing can be proven.
    pub const ALL: [Self; 6] =
        [Self::Cluster, Self::Secret, Self::Endpoints, Self::Listener, Self::Routes, Self::Host];

    /// As it is called in errors.
    fn word(self) -> &'static str {
        self.message().rsplit('.').next().unwrap_or_default()
    }

    /// The full name of its message.
    fn message(self) -> &'static str {
        match self {
            Self::Cluster => "envoy.config.cluster.v3.Cluster",
            Self::Secret => "envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Endpoints => "envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "envoy.config.listener.v3.Listener",
            Self::Routes => "envoy.config.route.v3.RouteConfiguration",
            Self::Host => "envoy.config.route.v3.VirtualHost",
        }
    }

    /// Its type URL.
    pub fn url(self) -> String {
        format!("type.googleapis.com/{}", self.message())
    }

    /// By type URL.
    pub fn of_url(url: &str) -> Option<Self> {
        let name = url.rsplit('/').next()?;
        Self::ALL.into_iter().find(|kind| kind.message() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a resource means.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// A cluster.
    Cluster(Box<ClusterResource>),
    /// A secret.
    Secret(Secret),
    /// The endpoints of one.
    Endpoints(Assignment),
    /// A listener.
    Listener(Box<ListenerResource>),
    /// A table of routes.
    Routes(RouteTable),
    /// Those of one of its hosts.
    Host(RouteTable),
}

impl Resource {
    /// What kind it is of.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Cluster(_) => Kind::Cluster,
            Self::Secret(_) => Kind::Secret,
            Self::Endpoints(_) => Kind::Endpoints,
            Self::Listener(_) => Kind::Listener,
            Self::Routes(_) => Kind::Routes,
            Self::Host(_) => Kind::Host,
        }
    }
}

/// A resource that is accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// Its name.
    pub name: Name,
    /// What it means.
    pub resource: Resource,
    /// What it says without effect, each once: full names of fields, or of messages, out of those that the API has.
    pub ignored: Vec<&'static str>,
}

/// A resource that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its name, where it has one.
    pub name: Option<Name>,
    /// All that is wrong with it; not empty.
    pub errors: Vec<ConfigError>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.errors.iter().enumerate() {
            let separator = if place == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

/// Reads a resource of this kind.
///
/// # Errors
/// All that is wrong with it.
pub fn read(kind: Kind, any: &prost_types::Any) -> Result<(Name, Resource), Refused> {
    accept(kind, any).map(|Accepted { name, resource, ignored: _ }| (name, resource))
}

/// The same, for who wants to know what of it has no effect.
///
/// # Errors
/// All that is wrong with it.
pub fn accept(kind: Kind, any: &prost_types::Any) -> Result<Accepted, Refused> {
    let refused = |name, problem: String| {
        let path = kind.to_string();
        Refused { name, errors: vec![ConfigError { place: None, path, problem, hint: None }] }
    };
    if Kind::of_url(&any.type_url) != Some(kind) {
        return Err(refused(None, format!("`{}` is of another type", any.type_url)));
    }
    let bytes = any.value.as_slice();
    let undecodable =
        |error: prost::DecodeError| refused(walk::name(bytes).and_then(Name::new), error.to_string());
    match kind {
        Kind::Cluster => {
            let cluster =
                generated::envoy::config::cluster::v3::Cluster::decode(bytes).map_err(undecodable)?;
            translated(kind, &cluster.name.clone(), bytes, |cx, _| {
                Some(Resource::Cluster(Box::new(cluster::cluster(cx, cluster)?)))
            })
        }
        Kind::Secret => {
            let secret = generated::envoy::extensions::transport_sockets::tls::v3::Secret::decode(bytes);
            let secret = secret.map_err(undecodable)?;
            translated(kind, &secret.name.clone(), bytes, |cx, _| {
                Some(Resource::Secret(secret::secret(cx, secret)?))
            })
        }
        Kind::Endpoints => {
            let set = generated::envoy::config::endpoint::v3::ClusterLoadAssignment::decode(bytes);
            let set = set.map_err(undecodable)?;
            translated(kind, &set.cluster_name.clone(), bytes, |cx, _| {
                Some(Resource::Endpoints(cluster::assignment(cx, set)?))
            })
        }
        Kind::Listener => {
            let listener = generated::envoy::config::listener::v3::Listener::decode(bytes);
            let listener = listener.map_err(undecodable)?;
            translated(kind, &listener.name.clone(), bytes, |cx, name| {
                Some(Resource::Listener(Box::new(listener::listener(cx, name, listener)?)))
            })
        }
        Kind::Routes => {
            let (beside, hosts) = walk::apart(bytes, route::HOSTS);
            let table = generated::envoy::config::route::v3::RouteConfiguration::decode(beside.as_slice());
            let table = table.map_err(undecodable)?;
            translated(kind, &table.name.clone(), bytes, |cx, _| {
                Some(Resource::Routes(route::large_table(cx, table, hosts)?))
            })
        }
        Kind::Host => {
            let host =
                generated::envoy::config::route::v3::VirtualHost::decode(bytes).map_err(undecodable)?;
            translated(kind, &host.name.clone(), bytes, |cx, _| Some(Resource::Host(route::host(cx, host)?)))
        }
    }
}

fn translated(
    kind: Kind,
    name: &str,
    bytes: &[u8],
    translate: impl FnOnce(&mut cx::Cx, &Name) -> Option<Resource>,
) -> Result<Accepted, Refused> {
    let at = format!("{kind}[{name}]");
    let (mut errors, ignored) = walk::check(kind.message(), bytes, &at);
    let mut cx = cx::Cx::new(at);
    let known = Name::new(name);
    if known.is_none() {
        cx.fail::<()>("name", "this is not a name: it is empty, or holds white space or a control character");
    }
    // What else is wrong is said as well.
    let called = known.clone().or_else(|| Name::new("-"));
    let resource = called.and_then(|name| translate(&mut cx, &name));
    errors.extend(cx.into_errors());
    match (known, resource) {
        (Some(name), Some(resource)) if errors.is_empty() => Ok(Accepted { name, resource, ignored }),
        (name, _) => {
            debug_assert!(!errors.is_empty(), "what is not translated has an error");
            Err(Refused { name, errors })
        }
    }
}
