//! How the failures of others are kept small: what is tried again, what is limited, who is left out.

use std::num::NonZeroU32;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::Destination;

/// A share of a whole, in steps of a ten-thousandth of a per cent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u32);

impl Percent {
    /// Nothing of it.
    pub const ZERO: Self = Self(0);
    /// All of it.
    pub const ALL: Self = Self(1_000_000);

    /// `None` above [`Self::ALL`].
    pub const fn from_millionths(millionths: u32) -> Option<Self> {
        if millionths <= Self::ALL.0 { Some(Self(millionths)) } else { None }
    }

    /// So many whole per cent; more than a hundred are a hundred.
    pub const fn whole(percent: u32) -> Self {
        if percent >= 100 { Self::ALL } else { Self(percent * 10_000) }
    }

    /// The share in millionths.
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// The share, from 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(Self::ALL.0)
    }

    /// Whether a random number falls into the share.
    pub fn takes(self, random: u64) -> bool {
        // The upper bits, scaled: even to one part in 2^32, and no division.
        (((random >> 32) * u64::from(Self::ALL.0)) >> 32) < u64::from(self.0)
    }
}

/// When a request that failed is sent once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often a request is sent at the most, the first time included.
    pub attempts: NonZeroU32,
    /// What must have happened; any of these.
    pub conditions: Vec<RetryCondition>,
    /// For one attempt, from sending to the head of its response; none by default. An attempt that takes longer is
    /// given up, and counts as a reset and as a 504.
    pub per_try_timeout: Option<Duration>,
    /// The wait before each further attempt.
    pub backoff: Backoff,
    /// Also requests whose method is not idempotent (RFC 9110 section 9.2.2), when they may have been processed.
    pub non_idempotent: bool,
    /// Bytes of a request's body that are kept to be sent again; a larger one is sent once.
    pub max_body: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: NonZeroU32::new(2).expect("not zero"),
            conditions: vec![
                RetryCondition::ConnectFailure,
                RetryCondition::RefusedStream,
                RetryCondition::Reset,
                RetryCondition::GatewayError,
            ],
            per_try_timeout: None,
            backoff: Backoff::default(),
            non_idempotent: false,
            max_body: 64 * 1024,
        }
    }
}

/// What makes a request worth another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryCondition {
    /// No connection: nothing of the request was seen by anybody.
    ConnectFailure,
    /// The connection, or the stream, ended without a response; or `per_try_timeout` ran out.
    Reset,
    /// The upstream said that it did not look at the request (HTTP/2 `REFUSED_STREAM`, or a GOAWAY below it).
    RefusedStream,
    /// Any status from 500 to 599.
    ServerError,
    /// 502, 503 or 504.
    GatewayError,
    /// 409, as a conflict may be gone the next time.
    Retriable4xx,
    /// This status.
    Status(StatusCode),
    /// This gRPC status, 1 to 16, in the head or in the trailers of a response without messages.
    Grpc(u8),
}

/// The wait before a further attempt: at random between nothing and a bound that doubles each time (full jitter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The bound of the first wait.
    pub base: Duration,
    /// The bound never grows beyond this; not below `base`.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

/// When a second attempt is started although the first has not failed. Whichever answers first counts, the other is
/// cancelled; the second is paid for out of the cluster's retry budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedge {
    /// How long the first attempt has alone.
    pub after: HedgeAfter,
}

/// How long the first attempt has alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfter {
    /// So long.
    Fixed(Duration),
    /// As long as this per cent (1 to 99) of the cluster's responses lately took at the most.
    Percentile(u8),
}

/// What a limit is counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LimitKey {
    /// All requests together.
    All,
    /// Each value of this header field apart; requests without it together.
    Header(HeaderName),
    /// Each client address apart.
    Source,
    /// Each SPIFFE ID that a client has proven apart; those who have none together.
    Identity,
}

/// How many requests of a route may be under way at once: a bulkhead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Concurrency {
    /// Under way at once, over all workers.
    pub max: NonZeroU32,
    /// Further requests that wait for their turn; none by default.
    pub queue: u32,
    /// The longest wait. A request whose own deadline is nearer waits only until that.
    pub wait: Duration,
    /// Counted together, or each caller apart.
    pub per: LimitKey,
    /// Whether the limit follows the latency of the answers, up to `max`; only where all are counted together.
    pub adaptive: Option<Adaptive>,
}

