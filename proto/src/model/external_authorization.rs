//! Whether a request is let in, asked of a service (Envoy's ext_authz).

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use http::HeaderName;

use super::{Name, OnFailure};

/// A service is asked whether each request of a listener is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAuthorization {
    /// The service.
    pub cluster: Name,
    /// How it is asked.
    pub protocol: CheckProtocol,
    /// Header fields of the request that it is shown; `None` shows all.
    pub show_headers: Option<Box<[HeaderName]>>,
    /// Header fields of the request that are the service's to set, and nobody else's: from clients they are never taken.
    /// Of `authorization` and `cookie` that holds from its answer on, as it is by these that it knows clients.
    pub set_headers: Box<[HeaderName]>,
    /// How much of a request's body it is shown; `None` shows nothing.
    pub body: Option<CheckBody>,
    /// For an answer.
    pub timeout: Duration,
    /// When there is none.
    pub on_failure: OnFailure,
}

impl ExternalAuthorization {
    /// For an answer, by default.
    pub const TIMEOUT: Duration = Duration::from_millis(200);
}

/// How a service is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckProtocol {
    /// By `envoy.service.auth.v3.Authorization/Check`. Such a service may set any header field of a request.
    Grpc {
        /// What it is told beside the request; a route may say more, or something else.
        context: BTreeMap<Box<str>, Box<str>>,
    },
    /// By the request's own head: 200 lets it in, and any other answer below 500 is the client's.
    Http {
        /// Before the request's path; empty, or from a `/` on and not up to one.
        path_prefix: Box<str>,
        /// Header fields of a 200 that the client's answer gets.
        response_headers: Box<[HeaderName]>,
    },
}

/// How much of a request's body a service is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckBody {
    /// Bytes, which are held until the service has answered.
    pub max: NonZeroU32,
    /// Of a body that is larger it is shown the beginning; otherwise that is answered with 413.
    pub partial: bool,
}

impl CheckBody {
    /// As much as a service may be shown: so much is held for each request.
    pub const MOST: u32 = 1 << 20;
}

/// What a route says about the service that its listener asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckUse {
    /// It is not asked.
    None,
    /// It is told this too.
    Context(BTreeMap<Box<str>, Box<str>>),
}
