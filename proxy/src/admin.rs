//! What the process tells those who run it, over HTTP on an address of its own: is it alive, is it ready, what does it
//! do. Served by the management thread; a request that hangs here disturbs nobody.

use std::cell::{OnceCell, RefCell};
use std::convert::Infallible;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::Recorder as _;
use outrigger_proto::model::{self, Assignment, Balance, Config, Labels, Name, Priority, Protocol, Source};
use outrigger_proto::yaml;
use serde_json::{Value, json};

use crate::body::Body;
use crate::csds::Csds;
use crate::gate::Gate;
use crate::identity::alarm::Standing;
use crate::io::listen::Accepting;
use crate::io::socket::Socket;
use crate::live::{Entry, FilterView};
use crate::observe::Registry;
use crate::trials::Trials;
use crate::upstream::health::HealthCell;
use crate::upstream::outlier::Phase;
use crate::upstream::{
    Availability, Breaker, Cluster, Clusters, Endpoint, EndpointSet, LevelHealth, Limit, ZoneHealth,
};
use crate::watch::Leaving;
use crate::worker::Shared;

/// Connections at once; the kernel holds further ones.
const CONNECTIONS: usize = 64;
/// How HTTP/2 begins, which gRPC wants (RFC 9113 section 3.4), as far as nothing else does.
const PREFACE: &[u8; 3] = b"PRI";
/// For a whole head, and for a whole answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the interface shows.
#[derive(Debug)]
pub struct Admin {
    /// What all workers see.
    pub shared: Arc<Shared>,
    /// All series.
    pub registry: Registry,
    /// The clusters that live.
    pub clusters: Arc<Clusters>,
    /// How the last attempts to load went.
    pub status: RefCell<Status>,
    /// What is on trial.
    pub trials: Rc<Trials>,
    /// Who knows what a control plane has said; with one alone.
    pub csds: OnceCell<Csds>,
}

/// How the last attempts to load a configuration went.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// What the configuration is read from.
    pub source: String,
    /// When the one in force came into force.
    pub since: Option<SystemTime>,
    /// What was wrong with the last one, if it was refused.
    pub refused: Option<String>,
}

/// Serves until the task is ended.
pub async fn serve(admin: Rc<Admin>, accepting: Accepting) {
    let permits = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    let mut spare = Spare::default();
    loop {
        let permit = permits.clone().acquire_owned().await.expect("never closed");
        let socket = match spare.accept(&accepting).await {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "admin: cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = admin.clone();
        tokio::task::spawn_local(async move {
            converse(admin, socket).await;
            drop(permit);
        });
    }
}

/// Descriptors kept for the day when there are none left: the proxy must be able to say so.
#[derive(Debug, Default)]
struct Spare(Vec<File>);

impl Spare {
    /// As many as a scrape and a look at readiness take.
    const MOST: usize = 4;

    fn fill(&mut self) {
        while self.0.len() < Self::MOST {
            let Ok(file) = File::open("/dev/null") else { return };
            self.0.push(file);
        }
    }

    async fn accept(&mut self, accepting: &Accepting) -> io::Result<Socket> {
        loop {
            self.fill();
            let error = match accepting.accept().await {
                Ok((socket, _)) => return Ok(socket),
                Err(error) => error,
            };
            let exhausted = error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error());
            if !exhausted || self.0.pop().is_none() {
                return Err(error);
            }
            // The system wants a descriptor before it looks whether anybody is there: if not, it is kept again.
            let mut again = pin!(accepting.accept());
            if let Poll::Ready(accepted) = poll_fn(|cx| Poll::Ready(again.as_mut().poll(cx))).await {
                return accepted.map(|(socket, _)| socket);
            }
        }
    }
}

async fn converse(admin: Rc<Admin>, socket: Socket) {
    let service = service_fn(|request: Request<Incoming>| {
        let csds = admin.csds.get().filter(|_| Csds::takes(request.uri().path())).cloned();
        let answer = match csds {
            Some(csds) => Err(csds.answer(request)),
            None => Ok(admin.answer(&request)),
        };
        async {
            Ok::<_, Infallible>(match answer {
                Ok(own) => own.map(Said::Own),
                Err(grpc) => grpc.await.map(Said::Grpc),
            })
        }
    });
    let mut first = [0; PREFACE.len()];
    let peeked = poll_fn(|cx| socket.poll_peek(cx, &mut first));
    let Ok(Ok(_)) = tokio::time::timeout(PATIENCE, peeked).await else { return };
    let io = TokioIo::new(socket);
    let ended = if first == *PREFACE {
        let mut http2 = http2::Builder::new(Here);
        http2.timer(TokioTimer::new()).keep_alive_interval(PATIENCE).serve_connection(io, service).await
    } else {
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(PATIENCE).serve_connection(io, service).await
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin: a connection ended badly");
    }
}

/// Does what a connection has to do on this thread.
#[derive(Clone, Copy, Debug)]
struct Here;

impl<F: Future + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}

