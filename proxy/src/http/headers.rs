//! What must be changed in every message, whatever the routes say: fields that concern one hop only (RFC 9110 section
//! 7.6.1), and the fields that say who asked (`x-forwarded-*`), which nobody may forge.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use ipnet::IpNet;
use outrigger_proto::model::Protocol;

use super::call::Wanted;
use crate::body::Body;
use crate::conn::Conn;
use crate::error::ProxyError;
use crate::facts::ReqHead;
use crate::upstream::UpstreamError;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// How often a request has been sent, by whoever sends it on; absent the first time.
pub const X_OUTRIGGER_ATTEMPT: HeaderName = HeaderName::from_static("x-outrigger-attempt");

/// On an answer that is still bad after its sender has tried again, or has no attempt left to try with: whoever gets it
/// need not.
pub const X_OUTRIGGER_RETRIED: HeaderName = HeaderName::from_static("x-outrigger-retried");

/// Fields that `connection` may not name away: who asked, and what.
const PROTECTED: [HeaderName; 8] = [
    header::HOST,
    header::AUTHORIZATION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
];

/// The host that a request names: `:authority` or an absolute target before the `host` field (RFC 9112 section
/// 3.2.2). `None` when there is none, more than one, or what is there is not a host.
pub fn checked_host(request: &Request<Body>) -> Option<&str> {
    if request.uri().authority().is_none() && request.headers().get_all(header::HOST).iter().nth(1).is_some()
    {
        return None;
    }
    let host = host(request)?;
    (!host.is_empty() && host.bytes().all(|b| HOST_BYTES[usize::from(b)])).then_some(host)
}

/// The head of a request that was admitted, as everything that decides sees it; `None` when it names no one host.
pub fn head(request: &Request<Body>) -> Option<ReqHead<'_>> {
    Some(ReqHead {
        host: host(request)?,
        path: request.uri().path(),
        query: request.uri().query(),
        method: request.method(),
        headers: request.headers(),
    })
}

/// The host of a request that has been checked.
pub fn host(request: &Request<Body>) -> Option<&str> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(header::HOST)?.to_str().ok(),
    }
}

/// What a host and a port are written with (RFC 3986 section 3.2, without user information).
const HOST_BYTES: [bool; 256] = {
    let allowed = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%!$&'()*+,;=:[]";
    let mut table = [false; 256];
    let mut i = 0;
    while i < allowed.len() {
        table[allowed[i] as usize] = true;
        i += 1;
    }
    table
};

/// Takes out of a request what concerned the client's connection only; tells whether it asks for a tunnel.
///
/// # Errors
/// [`UpstreamError::NoTunnel`] for an extended CONNECT to HTTP/2.
pub fn strip_request(request: &mut Request<Body>) -> Result<Wanted, UpstreamError> {
    let wanted = wanted(request)?;
    let headers = request.headers_mut();
    let trailers = headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    strip_hop(headers);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    Ok(wanted)
}

/// Whether a response, untouched yet, ends with its connection, so that nobody can tell whether it is whole.
pub fn is_unframed(response: &Response<Body>) -> bool {
    let headers = response.headers();
    response.version() < Version::HTTP_2
        && !headers.contains_key(header::CONTENT_LENGTH)
        && !headers.contains_key(header::TRANSFER_ENCODING)
}

/// Takes out of a response what concerned the upstream's connection only.
pub fn strip_response(status: StatusCode, headers: &mut HeaderMap) {
    let upgrade =
        (status == StatusCode::SWITCHING_PROTOCOLS).then(|| headers.remove(header::UPGRADE)).flatten();
    strip_hop(headers);
    if status == StatusCode::NO_CONTENT {
        // RFC 9110 section 8.6: it has no content, and says nothing of its length.
        headers.remove(header::CONTENT_LENGTH);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
}

fn wanted(request: &Request<Body>) -> Result<Wanted, UpstreamError> {
    if request.method() == Method::CONNECT {
        return match request.extensions().get::<h2::ext::Protocol>() {
            Some(protocol) if is_http2(protocol.as_str().as_bytes()) => Err(UpstreamError::NoTunnel),
            Some(protocol) => HeaderValue::from_str(protocol.as_str())
                .map(Wanted::Upgrade)
                .map_err(|_| UpstreamError::NoTunnel),
            None => Ok(Wanted::Connect),
        };
    }
    let headers = request.headers();
    Ok(match headers.get(header::UPGRADE) {
        Some(upgrade) if request.version() == Version::HTTP_11 && names(headers, "upgrade") => {
            if is_http2(upgrade.as_bytes()) { Wanted::Nothing } else { Wanted::Upgrade(upgrade.clone()) }
        }
        Some(_) | None => Wanted::Nothing,
    })
}

/// Whether HTTP/2 is among these protocols. A change to it by upgrade is obsolete (RFC 9113 section 3.1), and a way
/// around all that is checked in a request.
fn is_http2(protocols: &[u8]) -> bool {
    let h2 = |protocol: &[u8]| {
        protocol.trim_ascii().get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"h2"))
    };
    protocols.split(|byte| *byte == b',').any(h2)
}

