//! The canonical form of a path. Nearly all come canonical: those cost a scan, the others a copy.

use std::borrow::Cow;
use std::hint::black_box;

use outrigger::routing::path::canonical;

use crate::{Criterion, within};

const CANONICAL: &str = "/api/v1/customers/8c1f2b6e-01d4/orders/caf%C3%A9/items";
const OTHERWISE: &str = "/api/./v0/../v1//%63ustomers/8c1f2b6e-01d4/orders/caf%c3%a9/items";

pub(crate) fn bench(criterion: &mut Criterion) {
    assert!(matches!(canonical(CANONICAL, true), Ok(Cow::Borrowed(_))));
    assert!(matches!(canonical(OTHERWISE, true), Ok(Cow::Owned(path)) if path == CANONICAL));
    let mut group = criterion.benchmark_group("path");
    group.bench_function(within("100 ns", "canonical"), |bencher| {
        bencher.iter(|| canonical(black_box(CANONICAL), true).is_ok());
    });
    // Rare, and whoever sends it should not gain by it: as much as a route.
    group.bench_function(within("300 ns", "rebuilt"), |bencher| {
        bencher.iter(|| canonical(black_box(OTHERWISE), true).is_ok());
    });
    group.finish();
}
