//! The streams on which proxies are told what is on trial, and say what they find.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use outrigger_proto::xds::shadow::{FOLLOW, Found, Shadow};
use prost::bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::codec::Codec as _;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::nodes::{Identity, named};
use crate::plane::Plane;

/// Between two reports of a node.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// For the first word of a stream.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a report.
const LARGEST: usize = 1 << 20;

/// Where nodes ask what is on trial.
pub fn router(plane: Arc<Plane>) -> Router {
    Router::new().route(FOLLOW, post(answer)).with_state(plane)
}

async fn answer(State(plane): State<Arc<Plane>>, request: axum::extract::Request) -> Response {
    let decoder = ProstCodec::<Shadow, Found>::default().decoder();
    let reports = Streaming::new_request(decoder, request.into_body(), None, Some(LARGEST));
    let (answers, queued) = mpsc::channel(1);
    tokio::spawn(follow(plane, reports, answers));
    let mut response = Response::new(axum::body::Body::new(Answers(Some(queued))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// What is told is encoded already, once for all nodes of a group, and goes out as it is: an encoder would copy it for each
/// of them, all at once where something new is on trial. `None` after the end was said.
#[derive(Debug)]
struct Answers(Option<mpsc::Receiver<Result<Bytes, Status>>>);

impl Body for Answers {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(queued) = &mut self.0 else { return Poll::Ready(None) };
        let status = match ready!(queued.poll_recv(context)) {
            Some(Ok(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.0 = None;
        let mut trailers = HeaderMap::new();
        if let Err(unsayable) = status.add_header(&mut trailers) {
            tracing::debug!(%unsayable, "a stream ends without a word");
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

async fn follow(
    plane: Arc<Plane>,
    mut reports: Streaming<Found>,
    answers: mpsc::Sender<Result<Bytes, Status>>,
) {
    let Ok(Ok(Some(first))) = timeout(PATIENCE, reports.message()).await else { return };
    let mut trial = plane.trial();
    let stream = match Stream::begin(plane, first) {
        Ok(stream) => stream,
        Err(status) => return drop(answers.send(Err(status)).await),
    };
    let mut told = None;
    loop {
        let now = trial.borrow_and_update().clone();
        let message =
            now.as_ref().and_then(|trial| Some((trial.serving.revision, trial.of(&stream.identity)?)));
        // An empty message: nothing is on trial.
        let (revision, message) =
            message.map_or((0, Bytes::from_static(&super::NOTHING)), |(of, it)| (of, it.clone()));
        if told.replace(revision) != Some(revision) {
            // What it says of it may come at once.
            stream.plane.shadows.note_told(&stream.identity.node.id, revision);
            if answers.send(Ok(message)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = trial.changed() => if changed.is_err() { return },
            report = reports.message() => match report {
                Ok(Some(found)) => stream.hear(found),
                Ok(None) | Err(_) => return,
            },
        }
    }
}

/// A stream, which ends however it ends.
struct Stream {
    plane: Arc<Plane>,
    identity: Identity,
}

impl Stream {
    fn begin(plane: Arc<Plane>, first: Found) -> Result<Self, Status> {
        let identity = Identity::from(named(first.node)?);
        if !plane.shadows.connect(&identity.node.id, &identity.agent, identity.asks) {
            return Err(Status::resource_exhausted("more nodes ask than are remembered"));
        }
        Ok(Self { plane, identity })
    }

    fn hear(&self, found: Found) {
        let happened = self.plane.shadows.note(&self.identity.node.id, found);
        happened.into_iter().for_each(|happened| self.plane.note(happened));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.plane.shadows.disconnect(&self.identity.node.id);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn what_is_told_is_not_copied_and_the_end_is_said_once() {
        let (sender, queued) = mpsc::channel(2);
        let mut answers = Answers(Some(queued));
        let message = Bytes::from(vec![0; 100]);
        sender.send(Ok(message.clone())).await.unwrap();
        sender.send(Err(Status::resource_exhausted("no"))).await.unwrap();
        let mut frames = Vec::new();
        while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut answers).poll_frame(context)).await {
            frames.push(frame);
        }
        let [told, end] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!(told.data_ref().map(|data| data.as_ptr()), Some(message.as_ptr()));
        assert_eq!(end.trailers_ref().unwrap()["grpc-status"], "8");
    }
}
