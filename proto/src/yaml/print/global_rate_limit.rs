//! Limits that a service counts, and who it is.

use super::super::scalar::show_duration;
use super::string_match_in_place;
use super::writer::{Out, key, list, text};
use crate::model::{
    Absent, DescriptorEntry, GlobalRateLimit, HeaderMatch, OnFailure, Only, OnlyOf, QueryMatch,
    RateLimitService, StringMatch,
};

pub(super) fn of_listener(out: &mut Out, asked: &RateLimitService) {
    out.block("global_rate_limit", |out| service(out, asked));
}

fn service(out: &mut Out, service: &RateLimitService) {
    let RateLimitService { cluster, domain, timeout, on_failure, cache } = service;
    out.field("cluster", text(cluster.as_str()));
    out.field("domain", text(domain));
    out.field("timeout", show_duration(*timeout));
    out.field("on_failure", self::on_failure(*on_failure));
    out.field("cache", cache);
}

pub(super) fn of_route(out: &mut Out, limit: &GlobalRateLimit) {
    let GlobalRateLimit { service: asked, descriptors, hits } = limit;
    out.block("global_rate_limit", |out| {
        if let Some(asked) = asked {
            service(out, asked);
        }
        out.field("descriptors", list(descriptors.iter().map(|entries| list(entries.iter().map(entry)))));
        out.field("hits", hits);
    });
}

fn entry(entry: &DescriptorEntry) -> String {
    match entry {
        DescriptorEntry::Header { name, key, absent } => named("header", name.as_str(), (key, *absent)),
        DescriptorEntry::Query { name, key, absent } => named("query", name, (key, *absent)),
        DescriptorEntry::Source => "source".to_owned(),
        DescriptorEntry::SourceCluster => "source_cluster".to_owned(),
        DescriptorEntry::DestinationCluster => "destination_cluster".to_owned(),
        DescriptorEntry::Fixed { key, value, only } => {
            let only = only.as_ref().map(only_of).unwrap_or_default();
            format!("{{ key: {}, value: {}{only} }}", text(key), text(value))
        }
    }
}

fn named(kind: &str, name: &str, (key, absent): (&str, Absent)) -> String {
    let own = if key == name { String::new() } else { format!(", as: {}", text(key)) };
    let optional = match absent {
        Absent::Descriptor => "",
        Absent::Entry => ", optional: true",
    };
    format!("{{ {kind}: {}{own}{optional} }}", text(name))
}

fn only_of(Only { fits, of }: &Only) -> String {
    let one = |name: &str, value: &StringMatch| format!("{}: {}", key(name), string_match_in_place(value));
    let header = |HeaderMatch { name, value }: &HeaderMatch| one(name.as_str(), value);
    let parameter = |QueryMatch { name, value }: &QueryMatch| one(name, value);
    let (kind, shown): (_, Vec<_>) = match of {
        OnlyOf::Headers(all) => ("headers", all.iter().map(header).collect()),
        OnlyOf::Query(all) => ("query", all.iter().map(parameter).collect()),
    };
    let word = if *fits { "when" } else { "unless" };
    format!(", {word}: {{ {kind}: {{ {} }} }}", shown.join(", "))
}

/// What becomes of requests without a service's answer.
pub(super) fn on_failure(on_failure: OnFailure) -> &'static str {
    match on_failure {
        OnFailure::Allow => "allow",
        OnFailure::Deny => "deny",
    }
}
