//! The parts of the stack, each named after what it takes care of. A layer wraps; what is to be decided, a plain
//! function decides.

pub mod admit;
pub mod authenticate;
pub mod authorize;
pub mod check;
pub mod concurrency;
pub mod detour;
pub mod edit;
pub mod external_authorization;
pub mod fallback;
pub mod fault;
pub mod forward;
pub mod global_rate_limit;
pub mod mirror;
pub mod observe;
pub mod on_demand;
pub mod rate_limit;
pub mod retry;
pub mod route;
pub mod shadow;
pub mod stale;
pub mod timeout;

use http::Response;

use crate::body::Body;
use crate::error::ProxyError;

/// What a layer of the stack comes to.
pub type Outcome = Result<Response<Body>, ProxyError>;
