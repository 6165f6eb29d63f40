//! A request of a worker's own and the whole of its answer, which is short, over the same pools, balancer and circuit
//! breaker as the requests of clients.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use tokio::time::Instant;

use super::cluster::ClusterView;
use super::error::UpstreamError;
use super::h1::Answer;
use super::send::Upstream;
use super::trip::Trip;
use crate::body::Body;

/// Bytes of an answer; one that is larger is given up.
const MOST: usize = 64 * 1024;

/// Why a call came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// There was no answer in time.
    Late,
    /// There was none.
    Upstream(UpstreamError),
    /// It was no gRPC, but an HTTP status.
    Status(u16),
    /// It was this gRPC status.
    Grpc(u16),
    /// It was broken off, too large, or not one message.
    Broken,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("no answer in time"),
            Self::Upstream(error) => error.fmt(f),
            Self::Status(status) => write!(f, "HTTP status {status}"),
            Self::Grpc(status) => write!(f, "gRPC status {status}"),
            Self::Broken => f.write_str("not an answer"),
        }
    }
}

impl std::error::Error for CallError {}

/// The body of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// Its bytes.
    pub data: Bytes,
    /// What came after them.
    pub trailers: Option<HeaderMap>,
}

/// Counts a call among the cluster's requests for as long as it lasts.
struct Counted<'a> {
    cluster: &'a ClusterView,
    began: Instant,
    status: u16,
    bytes: (usize, usize),
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let stats = self.cluster.live.stats();
        stats.active.decrement(1);
        stats.request(self.status, self.began.elapsed());
        stats.bytes(self.bytes.1 as u64, self.bytes.0 as u64);
    }
}

impl Upstream {
    /// Sends a request, whose body is at hand, and reads the answer to its end. It is sent once more where a connection was
    /// dead already, whatever its method: who is asked does nothing but answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn exchange(
        &self,
        to: &ClusterView,
        mut request: Box<Request<Body>>,
        patience: Duration,
    ) -> Result<Response<Whole>, CallError> {
        let trip = Trip::new(Instant::now());
        to.live.stats().active.increment(1);
        let body = at_hand(std::mem::replace(request.body_mut(), Body::empty()));
        let sent = body.len();
        trip.keep();
        trip.set_harmless();
        let mut counted = Counted { cluster: to, began: trip.started(), status: 0, bytes: (sent, 0) };
        let exchanged = tokio::time::timeout(patience, async {
            let sent = loop {
                *request.body_mut() = Body::full(body.clone());
                let sent = self.send(to, request, &trip).await;
                let is_stale = matches!(sent, Err(UpstreamError::Closed)) && trip.is_stale();
                let Some(again) = trip.take_request().filter(|_| is_stale) else {
                    break sent.map_err(CallError::Upstream)?;
                };
                to.live.stats().replays.increment(1);
                request = again;
            };
            let Answer::Response(response) = sent.answer else { return Err(CallError::Broken) };
            counted.status = response.status().as_u16();
            // The flight ends with the answer's last byte.
            let answer = read(response, &mut counted.bytes.1).await;
            drop(sent.flight);
            answer
        });
        exchanged.await.unwrap_or_else(|_| {
            self.gave_up(to, &trip);
            Err(CallError::Late)
        })
    }
}

/// The bytes of a body that is at hand.
fn at_hand(mut body: Body) -> Bytes {
    match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        Poll::Ready(Some(Err(_)) | None) | Poll::Pending => Bytes::new(),
    }
}

/// Reads an answer to its end; counts its bytes.
async fn read(response: Response<Body>, bytes: &mut usize) -> Result<Response<Whole>, CallError> {
    let (head, mut body) = response.into_parts();
    let mut read = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|_| CallError::Broken)?;
        match frame.into_data() {
            Ok(data) => {
                *bytes += data.len();
                if *bytes > MOST {
                    return Err(CallError::Broken);
                }
                read.extend_from_slice(&data);
            }
            Err(frame) => trailers = frame.into_trailers().ok().or(trailers),
        }
    }
    Ok(Response::from_parts(head, Whole { data: read.freeze(), trailers }))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http::header::HeaderName;
    use http_body::Frame;

    use super::*;
    use crate::body::BodyError;

    /// A body of these frames.
    struct Frames(Vec<Frame<Bytes>>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready((!self.0.is_empty()).then(|| Ok(self.0.remove(0))))
        }
    }

    #[track_caller]
    fn check(frames: Vec<Frame<Bytes>>) -> Result<(StatusCode, Whole), CallError> {
        let mut response = Response::new(Body::source(Box::pin(Frames(frames))));
        *response.status_mut() = StatusCode::FORBIDDEN;
        let mut bytes = 0;
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(read) = std::pin::pin!(read(response, &mut bytes)).poll(&mut context) else {
            panic!("nothing is waited for")
        };
        read.map(|response| (response.status(), response.into_body()))
    }

    #[test]
    fn answers_are_read_to_their_end() {
        static LARGE: [u8; MOST] = [0; MOST];
        let data = |bytes: &'static [u8]| Frame::data(Bytes::from_static(bytes));
        let field = (HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"));
        let trailers = HeaderMap::from_iter([field]);
        let whole =
            |data, trailers| Ok((StatusCode::FORBIDDEN, Whole { data: Bytes::from_static(data), trailers }));
        assert_eq!(check(Vec::new()), whole(b"", None));
        assert_eq!(check(vec![data(b"ab"), data(b"c")]), whole(b"abc", None));
        assert_eq!(check(vec![data(b"a"), Frame::trailers(trailers.clone())]), whole(b"a", Some(trailers)));
        assert_eq!(check(vec![data(&LARGE)]).map(|(_, body)| body.data.len()), Ok(MOST));
        assert_eq!(check(vec![data(&LARGE), data(b"a")]), Err(CallError::Broken));
    }
}
