//! What is said to a service of external authorization and what it says: `envoy.service.auth.v3.Authorization`, of its
//! messages the fields that we use, under their own numbers; and the same by plain HTTP.
//! <https://github.com/envoyproxy/envoy/blob/main/api/envoy/service/auth/v3/external_auth.proto>
//!
//! An answer that could not be carried out to the letter is none: half of what a service wants may be all that it must
//! not become.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use outrigger_proto::model::{CheckUse, SpiffeId};
use prost::Message;

use super::fields::{Change, Field, How, is_ours};
use crate::facts::{Beginning, ReqHead};
use crate::routing::QueryEdit;

/// Where the question is put.
pub const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Says whether a service was shown a whole body.
pub const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");
/// In a 200 of a service that is asked by HTTP: fields that the request must lose, with commas between them.
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// Whether it is asked at all about requests of a route that says this, where a listener asks.
pub fn is_asked(of_route: Option<&CheckUse>) -> bool {
    match of_route {
        Some(CheckUse::None) => false,
        Some(CheckUse::Context(_)) | None => true,
    }
}

/// What a service is told of a request.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// Of the request, to find it again.
    pub id: Cow<'a, str>,
    /// When it came, since 1970.
    pub at: Duration,
    /// Who sent it.
    pub source: Peer<'a>,
    /// Who got it: we.
    pub destination: Peer<'a>,
    /// Whom the client asked for in its TLS handshake.
    pub sni: Option<&'a str>,
    /// Its head.
    pub head: ReqHead<'a>,
    /// Its path and query, in the form in which it was routed.
    pub target: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// With which it came.
    pub version: Version,
    /// Which of its fields the service is shown; `None` shows all.
    pub show: Option<&'a [HeaderName]>,
    /// Its body, where that is shown.
    pub body: Option<&'a Beginning>,
}

/// One end of the client's connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Where it is; `None` for a unix socket.
    pub address: Option<SocketAddr>,
    /// Who it has proven to be.
    pub identity: Option<&'a SpiffeId>,
}

/// What a service decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The request is let in, with these changes.
    Allowed(Allowed),
    /// It is answered with this.
    Denied(Denied),
}

/// What is changed about a request that is let in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allowed {
    /// Of its fields.
    pub request: Vec<Change>,
    /// Fields that it loses, after that.
    pub remove: Vec<HeaderName>,
    /// Parameters of its query.
    pub query: QueryEdit,
    /// Of its answer's fields.
    pub response: Vec<Change>,
}

/// The answer to a request that is not let in.
#[derive(Clone, Debug, PartialEq)]
pub struct Denied {
    /// Not one of the 1xx.
    pub status: StatusCode,
    /// Without what frames it.
    pub headers: HeaderMap,
    /// What it says.
    pub body: Bytes,
}

