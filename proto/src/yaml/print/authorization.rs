//! Who may do what.

use super::tls::pattern;
use super::writer::{Out, key, list, text};
use super::{or_root, string_match};
use crate::model::{Authorization, ClaimRule, Effect, HeaderRule, HostPattern, PathPattern, Rule, When};

pub(super) fn authorization(out: &mut Out, Authorization { rules }: &Authorization) {
    out.list("authorization", rules.iter(), |out, Rule { name, effect, dry_run, when }| {
        if let Some(name) = name {
            out.field("name", text(name));
        }
        let effect = match effect {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
            Effect::Audit => "audit",
        };
        if *when == When::default() {
            out.field(effect, "{}");
        } else {
            out.block(effect, |out| conditions(out, when));
        }
        if *dry_run {
            out.field("dry_run", true);
        }
    });
}

fn conditions(out: &mut Out, when: &When) {
    let When { peers, source, sni, ports, methods, hosts, paths, headers, claims } = when;
    let mut some = |key: &str, items: Vec<String>| {
        if !items.is_empty() {
            out.field(key, list(items.into_iter()));
        }
    };
    some("peers", peers.iter().map(pattern).collect());
    some("source", source.iter().map(|network| text(&network.to_string())).collect());
    some("sni", sni.iter().map(host).collect());
    some("ports", ports.iter().map(u16::to_string).collect());
    some("methods", methods.iter().map(|method| text(method.as_str())).collect());
    some("hosts", hosts.iter().map(host).collect());
    if !paths.is_empty() {
        out.list("paths", paths.iter(), |out, path| match path {
            PathPattern::Exact(path) => out.field("exact", text(path)),
            PathPattern::Below(above) => out.inline(&text(&format!("{above}*"))),
            PathPattern::Prefix(path) => out.field("prefix", text(or_root(path))),
            PathPattern::Regex(pattern) => out.field("regex", text(pattern.as_str())),
        });
    }
    if !headers.is_empty() {
        out.map("headers", headers.iter(), |out, HeaderRule { name, value }| {
            string_match(out, name.as_str(), value);
        });
    }
    if !claims.is_empty() {
        out.map("claims", claims.iter(), |out, ClaimRule { name, values }| {
            out.field(&key(name), list(values.iter().map(|value| text(value))));
        });
    }
}

pub(super) fn host(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(host) => text(host),
        HostPattern::Suffix(suffix) => text(&format!("*{suffix}")),
    }
}
