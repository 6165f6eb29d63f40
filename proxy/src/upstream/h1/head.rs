//! Heads as HTTP/1.1 writes them (RFC 9112 sections 2 to 5): a request's is written, a response's read.
//!
//! What is read has passed the framing guard: its lines end in CRLF, names are tokens, values hold no control character,
//! and the fields that frame the body stand there once. So it is only cut here.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::ext::ReasonPhrase;

use crate::body::Body;
use crate::io::spelling::{Spelling, respell, spelling};

/// Fields in a head, or in a trailer section; one with more is refused.
const MOST_FIELDS: usize = 100;
/// `HTTP/1.1 200 `: where the reason begins.
const REASON: usize = 13;

/// How a request's body is told from what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its length; so many bytes are still to come.
    Length(u64),
    /// By the chunked coding.
    Chunked,
}

/// Writes a request's head, in place of what is there.
pub(super) fn write(out: &mut Vec<u8>, request: &Request<Body>, names: Option<&Spelling>) -> Framing {
    out.clear();
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    write_target(out, request);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut length = None;
    for (name, value) in request.headers() {
        if name == header::CONTENT_LENGTH {
            length = value.to_str().ok().and_then(|value| value.trim().parse().ok());
        }
        write_field(out, name, value);
    }
    let framing = write_framing(out, request.body(), length);
    out.extend_from_slice(b"\r\n");
    if let Some(names) = names {
        respell(out, names);
    }
    framing
}

/// The target as the request has it: of a proxied request it is in origin form, of a CONNECT it is the authority.
fn write_target(out: &mut Vec<u8>, request: &Request<Body>) {
    let uri = request.uri();
    match (uri.authority(), uri.path_and_query()) {
        (None, Some(target)) if !target.as_str().is_empty() => {
            out.extend_from_slice(target.as_str().as_bytes())
        }
        (Some(authority), None) => out.extend_from_slice(authority.as_str().as_bytes()),
        _ => out.extend_from_slice(uri.to_string().as_bytes()),
    }
}

/// Says how long the body is where the head has not said so already (RFC 9112 section 6).
fn write_framing(out: &mut Vec<u8>, body: &Body, said: Option<u64>) -> Framing {
    if body.is_end_stream() {
        return Framing::Length(0);
    }
    if let Some(length) = said {
        return Framing::Length(length);
    }
    match body.size_hint().exact() {
        Some(length) => {
            write_field(out, &header::CONTENT_LENGTH, &HeaderValue::from(length));
            Framing::Length(length)
        }
        None => {
            write_field(out, &header::TRANSFER_ENCODING, &HeaderValue::from_static("chunked"));
            Framing::Chunked
        }
    }
}

fn write_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes the last chunk and a trailer section, without the fields that have no place in one (RFC 9110 section 6.5.1).
pub(super) fn write_trailers(out: &mut Vec<u8>, trailers: &HeaderMap) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.iter().filter(|(name, _)| !NO_TRAILERS.contains(name)) {
        write_field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

/// Fields that frame a message, route it, change how it is understood, or say who asks.
static NO_TRAILERS: [HeaderName; 14] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::HOST,
    header::MAX_FORWARDS,
    header::SET_COOKIE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// A head that was read.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    /// The connection may serve another request after this one.
    pub(super) persists: bool,
    /// How its names are spelt, where that is not in lower case.
    pub(super) spelling: Option<Spelling>,
}

/// Reads the head of a response, its empty line included; `None` of what is no head, or too many fields.
pub(super) fn read(head: &Bytes) -> Option<Head> {
    let status = status(head)?;
    let start = line(head, 0)?;
    let mut response = Response::new(());
    *response.status_mut() = status;
    let is_1_0 = head.get(7) == Some(&b'0');
    *response.version_mut() = if is_1_0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let reason = head.get(REASON..start.saturating_sub(2)).unwrap_or_default();
    if status.canonical_reason().is_none_or(|usual| usual.as_bytes() != reason)
        && let Ok(reason) = ReasonPhrase::try_from(reason)
    {
        response.extensions_mut().insert(reason);
    }
    let capitals = read_fields(response.headers_mut(), head, start)?;
    let persists = persists(response.headers(), is_1_0);
    let spelling = if capitals { spelling(Names { head, at: start }) } else { None };
    Some(Head { response, persists, spelling })
}

/// The status of a head that has begun with a whole line.
pub(super) fn status(head: &[u8]) -> Option<StatusCode> {
    StatusCode::from_bytes(head.get(REASON - 4..REASON - 1)?).ok()
}

/// Reads a trailer section, its empty line included.
pub(super) fn read_trailers(section: &Bytes) -> Option<HeaderMap> {
    let mut trailers = HeaderMap::new();
    read_fields(&mut trailers, section, 0)?;
    Some(trailers)
}

/// Whether a name has a capital letter; `None` of more fields than there may be.
fn read_fields(fields: &mut HeaderMap, section: &Bytes, start: usize) -> Option<bool> {
    let mut capitals = false;
    let mut left = MOST_FIELDS;
    let mut at = start;
    fields.reserve(8);
    while section.get(at).is_some_and(|first| *first != b'\r') {
        let end = line(section, at)?;
        let colon = at + memchr::memchr(b':', &section[at..end])?;
        let name = &section[at..colon];
        capitals |= name.iter().any(u8::is_ascii_uppercase);
        let name = HeaderName::from_bytes(name).ok()?;
        let value = section[colon + 1..end].trim_ascii();
        let value = HeaderValue::from_maybe_shared(section.slice_ref(value)).ok()?;
        left = left.checked_sub(1)?;
        fields.try_append(name, value).ok()?;
        at = end;
    }
    Some(capitals)
}

/// Where the line ends that begins there.
fn line(bytes: &[u8], at: usize) -> Option<usize> {
    memchr::memchr(b'\n', &bytes[at..]).map(|length| at + length + 1)
}

/// The names of a head, as they are written.
struct Names<'a> {
    head: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Names<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = &self.head[self.at..];
        let colon = memchr::memchr(b':', rest)?;
        self.at = line(self.head, self.at)?;
        Some(&rest[..colon])
    }
}

/// RFC 9112 section 9.3.
fn persists(fields: &HeaderMap, is_1_0: bool) -> bool {
    let says = |option: &str| {
        let values = fields.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|said| said.trim().eq_ignore_ascii_case(option))
    };
    if is_1_0 { says("keep-alive") && !says("close") } else { !says("close") }
}
