//! From the model to YAML: the full form, with every default written out.
//!
//! The order is fixed, strings are quoted where a YAML reader (1.1 ones included) could take them for something else,
//! and what is printed parses back to the same [`Config`]. What cannot be written without changing its meaning, a
//! default that differs from the same value written, stands in a comment. File paths are printed as they were
//! resolved: they read back the same when they are absolute, or when the base is the empty path.

mod authorization;
mod external_authorization;
mod global_rate_limit;
mod jwt;
mod resilience;
mod tls;
mod writer;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;

use self::writer::{Out, key, list, text};
use super::ratio::show_percent;
use super::scalar::{show_duration, show_size};
use super::words::show_priority;
use crate::model::{
    AccessLog, Action, Admin, Assignment, ChainMatch, Cluster, Config, ControlPlane, DestinationSource,
    Direction, DnsUse, Endpoint, Filter, FilterChain, Forward, HeaderEdits, HostPattern, HttpFilter, JwtUse,
    Limits, Listener, Locality, LogFormat, LogTarget, Match, Mesh, Metadata, Name, Node, OnDemand, Origin,
    Original, Overload, PathMatch, PathRewrite, Percent, Privileges, Process, Protocol, Redirect, Respond,
    Rewrite, Root, Route, RouteTable, Shutdown, Source, Split, StringMatch, Target, TcpFilter, Transport,
    User,
};

/// The document that says what `config` is, and nothing less.
pub fn print(config: &Config) -> String {
    let Config { mesh, endpoints } = config;
    let Mesh { process: settings, identity, listeners, route_tables, clusters } = mesh;
    let mut out = Out::default();
    process(&mut out, settings);
    if let Some(identity) = identity {
        tls::identity(&mut out, identity);
    }
    out.map("listeners", listeners.iter(), |out, (name, value)| {
        out.block(&key(name.as_str()), |out| listener(out, name, value, mesh));
    });
    let mut shared = route_tables.iter().filter(|(name, _)| !is_inline(mesh, name)).peekable();
    if shared.peek().is_some() {
        out.map("route_tables", shared, |out, (name, table)| routes(out, &key(name.as_str()), table));
    }
    out.map("clusters", clusters.iter(), |out, (name, value)| {
        out.block(&key(name.as_str()), |out| cluster(out, value, endpoints.get(name).map(Arc::as_ref)));
    });
    out.finish()
}

/// Whether a table is written at the listener of its name.
fn is_inline(mesh: &Mesh, table: &Name) -> bool {
    let chain = mesh.listeners.get(table).and_then(|listener| listener.chains.only());
    chain.is_some_and(|chain| match &chain.filter {
        Filter::Http(http) => http.routes == *table,
        Filter::Tcp(_) => false,
    })
}

fn process(out: &mut Out, process: &Process) {
    let Process {
        workers,
        admin: Admin { address, written },
        shutdown,
        access_log,
        overload,
        privileges: Privileges { user, root },
        control,
    } = process;
    match workers {
        Some(workers) => out.field("workers", workers),
        None => out.comment("workers: (default: the CPUs of the cgroup, rounded up)"),
    }
    let address = text(&address.to_string());
    if *written {
        out.field("admin", address);
    } else {
        out.comment(&format!("admin: {address}  (default)"));
    }
    let Shutdown { lame_duck, quiet, deadline } = shutdown;
    out.block("shutdown", |out| {
        out.field("lame_duck", show_duration(*lame_duck));
        out.field("quiet", show_duration(*quiet));
        out.field("deadline", show_duration(*deadline));
    });
    log(out, access_log.as_ref());
    let Overload { memory, descriptors, connections } = overload;
    let share = |share: &Option<Percent>| share.map_or("none".to_owned(), show_percent);
    out.block("overload", |out| {
        out.field("memory", share(memory));
        out.field("descriptors", share(descriptors));
        out.field("connections", connections.map_or("none".to_owned(), |most| most.to_string()));
    });
    out.block("privileges", |out| {
        match user {
            Some(User::Name(name)) => out.field("user", text(name)),
            Some(User::Ids { uid, gid }) => out.field("user", text(&format!("{uid}:{gid}"))),
            None => out.comment("user: (default: whoever it was started as)"),
        }
        let root = match root {
            Root::Warn => "warn",
            Root::Refuse => "refuse",
            Root::Allow => "allow",
        };
        out.field("root", root);
    });
    if let Some(control) = control.as_deref() {
        control_plane(out, control);
    }
}

