//! Policies for failure and load at random: everything that the YAML form can say of them.

use std::num::NonZeroU32;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{boxed_text, respond, string_match, text, time};
use crate::model::*;

fn some(range: std::ops::RangeInclusive<u32>) -> impl Strategy<Value = NonZeroU32> {
    range.prop_map(|n| NonZeroU32::new(n).unwrap())
}

fn any_count() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 1..2_000_u32, Just(u32::MAX)]
}

pub(super) fn percent() -> impl Strategy<Value = Percent> {
    prop_oneof![0..=1_000_000_u32, (0..=100_u32).prop_map(|n| n * 10_000)]
        .prop_map(|n| Percent::from_millionths(n).unwrap())
}

fn header() -> impl Strategy<Value = HeaderName> {
    select(vec!["x-user", "1", "on", "$x", "a'b|c", "cookie"]).prop_map(HeaderName::from_static)
}

fn set_later() -> Destination {
    Name::new("set-later").unwrap().into()
}

/// What a route does with what it sends on, to clusters that are set later.
pub(super) fn forwarded() -> BoxedStrategy<Forward> {
    let mirror = percent().prop_map(|percent| Box::new(Mirror { to: set_later(), percent }));
    let fallback = fallback().prop_map(Box::new).boxed();
    let again = (option::of(retry().prop_map(Box::new)), option::of(hedge()));
    let priority = select(vec![Priority::Default, Priority::High]);
    let hash = prop_oneof![2 => Just(Box::default()), 1 => hash()];
    (again, priority, option::of(mirror), option::of(fallback), hash)
        .prop_map(|((retry, hedge), priority, mirror, fallback, hash)| Forward {
            retry,
            hedge,
            priority,
            mirror,
            fallback,
            hash,
            ..Forward::new(Split::one(set_later()))
        })
        .boxed()
}

fn fallback() -> impl Strategy<Value = Fallback> {
    let instead = || prop_oneof![Just(Instead::To(set_later())), respond().prop_map(Instead::Respond)];
    prop_oneof![
        (stale(), option::of(instead())).prop_map(|(stale, instead)| Fallback::Stale(stale, instead)),
        instead().prop_map(Fallback::Instead),
    ]
}

fn stale() -> impl Strategy<Value = Stale> {
    let bounds = prop_oneof![1..=1_u64 << 20, Just(Stale::MAX_BODY)]
        .prop_flat_map(|body| (Just(body), prop_oneof![body..=256 << 20, Just(Stale::MEMORY.max(body))]));
    (time(), bounds).prop_map(|(keep, (max_body, memory))| Stale { keep, max_body, memory })
}

fn retry() -> impl Strategy<Value = Retry> {
    let status = [100, 409, 503, 599].map(|code| RetryCondition::Status(StatusCode::from_u16(code).unwrap()));
    let words = [
        RetryCondition::ConnectFailure,
        RetryCondition::Reset,
        RetryCondition::RefusedStream,
        RetryCondition::ServerError,
        RetryCondition::GatewayError,
        RetryCondition::Retriable4xx,
    ];
    let all: Vec<_> = status.into_iter().chain(words).chain((1..=16).map(RetryCondition::Grpc)).collect();
    let conditions = subsequence(all, 1..=26).prop_shuffle();
    let backoff = (time(), time()).prop_map(|(a, b)| Backoff { base: a.min(b), max: a.max(b) });
    let body = prop_oneof![0..=16_u64 << 20, Just(64 << 10)];
    (some(1..=10), conditions, option::of(time()), backoff, any::<bool>(), body).prop_map(
        |(attempts, conditions, per_try_timeout, backoff, non_idempotent, max_body)| Retry {
            attempts,
            conditions,
            per_try_timeout,
            backoff,
            non_idempotent,
            max_body,
        },
    )
}

fn hedge() -> impl Strategy<Value = Hedge> {
    prop_oneof![time().prop_map(HedgeAfter::Fixed), (1..=99_u8).prop_map(HedgeAfter::Percentile)]
        .prop_map(|after| Hedge { after })
}

fn per() -> impl Strategy<Value = LimitKey> {
    let words = select(vec![LimitKey::All, LimitKey::Source, LimitKey::Identity]);
    prop_oneof![3 => words, 1 => header().prop_map(LimitKey::Header)]
}

