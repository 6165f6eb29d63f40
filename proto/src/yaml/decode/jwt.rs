//! Tokens: `jwt` of a listener.

use std::path::PathBuf;

use super::super::cursor::Cx;
use super::super::fault::{Fault, show};
use super::super::tree::{Node, View};
use super::authorization::of_one_hop;
use super::{duration, each_http_chain, headers, refuse_route, tls};
use crate::model::{InlineKeys, JwksSource, JwtAlgorithm, JwtIssuer, JwtUse, Mesh, Route};

pub(super) fn issuers<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Box<[JwtIssuer]>> {
    let expected = "a list of issuers, as `[{ issuer: \"https://id.example.com\", jwks: jwks.json, audiences: [shop] }]`";
    let mut seen = Vec::new();
    let issuers = cx.list(node, expected, |cx, node| {
        let issuer = issuer(cx, node)?;
        if seen.contains(&issuer.issuer) {
            return cx
                .fail(node, Fault::new(format!("the issuer {} is written twice", show(&issuer.issuer))));
        }
        seen.push(issuer.issuer.clone());
        Some(issuer)
    })?;
    if issuers.is_empty() {
        return cx.fail(node, Fault::new("no issuer is named").hint(format!("expected {expected}")));
    }
    Some(issuers.into())
}

/// Refuses routes that need a token at listeners that look at none: they would stand open. Of tables that are read last.
pub(super) fn refuse_unlooked<'a>(cx: &mut Cx<'a>, root: Node<'a>, mesh: &Mesh) {
    each_http_chain(cx, root, mesh, |cx, node, http| {
        let needs = |route: &Route| route.jwt == Some(JwtUse::Required) && http.jwt.is_empty();
        refuse_route(cx, node, (mesh, http), needs, |place| {
            Fault::new(format!("routes[{place}] needs a token, and nobody looks at tokens here"))
                .hint("write `jwt` at the listener")
        });
    });
}

fn issuer<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<JwtIssuer> {
    let mut m = cx.fields(node, "jwt_issuer")?;
    let issuer = m.required("issuer", |cx, node| text(cx, node, "what tokens say in `iss`"));
    let trust = m.optional("jwks_trust", tls::file);
    let keys = m.required("jwks", |cx, node| keys(cx, node, trust.clone()));
    let there = match keys {
        Some(JwksSource::File(_)) => Some("a file needs nobody to vouch for it"),
        Some(JwksSource::Inline(_)) => Some("keys that are written here need nobody to vouch for them"),
        Some(JwksSource::Url { .. }) | None => None,
    };
    if let Some(there) = there {
        m.refuse("jwks_trust", || Fault::new(there).hint("remove it"));
    }
    let audiences = m.required("audiences", |cx, node| {
        let audiences = cx.one_or_more(node, "whom tokens are for, or a list of these", |cx, node| {
            text(cx, node, "whom tokens are for")
        })?;
        Some(Box::<[_]>::from(audiences))
    });
    let required = m.optional("required", Cx::boolean).unwrap_or(false);
    let words = JwtAlgorithm::ALL;
    let algorithms = m.optional("algorithms", |cx, node| {
        let list =
            cx.one_or_more(node, "an algorithm, or a list of these", |cx, node| cx.word(node, &words))?;
        Some(Box::<[_]>::from(list))
    });
    let leeway = m.optional("leeway", duration).unwrap_or(JwtIssuer::LEEWAY);
    let claims_to_headers = m.optional("claims_to_headers", |cx, node| {
        let mut seen = Vec::new();
        cx.entries(node, "header names by claim, as `{ sub: x-user }`", |cx, key, _, node| {
            let name = cx.string(node, "a header's name")?;
            let name = headers::name(cx, &name, node.place(), &mut seen)?;
            if of_one_hop(&name) || matches!(name.as_str(), "authorization" | "content-length") {
                let fault = Fault::new(format!("`{name}` means something to whoever gets the request"));
                return cx.fail(node, fault.hint("expected a name of its own, as `x-user`"));
            }
            Some((Box::<str>::from(key), name))
        })
    });
    m.finish();
    Some(JwtIssuer {
        issuer: issuer?,
        keys: keys?,
        audiences: audiences?,
        required,
        algorithms: algorithms.unwrap_or_else(|| words.map(|(_, algorithm)| algorithm).into()),
        leeway,
        claims_to_headers: claims_to_headers.unwrap_or_default().into(),
    })
}

fn text<'a>(cx: &mut Cx<'a>, node: Node<'a>, expected: &str) -> Option<Box<str>> {
    let text = cx.string(node, expected)?;
    if text.is_empty() {
        return cx.fail(node, Fault::new("this is empty").hint(format!("expected {expected}")));
    }
    Some((&*text).into())
}

/// A file, a URL, or the keys themselves; keys that come in the clear could be anybody's.
fn keys<'a>(cx: &mut Cx<'a>, node: Node<'a>, trust: Option<PathBuf>) -> Option<JwksSource> {
    let is_url = match node.view() {
        View::Plain(text) | View::Quoted(text) => text.contains("://"),
        View::Map => return inline(cx, node),
        View::List | View::Broken => false,
    };
    if !is_url {
        return tls::file(cx, node).map(JwksSource::File);
    }
    let expected = "an address, as `https://id.example.com/jwks.json`";
    let url = cx.parsed(node, expected, |text| {
        let fault = || {
            Fault::new(format!("{} is no address of keys", show(text))).hint(format!("expected {expected}"))
        };
        let uri: http::Uri = text.parse().map_err(|_| fault())?;
        match tls::is_private(&uri) {
            Some(true) => Ok(text.into()),
            Some(false) => Err(Fault::new("keys that come in the clear could be anybody's")
                .hint("write `https://`; `http://` is for this machine alone")),
            None => Err(fault()),
        }
    })?;
    Some(JwksSource::Url { url, trust })
}

fn inline<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<JwksSource> {
    let mut m = cx.fields(node, "jwks")?;
    let keys = m.required("inline", |cx, node| {
        let text = cx.string(node, "a set of keys, as `'{\"keys\": [...]}'`")?;
        InlineKeys::new(text).map_or_else(
            |error| cx.fail(node, Fault::new(format!("these keys cannot be used: {error}"))),
            Some,
        )
    });
    m.finish();
    keys.map(JwksSource::Inline)
}
