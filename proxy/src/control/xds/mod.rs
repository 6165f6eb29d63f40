//! A control plane that says more than the file does: xDS v3, all kinds on one stream. It may be away for as long as it
//! likes: what it said last goes on, and it is asked again with the versions that are in force.

mod again;
mod ahead;
mod asker;
mod cache;
mod delta;
mod demanded;
#[cfg(test)]
mod demanded_tests;
mod discovered;
mod idle;
mod inquiry;
#[cfg(test)]
mod interleavings;
mod lapses;
mod left;
mod merge;
mod reach;
mod referred;
mod refers;
mod said;
mod sotw;
mod speaks;
mod state;
#[cfg(test)]
mod written;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::uri::PathAndQuery;
use outrigger_proto::model::{self, ControlPlane, Metadata, Name, OnDemand};
use outrigger_proto::xds::discovery::{
    ListValue, Locality, Node, Resource, Struct, UserAgentVersionType, Value, ValueKind,
};
use outrigger_proto::xds::{Kind, ON_DEMAND, Refused};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use self::again::Again;
pub use self::asker::Asker;
use self::cache::Cache;
use self::delta::Delta;
use self::demanded::Demanded;
pub use self::discovered::{Discovered, News};
use self::idle::Idle;
pub use self::inquiry::{Asked, Inquiry};
pub use self::merge::merge;
use self::said::Said;
use self::sotw::Sotw;
use self::speaks::{REFERRING, Speaks};
use self::state::State;
use super::LARGEST;
use crate::demand::{Use, Wanted};
use crate::identity::backoff::Backoff;
use crate::identity::dial;
use crate::observe::ProcessStats;

/// For a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// For what is referred to and does not come; without it, on from there.
const WARM: Duration = Duration::from_secs(5);
/// Between two tries.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Until what could not come into force is tried once more.
const RETRY: Duration = Duration::from_secs(5);
/// Requests on their way.
const QUEUE: usize = 64;

/// Something new.
#[derive(Debug)]
pub struct Told {
    /// What.
    pub news: News,
    /// Whether it was said before this process began, and not again yet.
    pub cached: bool,
    /// Who waits to hear whether it has come into force.
    pub taken: oneshot::Sender<Taken>,
}

/// What became of what was told.
#[derive(Debug, PartialEq)]
pub struct Taken {
    /// Whether it is in force, but for what is unfit.
    pub in_force: bool,
    /// What could be read and cannot come into force, as a port that somebody else has: the last good version stays.
    pub unfit: Vec<Refused>,
}

/// How a cluster was used so far; `None` where none of this name is in force.
pub type Used = dyn Fn(&Name) -> Option<Use>;

/// Where others are heard who want something of it, or have used it.
#[allow(missing_debug_implementations, reason = "a function has no form")]
pub struct Ears {
    /// Requests for hosts on demand.
    pub wanted: mpsc::Receiver<Wanted>,
    /// Questions about what there is.
    pub asked: mpsc::Receiver<Asked>,
    /// Who knows how clusters were used.
    pub used: Box<Used>,
}

/// Tells what a control plane says, for as long as somebody listens; before that, what it said last, if that was kept. It is
/// asked to say what has changed; one that cannot, says all there is each time. `ears` hear what others want meanwhile.
pub async fn follow(
    control: ControlPlane,
    asker: Asker,
    (news, Ears { wanted, asked, used }): (mpsc::Sender<Told>, Ears),
    stats: Arc<ProcessStats>,
) {
    let cache = Cache::new(&control);
    let state = State::new(cache.is_some(), control.on_demand.is_some());
    let mut state = state.with_sockets(control.sockets.clone()).with_stats(Arc::clone(&stats));
    let (mut delta, mut sotw) = (Delta, Sotw::default());
    let (node, backoff) = (who_asks(&control), Backoff::new(WAITS));
    let waits = Waits { wanted, asked, waiting: Vec::new() };
    let idle = control.on_demand.map(|OnDemand { idle }| Idle::new(idle, Instant::now()));
    let (in_force, unfit, tried) = (false, Vec::new(), Instant::now());
    let mut client = Client {
        node,
        control,
        asker,
        news,
        stats,
        backoff,
        cache,
        waits,
        used,
        idle,
        missing_since: None,
        in_force,
        unfit,
        tried,
    };
    if client.recall(&mut state)
        && let Some(found) = state.news(true)
        && !client.tell(found, true).await
    {
        return;
    }
    let mut incremental = true;
    loop {
        client.asker.introduced().await;
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
            Err(StreamError::Known) => {
                tracing::info!(server = %client.control.server, "the identity is there: asking as who we are");
                continue;
            }
            Err(error) => error,
        };
        let wait = client.backoff.next(fastrand::u64(..));
        tracing::warn!(server = %client.control.server, %error, ?wait, "the control plane is away; what it said last goes on");
        if !client.rest(&mut state, wait).await {
            return;
        }
    }
}

