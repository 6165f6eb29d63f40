//! May this go on, must it be held back or made to fail, is it tried again? Pure: configuration, facts, `now` and random
//! numbers in, a decision out. The layers of the stack carry it out.

pub mod adaptive;
pub mod authz;
pub mod bucket;
pub mod budget;
pub mod bulkhead;
pub mod deadline;
pub mod ext_authz;
pub mod fault;
pub mod fields;
pub mod jwt;
mod kept;
pub mod keyed;
pub mod limiter;
pub mod limits;
mod line;
pub mod overload;
pub mod refusals;
pub mod retry;
pub mod rls;
pub mod stale;
