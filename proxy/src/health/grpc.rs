//! A gRPC check: `grpc.health.v1.Health/Check`, over HTTP/2.
//! <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>
//!
//! The two messages have one field each and are read and written here by hand: the service's name (field 1, a string)
//! goes, a `ServingStatus` (field 1, an enum) comes.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};

use super::h2::{Answer, converse};
use super::probe::USER_AGENT;
use crate::io::socket::Socket;
use crate::upstream::health::Outcome;

const SERVING: u64 = 1;
/// Tag of field 1, length-delimited: the service in a request.
const SERVICE: u8 = 1 << 3 | 2;
/// Tag of field 1, a varint: the status in an answer.
const STATUS: u64 = 1 << 3;

/// Asks for a service, which may be empty: the server as a whole.
pub(super) async fn ask(socket: Socket, host: &str, service: &str, timeout: Duration) -> Outcome {
    let request = Request::post(format!("http://{host}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(header::TE, HeaderValue::from_static("trailers"))
        .header(header::USER_AGENT, USER_AGENT)
        .header("grpc-timeout", deadline(timeout))
        .body(());
    let Ok(request) = request else { return Outcome::NotAsked };
    match converse(socket, request, message(service)).await {
        Ok(answer) => judge(&answer),
        Err(outcome) => outcome,
    }
}

/// In milliseconds; the protocol allows eight digits.
fn deadline(timeout: Duration) -> String {
    format!("{}m", timeout.as_millis().clamp(1, 99_999_999))
}

/// The request, in a frame of its own.
fn message(service: &str) -> Bytes {
    let mut request = BytesMut::new();
    if !service.is_empty() {
        request.put_u8(SERVICE);
        let mut length = service.len();
        while length >= 0x80 {
            request.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        request.put_u8(length as u8);
        request.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + request.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(request.len()).expect("a name in a configuration is short"));
    frame.put_slice(&request);
    frame.freeze()
}

fn judge(answer: &Answer) -> Outcome {
    let Answer { head, body, trailers } = answer;
    if head.status != StatusCode::OK {
        return Outcome::Status(head.status.as_u16());
    }
    // A call that fails at once has its trailers in its head.
    let status = trailers.as_ref().and_then(grpc_status).or_else(|| grpc_status(&head.headers));
    match (status, serving(body)) {
        (Some(0), Some(SERVING)) => Outcome::Passed,
        (Some(0), Some(other)) => Outcome::NotServing(u16::try_from(other).unwrap_or(u16::MAX)),
        (Some(0) | None, _) => Outcome::Protocol,
        (Some(failed), _) => Outcome::Grpc(failed),
    }
}

fn grpc_status(fields: &HeaderMap) -> Option<u16> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// The status in the first message of a body; `None` when it has none that we can read.
fn serving(body: &[u8]) -> Option<u64> {
    let (head, rest) = body.split_at_checked(5)?;
    let (compressed, length) = (head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]));
    if compressed != 0 {
        // We have not said that we could.
        return None;
    }
    let mut message = rest.get(..usize::try_from(length).ok()?)?;
    // What is 0 is not written.
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                // The last one counts.
                status = if tag == STATUS { value } else { status };
            }
            1 => skip(&mut message, 8)?,
            2 => {
                let length = varint(&mut message)?;
                skip(&mut message, usize::try_from(length).ok()?)?;
            }
            5 => skip(&mut message, 4)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn skip(bytes: &mut &[u8], n: usize) -> Option<()> {
    *bytes = bytes.get(n..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_what_protobuf_says() {
        assert_eq!(message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(message("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = message(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(long.len(), 5 + 303);
    }

    #[test]
    fn deadlines_fit_eight_digits() {
        assert_eq!(deadline(Duration::from_secs(1)), "1000m");
        assert_eq!(deadline(Duration::from_nanos(1)), "1m");
        assert_eq!(deadline(Duration::from_secs(1_000_000)), "99999999m");
    }

    #[track_caller]
    fn check(message: &[u8], expected: Option<u64>) {
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        let body = [&[0][..], &length, message].concat();
        assert_eq!(serving(&body), expected, "{message:x?}");
    }

    #[test]
    fn the_status_is_found() {
        check(&[], Some(0));
        check(&[0x08, 1], Some(1));
        check(&[0x08, 2], Some(2));
        check(&[0x08, 1, 0x08, 2], Some(2));
        // Fields that we do not know, of each kind.
        check(&[0x10, 0x80, 1, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x22, 1, 9, 0x2d, 1, 2, 3, 4, 0x08, 1], Some(1));
        check(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], Some(u64::MAX));
        for broken in [&[0x08][..], &[0x08, 0x80], &[0x0a, 5, 1], &[0x0b], &[0x09, 1], &[0x80; 12]] {
            check(broken, None);
        }
    }

    #[test]
    fn a_frame_must_be_whole_and_plain() {
        assert_eq!(serving(&[]), None);
        assert_eq!(serving(&[0, 0, 0, 0]), None);
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8]), None);
        assert_eq!(serving(&[1, 0, 0, 0, 2, 8, 1]), None);
    }

    /// The head's status and `grpc-status`, the body's message, the trailers' `grpc-status`.
    #[track_caller]
    fn judged(head: (u16, Option<&str>), message: Option<&[u8]>, trailer: Option<&str>) -> Outcome {
        let fields = |status: Option<&str>| {
            let pair = |status: &str| {
                (header::HeaderName::from_static("grpc-status"), status.parse().expect("fits"))
            };
            status.map(pair).into_iter().collect::<HeaderMap>()
        };
        let mut response = http::Response::builder().status(head.0).body(()).expect("a head");
        *response.headers_mut() = fields(head.1);
        let frame = |message: &[u8]| [&[0, 0, 0, 0, message.len() as u8][..], message].concat();
        judge(&Answer {
            head: response.into_parts().0,
            body: message.map(frame).unwrap_or_default().into(),
            trailers: trailer.map(|status| fields(Some(status))),
        })
    }

    #[test]
    fn answers_are_judged() {
        assert_eq!(judged((200, None), Some(&[8, 1]), Some("0")), Outcome::Passed);
        assert_eq!(judged((200, None), Some(&[8, 2]), Some("0")), Outcome::NotServing(2));
        assert_eq!(judged((200, None), Some(&[]), Some("0")), Outcome::NotServing(0));
        assert_eq!(judged((200, None), Some(&[8, 1]), Some("14")), Outcome::Grpc(14));
        assert_eq!(judged((200, Some("12")), None, None), Outcome::Grpc(12));
        assert_eq!(judged((200, None), Some(&[8, 1]), None), Outcome::Protocol);
        assert_eq!(judged((200, None), None, Some("0")), Outcome::Protocol);
        assert_eq!(judged((503, None), None, None), Outcome::Status(503));
    }
}
