//! JSON Schema of the file (draft 2020-12), for editors.
//!
//! A test holds its properties against the keys that the decoders ask for; defaults come from the model. It says less
//! than the decoders do: what it refuses is wrong, what it accepts may still be.

use serde_json::{Map, Value, json};

use super::decode::{MAX_HEADERS, MAX_WORKERS, REDIRECTS};
use super::scalar::{show_duration, show_size};
use crate::model::{Admin, Cluster, Limits, Shutdown, Source};

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
    let all = scalars().into_iter().chain(unions()).chain(records());
    all.map(|(name, schema)| (name.to_owned(), schema)).collect()
}

fn scalars() -> [(&'static str, Value); 4] {
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
            "address",
            described(
                "ip:port, [v6]:port or unix:/path.",
                json!({ "type": "string", "pattern": "^unix:/|:[0-9]+$|\\$\\{" }),
            ),
        ),
    ]
}

/// What may be written in more than one way.
fn unions() -> [(&'static str, Value); 4] {
    [
        ("path", one_or_object("A path; a string alone is a prefix.", "path_match")),
        ("string", one_or_object("A text; a string alone must be the whole of it.", "string_match")),
        (
            "split",
            json!({
                "description": "A cluster, or weights by cluster.",
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
    ]
}

/// What the decoders read field by field.
fn records() -> [(&'static str, Value); 18] {
    [
        ("config", config()),
        ("shutdown", shutdown()),
        ("access_log", access_log()),
        ("listener", listener()),
        ("tls", tls()),
        ("limits", limits()),
        ("tcp", tcp()),
        ("route", route()),
        ("match", matches()),
        ("path_match", path_match()),
        ("string_match", string_match()),
        ("target", target()),
        ("rewrite", rewrite()),
        ("header_edits", header_edits()),
        ("redirect", redirect()),
        ("respond", respond()),
        ("cluster", cluster()),
        ("endpoint", endpoint()),
    ]
}

fn config() -> Value {
    let admin = Admin::default().address.to_string();
    object(
        "The whole file.",
        &["listeners"],
        json!({
            "workers": described("Worker threads; by default the CPUs of the cgroup, rounded up.", whole(1, MAX_WORKERS)),
            "admin": with_default("Where the admin interface listens.", reference("address"), admin),
            "shutdown": reference("shutdown"),
            "access_log": described("Where requests are logged.", json!({
                "anyOf": [{ "const": "none" }, reference("access_log")], "default": "none",
            })),
            "listeners": by_name("Where connections arrive, by name.", reference("listener")),
            "route_tables": by_name("Route tables that listeners may share, by name.", reference("routes")),
            "clusters": by_name("Who answers, by name.", reference("cluster")),
        }),
    )
}

fn shutdown() -> Value {
    let Shutdown { lame_duck, quiet, deadline } = Shutdown::default();
    object(
        "How the process ends.",
        &[],
        json!({
            "lame_duck": duration("How long it goes on accepting after readiness is withdrawn.", lame_duck),
            "quiet": duration("Idle connections are closed once none has sent a request for this long.", quiet),
            "deadline": duration("When it ends, whatever is in flight; from the signal.", deadline),
        }),
    )
}

fn access_log() -> Value {
    object(
        "How requests are logged.",
        &[],
        json!({
            "format": words("The shape of a line.", &["text", "json"], "text"),
            "to": with_default("stdout, stderr, or a file's path with a / in it.", json!({ "type": "string" }), "stdout"),
        }),
    )
}

fn listener() -> Value {
    let networks = json!({ "type": "array", "items": { "type": "string" } });
    let slashes = boolean();
    one_of(
        &["routes", "tcp"],
        object(
            "A place where connections arrive.",
            &["bind"],
            json!({
                "bind": described("Where it listens.", reference("address")),
                "direction": words("Whose traffic it is, seen from the service.", &["inbound", "outbound"], "inbound"),
                "tls": reference("tls"),
                "limits": reference("limits"),
                "trusted_proxies": with_default("Whose forwarded headers are believed.", networks, json!([])),
                "merge_slashes": with_default("Whether // in a path is read as /.", slashes, true),
                "routes": described("Routes, or the name of a route table.", json!({
                    "anyOf": [{ "type": "string" }, reference("routes")],
                })),
                "tcp": reference("tcp"),
            }),
        ),
    )
}

fn tls() -> Value {
    object(
        "TLS towards the client.",
        &["certificate", "private_key"],
        json!({
            "certificate": described("PEM file of the chain, leaf first; relative to this file.", string()),
            "private_key": described("PEM file of the leaf's private key; relative to this file.", string()),
        }),
    )
}

fn limits() -> Value {
    let Limits { connections, header_bytes, headers, body: _, header_timeout, idle_timeout, streams } =
        Limits::default();
    let header_bytes = show_size(u64::try_from(header_bytes.get()).unwrap_or(u64::MAX));
    let count = || whole(1, u32::MAX.into());
    object(
        "What one client, or the listener, may cost.",
        &[],
        json!({
            "connections": with_default("Open connections of this listener.", count(), connections.get()),
            "header_bytes": with_default("Size of a request's head, at least 8KiB.", reference("size"), header_bytes),
            "headers": with_default("Header fields of a request.", whole(1, MAX_HEADERS), headers.get()),
            "body": described("Size of a request's body; no limit by default.", reference("size")),
            "header_timeout": duration("Until a request's head is whole.", header_timeout),
            "idle_timeout": duration("Without a byte in either direction.", idle_timeout),
            "streams": with_default("Concurrent HTTP/2 streams of a connection.", count(), streams.get()),
        }),
    )
}

fn tcp() -> Value {
    object(
        "Bytes, passed on as they are.",
        &["to"],
        json!({
            "to": reference("split"),
            "idle_timeout": described(
                "Without a byte in either direction; by default that of the listener's limits.",
                reference("duration"),
            ),
        }),
    )
}

fn route() -> Value {
    one_of(
        &["to", "redirect", "respond"],
        object(
            "One rule.",
            &[],
            json!({
                "match": reference("match"),
                "to": reference("split"),
                "redirect": reference("redirect"),
                "respond": reference("respond"),
                "timeout": described("From the request's head to the last byte; none by default.", reference("duration")),
                "rewrite": reference("rewrite"),
                "request_headers": reference("header_edits"),
                "response_headers": reference("header_edits"),
            }),
        ),
    )
}

fn matches() -> Value {
    let strings = |description| by_name(description, reference("string"));
    object(
        "Which requests; every part must match.",
        &[],
        json!({
            "host": described("Any of these hosts; *.example.com takes all below a domain.", one_or_list()),
            "path": reference("path"),
            "methods": described("Any of these methods.", one_or_list()),
            "headers": strings("All of these header fields."),
            "query": strings("All of these query parameters."),
        }),
    )
}

fn path_match() -> Value {
    one_of(
        &["exact", "prefix", "regex"],
        object(
            "How a path is matched.",
            &[],
            json!({
                "exact": described("Exactly this path.", string()),
                "prefix": described("This path and those below it.", string()),
                "regex": described("A regular expression; anchor it with ^ and $.", string()),
            }),
        ),
    )
}

fn string_match() -> Value {
    one_of(
        &["exact", "prefix", "regex", "present"],
        object(
            "How a text is matched.",
            &[],
            json!({
                "exact": described("Exactly this.", string()),
                "prefix": described("Begins with this.", string()),
                "regex": described("A regular expression; anchor it with ^ and $.", string()),
                "present": described("Whether it is there, with any value.", boolean()),
            }),
        ),
    )
}

fn target() -> Value {
    object(
        "One share of a split.",
        &[],
        json!({
            "weight": with_default("Relative to the others'; 0 sends nothing.", whole(0, u32::MAX.into()), 1),
            "request_headers": reference("header_edits"),
            "response_headers": reference("header_edits"),
        }),
    )
}

fn rewrite() -> Value {
    object(
        "What is rewritten before a request is sent on.",
        &[],
        json!({
            "path": described("The whole path.", string()),
            "prefix": described("Put in place of the prefix that matched.", string()),
            "host": described("The host.", string()),
        }),
    )
}

fn header_edits() -> Value {
    object(
        "Changes to header fields: first remove, then set, then add.",
        &[],
        json!({
            "set": by_name("Put in place of what is there.", string()),
            "add": by_name("Added beside what is there.", one_or_list()),
            "remove": described("Dropped.", json!({ "type": "array", "items": string() })),
        }),
    )
}

fn redirect() -> Value {
    let statuses = json!({ "anyOf": [{ "enum": REDIRECTS }, reference("variable")] });
    object(
        "An answer that sends the client elsewhere.",
        &["to"],
        json!({
            "to": described("An absolute URL, or an absolute path.", string()),
            "status": with_default("The status.", statuses, 302),
        }),
    )
}

fn respond() -> Value {
    object(
        "An answer of the proxy's own.",
        &[],
        json!({
            "status": with_default("The status.", whole(200, 599), 200),
            "body": with_default("The body.", string(), ""),
        }),
    )
}

fn cluster() -> Value {
    let Cluster { source: _, balance: _, protocol: _, connect_timeout, idle_timeout } =
        Cluster::new(Source::Static);
    one_of(
        &["endpoints", "dns"],
        object(
            "Endpoints that are alike.",
            &[],
            json!({
                "endpoints": described("Where they are.", json!({
                    "type": "array", "items": { "anyOf": [reference("address"), reference("endpoint")] },
                })),
                "dns": described("name:port; each address of the name is an endpoint.", string()),
                "balance": words(
                    "How one is chosen.",
                    &["peak-ewma", "least-request", "round-robin", "random"],
                    "peak-ewma",
                ),
                "protocol": words("What is spoken; auto is what the client spoke.", &["auto", "http1", "http2"], "auto"),
                "connect_timeout": duration("Until a connection is established.", connect_timeout),
                "idle_timeout": duration("Until a connection that carries nothing is closed.", idle_timeout),
            }),
        ),
    )
}

fn endpoint() -> Value {
    object(
        "One process that answers.",
        &["address"],
        json!({
            "address": reference("address"),
            "weight": with_default("Its share, relative to the others'.", whole(1, u32::MAX.into()), 1),
        }),
    )
}

fn object(description: &str, required: &[&str], properties: Value) -> Value {
    json!({
        "type": "object",
        "description": description,
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    })
}

/// An object of which exactly one of these keys is written.
fn one_of(keys: &[&str], mut object: Value) -> Value {
    object["oneOf"] = keys.iter().map(|key| json!({ "required": [key] })).collect();
    object
}

fn by_name(description: &str, value: Value) -> Value {
    json!({ "type": "object", "description": description, "additionalProperties": value })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn described(description: &str, mut schema: Value) -> Value {
    schema["description"] = description.into();
    schema
}

fn with_default(description: &str, schema: Value, default: impl Into<Value>) -> Value {
    let mut schema = described(description, schema);
    schema["default"] = default.into();
    schema
}

fn duration(description: &str, default: std::time::Duration) -> Value {
    with_default(description, reference("duration"), show_duration(default))
}

fn words(description: &str, words: &[&str], default: &str) -> Value {
    with_default(description, json!({ "anyOf": [{ "enum": words }, reference("variable")] }), default)
}

fn whole(least: u64, most: u64) -> Value {
    json!({ "anyOf": [{ "type": "integer", "minimum": least, "maximum": most }, reference("variable")] })
}

fn boolean() -> Value {
    json!({ "anyOf": [{ "type": "boolean" }, reference("variable")] })
}

fn string() -> Value {
    json!({ "type": "string" })
}

fn one_or_list() -> Value {
    json!({ "anyOf": [string(), { "type": "array", "minItems": 1, "items": string() }] })
}

fn one_or_object(description: &str, object: &str) -> Value {
    json!({ "description": description, "anyOf": [string(), reference(object)] })
}