impl Concurrency {
    /// So many at once, and none that waits.
    pub fn new(max: NonZeroU32) -> Self {
        Self { max, queue: 0, wait: Duration::from_secs(1), per: LimitKey::All, adaptive: None }
    }
}

/// A limit that is lowered while answers take longer than they do without a crowd, and raised while they do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Adaptive {
    /// It is never lower; not above the limit's `max`.
    pub min: NonZeroU32,
    /// So many times longer than without a crowd is still well, in tenths; above 10.
    pub tolerance: u32,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self { min: NonZeroU32::new(4).expect("not zero"), tolerance: 20 }
    }
}

/// How many requests of a route are taken in a time: a token bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RateLimit {
    /// Tokens that come in [`Self::every`].
    pub tokens: NonZeroU32,
    /// The time that they come in: a second, minute or hour.
    pub every: Duration,
    /// Tokens that an idle bucket holds: so many requests at once. As many as `tokens` by default.
    pub burst: NonZeroU32,
    /// One bucket, or one for each caller.
    pub per: LimitKey,
    /// Buckets kept at once, where there is one for each caller; beyond it the one used longest ago is forgotten.
    pub keys: NonZeroU32,
}

impl RateLimit {
    /// Buckets kept by default.
    pub const KEYS: NonZeroU32 = NonZeroU32::new(10_000).expect("not zero");
}

/// Failures made on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Requests are held up.
    pub delay: Option<FaultDelay>,
    /// Requests are answered instead of sent on.
    pub abort: Option<FaultAbort>,
    /// Only requests that carry this header field; all by default.
    pub when: Option<HeaderName>,
}

/// Requests that are held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultDelay {
    /// For so long.
    pub fixed: Duration,
    /// This share of them.
    pub percent: Percent,
}

/// Requests that are answered instead of sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultAbort {
    /// With this.
    pub with: AbortWith,
    /// This share of them.
    pub percent: Percent,
}

/// What an aborted request is answered with. A gRPC caller gets the gRPC status that belongs to an HTTP status, and
/// another caller the HTTP status that belongs to a gRPC status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortWith {
    /// An HTTP status, 400 to 599.
    Status(StatusCode),
    /// A gRPC status, 1 to 16.
    Grpc(u8),
}

/// A copy of requests for another cluster, whose answers nobody sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Who gets the copy.
    pub to: Destination,
    /// Of this share.
    pub percent: Percent,
}

/// What of the requests to a cluster may be attempts beyond the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// The share of requests that may be further attempts.
    pub percent: Percent,
    /// Further attempts a second that are always allowed, so that a cluster with little traffic has some.
    pub min: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: Percent::whole(20), min: 3 }
    }
}

/// How much a request matters: each class has limits of its own, so that one cannot crowd out the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// As most.
    #[default]
    Default,
    /// More than most.
    High,
}

/// What a cluster may be burdened with at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// By requests of [`Priority::Default`].
    pub default: BreakerLimits,
    /// By those of [`Priority::High`]; without it by as many again.
    pub high: Option<BreakerLimits>,
}

impl CircuitBreaker {
    /// The limits of a class.
    pub fn of(&self, priority: Priority) -> &BreakerLimits {
        match (priority, &self.high) {
            (Priority::High, Some(high)) => high,
            (Priority::Default, _) | (Priority::High, None) => &self.default,
        }
    }
}

impl From<BreakerLimits> for CircuitBreaker {
    fn from(default: BreakerLimits) -> Self {
        Self { default, high: None }
    }
}

/// What a cluster may be burdened with at once by one class of requests, over all workers. Exact: never one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Open connections, those in pools included.
    pub max_connections: NonZeroU32,
    /// Requests that wait for a connection.
    pub max_pending: u32,
    /// Requests in flight, until the last byte of their response.
    pub max_requests: NonZeroU32,
    /// Of these, attempts beyond the first.
    pub max_retries: u32,
}

impl Default for BreakerLimits {
    fn default() -> Self {
        Self {
            max_connections: NonZeroU32::new(1024).expect("not zero"),
            max_pending: 1024,
            max_requests: NonZeroU32::new(1024).expect("not zero"),
            max_retries: 64,
        }
    }
}

