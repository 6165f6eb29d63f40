//! The streams on which proxies are told what is on trial, and say what they find.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use outrigger_proto::xds::shadow::{FOLLOW, Found, Shadow};
use prost::bytes::{BufMut as _, Bytes};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::nodes::Identity;
use crate::plane::Plane;

/// Between two reports of a node.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// For the first word of a stream.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a report.
const LARGEST: usize = 1 << 20;
/// Bytes of a node's id.
const ID: usize = 512;

/// Where nodes ask what is on trial.
pub fn router(plane: Arc<Plane>) -> Router {
    Router::new().route(FOLLOW, post(answer)).with_state(plane)
}

async fn answer(State(plane): State<Arc<Plane>>, request: axum::extract::Request) -> Response {
    let mut grpc = Grpc::new(Encoded).max_decoding_message_size(LARGEST);
    grpc.streaming(Streams(plane), request).await.map(axum::body::Body::new)
}

/// What is told is encoded already: once for all nodes of a group.
#[derive(Clone, Copy, Debug)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Found;
    type Encoder = Self;
    type Decoder = <ProstCodec<Shadow, Found> as Codec>::Decoder;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<Shadow, Found>::default().decoder()
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

/// Begins streams.
struct Streams(Arc<Plane>);

type Answers = ReceiverStream<Result<Bytes, Status>>;

impl StreamingService<Found> for Streams {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Answers>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Found>>) -> Self::Future {
        let (answers, queued) = mpsc::channel(1);
        tokio::spawn(follow(Arc::clone(&self.0), request.into_inner(), answers));
        Box::pin(std::future::ready(Ok(tonic::Response::new(ReceiverStream::new(queued)))))
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
        let (node, labels) = (&stream.identity.node, &stream.identity.labels);
        let message = now.as_ref().and_then(|trial| Some((trial.serving.revision, trial.of(node, labels)?)));
        // An empty message: nothing is on trial.
        let (revision, message) = message.map_or_else(Default::default, |(of, it)| (of, it.clone()));
        if told.replace(revision) != Some(revision) {
            // What it says of it may come at once.
            stream.plane.shadows.note_told(&node.id, revision);
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
        let node = first.node.filter(|node| !node.id.is_empty());
        let node = node.ok_or_else(|| {
            Status::invalid_argument("the first message says who asks: `node.id` is missing")
        })?;
        if node.id.len() > ID {
            return Err(Status::invalid_argument(format!("`node.id` is longer than {ID} bytes")));
        }
        let identity = Identity::from(node);
        if !plane.shadows.connect(&identity.node.id, &identity.agent) {
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
