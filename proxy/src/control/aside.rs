//! What is said beside xDS: to the same server, with the same credentials, in services that it may not know.

use std::convert::Infallible;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use outrigger_proto::model::ControlPlane;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::LARGEST;
use crate::identity::backoff::Backoff;
use crate::identity::{Identity, dial};

/// For a connection, and for an answer.
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
    identity: Arc<Identity>,
    /// The one connection of all streams; it ends with the last of them. Locked while it is made, so that streams that begin
    /// together find one.
    connection: Rc<Mutex<Weak<Channel>>>,
}

/// A stream that has begun.
#[derive(Debug)]
pub struct Begun<Q, A> {
    /// Where to say more.
    pub say: mpsc::Sender<Q>,
    /// What is heard.
    pub heard: Streaming<A>,
    /// Others find it as long as the stream is kept.
    _connection: Rc<Channel>,
}

impl Aside {
    /// To this control plane, as who we are.
    pub fn new(control: ControlPlane, identity: Arc<Identity>) -> Self {
        Self { control, identity, connection: Rc::default() }
    }

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

    /// Asks once.
    ///
    /// # Errors
    /// The server's, or why it cannot be reached.
    pub async fn ask<Q, A>(&self, path: &'static str, question: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let connection = self.connect().await?;
        let asked = async {
            let mut grpc = ready(&connection).await?;
            let codec = ProstCodec::<Q, A>::default();
            grpc.unary(Request::new(question), PathAndQuery::from_static(path), codec).await
        };
        let answered = timeout(PATIENCE, asked).await;
        Ok(answered.map_err(|_| Status::deadline_exceeded("no answer in time"))??.into_inner())
    }

    /// Begins a stream.
    ///
    /// # Errors
    /// The server's, or why it cannot be reached.
    pub async fn open<Q, A>(&self, path: &'static str, first: Q) -> Result<Begun<Q, A>, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let connection = self.connect().await?;
        let mut grpc = ready(&connection).await?;
        let (say, queued) = mpsc::channel(1);
        say.send(first).await.map_err(|_| ended())?;
        let outbound = Request::new(ReceiverStream::new(queued));
        let codec = ProstCodec::<Q, A>::default();
        let inbound = grpc.streaming(outbound, PathAndQuery::from_static(path), codec).await?;
        Ok(Begun { say, heard: inbound.into_inner(), _connection: connection })
    }

    /// The connection of another stream, or one that is new.
    async fn connect(&self) -> Result<Rc<Channel>, Status> {
        let Self { control, identity, connection } = self;
        let mut known = connection.lock().await;
        if let Some(connection) = known.upgrade() {
            return Ok(connection);
        }
        let channel = dial::channel(&control.server, control.trust.as_deref(), Some(identity), PATIENCE);
        let connection = Rc::new(channel.await.map_err(Status::unavailable)?);
        *known = Rc::downgrade(&connection);
        Ok(connection)
    }
}

/// A connection, once it takes another question.
async fn ready(connection: &Channel) -> Result<Grpc<Channel>, Status> {
    let mut grpc = Grpc::new(connection.clone()).max_decoding_message_size(LARGEST);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(grpc)
}

/// What becomes of a stream that nobody has broken off.
pub fn ended() -> Status {
    Status::cancelled("the stream has ended")
}

#[cfg(test)]
mod tests {
    use outrigger_proto::model::Node;
    use outrigger_proto::xds::shadow::{FOLLOW, Found, Shadow};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc::UnboundedSender;

    use super::*;

    /// Says of each connection when it begins and when it ends; every stream is taken, and nothing said on it.
    async fn serve(listener: TcpListener, note: UnboundedSender<&'static str>) {
        while let Ok((socket, _)) = listener.accept().await {
            let note = note.clone();
            note.send("begun").unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                let mut streams = Vec::new();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let response = http::Response::builder().header("content-type", "application/grpc");
                    let stream = respond.send_response(response.body(()).unwrap(), false).unwrap();
                    streams.push((request, stream));
                }
                let _ = note.send("ended");
            });
        }
    }

    #[tokio::test]
    async fn streams_have_one_connection_which_ends_with_the_last() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let control = ControlPlane {
            server: format!("http://{}", listener.local_addr().unwrap()).into(),
            trust: None,
            cache: None,
            on_demand: None,
            load_reports: true,
            trials: true,
            events: true,
            sockets: Box::default(),
            node: Node::default(),
        };
        let (note, mut noted) = mpsc::unbounded_channel();
        tokio::spawn(serve(listener, note));
        let aside = Aside::new(control, Arc::default());
        let open = async || aside.open::<Found, Shadow>(FOLLOW, Found::default()).await.unwrap();
        let (one, other) = tokio::join!(open(), open());
        drop(one);
        drop((open().await, other));
        let _again = open().await;
        let mut seen: Vec<_> = Vec::new();
        for _ in 0..3 {
            seen.push(noted.recv().await.unwrap());
        }
        seen.sort_unstable();
        assert_eq!(seen, ["begun", "begun", "ended"]);
    }
}
