//! Names and values of header fields, and changes to them (RFC 9110 section 5).

use http::{HeaderName, HeaderValue};

use super::super::cursor::Cx;
use super::super::fault::{Fault, show};
use super::super::tree::Node;
use crate::error::Place;
use crate::model::HeaderEdits;

/// Fields that frame a message or belong to one connection (RFC 9110 section 7.6.1): ours to write, nobody else's.
const OURS: [HeaderName; 8] = [
    http::header::CONNECTION,
    http::header::TRANSFER_ENCODING,
    http::header::CONTENT_LENGTH,
    http::header::TE,
    http::header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    http::header::TRAILER,
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

pub(super) fn request_edits<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<HeaderEdits> {
    edits(cx, node, Side::Request)
}

pub(super) fn response_edits<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<HeaderEdits> {
    edits(cx, node, Side::Response)
}

fn edits<'a>(cx: &mut Cx<'a>, node: Node<'a>, side: Side) -> Option<HeaderEdits> {
    let mut m = cx.fields(node, "header_edits")?;
    let set = m.optional("set", |cx, node| {
        let mut seen = Vec::new();
        cx.entries(node, "values by header name, as `{ x-from: edge }`", |cx, key, place, node| {
            let name = editable(cx, key, place, side, &mut seen);
            let value = value(cx, node);
            Some((name?, value?))
        })
    });
    let add = m.optional("add", |cx, node| {
        let mut seen = Vec::new();
        cx.entries(node, "values by header name, as `{ via: edge }`", |cx, key, place, node| {
            let name = editable(cx, key, place, side, &mut seen);
            let values = cx.one_or_more(node, "a value, or a list of values", value)?;
            let name = name?;
            Some(values.into_iter().map(move |value| (name.clone(), value)))
        })
    });
    let remove = m.optional("remove", |cx, node| {
        let mut seen = Vec::new();
        cx.list(node, "a list of header names, as `[server]`", |cx, node| {
            let text = cx.string(node, "a header name")?;
            editable(cx, &text, node.place(), side, &mut seen)
        })
    });
    m.finish();
    Some(HeaderEdits {
        remove: remove.unwrap_or_default(),
        set: set.unwrap_or_default(),
        add: add.unwrap_or_default().into_iter().flatten().collect(),
    })
}

/// A name that an edit may touch, once.
fn editable(
    cx: &mut Cx<'_>,
    text: &str,
    place: Place,
    side: Side,
    seen: &mut Vec<HeaderName>,
) -> Option<HeaderName> {
    let name = name(cx, text, place, seen)?;
    if OURS.contains(&name) {
        let fault = Fault::new(format!("`{name}` frames the message or belongs to one connection"));
        return cx.fail_at(place, fault.hint("it is written for each connection anew: leave it out"));
    }
    if side == Side::Request && name == http::header::HOST {
        let fault = Fault::new("the host is not changed as a header field");
        return cx.fail_at(place, fault.hint("use `rewrite: { host: ... }`"));
    }
    Some(name)
}

/// A name that was not there before.
pub(super) fn name(
    cx: &mut Cx<'_>,
    text: &str,
    place: Place,
    seen: &mut Vec<HeaderName>,
) -> Option<HeaderName> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        let fault = Fault::new(format!("{} is not a header name", show(text)));
        return cx.fail_at(place, fault.hint("expected letters, digits and `-`"));
    };
    if seen.contains(&name) {
        let fault = Fault::new(format!("`{name}` is written twice"));
        return cx.fail_at(place, fault.hint("letter case makes no difference in header names"));
    }
    seen.push(name.clone());
    Some(name)
}

fn value<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<HeaderValue> {
    let text = cx.string(node, "a header value")?;
    if text.trim_matches([' ', '\t']) != text {
        let fault = Fault::new(format!("{} begins or ends with white space", show(&text)));
        return cx.fail(node, fault.hint("it would be lost on the way: leave it out"));
    }
    match HeaderValue::from_bytes(text.as_bytes()) {
        Ok(value) => Some(value),
        Err(_) => cx.fail(node, Fault::new(format!("{} holds a control character", show(&text)))),
    }
}
