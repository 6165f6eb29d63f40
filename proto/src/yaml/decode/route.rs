//! A route: which requests, and what becomes of them.

use http::uri::{Authority, PathAndQuery, Uri};
use http::{HeaderValue, StatusCode};

use super::super::cursor::{Cx, Fields};
use super::super::fault::{Fault, show};
use super::super::lint;
use super::super::tree::Node;
use super::super::words;
use super::matches::{self, canonical_path};
use super::{external_authorization, global_rate_limit, hash, headers, policy, some_time, split};
use crate::model::{
    Action, Forward, JwtUse, Match, Name, PathMatch, PathRewrite, Redirect, Replace, ReplaceError, Respond,
    Rewrite, Route, RouteTable, drops,
};

/// The statuses that a redirect may have (RFC 9110 section 15.4).
pub(in super::super) const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// The statuses whose answer is over after its head (RFC 9110 sections 15.3.5, 15.3.6, 15.4.5).
const NO_BODY: [StatusCode; 3] =
    [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];

/// What makes sense only where a request is sent on.
const FORWARD_ONLY: [&str; 8] =
    ["timeout", "rewrite", "retry", "hedge", "priority", "mirror", "fallback", "hash"];

pub(super) fn table<'a>(cx: &mut Cx<'a>, _: &Name, node: Node<'a>) -> Option<RouteTable> {
    let routes = cx.list(node, "a list of routes", route)?;
    lint::unreachable(cx, node, &routes);
    Some(RouteTable { routes: routes.into(), on_demand: false })
}

fn route<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Route> {
    let mut m = cx.fields(node, "route")?;
    m.exactly_one(&["to", "redirect", "respond"]);
    let matched = m.optional("match", matches::matches);
    // Nothing is known about a match that is wrong: what depends on it is not complained of as well.
    let prefixed = match &matched {
        Some(matched) => matches!(matched.path, PathMatch::Prefix(_)),
        None => m.has("match"),
    };
    let forward = forward(&mut m, (prefixed, matched.as_ref()));
    let redirect = m.optional("redirect", redirect);
    let respond = m.optional("respond", respond);
    let uses = [("required", JwtUse::Required), ("optional", JwtUse::Optional), ("none", JwtUse::None)];
    let jwt = m.optional("jwt", |cx, node| cx.word(node, &uses));
    let external_authorization = m.optional("external_authorization", external_authorization::of_route);
    let rate_limit = m.optional("rate_limit", policy::rate_limit).map(Box::new);
    let global_rate_limit =
        m.optional("global_rate_limit", global_rate_limit::global_rate_limit).map(Box::new);
    let concurrency = m.optional("concurrency", policy::concurrency).map(Box::new);
    let fault = m.optional("fault", policy::fault).map(Box::new);
    let request_headers = m.optional("request_headers", headers::request_edits);
    let response_headers = m.optional("response_headers", headers::response_edits);
    if !m.has("to") && (m.has("redirect") || m.has("respond")) {
        for key in FORWARD_ONLY {
            m.refuse(key, || {
                Fault::new("nothing is sent on by this route").hint("expected only beside `to`")
            });
        }
    }
    m.finish();
    let action = match (forward, redirect, respond) {
        (Some(forward), _, _) => Action::Forward(forward),
        (None, Some(redirect), _) => Action::Redirect(redirect),
        (None, None, respond) => Action::Respond(respond?),
    };
    let route = Route {
        matches: matched.unwrap_or_default(),
        action,
        jwt,
        external_authorization,
        rate_limit,
        global_rate_limit,
        concurrency,
        fault,
        request_headers: request_headers.unwrap_or_default(),
        response_headers: response_headers.unwrap_or_default(),
    };
    lint::route(cx, node, &route);
    Some(route)
}

/// What a route does with the requests that it sends on.
fn forward(m: &mut Fields<'_, '_>, (prefixed, matched): (bool, Option<&Match>)) -> Option<Forward> {
    let to = m.optional("to", split::http);
    let timeout = m.optional("timeout", some_time);
    let rewrite = m.optional("rewrite", |cx, node| rewrite(cx, node, (prefixed, matched)));
    let retry = m.optional("retry", policy::retry).map(Box::new);
    let hedge = m.optional("hedge", policy::hedge);
    let priority = m.optional("priority", |cx, node| cx.word(node, &words::PRIORITIES));
    let mirror = m.optional("mirror", policy::mirror).map(Box::new);
    let fallback = m.optional("fallback", |cx, node| policy::fallback(cx, node, to.as_ref())).map(Box::new);
    let hash = m.optional("hash", hash::keys).unwrap_or_default();
    Some(Forward {
        to: to?,
        rewrite: rewrite.unwrap_or_default(),
        timeout,
        retry,
        hedge,
        priority: priority.unwrap_or_default(),
        mirror,
        fallback,
        hash,
    })
}

