//! Which route takes a request. 10,000 routes may cost a whole request 1.15 times what one does (`src/bars.rs`), so
//! the budget is the same for every size.

use std::hint::black_box;

use http::HeaderMap;
use outrigger::routing::{RouteIndex, naive};
use outrigger_proto::model::RouteTable;

use crate::tables::{self, Request};
use crate::{Criterion, within};

const BUDGET: &str = "300 ns";

pub(crate) fn bench(criterion: &mut Criterion) {
    let headers = HeaderMap::new();
    let mut group = criterion.benchmark_group("route");
    let mut index = |kind: &str, table: RouteTable| {
        let routes = table.routes.len();
        let requests = tables::requests(routes);
        let index = RouteIndex::new(&table);
        let find = |request: &Request| index.find(&table, &request.head(&headers));
        assert!(requests.iter().all(|request| find(request) == Some(request.route)));
        let mut turn = requests.iter().cycle();
        group.bench_function(within(BUDGET, format_args!("{kind}, {routes}")), |bencher| {
            bencher.iter(|| find(black_box(turn.next().expect("a cycle"))));
        });
    };
    for routes in [1, 10, 1000, 10_000] {
        index("prefixes", tables::prefixes(routes));
    }
    for routes in [10, 10_000] {
        index("hosts", tables::hosts(routes));
    }
    // What the index saves: every route asked in turn. No budget, as nothing on the road does this.
    for routes in [10, 1000] {
        let table = tables::prefixes(routes);
        let requests = tables::requests(routes);
        let mut turn = requests.iter().cycle();
        group.bench_function(format!("naive prefixes, {routes}"), |bencher| {
            bencher.iter(|| naive::find(&table, &black_box(turn.next().expect("a cycle")).head(&headers)));
        });
    }
    group.finish();
}
