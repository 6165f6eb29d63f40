//! The gRPC status of a response before it is passed on. It stands in the trailers; where those come at once, or right
//! behind a short message, a call that failed can still be tried again.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, header};
use http_body::{Body as _, Frame, SizeHint};

use crate::body::{Body, BodyError};
use crate::facts::Beginning;
use crate::policy::retry::grpc_status;

/// A server that has sent a head and fails has its trailers under way. A stream whose first message takes longer than
/// this has its head passed on without them.
const GRACE: Duration = Duration::from_millis(5);
/// Bytes of messages that are held while the trailers are looked for.
const SHORT: usize = 16 * 1024;

/// Whether these are the headers of a gRPC message (the `+proto` forms included).
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"))
}

/// Looks for the gRPC status of a response: in its head, or in trailers that come at once. The response is as good as
/// before.
pub async fn grpc(response: Response<Body>) -> (Response<Body>, Option<u8>) {
    if !is_grpc(response.headers()) {
        return (response, None);
    }
    let status = grpc_status(response.headers());
    if status.is_some() || response.body().is_end_stream() {
        return (response, status);
    }
    let (head, mut body) = response.into_parts();
    let mut held = VecDeque::new();
    let mut status = None;
    let mut bytes = 0;
    let mut looking = pin!(tokio::time::timeout(
        GRACE,
        std::future::poll_fn(|cx| {
            while bytes <= SHORT {
                let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(cx) else {
                    // A message has come: who waits for it waits no longer than it takes to look.
                    return if bytes > 0 { Poll::Ready(()) } else { Poll::Pending };
                };
                let Some(frame) = frame else { break };
                if let Ok(frame) = &frame {
                    bytes += frame.data_ref().map_or(0, Bytes::len);
                    status = frame.trailers_ref().and_then(grpc_status);
                }
                let last = !matches!(&frame, Ok(frame) if frame.is_data());
                held.push_back(frame);
                if last {
                    break;
                }
            }
            Poll::Ready(())
        })
    ));
    // Nothing within the grace: the status will come too late to be of use.
    let _ = looking.as_mut().await;
    let body = Body::source(Box::pin(Peeked { held, rest: body }));
    (Response::from_parts(head, body), status)
}

/// Reads a request's body up to `most` bytes; the body is as good as before.
///
/// # Errors
/// It broke off.
pub async fn beginning(mut body: Body, most: usize) -> Result<(Beginning, Body), BodyError> {
    let mut read = BytesMut::new();
    let (mut tail, mut trailers) = (Bytes::new(), None);
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(mut data) => {
                let fits = data.len().min(most - read.len());
                // Joined, as a client may send them byte by byte, each with room of its own.
                read.extend_from_slice(&data.split_to(fits));
                tail = data;
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if !tail.is_empty() {
            break;
        }
    }
    let (bytes, partial) = (read.freeze(), !tail.is_empty());
    let data = [bytes.clone(), tail].into_iter().filter(|data| !data.is_empty()).map(Frame::data);
    let held = data.chain(trailers.map(Frame::trailers)).map(Ok).collect();
    Ok((Beginning { bytes, partial }, Body::source(Box::pin(Peeked { held, rest: body }))))
}

/// What was read ahead, then the rest.
struct Peeked {
    held: VecDeque<Result<Frame<Bytes>, BodyError>>,
    rest: Body,
}

impl http_body::Body for Peeked {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.held.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Who knows the size of a body writes it before the body, and then no trailers.
        if self.held.iter().flatten().any(Frame::is_trailers) {
            return SizeHint::default();
        }
        let rest = self.rest.size_hint();
        let held = self.held.iter().flatten().filter_map(Frame::data_ref).map(Bytes::len).sum::<usize>();
        let mut hint = SizeHint::default();
        hint.set_lower(rest.lower() + held as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + held as u64);
        }
        hint
    }
}