/// Who asks this control plane, and whether for what it needs alone.
pub fn who_asks(control: &ControlPlane) -> Node {
    let mut node = node(&control.node);
    node.client_features.extend(control.on_demand.map(|_| ON_DEMAND.to_owned()));
    node
}

/// Who asks, as it is said.
pub fn node(node: &model::Node) -> Node {
    let model::Node { id, cluster, locality, metadata } = node;
    let model::Locality { region, zone, sub_zone } = locality;
    let locality =
        Locality { region: region.to_string(), zone: zone.to_string(), sub_zone: sub_zone.to_string() };
    Node {
        id: id.to_string(),
        cluster: cluster.to_string(),
        locality: (locality != Locality::default()).then_some(locality),
        metadata: (!metadata.is_empty()).then(|| struct_of(metadata)),
        user_agent_name: "outrigger".to_owned(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(
            env!("CARGO_PKG_VERSION").to_owned(),
        )),
        ..Node::default()
    }
}

fn struct_of(metadata: &BTreeMap<Box<str>, Metadata>) -> Struct {
    Struct { fields: metadata.iter().map(|(name, value)| (name.to_string(), value_of(value))).collect() }
}

fn value_of(value: &Metadata) -> Value {
    let kind = match value {
        Metadata::Bool(value) => ValueKind::BoolValue(*value),
        Metadata::Number(number) => ValueKind::NumberValue(*number),
        Metadata::Text(text) => ValueKind::StringValue(text.to_string()),
        Metadata::List(values) => {
            ValueKind::ListValue(ListValue { values: values.iter().map(value_of).collect() })
        }
        Metadata::Map(values) => ValueKind::StructValue(struct_of(values)),
    };
    Value { kind: Some(kind) }
}

struct Client {
    control: ControlPlane,
    /// Who we are, where it wants to know.
    asker: Asker,
    node: Node,
    news: mpsc::Sender<Told>,
    stats: Arc<ProcessStats>,
    backoff: Backoff,
    cache: Option<Cache>,
    waits: Waits,
    used: Box<Used>,
    idle: Option<Idle>,
    /// Since when something is waited for that others refer to.
    missing_since: Option<Instant>,
    /// Whether what was told last of all came into force: nothing else is kept for the next start.
    in_force: bool,
    /// What of it did not.
    unfit: Vec<Refused>,
    /// When that was last found out.
    tried: Instant,
}

impl Client {
    /// Takes what was said last out of the cache; whether there was anything.
    fn recall(&self, state: &mut State) -> bool {
        let Some((cache, content)) = self.cache.as_ref().and_then(|cache| Some((cache, cache.read()?)))
        else {
            return false;
        };
        let (mut resources, mut refused) = (0, Vec::new());
        // What refers comes before what is referred to.
        for kind in REFERRING.into_iter().filter(|kind| cache::holds(*kind)) {
            let is_such = |of: &&Resource| {
                of.resource.as_ref().is_some_and(|any| Kind::of_url(&any.type_url) == Some(kind))
            };
            for resource in content.resources.iter().filter(is_such) {
                match delta::meant(kind, resource, state.sockets()) {
                    None => {}
                    Some(Ok(accepted)) => {
                        resources += 1;
                        let name = accepted.name.clone();
                        if kind == Kind::Host {
                            state.recall_host(&name);
                        }
                        state.accept(accepted, Said::of(resource));
                        // Its time begins anew: nobody knows when it was last said to live.
                        state.live(kind, &name, speaks::ttl(resource), Instant::now());
                    }
                    Some(Err(bad)) => refused.push(bad),
                }
            }
            state.note_answer(kind);
        }
        for error in refused.iter().flat_map(|bad| &bad.errors) {
            tracing::error!("refused from the cache: {error}; going on without it");
        }
        self.stats.xds_refused.increment(refused.len() as u64);
        state.take_unsaved();
        if resources == 0 {
            return false;
        }
        let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let age = Duration::from_secs(age.saturating_sub(content.saved));
        tracing::info!(cache = %cache.path().display(), resources, ?age, "serving what the control plane said last, until it speaks");
        self.stats.xds_cached.set(1);
        true
    }

