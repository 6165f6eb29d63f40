//! Who is counted by a limit that counts callers apart.

use std::net::IpAddr;

use outrigger_proto::model::LimitKey;

use super::call::Call;
use super::headers;

/// What a caller is known by.
#[derive(Clone, Copy, Debug)]
pub enum Caller<'a> {
    /// By nothing: all are counted together, or it did not say.
    Anybody,
    /// By a field's value, or a name that it has proven.
    Value(&'a [u8]),
    /// By an address; one form for both families, as an IPv4 address is the same however it came.
    Address([u8; 16]),
}

impl<'a> Caller<'a> {
    /// The caller of a request. Where the field is repeated, the first counts.
    pub fn of(call: &'a Call, per: &LimitKey) -> Self {
        let Call { request, tunnel: _, ledger } = call;
        match per {
            LimitKey::All => Self::Anybody,
            LimitKey::Header(name) => match request.headers().get(name) {
                Some(value) => Self::Value(value.as_bytes()),
                None => Self::Anybody,
            },
            LimitKey::Identity => match ledger.conn().spiffe_id() {
                Some(id) => Self::Value(id.as_str().as_bytes()),
                None => Self::Anybody,
            },
            LimitKey::Source => {
                match headers::client(request, ledger.conn(), &ledger.http().0.trusted_proxies) {
                    Some(IpAddr::V4(address)) => Self::Address(address.to_ipv6_mapped().octets()),
                    Some(IpAddr::V6(address)) => Self::Address(address.octets()),
                    None => Self::Anybody,
                }
            }
        }
    }

    /// Its key in a table of callers.
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Anybody => None,
            Self::Value(value) => Some(value),
            Self::Address(octets) => Some(octets),
        }
    }
}