pub(super) fn rate_limit() -> impl Strategy<Value = RateLimit> {
    let every = select(vec![1, 60, 3600]).prop_map(Duration::from_secs);
    let tokens = || some(1..=1_000_000_000);
    (tokens(), every, tokens(), per(), some(1..=1_000_000)).prop_map(|(tokens, every, burst, per, keys)| {
        // Where there is one bucket, there is no number of them.
        let keys = if per == LimitKey::All { RateLimit::KEYS } else { keys };
        RateLimit { tokens, every, burst, per, keys }
    })
}

fn some_text() -> impl Strategy<Value = Box<str>> {
    text().prop_filter("not empty", |t| !t.is_empty()).prop_map(Box::from)
}

/// Which cluster it is, is set later.
pub(super) fn rate_limit_service() -> impl Strategy<Value = RateLimitService> {
    let on_failure = select(vec![OnFailure::Allow, OnFailure::Deny]);
    (some_text(), time(), on_failure, 0..=1_000_000_u32).prop_map(|(domain, timeout, on_failure, cache)| {
        RateLimitService { cluster: set_later().cluster, domain, timeout, on_failure, cache }
    })
}

fn descriptor_entry() -> BoxedStrategy<DescriptorEntry> {
    let absent = || select(vec![Absent::Descriptor, Absent::Entry]);
    let key = |own: &str, key: Option<Box<str>>| key.unwrap_or_else(|| own.into());
    let headers = btree_map(select(vec!["x-beta", "host", "1"]), string_match(), 1..3).prop_map(|all| {
        let one = |(name, value)| HeaderMatch { name: HeaderName::from_static(name), value };
        OnlyOf::Headers(all.into_iter().map(one).collect())
    });
    let query = btree_map("[a-z]{1,3}", string_match(), 1..3).prop_map(|all| {
        let one = |(name, value): (String, _)| QueryMatch { name: name.into(), value };
        OnlyOf::Query(all.into_iter().map(one).collect())
    });
    let only = (any::<bool>(), prop_oneof![headers, query]).prop_map(|(fits, of)| Only { fits, of });
    let words =
        vec![DescriptorEntry::Source, DescriptorEntry::SourceCluster, DescriptorEntry::DestinationCluster];
    prop_oneof![
        (header(), option::of(some_text()), absent()).prop_map(move |(name, own, absent)| {
            DescriptorEntry::Header { key: key(name.as_str(), own), name, absent }
        }),
        (some_text(), option::of(some_text()), absent()).prop_map(move |(name, own, absent)| {
            DescriptorEntry::Query { key: key(&name, own), name, absent }
        }),
        select(words),
        (some_text(), some_text(), option::of(only)).prop_map(|(key, value, only)| DescriptorEntry::Fixed {
            key,
            value,
            only
        }),
    ]
    .boxed()
}

pub(super) fn global_rate_limit() -> impl Strategy<Value = GlobalRateLimit> {
    let descriptors = vec(vec(descriptor_entry(), 1..3), 1..3);
    (option::of(rate_limit_service()), descriptors, some(1..=1_000_000))
        .prop_map(|(service, descriptors, hits)| GlobalRateLimit { service, descriptors, hits })
}

pub(super) fn concurrency() -> BoxedStrategy<Concurrency> {
    let adaptive =
        (some(1..=u32::MAX), 11..=1_000_u32).prop_map(|(min, tolerance)| Adaptive { min, tolerance });
    (some(1..=u32::MAX), any_count(), time(), per(), option::of(adaptive))
        .prop_map(|(max, queue, wait, per, adaptive)| {
            let adaptive = adaptive.filter(|_| per == LimitKey::All);
            let adaptive = adaptive.map(|adaptive| Adaptive { min: adaptive.min.min(max), ..adaptive });
            Concurrency { max, queue, wait, per, adaptive }
        })
        .boxed()
}

pub(super) fn fault() -> impl Strategy<Value = Fault> {
    let delay = (time(), percent()).prop_map(|(fixed, percent)| FaultDelay { fixed, percent });
    let with = prop_oneof![
        (400..600_u16).prop_map(|status| AbortWith::Status(StatusCode::from_u16(status).unwrap())),
        (1..=16_u8).prop_map(AbortWith::Grpc),
    ];
    let abort = (with, percent()).prop_map(|(with, percent)| FaultAbort { with, percent });
    (option::of(delay), option::of(abort), option::of(header()))
        .prop_filter("one of both", |(delay, abort, _)| delay.is_some() || abort.is_some())
        .prop_map(|(delay, abort, when)| Fault { delay, abort, when })
}

