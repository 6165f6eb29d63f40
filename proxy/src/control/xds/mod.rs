//! A control plane that says more than the file does: xDS v3, all kinds on one stream. It may be away for as long as it
//! likes: what it said last goes on, and it is asked again with the versions that are in force.

mod delta;
mod merge;
mod referred;
mod said;
mod sotw;
mod speaks;
mod state;
#[cfg(test)]
mod written;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use outrigger_proto::model::{self, ControlPlane};
use outrigger_proto::xds::Refused;
use outrigger_proto::xds::discovery::{Locality, Node, UserAgentVersionType};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use self::delta::Delta;
pub use self::merge::merge;
use self::sotw::Sotw;
use self::speaks::Speaks;
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

/// Tells what a control plane says, for as long as somebody listens. It is asked to say what has changed; one that cannot,
/// says all there is each time.
pub async fn follow(control: ControlPlane, news: mpsc::Sender<News>, stats: Arc<ProcessStats>) {
    let mut state = State::default();
    let (mut delta, mut sotw) = (Delta, Sotw::default());
    let mut client = Client { node: node(&control.node), control, news, stats, backoff: Backoff::new(WAITS) };
    let mut incremental = true;
    loop {
        let ended = if incremental {
            client.stream(&mut delta, &mut state).await
        } else {
            client.stream(&mut sotw, &mut state).await
        };
        client.stats.xds_connected.set(0);
        let error = match ended {
            Ok(()) => return,
            Err(StreamError::Refused(status)) if incremental && status.code() == Code::Unimplemented => {
                tracing::info!(server = %client.control.server, "it does not say what has changed (incremental xDS): asking for all");
                incremental = false;
                continue;
            }
            Err(error) => error,
        };
        let wait = client.backoff.next(fastrand::u64(..));
        tracing::warn!(server = %client.control.server, %error, ?wait, "the control plane is away; what it said last goes on");
        tokio::time::sleep(wait).await;
    }
}

fn node(node: &model::Node) -> Node {
    let model::Node { id, cluster, locality: model::Locality { region, zone, sub_zone } } = node;
    let locality =
        Locality { region: region.to_string(), zone: zone.to_string(), sub_zone: sub_zone.to_string() };
    Node {
        id: id.to_string(),
        cluster: cluster.to_string(),
        locality: (locality != Locality::default()).then_some(locality),
        user_agent_name: "outrigger".to_owned(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(
            env!("CARGO_PKG_VERSION").to_owned(),
        )),
        ..Node::default()
    }
}

struct Client {
    control: ControlPlane,
    node: Node,
    news: mpsc::Sender<News>,
    stats: Arc<ProcessStats>,
    backoff: Backoff,
}

impl Client {
    /// One stream, to its end; `Ok` when nobody listens any more.
    async fn stream<P: Speaks>(&mut self, speaks: &mut P, state: &mut State) -> Result<(), StreamError> {
        let channel = dial::channel(&self.control.server, self.control.trust.as_deref(), PATIENCE);
        let channel = channel.await.map_err(StreamError::Unreachable)?;
        let mut grpc = Grpc::new(channel).max_decoding_message_size(LARGEST);
        grpc.ready().await.map_err(|error| StreamError::Unreachable(error.to_string()))?;
        let (requests, queued) = mpsc::channel(QUEUE);
        for request in speaks.begin(&self.node, state) {
            requests.send(request).await.map_err(|_| StreamError::Ended)?;
        }
        let codec = ProstCodec::<P::Request, P::Response>::default();
        let outbound = Request::new(ReceiverStream::new(queued));
        let inbound = grpc.streaming(outbound, PathAndQuery::from_static(P::PATH), codec).await;
        let mut inbound = inbound.map_err(StreamError::Refused)?.into_inner();
        let mut since: Option<Instant> = None;
        loop {
            let late = since.map(|since| since + WARM);
            let message = tokio::select! {
                message = inbound.message() => {
                    Some(message.map_err(StreamError::Refused)?.ok_or(StreamError::Ended)?)
                }
                () = tokio::time::sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => None,
            };
            let waited = message.is_none();
            if let Some(response) = message {
                self.note_word();
                let (answers, refused) = speaks.take(state, response);
                self.note_refused(&refused);
                for answer in answers {
                    requests.send(answer).await.map_err(|_| StreamError::Ended)?;
                }
            }
            if waited && state.is_missing() {
                tracing::warn!(after = ?WARM, missing = state.missing(), "going on without what has not come");
            }
            since = if waited || !state.is_missing() { None } else { since.or_else(|| Some(Instant::now())) };
            if let Some(found) = state.news(waited)
                && self.news.send(found).await.is_err()
            {
                return Ok(());
            }
        }
    }

    /// It says something: only then it is there. Some servers refuse a stream after they have accepted it.
    fn note_word(&mut self) {
        self.backoff.reset();
        self.stats.xds_connected.set(1);
    }

    fn note_refused(&self, refused: &[Refused]) {
        for resource in refused {
            self.stats.xds_refused.increment(1);
            for error in &resource.errors {
                tracing::error!("refused by xDS: {error}; the last good version stays");
            }
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