fn options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim).filter(|v| !v.is_empty())
}

fn names(headers: &HeaderMap, option: &str) -> bool {
    options(headers).any(|o| o.eq_ignore_ascii_case(option))
}

static HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    KEEP_ALIVE,
    PROXY_CONNECTION,
];

/// A bit for each length of their names: it tells most others apart.
const HOP_LENGTHS: u32 = 1 << 2 | 1 << 7 | 1 << 10 | 1 << 16 | 1 << 17;

fn strip_hop(headers: &mut HeaderMap) {
    // Most messages have none of them or one, and a look costs less than six removals.
    let mut present = [false; 6];
    for name in headers.keys().filter(|name| HOP_LENGTHS >> name.as_str().len().min(31) & 1 == 1) {
        if let Some(position) = HOP.iter().position(|hop| hop == name) {
            present[position] = true;
        }
    }
    if present[0] {
        remove_named(headers);
    }
    for (name, present) in HOP.iter().zip(present) {
        if present {
            headers.remove(name);
        }
    }
}

/// Removes the fields that `connection` names.
fn remove_named(headers: &mut HeaderMap) {
    let usual = |o: &str| o.eq_ignore_ascii_case("close") || o.eq_ignore_ascii_case("keep-alive");
    if options(headers).all(usual) {
        return;
    }
    let named: Vec<HeaderName> = options(headers)
        .filter(|o| !usual(o))
        .filter_map(|o| HeaderName::try_from(o).ok())
        .filter(|name| !PROTECTED.contains(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// What only who is believed may say of a request.
static SAID: [HeaderName; 7] = [
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    X_FORWARDED_PORT,
    X_FORWARDED_CLIENT_CERT,
    header::FORWARDED,
    X_OUTRIGGER_ATTEMPT,
];

/// A bit for each length of their names, and so of what could be taken for them.
const SAID_LENGTHS: u32 = 1 << 9 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 19 | 1 << 23;

/// Says who asked. What a stranger says of itself is dropped; what a trusted proxy says is added to.
pub fn forward(request: &mut Request<Body>, conn: &Conn, trusted: &[IpNet]) {
    let believed = conn.is_from(trusted);
    let scheme = HeaderValue::from_static(if conn.is_secure() { "https" } else { "http" });
    let headers = request.headers_mut();
    if !believed {
        // Most requests say nothing of the kind.
        if headers.keys().any(|name| {
            SAID_LENGTHS >> name.as_str().len().min(31) & 1 == 1
                && (SAID.contains(name) || name.as_str().contains('_'))
        }) {
            take_away(headers, SAID.iter());
        }
        headers.insert(X_FORWARDED_PROTO, scheme);
        headers.insert(X_FORWARDED_FOR, conn.peer_value().clone());
        if let Some(certificate) = conn.proven().and_then(|proven| proven.certificate.as_ref()) {
            headers.insert(X_FORWARDED_CLIENT_CERT, certificate.clone());
        }
        return;
    }
    // Before it the elements of those whom the peer believes.
    if let Some(certificate) = conn.proven().and_then(|proven| proven.certificate.as_ref()) {
        headers.append(X_FORWARDED_CLIENT_CERT, certificate.clone());
    }
    headers.entry(X_FORWARDED_PROTO).or_insert(scheme);
    let mut chain = Vec::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(conn.peer_value().as_bytes());
    let chain = HeaderValue::from_maybe_shared(bytes::Bytes::from(chain));
    headers.insert(X_FORWARDED_FOR, chain.unwrap_or_else(|_| conn.peer_value().clone()));
}

/// Takes fields away that nobody but us may write, and whatever an upstream could take for one of them: to some, `x_user`
/// is `x-user` (CGI, RFC 3875 section 4.1.18).
pub fn take_away<'n>(headers: &mut HeaderMap, names: impl Iterator<Item = &'n HeaderName> + Clone) {
    for name in names.clone() {
        headers.remove(name);
    }
    let is_alike = |name: &HeaderName| {
        let folds_to = |other: &HeaderName| {
            let fold = |byte: u8| if byte == b'_' { b'-' } else { byte };
            name.as_str().bytes().map(fold).eq(other.as_str().bytes().map(fold))
        };
        names.clone().any(folds_to)
    };
    let with_underscore = headers.keys().filter(|name| name.as_str().contains('_'));
    let alike: Vec<HeaderName> = with_underscore.filter(|name| is_alike(name)).cloned().collect();
    for name in alike {
        headers.remove(name);
    }
}

/// Who asks, as far as we believe it, of a request that [`forward`] has gone over: the peer, or whom a trusted proxy
/// names. `None` for a unix socket.
pub fn client(request: &Request<Body>, conn: &Conn, trusted: &[IpNet]) -> Option<IpAddr> {
    let peer = conn.source()?;
    if !conn.is_from(trusted) {
        return Some(peer);
    }
    let chain = request.headers().get(X_FORWARDED_FOR).map_or(&b""[..], HeaderValue::as_bytes);
    Some(last_stranger(chain, peer, trusted))
}

/// The last address of a chain that is not trusted: each was written by whoever stands behind it, and the first that
/// is not one of ours may have written anything before it. Where nobody is a stranger it is the first, and where
/// something is no address, whoever wrote that.
fn last_stranger(chain: &[u8], peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer;
    for hop in chain.rsplit(|byte| *byte == b',') {
        let Some(address) = address(hop) else { break };
        client = address;
        if !trusted.iter().any(|network| network.contains(&client)) {
            break;
        }
    }
    client
}

/// An address, with or without a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

/// The host was rewritten: what the client asked for is kept beside it.
pub fn set_host(request: &mut Request<Body>, host: &HeaderValue) {
    let old = match request.uri().authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => request.headers().get(header::HOST).cloned(),
    };
    if let Some(old) = old {
        request.headers_mut().entry(X_FORWARDED_HOST).or_insert(old);
    }
    if request.uri().authority().is_some() {
        set_uri(request, None, None);
    }
    request.headers_mut().insert(header::HOST, host.clone());
}

/// Puts another path in place, the query kept; `false` when it cannot stand in a target, and the request is spoilt.
pub fn set_path(request: &mut Request<Body>, path: &str) -> bool {
    let whole = target(path, request.uri().query());
    set_target(request, whole)
}

/// Puts another query in place, the path kept; `false` when it cannot stand in a target, and the request is spoilt.
pub fn set_query(request: &mut Request<Body>, query: Option<&str>) -> bool {
    let whole = target(request.uri().path(), query);
    set_target(request, whole)
}

fn target(path: &str, query: Option<&str>) -> String {
    query.map_or_else(|| path.to_owned(), |query| [path, "?", query].concat())
}

fn set_target(request: &mut Request<Body>, whole: String) -> bool {
    let Ok(target) = PathAndQuery::from_maybe_shared(bytes::Bytes::from(whole)) else { return false };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.path_and_query = Some(target);
    match Uri::from_parts(parts) {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => return false,
    }
    true
}

/// Gives a request the form of the protocol that it will be sent with.
///
/// # Errors
/// A tunnel that HTTP/2 cannot carry, or a host that cannot be an authority.
pub fn shape(
    request: &mut Request<Body>,
    tunnel: &Wanted,
    protocol: Protocol,
    secure: bool,
) -> Result<(), ProxyError> {
    let h2 = match protocol {
        Protocol::Http1 => false,
        Protocol::Http2 if *tunnel != Wanted::Nothing => return Err(UpstreamError::NoTunnel.into()),
        Protocol::Http2 => true,
        Protocol::Auto => request.version() == Version::HTTP_2 && *tunnel == Wanted::Nothing,
    };
    if !h2 {
        shape_h1(request, tunnel);
        return Ok(());
    }
    if shape_h2(request, secure) { Ok(()) } else { Err(ProxyError::Host) }
}

/// Shapes a request for an HTTP/1 upstream: the target in origin form, the host in its field, one cookie field (RFC
/// 9113 section 8.2.3).
fn shape_h1(request: &mut Request<Body>, wanted: &Wanted) {
    *request.version_mut() = Version::HTTP_11;
    if let Some(authority) = request.uri().authority() {
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            request.headers_mut().insert(header::HOST, host);
        }
        if request.method() != Method::CONNECT || matches!(wanted, Wanted::Upgrade(_)) {
            set_uri(request, None, None);
        }
    }
    let headers = request.headers_mut();
    if headers.contains_key(header::TE) {
        // An HTTP/1 upstream sends trailers only to who says so, and says it of this connection (RFC 9110 section 10.1.4).
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    join_cookies(headers);
    if let Wanted::Upgrade(protocol) = wanted {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
        if request.method() == Method::CONNECT {
            websocket_over_h1(request);
        }
    }
}

/// RFC 8441 section 5: what was an extended CONNECT is a GET with `upgrade`, and a key that HTTP/2 has no need of.
fn websocket_over_h1(request: &mut Request<Body>) {
    *request.method_mut() = Method::GET;
    request.extensions_mut().remove::<h2::ext::Protocol>();
    // The accept value is not checked against it: on the client's side there is none.
    request.headers_mut().insert("sec-websocket-key", HeaderValue::from_static("b3V0cmlnZ2VyIHdzIGtleQ=="));
}

/// Shapes a request for an HTTP/2 upstream: scheme and authority in the target, no `host` field.
///
/// `false` when the host cannot be an authority.
fn shape_h2(request: &mut Request<Body>, secure: bool) -> bool {
    *request.version_mut() = Version::HTTP_2;
    request.extensions_mut().clear();
    let host = request.headers_mut().remove(header::HOST);
    let written =
        |host: HeaderValue| Authority::from_maybe_shared(bytes::Bytes::copy_from_slice(host.as_bytes())).ok();
    let Some(authority) = request.uri().authority().cloned().or_else(|| host.and_then(written)) else {
        return false;
    };
    // The scheme is what we know of the client's connection, not what the client says of it.
    set_uri(request, Some(if secure { Scheme::HTTPS } else { Scheme::HTTP }), Some(authority))
}

fn set_uri(request: &mut Request<Body>, scheme: Option<Scheme>, authority: Option<Authority>) -> bool {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = scheme;
    parts.authority = authority;
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    match Uri::from_parts(parts) {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => return false,
    }
    true
}

fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(crumbs.join(&b"; "[..]))) {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_names() {
        let lengths =
            |names: &[HeaderName]| names.iter().fold(0, |bits, name| bits | 1_u32 << name.as_str().len());
        assert_eq!((lengths(&SAID), lengths(&HOP)), (SAID_LENGTHS, HOP_LENGTHS));
    }

    #[test]
    fn what_could_be_taken_for_a_field_of_ours_goes_with_it() {
        let names =
            ["x-user", "x_user", "x-user-id", "x_user_id", "x-team_id", "x_team-id", "x_other", "xuser"];
        let fields = names.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1")));
        let mut headers = HeaderMap::from_iter(fields);
        let ours = ["x-user", "x-team-id"].map(HeaderName::from_static);
        take_away(&mut headers, ours.iter());
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-user-id", "x_other", "x_user_id", "xuser"]);
    }

    #[track_caller]
    fn check(chain: &str, expected: &str) {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let peer = IpAddr::from([10, 0, 0, 1]);
        let found = last_stranger(chain.as_bytes(), peer, &trusted);
        assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{chain:?}");
    }

    #[test]
    fn the_client_is_the_last_who_is_not_ours() {
        check("10.0.0.1", "10.0.0.1");
        check("1.2.3.4, 10.0.0.1", "1.2.3.4");
        check("9.9.9.9, 1.2.3.4, 10.0.0.2, 10.0.0.1", "1.2.3.4");
        check("9.9.9.9,1.2.3.4,10.0.0.1", "1.2.3.4");
        // All are ours: the first of them asked.
        check("10.0.0.3, 10.0.0.2, 10.0.0.1", "10.0.0.3");
        check("::ffff:1.2.3.4, 10.0.0.1", "1.2.3.4");
        check("2001:db8::1, fd00::2, 10.0.0.1", "2001:db8::1");
        check("1.2.3.4:5678, 10.0.0.1", "1.2.3.4");
        check("[2001:db8::1]:5678, [fd00::2], 10.0.0.1", "2001:db8::1");
        // Whoever writes what is no address is itself the client.
        check("1.2.3.4, unknown, 10.0.0.2, 10.0.0.1", "10.0.0.2");
        check("1.2.3.4, , 10.0.0.1", "10.0.0.1");
        check("", "10.0.0.1");
    }
}
