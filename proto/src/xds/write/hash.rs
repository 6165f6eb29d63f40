//! What of a request decides its endpoint.

use super::super::generated::envoy::config::route::v3::route_action as pb;
use super::{Cx, time};
use crate::model::{HashKey, HashOn, MadeCookie};

pub(super) fn key(cx: &mut Cx, key: &HashKey) -> Option<pb::HashPolicy> {
    use pb::hash_policy::{ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter};
    let HashKey { on, terminal } = key;
    let on = match on {
        HashOn::Header(name) => PolicySpecifier::Header(Header { header_name: name.to_string() }),
        HashOn::Cookie { name, made } => {
            let (ttl, path) = match made {
                Some(MadeCookie { ttl, path }) => {
                    (Some(time(cx, "hash_policy", *ttl)?), path.as_deref().unwrap_or_default())
                }
                None => (None, ""),
            };
            PolicySpecifier::Cookie(Cookie { name: name.to_string(), ttl, path: path.to_owned() })
        }
        HashOn::Source => PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
        HashOn::Query(name) => PolicySpecifier::QueryParameter(QueryParameter { name: name.to_string() }),
    };
    Some(pb::HashPolicy { policy_specifier: Some(on), terminal: *terminal })
}