fn rewrite<'a>(
    cx: &mut Cx<'a>,
    node: Node<'a>,
    (prefixed, matched): (bool, Option<&Match>),
) -> Option<Rewrite> {
    let mut m = cx.fields(node, "rewrite")?;
    let several = ["path", "prefix", "regex"].into_iter().filter(|key| m.has(key)).count() > 1;
    if several {
        m.exactly_one(&["path", "prefix", "regex"]);
    }
    let path = m.optional("path", |cx, node| Some(PathRewrite::Whole(sendable_path(cx, node)?.into())));
    let prefix = m.optional("prefix", |cx, node| {
        let path = sendable_path(cx, node)?;
        if !prefixed {
            let fault = Fault::new("the route matches no prefix that could be replaced");
            return cx
                .fail(node, fault.hint("match `path: { prefix: ... }`, or write `path` for the whole path"));
        }
        Some(PathRewrite::Prefix(path.strip_suffix('/').unwrap_or(&path).into()))
    });
    let host = m.optional("host", |cx, node| {
        let text = cx.string(node, "a host, as `items.internal`")?;
        let authority =
            text.parse::<Authority>().ok().filter(|a| !a.as_str().contains('@') && !a.host().is_empty());
        let value = authority.and_then(|_| HeaderValue::from_str(&text).ok());
        let fault = || Fault::new(format!("{} is not a host", show(&text)));
        value.or_else(|| cx.fail(node, fault().hint("expected a name or an address, with or without a port")))
    });
    let found = m.optional("regex", |cx, node| found(cx, node, matched)).map(PathRewrite::Found);
    let path_is_wrong = m.has("regex") && found.is_none();
    m.finish();
    // The path would go as it came.
    if path_is_wrong {
        return None;
    }
    Some(Rewrite { path: path.or(prefix).or(found), host })
}

fn found<'a>(cx: &mut Cx<'a>, node: Node<'a>, matched: Option<&Match>) -> Option<Replace> {
    let mut m = cx.fields(node, "rewrite_regex")?;
    let pattern = m.required("pattern", matches::pattern);
    let with = m.required("with", |cx, node| cx.string(node, "what is put in its place, as `/\\1`"));
    m.finish();
    let (pattern, with) = (pattern?, with?);
    let replace = match Replace::new(pattern, &with) {
        Ok(replace) => replace,
        Err(error) => {
            let fault = Fault::new(error.to_string());
            let whole = error == ReplaceError::Whole;
            return cx.fail(node, if whole { fault.hint("write `path` for it") } else { fault });
        }
    };
    if let Some(PathMatch::Prefix(prefix)) = matched.map(|matched| &matched.path)
        && drops(prefix, replace.pattern().as_str(), &replace.with())
    {
        let fault = Fault::new("this drops the prefix that matched");
        return cx.fail(node, fault.hint("write `prefix: /` for it"));
    }
    Some(replace)
}

/// A path that a request can be sent with.
pub(super) fn sendable_path<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<String> {
    let path = canonical_path(cx, node)?;
    match path.parse::<PathAndQuery>() {
        Ok(_) => Some(path),
        Err(_) => {
            let fault = Fault::new(format!("{} holds a character that a request cannot", show(&path)));
            cx.fail(node, fault.hint("write it percent-encoded, as `%3C`"))
        }
    }
}

fn redirect<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Redirect> {
    let mut m = cx.fields(node, "redirect")?;
    let to = m.required("to", location);
    let status = m.optional("status", |cx, node| {
        let status = cx.whole(node, 100, 599)?;
        if let Some(known) = REDIRECTS.iter().find(|known| u64::from(**known) == status) {
            return StatusCode::from_u16(*known).ok();
        }
        let fault = Fault::new(format!("`{status}` is not the status of a redirect"));
        cx.fail(node, fault.hint("expected 301, 302, 303, 307 or 308"))
    });
    m.finish();
    Some(Redirect { to: to?, status: status.unwrap_or(StatusCode::FOUND) })
}

fn location<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<HeaderValue> {
    let expected = "an absolute URL, as `https://example.com/new`, or an absolute path, as `/new`";
    let text = cx.string(node, expected)?;
    let url = text.starts_with("http://") || text.starts_with("https://");
    // A browser takes `//host` for another host: whoever means that writes the scheme.
    let path = text.starts_with('/') && !text.starts_with("//");
    let value =
        text.parse::<Uri>().ok().filter(|_| url || path).and_then(|_| HeaderValue::from_str(&text).ok());
    let fault = || Fault::new(format!("{} cannot be redirected to", show(&text)));
    value.or_else(|| cx.fail(node, fault().hint(format!("expected {expected}"))))
}

pub(super) fn respond<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Respond> {
    let mut m = cx.fields(node, "respond")?;
    let status = m.optional("status", |cx, node| {
        StatusCode::from_u16(u16::try_from(cx.whole(node, 200, 599)?).ok()?).ok()
    });
    let status = status.unwrap_or(StatusCode::OK);
    let body = m.optional("body", |cx, node| {
        let text = cx.string(node, "a text")?;
        if !text.is_empty() && NO_BODY.contains(&status) {
            let fault = Fault::new(format!("an answer of status {} has no body", status.as_u16()));
            return cx.fail(node, fault.hint("leave `body` out, or write another status"));
        }
        Some(text.into())
    });
    m.finish();
    Some(Respond { status, body: body.unwrap_or_default() })
}
