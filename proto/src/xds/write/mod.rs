//! The way back: what a configuration means, as resources that any client of xDS v3 reads. [`super::read`] of what is written
//! is what was written.
//!
//! What no field of upstream's says travels beside it, as a typed extension of ours (`proto/proto/outrigger/extensions`) in
//! `metadata.typed_filter_metadata`, which clients that do not know it leave alone.

mod client;
mod cluster;
mod downstream_tls;
pub(super) mod filters;
mod hash;
mod listener;
mod route;
mod tls;

use std::collections::BTreeMap;
use std::time::Duration;

pub use self::client::write_for_clients;
pub(super) use self::route::routes_of;
use prost::Message;
use prost_types::Any;

use super::any::OURS;
use super::cx::Cx;
use super::generated::envoy::config::core::v3 as core;
use super::generated::envoy::config::core::v3::Metadata;
use super::{Refused, Resource};
use crate::model::{Address, Name};

/// Writes a resource under this name.
///
/// # Errors
/// What cannot be said: files, above all, which are the reader's own.
pub fn write(name: &Name, resource: &Resource) -> Result<Any, Refused> {
    let kind = resource.kind();
    let mut cx = Cx::new(format!("{kind}[{name}]"));
    let any = match resource {
        Resource::Cluster(cluster) => cluster::cluster(&mut cx, name, cluster).map(|it| packed(&it)),
        Resource::Secret(secret) => Some(packed(&tls::secret(name, secret))),
        Resource::Endpoints(set) => cluster::assignment(&mut cx, name, set).map(|it| packed(&it)),
        Resource::Listener(listener) => listener::listener(&mut cx, name, listener).map(|it| packed(&it)),
        Resource::Routes(table) => route::table(&mut cx, name, table).map(|it| packed(&it)),
        Resource::Host(table) => route::host(&mut cx, name, table).map(|it| packed(&it)),
    };
    let errors = cx.into_errors();
    match any {
        Some(any) if errors.is_empty() => Ok(any),
        _ => {
            debug_assert!(!errors.is_empty(), "what is not written has an error");
            Err(Refused { name: Some(name.clone()), errors })
        }
    }
}

/// A message of any type.
fn packed<M: Message + prost::Name>(message: &M) -> Any {
    Any { type_url: format!("type.googleapis.com/{}", M::full_name()), value: message.encode_to_vec() }
}

/// What is ours beside a resource, where there is anything.
fn noted<M: Message + prost::Name + Default + PartialEq>(said: M) -> Option<Metadata> {
    (said != M::default()).then(|| Metadata {
        filter_metadata: BTreeMap::new(),
        typed_filter_metadata: BTreeMap::from([(OURS.to_owned(), packed(&said))]),
    })
}

/// From the same stream.
fn stream() -> core::ConfigSource {
    let ads = core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {});
    core::ConfigSource {
        config_source_specifier: Some(ads),
        resource_api_version: core::ApiVersion::V3.into(),
    }
}

fn time(cx: &mut Cx, field: &str, time: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(time).ok().or_else(|| cx.fail(field, "this time is too long"))
}

/// An IP address and a port, or a unix socket.
fn address(cx: &mut Cx, field: &str, address: &Address) -> Option<core::Address> {
    let address = match address {
        Address::Ip(ip) => core::address::Address::SocketAddress(socket(ip.ip().to_string(), ip.port())),
        Address::Unix(path) => match path.to_str() {
            Some(path) => core::address::Address::Pipe(core::Pipe { path: path.to_owned() }),
            None => return cx.fail(field, format!("`{}` is not UTF-8", path.display())),
        },
    };
    Some(core::Address { address: Some(address) })
}

/// An address, or a name, and a port.
fn socket(address: String, port: u16) -> core::SocketAddress {
    core::SocketAddress {
        address,
        protocol: core::socket_address::Protocol::Tcp.into(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
    }
}
