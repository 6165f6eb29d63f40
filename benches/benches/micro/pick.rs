//! Which endpoint takes a request. Weights differ, so that each balancer takes its longer way; the budget does not
//! grow with the endpoints.

use std::sync::Arc;
use std::time::Duration;

use outrigger::upstream::{Endpoint, EndpointSet, PickFacts, Settings};
use outrigger_proto::model::{Address, Balance, HashOn};

use crate::{Criterion, within};

const BUDGET: &str = "100 ns";
/// When the endpoints are asked for.
const NOW: Duration = Duration::from_secs(60);

pub(crate) fn bench(criterion: &mut Criterion) {
    let balancers = [
        ("peak-ewma", Balance::PeakEwma),
        ("least-request", Balance::LeastRequest),
        ("round-robin", Balance::RoundRobin),
        ("random", Balance::Random),
        ("ring-hash", Balance::RingHash([HashOn::Source.into()].into())),
        ("maglev", Balance::Maglev([HashOn::Source.into()].into())),
    ];
    let mut group = criterion.benchmark_group("pick");
    for endpoints in [3, 100, 1000] {
        for (name, balance) in &balancers {
            let settings = Settings { balance, ..Settings::default() };
            let set = EndpointSet::new((0..endpoints).map(endpoint).collect(), settings);
            let mut rng = fastrand::Rng::with_seed(7);
            group.bench_function(within(BUDGET, format_args!("{name}, {endpoints}")), |bencher| {
                bencher.iter(|| {
                    let facts = PickFacts { now: NOW, hash: Some(rng.u64(..)), tried: &[] };
                    set.pick(&facts, || rng.u64(..), |_| false).map(|picked| picked.endpoint.id())
                });
            });
        }
    }
    group.finish();
}

/// One that has answered a while ago: its latency must be known, and faded.
fn endpoint(number: u32) -> Arc<Endpoint> {
    let address = Address::Ip(([10, 0, (number / 256) as u8, (number % 256) as u8], 8080).into());
    let endpoint = Arc::new(Endpoint::new(number.into(), address, 1 + number % 3));
    endpoint.answered(Duration::from_micros(u64::from(500 + number)), NOW - Duration::from_secs(1));
    endpoint
}