/// When an endpoint is left out for a while, by how it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Statuses of 500 and above, or no response, one after the other; 0 turns it off.
    pub consecutive_5xx: u32,
    /// 502, 503 or 504, or no response, one after the other; 0 turns it off.
    pub consecutive_gateway: u32,
    /// No response, one after the other; 0 turns it off.
    pub consecutive_local: u32,
    /// An endpoint that succeeds so many standard deviations less often than the mean of its cluster, in tenths; 0
    /// turns it off.
    pub success_rate_deviations: u32,
    /// An endpoint that fails this share of its requests in an interval; [`Percent::ZERO`] turns it off.
    pub failure_percent: Percent,
    /// An endpoint whose mean latency is so many times the median of its cluster's, in tenths; 0 turns it off.
    pub latency_factor: u32,
    /// Requests an endpoint must have had in an interval to be judged by a share or a mean.
    pub min_requests: NonZeroU32,
    /// How often shares and means are looked at, and ejections are ended.
    pub interval: Duration,
    /// The first ejection's length; the n-th's is n times that, and a tenth at random.
    pub base_ejection: Duration,
    /// No ejection is longer; not below `base_ejection`.
    pub max_ejection: Duration,
    /// Never is a larger share of the cluster's endpoints left out; but always one may be, where there are two or more.
    pub max_ejected: Percent,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway: 0,
            consecutive_local: 5,
            success_rate_deviations: 0,
            failure_percent: Percent::ZERO,
            latency_factor: 0,
            min_requests: NonZeroU32::new(50).expect("not zero"),
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejected: Percent::whole(50),
        }
    }
}

/// How an endpoint is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What it is asked.
    pub probe: Probe,
    /// Between two checks of an endpoint that is well; a tenth of it at random.
    pub interval: Duration,
    /// Between two checks of one that is not, or is not known yet.
    pub unhealthy_interval: Duration,
    /// Between two checks while the cluster has no traffic.
    pub idle_interval: Duration,
    /// For an answer.
    pub timeout: Duration,
    /// Failures in a row that make an endpoint unhealthy. A refused connection counts for all of them.
    pub unhealthy_after: NonZeroU32,
    /// Successes in a row that make it healthy again; the first check of a new endpoint needs one.
    pub healthy_after: NonZeroU32,
}

impl HealthCheck {
    /// A check with the defaults.
    pub fn new(probe: Probe) -> Self {
        Self {
            probe,
            interval: Duration::from_secs(5),
            unhealthy_interval: Duration::from_secs(1),
            idle_interval: Duration::from_secs(60),
            timeout: Duration::from_secs(1),
            unhealthy_after: NonZeroU32::new(3).expect("not zero"),
            healthy_after: NonZeroU32::new(2).expect("not zero"),
        }
    }
}

/// What an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `GET` this path; a status from 200 to 299 is well.
    Http(Box<str>),
    /// A connection; being accepted is well.
    Tcp,
    /// `grpc.health.v1.Health/Check` for this service, which may be empty; SERVING is well.
    Grpc(Box<str>),
}

/// A part of what decides an endpoint, where a cluster balances by hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashKey {
    /// What is hashed. Where a request has no such thing, those beside it decide alone.
    pub on: HashOn,
    /// Whether nothing behind it counts, once there is something to be hashed.
    pub terminal: bool,
}

impl From<HashOn> for HashKey {
    fn from(on: HashOn) -> Self {
        Self { on, terminal: false }
    }
}

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// The value of this header field.
    Header(HeaderName),
    /// The value of this cookie.
    Cookie {
        /// Its name.
        name: Box<str>,
        /// What is made where there is none; `None` makes none.
        made: Option<MadeCookie>,
    },
    /// The client's address.
    Source,
    /// The value of this query parameter.
    Query(Box<str>),
}

/// A cookie that the client is given (RFC 6265 section 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeCookie {
    /// How long it lives; zero for as long as the session.
    pub ttl: Duration,
    /// Below which path it comes back; `None` leaves that to the client.
    pub path: Option<Box<str>>,
}

impl MadeCookie {
    /// For this long, below every path.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, path: Some("/".into()) }
    }

    /// Whether a path can stand in a cookie.
    pub fn takes_path(path: &str) -> bool {
        path.starts_with('/') && path.bytes().all(|b| (b' '..0x7f).contains(&b) && b != b';')
    }
}
