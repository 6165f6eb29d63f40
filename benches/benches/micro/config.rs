//! What a configuration costs before it is in force, out of 50 ms from start to ready.

use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::BatchSize;
use outrigger::live::Routes;
use outrigger::observe::Registry;
use outrigger::upstream::{ClusterView, Clusters};
use outrigger_proto::model::{Cluster, Config, Name, Source};
use outrigger_proto::yaml;

use crate::tables;
use crate::{Criterion, within};

/// Runs of what takes milliseconds.
const SAMPLES: usize = 20;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("configuration");
    group.sample_size(SAMPLES);
    let text = document(1000);
    assert_eq!(parse(&text).mesh.route_tables["web"].routes.len(), 1000);
    group.bench_function(within("20 ms", "YAML of 1000 routes"), |bencher| {
        bencher.iter_with_large_drop(|| parse(black_box(&text)));
    });
    let table = tables::prefixes(10_000);
    let cluster = cluster();
    group.bench_function(within("20 ms", "index of 10000 routes"), |bencher| {
        let index = |table| Routes::new(table, |_| cluster.clone());
        bencher.iter_batched(|| table.clone(), index, BatchSize::PerIteration);
    });
    group.finish();
}

/// Reads a document that is known to be right.
pub(crate) fn parse(text: &str) -> Config {
    let source = yaml::Source { name: "bench.yaml", text, base: Path::new("/"), env: &|_| None };
    yaml::parse(&source).expect("the document is right").config
}

fn document(routes: usize) -> String {
    let mut text = "listeners:\n  web:\n    bind: 127.0.0.1:8080\n    routes:\n".to_owned();
    for i in 0..routes {
        writeln!(text, "      - match: {{ host: shop-{i}.example.com, path: {{ prefix: /cart/{i} }} }}")
            .and_then(|()| writeln!(text, "        to: app\n        timeout: 2s"))
            .expect("a String takes all");
    }
    text + "clusters:\n  app: { endpoints: [127.0.0.1:9001, 127.0.0.1:9002] }\n"
}

fn cluster() -> Arc<ClusterView> {
    let name = Name::new(tables::CLUSTER).expect("a name");
    let live = Clusters::new(Registry::default(), tokio::time::Instant::now()).get_or_make(&name);
    Arc::new(ClusterView { config: Arc::new(Cluster::new(Source::Static)), live, tls: None, subset: None })
}