/// An answer of ours, or of gRPC's.
enum Said {
    Own(Body),
    Grpc(tonic::body::Body),
}

impl http_body::Body for Said {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Grpc(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Grpc(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Grpc(body) => body.size_hint(),
        }
    }
}

impl Admin {
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let known = matches!(
            request.uri().path(),
            "/" | "/ready" | "/live" | "/metrics" | "/config" | "/clusters" | "/shadow"
        );
        if !known {
            return text(StatusCode::NOT_FOUND, "not found; see /\n".into());
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/live" => text(StatusCode::OK, "live\n".into()),
            "/ready" => self.ready(),
            "/metrics" => self.metrics(),
            "/config" => self.config(request.uri().query()),
            "/clusters" => json_answer(&self.clusters()),
            "/shadow" => json_answer(&self.trials.show()),
            _ => text(
                StatusCode::OK,
                "/ready\n/live\n/metrics\n/config  (?format=yaml)\n/clusters\n/shadow\n".into(),
            ),
        }
    }

    /// Ready means that a request would be served: there is a configuration, and we are not leaving. Whoever is
    /// overloaded stays ready: taken out, it would leave its load to others that have no more room, one after another.
    fn ready(&self) -> Response<Body> {
        if self.shared.leaving() != Leaving::No {
            return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".into());
        }
        let snapshot = self.shared.live.load();
        if snapshot.version == 0 {
            return text(StatusCode::SERVICE_UNAVAILABLE, "no configuration yet\n".into());
        }
        if snapshot.mesh.identity.is_none() {
            return text(StatusCode::OK, "ready\n".into());
        }
        match self.shared.identity.standing(SystemTime::now()) {
            Standing::Good => text(StatusCode::OK, "ready\n".into()),
            late @ Standing::Late(_) => text(StatusCode::OK, format!("ready\nwarning: {late}\n")),
            none @ (Standing::Absent | Standing::Lapsed) => {
                text(StatusCode::SERVICE_UNAVAILABLE, format!("{none}\n"))
            }
        }
    }

    fn metrics(&self) -> Response<Body> {
        self.note_bulkheads();
        self.trials.collect();
        let mut response = text(StatusCode::OK, self.registry.render());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(Registry::CONTENT_TYPE));
        response
    }

    /// Routes are known by their place, which a reload may change: what belongs to one is noted when somebody asks.
    fn note_bulkheads(&self) {
        type Series = (&'static str, &'static str, fn(&Gate) -> u32);
        const SERIES: [Series; 3] = [
            (
                "outrigger_route_concurrency_active",
                "Requests under way that `concurrency` counts, where it counts all callers together.",
                Gate::used,
            ),
            (
                "outrigger_route_concurrency_limit",
                "How many may be, just now; listeners that share a route table share it.",
                Gate::max,
            ),
            ("outrigger_route_concurrency_waiting", "How many wait for their turn.", Gate::waiting),
        ];
        let snapshot = self.shared.live.load();
        for (name, help, value) in SERIES {
            self.registry.clear(name);
            self.registry.describe_gauge(name.into(), None, help.into());
            for view in snapshot.listeners.values().flat_map(Entry::views) {
                let FilterView::Http(routes) = &view.filter else { continue };
                for (place, bulkhead) in routes.bulkheads().filter(|(_, b)| !b.counts_each()) {
                    let route = format!("{}.routes[{place}]", view.place);
                    let labels = [("listener", view.name.as_str()), ("route", &route)];
                    self.registry.gauge(name, &labels).set(value(bulkhead.common()));
                }
            }
        }
    }

    /// What is in force. Files are named, never shown: a private key stays where it is.
    fn config(&self, query: Option<&str>) -> Response<Body> {
        let snapshot = self.shared.live.load();
        let effective = yaml::print(&self.in_force());
        if query == Some("format=yaml") {
            return text(StatusCode::OK, effective);
        }
        let Status { source, since, refused } = &*self.status.borrow();
        json_answer(&json!({
            "version": snapshot.version,
            "source": source,
            "since": since.map(seconds),
            "refused": refused,
            "config": effective,
        }))
    }

    /// The configuration that is in force.
    pub fn in_force(&self) -> Config {
        let mesh = (*self.shared.live.load().mesh).clone();
        let live = self.clusters.all();
        let endpoints = live.iter().filter(|c| mesh.clusters.contains_key(c.name()));
        let endpoints =
            endpoints.map(|cluster| (cluster.name().clone(), assignment(cluster).into())).collect();
        Config { mesh, endpoints }
    }

    fn clusters(&self) -> Value {
        let snapshot = self.shared.live.load();
        let now = self.shared.epoch.elapsed();
        let cluster = |cluster: &Arc<Cluster>| {
            let config = snapshot.mesh.clusters.get(cluster.name());
            let endpoints = cluster.endpoints();
            let endpoint = |e: &Arc<Endpoint>| {
                json!({
                    "address": e.at().label,
                    "weight": e.weight(),
                    "active": e.active(),
                    "connections": e.connections(),
                    "requests": e.requests(),
                    "failures": e.failures(),
                    "latency_ms": e.latency(now).as_secs_f64() * 1e3,
                    "priority": e.priority(),
                    "zone": e.zone(),
                    "labels": e.labels().0,
                    "outlier": standing(e, now),
                    "health": e.health().record().health.as_str(),
                    "health_check": health_check(e.health(), now),
                })
            };
            json!({
                "name": cluster.name().as_str(),
                "balance": config.and_then(|c| balance(c)),
                "protocol": config.map(|c| protocol(c.protocol)),
                "levels": endpoints.levels().map(level).collect::<Vec<_>>(),
                "subsets": config.map_or_else(Vec::new, |config| subsets(config, &endpoints)),
                "circuit_breaker": breaker(cluster),
                "endpoints": endpoints.endpoints().iter().map(endpoint).collect::<Vec<_>>(),
            })
        };
        json!({ "clusters": self.clusters.all().iter().map(cluster).collect::<Vec<_>>() })
    }
}

