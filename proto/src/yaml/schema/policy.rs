//! What a route does about failure and load.

use serde_json::{Value, json};

use super::super::decode::{MAX_ATTEMPTS, MAX_HITS, MAX_KEYS, TOLERANCES};
use super::super::ratio::MAX_TOKENS;
use super::super::scalar::show_size;
use super::super::words::{GRPC, conditions, show_condition};
use super::parts::{
    any_count, boolean, by_name, count, described, duration, object, one_of, one_or_some, percent, reference,
    some, string, tenths, whole, with_default, words,
};
use crate::model::{Adaptive, Backoff, Concurrency, Percent, RateLimit, RateLimitService, Retry, Stale};

pub(super) fn retry() -> Value {
    let Retry { attempts, conditions, per_try_timeout: _, backoff: _, non_idempotent, max_body } =
        Retry::default();
    let default: Vec<_> = conditions.into_iter().map(show_condition).collect();
    let conditions = one_or_some(reference("condition"));
    object(
        "When a request that failed is sent again; the cluster's retry_budget pays for it.",
        &[],
        json!({
            "attempts": with_default(
                "How often a request is sent at the most, the first time included.",
                whole(1, MAX_ATTEMPTS.into()),
                attempts.get(),
            ),
            "conditions": with_default("What must have happened; any of these.", conditions, default),
            "per_try_timeout": described(
                "For one attempt, until the head of its response; none by default.",
                reference("duration"),
            ),
            "backoff": reference("backoff"),
            "non_idempotent": with_default(
                "Also requests whose method is not idempotent, when they may have been processed.",
                boolean(),
                non_idempotent,
            ),
            "max_body": with_default(
                "Bytes of a request's body that are kept to be sent again; a larger one is sent once.",
                reference("size"),
                show_size(max_body),
            ),
        }),
    )
}

pub(super) fn condition() -> Value {
    let words: Vec<_> = conditions().collect();
    json!({
        "description": "A status, or what happened to a request.",
        "anyOf": [whole(100, 599), { "enum": words }, { "type": "string", "pattern": "^[1-5][0-9][0-9]$" }],
    })
}

pub(super) fn grpc_status() -> Value {
    json!({
        "description": "A gRPC status that is an error, by its name or number.",
        "anyOf": [whole(1, 16), { "enum": GRPC }, { "type": "string", "pattern": "^([1-9]|1[0-6])$" }],
    })
}

pub(super) fn backoff() -> Value {
    let Backoff { base, max } = Backoff::default();
    object(
        "The wait before each further attempt: at random between nothing and a bound.",
        &[],
        json!({
            "base": duration("The bound of the first wait; it doubles each time.", base),
            "max": duration("The bound never grows beyond this.", max),
        }),
    )
}

pub(super) fn hedge() -> Value {
    let after =
        json!({ "anyOf": [{ "type": "string", "pattern": "^p[1-9][0-9]?$" }, reference("duration")] });
    object(
        "When a second attempt is started although the first has not failed; whichever answers first counts.",
        &["after"],
        json!({ "after": described("A duration, or a percentile of the cluster's latency: p95.", after) }),
    )
}

pub(super) fn mirror() -> Value {
    object(
        "A copy of requests for another cluster, whose answers nobody sees.",
        &["to"],
        json!({
            "to": described("The cluster that gets the copy, or a part of it: cluster/subset.", string()),
            "percent": percent("Of this share of requests.", Percent::ALL),
        }),
    )
}

pub(super) fn fallback() -> Value {
    let mut fallback = object(
        "What is answered when the cluster gave no answer, or one with a status of 500 or above.",
        &[],
        json!({
            "stale": described(
                "What the cluster itself answered before, if it is kept; for how long, or that and in which room.",
                json!({ "anyOf": [reference("duration"), reference("stale")] }),
            ),
            "to": described("What this cluster answers, or a part of it: cluster/subset.", string()),
            "respond": reference("respond"),
        }),
    );
    fallback["anyOf"] = ["stale", "to", "respond"].iter().map(|key| json!({ "required": [key] })).collect();
    fallback["not"] = json!({ "required": ["to", "respond"] });
    fallback
}

pub(super) fn stale() -> Value {
    object(
        "Answers that are kept, to be served when the cluster fails.",
        &["for"],
        json!({
            "for": described("How long after it was received an answer may be served.", reference("duration")),
            "max_body": with_default(
                "Bytes of the longest body that is kept; at most 1MiB.",
                reference("size"),
                show_size(Stale::MAX_BODY),
            ),
            "memory": with_default(
                "Bytes that all that is kept for the route may take; at most 256MiB. What was stored longest ago goes first.",
                reference("size"),
                show_size(Stale::MEMORY),
            ),
        }),
    )
}

pub(super) fn rate_limit() -> Value {
    object(
        "How many requests are taken in a time: a token bucket.",
        &["rate"],
        json!({
            "rate": reference("rate"),
            "burst": described("So many at once after a pause; by default as many as in the rate.", whole(1, MAX_TOKENS.into())),
            "per": reference("per"),
            "keys": with_default(
                "Buckets kept at once; beyond it the one used longest ago is forgotten.",
                whole(1, MAX_KEYS.into()),
                RateLimit::KEYS.get(),
            ),
        }),
    )
}

