//! The process, listeners and routes.

use serde_json::{Value, json};

use super::super::decode::{MAX_HEADERS, MAX_WORKERS, REDIRECTS};
use super::super::ratio::show_percent;
use super::super::scalar::show_size;
use super::parts::{
    boolean, by_name, count, described, duration, object, one_of, one_or_list, one_or_some, reference, some,
    string, whole, with_default, words,
};
use super::{authorization, external_authorization, jwt, tls, upstream};
use crate::model::{Admin, Limits, Overload, Percent, Shutdown};

pub(super) fn config() -> Value {
    let admin = Admin::default().address.to_string();
    let mut config = object(
        "The whole file.",
        &[],
        json!({
            "workers": described("Worker threads; by default the CPUs of the cgroup, rounded up.", whole(1, MAX_WORKERS)),
            "admin": with_default("Where the admin interface listens.", reference("address"), admin),
            "shutdown": reference("shutdown"),
            "access_log": described("Where requests are logged.", json!({
                "anyOf": [{ "const": "none" }, reference("access_log")], "default": "none",
            })),
            "overload": reference("overload"),
            "privileges": reference("privileges"),
            "node": reference("node"),
            "xds": reference("xds"),
            "identity": reference("identity"),
            "listeners": by_name("Where connections arrive, by name.", reference("listener")),
            "route_tables": by_name("Route tables that listeners may share, by name.", reference("routes")),
            "clusters": by_name("Who answers, by name.", reference("cluster")),
        }),
    );
    // What listens, or who says so.
    config["anyOf"] = ["listeners", "xds"].map(|key| json!({ "required": [key] })).into();
    config
}

