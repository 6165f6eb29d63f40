//! A cluster in virtual time: what a balancer does to the latencies that clients see.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::model::{Address, Balance};

use super::super::endpoint::Endpoint;
use super::{EndpointSet, PickFacts, Settings};

const REQUESTS: usize = 50_000;
const ENDPOINTS: u16 = 10;
/// Mean time to answer.
const FAST: Duration = Duration::from_millis(10);
/// The same, of the first endpoint.
const SLOW: Duration = Duration::from_millis(100);
/// Mean time between two requests.
const BETWEEN: Duration = Duration::from_millis(1);

/// The 99th percentile of latency. Times are exponential, from one seed.
fn p99(balance: &Balance) -> Duration {
    let endpoint = |i| Arc::new(Endpoint::new(u64::from(i), Address::Ip(([127, 0, 0, 1], i).into()), 1));
    let endpoints: Vec<_> = (0..ENDPOINTS).map(endpoint).collect();
    let settings = Settings { balance, ..Settings::default() };
    let set = EndpointSet::new(endpoints, settings);
    let mut rng = fastrand::Rng::with_seed(42);
    let (mut now, mut took) = (Duration::ZERO, Vec::new());
    let mut in_flight = BinaryHeap::new();
    let mut leases = Vec::new();
    for request in 0..REQUESTS {
        now += BETWEEN.mul_f64(-rng.f64().max(1e-12).ln());
        while let Some(Reverse((end, _))) = in_flight.peek()
            && *end <= now
        {
            let Reverse((end, request)) = in_flight.pop().expect("just seen");
            let (_, endpoint): (_, Arc<Endpoint>) = Option::take(&mut leases[request]).expect("ends once");
            endpoint.answered(took[request], end);
        }
        let facts = PickFacts { now, ..PickFacts::default() };
        let picked = set.pick(&facts, || rng.u64(..), |_| false).expect("all are available").endpoint;
        let mean = if picked.id() == 0 { SLOW } else { FAST };
        took.push(mean.mul_f64(-rng.f64().max(1e-12).ln()));
        in_flight.push(Reverse((now + took[request], request)));
        leases.push(Some((picked.lease(), picked.clone())));
    }
    took.sort();
    took[REQUESTS * 99 / 100]
}

#[test]
fn peak_ewma_keeps_a_slow_endpoint_from_the_clients() {
    let (in_turn, least, ewma) =
        (p99(&Balance::RoundRobin), p99(&Balance::LeastRequest), p99(&Balance::PeakEwma));
    println!(
        "p99, one endpoint of ten 10x slower: round robin {in_turn:?}, least request {least:?}, peak EWMA {ewma:?}"
    );
    assert!(ewma * 3 < in_turn, "{ewma:?} {in_turn:?}");
    assert!(ewma < least, "{ewma:?} {least:?}");
}
