//! The streams of xDS over gRPC.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use axum::routing::post;
use outrigger_proto::model::{Name, SpiffeId};
use outrigger_proto::xds::Kind;
use outrigger_proto::xds::discovery::{
    DELTA_STREAM, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Node,
    STREAM,
};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::server::{Grpc, StreamingService};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::session::{Asked, Session, Told, Verdict, Way};
use crate::attest::{Attestors, Own};
use crate::events::Happened;
use crate::nodes::Identity;
use crate::plane::Plane;
use crate::rollout::Published;
use crate::secrets::Granted;
use crate::serving::{Items, View};
use crate::tls::Peer;

/// For the first request of a stream.
const PATIENCE: Duration = Duration::from_secs(10);
/// Until secrets that could not be made are made.
const AGAIN: Duration = Duration::from_secs(5);
/// Messages on their way to one node: of each kind there is one at most.
const QUEUE: usize = 8;

/// Both ways of asking.
pub fn router(plane: Arc<Plane>, attestors: Arc<Attestors>) -> Router {
    Router::new()
        .route(STREAM, post(answer::<DiscoveryRequest>))
        .route(DELTA_STREAM, post(answer::<DeltaDiscoveryRequest>))
        .with_state((plane, attestors))
}

/// What differs between the ways.
trait Speaks: Message + Default + Sized + 'static {
    const WAY: Way;
    type Response: Message + Default + 'static;

    fn node(&mut self) -> Option<Node>;
    fn asked(self) -> Option<Asked>;
    fn told(told: Told) -> Self::Response;
}

impl Speaks for DiscoveryRequest {
    const WAY: Way = Way::Sotw;
    type Response = DiscoveryResponse;

    fn node(&mut self) -> Option<Node> {
        self.node.take()
    }

    fn asked(self) -> Option<Asked> {
        Asked::sotw(self)
    }

    fn told(told: Told) -> Self::Response {
        told.into_sotw()
    }
}

impl Speaks for DeltaDiscoveryRequest {
    const WAY: Way = Way::Delta;
    type Response = DeltaDiscoveryResponse;

    fn node(&mut self) -> Option<Node> {
        self.node.take()
    }

    fn asked(self) -> Option<Asked> {
        Asked::delta(self)
    }

    fn told(told: Told) -> Self::Response {
        told.into_delta()
    }
}

async fn answer<S: Speaks>(
    State((plane, attestors)): State<(Arc<Plane>, Arc<Attestors>)>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: axum::extract::Request,
) -> Response {
    let mut grpc = Grpc::new(ProstCodec::<S::Response, S>::default());
    let keys = Keys { attestors, peer, renew_at: None, has_none: false };
    grpc.streaming(Streams(plane, Some(keys)), request).await.map(axum::body::Body::new)
}

/// Begins a stream.
struct Streams(Arc<Plane>, Option<Keys>);

/// What makes a node's own secrets.
struct Keys {
    attestors: Arc<Attestors>,
    peer: Peer,
    /// When they are to be made again; `None` before they were made.
    renew_at: Option<Instant>,
    /// There are none for it.
    has_none: bool,
}

impl Keys {
    /// When there is something to do, for a node that asks for secrets.
    fn due(&self) -> Option<Instant> {
        let may_have = !self.has_none && self.attestors.may_have_own(&self.peer);
        may_have.then(|| self.renew_at.unwrap_or_else(Instant::now))
    }

    /// Who it has proven to be.
    async fn who(&self) -> Result<SpiffeId, Status> {
        let (attestors, peer) = (self.attestors.clone(), self.peer.clone());
        let looked = tokio::task::spawn_blocking(move || attestors.who(&peer)).await;
        looked.map_err(|_| Status::internal("the work was given up"))?
    }

    /// Secrets, if it has proven who it is.
    async fn make(&mut self) -> Result<Items, Status> {
        let (attestors, peer) = (self.attestors.clone(), self.peer.clone());
        let made = tokio::task::spawn_blocking(move || attestors.own(&peer)).await;
        let Own { items, renew_in } = made.map_err(|_| Status::internal("the work was given up"))??;
        self.renew_at = Some(Instant::now() + renew_in);
        Ok(items)
    }
}

impl<S: Speaks> StreamingService<S> for Streams {
    type Response = S::Response;
    type ResponseStream = ReceiverStream<Result<S::Response, Status>>;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<S>>) -> Self::Future {
        let (answers, queued) = mpsc::channel(QUEUE);
        if let Some(keys) = self.1.take() {
            tokio::spawn(serve(Arc::clone(&self.0), keys, request.into_inner(), answers));
        }
        Box::pin(std::future::ready(Ok(tonic::Response::new(ReceiverStream::new(queued)))))
    }
}

