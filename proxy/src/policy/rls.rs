//! What is said to Envoy's rate limit service and what it says: `envoy.service.ratelimit.v3.RateLimitService`, of its
//! messages the fields that we use, under their own numbers.
//! <https://github.com/envoyproxy/envoy/blob/main/api/envoy/service/ratelimit/v3/rls.proto>

use std::time::Duration;

use prost::Message;

use super::fields::{Change, Field, is_ours};

/// Where the question is put.
pub const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

const OK: i32 = 1;
const OVER_LIMIT: i32 = 2;

/// `RateLimitRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// Under which name the service keeps its limits.
    #[prost(string, tag = "1")]
    pub domain: String,
    /// What the request counts as.
    #[prost(message, repeated, tag = "2")]
    pub descriptors: Vec<Descriptor>,
    /// How much it counts.
    #[prost(uint32, tag = "3")]
    pub hits_addend: u32,
}

/// `RateLimitDescriptor`.
#[derive(Clone, PartialEq, Message)]
pub struct Descriptor {
    /// Of which each narrows the one before.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<Entry>,
}

/// `RateLimitDescriptor.Entry`.
#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    /// The key; not empty.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value; not empty.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `RateLimitResponse`.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(int32, tag = "1")]
    overall_code: i32,
    #[prost(message, repeated, tag = "2")]
    statuses: Vec<Status>,
    #[prost(message, repeated, tag = "3")]
    response_headers_to_add: Vec<Field>,
    #[prost(message, repeated, tag = "4")]
    request_headers_to_add: Vec<Field>,
}

/// `RateLimitResponse.DescriptorStatus`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(message, optional, tag = "4")]
    duration_until_reset: Option<Span>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
struct Span {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// What the service decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Whether the request is taken.
    pub granted: bool,
    /// How long one that is not would not be again, where the service says so.
    pub reset: Option<Duration>,
    /// To be added to the request.
    pub request_headers: Vec<Change>,
    /// To be added to the answer.
    pub response_headers: Vec<Change>,
}

/// Reads an answer; `None` when it is none, or decides nothing.
pub fn decision(message: &[u8]) -> Option<Decision> {
    let Response { overall_code, statuses, response_headers_to_add, request_headers_to_add } =
        Response::decode(message).ok()?;
    let granted = match overall_code {
        OK => true,
        OVER_LIMIT => false,
        _ => return None,
    };
    let over = statuses.iter().filter(|status| status.code == OVER_LIMIT);
    Some(Decision {
        granted,
        // One that is over is enough: the last of them decides.
        reset: over.filter_map(|status| span(status.duration_until_reset?)).max(),
        request_headers: fields(request_headers_to_add),
        response_headers: fields(response_headers_to_add),
    })
}

fn span(Span { seconds, nanos }: Span) -> Option<Duration> {
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(seconds).ok()?, nanos))
}

/// What can be a header field, and may be one.
fn fields(fields: Vec<Field>) -> Vec<Change> {
    let fields = fields.into_iter().filter_map(Field::parse);
    fields.filter(|(name, _)| !is_ours(name)).map(Change::append).collect()
}

#[cfg(test)]
#[path = "rls_tests.rs"]
mod tests;
