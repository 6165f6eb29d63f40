//! JSON Schema of the file (draft 2020-12), for editors.
//!
//! A test holds its properties against the keys that the decoders ask for; defaults come from the model. It says less
//! than the decoders do: what it refuses is wrong, what it accepts may still be.

mod authorization;
mod external_authorization;
mod jwt;
mod parts;
mod policy;
mod serving;
mod tls;
mod upstream;

use serde_json::{Map, Value, json};

use self::parts::{described, one_or_object, reference, whole};

/// The JSON Schema of the file.
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Outrigger",
        "description": "What an Outrigger proxy serves. Values may hold ${NAME} and ${NAME:-default}; $$ is a dollar.",
        "$ref": "#/$defs/config",
        "$defs": definitions(),
    })
}

fn definitions() -> Map<String, Value> {
    let all = scalars().into_iter().chain(unions()).chain(records()).chain(trust());
    all.map(|(name, schema)| (name.to_owned(), schema)).collect()
}

fn scalars() -> [(&'static str, Value); 6] {
    [
        (
            "variable",
            described("A value out of the environment.", json!({ "type": "string", "pattern": "\\$\\{" })),
        ),
        (
            "duration",
            described(
                "Whole numbers with the units h, m, s, ms, us, ns: 250ms, 1m30s.",
                json!({ "type": "string", "pattern": "^([0-9]+(h|ms|m|s|us|ns))+$|\\$\\{" }),
            ),
        ),
        (
            "size",
            described(
                "Bytes: 512, 64KiB, 100MB.",
                json!({ "anyOf": [
                    { "type": "integer", "minimum": 0 },
                    { "type": "string", "pattern": "^[0-9]+([KMGT]i?)?B?$|\\$\\{" },
                ]}),
            ),
        ),
        (
            "percent",
            described(
                "A percentage with up to four digits after the point: 10%, 0.5%.",
                json!({ "anyOf": [
                    { "type": "number", "minimum": 0, "maximum": 100 },
                    { "type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,4})?%?$|\\$\\{" },
                ]}),
            ),
        ),
        (
            "rate",
            described(
                "So many in a second, minute or hour: 100/s, 100/m, 100/h.",
                json!({ "type": "string", "pattern": "^[0-9]+/[smh]$|\\$\\{" }),
            ),
        ),
        (
            "address",
            described(
                "ip:port, [v6]:port or unix:/path.",
                json!({ "type": "string", "pattern": "^unix:/|:[0-9]+$|\\$\\{" }),
            ),
        ),
    ]
}

/// What may be written in more than one way.
fn unions() -> [(&'static str, Value); 10] {
    [
        ("path", one_or_object("A path; a string alone is a prefix.", "path_match")),
        ("string", one_or_object("A text; a string alone must be the whole of it.", "string_match")),
        (
            "split",
            json!({
                "description": "A cluster or a part of it, as cluster/subset; or weights by these.",
                "anyOf": [{ "type": "string" }, { "type": "object", "minProperties": 1, "additionalProperties": {
                    "anyOf": [whole(0, u32::MAX.into()), reference("target")],
                }}],
            }),
        ),
        (
            "routes",
            described(
                "Routes. A request takes, of those that match, the ones with the most specific host, and of these the first.",
                json!({ "type": "array", "items": reference("route") }),
            ),
        ),
        ("grpc_status", policy::grpc_status()),
        ("condition", policy::condition()),
        ("per", policy::per()),
        ("descriptor", policy::descriptor()),
        ("balance", upstream::balance()),
        ("hash_key", upstream::hash_key()),
    ]
}

/// What the decoders read field by field.
fn records() -> Vec<(&'static str, Value)> {
    vec![
        ("config", serving::config()),
        ("shutdown", serving::shutdown()),
        ("access_log", serving::access_log()),
        ("overload", serving::overload()),
        ("privileges", serving::privileges()),
        ("node", serving::node()),
        ("locality", serving::locality()),
        ("xds", serving::xds()),
        ("listener", serving::listener()),
        ("chain", serving::chain()),
        ("chain_when", serving::chain_when()),
        ("limits", serving::limits()),
        ("tcp", serving::tcp()),
        ("route", serving::route()),
        ("match", serving::matches()),
        ("path_match", serving::path_match()),
        ("string_match", serving::string_match()),
        ("target", serving::target()),
        ("rewrite", serving::rewrite()),
        ("rewrite_regex", serving::rewrite_regex()),
        ("header_edits", serving::header_edits()),
        ("redirect", serving::redirect()),
        ("respond", serving::respond()),
        ("retry", policy::retry()),
        ("backoff", policy::backoff()),
        ("hedge", policy::hedge()),
        ("mirror", policy::mirror()),
        ("fallback", policy::fallback()),
        ("stale", policy::stale()),
        ("rate_limit", policy::rate_limit()),
        ("global_rate_limit", policy::global_rate_limit()),
        ("rate_limit_service", policy::rate_limit_service()),
        ("descriptor_entry", policy::descriptor_entry()),
        ("descriptor_when", policy::descriptor_when()),
        ("concurrency", policy::concurrency()),
        ("limit_key", policy::limit_key()),
        ("adaptive", policy::adaptive()),
        ("fault", policy::fault()),
        ("fault_delay", policy::fault_delay()),
        ("fault_abort", policy::fault_abort()),
        ("fault_when", policy::fault_when()),
        ("cluster", upstream::cluster()),
        ("dns", upstream::dns()),
        ("original_destination", upstream::original_destination()),
        ("endpoint", upstream::endpoint()),
        ("hash_balance", upstream::hash_balance()),
        ("hash", upstream::hash()),
        ("hash_on", upstream::hash_on()),
        ("cookie", upstream::cookie()),
        ("retry_budget", upstream::retry_budget()),
        ("circuit_breaker", upstream::circuit_breaker()),
        ("breaker_limits", upstream::breaker_limits()),
        ("outlier_detection", upstream::outlier_detection()),
        ("health_check", upstream::health_check()),
        ("tcp_probe", upstream::tcp_probe()),
    ]
}

/// The same of who is who, and who may what.
fn trust() -> Vec<(&'static str, Value)> {
    vec![
        ("tls", tls::tls()),
        ("certificate", tls::certificate()),
        ("jwt_issuer", jwt::issuer()),
        ("jwks", jwt::keys()),
        ("external_authorization", external_authorization::of_listener()),
        ("route_external_authorization", external_authorization::of_route_map()),
        ("check_body", external_authorization::body()),
        ("authorization_rule", authorization::rule()),
        ("authorization_when", authorization::when()),
        ("revocation", tls::revocation()),
        ("identity", tls::identity()),
        ("identity_files", tls::identity_files()),
        ("csr", tls::csr()),
        ("cluster_tls", tls::cluster_tls()),
        ("cluster_mtls", tls::cluster_mtls()),
    ]
}