fn control_plane(out: &mut Out, control: &ControlPlane) {
    let ControlPlane { server, trust, cache, on_demand, load_reports, trials, events, sockets, node } =
        control;
    let Node { id, cluster, locality, metadata } = node;
    out.block("node", |out| {
        out.field("id", text(id));
        out.field("cluster", text(cluster));
        let Locality { region, zone, sub_zone } = locality;
        out.block("locality", |out| {
            out.field("region", text(region));
            out.field("zone", text(zone));
            out.field("sub_zone", text(sub_zone));
        });
        out.map("metadata", metadata.iter(), |out, (name, value)| out.field(&key(name), datum(value)));
    });
    out.block("xds", |out| {
        out.field("server", text(server));
        if let Some(trust) = trust {
            out.field("trust", path(trust, ""));
        }
        match cache {
            Some(cache) => out.field("cache", path(cache, "")),
            None => out.comment("cache: (default: nothing is kept)"),
        }
        match on_demand {
            None => out.field("on_demand", "false".to_owned()),
            Some(OnDemand { idle }) => out.block("on_demand", |out| out.field("idle", show_duration(*idle))),
        }
        out.field("load_reports", load_reports.to_string());
        out.field("trials", trials.to_string());
        out.field("events", events.to_string());
        out.field("sockets", list(sockets.iter().map(|directory| path(directory, ""))));
    });
}

/// On one line.
fn datum(value: &Metadata) -> String {
    match value {
        Metadata::Bool(value) => value.to_string(),
        // As it is read: whole numbers are exact, larger ones have an exponent.
        Metadata::Number(number) if number.abs() >= 1e15 => format!("{number:e}"),
        Metadata::Number(number) => number.to_string(),
        Metadata::Text(value) => text(value),
        Metadata::List(values) => list(values.iter().map(datum)),
        Metadata::Map(values) => {
            let values = values.iter().map(|(name, value)| format!("{}: {}", key(name), datum(value)));
            format!("{{{}}}", values.collect::<Vec<_>>().join(", "))
        }
    }
}

fn log(out: &mut Out, access_log: Option<&AccessLog>) {
    let Some(AccessLog { format, to }) = access_log else {
        out.field("access_log", "none");
        return;
    };
    out.block("access_log", |out| {
        out.field(
            "format",
            match format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            },
        );
        out.field(
            "to",
            match to {
                LogTarget::Stdout => "stdout".to_owned(),
                LogTarget::Stderr => "stderr".to_owned(),
                LogTarget::File(file) => path(file, "./"),
            },
        );
    });
}

/// A file's path; one without a `/` gets `beside` before it.
fn path(path: &Path, beside: &str) -> String {
    let shown = path.to_string_lossy();
    text(&if shown.contains('/') { shown.into_owned() } else { format!("{beside}{shown}") })
}

fn listener(out: &mut Out, name: &Name, listener: &Listener, mesh: &Mesh) {
    let Listener { bind, direction, destination, chains } = listener;
    out.field("bind", text(&bind.to_string()));
    out.field(
        "direction",
        match direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        },
    );
    out.field(
        "original_destination",
        match destination {
            DestinationSource::Bound => "none",
            DestinationSource::Redirected => "redirect",
        },
    );
    if let Some(only) = chains.only() {
        return chain(out, only, mesh.route_tables.get(name).map(|table| (name, table)));
    }
    out.list("chains", chains.some().iter(), |out, (matches, one)| {
        out.field("when", when(matches));
        chain(out, one, None);
    });
    if let Some(rest) = chains.rest() {
        out.block("rest", |out| chain(out, rest, None));
    }
}

fn when(matches: &ChainMatch) -> String {
    let ChainMatch {
        port,
        destinations,
        hosts,
        transport,
        protocols,
        direct_sources,
        origin,
        sources,
        source_ports,
    } = matches;
    let networks = |all: &BTreeSet<IpNet>| all.iter().map(|network| text(&network.to_string())).collect();
    let mut fields: Vec<String> = port.iter().map(|port| format!("port: {port}")).collect();
    let mut some = |key: &str, items: Vec<String>| {
        fields.extend((!items.is_empty()).then(|| format!("{key}: {}", list(items.into_iter()))));
    };
    some("destination", networks(destinations));
    some("sni", hosts.iter().map(authorization::host).collect());
    some("alpn", protocols.iter().map(|protocol| text(protocol)).collect());
    some("direct_source", networks(direct_sources));
    some("source", networks(sources));
    some("source_port", source_ports.iter().map(ToString::to_string).collect());
    fields.extend(transport.map(|transport| match transport {
        Transport::Tls => "transport: tls".to_owned(),
        Transport::Clear => "transport: clear".to_owned(),
    }));
    fields.extend(origin.map(|origin| match origin {
        Origin::Local => "origin: local".to_owned(),
        Origin::External => "origin: external".to_owned(),
    }));
    if fields.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", fields.join(", ")) }
}

