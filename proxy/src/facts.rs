//! What is known about a connection or a request, as plain data: what decides reads this and nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use outrigger_proto::model::{Origin, SpiffeId, Transport};
use rustls::pki_types::CertificateDer;

/// The head of a request, as everything that decides sees it.
#[derive(Clone, Copy, Debug)]
pub struct ReqHead<'a> {
    /// The request's host, as the client wrote it: letter case and a port included.
    pub host: &'a str,
    /// The canonical path (see `http::path`), without the query.
    pub path: &'a str,
    /// The query, without the `?`.
    pub query: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// The header fields.
    pub headers: &'a HeaderMap,
}

/// As much of a request's body as was read before anything was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beginning {
    /// Its bytes.
    pub bytes: Bytes,
    /// There are more.
    pub partial: bool,
}

/// What a TLS handshake has told of a client.
#[derive(Debug, Default)]
pub struct Proven {
    /// Who it is, by a certificate that was checked against its trust domain.
    pub identity: Option<SpiffeId>,
    /// Whom it asked for (RFC 6066 section 3), in lower case.
    pub sni: Option<Box<str>>,
    /// What is passed on of its certificate, as `x-forwarded-client-cert`.
    pub certificate: Option<HeaderValue>,
    /// What [`identity`](Self::identity) was proven with.
    pub proof: Option<Proof>,
}

/// What an identity was proven with: whether it is still believed may be asked again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proof {
    /// Leaf first.
    pub chain: Box<[CertificateDer<'static>]>,
    /// When that was good, since 1970.
    pub at: Duration,
}

/// Who is at the other end of a connection, as everything that decides sees it.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Who it has proven to be.
    pub identity: Option<&'a SpiffeId>,
    /// Where it is; `None` for a unix socket.
    pub source: Option<IpAddr>,
    /// Whom it asked for in the TLS handshake, in lower case.
    pub sni: Option<&'a str>,
    /// The port of ours that it came to; `None` for a unix socket.
    pub port: Option<u16>,
}

/// What a token says that was checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims(pub serde_json::Map<String, serde_json::Value>);

/// What is known of a connection when it begins.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    /// Where it came to; `None` for a unix socket.
    pub to: Option<SocketAddr>,
    /// Where it comes from; `None` for a unix socket.
    pub from: Option<SocketAddr>,
    /// What its TLS begins with; `None` in the clear, or where nobody looked.
    pub hello: Option<Greeting>,
}

/// What a ClientHello says that chains are told apart by.
#[derive(Clone, Debug, Default)]
pub struct Greeting {
    /// The host that is named, in lower case.
    pub host: Option<Box<str>>,
    /// What could be spoken inside, what is liked best first.
    pub protocols: Vec<Box<[u8]>>,
}

impl Arrival {
    /// Whether it begins with TLS.
    pub fn transport(&self) -> Transport {
        if self.hello.is_some() { Transport::Tls } else { Transport::Clear }
    }

    /// The address that it came to, in one form for both families.
    pub fn destination(&self) -> Option<IpAddr> {
        self.to.map(|to| to.ip().to_canonical())
    }

    /// The address that it comes from, in one form for both families.
    pub fn source(&self) -> Option<IpAddr> {
        self.from.map(|from| from.ip().to_canonical())
    }

    /// Whether it comes from this machine.
    pub fn origin(&self) -> Origin {
        // As Envoy has it: of 127.0.0.0/8 this one alone.
        const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let from = self.source();
        let local = from == self.destination() || from.is_none_or(|from| LOOPBACK.contains(&from));
        if local { Origin::Local } else { Origin::External }
    }
}
