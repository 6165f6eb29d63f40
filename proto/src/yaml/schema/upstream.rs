//! Clusters, and what they do about load and failing endpoints.

use serde_json::{Value, json};

use super::super::decode::{
    LATENCY_FACTORS, MAX_DEVIATIONS, MAX_FLOOR, MAX_LABEL, MAX_LABELS, MAX_PRIORITY, MAX_ROW,
    MAX_ZONE_WEIGHT, MIN_INTERVAL,
};
use super::super::scalar::show_duration;
use super::parts::{
    any_count, boolean, by_name, count, described, duration, object, one_of, one_or_object, percent,
    reference, some, string, tenths, whole, with_default, words,
};
use crate::model::{
    BreakerLimits, Cluster, HealthCheck, Original, OutlierDetection, Probe, RetryBudget, Source,
};

pub(super) fn cluster() -> Value {
    let Cluster {
        source: _,
        balance: _,
        protocol: _,
        tls: _,
        connect_timeout,
        idle_timeout,
        retry_budget: _,
        circuit_breaker: _,
        outlier_detection: _,
        health_check: _,
        slow_start,
        panic_threshold,
        zone_weights: _,
        subsets: _,
        subset_fallback: _,
    } = Cluster::new(Source::Static);
    one_of(
        &["endpoints", "dns", "original_destination"],
        object(
            "Endpoints that are alike.",
            &[],
            json!({
                "endpoints": described("Where they are.", json!({
                    "type": "array", "items": { "anyOf": [reference("address"), reference("endpoint")] },
                })),
                "dns": described("A name that is resolved; alone, name:port, each address of which is an endpoint.", json!({ "anyOf": [string(), reference("dns")] })),
                "original_destination": reference("original_destination"),
                "balance": reference("balance"),
                "protocol": words("What is spoken; auto is what the client spoke.", &["auto", "http1", "http2"], "auto"),
                "tls": reference("cluster_tls"),
                "mtls": reference("cluster_mtls"),
                "connect_timeout": duration("Until a connection is established, TLS included.", connect_timeout),
                "idle_timeout": duration("Until a connection that carries nothing is closed.", idle_timeout),
                "retry_budget": reference("retry_budget"),
                "circuit_breaker": reference("circuit_breaker"),
                "outlier_detection": reference("outlier_detection"),
                "health_check": reference("health_check"),
                "slow_start": duration("How long a new endpoint's share grows until it is whole.", slow_start),
                "panic_threshold": percent(
                    "When less than this share of endpoints is healthy, all are used.",
                    panic_threshold,
                ),
                "zone_weights": by_name(
                    "What share each zone gets of the load, whatever its number of endpoints; without it, zones do not count.",
                    whole(0, MAX_ZONE_WEIGHT.into()),
                ),
                "subsets": by_name(
                    "Parts of the cluster, for `to: cluster/subset`: by labels that an endpoint must all have.",
                    labels("Labels."),
                ),
                "subset_fallback": words(
                    "Who takes the requests to a subset that no endpoint is in: nobody, or any of the cluster.",
                    &["none", "any"],
                    "none",
                ),
            }),
        ),
    )
}

pub(super) fn dns() -> Value {
    object(
        "A name that is resolved, by its TTL.",
        &["host"],
        json!({
            "host": described("name:port.", string()),
            "use": words(
                "Whether each address is an endpoint, or new connections go to the first one.",
                &["all", "first"],
                "all",
            ),
        }),
    )
}

pub(super) fn original_destination() -> Value {
    let Original { header: _, port: _, cleanup, max_endpoints } = Original::default();
    object(
        "Each connection or request names its endpoint: by where it was going before it was redirected.",
        &[],
        json!({
            "header": described(
                "A header that names it instead, as ip:port, where a request has it. Whoever may send it may name any address but those that the proxy listens on.",
                string(),
            ),
            "port": described("The port of every endpoint, instead of the one that is named.", whole(1, u16::MAX.into())),
            "cleanup": duration("After how long an endpoint is forgotten that nobody uses.", cleanup),
            "max_endpoints": with_default(
                "How many of them may be known at once; 503 for those beyond.",
                whole(1, Original::MAX_ENDPOINTS.into()),
                max_endpoints.get(),
            ),
        }),
    )
}

