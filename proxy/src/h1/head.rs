//! Heads as HTTP/1.1 writes them (RFC 9112 sections 2 to 5).
//!
//! What is read has passed the framing guard: its lines end in CRLF, names are tokens, values hold no control character,
//! and the fields that frame the body stand there once. So it is only cut here.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::ext::ReasonPhrase;

use crate::body::Body;
use crate::io::spelling::{Speller, Spelling, Written};

/// Bytes of a request's target; a longer one is refused. What the `http` crate has room for.
const MOST_TARGET: usize = u16::MAX as usize - 1;
/// `HTTP/1.1 200 `: where the reason begins.
const REASON: usize = 13;

/// How a body is told from what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By its length; so many bytes are still to come.
    Length(u64),
    /// By the chunked coding.
    Chunked {
        /// Trailers have a place in it.
        trailers: bool,
    },
    /// It ends with the connection.
    UntilClose,
}

/// Writes a request's head behind what is there; how its body is framed.
pub fn write_request(out: &mut Vec<u8>, request: &Request<Body>, names: Option<&Spelling>) -> Framing {
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    write_target(out, request.uri());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut speller = Speller::new(names);
    let mut length = None;
    for (name, value) in request.headers() {
        match *name {
            header::CONTENT_LENGTH if !takes_length(&mut length, value) => continue,
            header::TRANSFER_ENCODING => continue,
            _ => {}
        }
        write_field(out, speller.spell(name.as_str()), value);
    }
    let framing = if request.body().is_end_stream() {
        Framing::Length(0)
    } else {
        framing(out, length, request.body(), Framing::Chunked { trailers: true })
    };
    out.extend_from_slice(b"\r\n");
    framing
}

/// The target as the request has it: of a proxied request it is in origin form, of a CONNECT it is the authority.
fn write_target(out: &mut Vec<u8>, uri: &Uri) {
    match (uri.authority(), uri.path_and_query()) {
        (None, Some(target)) if !target.as_str().is_empty() => {
            out.extend_from_slice(target.as_str().as_bytes());
        }
        (Some(authority), None) => out.extend_from_slice(authority.as_str().as_bytes()),
        _ => out.extend_from_slice(uri.to_string().as_bytes()),
    }
}

/// Says how long a body is that there is, where the head has not said so already (RFC 9112 section 6).
fn framing(out: &mut Vec<u8>, said: Option<u64>, body: &Body, otherwise: Framing) -> Framing {
    if let Some(length) = said {
        return Framing::Length(length);
    }
    if let Some(length) = body.size_hint().exact() {
        write_field(out, b"content-length", &HeaderValue::from(length));
        return Framing::Length(length);
    }
    if let Framing::Chunked { .. } = otherwise {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    otherwise
}

/// Whether a `content-length` is one, and the first: HTTP/2 lets the same length stand there twice.
fn takes_length(length: &mut Option<u64>, value: &HeaderValue) -> bool {
    let said = value.to_str().ok().and_then(|value| value.trim().parse().ok());
    let is_taken = length.is_none() && said.is_some();
    *length = length.or(said);
    is_taken
}

fn write_field(out: &mut Vec<u8>, name: &[u8], value: &HeaderValue) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// What of a request decides how its answer is framed, and whether the connection persists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// It is a HEAD, so that no answer to it has content; a CONNECT, so that no success has.
    pub head: bool,
    /// See `head`.
    pub connect: bool,
    /// It is of HTTP/1.0, which knows no chunks.
    pub is_1_0: bool,
    /// The connection may serve another request after this one.
    pub persists: bool,
    /// Trailers are welcome.
    pub trailers: bool,
}