/// `inline` is the table that may be written in place.
fn chain(out: &mut Out, chain: &FilterChain, inline: Option<(&Name, &RouteTable)>) {
    let FilterChain { tls, authorization, limits: limited, filter } = chain;
    if let Some(tls) = tls {
        tls::downstream(out, tls);
    }
    if let Some(authorization) = authorization {
        authorization::authorization(out, authorization);
    }
    limits(out, limited);
    match filter {
        Filter::Http(http) => {
            let HttpFilter {
                jwt,
                external_authorization,
                rate_limit_service,
                routes: table,
                trusted_proxies,
                merge_slashes,
            } = http;
            if !jwt.is_empty() {
                jwt::issuers(out, jwt);
            }
            if let Some(asked) = external_authorization {
                external_authorization::of_listener(out, asked);
            }
            if let Some(asked) = rate_limit_service {
                global_rate_limit::of_listener(out, asked);
            }
            out.field(
                "trusted_proxies",
                list(trusted_proxies.iter().map(|network| text(&network.to_string()))),
            );
            out.field("merge_slashes", merge_slashes);
            match inline {
                Some((name, inline)) if table == name => routes(out, "routes", inline),
                Some(_) | None => out.field("routes", text(table.as_str())),
            }
        }
        Filter::Tcp(TcpFilter { to, idle_timeout }) => out.block("tcp", |out| {
            split(out, to);
            out.field("idle_timeout", show_duration(*idle_timeout));
        }),
    }
}

fn limits(out: &mut Out, limits: &Limits) {
    let Limits { connections, header_bytes, headers, body, header_timeout, idle_timeout, streams } = limits;
    out.block("limits", |out| {
        out.field("connections", connections);
        out.field("header_bytes", show_size(u64::try_from(header_bytes.get()).unwrap_or(u64::MAX)));
        out.field("headers", headers);
        match body {
            Some(body) => out.field("body", show_size(body.get())),
            None => out.comment("body: (default: no limit)"),
        }
        out.field("header_timeout", show_duration(*header_timeout));
        out.field("idle_timeout", show_duration(*idle_timeout));
        out.field("streams", streams);
    });
}

fn routes(out: &mut Out, key: &str, table: &RouteTable) {
    let RouteTable { routes, on_demand } = table;
    if *on_demand {
        out.comment(&format!("{key}: (a control plane has routes of more hosts, and tells them on demand)"));
    }
    out.list(key, routes.iter(), route);
}

fn route(out: &mut Out, route: &Route) {
    let Route {
        matches: matched,
        action,
        jwt,
        external_authorization,
        rate_limit,
        global_rate_limit,
        concurrency,
        fault,
        request_headers,
        response_headers,
    } = route;
    if *matched != Match::default() {
        out.block("match", |out| matches(out, matched));
    }
    match jwt {
        Some(JwtUse::Required) => out.field("jwt", "required"),
        Some(JwtUse::Optional) => out.field("jwt", "optional"),
        Some(JwtUse::None) => out.field("jwt", "none"),
        None => {}
    }
    if let Some(said) = external_authorization {
        external_authorization::of_route(out, said);
    }
    match action {
        Action::Forward(sent) => forward(out, sent),
        Action::Redirect(Redirect { to, status }) => out.block("redirect", |out| {
            out.field("to", text(&String::from_utf8_lossy(to.as_bytes())));
            out.field("status", status.as_u16());
        }),
        Action::Respond(answer) => respond(out, answer),
    }
    if let Some(limit) = global_rate_limit {
        global_rate_limit::of_route(out, limit);
    }
    resilience::admission(out, rate_limit.as_deref(), concurrency.as_deref(), fault.as_deref());
    edits(out, "request_headers", request_headers);
    edits(out, "response_headers", response_headers);
}

