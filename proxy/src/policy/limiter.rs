//! A route's rate limit: its buckets, and how it is told to those who are counted by it, in the fields of
//! draft-ietf-httpapi-ratelimit-headers-11.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use outrigger_proto::model::{LimitKey, RateLimit};

use super::bucket::{Bucket, Quota, Rate};
use super::keyed::Keyed;
use super::line::Line;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const SERVICE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// A rate limit as it lives.
#[derive(Debug)]
pub struct RateLimiter {
    config: RateLimit,
    rate: Rate,
    /// For those who have no key of their own.
    common: Bucket,
    each: Option<Keyed>,
    policy: HeaderValue,
}

impl RateLimiter {
    /// All buckets are full. The secret must be random.
    pub fn new(config: RateLimit, secret: RandomState) -> Self {
        let each = match config.per {
            LimitKey::All => None,
            LimitKey::Header(_) | LimitKey::Source | LimitKey::Identity => {
                Some(Keyed::new(config.keys, secret))
            }
        };
        let policy = policy(&config);
        Self { rate: Rate::new(&config), common: Bucket::default(), each, policy, config }
    }

    /// What requests are counted by.
    pub fn per(&self) -> &LimitKey {
        &self.config.per
    }

    /// Counts a request of this caller; of all together, or of those that have no key, when there is `None`. `now` is
    /// the time since the process began.
    pub fn take(&self, caller: Option<&[u8]>, now: Duration) -> Quota {
        match (caller, &self.each) {
            (Some(caller), Some(each)) => each.take(caller, self.rate, now),
            (_, _) => self.common.take(self.rate, now),
        }
    }

    /// What a caller is told of what it has left.
    pub fn announcement(&self, quota: Quota) -> Announcement {
        Announcement { policy: self.policy.clone(), quota }
    }

    /// The limit, for who has exceeded it.
    pub fn exceeded(&self) -> Exceeded {
        let RateLimit { tokens, every, burst, per: _, keys: _ } = self.config;
        Exceeded { tokens, seconds: seconds(every), burst, each: self.each.is_some() }
    }
}

fn policy(config: &RateLimit) -> HeaderValue {
    let RateLimit { tokens, every, burst, per: _, keys: _ } = config;
    let mut text = format!("\"default\";q={tokens};w={}", seconds(*every));
    if burst != tokens {
        // The draft has no word for it. Without it a quota that is left above `q`, or never near it, would be a riddle.
        text.push_str(&format!(";outrigger-burst={burst}"));
    }
    HeaderValue::try_from(text).expect("digits and ASCII")
}

/// What a caller who was counted is told with the answer, whatever that is: what is configured, always the same; then what
/// is left, and for how long that is all. What an upstream or a service says of other limits stays beside it.
#[derive(Clone, Debug)]
pub struct Announcement {
    policy: HeaderValue,
    quota: Quota,
}

impl Announcement {
    /// Adds it to fields.
    pub fn add(&self, headers: &mut HeaderMap) {
        headers.append(POLICY, self.policy.clone());
        headers.append(SERVICE_LIMIT, self.service_limit().value());
    }

    /// Writes it as lines of a head (RFC 9112 section 5): as fields it would cost more than to count the request.
    pub fn write(&self, out: &mut Vec<u8>) {
        let limit = self.service_limit();
        let parts =
            [b"ratelimit-policy: ", self.policy.as_bytes(), b"\r\nratelimit: ", limit.as_bytes(), b"\r\n"];
        parts.into_iter().for_each(|part| out.extend_from_slice(part));
    }

    fn service_limit(&self) -> Line {
        let Quota { left, .. } = self.quota;
        Line::new().text("\"default\";r=").number(left).text(";t=").number(seconds(self.quota.next()))
    }
}

/// `retry-after`: never earlier than the window of an [`Announcement`] ends (section 6 of the draft).
pub fn retry_after(quota: &Quota) -> HeaderValue {
    HeaderValue::from(seconds(quota.next()))
}

/// Whole seconds, rounded up, and one at least.
fn seconds(time: Duration) -> u32 {
    let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX).max(1)
}

/// A rate limit that was exceeded, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    tokens: NonZeroU32,
    seconds: u32,
    burst: NonZeroU32,
    each: bool,
}