async fn serve<S: Speaks>(
    plane: Arc<Plane>,
    mut keys: Keys,
    mut requests: Streaming<S>,
    answers: mpsc::Sender<Result<S::Response, Status>>,
) {
    let Ok(Ok(Some(mut first))) = timeout(PATIENCE, requests.message()).await else { return };
    let Some(node) = first.node().filter(|node| !node.id.is_empty()) else {
        let status =
            Status::invalid_argument("the first request of a stream says who asks: `node.id` is missing");
        let _ = answers.send(Err(status)).await;
        return;
    };
    let mut stream = Stream::begin(plane, node.into(), S::WAY);
    let mut next = Some(first);
    loop {
        if let Some(request) = next.take() {
            stream.hear(request.asked());
        }
        // First of all: what is not there yet would be said to be gone. Where it had them for what is not good any more, it
        // comes back with what it has by now, or as nobody.
        let due = keys.due().filter(|_| stream.asks_for_secrets());
        let renewed = match due.is_some_and(|due| due <= Instant::now()) {
            true => stream.renew(&mut keys).await,
            false => Ok(()),
        };
        if let Err(status) = renewed.and(stream.learn(&keys).await) {
            let _ = answers.send(Err(status)).await;
            return;
        }
        while let Some(told) = stream.tell() {
            if answers.send(Ok(S::told(told))).await.is_err() {
                return;
            }
        }
        let due = keys.due().filter(|_| stream.asks_for_secrets());
        let due = due.into_iter().chain(stream.learn_at).min();
        tokio::select! {
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            request = requests.message() => match request {
                Ok(Some(request)) => next = Some(request),
                Ok(None) | Err(_) => return,
            },
            changed = stream.published.changed() => {
                if changed.is_err() {
                    return;
                }
                stream.look();
            }
            _ = stream.secrets.changed() => stream.is_to_learn = true,
        }
    }
}

/// Whether what was shown is not good, and not only nobody knows.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied)
}

/// A node's stream, without its bytes.
struct Stream {
    plane: Arc<Plane>,
    number: u64,
    identity: Identity,
    session: Session,
    published: watch::Receiver<Published>,
    /// What it is told; kept while no group takes it any more, as nothing is never told.
    view: Option<Arc<View>>,
    /// Secrets of its own.
    own: Items,
    /// Those of others that it is told.
    granted: Granted,
    /// When any of these is another.
    secrets: watch::Receiver<()>,
    /// They are others now.
    is_to_learn: bool,
    /// Which of them were looked at.
    learnt: BTreeSet<Name>,
    /// When that is looked at again, where it could not be.
    learn_at: Option<Instant>,
    /// The last revision that it took whole.
    acked: u64,
    /// The last of which it refused something.
    refused: u64,
}