fn forward(out: &mut Out, forward: &Forward) {
    let Forward { to, rewrite: rewritten, timeout, retry, hedge, priority, mirror, fallback, hash } = forward;
    split(out, to);
    if let Some(timeout) = timeout {
        out.field("timeout", show_duration(*timeout));
    }
    rewrite(out, rewritten);
    if let Some(retry) = retry {
        resilience::retry(out, retry);
    }
    if let Some(hedge) = hedge {
        resilience::hedge(out, *hedge);
    }
    out.field("priority", show_priority(*priority));
    if let Some(mirror) = mirror {
        resilience::mirror(out, mirror);
    }
    if let Some(fallback) = fallback {
        resilience::fallback(out, fallback);
    }
    if !hash.is_empty() {
        resilience::hash(out, hash);
    }
}

fn respond(out: &mut Out, Respond { status, body }: &Respond) {
    out.block("respond", |out| {
        out.field("status", status.as_u16());
        out.field("body", text(body));
    });
}

fn matches(out: &mut Out, matched: &Match) {
    let Match { hosts, path, methods, headers, query } = matched;
    if !hosts.is_empty() {
        out.field(
            "host",
            list(hosts.iter().map(|host| match host {
                HostPattern::Exact(host) => text(host),
                HostPattern::Suffix(suffix) => text(&format!("*{suffix}")),
            })),
        );
    }
    match path {
        PathMatch::Any => {}
        PathMatch::Exact(path) => out.block("path", |out| out.field("exact", text(path))),
        PathMatch::Prefix(path) => out.block("path", |out| out.field("prefix", text(or_root(path)))),
        PathMatch::Regex(pattern) => out.block("path", |out| out.field("regex", text(pattern.as_str()))),
    }
    if !methods.is_empty() {
        out.field("methods", list(methods.iter().map(|method| text(method.as_str()))));
    }
    if !headers.is_empty() {
        out.map("headers", headers.iter(), |out, header| {
            string_match(out, header.name.as_str(), &header.value)
        });
    }
    if !query.is_empty() {
        out.map("query", query.iter(), |out, query| string_match(out, &query.name, &query.value));
    }
}

/// A prefix is kept without its slash at the end.
fn or_root(prefix: &str) -> &str {
    if prefix.is_empty() { "/" } else { prefix }
}

fn string_match(out: &mut Out, name: &str, value: &StringMatch) {
    let (word, value) = string_match_parts(value);
    out.block(&key(name), |out| out.field(word, value));
}

fn string_match_parts(value: &StringMatch) -> (&'static str, String) {
    match value {
        StringMatch::Present => ("present", true.to_string()),
        StringMatch::Absent => ("present", false.to_string()),
        StringMatch::Exact(value) => ("exact", text(value)),
        StringMatch::Prefix(value) => ("prefix", text(value)),
        StringMatch::Regex(pattern) => ("regex", text(pattern.as_str())),
    }
}

/// The same in one line.
fn string_match_in_place(value: &StringMatch) -> String {
    let (word, value) = string_match_parts(value);
    format!("{{ {word}: {value} }}")
}

fn split(out: &mut Out, split: &Split) {
    let Split { targets } = split;
    if let [Target { to, weight, request_headers, response_headers }] = targets.as_slice()
        && weight.get() == 1
        && request_headers.is_empty()
        && response_headers.is_empty()
    {
        return out.field("to", text(&to.to_string()));
    }
    out.map("to", targets.iter(), |out, target| {
        let Target { to, weight, request_headers, response_headers } = target;
        let name = key(&to.to_string());
        if request_headers.is_empty() && response_headers.is_empty() {
            return out.field(&name, weight);
        }
        out.block(&name, |out| {
            out.field("weight", weight);
            edits(out, "request_headers", request_headers);
            edits(out, "response_headers", response_headers);
        });
    });
}

fn rewrite(out: &mut Out, rewrite: &Rewrite) {
    let Rewrite { path, host } = rewrite;
    if path.is_none() && host.is_none() {
        return;
    }
    out.block("rewrite", |out| {
        match path {
            Some(PathRewrite::Whole(path)) => out.field("path", text(path)),
            Some(PathRewrite::Prefix(prefix)) => out.field("prefix", text(or_root(prefix))),
            Some(PathRewrite::Found(replace)) => out.block("regex", |out| {
                out.field("pattern", text(replace.pattern().as_str()));
                out.field("with", text(&replace.with()));
            }),
            None => {}
        }
        if let Some(host) = host {
            out.field("host", text(&String::from_utf8_lossy(host.as_bytes())));
        }
    });
}

