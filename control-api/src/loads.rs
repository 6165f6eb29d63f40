//! What nodes say that they were asked and answered (LRS): the last minutes of it, by node, for whoever looks and for whoever
//! judges a revision by it.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use outrigger_proto::xds::loads::{
    self, LISTENERS, LoadStatsRequest, LoadStatsResponse, STREAM, Served, served,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;
use utoipa::ToSchema;

use crate::nodes::named;
use crate::plane::Plane;

/// For the first word of a stream.
const PATIENCE: Duration = Duration::from_secs(10);
/// Reports that are remembered of a node.
const MOST: usize = 300;
/// What is shown is of so long.
const SHOWN: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct Loads {
    /// How often nodes report.
    interval: Duration,
    by_node: Mutex<BTreeMap<String, Reports>>,
}

/// Of one node.
#[derive(Debug, Default)]
struct Reports {
    /// Streams on which it reports: an older one may not have ended yet.
    streams: usize,
    /// The oldest first: when it begins and ends, and what it says.
    all: VecDeque<(Instant, Instant, Served)>,
}

/// What a node answered in the last minute.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LoadStatus {
    /// Requests that ended, a second.
    pub requests_per_second: f64,
    /// Of these, what ended with 5xx or without an answer of the service's, in per cent.
    pub failed_percent: f64,
    /// Within how many milliseconds 99 of 100 ended, as far as its buckets say; `None` where it is not told.
    pub p99_ms: Option<f64>,
}

impl Loads {
    /// How often nodes report, by default.
    pub const INTERVAL: Duration = Duration::from_secs(10);

    /// How long a report is remembered.
    pub const MEMORY: Duration = Duration::from_secs(300);

    /// Nobody has reported yet.
    pub fn new(interval: Duration) -> Self {
        Self { interval, by_node: Mutex::default() }
    }

    /// How often nodes report where a revision is watched for so long: several times meanwhile.
    pub fn interval_of(watch: Duration) -> Duration {
        (watch / 3).clamp(Duration::from_secs(1), Self::INTERVAL)
    }

