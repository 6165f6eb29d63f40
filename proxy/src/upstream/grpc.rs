//! A gRPC call of a worker's own: one message there, one back (gRPC over HTTP/2).

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header};

use super::cluster::ClusterView;
use super::exchange::{CallError, Whole};
use super::send::Upstream;
use crate::body::Body;
use crate::policy::deadline::{GRPC_TIMEOUT, grpc_timeout};

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("outrigger/", env!("CARGO_PKG_VERSION")));
/// Before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

impl Upstream {
    /// Calls a method of the cluster's, which must speak HTTP/2, with a message; gives the message of the answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn call(
        &self,
        to: &ClusterView,
        method: &'static str,
        message: &[u8],
        patience: Duration,
    ) -> Result<Bytes, CallError> {
        let request = request(to.live.name().as_str(), method, message, patience);
        outcome(self.exchange(to, request, patience).await?)
    }
}

fn request(name: &str, method: &'static str, message: &[u8], patience: Duration) -> Box<Request<Body>> {
    let mut request = Box::new(Request::new(Body::full(frame(message))));
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = target(name, method);
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::USER_AGENT, USER_AGENT);
    headers.insert(GRPC_TIMEOUT, grpc_timeout(patience));
    request
}

/// The cluster's name is the authority, as with Envoy, where it can be one.
fn target(name: &str, method: &'static str) -> Uri {
    let authority = Authority::try_from(name).ok().filter(|authority| !authority.as_str().contains('@'));
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority.unwrap_or(Authority::from_static("localhost")));
    parts.path_and_query = Some(PathAndQuery::from_static(method));
    Uri::from_parts(parts).expect("all three parts are there")
}

/// The message of an answer that was read to its end, which is where its status stands.
fn outcome(response: Response<Whole>) -> Result<Bytes, CallError> {
    if response.status() != StatusCode::OK {
        return Err(CallError::Status(response.status().as_u16()));
    }
    let (head, Whole { data, trailers }) = response.into_parts();
    // A call that fails at once has its trailers in its head.
    let status = trailers.as_ref().and_then(grpc_status).or_else(|| grpc_status(&head.headers));
    match status {
        Some(0) => message(&data).ok_or(CallError::Broken),
        Some(status) => Err(CallError::Grpc(status)),
        None => Err(CallError::Broken),
    }
}

/// The status of a call, 0 for one that succeeded.
pub fn grpc_status(fields: &HeaderMap) -> Option<u16> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// A message as it stands in a body (gRPC over HTTP/2, "Length-Prefixed-Message"). For short ones: of a head, or of a
/// configuration.
pub fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("what it is made of has a limit"));
    frame.put_slice(message);
    frame.freeze()
}

/// The first message of a body, and what is behind it; `None` when it is not whole, or compressed: we have not said that
/// it could be.
pub fn unframe(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[0, a, b, c, d], rest) = body.split_first_chunk()? else { return None };
    rest.split_at_checked(usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?)
}

/// The one message of a body.
fn message(body: &Bytes) -> Option<Bytes> {
    let (message, rest) = unframe(body)?;
    rest.is_empty().then(|| body.slice_ref(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_what_the_protocol_says() {
        let request = request("rls", "/a.B/C", b"xy", Duration::from_millis(50));
        assert_eq!(request.uri(), "http://rls/a.B/C");
        assert_eq!((request.method(), request.version()), (&http::Method::POST, Version::HTTP_2));
        let fields =
            ["content-type", "te", "grpc-timeout"].map(|name| request.headers()[name].to_str().unwrap());
        assert_eq!(fields, ["application/grpc", "trailers", "50000u"]);
    }

    #[test]
    fn a_name_that_can_be_no_authority_is_not_one() {
        assert_eq!(target("a_b.c", "/m").authority().unwrap(), "a_b.c");
        for name in ["a b", "a/b", "a@b", "é"] {
            assert_eq!(target(name, "/m").authority().unwrap(), "localhost", "{name}");
        }
    }

    #[test]
    fn one_message_that_is_whole_and_plain() {
        let rows: [(&[u8], Option<&[u8]>); 6] = [
            (&[0, 0, 0, 0, 2, 8, 1], Some(&[8, 1])),
            (&[0, 0, 0, 0, 0], Some(&[])),
            (&[], None),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0, 0, 2, 8], None),
            (&[0, 0, 0, 0, 1, 8, 0, 0, 0, 0, 0], None),
        ];
        for (body, expected) in rows {
            assert_eq!(message(&Bytes::copy_from_slice(body)).as_deref(), expected, "{body:?}");
        }
    }

    #[track_caller]
    fn check(head: (u16, Option<&str>), data: &[u8], trailer: Option<&str>) -> Result<Bytes, CallError> {
        let fields = |status: &str| {
            HeaderMap::from_iter([(header::HeaderName::from_static("grpc-status"), status.parse().unwrap())])
        };
        let data = Bytes::copy_from_slice(data);
        let mut response = Response::new(Whole { data, trailers: trailer.map(fields) });
        *response.status_mut() = StatusCode::from_u16(head.0).unwrap();
        *response.headers_mut() = head.1.map(fields).unwrap_or_default();
        outcome(response)
    }

    #[test]
    fn the_status_decides() {
        const ONE: &[u8] = &[0, 0, 0, 0, 1, 9];
        assert_eq!(check((200, None), ONE, Some("0")), Ok(Bytes::from_static(&[9])));
        assert_eq!(check((200, None), ONE, Some("14")), Err(CallError::Grpc(14)));
        assert_eq!(check((200, Some("12")), &[], None), Err(CallError::Grpc(12)));
        assert_eq!(check((200, Some("0")), &[], None), Err(CallError::Broken));
        assert_eq!(check((200, None), ONE, None), Err(CallError::Broken));
        assert_eq!(check((503, None), &[], None), Err(CallError::Status(503)));
    }
}