impl Question<'_> {
    /// A `CheckRequest`.
    pub fn encode(&self, listener: &BTreeMap<Box<str>, Box<str>>, route: Option<&CheckUse>) -> Vec<u8> {
        let of_route = match route {
            Some(CheckUse::Context(context)) => Some(context),
            Some(CheckUse::None) | None => None,
        };
        let texts = listener.iter().chain(of_route.into_iter().flatten());
        let attributes = Attributes {
            source: Some(self.source.encode()),
            destination: Some(self.destination.encode()),
            request: Some(RequestAttributes { time: Some(Span::of(self.at)), http: Some(self.http()) }),
            // What a route says replaces what its listener says.
            context_extensions: texts.map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            tls_session: self.sni.map(|sni| TlsSession { sni: sni.to_owned() }),
        };
        CheckRequest { attributes: Some(attributes) }.encode_to_vec()
    }

    fn http(&self) -> HttpRequest {
        let Self { head, target, scheme, .. } = self;
        let mut http = HttpRequest {
            id: self.id.to_string(),
            method: head.method.to_string(),
            headers: self.headers(),
            path: (*target).to_owned(),
            host: head.host.to_owned(),
            scheme: (*scheme).to_owned(),
            size: self.size(),
            protocol: match self.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2",
                _ => "HTTP/1.1",
            }
            .to_owned(),
            body: String::new(),
            raw_body: Vec::new(),
        };
        if let Some(Beginning { bytes, .. }) = self.body {
            // Protobuf has no texts but UTF-8: whoever reads bytes sees what a text cannot hold, or had its end cut off.
            let text = String::from_utf8_lossy(bytes);
            if matches!(text, Cow::Owned(_)) {
                http.raw_body = bytes.to_vec();
            }
            http.body = text.into_owned();
        }
        http
    }

    /// Bytes of the body, as far as they are known; -1 where they are not.
    fn size(&self) -> i64 {
        match self.body {
            Some(Beginning { bytes, partial: false }) => i64::try_from(bytes.len()).unwrap_or(i64::MAX),
            Some(_) | None => {
                let said = self.head.headers.get(http::header::CONTENT_LENGTH);
                said.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(-1)
            }
        }
    }

    /// The fields that are shown. What is said of the body is ours to say.
    pub fn shown(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let shows = |name: &HeaderName| self.show.is_none_or(|show| show.contains(name));
        let is_told = |name: &HeaderName| *name != http::header::HOST && *name != PARTIAL_BODY;
        self.head.headers.iter().filter(move |(name, _)| shows(name) && is_told(name))
    }

    /// The fields by name, those that are repeated joined (RFC 9110 section 5.3), and the head beside them, as Envoy has it.
    fn headers(&self) -> BTreeMap<String, String> {
        let mut headers = BTreeMap::new();
        let head = [
            (":method", self.head.method.as_str()),
            (":path", self.target),
            (":authority", self.head.host),
            (":scheme", self.scheme),
        ];
        headers.extend(head.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if let Some(Beginning { partial, .. }) = self.body {
            headers.insert(PARTIAL_BODY.to_string(), partial.to_string());
        }
        for (name, value) in self.shown() {
            // Whoever sends something else is seen all the same.
            let value = String::from_utf8_lossy(value.as_bytes());
            match headers.get_mut(name.as_str()) {
                Some(known) if *name == http::header::COOKIE => *known += &format!("; {value}"),
                Some(known) => *known += &format!(",{value}"),
                None => drop(headers.insert(name.to_string(), value.into_owned())),
            }
        }
        headers
    }
}

impl Peer<'_> {
    fn encode(self) -> PeerAttributes {
        let socket = |address: SocketAddr| SocketAddress {
            address: address.ip().to_canonical().to_string(),
            port_value: address.port().into(),
        };
        PeerAttributes {
            address: self.address.map(|address| Address { socket_address: Some(socket(address)) }),
            principal: self.identity.map_or_else(String::new, SpiffeId::to_string),
        }
    }
}

/// Reads a `CheckResponse`; `None` when it is none, or could not be carried out.
pub fn by_grpc(message: &[u8]) -> Option<Verdict> {
    let CheckResponse { status, denied_response, ok_response, error_response } =
        CheckResponse::decode(message).ok()?;
    // Its own error is no decision.
    if error_response.is_some() {
        return None;
    }
    if status.unwrap_or_default().code == 0 {
        let OkResponse { headers, headers_to_remove, response_headers_to_add, query_to_set, query_to_remove } =
            ok_response.unwrap_or_default();
        let pair = |QueryParameter { key, value }| (key, value);
        return Some(Verdict::Allowed(Allowed {
            request: changes(headers, HeaderOption::of_request)?,
            remove: removed(headers_to_remove.iter().map(String::as_str)),
            query: QueryEdit::new(query_to_set.into_iter().map(pair).collect(), query_to_remove)?,
            response: changes(response_headers_to_add, HeaderOption::of_response)?,
        }));
    }
    let DeniedResponse { status, headers, body } = denied_response.unwrap_or_default();
    let status = match status.unwrap_or_default().code {
        0 => StatusCode::FORBIDDEN,
        code => final_status(u16::try_from(code).ok()?)?,
    };
    let mut fields = HeaderMap::new();
    // There is nothing to replace; two of a name are two.
    changes(headers, |_| Some(How::Append))?.into_iter().for_each(|change| change.apply(&mut fields));
    Some(Verdict::Denied(denied(status, fields, body.into())))
}