    /// Says what is new, and hears whether it came into force; `false` when nobody listens any more.
    async fn tell(&mut self, news: News, cached: bool) -> bool {
        let is_all = matches!(news, News::All(_));
        let (taken, answer) = oneshot::channel();
        if self.news.send(Told { news, cached, taken }).await.is_err() {
            return false;
        }
        let answer = answer.await;
        if let (true, Ok(Taken { in_force, unfit })) = (is_all, &answer) {
            (self.in_force, self.tried) = (*in_force, Instant::now());
            if self.unfit != *unfit {
                // What is refused whole, whoever refuses it says.
                let news: Vec<_> = unfit.iter().filter(|bad| bad.name.is_some()).cloned().collect();
                self.note_refused(&news, true);
                self.unfit.clone_from(unfit);
            }
        }
        answer.is_ok()
    }

    /// Waits; what is to be written is, and what lapses does. `false` when nobody listens any more.
    async fn rest(&mut self, state: &mut State, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(end) => return true,
                () = due(&mut self.cache) => self.save(state),
                // Asked for when it is back.
                Some(wanted) = self.waits.wanted.recv() => self.waits.take(wanted, state),
                Some(asked) = self.waits.asked.recv() => tell_status(asked, state),
                () = at(state.next_lapse()) => {
                    state.lapse(Instant::now());
                    if !self.pass_on(state, false).await {
                        return false;
                    }
                }
            }
        }
    }

    /// Keeps what is in force; what is not yet, another time.
    fn save(&mut self, state: &State) {
        let Some(cache) = &mut self.cache else { return };
        if self.in_force && state.is_settled() {
            cache.write(state);
        } else {
            cache.put_off(Instant::now());
        }
    }

    async fn dial(&self) -> Result<Grpc<Channel>, StreamError> {
        let (control, own) = (&self.control, Some(&self.asker.identity));
        let channel = dial::channel(&control.server, control.trust.as_deref(), own, PATIENCE);
        let channel = channel.await.map_err(StreamError::Unreachable)?;
        let mut grpc = Grpc::new(channel).max_decoding_message_size(LARGEST);
        grpc.ready().await.map_err(|error| StreamError::Unreachable(error.to_string()))?;
        Ok(grpc)
    }

    /// Begins a stream: where it hears us, and what it says.
    async fn open<P: Speaks>(
        &self,
        speaks: &mut P,
        state: &mut State,
    ) -> Result<(mpsc::Sender<P::Request>, Streaming<P::Response>), StreamError> {
        let mut grpc = self.dial().await?;
        let (requests, queued) = mpsc::channel(QUEUE);
        for request in speaks.begin(&self.node, state) {
            requests.send(request).await.map_err(|_| StreamError::Ended)?;
        }
        let codec = ProstCodec::<P::Request, P::Response>::default();
        let outbound = Request::new(ReceiverStream::new(queued));
        let inbound = grpc.streaming(outbound, PathAndQuery::from_static(P::PATH), codec).await;
        Ok((requests, inbound.map_err(StreamError::Refused)?.into_inner()))
    }

    /// One stream, to its end; `Ok` when nobody listens any more.
    async fn stream<P: Speaks>(&mut self, speaks: &mut P, state: &mut State) -> Result<(), StreamError> {
        let nobody = self.asker.is_nobody();
        let (requests, mut inbound) = self.open(speaks, state).await?;
        let mut again = Again::default();
        // What was waited for when it went away is waited for anew: meanwhile nobody could have said it.
        self.missing_since = state.is_missing().then(Instant::now);
        loop {
            let mut waited = false;
            let answers = tokio::select! {
                message = inbound.message() => {
                    let response = message.map_err(StreamError::Refused)?.ok_or(StreamError::Ended)?;
                    match self.take(speaks, state, &mut again, response).await {
                        Some(answers) => answers,
                        None => return Ok(()),
                    }
                }
                // A port may be free by now.
                () = at((!self.unfit.is_empty()).then_some(self.tried + RETRY)) => {
                    self.tried = Instant::now();
                    state.tell_again();
                    Vec::new()
                }
                () = at(again.due()) => again.let_go(Instant::now()),
                () = at(self.missing_since.map(|since| since + WARM)) => {
                    waited = true;
                    Vec::new()
                }
                Some(wanted) = self.waits.wanted.recv() => {
                    self.waits.take(wanted, state);
                    speaks.subscribe(state)
                }
                Some(asked) = self.waits.asked.recv() => {
                    tell_status(asked, state);
                    continue;
                }
                () = self.asker.known(nobody) => return Err(StreamError::Known),
                () = at(state.next_lapse()) => {
                    state.lapse(Instant::now());
                    speaks.subscribe(state)
                }
                // Only here: what is let go while it is away could not be asked for again.
                () = at(self.idle.as_ref().map(Idle::due)) => {
                    self.let_go(state);
                    speaks.subscribe(state)
                }
                () = due(&mut self.cache) => {
                    self.save(state);
                    continue;
                }
            };
            for answer in answers {
                requests.send(answer).await.map_err(|_| StreamError::Ended)?;
            }
            if !self.pass_on(state, waited).await {
                return Ok(());
            }
        }
    }

    /// Takes what it says, and brings it into force; what is to be said to that now. `None` when nobody listens any more.
    async fn take<P: Speaks>(
        &mut self,
        speaks: &mut P,
        state: &mut State,
        again: &mut Again<P::Request>,
        response: P::Response,
    ) -> Option<Vec<P::Request>> {
        self.note_word();
        let (mut answers, refused) = speaks.take(state, response, Instant::now());
        let before = self.unfit.clone();
        // Before it is answered: what cannot come into force is not taken, however well it reads.
        if !self.pass_on(state, false).await {
            return None;
        }
        let Some(kind) = answers.first().and_then(P::kind) else { return Some(answers) };
        let mut all = refused.clone();
        if !self.unfit.is_empty() && (kind == Kind::Listener || self.unfit != before) {
            all.extend(self.unfit.iter().cloned());
            speaks.refuse(&mut answers[0], &all);
        }
        state.note_failures(kind, &all);
        let (answer, is_new) = again.take(kind, answers.remove(0), &all, Instant::now());
        self.note_refused(&refused, is_new);
        answers.splice(0..0, answer);
        Some(answers)
    }

    /// Says what of it is new, and sees to it that it is kept; `false` when nobody listens any more.
    async fn pass_on(&mut self, state: &mut State, waited: bool) -> bool {
        if waited && state.is_missing() {
            tracing::warn!(after = ?WARM, missing = state.missing(), "going on without what has not come");
        }
        state.look_ahead(|name| (self.used)(name).is_some());
        if let Some(found) = state.news(waited)
            && !self.tell(found, false).await
        {
            return false;
        }
        let missing = state.is_missing();
        self.missing_since = missing.then(|| self.missing_since.unwrap_or_else(Instant::now));
        self.waits.answer(state);
        if state.take_unsaved()
            && let Some(cache) = &mut self.cache
        {
            cache.note(Instant::now());
        }
        true
    }

    /// Lets go of hosts that are not used any more.
    fn let_go(&mut self, state: &mut State) {
        let Some(idle) = &mut self.idle else { return };
        for host in idle.look(state.hosts_used(&self.used), Instant::now()) {
            tracing::info!(
                "{}[{host}]: nobody has called it for {:?}, and it is let go",
                Kind::Host,
                idle.after()
            );
            state.let_go(&host);
        }
    }

    /// It says something: only then it is there. Some servers refuse a stream after they have accepted it.
    fn note_word(&mut self) {
        self.backoff.reset();
        self.stats.xds_connected.set(1);
        self.stats.xds_cached.set(0);
    }

    fn note_refused(&self, refused: &[Refused], is_new: bool) {
        self.stats.xds_refused.increment(refused.len() as u64);
        if is_new {
            for error in refused.iter().flat_map(|resource| &resource.errors) {
                tracing::error!("refused by xDS: {error}; the last good version stays");
            }
        }
    }
}

