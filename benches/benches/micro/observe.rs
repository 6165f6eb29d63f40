//! What is written down about a request: figures always, a line where one is wanted.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger::observe::{ClusterStats, ListenerStats, Logger, Peer, Record, Registry, queue};
use outrigger_proto::model::{Address, LogFormat};

use crate::{Criterion, within};

pub(crate) fn bench(criterion: &mut Criterion) {
    figures(criterion);
    lines(criterion);
}

/// All that one request changes, at its begin and at its end.
fn figures(criterion: &mut Criterion) {
    let registry = Registry::default();
    let (listener, cluster) = (registry.listener("web"), registry.cluster("app"));
    criterion.bench_function("figures of a request (<= 100 ns)", |bencher| {
        bencher.iter(|| record(&listener, &cluster, black_box(Duration::from_micros(1234))));
    });
    assert!(registry.render().contains("outrigger_upstream_requests_total"));
}

fn record(listener: &ListenerStats, cluster: &ClusterStats, took: Duration) {
    listener.requests_active.increment(1);
    cluster.active.increment(1);
    listener.requests_active.decrement(1);
    listener.request(200, took);
    listener.bytes(0, 256);
    cluster.active.decrement(1);
    cluster.bytes(0, 256);
    cluster.request(200, took);
}

fn lines(criterion: &mut Criterion) {
    let endpoint = Address::Ip(([10, 0, 0, 9], 8080).into());
    let record = request(&endpoint);
    let mut group = criterion.benchmark_group("log line");
    for (name, format) in [("JSON", LogFormat::Json), ("text", LogFormat::Text)] {
        // Without room full buffers are let go: what is measured is the worker's share, not the writer's thread.
        let (queue, _lines) = queue(0, Arc::default());
        let logger = Logger::new(format, queue);
        group.bench_function(within("1 us", name), |bencher| bencher.iter(|| logger.log(black_box(&record))));
    }
    group.finish();
}

fn request(endpoint: &Address) -> Record<'_> {
    Record {
        start: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_441_260_123),
        duration: Duration::from_micros(1234),
        protocol: "HTTP/1.1",
        client: Peer::Ip(([10, 0, 0, 1], 55_555).into()),
        listener: "web",
        route: "web.routes[2]",
        method: "GET",
        host: b"customers.shop.svc.cluster.local",
        path: b"/api/v1/customers/8c1f2b6e",
        query: Some(b"fields=name,address"),
        user_agent: b"inventory/2.4.1",
        status: 200,
        flag: "-",
        reason: "",
        bytes_received: 0,
        bytes_sent: 1234,
        cluster: "customers",
        endpoint: Some(endpoint),
        attempts: 1,
        identity: "",
        authorization: "",
        fallback: "",
        connect: None,
        first_byte: Some(Duration::from_micros(980)),
    }
}
