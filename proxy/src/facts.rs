//! What is known about a connection or a request, as plain data: what decides reads this and nothing else.

use http::{HeaderMap, HeaderValue, Method};
use outrigger_proto::model::SpiffeId;
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

/// What a TLS handshake has told of a client.
#[derive(Debug, Default)]
pub struct Proven {
    /// Who it is, by a certificate that was checked against its trust domain.
    pub identity: Option<SpiffeId>,
    /// Whom it asked for (RFC 6066 section 3), in lower case.
    pub sni: Option<Box<str>>,
    /// What is passed on of its certificate, as `x-forwarded-client-cert`.
    pub certificate: Option<HeaderValue>,
    /// What [`identity`](Self::identity) was proven with, leaf first: whether it is still believed may be asked again.
    pub chain: Box<[CertificateDer<'static>]>,
}