fn edits(out: &mut Out, key: &str, edits: &HeaderEdits) {
    let HeaderEdits { remove, set, add } = edits;
    if edits.is_empty() {
        return;
    }
    let value = |value: &http::HeaderValue| text(&String::from_utf8_lossy(value.as_bytes()));
    out.block(key, |out| {
        if !remove.is_empty() {
            out.field("remove", list(remove.iter().map(|name| writer::key(name.as_str()))));
        }
        if !set.is_empty() {
            out.map("set", set.iter(), |out, (name, set)| out.field(&writer::key(name.as_str()), value(set)));
        }
        let mut names: Vec<&http::HeaderName> = Vec::new();
        for (name, _) in add {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if !names.is_empty() {
            out.map("add", names.into_iter(), |out, name| {
                let values: Vec<_> = add.iter().filter(|(n, _)| n == name).map(|(_, v)| value(v)).collect();
                let shown =
                    if let [one] = values.as_slice() { one.clone() } else { list(values.into_iter()) };
                out.field(&writer::key(name.as_str()), shown);
            });
        }
    });
}

fn cluster(out: &mut Out, cluster: &Cluster, assignment: Option<&Assignment>) {
    let Cluster {
        source,
        balance,
        protocol,
        tls,
        connect_timeout,
        idle_timeout,
        retry_budget,
        circuit_breaker,
        outlier_detection,
        health_check,
        slow_start,
        panic_threshold,
        zone_weights,
        subsets,
        subset_fallback,
    } = cluster;
    placed(out, source, assignment);
    let chooses = !matches!(source, Source::Original(_));
    if chooses {
        resilience::balance(out, balance);
    }
    out.field(
        "protocol",
        match protocol {
            Protocol::Auto => "auto",
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
        },
    );
    if let Some(tls) = tls {
        tls::upstream(out, tls);
    }
    out.field("connect_timeout", show_duration(*connect_timeout));
    out.field("idle_timeout", show_duration(*idle_timeout));
    resilience::retry_budget(out, *retry_budget);
    resilience::circuit_breaker(out, circuit_breaker);
    if let Some(outliers) = outlier_detection {
        resilience::outlier_detection(out, outliers);
    }
    if let Some(check) = health_check {
        resilience::health_check(out, check);
    }
    if chooses {
        out.field("slow_start", show_duration(*slow_start));
        out.field("panic_threshold", show_percent(*panic_threshold));
        resilience::parts(out, zone_weights, (subsets, *subset_fallback));
    }
}

/// Where its endpoints come from.
fn placed(out: &mut Out, source: &Source, assignment: Option<&Assignment>) {
    match source {
        Source::Static => {
            let endpoints = assignment.map_or(&[][..], |assignment| assignment.endpoints.as_slice());
            out.list("endpoints", endpoints.iter(), endpoint);
        }
        Source::Dns { host, port, uses } => {
            let host = text(&format!("{host}:{port}"));
            match uses {
                DnsUse::All => out.field("dns", host),
                DnsUse::First => out.field("dns", format!("{{ host: {host}, use: first }}")),
            }
        }
        Source::Original(named) => original(out, named),
    }
}

fn original(out: &mut Out, original: &Original) {
    let Original { header, port, cleanup, max_endpoints } = original;
    out.block("original_destination", |out| {
        match header {
            Some(header) => out.field("header", text(header.as_str())),
            None => out.comment("header: (default: none)"),
        }
        match port {
            Some(port) => out.field("port", port),
            None => out.comment("port: (default: the one that is named)"),
        }
        out.field("cleanup", show_duration(*cleanup));
        out.field("max_endpoints", max_endpoints);
    });
}

fn endpoint(out: &mut Out, endpoint: &Endpoint) {
    let Endpoint { address, weight, priority, zone, labels: own } = endpoint;
    let address = text(&address.to_string());
    let zone = zone.as_deref().map(|zone| format!(", zone: {}", text(zone))).unwrap_or_default();
    let own = if own.0.is_empty() { String::new() } else { format!(", labels: {}", resilience::labels(own)) };
    out.inline(&format!("{{ address: {address}, weight: {weight}, priority: {priority}{zone}{own} }}"));
}