/// Reads an answer by HTTP: 200 lets a request in, with those of the fields that are named; a 5xx, and a 1xx, decides
/// nothing.
pub fn by_http(
    (status, headers): (StatusCode, &HeaderMap),
    body: Bytes,
    (to_request, to_response): (&[HeaderName], &[HeaderName]),
) -> Option<Verdict> {
    if status != StatusCode::OK {
        let decides = final_status(status.as_u16()).is_some() && !status.is_server_error();
        let fields = headers.iter().filter(|(name, _)| !is_ours(name) && *name != TO_REMOVE);
        let fields = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
        return decides.then(|| Verdict::Denied(denied(status, fields, body)));
    }
    let taken = |names: &[HeaderName], first: How| -> Vec<_> {
        let each = |name: &HeaderName| {
            let name = name.clone();
            headers.get_all(name.clone()).into_iter().enumerate().map(move |(place, value)| Change {
                name: name.clone(),
                value: value.clone(),
                how: if place == 0 { first } else { How::Append },
            })
        };
        names.iter().flat_map(each).collect()
    };
    let mut remove = Vec::new();
    for value in headers.get_all(TO_REMOVE) {
        remove.extend(removed(value.to_str().ok()?.split(',').map(str::trim)));
    }
    Some(Verdict::Allowed(Allowed {
        request: taken(to_request, How::Set),
        remove,
        query: QueryEdit::default(),
        // The service behind us may say the same, and means something else by it: two cookies are two.
        response: taken(to_response, How::Append),
    }))
}

/// The answer to a request that is not let in.
fn denied(status: StatusCode, mut headers: HeaderMap, body: Bytes) -> Denied {
    let silent = matches!(status.as_u16(), 204 | 205 | 304);
    let body = if silent { Bytes::new() } else { body };
    if !body.is_empty() {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    Denied { status, headers, body }
}

fn final_status(code: u16) -> Option<StatusCode> {
    StatusCode::from_u16(code).ok().filter(|status| (200..600).contains(&status.as_u16()))
}

/// All of the changes, or none: of those that are ours to make, as if they had not been asked for.
fn changes(fields: Vec<HeaderOption>, how: impl Fn(&HeaderOption) -> Option<How>) -> Option<Vec<Change>> {
    let mut changes = Vec::with_capacity(fields.len());
    for field in fields {
        let how = how(&field)?;
        let (name, value) = field.header?.parse()?;
        if !is_ours(&name) {
            changes.push(Change { name, value, how });
        }
    }
    Some(changes)
}

/// Fields that are none, and such that a message cannot lose, are passed over, as the protocol says.
fn removed<'a>(names: impl Iterator<Item = &'a str>) -> Vec<HeaderName> {
    names.filter_map(|name| HeaderName::try_from(name).ok()).filter(|name| !is_ours(name)).collect()
}

impl HeaderOption {
    /// For a request: what is there is replaced, unless it is to be added to. That what is there may stay
    /// (`append_action`) is not for it: it would be a client's word over the service's.
    fn of_request(&self) -> Option<How> {
        Some(if self.append == Some(true) { How::Append } else { How::Set })
    }

    /// For an answer.
    fn of_response(&self) -> Option<How> {
        match self.append {
            Some(append) => Some(if append { How::Append } else { How::Set }),
            None => how(self.append_action),
        }
    }
}

/// By number.
fn how(action: i32) -> Option<How> {
    match action {
        0 => Some(How::Append),
        1 => Some(How::IfAbsent),
        2 => Some(How::Set),
        3 => Some(How::IfPresent),
        _ => None,
    }
}

/// `CheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

