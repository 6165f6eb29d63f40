//! What of a request decides its endpoint: said by a cluster that balances by hash, or by routes.

use super::super::cursor::Cx;
use super::super::fault::{Fault, show};
use super::super::tree::{Node, View};
use super::policy::header;
use super::some_time;
use crate::model::{Balance, HashKey, HashOn, MadeCookie};

/// By hash, where the cluster says itself of what.
pub(super) fn balance<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Balance> {
    let mut m = cx.fields(node, "hash_balance")?;
    m.exactly_one(&["ring-hash", "maglev"]);
    let ring = m.optional("ring-hash", of_cluster).map(Balance::RingHash);
    let maglev = m.optional("maglev", of_cluster).map(Balance::Maglev);
    m.finish();
    ring.or(maglev)
}

fn of_cluster<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Box<[HashKey]>> {
    let mut m = cx.fields(node, "hash")?;
    let keys = m.required("hash", keys);
    m.finish();
    keys
}

pub(super) fn keys<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Box<[HashKey]>> {
    let mut seen = Vec::new();
    let expected = "a list of what is hashed, as `[{ header: x-user }, source]`";
    let keys = cx.list(node, expected, |cx, node| {
        let key = key(cx, node)?;
        if seen.contains(&key.on) {
            return cx.fail(node, Fault::new("this is written twice"));
        }
        seen.push(key.on.clone());
        Some(key)
    })?;
    if keys.is_empty() {
        return cx.fail(node, Fault::new("the list is empty").hint(format!("expected {expected}")));
    }
    Some(keys.into())
}

fn key<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<HashKey> {
    if !matches!(node.view(), View::Map) {
        let expected = "`source`, or one of `{ header: x-user }`, `{ cookie: session }`, `{ query: user }`";
        let text = cx.string(node, expected)?;
        if text == "source" {
            return Some(HashOn::Source.into());
        }
        let fault = Fault::new(format!("{} does not say what is hashed", show(&text)));
        return cx.fail(node, fault.hint(format!("expected {expected}")));
    }
    let mut m = cx.fields(node, "hash_on")?;
    m.exactly_one(&["header", "cookie", "query", "source"]);
    let header = m.optional("header", header).map(HashOn::Header);
    let cookie = m.optional("cookie", cookie);
    let query = m.optional("query", |cx, node| {
        let name = cx.string(node, "a parameter's name")?;
        if name.is_empty() {
            return cx.fail(node, Fault::new("a name is empty"));
        }
        Some(HashOn::Query(name.into()))
    });
    let source = m.optional("source", |cx, node| match cx.boolean(node)? {
        true => Some(HashOn::Source),
        false => cx.fail(node, Fault::new("nothing is hashed").hint("write `source: true`, or leave it out")),
    });
    let terminal = m.optional("terminal", Cx::boolean).unwrap_or(false);
    m.finish();
    Some(HashKey { on: header.or(cookie).or(query).or(source)?, terminal })
}

/// A cookie's name, or `{name, ttl, path}`.
fn cookie<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<HashOn> {
    if !matches!(node.view(), View::Map) {
        return Some(HashOn::Cookie { name: cookie_name(cx, node)?, made: None });
    }
    let mut m = cx.fields(node, "cookie")?;
    let name = m.required("name", cookie_name);
    let ttl = m.optional("ttl", some_time);
    let path = m.optional("path", path);
    if !m.has("ttl") {
        m.refuse("path", || Fault::new("no cookie is made").hint("write `ttl` too, or remove it"));
    }
    m.finish();
    let made = ttl.map(|ttl| match path {
        None => MadeCookie::new(ttl),
        Some(path) => MadeCookie { ttl, path },
    });
    Some(HashOn::Cookie { name: name?, made })
}

/// A token (RFC 6265 section 4.1.1), in which letter case counts.
fn cookie_name<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Box<str>> {
    let text = cx.string(node, "a cookie's name")?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || !text.bytes().all(token) {
        let fault = Fault::new(format!("{} is not a cookie's name", show(&text)));
        return cx.fail(node, fault.hint("expected letters, digits, `-` and `_`"));
    }
    Some(text.into())
}

/// `None` inside for none at all.
fn path<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Option<Box<str>>> {
    let expected = "a path, as `/shop`, or `none`";
    let text = cx.string(node, expected)?;
    if text == "none" {
        return Some(None);
    }
    if !MadeCookie::takes_path(&text) {
        let fault = Fault::new(format!("{} is not a cookie's path", show(&text)));
        return cx.fail(node, fault.hint(format!("expected {expected}")));
    }
    Some(Some(text.into()))
}