fn service() -> Value {
    json!({
        "cluster": described("The service; a cluster of protocol: http2.", string()),
        "domain": described("Under which name the service keeps its limits.", string()),
        "timeout": duration("For an answer.", RateLimitService::TIMEOUT),
        "on_failure": words("What becomes of a request without an answer.", &["allow", "deny"], "allow"),
        "cache": with_default(
            "Refusals that are remembered at once, a second at the most.",
            whole(0, MAX_KEYS.into()),
            RateLimitService::CACHE,
        ),
    })
}

pub(super) fn rate_limit_service() -> Value {
    object(
        "A service that counts requests (Envoy's rate limit service), of routes that say what they count as.",
        &["cluster", "domain"],
        service(),
    )
}

pub(super) fn global_rate_limit() -> Value {
    let descriptors = some(some(reference("descriptor")));
    let mut keys = service();
    keys["descriptors"] = described("What a request counts as; each apart.", descriptors);
    keys["hits"] = with_default("So much a request counts.", whole(1, MAX_HITS.into()), 1);
    object(
        "A service is asked whether a request is taken; without cluster and domain it is the listener's.",
        &["descriptors"],
        keys,
    )
}

pub(super) fn descriptor() -> Value {
    json!({
        "description": "A key and a value that a request is counted by.",
        "anyOf": [
            { "enum": ["source", "source_cluster", "destination_cluster"] },
            reference("variable"),
            reference("descriptor_entry"),
        ],
    })
}

pub(super) fn descriptor_entry() -> Value {
    one_of(
        &["header", "query", "key"],
        object(
            "A header field, a parameter, or a key and its value.",
            &[],
            json!({
                "header": described("The value of this field; without it the descriptor is left out.", string()),
                "query": described("The value of this parameter; without it the descriptor is left out.", string()),
                "as": described("The key, in place of the name.", string()),
                "optional": with_default("Whether without a value the entry alone is left out.", boolean(), false),
                "key": described("A key.", string()),
                "value": described("The value of that key.", string()),
                "when": described("Of these requests alone.", reference("descriptor_when")),
                "unless": described("Of all requests but these.", reference("descriptor_when")),
            }),
        ),
    )
}

pub(super) fn descriptor_when() -> Value {
    let strings = |description| by_name(description, reference("string"));
    one_of(
        &["headers", "query"],
        object(
            "Which requests; all must match.",
            &[],
            json!({
                "headers": strings("Header fields."),
                "query": strings("Query parameters."),
            }),
        ),
    )
}

pub(super) fn concurrency() -> Value {
    let Concurrency { max: _, queue, wait, per: _, adaptive: _ } =
        Concurrency::new(std::num::NonZeroU32::MIN);
    object(
        "How many requests may be under way at once.",
        &["max"],
        json!({
            "max": described("Under way at once, over all workers.", count()),
            "queue": with_default("Further requests that wait for their turn.", any_count(), queue),
            "wait": duration("The longest wait.", wait),
            "per": reference("per"),
            "adaptive": reference("adaptive"),
        }),
    )
}

pub(super) fn adaptive() -> Value {
    let Adaptive { min, tolerance } = Adaptive::default();
    object(
        "The limit follows the latency of the answers, up to `max`; only without `per`.",
        &[],
        json!({
            "min": with_default("It is never lower.", count(), min.get()),
            "tolerance": tenths("So many times longer than without a crowd is still well.", *TOLERANCES.end(), tolerance),
        }),
    )
}

pub(super) fn per() -> Value {
    json!({
        "description": "Counted for each caller apart; by default all together.",
        "anyOf": [{ "enum": ["source", "identity"] }, reference("variable"), reference("limit_key")],
    })
}

pub(super) fn limit_key() -> Value {
    object(
        "What callers are told apart by.",
        &["header"],
        json!({ "header": described("Each value of this header field; requests without it together.", string()) }),
    )
}

pub(super) fn fault() -> Value {
    let mut fault = object(
        "Failures made on purpose.",
        &[],
        json!({
            "delay": reference("fault_delay"),
            "abort": reference("fault_abort"),
            "when": reference("fault_when"),
        }),
    );
    fault["anyOf"] = json!([{ "required": ["delay"] }, { "required": ["abort"] }]);
    fault
}

pub(super) fn fault_delay() -> Value {
    object(
        "Requests are held up.",
        &["fixed"],
        json!({
            "fixed": described("For so long.", reference("duration")),
            "percent": percent("This share of them.", Percent::ALL),
        }),
    )
}

pub(super) fn fault_abort() -> Value {
    one_of(
        &["status", "grpc"],
        object(
            "Requests are answered instead of sent on.",
            &[],
            json!({
                "status": described("With this HTTP status.", whole(400, 599)),
                "grpc": described("With this gRPC status.", reference("grpc_status")),
                "percent": percent("This share of them.", Percent::ALL),
            }),
        ),
    )
}

pub(super) fn fault_when() -> Value {
    object(
        "Only some requests.",
        &["header"],
        json!({ "header": described("Those that carry this header field.", string()) }),
    )
}
