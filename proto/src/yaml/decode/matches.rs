//! Which requests a route takes: hosts, path, methods, header fields and query parameters.

use std::net::Ipv6Addr;

use http::Method;

use super::super::cursor::Cx;
use super::super::fault::{Fault, show};
use super::super::tree::{Node, View};
use super::super::{canonical, lint, scalar};
use super::headers;
use crate::model::{HeaderMatch, HostPattern, Match, PathMatch, Pattern, QueryMatch, StringMatch};

pub(super) fn matches<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Match> {
    let mut m = cx.fields(node, "match")?;
    let hosts = m.optional("host", hosts);
    let path = m.optional("path", path);
    let path_is_wrong = m.has("path") && path.is_none();
    let methods = m.optional("methods", methods);
    let headers = m.optional("headers", headers);
    let query = m.optional("query", query);
    m.finish();
    if path_is_wrong {
        return None;
    }
    Some(Match {
        hosts: hosts.unwrap_or_default(),
        path: path.unwrap_or_default(),
        methods: methods.unwrap_or_default(),
        headers: headers.unwrap_or_default(),
        query: query.unwrap_or_default(),
    })
}

pub(super) fn headers<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Vec<HeaderMatch>> {
    let mut seen = Vec::new();
    cx.entries(node, "values by header name, as `{ x-beta: \"1\" }`", |cx, key, place, node| {
        let name = headers::name(cx, key, place, &mut seen);
        let value = string_match(cx, node);
        Some(HeaderMatch { name: name?, value: value? })
    })
}

pub(super) fn query<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Vec<QueryMatch>> {
    cx.entries(node, "values by parameter, as `{ debug: \"true\" }`", |cx, key, _, node| {
        Some(QueryMatch { name: key.into(), value: string_match(cx, node)? })
    })
}

pub(super) fn hosts<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Vec<HostPattern>> {
    let mut seen = Vec::new();
    let patterns = cx.one_or_more(node, "a host, or a list of hosts", |cx, node| {
        let text = cx.string(node, "a host, as `shop.example.com` or `\"*.example.com\"`")?;
        let pattern = match host(&text) {
            Ok(pattern) => pattern,
            Err(fault) => return cx.fail(node, fault),
        };
        if seen.contains(&pattern) {
            return cx.fail(node, Fault::new(format!("{} is written twice", show(&text))));
        }
        seen.push(pattern.clone());
        Some(pattern)
    })?;
    if patterns.len() > 1 && patterns.contains(&None) {
        let fault = Fault::new("`*` takes every host, the others beside it too");
        return cx.fail(node, fault.hint("leave the others out, or write a route for each"));
    }
    Some(patterns.into_iter().flatten().collect())
}