impl Stream {
    fn begin(plane: Arc<Plane>, identity: Identity, way: Way) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        plane.nodes.connect(number, &identity, way);
        let (published, secrets) = (plane.published(), plane.secrets.changed());
        let mut stream = Self {
            plane,
            number,
            identity,
            session: Session::new(way),
            published,
            view: None,
            own: Items::default(),
            granted: Granted::default(),
            secrets,
            is_to_learn: false,
            learnt: BTreeSet::new(),
            learn_at: None,
            acked: 0,
            refused: 0,
        };
        stream.look();
        let group = stream.view.as_ref().map(|view| view.group.to_string());
        let node = stream.identity.node.id.to_string();
        if group.is_none() {
            tracing::warn!(node, "no group takes this node, and so it is told nothing");
        }
        let agent = stream.identity.agent.clone();
        stream.plane.note(Happened::NodeUp { node, agent, group });
        stream
    }

    fn look(&mut self) {
        let serving = Arc::clone(self.published.borrow_and_update().of(&self.identity.node.id));
        if let Some(view) = serving.view(&self.identity.node, &self.identity.labels, self.identity.asks) {
            self.plane.nodes.note_group(self.number, &view.group, view.revision);
            self.dress(Arc::clone(view));
        }
    }

    /// It is told this, with its secrets.
    fn dress(&mut self, view: Arc<View>) {
        let all = self.granted.items.iter().chain(self.own.iter());
        let all: BTreeMap<_, _> = all.map(|(name, item)| (name.clone(), Arc::clone(item))).collect();
        // Most have none, and share what all of them are told.
        let is_bare = all.is_empty() && view.kind(Kind::Secret).all().next().is_none();
        self.view = Some(if is_bare { view } else { Arc::new(view.with_secrets(Arc::new(all))) });
    }

    fn asks_for_secrets(&self) -> bool {
        Own::NAMES.into_iter().any(|name| self.session.asks_for(Kind::Secret, name))
    }

    /// Makes its own secrets, the first or others; an error where what it had them for is not good any more.
    async fn renew(&mut self, keys: &mut Keys) -> Result<(), Status> {
        match keys.make().await {
            Ok(secrets) => {
                self.own = secrets;
                self.view.take().into_iter().for_each(|view| self.dress(view));
            }
            Err(status) => {
                tracing::warn!(node = %self.identity.node.id, why = status.message(), "a node gets no secrets");
                match is_refusal(&status) {
                    true if !self.own.is_empty() => return Err(status),
                    true => keys.has_none = true,
                    false => keys.renew_at = Some(Instant::now() + AGAIN),
                }
            }
        }
        Ok(())
    }

    /// Looks which of the secrets that it asks for it may have, before it is told of any; an error where what it had them for is
    /// not good any more. What it has and asks for stays its own, whatever names it: a listener that is told otherwise is
    /// told after its secrets.
    async fn learn(&mut self, keys: &Keys) -> Result<(), Status> {
        let Some(view) = self.view.clone() else { return Ok(()) };
        let asks = |name: &&Name| self.session.asks_for(Kind::Secret, name.as_str());
        let all = view.secrets.iter().chain(self.granted.items.keys());
        let wanted: BTreeSet<_> = all.filter(asks).cloned().collect();
        let is_due = match self.learn_at {
            Some(at) => at <= Instant::now(),
            // To a new revision alone nobody tells a key that he has not told before.
            None => self.is_to_learn || wanted != self.learnt,
        };
        if !is_due {
            return Ok(());
        }
        (self.is_to_learn, self.learn_at) = (false, None);
        let need_proof = |names: &BTreeSet<Name>| self.plane.secrets.need_proof(names);
        let has = wanted.iter().filter(|name| self.granted.items.contains_key(*name)).cloned().collect();
        // Of what nobody has to prove anything for nobody is asked.
        let who = if need_proof(&wanted) { Some(keys.who().await) } else { None };
        match &who {
            // It comes back with what it has by now, or as nobody.
            Some(Err(status)) if is_refusal(status) && need_proof(&has) => return Err(status.clone()),
            // Nobody knows: it keeps what it has, and is told neither that there is more nor that there is none.
            Some(Err(status)) if !is_refusal(status) => {
                self.session.hold_secrets(true);
                self.learn_at = Some(Instant::now() + AGAIN);
                return Ok(());
            }
            Some(Ok(_) | Err(_)) | None => {}
        }
        let who = who.unwrap_or_else(|| Err(Status::unauthenticated("nobody was asked")));
        self.session.hold_secrets(false);
        let granted = self.plane.secrets.granted(&wanted, who.as_ref());
        for (secret, why) in &granted.withheld {
            if self.granted.withheld.get(secret) != Some(why) {
                tracing::warn!(node = %self.identity.node.id, %secret, why, "a node is not told a secret that its resources name");
            }
        }
        (self.granted, self.learnt) = (granted, wanted);
        self.dress(view);
        Ok(())
    }

    fn hear(&mut self, asked: Option<Asked>) {
        let Some(heard) = asked.and_then(|asked| self.session.hear(asked)) else { return };
        self.plane.nodes.note_heard(self.number, &heard);
        if let Verdict::Nack(why) = heard.verdict {
            self.refused = heard.revision;
            let node = self.identity.node.id.to_string();
            tracing::warn!(node, revision = heard.revision, kind = %heard.kind, why, "refused by a node");
            let (kind, revision) = (heard.kind.to_string(), heard.revision);
            self.plane.note(Happened::Nack { node, revision, kind, why });
        }
    }

    fn tell(&mut self) -> Option<Told> {
        let view = self.view.as_ref()?;
        if let Some(told) = self.session.tell(view) {
            self.plane.nodes.note_told(self.number, told.kind, view.revision);
            self.plane.nodes.note_settled(self.number, false);
            return Some(told);
        }
        let is_settled = self.session.is_settled(view);
        self.plane.nodes.note_settled(self.number, is_settled);
        if is_settled && self.acked < view.revision && self.refused < view.revision {
            self.acked = view.revision;
            let node = self.identity.node.id.to_string();
            self.plane.note(Happened::Ack { node, revision: view.revision });
        }
        None
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.plane.nodes.disconnect(self.number);
        self.plane.note(Happened::NodeDown { node: self.identity.node.id.to_string() });
    }
}