/// What is hashed; each once.
pub(super) fn hash() -> impl Strategy<Value = Box<[HashKey]>> {
    let path =
        select(vec![None, Some("/"), Some("/a b:#'"), Some("/$x")]).prop_map(|path| path.map(Box::from));
    let made = (time(), path).prop_map(|(ttl, path)| MadeCookie { ttl, path });
    let cookie = ("[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,6}", option::of(made))
        .prop_map(|(name, made): (String, _)| HashOn::Cookie { name: name.into(), made });
    let query =
        text().prop_filter("not empty", |t| !t.is_empty()).prop_map(|name| HashOn::Query(name.into()));
    let on = prop_oneof![header().prop_map(HashOn::Header), cookie, Just(HashOn::Source), query];
    vec((on, any::<bool>()), 0..4).prop_map(|all| {
        let mut once: Vec<HashKey> = Vec::new();
        for (on, terminal) in all {
            if once.iter().all(|key| key.on != on) {
                once.push(HashKey { on, terminal });
            }
        }
        once.into_boxed_slice()
    })
}

pub(super) fn balance() -> impl Strategy<Value = Balance> {
    prop_oneof![
        select(vec![Balance::PeakEwma, Balance::LeastRequest, Balance::RoundRobin, Balance::Random]),
        (hash(), any::<bool>()).prop_map(|(on, ring)| match ring {
            true => Balance::RingHash(on),
            false => Balance::Maglev(on),
        }),
    ]
}

pub(super) fn overload() -> impl Strategy<Value = Overload> {
    let share = || option::of((1..=1_000_000_u32).prop_map(|n| Percent::from_millionths(n).unwrap()));
    (share(), share(), option::of(some(1..=u32::MAX)))
        .prop_map(|(memory, descriptors, connections)| Overload { memory, descriptors, connections })
}

pub(super) fn retry_budget() -> impl Strategy<Value = RetryBudget> {
    (percent(), 0..=1_000_000_u32).prop_map(|(percent, min)| RetryBudget { percent, min })
}

pub(super) fn circuit_breaker() -> BoxedStrategy<CircuitBreaker> {
    (breaker_limits(), option::of(breaker_limits()))
        .prop_map(|(default, high)| CircuitBreaker { default, high })
        .boxed()
}

fn breaker_limits() -> impl Strategy<Value = BreakerLimits> {
    (some(1..=u32::MAX), any_count(), some(1..=u32::MAX), any_count()).prop_map(
        |(max_connections, max_pending, max_requests, max_retries)| BreakerLimits {
            max_connections,
            max_pending,
            max_requests,
            max_retries,
        },
    )
}

pub(super) fn outlier_detection() -> BoxedStrategy<OutlierDetection> {
    let row = || 0..=1_000_u32;
    let factor = prop_oneof![Just(0), 11..=1_000_u32];
    let times = (interval(), time(), time());
    let shares = (percent(), percent());
    ((row(), row(), row()), (0..=100_u32, factor), shares, some(1..=u32::MAX), times)
        .prop_map(
            |(
                (consecutive_5xx, consecutive_gateway, consecutive_local),
                (deviations, factor),
                shares,
                n,
                times,
            )| {
                OutlierDetection {
                    consecutive_5xx,
                    consecutive_gateway,
                    consecutive_local,
                    success_rate_deviations: deviations,
                    failure_percent: shares.0,
                    latency_factor: factor,
                    min_requests: n,
                    interval: times.0,
                    base_ejection: times.1.min(times.2),
                    max_ejection: times.1.max(times.2),
                    max_ejected: shares.1,
                }
            },
        )
        .boxed()
}

fn interval() -> impl Strategy<Value = Duration> {
    time().prop_map(|time| time.max(Duration::from_millis(10)))
}

pub(super) fn health_check() -> impl Strategy<Value = HealthCheck> {
    let path = select(vec!["/healthz", "/", "/ready?full=1&x=$y", "/~a:b,c"]);
    let probe = prop_oneof![
        path.prop_map(|path| Probe::Http(path.into())),
        Just(Probe::Tcp),
        boxed_text().prop_map(Probe::Grpc),
    ];
    (probe, (interval(), interval(), interval(), time()), some(1..=1_000), some(1..=1_000)).prop_map(
        |(probe, (interval, unhealthy_interval, idle_interval, timeout), unhealthy_after, healthy_after)| {
            HealthCheck {
                probe,
                interval,
                unhealthy_interval,
                idle_interval,
                timeout,
                unhealthy_after,
                healthy_after,
            }
        },
    )
}
