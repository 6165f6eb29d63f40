//! What of a request decides its endpoint: a cluster may say it, and so may routes to one that does not.

use ::http::HeaderName;

use super::cx::Cx;
use super::generated::envoy::config::route::v3::route_action as pb;
use crate::model::{HashKey, HashOn, MadeCookie};

pub(super) fn key(cx: &mut Cx, policy: pb::HashPolicy) -> Option<HashKey> {
    use pb::hash_policy::{ConnectionProperties, Header, PolicySpecifier, QueryParameter};
    let pb::HashPolicy { policy_specifier, terminal } = policy;
    let on = match cx.required("policy_specifier", policy_specifier)? {
        PolicySpecifier::Header(Header { header_name }) => {
            let name = HeaderName::try_from(header_name).ok().map(HashOn::Header);
            name.or_else(|| cx.fail("header.header_name", "this is not the name of a header field"))
        }
        PolicySpecifier::Cookie(written) => cx.within("cookie", |cx| cookie(cx, written)),
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }) => {
            Some(HashOn::Source)
        }
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: false }) => {
            cx.fail("connection_properties", "nothing is hashed: write `source_ip`")
        }
        PolicySpecifier::QueryParameter(QueryParameter { name }) if !name.is_empty() => {
            Some(HashOn::Query(name.into()))
        }
        PolicySpecifier::QueryParameter(_) => cx.fail("query_parameter.name", "a name is empty"),
    };
    Some(HashKey { on: on?, terminal })
}

fn cookie(cx: &mut Cx, cookie: pb::hash_policy::Cookie) -> Option<HashOn> {
    let pb::hash_policy::Cookie { name, ttl, path } = cookie;
    let made = match ttl {
        // Of one that is not made the path says nothing.
        None => None,
        // With 0 it lives as long as the session.
        written => {
            let ttl = cx.time("ttl", written)?.unwrap_or_default();
            if !path.is_empty() && !MadeCookie::takes_path(&path) {
                return cx.fail("path", "this is not a cookie's path");
            }
            Some(MadeCookie { ttl, path: (!path.is_empty()).then(|| path.into()) })
        }
    };
    // RFC 6265 section 4.1.1.
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return cx.fail("name", "this is not a cookie's name");
    }
    Some(HashOn::Cookie { name: name.into(), made })
}