/// A pattern; `None` for `*`, which says nothing.
fn host(text: &str) -> Result<Option<HostPattern>, Fault> {
    let text = text.to_ascii_lowercase();
    if text == "*" {
        return Ok(None);
    }
    if let Some(inside) = text.strip_prefix('[') {
        return match inside.split_once(']') {
            Some((v6, "")) if v6.parse::<Ipv6Addr>().is_ok() => Ok(Some(HostPattern::Exact(text.into()))),
            Some((v6, port)) if port.starts_with(':') => Err(port_in_host(&format!("[{v6}]"))),
            Some(_) | None => {
                Err(Fault::new(format!("{} is not an address", show(&text))).hint("expected `[v6]`"))
            }
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(
            Fault::new(format!("{} stands without brackets", show(&text))).hint(format!("write `[{text}]`"))
        );
    }
    if let Some((host, _)) = text.split_once(':') {
        return Err(port_in_host(host));
    }
    let (name, suffix) = match text.strip_prefix('*') {
        Some(suffix) if suffix.starts_with('.') => (&suffix[1..], true),
        _ => (text.as_str(), false),
    };
    if name.contains('*') {
        return Err(Fault::new(format!("{} has a `*` where none can be", show(&text)))
            .hint("expected `*` alone, or `*.` before a domain, as `\"*.example.com\"`"));
    }
    scalar::host_name(name)?;
    Ok(Some(if suffix { HostPattern::Suffix(text[1..].into()) } else { HostPattern::Exact(text.into()) }))
}

fn port_in_host(host: &str) -> Fault {
    Fault::new("a port in a host pattern")
        .hint(format!("ports are ignored when hosts are matched: write `{host}`"))
}

/// A path, `{exact | prefix | regex}`; a string alone is a prefix.
fn path<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<PathMatch> {
    if !matches!(node.view(), View::Map) {
        return prefix(cx, node);
    }
    let mut m = cx.fields(node, "path_match")?;
    m.exactly_one(&["exact", "prefix", "regex"]);
    let exact = m.optional("exact", |cx, node| Some(PathMatch::Exact(canonical_path(cx, node)?.into())));
    let prefix = m.optional("prefix", prefix);
    let regex = m.optional("regex", |cx, node| Some(PathMatch::Regex(pattern(cx, node)?)));
    m.finish();
    exact.or(prefix).or(regex)
}

fn prefix<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<PathMatch> {
    let path = canonical_path(cx, node)?;
    Some(PathMatch::Prefix(path.strip_suffix('/').unwrap_or(&path).into()))
}

/// A path in the form in which paths are compared.
pub(super) fn canonical_path<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<String> {
    let text = cx.string(node, "a path, as `/cart`")?;
    if let Err(fault) = canonical::check(&text) {
        return cx.fail(node, fault);
    }
    lint::star(cx, node, &text);
    Some(text.into_owned())
}

pub(super) fn pattern<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Pattern> {
    let text = cx.string(node, "a regular expression")?;
    match Pattern::new(&text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            // The engine draws the place over several lines; the last says what is wrong.
            let said = error.to_string();
            let reason = said.lines().last().unwrap_or_default().trim_start_matches("error: ");
            cx.fail(node, Fault::new(format!("{} is not a regular expression: {reason}", show(&text))))
        }
    }
}

pub(super) fn methods<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Vec<Method>> {
    let mut seen = Vec::new();
    cx.one_or_more(node, "a method, or a list of methods", |cx, node| {
        let text = cx.string(node, "a method, as `GET`")?;
        let upper = text.to_ascii_uppercase();
        let Ok(method) = Method::from_bytes(text.as_bytes()) else {
            return cx.fail(
                node,
                Fault::new(format!("{} is not a method", show(&text))).hint("expected one as `GET`"),
            );
        };
        if upper != *text {
            let fault = Fault::new(format!("{} is in small letters, and methods are not", show(&text)));
            return cx.fail(node, fault.hint(format!("did you mean `{upper}`?")));
        }
        if seen.contains(&method) {
            return cx.fail(node, Fault::new(format!("`{method}` is written twice")));
        }
        seen.push(method.clone());
        Some(method)
    })
}

/// A text, `{exact | prefix | regex | present}`; a string alone is exact.
pub(super) fn string_match<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<StringMatch> {
    let expected = "a text";
    if !matches!(node.view(), View::Map) {
        return Some(StringMatch::Exact(cx.string(node, expected)?.into()));
    }
    let mut m = cx.fields(node, "string_match")?;
    m.exactly_one(&["exact", "prefix", "regex", "present"]);
    let exact = m.optional("exact", |cx, node| Some(StringMatch::Exact(cx.string(node, expected)?.into())));
    let prefix = m.optional("prefix", |cx, node| {
        let text = cx.string(node, expected)?;
        if text.is_empty() {
            return cx.fail(node, Fault::new("every text begins with nothing").hint("write `present: true`"));
        }
        Some(StringMatch::Prefix(text.into()))
    });
    let regex = m.optional("regex", |cx, node| Some(StringMatch::Regex(pattern(cx, node)?)));
    let present = m.optional("present", Cx::boolean);
    let present = present.map(|there| if there { StringMatch::Present } else { StringMatch::Absent });
    m.finish();
    exact.or(prefix).or(regex).or(present)
}
