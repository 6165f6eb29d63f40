//! One whole request on the HTTP/1 road, on one thread and without TCP: the client's bytes go into one end of a socket
//! pair, the real connection task has the other, and its upstream is a unix socket served by the same runtime.
//!
//! The client's and the origin's own work is in every figure. `direct` is the two without the proxy between them: the
//! difference is what Outrigger costs, and that has the budget of 30 us.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use outrigger::downstream::serve;
use outrigger::http::stack::stack;
use outrigger::io::socket::Socket;
use outrigger::live::{Entry, FilterView, ListenerState, ListenerView, Routes, Snapshot};
use outrigger::observe::access_log::QUEUE_BYTES;
use outrigger::observe::{Logger, Registry, Writer, queue};
use outrigger::upstream::{ClusterView, Clusters};
use outrigger::worker::{Shared, Worker};
use outrigger_proto::model::{Config, Filter, LogFormat, LogTarget};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::spawn_local;

use crate::Criterion;
use crate::clock::ThreadTime;
use crate::config::parse;
use crate::tables;

/// What an answer begins with, and how its body ends: an error page does neither.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";
const END: &[u8] = b"the end\n";
/// Bytes for a head.
const ROOM: usize = 1024;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("GET over HTTP/1");
    let mut measure = |name: &str, shape: Shape, logger: Option<Logger>| {
        let mut exchanges = Exchanges::new(shape, logger);
        group.bench_function(name, |bencher| bencher.iter_custom(|requests| exchanges.run(requests)));
    };
    let small = Shape { body: 256, routes: 1, proxied: true };
    let large = Shape { body: 16 * 1024, ..small };
    measure("direct, 256 B", Shape { proxied: false, ..small }, None);
    measure("256 B (<= direct + 30 us)", small, None);
    // The bar of `src/bars.rs`.
    measure("256 B, 10000 routes (<= 1.15 x 1 route)", Shape { routes: 10_000, ..small }, None);
    let (queue, lines) = queue(QUEUE_BYTES, Arc::default());
    let _writer = Writer::start(&LogTarget::File("/dev/null".into()), lines).expect("a thread can be had");
    let logger = Logger::new(LogFormat::Json, queue);
    measure("256 B, logged (<= not logged + 2 us)", small, Some(logger));
    measure("direct, 16 KiB", Shape { proxied: false, ..large }, None);
    measure("16 KiB (<= direct + 30 us)", large, None);
    group.finish();
}

/// What is asked for, and through what.
#[derive(Clone, Copy)]
struct Shape {
    /// Bytes of the answer's body.
    body: usize,
    routes: usize,
    /// Whether the proxy stands between client and origin.
    proxied: bool,
}

/// Requests one after the other on one connection.
struct Exchanges {
    client: Client,
    runtime: LocalRuntime,
}

impl Exchanges {
    fn new(shape: Shape, logger: Option<Logger>) -> Self {
        let runtime = runtime();
        let client = runtime.block_on(async {
            let road = Road::new(shape);
            let stream = if shape.proxied { road.proxied(logger) } else { road.direct() };
            let mut client = Client::new(stream, shape);
            // The upstream connection is made, and kept, before anything is measured.
            client.exchange().await;
            client
        });
        Self { client, runtime }
    }

    fn run(&mut self, requests: u64) -> Duration {
        let Self { client, runtime } = self;
        runtime.block_on(async {
            let start = ThreadTime::now();
            for _ in 0..requests {
                client.exchange().await;
            }
            ThreadTime::now() - start
        })
    }
}

/// As a worker thread has it.
fn runtime() -> LocalRuntime {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .expect("descriptors for a runtime")
}

/// Who asks.
struct Client {
    stream: UnixStream,
    request: Vec<u8>,
    answer: Vec<u8>,
    body: usize,
}

impl Client {
    fn new(stream: UnixStream, shape: Shape) -> Self {
        let Shape { body, routes, proxied: _ } = shape;
        // The last route: the first would say nothing of how many there are.
        let path = tables::below(routes - 1);
        let request = format!("GET {path} HTTP/1.1\r\nhost: app\r\nuser-agent: micro\r\naccept: */*\r\n\r\n");
        Self { stream, request: request.into_bytes(), answer: Vec::with_capacity(body + ROOM), body }
    }

    /// One request and its answer, which must be the origin's.
    async fn exchange(&mut self) {
        let Self { stream, request, answer, body } = self;
        answer.clear();
        stream.write_all(request).await.expect("the connection stands");
        while !answer.ends_with(END) {
            let read = stream.read_buf(answer).await.expect("the connection stands");
            assert!(read > 0 && answer.starts_with(OK), "{}", answer.escape_ascii());
        }
        assert!(answer.len() > *body);
    }
}

