//! A service that is asked whether requests are let in: `external_authorization` of a listener, and of a route.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use http::HeaderName;

use super::super::cursor::{Cx, Fields};
use super::super::fault::{Fault, show};
use super::super::place::Step;
use super::super::scalar;
use super::super::tree::{Node, View};
use super::authorization::of_one_hop;
use super::global_rate_limit::{ON_FAILURE, refuse_http1};
use super::{each_http_chain, headers, refuse_route, route, some_time, split};
use crate::model::{CheckBody, CheckProtocol, CheckUse, ExternalAuthorization, Mesh, OnFailure, Route};

pub(super) fn of_listener<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Box<ExternalAuthorization>> {
    let mut m = cx.fields(node, "external_authorization")?;
    m.exactly_one(&["grpc", "http"]);
    let by_http = m.has("http");
    let grpc = m.optional("grpc", split::service);
    let http = m.optional("http", split::service);
    let protocol = protocol(&mut m, by_http);
    let show_headers = m.optional("show_headers", |cx, node| names(cx, node, "authorization", of_one_hop));
    let set_headers = m.optional("set_headers", |cx, node| names(cx, node, "x-user", frames));
    let body = m.optional("body", body);
    let timeout = m.optional("timeout", some_time).unwrap_or(ExternalAuthorization::TIMEOUT);
    let on_failure = m.optional("on_failure", |cx, node| cx.word(node, &ON_FAILURE));
    m.finish();
    Some(Box::new(ExternalAuthorization {
        cluster: grpc.or(http)?,
        protocol,
        show_headers,
        set_headers: set_headers.unwrap_or_default(),
        body,
        timeout,
        on_failure: on_failure.unwrap_or(OnFailure::Deny),
    }))
}

/// What only one of the two protocols has.
fn protocol(m: &mut Fields<'_, '_>, by_http: bool) -> CheckProtocol {
    let only = |other| {
        move || {
            Fault::new(format!("this is for a service that is asked by `{other}`")).hint("leave the key out")
        }
    };
    if by_http {
        m.refuse("context", only("grpc"));
    } else if m.has("grpc") {
        ["path_prefix", "response_headers"].into_iter().for_each(|key| m.refuse(key, only("http")));
    }
    let context = m.optional("context", context);
    let path_prefix = m.optional("path_prefix", |cx, node| {
        let path = route::sendable_path(cx, node)?;
        // The request's own path follows, and begins with one.
        Some(Box::from(path.strip_suffix('/').unwrap_or(&path)))
    });
    let response_headers = m.optional("response_headers", |cx, node| names(cx, node, "set-cookie", frames));
    if by_http {
        CheckProtocol::Http {
            path_prefix: path_prefix.unwrap_or_default(),
            response_headers: response_headers.unwrap_or_default(),
        }
    } else {
        CheckProtocol::Grpc { context: context.unwrap_or_default() }
    }
}

pub(super) fn of_route<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Box<CheckUse>> {
    if !matches!(node.view(), View::Map) {
        let expected = "`none`, or a mapping, as `{ context: { tier: gold } }`";
        return cx
            .parsed(node, expected, |text| match text {
                "none" => Ok(CheckUse::None),
                _ => Err(Fault::new(format!("{} does not say how to ask", show(text)))
                    .hint(format!("expected {expected}"))),
            })
            .map(Box::new);
    }
    let mut m = cx.fields(node, "route_external_authorization")?;
    let context = m.required("context", context);
    m.finish();
    Some(Box::new(CheckUse::Context(context?)))
}

fn context<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<BTreeMap<Box<str>, Box<str>>> {
    let texts = cx.entries(node, "texts by name, as `{ tier: gold }`", |cx, key, _, node| {
        Some((Box::from(key), Box::from(&*cx.string(node, "a text")?)))
    })?;
    Some(texts.into_iter().collect())
}

/// Names of header fields, each once, of which some make no sense here.
fn names<'a>(
    cx: &mut Cx<'a>,
    node: Node<'a>,
    example: &str,
    senseless: impl Fn(&HeaderName) -> bool,
) -> Option<Box<[HeaderName]>> {
    let mut seen = Vec::new();
    let expected = format!("a list of header names, as `[{example}]`");
    let names = cx.list(node, &expected, |cx, node| {
        let text = cx.string(node, "a header name")?;
        let name = headers::name(cx, &text, node.place(), &mut seen)?;
        if senseless(&name) {
            let fault = match &name {
                name if name == http::header::HOST => {
                    Fault::new("a service is told the host, and keeps it as it is")
                }
                name => Fault::new(format!("`{name}` frames a message, or belongs to one connection")),
            };
            return cx.fail(node, fault.hint("leave it out"));
        }
        Some(name)
    })?;
    Some(names.into())
}

/// What no service may say for us.
fn frames(name: &HeaderName) -> bool {
    of_one_hop(name) || name == http::header::CONTENT_LENGTH
}

fn body<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<CheckBody> {
    let mut m = cx.fields(node, "check_body")?;
    let max = m.required("max", |cx, node| {
        cx.parsed(node, "a size, as `8KiB`", |text| {
            let size = u32::try_from(scalar::size(text)?).ok().and_then(NonZeroU32::new);
            size.filter(|size| size.get() <= CheckBody::MOST).ok_or_else(|| {
                Fault::new(format!("{} is out of range", show(text))).hint("expected `1B` to `1MiB`")
            })
        })
    });
    let partial = m.optional("partial", Cx::boolean).unwrap_or(false);
    m.finish();
    Some(CheckBody { max: max?, partial })
}

/// Refuses services that would not be asked in the protocol that gRPC needs, and routes that speak to a service that
/// their listener does not ask by it. Of clusters and tables that are read last.
pub(super) fn refuse_unasked<'a>(cx: &mut Cx<'a>, root: Node<'a>, mesh: &Mesh) {
    each_http_chain(cx, root, mesh, |cx, node, http| {
        let asked = http.external_authorization.as_deref();
        let by_grpc = asked.filter(|asked| matches!(asked.protocol, CheckProtocol::Grpc { .. }));
        let written = node.get("external_authorization").and_then(|asked| asked.value.get("grpc"));
        if let (Some(asked), Some(written)) = (by_grpc, written) {
            let steps = [Step::Key("external_authorization"), Step::Key("grpc")];
            cx.within_all(&steps, |cx| refuse_http1(cx, written.value, &asked.cluster, mesh));
        }
        if by_grpc.is_some() {
            return;
        }
        let says =
            |route: &Route| matches!(route.external_authorization.as_deref(), Some(CheckUse::Context(_)));
        refuse_route(cx, node, (mesh, http), says, |place| {
            Fault::new(format!("routes[{place}] has a context, and no service is told it here"))
                .hint("write `external_authorization: { grpc: ... }` at the listener")
        });
    });
}