/// `AttributeContext`.
#[derive(Clone, PartialEq, Message)]
struct Attributes {
    #[prost(message, optional, tag = "1")]
    source: Option<PeerAttributes>,
    #[prost(message, optional, tag = "2")]
    destination: Option<PeerAttributes>,
    #[prost(message, optional, tag = "4")]
    request: Option<RequestAttributes>,
    #[prost(btree_map = "string, string", tag = "10")]
    context_extensions: BTreeMap<String, String>,
    #[prost(message, optional, tag = "12")]
    tls_session: Option<TlsSession>,
}

/// `AttributeContext.Peer`.
#[derive(Clone, PartialEq, Message)]
struct PeerAttributes {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
    #[prost(string, tag = "4")]
    principal: String,
}

/// `envoy.config.core.v3.Address`.
#[derive(Clone, PartialEq, Message)]
struct Address {
    #[prost(message, optional, tag = "1")]
    socket_address: Option<SocketAddress>,
}

/// `envoy.config.core.v3.SocketAddress`.
#[derive(Clone, PartialEq, Message)]
struct SocketAddress {
    #[prost(string, tag = "2")]
    address: String,
    #[prost(uint32, tag = "3")]
    port_value: u32,
}

/// `AttributeContext.Request`.
#[derive(Clone, PartialEq, Message)]
struct RequestAttributes {
    #[prost(message, optional, tag = "1")]
    time: Option<Span>,
    #[prost(message, optional, tag = "2")]
    http: Option<HttpRequest>,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Message)]
struct Span {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl Span {
    fn of(time: Duration) -> Self {
        let nanos = time.subsec_nanos().try_into().unwrap_or(0);
        Self { seconds: time.as_secs().try_into().unwrap_or(i64::MAX), nanos }
    }
}

/// `AttributeContext.HttpRequest`.
#[derive(Clone, PartialEq, Message)]
struct HttpRequest {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(btree_map = "string, string", tag = "3")]
    headers: BTreeMap<String, String>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
    #[prost(string, tag = "6")]
    scheme: String,
    #[prost(int64, tag = "9")]
    size: i64,
    #[prost(string, tag = "10")]
    protocol: String,
    #[prost(string, tag = "11")]
    body: String,
    #[prost(bytes = "vec", tag = "12")]
    raw_body: Vec<u8>,
}

/// `AttributeContext.TLSSession`.
#[derive(Clone, PartialEq, Message)]
struct TlsSession {
    #[prost(string, tag = "1")]
    sni: String,
}

/// `CheckResponse`. Only one of the responses is written.
#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(message, optional, tag = "2")]
    denied_response: Option<DeniedResponse>,
    #[prost(message, optional, tag = "3")]
    ok_response: Option<OkResponse>,
    #[prost(message, optional, tag = "5")]
    error_response: Option<()>,
}

/// `google.rpc.Status`, and `envoy.type.v3.HttpStatus`, which begins alike.
#[derive(Clone, Copy, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
}

/// `DeniedHttpResponse`.
#[derive(Clone, PartialEq, Message)]
struct DeniedResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderOption>,
    #[prost(string, tag = "3")]
    body: String,
}

/// `OkHttpResponse`.
#[derive(Clone, PartialEq, Message)]
struct OkResponse {
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderOption>,
    #[prost(string, repeated, tag = "5")]
    headers_to_remove: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    response_headers_to_add: Vec<HeaderOption>,
    #[prost(message, repeated, tag = "7")]
    query_to_set: Vec<QueryParameter>,
    #[prost(string, repeated, tag = "8")]
    query_to_remove: Vec<String>,
}

/// `envoy.config.core.v3.HeaderValueOption`.
#[derive(Clone, PartialEq, Message)]
struct HeaderOption {
    #[prost(message, optional, tag = "1")]
    header: Option<Field>,
    /// A `google.protobuf.BoolValue`, which prost has as what it wraps.
    #[prost(message, optional, tag = "2")]
    append: Option<bool>,
    #[prost(int32, tag = "3")]
    append_action: i32,
}

/// `envoy.config.core.v3.QueryParameter`.
#[derive(Clone, PartialEq, Message)]
struct QueryParameter {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[cfg(test)]
#[path = "ext_authz_tests.rs"]
mod tests;