pub(super) fn endpoint() -> Value {
    object(
        "One process that answers.",
        &["address"],
        json!({
            "address": reference("address"),
            "weight": with_default("Its share, relative to the others'.", count(), 1),
            "priority": with_default(
                "0 is used first; the next, as far as the healthy ones before it do not suffice.",
                whole(0, MAX_PRIORITY.into()),
                0,
            ),
            "zone": described("Where it stands.", string()),
            "labels": labels("What puts it into subsets."),
        }),
    )
}

fn labels(description: &str) -> Value {
    let mut labels =
        by_name(description, json!({ "type": "string", "minLength": 1, "maxLength": MAX_LABEL }));
    labels["minProperties"] = 1.into();
    labels["maxProperties"] = MAX_LABELS.into();
    labels
}

pub(super) fn balance() -> Value {
    let kinds = ["peak-ewma", "least-request", "round-robin", "random", "ring-hash", "maglev"];
    let mut balance = words("How an endpoint is chosen.", &kinds, "peak-ewma");
    balance["anyOf"].as_array_mut().expect("words are alternatives").push(reference("hash_balance"));
    balance
}

pub(super) fn hash_balance() -> Value {
    one_of(
        &["ring-hash", "maglev"],
        object(
            "By hash: requests that are alike go to the same endpoint.",
            &[],
            json!({
                "ring-hash": described("On a ring of points.", reference("hash")),
                "maglev": described("In a table; evener, and faster to look up.", reference("hash")),
            }),
        ),
    )
}

pub(super) fn hash() -> Value {
    object(
        "What is hashed.",
        &["hash"],
        json!({ "hash": hash_keys("What makes requests alike; without it, what routes say.") }),
    )
}

pub(super) fn hash_keys(description: &str) -> Value {
    described(description, some(reference("hash_key")))
}

pub(super) fn hash_key() -> Value {
    json!({
        "description": "A part of a request.",
        "anyOf": [{ "const": "source" }, reference("variable"), reference("hash_on")],
    })
}

pub(super) fn hash_on() -> Value {
    one_of(
        &["header", "cookie", "query", "source"],
        object(
            "A part of a request.",
            &[],
            json!({
                "header": described("The value of this header field.", string()),
                "cookie": one_or_object("The value of this cookie.", "cookie"),
                "query": described("The value of this query parameter.", string()),
                "source": described("The client's address.", json!({ "const": true })),
                "terminal": with_default("Whether nothing behind it counts, once there is something to be hashed.", boolean(), false),
            }),
        ),
    )
}

pub(super) fn cookie() -> Value {
    object(
        "A cookie, made where there is none.",
        &["name"],
        json!({
            "name": described("Its name.", string()),
            "ttl": described("How long one that is made lives; none is made without it.", reference("duration")),
            "path": with_default("Below which path it comes back; none leaves that to the client.", string(), "/"),
        }),
    )
}

pub(super) fn retry_budget() -> Value {
    let RetryBudget { percent: share, min } = RetryBudget::default();
    object(
        "What of the requests may be attempts beyond the first.",
        &[],
        json!({
            "percent": percent("The share of requests that may be further attempts.", share),
            "min": with_default("Further attempts a second that are always allowed.", whole(0, MAX_FLOOR.into()), min),
        }),
    )
}

pub(super) fn circuit_breaker() -> Value {
    let BreakerLimits { max_connections, max_pending, max_requests, max_retries } = BreakerLimits::default();
    object(
        "What the cluster may be burdened with at once, over all workers.",
        &[],
        json!({
            "max_connections": with_default("Open connections.", count(), max_connections.get()),
            "max_pending": with_default("Requests that wait for a connection.", any_count(), max_pending),
            "max_requests": with_default("Requests in flight.", count(), max_requests.get()),
            "max_retries": with_default("Of these, attempts beyond the first.", any_count(), max_retries),
            "high": reference("breaker_limits"),
        }),
    )
}