fn assignment(cluster: &Cluster) -> Assignment {
    let endpoint = |e: &Arc<Endpoint>| outrigger_proto::model::Endpoint {
        address: e.at().address.clone(),
        weight: e.weight().try_into().unwrap_or(std::num::NonZeroU32::MIN),
        priority: e.priority(),
        zone: e.zone(),
        labels: e.labels(),
    };
    Assignment { endpoints: cluster.endpoints().endpoints().iter().map(endpoint).collect() }
}

/// What the last check found, and how long ago; null before the first, and where nobody checks.
fn health_check(health: &HealthCell, now: Duration) -> Option<Value> {
    let result = health.record().last?.to_string();
    let ago = now.saturating_sub(health.checked_at());
    Some(json!({ "result": result, "seconds_ago": ago.as_secs_f64() }))
}

/// How an endpoint stands with outlier detection.
fn standing(endpoint: &Endpoint, now: Duration) -> Value {
    let standing = endpoint.standing();
    match standing.phase() {
        Phase::Healthy => json!("healthy"),
        Phase::HalfOpen | Phase::Probing { since: _ } => json!("half-open"),
        Phase::Ejected { until } => json!({
            "ejected_for_ms": until.saturating_sub(now).as_millis() as u64,
            "ejections": standing.ejections(),
        }),
    }
}

fn level(level: LevelHealth) -> Value {
    let LevelHealth { priority, endpoints, available, load, panic, zones } = level;
    json!({
        "priority": priority,
        "endpoints": endpoints,
        "available": available,
        "load": load,
        "panic": panic,
        "zones": zones.into_iter().map(zone).collect::<Vec<_>>(),
    })
}

fn zone(zone: ZoneHealth) -> Value {
    let ZoneHealth { name, weight, endpoints, available, load } = zone;
    json!({ "name": name, "weight": weight, "endpoints": endpoints, "available": available, "load": load })
}

/// The endpoints that have the labels of each subset.
fn subsets(config: &model::Cluster, endpoints: &EndpointSet) -> Vec<Value> {
    let subset = |(name, wanted): (&Name, &Labels)| {
        let members = || endpoints.endpoints().iter().filter(|e| e.has_labels(wanted));
        let available = members().filter(|e| e.availability() == Availability::Available).count();
        json!({
            "name": name.as_str(),
            "labels": wanted.0,
            "endpoints": members().count(),
            "available": available,
        })
    };
    config.subsets.iter().map(subset).collect()
}

/// What is counted now, by the names of the limits; that of a higher priority below its own.
fn breaker(cluster: &Cluster) -> Value {
    let counts = |breaker: &Arc<Breaker>| {
        let seen = |limit: Limit| (limit.key().to_owned(), json!(breaker.seen(limit)));
        [Limit::Connections, Limit::Requests, Limit::Retries, Limit::Pending].map(seen).into_iter().collect()
    };
    let mut all: Value = cluster.breaker(Priority::Default).map(counts).unwrap_or_default();
    if let Some(high) = cluster.breaker(Priority::High) {
        all["high"] = counts(high);
    }
    all
}

/// How an endpoint is chosen, where there is one to choose.
fn balance(cluster: &model::Cluster) -> Option<&'static str> {
    if let Source::Original(_) = cluster.source {
        return None;
    }
    Some(match cluster.balance {
        Balance::PeakEwma => "peak-ewma",
        Balance::LeastRequest => "least-request",
        Balance::RoundRobin => "round-robin",
        Balance::Random => "random",
        Balance::RingHash(_) => "ring-hash",
        Balance::Maglev(_) => "maglev",
    })
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Auto => "auto",
        Protocol::Http1 => "http1",
        Protocol::Http2 => "http2",
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    crate::body::text(status, Bytes::from(body))
}

fn json_answer(value: &Value) -> Response<Body> {
    let mut response = text(StatusCode::OK, format!("{value:#}\n"));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