pub(super) fn shutdown() -> Value {
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

pub(super) fn access_log() -> Value {
    object(
        "How requests are logged.",
        &[],
        json!({
            "format": words("The shape of a line.", &["text", "json"], "text"),
            "to": with_default("stdout, stderr, or a file's path with a / in it.", json!({ "type": "string" }), "stdout"),
        }),
    )
}

pub(super) fn overload() -> Value {
    let Overload { memory, descriptors, connections } = Overload::default();
    let share = |description, default: Option<Percent>| {
        let schema = json!({ "anyOf": [{ "const": "none" }, reference("percent")] });
        with_default(description, schema, default.map_or("none".to_owned(), show_percent))
    };
    let most = json!({ "anyOf": [{ "const": "none" }, count()] });
    let most_default = connections.map_or(json!("none"), |most| json!(most));
    object(
        "From when on load is shed.",
        &[],
        json!({
            "memory": share("Of the cgroup's memory, or of the machine's; or none.", memory),
            "descriptors": share("Of the file descriptors that the process may have; or none.", descriptors),
            "connections": with_default("Open connections of all clients; or none.", most, most_default),
        }),
    )
}

pub(super) fn privileges() -> Value {
    object(
        "As whom the process runs.",
        &[],
        json!({
            "user": described("Whom it becomes when it is started as root: a name, or uid:gid.", string()),
            "root": words("Whether it may still be root then.", &["warn", "refuse", "allow"], "warn"),
        }),
    )
}

pub(super) fn node() -> Value {
    object(
        "Who this proxy is to its control plane.",
        &[],
        json!({
            "id": described("Tells it from all others, by default the name of the host.", string()),
            "cluster": described("Those that are alike share it.", string()),
            "locality": described("Where it stands.", reference("locality")),
            "metadata": described("What else the control plane is told.", json!({ "type": "object" })),
        }),
    )
}

pub(super) fn locality() -> Value {
    object(
        "Where something stands.",
        &[],
        json!({ "region": string(), "zone": string(), "sub_zone": string() }),
    )
}

pub(super) fn xds() -> Value {
    object(
        "A control plane that says more than the file does, by xDS v3.",
        &[],
        json!({
            "server": described("https://host:port; by default what OUTRIGGER_XDS_SERVER says.", string()),
            "trust": described("PEM file of the roots that the server is checked against, by default the system's.", string()),
            "cache": described("File that what it said last is kept in, for starts without it.", string()),
            "on_demand": with_default(
                "Whether clusters and hosts are asked for when something leads to them.",
                json!({ "anyOf": [boolean(), object("The same, with its settings.", &["idle"], json!({
                    "idle": described("A host that nobody has called for so long is let go; an hour for `true`.", reference("duration")),
                }))] }),
                false,
            ),
            "load_reports": with_default("Whether it is told what clusters and listeners were asked.", boolean(), true),
            "trials": with_default("Whether it is asked what is on trial, and told what that would change, with hosts and paths of requests.", boolean(), true),
            "events": with_default("Whether it is told which endpoints are ejected, and that our own certificate lapses.", boolean(), true),
            "sockets": described("Directories below which it may name unix sockets; none by default.", json!({ "type": "array", "items": string() })),
        }),
    )
}

pub(super) fn listener() -> Value {
    let mut keys = json!({
        "bind": described("Where it listens.", reference("address")),
        "direction": words("Whose traffic it is, seen from the service.", &["inbound", "outbound"], "inbound"),
        "original_destination": words(
            "What is taken for the address that connections came to: that of the proxy, or where they were going before the kernel redirected them.",
            &["none", "redirect"],
            "none",
        ),
        "chains": described("Chains for some connections, in place of one for all.", some(reference("chain"))),
        "rest": described("The chain for the other connections; without it they are closed.", reference("chain")),
    });
    let routes = json!({ "anyOf": [{ "type": "string" }, reference("routes")] });
    merge(&mut keys, of_chain(described("Routes, or the name of a route table.", routes)));
    one_of(&["routes", "tcp", "chains"], object("A place where connections arrive.", &["bind"], keys))
}

pub(super) fn chain() -> Value {
    let mut keys = json!({ "when": reference("chain_when") });
    merge(&mut keys, of_chain(described("The name of a route table.", string())));
    one_of(&["routes", "tcp"], object("What is done with some connections.", &[], keys))
}

/// What is done with connections.
fn of_chain(routes: Value) -> Value {
    let networks = json!({ "type": "array", "items": { "type": "string" } });
    let slashes = boolean();
    json!({
        "tls": reference("tls"),
        "mtls": tls::mtls(),
        "jwt": jwt::issuers(),
        "authorization": authorization::authorization(),
        "external_authorization": reference("external_authorization"),
        "global_rate_limit": reference("rate_limit_service"),
        "limits": reference("limits"),
        "trusted_proxies": with_default("Whose forwarded headers are believed.", networks, json!([])),
        "merge_slashes": with_default("Whether // in a path is read as /.", slashes, true),
        "routes": routes,
        "tcp": reference("tcp"),
    })
}

fn merge(keys: &mut Value, more: Value) {
    if let (Value::Object(keys), Value::Object(more)) = (keys, more) {
        keys.extend(more);
    }
}

pub(super) fn chain_when() -> Value {
    let port = || whole(1, u16::MAX.into());
    let word = |words: &[&str]| json!({ "enum": words });
    object(
        "Which connections: all that is written must fit, and of a list one. Of several chains the narrowest takes one, by \
         what stands first here.",
        &[],
        json!({
            "port": described("The port that they came to.", port()),
            "destination": described("The network that they came to.", one_or_list()),
            "sni": described("The host that TLS names.", one_or_list()),
            "transport": described("Whether they begin with TLS.", word(&["tls", "clear"])),
            "alpn": described("What TLS offers to speak.", one_or_list()),
            "direct_source": described("The network of their other end.", one_or_list()),
            "origin": described("Whether they come from this machine.", word(&["local", "external"])),
            "source": described("The network that they come from.", one_or_list()),
            "source_port": described("The port that they come from.", one_or_some(port())),
        }),
    )
}

pub(super) fn limits() -> Value {
    let Limits { connections, header_bytes, headers, body: _, header_timeout, idle_timeout, streams } =
        Limits::default();
    let header_bytes = show_size(u64::try_from(header_bytes.get()).unwrap_or(u64::MAX));
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

pub(super) fn tcp() -> Value {
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

pub(super) fn route() -> Value {
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
                "retry": reference("retry"),
                "hedge": reference("hedge"),
                "priority": words("Which limits of the cluster's circuit_breaker hold.", &["default", "high"], "default"),
                "mirror": reference("mirror"),
                "fallback": reference("fallback"),
                "hash": upstream::hash_keys(
                    "What makes requests alike for clusters that balance by hash and do not say it themselves.",
                ),
                "jwt": jwt::of_route(),
                "external_authorization": external_authorization::of_route(),
                "rate_limit": reference("rate_limit"),
                "global_rate_limit": reference("global_rate_limit"),
                "concurrency": reference("concurrency"),
                "fault": reference("fault"),
                "request_headers": reference("header_edits"),
                "response_headers": reference("header_edits"),
            }),
        ),
    )
}

pub(super) fn matches() -> Value {
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

pub(super) fn path_match() -> Value {
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

pub(super) fn string_match() -> Value {
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

pub(super) fn target() -> Value {
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

pub(super) fn rewrite() -> Value {
    object(
        "What is rewritten before a request is sent on.",
        &[],
        json!({
            "path": described("The whole path.", string()),
            "prefix": described("Put in place of the prefix that matched.", string()),
            "regex": reference("rewrite_regex"),
            "host": described("The host.", string()),
        }),
    )
}

pub(super) fn rewrite_regex() -> Value {
    object(
        "What an expression finds in the path is replaced, as often as it is found.",
        &["pattern", "with"],
        json!({
            "pattern": described("A regular expression; anchor it with ^ and $.", string()),
            "with": described("Put in place; \\\\1 to \\\\9 are what stands in brackets of the pattern.", string()),
        }),
    )
}

pub(super) fn header_edits() -> Value {
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

pub(super) fn redirect() -> Value {
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

pub(super) fn respond() -> Value {
    object(
        "An answer of the proxy's own.",
        &[],
        json!({
            "status": with_default("The status.", whole(200, 599), 200),
            "body": with_default("The body.", string(), ""),
        }),
    )
}
