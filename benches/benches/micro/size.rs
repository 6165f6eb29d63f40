//! How large the futures are that every request, and every connection, is driven by: what grows here is moved, zeroed
//! and kept for each of them.

use std::rc::Rc;

use outrigger::conn::Conn;
use outrigger::http::h1;
use outrigger::http::stack::{Stack, stack};
use outrigger::io::stream::Stream;

/// Of one request on its way through the stack. Bytes.
const REQUEST: usize = 2048;
/// Of an HTTP/1 connection while it waits; what drives a request is boxed apart. Bytes.
const CONNECTION: usize = 1024;

/// Says the sizes.
///
/// # Panics
/// One is over its budget.
pub(crate) fn check() {
    sizes(&stack());
}

fn sizes<S: Stack>(_: &S) {
    let serve = h1::serve::<S>;
    judge("request", size_of::<S::Future>(), REQUEST);
    judge("HTTP/1 connection", returned(serve), CONNECTION);
}

fn judge(what: &str, bytes: usize, budget: usize) {
    // Not where the figures go: tools read those.
    eprintln!("future of a {what}: {bytes} bytes (<= {budget})");
    assert!(bytes <= budget, "the future of a {what} has grown");
}

/// Bytes of the future that a function returns, without calling it.
fn returned<S, F>(_: impl FnOnce(Rc<Conn>, S, Stream) -> F) -> usize {
    size_of::<F>()
}
