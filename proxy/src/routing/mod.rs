//! Which route takes a request, and which target of it: pure functions of the configuration and the request's head.
//!
//! [`naive`] says what is right, one route after the other; [`RouteIndex`] gives the same answer at a cost that does
//! not grow with the number of routes. Nothing here does I/O, asks the clock or draws a random number.

mod build;
mod chains;
mod host;
mod index;
mod keys;
mod lists;
pub mod naive;
pub mod path;
mod predicates;
mod query;
mod rewrite;
mod split;
#[cfg(test)]
mod tests;

pub use self::chains::ChainIndex;
pub use self::host::{canonical_host, host_fits};
pub use self::index::RouteIndex;
pub use self::naive::matches;
pub use self::predicates::header_matches;
pub use self::query::{Plus, QueryEdit, query_matches, query_value};
pub use self::rewrite::{RewriteError, rewritten};
pub use self::split::pick_target;