    /// How often nodes report.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    fn begin(&self, node: &str) {
        self.lock().entry(node.to_owned()).or_default().streams += 1;
    }

    fn end(&self, node: &str) {
        let mut by_node = self.lock();
        if let Some(reports) = by_node.get_mut(node) {
            reports.streams -= 1;
            if reports.streams == 0 {
                by_node.remove(node);
            }
        }
    }

    fn note(&self, node: &str, (begin, end): (Instant, Instant), served: Served) {
        if let Some(Reports { streams: _, all }) = self.lock().get_mut(node) {
            all.push_back((begin, end, served));
            while all.len() > MOST || all.front().is_some_and(|(_, old, _)| end - *old > Self::MEMORY) {
                all.pop_front();
            }
        }
    }

    /// What this node says that it answered between two moments, in reports that lie wholly between them, and how much time
    /// they are of.
    pub fn between(&self, node: &str, (from, to): (Instant, Instant)) -> (Served, Duration) {
        let by_node = self.lock();
        let all = by_node.get(node).into_iter().flat_map(|reports| &reports.all);
        let (mut sum, mut time) = (Served::default(), Duration::ZERO);
        for (begin, end, served) in all.filter(|(begin, end, _)| *begin >= from && *end <= to) {
            sum.add(served);
            time += *end - *begin;
        }
        (sum, time)
    }

    /// Whether this node reports at all.
    pub fn reports(&self, node: &str) -> bool {
        self.lock().contains_key(node)
    }

    /// What is shown of this node.
    pub fn status(&self, node: &str, now: Instant) -> Option<LoadStatus> {
        if !self.reports(node) {
            return None;
        }
        let since = now.checked_sub(SHOWN).unwrap_or(now);
        let (sum, time) = self.between(node, (since, now));
        let requests_per_second =
            if time.is_zero() { 0.0 } else { sum.requests() as f64 / time.as_secs_f64() };
        let p99_ms = sum.within(0.99).map(|seconds| seconds * 1000.0);
        Some(LoadStatus { requests_per_second, failed_percent: sum.failing() * 100.0, p99_ms })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Reports>> {
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where nodes report.
pub fn router(plane: Arc<Plane>) -> Router {
    Router::new().route(STREAM, post(answer)).with_state(plane)
}

async fn answer(State(plane): State<Arc<Plane>>, request: axum::extract::Request) -> Response {
    let mut grpc = Grpc::new(ProstCodec::<LoadStatsResponse, LoadStatsRequest>::default());
    grpc.streaming(Streams(plane), request).await.map(axum::body::Body::new)
}

/// Begins streams.
struct Streams(Arc<Plane>);

type Answers = ReceiverStream<Result<LoadStatsResponse, Status>>;

impl StreamingService<LoadStatsRequest> for Streams {
    type Response = LoadStatsResponse;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Answers>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<LoadStatsRequest>>) -> Self::Future {
        let (answers, queued) = mpsc::channel(1);
        tokio::spawn(hear(Arc::clone(&self.0), request.into_inner(), answers));
        Box::pin(std::future::ready(Ok(tonic::Response::new(ReceiverStream::new(queued)))))
    }
}

async fn hear(
    plane: Arc<Plane>,
    mut reports: Streaming<LoadStatsRequest>,
    answers: mpsc::Sender<Result<LoadStatsResponse, Status>>,
) {
    let Ok(Ok(Some(first))) = timeout(PATIENCE, reports.message()).await else { return };
    let node = match named(first.node) {
        Ok(node) => node.id,
        Err(status) => return drop(answers.send(Err(status)).await),
    };
    let interval = loads::Duration::try_from(plane.loads.interval()).unwrap_or_default();
    let wanted = LoadStatsResponse {
        send_all_clusters: true,
        clusters: vec![LISTENERS.to_owned()],
        load_reporting_interval: Some(interval),
        report_endpoint_granularity: false,
    };
    let mut begin = Instant::now();
    if answers.send(Ok(wanted)).await.is_err() {
        return;
    }
    let stream = Stream::begin(plane, node);
    // `answers` is kept: without it the stream would end.
    while let Ok(Some(report)) = reports.message().await {
        let end = Instant::now();
        let since = std::mem::replace(&mut begin, end);
        stream.plane.loads.note(&stream.node, (since, end), served(&report.cluster_stats));
    }
}

/// A stream, which ends however it ends.
struct Stream {
    plane: Arc<Plane>,
    node: String,
}

impl Stream {
    fn begin(plane: Arc<Plane>, node: String) -> Self {
        plane.loads.begin(&node);
        Self { plane, node }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.plane.loads.end(&self.node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(requests: u64) -> Served {
        Served { good: requests, failed: 0, took: vec![(0.1, requests)] }
    }

    #[test]
    fn what_is_told_of_a_time_lies_in_it() {
        let loads = Loads::new(Loads::INTERVAL);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!loads.reports("a"));
        loads.begin("a");
        for second in 0..4 {
            loads.note("a", (at(second * 10), at(second * 10 + 10)), good(second + 1));
        }
        let between = |from, to| {
            let (served, time) = loads.between("a", (at(from), at(to)));
            (served.good, time.as_secs())
        };
        assert_eq!([between(0, 40), between(5, 35), between(20, 30)], [(10, 40), (5, 20), (3, 10)]);
        assert_eq!([between(21, 29), between(40, 50)], [(0, 0), (0, 0)]);
        let status = loads.status("a", at(75)).unwrap();
        assert_eq!((status.requests_per_second, status.failed_percent), (7.0 / 20.0, 0.0));
        // Who comes back before it was missed is not forgotten with its older stream.
        loads.begin("a");
        loads.end("a");
        assert!(loads.reports("a") && !loads.reports("b"));
        // What is old is forgotten.
        loads.note("a", (at(330), at(340)), good(1));
        assert_eq!((between(0, 400), loads.status("b", at(75))), ((5, 20), None));
        loads.end("a");
        assert!(!loads.reports("a"));
    }
}