impl Exceeded {
    /// One request a second, for all together.
    #[cfg(test)]
    pub(crate) const SAMPLE: Self =
        Self { tokens: NonZeroU32::MIN, seconds: 1, burst: NonZeroU32::MIN, each: false };
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens, seconds, burst, each } = self;
        write!(f, "{tokens} requests ")?;
        match seconds {
            1 => f.write_str("a second")?,
            60 => f.write_str("a minute")?,
            3600 => f.write_str("an hour")?,
            other => write!(f, "in {other} seconds")?,
        }
        let whom = if *each { ", of each caller" } else { "" };
        write!(f, ", {burst} at once{whom}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(tokens: u32, every: u64, burst: u32, per: LimitKey) -> RateLimiter {
        let not_zero = |n| NonZeroU32::new(n).unwrap();
        let config = RateLimit {
            tokens: not_zero(tokens),
            every: Duration::from_secs(every),
            burst: not_zero(burst),
            per,
            keys: RateLimit::KEYS,
        };
        RateLimiter::new(config, RandomState::new())
    }

    #[test]
    fn it_says_what_it_is() {
        let rows = [
            (limiter(100, 1, 20, LimitKey::All), "100 requests a second, 20 at once"),
            (limiter(10, 60, 10, LimitKey::Source), "10 requests a minute, 10 at once, of each caller"),
            (limiter(5, 3600, 9, LimitKey::All), "5 requests an hour, 9 at once"),
            (limiter(5, 10, 5, LimitKey::All), "5 requests in 10 seconds, 5 at once"),
        ];
        let policies = [
            "\"default\";q=100;w=1;outrigger-burst=20",
            "\"default\";q=10;w=60",
            "\"default\";q=5;w=3600;outrigger-burst=9",
            "\"default\";q=5;w=10",
        ];
        for ((limiter, text), policy) in rows.iter().zip(policies) {
            assert_eq!(
                (limiter.exceeded().to_string().as_str(), limiter.policy.as_bytes()),
                (*text, policy.as_bytes())
            );
        }
    }

    #[test]
    fn it_says_what_is_left() {
        let limiter = limiter(10, 60, 2, LimitKey::All);
        let mut said = Vec::new();
        for ms in [0, 0, 0, 3500, 5999, 6000] {
            let quota = limiter.take(None, Duration::from_millis(ms));
            let (left, retry) = (limiter.announcement(quota).service_limit().value(), retry_after(&quota));
            said.push((quota.granted, left.to_str().unwrap().to_owned(), retry.to_str().unwrap().to_owned()));
        }
        let rows = [
            (true, "\"default\";r=1;t=6", "6"),
            (true, "\"default\";r=0;t=6", "6"),
            (false, "\"default\";r=0;t=6", "6"),
            (false, "\"default\";r=0;t=3", "3"),
            (false, "\"default\";r=0;t=1", "1"),
            (true, "\"default\";r=0;t=6", "6"),
        ];
        assert_eq!(said, rows.map(|(granted, left, retry)| (granted, left.to_owned(), retry.to_owned())));
    }

    #[test]
    fn it_says_the_same_in_fields_and_in_lines() {
        let limiter = limiter(100, 60, 20, LimitKey::All);
        let said = limiter.announcement(limiter.take(None, Duration::ZERO));
        let (mut lines, mut fields) = (Vec::new(), HeaderMap::new());
        said.write(&mut lines);
        said.add(&mut fields);
        let fields = fields.iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
        assert_eq!(String::from_utf8(lines).unwrap(), fields.collect::<String>());
    }

    #[test]
    fn callers_are_counted_apart_where_that_is_meant() {
        let all = limiter(1, 1, 1, LimitKey::All);
        assert!(all.take(None, Duration::ZERO).granted);
        assert!(!all.take(None, Duration::ZERO).granted);
        let each = limiter(1, 1, 1, LimitKey::Source);
        for caller in [None, Some(b"a".as_slice()), Some(b"b")] {
            assert!(each.take(caller, Duration::ZERO).granted, "{caller:?}");
            assert!(!each.take(caller, Duration::ZERO).granted, "{caller:?}");
        }
    }
}