fn tell_status(Asked { contents, answer }: Asked, state: &State) {
    // Whoever asks may have gone.
    let _ = answer.send(state.status(contents));
}

/// The requests that wait for hosts, and where others are heard.
struct Waits {
    wanted: mpsc::Receiver<Wanted>,
    asked: mpsc::Receiver<Asked>,
    waiting: Vec<(Name, oneshot::Sender<bool>)>,
}

impl Waits {
    fn take(&mut self, Wanted { table, host, found }: Wanted, state: &mut State) {
        match state.demand(&table, &host) {
            // Whoever asks may have gone.
            Demanded::Known(is_there) => {
                let _ = found.send(is_there);
            }
            Demanded::Awaited(name) => self.waiting.push((name, found)),
        }
    }

    fn answer(&mut self, state: &State) {
        self.waiting.retain(|(_, found)| !found.is_closed());
        for at in (0..self.waiting.len()).rev() {
            if let Some(is_there) = state.demanded(&self.waiting[at].0) {
                let _ = self.waiting.swap_remove(at).1.send(is_there);
            }
        }
    }
}

/// Comes then; never, without a time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Comes when the cache is to be written; never, without one.
async fn due(cache: &mut Option<Cache>) {
    match cache {
        Some(cache) => cache.due().await,
        None => std::future::pending().await,
    }
}

/// Why there is no stream.
#[derive(Debug)]
enum StreamError {
    Unreachable(String),
    Refused(Status),
    Ended,
    /// It was asked as nobody, and need not be any more.
    Known,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "cannot be reached: {error}"),
            Self::Refused(status) => write!(f, "{:?}: {}", status.code(), status.message()),
            Self::Ended => f.write_str("the stream has ended"),
            Self::Known => f.write_str("it is asked anew"),
        }
    }
}
