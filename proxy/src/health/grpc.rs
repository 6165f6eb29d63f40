//! A gRPC check: `grpc.health.v1.Health/Check`, over HTTP/2.
//! <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use prost::Message;

use super::h2::{Answer, converse};
use super::probe::USER_AGENT;
use crate::io::stream::Transport;
use crate::policy::deadline::{GRPC_TIMEOUT, grpc_timeout};
use crate::upstream::grpc::{frame, grpc_status, unframe};
use crate::upstream::health::Outcome;

const SERVING: u64 = 1;

/// `HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct Question {
    #[prost(string, tag = "1")]
    service: String,
}

/// `HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    /// A `ServingStatus`, as wide as it may be sent: one that is not known is shown as it came.
    #[prost(uint64, tag = "1")]
    status: u64,
}

/// Asks for a service, which may be empty: the server as a whole.
pub(super) async fn ask(transport: Transport, host: &str, service: &str, timeout: Duration) -> Outcome {
    let request = Request::post(format!("http://{host}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(header::TE, HeaderValue::from_static("trailers"))
        .header(header::USER_AGENT, USER_AGENT)
        .header(GRPC_TIMEOUT, grpc_timeout(timeout))
        .body(());
    let Ok(request) = request else { return Outcome::NotAsked };
    match converse(transport, request, message(service)).await {
        Ok(answer) => judge(&answer),
        Err(outcome) => outcome,
    }
}

/// The request, in a frame of its own.
fn message(service: &str) -> Bytes {
    frame(&Question { service: service.to_owned() }.encode_to_vec())
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

/// The status in the first message of a body; `None` when it has none that we can read.
fn serving(body: &[u8]) -> Option<u64> {
    let (message, _) = unframe(body)?;
    Some(Status::decode(message).ok()?.status)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn requests_are_what_protobuf_says() {
        assert_eq!(message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(message("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = message(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(long.len(), 5 + 303);
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
