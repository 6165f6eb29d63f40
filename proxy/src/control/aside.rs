//! Streams beside that of xDS: on the same server, with the same credentials, each of a service that the server may not know.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use outrigger_proto::model::ControlPlane;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::LARGEST;
use crate::identity::backoff::Backoff;
use crate::identity::{Identity, dial};

/// For a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Until one that does not know the service is asked again: it may have become another.
const UNKNOWN: Duration = Duration::from_secs(600);

/// Whom to ask, and as whom.
#[derive(Clone, Debug)]
pub struct Aside {
    /// The control plane.
    pub control: ControlPlane,
    /// Who we are.
    pub identity: Arc<Identity>,
}

impl Aside {
    /// One stream after the other, for as long as the process lives. `service` is what it is called in the log.
    pub async fn keep(
        &self,
        service: &str,
        mut stream: impl AsyncFnMut(&mut Backoff) -> Result<Infallible, Status>,
    ) {
        let mut backoff = Backoff::new(WAITS);
        loop {
            let Err(status) = stream(&mut backoff).await;
            let wait =
                if status.code() == Code::Unimplemented { UNKNOWN } else { backoff.next(fastrand::u64(..)) };
            tracing::debug!(server = %self.control.server, service, %status, ?wait, "a stream beside xDS has ended");
            sleep(wait).await;
        }
    }

    /// Begins a stream: where to say more, and what is heard.
    ///
    /// # Errors
    /// The server's, or why it cannot be reached.
    pub async fn open<Q, A>(
        &self,
        path: &'static str,
        first: Q,
    ) -> Result<(mpsc::Sender<Q>, Streaming<A>), Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let Self { control, identity } = self;
        let channel = dial::channel(&control.server, control.trust.as_deref(), Some(identity), PATIENCE);
        let channel = channel.await.map_err(Status::unavailable)?;
        let mut grpc = Grpc::new(channel).max_decoding_message_size(LARGEST);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let (say, queued) = mpsc::channel(1);
        say.send(first).await.map_err(|_| ended())?;
        let outbound = Request::new(ReceiverStream::new(queued));
        let codec = ProstCodec::<Q, A>::default();
        let inbound = grpc.streaming(outbound, PathAndQuery::from_static(path), codec).await?;
        Ok((say, inbound.into_inner()))
    }
}

/// What becomes of a stream that nobody has broken off.
pub fn ended() -> Status {
    Status::cancelled("the stream has ended")
}