/// A worker with one listener, and the origin behind it.
struct Road {
    worker: Rc<Worker>,
    listener: Arc<ListenerView>,
    answer: Rc<[u8]>,
}

impl Road {
    fn new(shape: Shape) -> Self {
        let Shape { body, routes, proxied: _ } = shape;
        let answer: Rc<[u8]> = answer(body).into();
        let file = SocketFile::new();
        let (listener, snapshot) = snapshot(config(&file, routes));
        let shared = Arc::new(Shared::new(1, Arc::default()));
        shared.live.replace(snapshot);
        let worker = Worker::new(0, shared);
        spawn_local(worker.clone().sweep());
        spawn_local(origin(file, answer.clone()));
        Self { worker, listener, answer }
    }

    /// A client's connection to the proxy.
    fn proxied(&self, logger: Option<Logger>) -> UnixStream {
        self.worker.set_logger(logger);
        let (client, server) = UnixStream::pair().expect("two descriptors");
        serve::start(&self.worker, &stack(), Entry::One(self.listener.clone()), (Socket::Unix(server), None));
        client
    }

    /// A client's connection to the origin.
    fn direct(&self) -> UnixStream {
        let (client, server) = UnixStream::pair().expect("two descriptors");
        spawn_local(serve_origin(server, self.answer.clone()));
        client
    }
}

fn config(origin: &SocketFile, routes: usize) -> Config {
    let mut config = parse(&format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:8080, routes: [{{ to: {0} }}] }}\n\
         clusters:\n  {0}: {{ endpoints: [\"unix:{1}\"] }}\n",
        tables::CLUSTER,
        origin.0.display()
    ));
    for table in config.mesh.route_tables.values_mut() {
        *table = tables::prefixes(routes);
    }
    config
}

/// What applying a configuration comes to, without sockets that listen.
fn snapshot(config: Config) -> (Arc<ListenerView>, Snapshot) {
    let Config { mesh, endpoints } = config;
    let registry = Registry::default();
    let clusters = Clusters::new(registry.clone(), tokio::time::Instant::now());
    let (name, cluster) = mesh.clusters.first_key_value().expect("it has one");
    let live = clusters.get_or_make(name);
    clusters.assign(&live, &endpoints[name]);
    let view = Arc::new(ClusterView { config: cluster.clone(), live, tls: None, subset: None });

    let (name, listener) = mesh.listeners.first_key_value().expect("it has one");
    let chain = listener.chains.only().expect("it has one");
    let Filter::Http(http) = &chain.filter else { unreachable!("it has routes") };
    let routes = Routes::new(mesh.route_tables[&http.routes].clone(), |_| view.clone());
    let listener = ListenerView {
        redirected: false,
        authorizer: None,
        counted_by: None,
        node_cluster: "".into(),
        name: name.clone(),
        place: name.as_str().into(),
        matches: None,
        chain: chain.clone(),
        port: None,
        tokens: None,
        authorization: None,
        tls: None,
        state: Arc::new(ListenerState { open: 0.into(), stats: registry.listener(name.as_str()) }),
        filter: FilterView::Http(Arc::new(routes)),
    };
    let listener = Arc::new(listener);
    let listeners = [(name.clone(), Entry::One(listener.clone()))].into();
    (listener, Snapshot { version: 1, listeners, mesh: Arc::new(mesh) })
}

/// Where the origin listens; gone with the origin.
struct SocketFile(PathBuf);

impl SocketFile {
    fn new() -> Self {
        let name = format!("outrigger-micro-{}-{:x}", std::process::id(), fastrand::u64(..));
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may not have come to be.
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn origin(file: SocketFile, answer: Rc<[u8]>) {
    let listener = UnixListener::bind(&file.0).expect("the folder for temporary files takes a socket");
    while let Ok((stream, _)) = listener.accept().await {
        spawn_local(serve_origin(stream, answer.clone()));
    }
}

/// The least that is an origin: whatever the head says, the same answer.
async fn serve_origin(mut stream: UnixStream, answer: Rc<[u8]>) {
    let mut head = Vec::with_capacity(ROOM);
    while let Ok(1..) = stream.read_buf(&mut head).await {
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

fn answer(body: usize) -> Vec<u8> {
    let head = format!("content-type: text/plain\r\ncontent-length: {body}\r\n\r\n");
    let filler = "x".repeat(body - END.len());
    [OK, head.as_bytes(), filler.as_bytes(), END].concat()
}