/// Writes a response's head behind what is there; how its body is framed, and whether the connection persists after it.
/// `date` is written where the response has none (RFC 9110 section 6.6.1); `more` writes lines beside the response's own.
pub fn write_response(
    out: &mut Vec<u8>,
    response: &Response<Body>,
    asked: Asked,
    (names, date, more): (Option<&Spelling>, &[u8], impl FnOnce(&mut Vec<u8>)),
) -> (Framing, bool) {
    let status = response.status();
    // What follows is no HTTP to whoever asked, be there a tunnel or not (RFC 9110 section 9.3.6).
    let is_tunnel = asked.connect && status.is_success();
    write_status_line(out, response, asked.is_1_0);
    let mut speller = Speller::new(names);
    let (mut length, mut has_date, mut is_connection_said) = (None, status.is_informational(), false);
    let mut persists = asked.persists && !is_tunnel;
    for (name, value) in response.headers() {
        match *name {
            header::CONTENT_LENGTH if is_tunnel || !takes_length(&mut length, value) => continue,
            header::TRANSFER_ENCODING => continue,
            header::DATE => has_date = true,
            header::CONNECTION => {
                is_connection_said = true;
                persists &= !names_option(value, "close");
            }
            _ => {}
        }
        write_field(out, speller.spell(name.as_str()), value);
    }
    let no_content = asked.head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || is_tunnel;
    let framing = if no_content {
        Framing::Length(0)
    } else {
        let otherwise =
            if asked.is_1_0 { Framing::UntilClose } else { Framing::Chunked { trailers: asked.trailers } };
        framing(out, length, response.body(), otherwise)
    };
    persists &= framing != Framing::UntilClose;
    if !is_connection_said && !is_tunnel {
        if !persists && !status.is_informational() {
            out.extend_from_slice(b"connection: close\r\n");
        } else if asked.is_1_0 {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
    }
    if !has_date {
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n");
    }
    more(out);
    out.extend_from_slice(b"\r\n");
    (framing, persists)
}

fn write_status_line(out: &mut Vec<u8>, response: &Response<Body>, is_1_0: bool) {
    let status = response.status();
    out.extend_from_slice(if is_1_0 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    match response.extensions().get::<ReasonPhrase>() {
        Some(reason) => out.extend_from_slice(reason.as_bytes()),
        None => out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the last chunk and a trailer section, without the fields that have no place in one (RFC 9110 section 6.5.1).
pub(super) fn write_trailers(out: &mut Vec<u8>, trailers: &HeaderMap) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.iter().filter(|(name, _)| !NO_TRAILERS.contains(name)) {
        write_field(out, name.as_str().as_bytes(), value);
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

/// The head of a request, read.
#[derive(Debug)]
pub struct RequestHead {
    /// The request, without its body.
    pub request: Request<()>,
    /// What of it decides about its answer.
    pub asked: Asked,
    /// Its body is sent when it is asked for (RFC 9110 section 10.1.1).
    pub expects: bool,
    /// How its names are spelt, where that is not in lower case.
    pub spelling: Option<Spelling>,
}

/// Why a head that is well framed is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It has more fields than it may have.
    TooManyFields,
    /// Its target is longer than any may be.
    TargetTooLong,
    /// Its method, target or status is none.
    Line,
}

/// Reads the head of a request, its empty line included, which may have so many fields.
///
/// # Errors
/// See [`Malformed`].
pub fn read_request(head: &Bytes, most_fields: usize) -> Result<RequestHead, Malformed> {
    // An empty line may stand before it (RFC 9112 section 2.2).
    let begin = if head.starts_with(b"\r\n") { 2 } else { 0 };
    let find = |from: usize| memchr::memchr(b' ', &head[from..]).map(|at| from + at).ok_or(Malformed::Line);
    let method = find(begin)?;
    let target = find(method + 1)?;
    let start = line(head, target).ok_or(Malformed::Line)?;
    if target - method > MOST_TARGET {
        return Err(Malformed::TargetTooLong);
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(&head[begin..method]).map_err(|_| Malformed::Line)?;
    *request.uri_mut() =
        Uri::from_maybe_shared(head.slice(method + 1..target)).map_err(|_| Malformed::Line)?;
    let is_1_0 = head.get(start - 3) == Some(&b'0');
    *request.version_mut() = if is_1_0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let fields = read_fields(request.headers_mut(), head, start, (most_fields, is_1_0))?;
    let Fields { spelling, persists, trailers, expects } = fields;
    let (is_head, connect) = (*request.method() == Method::HEAD, *request.method() == Method::CONNECT);
    let asked = Asked { head: is_head, connect, is_1_0, persists, trailers };
    Ok(RequestHead { request, asked, expects: expects && !is_1_0, spelling })
}

/// The head of a response, read.
#[derive(Debug)]
pub struct ResponseHead {
    /// The response, without its body. A reason that is not the usual one is an extension.
    pub response: Response<()>,
    /// The connection may serve another request after this one.
    pub persists: bool,
    /// How its names are spelt, where that is not in lower case.
    pub spelling: Option<Spelling>,
}

/// Fields in the head of a response, or in a trailer section; one with more is refused.
const MOST_FIELDS: usize = 100;

/// Reads the head of a response, its empty line included.
///
/// # Errors
/// See [`Malformed`].
pub fn read_response(head: &Bytes) -> Result<ResponseHead, Malformed> {
    let status = status(head).ok_or(Malformed::Line)?;
    let start = line(head, 0).ok_or(Malformed::Line)?;
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
    let fields = read_fields(response.headers_mut(), head, start, (MOST_FIELDS, is_1_0))?;
    Ok(ResponseHead { response, persists: fields.persists, spelling: fields.spelling })
}

/// The status of a response's head that has begun with a whole line.
pub fn status(head: &[u8]) -> Option<StatusCode> {
    StatusCode::from_bytes(head.get(REASON - 4..REASON - 1)?).ok()
}

/// Reads a trailer section, its empty line included.
pub(super) fn read_trailers(section: &Bytes) -> Result<HeaderMap, Malformed> {
    let mut trailers = HeaderMap::new();
    read_fields(&mut trailers, section, 0, (MOST_FIELDS, false))?;
    Ok(trailers)
}

/// What there is to know of fields beside the map of them.
struct Fields {
    spelling: Option<Spelling>,
    /// RFC 9112 section 9.3.
    persists: bool,
    /// `te: trailers`.
    trailers: bool,
    /// `expect: 100-continue`.
    expects: bool,
}

/// Room for fields that we add.
const OURS: usize = 4;

fn read_fields(
    fields: &mut HeaderMap,
    section: &Bytes,
    start: usize,
    (most, is_1_0): (usize, bool),
) -> Result<Fields, Malformed> {
    let mut written = Written::default();
    let (mut close, mut keep_alive, mut trailers, mut expects) = (false, false, false, false);
    let mut left = most;
    let mut at = start;
    // A map that grows is built anew. Where there is no room for so many, they will not all be taken either.
    let lines = memchr::memchr_iter(b'\n', section.get(start..).unwrap_or_default()).count();
    let _ = fields.try_reserve(lines.min(most) + OURS);
    while section.get(at).is_some_and(|first| *first != b'\r') {
        let colon = at + section[at..].iter().position(|byte| *byte == b':').ok_or(Malformed::Line)?;
        let end = line(section, colon).ok_or(Malformed::Line)?;
        left = left.checked_sub(1).ok_or(Malformed::TooManyFields)?;
        let spelt = &section[at..colon];
        let name = HeaderName::from_bytes(spelt).map_err(|_| Malformed::Line)?;
        written.note(spelt, name.as_str().as_bytes() != spelt);
        let value = section.slice_ref(section[colon + 1..end].trim_ascii());
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Malformed::Line)?;
        match name {
            header::CONNECTION => {
                close |= names_option(&value, "close");
                keep_alive |= names_option(&value, "keep-alive");
            }
            header::TE => trailers |= names_option(&value, "trailers"),
            header::EXPECT => expects |= names_option(&value, "100-continue"),
            _ => {}
        }
        fields.try_append(name, value).map_err(|_| Malformed::TooManyFields)?;
        at = end;
    }
    let persists = !close && (keep_alive || !is_1_0);
    Ok(Fields { spelling: written.into_spelling(), persists, trailers, expects })
}

/// Where the line ends that goes on from there.
fn line(bytes: &[u8], at: usize) -> Option<usize> {
    memchr::memchr(b'\n', &bytes[at..]).map(|length| at + length + 1)
}

/// Whether a list has this option.
fn names_option(value: &HeaderValue, option: &str) -> bool {
    let mut said = value.as_bytes().split(|byte| *byte == b',');
    said.any(|said| said.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
}
