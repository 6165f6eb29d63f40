//! A control plane that says more than the file does: xDS v3, all kinds on one stream, state of the world. It may be away
//! for as long as it likes: what it said last goes on, and it is asked again with the versions that are in force.

mod merge;
mod state;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use outrigger_proto::model::ControlPlane;
use outrigger_proto::xds::discovery::{DiscoveryRequest, DiscoveryResponse, STREAM};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

pub use self::merge::merge;
use self::state::State;
pub use self::state::{Discovered, News};
use crate::identity::backoff::Backoff;
use crate::identity::dial;
use crate::observe::ProcessStats;

/// For a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// For what is referred to and does not come; without it, on from there.
const WARM: Duration = Duration::from_secs(5);
/// Between two tries.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Bytes of an answer.
const LARGEST: usize = 32 << 20;
/// Requests on their way.
const QUEUE: usize = 64;

/// Tells what a control plane says, for as long as somebody listens.
pub async fn follow(control: ControlPlane, news: mpsc::Sender<News>, stats: Arc<ProcessStats>) {
    let mut state = State::new(&control.node);
    let mut backoff = Backoff::new(WAITS);
    loop {
        let error = match stream(&mut state, &control, &news, (&stats, &mut backoff)).await {
            Ok(()) => return,
            Err(error) => error,
        };
        stats.xds_connected.set(0);
        let wait = backoff.next(fastrand::u64(..));
        tracing::warn!(server = %control.server, %error, ?wait, "the control plane is away; what it said last goes on");
        tokio::time::sleep(wait).await;
    }
}

/// One stream, to its end; `Ok` when nobody listens any more.
async fn stream(
    state: &mut State,
    control: &ControlPlane,
    news: &mpsc::Sender<News>,
    (stats, backoff): (&ProcessStats, &mut Backoff),
) -> Result<(), StreamError> {
    let channel = dial::channel(&control.server, control.trust.as_deref(), PATIENCE);
    let mut grpc =
        Grpc::new(channel.await.map_err(StreamError::Unreachable)?).max_decoding_message_size(LARGEST);
    grpc.ready().await.map_err(|error| StreamError::Unreachable(error.to_string()))?;
    let (requests, queued) = mpsc::channel(QUEUE);
    let codec = ProstCodec::<DiscoveryRequest, DiscoveryResponse>::default();
    let send = |all: Vec<DiscoveryRequest>| {
        let requests = &requests;
        async move {
            for request in all {
                requests.send(request).await.map_err(|_| StreamError::Ended)?;
            }
            Ok(())
        }
    };
    send(state.begin()).await?;
    let outbound = Request::new(ReceiverStream::new(queued));
    let inbound = grpc.streaming(outbound, PathAndQuery::from_static(STREAM), codec).await;
    let mut inbound = inbound.map_err(StreamError::Refused)?.into_inner();
    stats.xds_connected.set(1);
    tracing::info!(server = %control.server, "the control plane is there");
    let mut since: Option<Instant> = None;
    loop {
        let late = since.map(|since| since + WARM);
        let message = tokio::select! {
            message = inbound.message() => Some(message.map_err(StreamError::Refused)?.ok_or(StreamError::Ended)?),
            () = tokio::time::sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => None,
        };
        let waited = message.is_none();
        if let Some(response) = message {
            backoff.reset();
            let (requests, refused) = state.take(response);
            for resource in &refused {
                stats.xds_refused.increment(1);
                for error in &resource.errors {
                    tracing::error!("refused by xDS: {error}; the last good version stays");
                }
            }
            send(requests).await?;
        }
        let missing = state.missing();
        if waited && !missing.is_empty() {
            tracing::warn!(after = ?WARM, missing = missing.join(", "), "going on without what has not come");
        }
        since = if missing.is_empty() || waited { None } else { since.or_else(|| Some(Instant::now())) };
        if let Some(found) = state.news(waited)
            && news.send(found).await.is_err()
        {
            return Ok(());
        }
    }
}

/// Why there is no stream.
#[derive(Debug)]
enum StreamError {
    Unreachable(String),
    Refused(Status),
    Ended,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "cannot be reached: {error}"),
            Self::Refused(status) => write!(f, "{:?}: {}", status.code(), status.message()),
            Self::Ended => f.write_str("the stream has ended"),
        }
    }
}