pub(super) fn breaker_limits() -> Value {
    object(
        "The same for requests of routes with priority: high, which are counted apart; what is not written is as beside it.",
        &[],
        json!({
            "max_connections": described("Open connections.", count()),
            "max_pending": described("Requests that wait for a connection.", any_count()),
            "max_requests": described("Requests in flight.", count()),
            "max_retries": described("Of these, attempts beyond the first.", any_count()),
        }),
    )
}

pub(super) fn outlier_detection() -> Value {
    let OutlierDetection {
        consecutive_5xx,
        consecutive_gateway,
        consecutive_local,
        success_rate_deviations,
        failure_percent,
        latency_factor,
        min_requests,
        interval,
        base_ejection,
        max_ejection,
        max_ejected,
    } = OutlierDetection::default();
    let row = |description, default| with_default(description, whole(0, MAX_ROW.into()), default);
    object(
        "When an endpoint is left out for a while, by how it answers; 0 turns a rule off.",
        &[],
        json!({
            "consecutive_5xx": row("Statuses of 500 and above, or no response, in a row.", consecutive_5xx),
            "consecutive_gateway": row("502, 503 or 504, or no response, in a row.", consecutive_gateway),
            "consecutive_local": row("No response, in a row.", consecutive_local),
            "success_rate_deviations": tenths(
                "So many standard deviations below the cluster's mean success rate.",
                MAX_DEVIATIONS,
                success_rate_deviations,
            ),
            "failure_percent": percent("This share of an interval's requests failed.", failure_percent),
            "latency_factor": tenths(
                "So many times slower than the median of the cluster.",
                LATENCY_FACTORS.1,
                latency_factor,
            ),
            "min_requests": with_default("Requests in an interval to be judged by.", count(), min_requests.get()),
            "interval": at_least("How often shares and means are looked at.", interval),
            "base_ejection": duration("The first ejection's length; the n-th's is n times that.", base_ejection),
            "max_ejection": duration("No ejection is longer.", max_ejection),
            "max_ejected": percent("Never is a larger share of endpoints left out; one always may be.", max_ejected),
        }),
    )
}

pub(super) fn health_check() -> Value {
    let HealthCheck {
        probe: _,
        interval,
        unhealthy_interval,
        idle_interval,
        timeout,
        unhealthy_after,
        healthy_after,
    } = HealthCheck::new(Probe::Tcp);
    let row = |description, default| with_default(description, whole(1, MAX_ROW.into()), default);
    one_of(
        &["http", "tcp", "grpc"],
        object(
            "How an endpoint is asked whether it is well.",
            &[],
            json!({
                "http": described("GET this path; a status from 200 to 299 is well.", string()),
                "tcp": reference("tcp_probe"),
                "grpc": described("grpc.health.v1.Health/Check for this service, which may be empty.", string()),
                "interval": at_least("Between two checks of an endpoint that is well.", interval),
                "unhealthy_interval": at_least("Between two checks of one that is not.", unhealthy_interval),
                "idle_interval": at_least("Between two checks while the cluster has no traffic.", idle_interval),
                "timeout": duration("For an answer.", timeout),
                "unhealthy_after": row("Failures in a row that make it unhealthy.", unhealthy_after.get()),
                "healthy_after": row("Successes in a row that make it healthy again.", healthy_after.get()),
            }),
        ),
    )
}

pub(super) fn tcp_probe() -> Value {
    object("A connection; being accepted is well.", &[], json!({}))
}

fn at_least(description: &str, default: std::time::Duration) -> Value {
    duration(&format!("{description} At least {}.", show_duration(MIN_INTERVAL)), default)
}
