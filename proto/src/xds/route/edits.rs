//! Changes to header fields, on all levels on which they may be written.

use ::http::{HeaderName, HeaderValue};

use super::super::cx::Cx;
use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use crate::model::{HeaderEdits, Target};

/// As they are written: what is added or set, and what is removed.
pub(super) type Written = (Vec<core::HeaderValueOption>, Vec<String>);

/// What is changed in requests, and in answers.
#[derive(PartialEq, Clone, Default)]
pub(super) struct Both {
    pub(super) request: HeaderEdits,
    pub(super) response: HeaderEdits,
}

pub(super) fn both(cx: &mut Cx, request: Written, response: Written) -> Option<Both> {
    let request = edits(cx, "request_headers", request);
    let response = edits(cx, "response_headers", response);
    Some(Both { request: request?, response: response? })
}

/// Changes of the levels around a route, the innermost first, and whether that one has the last word.
pub(super) struct Levels {
    pub(super) host: Both,
    pub(super) table: Both,
    pub(super) innermost_wins: bool,
}

impl Levels {
    /// All that is changed by a route, with what it says itself. Of its shares, theirs comes after the route's own in
    /// requests and before it in answers: where that would be another order than is meant, each share says all.
    pub(super) fn merge(&self, route: &Both, mut shares: Vec<(&mut Target, Both)>) -> Both {
        let Self { host, table, innermost_wins } = self;
        let around = [route, host, table];
        let mut all = Both::default();
        for level in around {
            let (first, second) = if *innermost_wins { (level, &all) } else { (&all, level) };
            all = Both {
                request: then(&first.request, &second.request),
                response: then(&first.response, &second.response),
            };
        }
        let apart = |of: fn(&Both) -> &HeaderEdits, all: &Both| {
            shares.iter().any(|(_, share)| touch_alike(of(share), of(all)))
        };
        let requests_apart = !innermost_wins && apart(|both| &both.request, &all);
        let responses_apart = *innermost_wins && apart(|both| &both.response, &all);
        for (target, share) in &mut shares {
            target.request_headers =
                if requests_apart { then(&share.request, &all.request) } else { share.request.clone() };
            target.response_headers =
                if responses_apart { then(&all.response, &share.response) } else { share.response.clone() };
        }
        if requests_apart {
            all.request = HeaderEdits::default();
        }
        if responses_apart {
            all.response = HeaderEdits::default();
        }
        all
    }
}

/// One change that does what two do, one after the other.
pub(in super::super) fn then(first: &HeaderEdits, second: &HeaderEdits) -> HeaderEdits {
    let gone =
        |name: &HeaderName| second.remove.contains(name) || second.set.iter().any(|(set, _)| set == name);
    let stays = |(name, _): &&(HeaderName, HeaderValue)| !gone(name);
    let HeaderEdits { remove, set, add } = first;
    let mut remove = remove.clone();
    remove.extend(second.remove.iter().filter(|name| !first.remove.contains(name)).cloned());
    HeaderEdits {
        remove,
        set: set.iter().filter(stays).chain(&second.set).cloned().collect(),
        add: add.iter().filter(stays).chain(&second.add).cloned().collect(),
    }
}

/// Whether it matters which of two changes comes first.
pub(in super::super) fn touch_alike(one: &HeaderEdits, other: &HeaderEdits) -> bool {
    let names = |edits: &HeaderEdits| {
        let HeaderEdits { remove, set, add } = edits;
        let valued = set.iter().chain(add).map(|(name, _)| name.clone());
        remove.iter().cloned().chain(valued).collect::<Vec<_>>()
    };
    let of_other = names(other);
    names(one).iter().any(|name| of_other.contains(name))
}

fn edits(cx: &mut Cx, field: &str, (add, remove): Written) -> Option<HeaderEdits> {
    let name = |cx: &mut Cx, field: &str, name: &str| match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) if !frames(&name) => Some(name),
        Ok(_) | Err(_) => cx.fail(field, format!("`{name}` cannot be changed")),
    };
    let remove = cx.each(&format!("{field}_to_remove"), remove, |cx, text| name(cx, "", &text));
    let mut edits = HeaderEdits::default();
    let added = cx.each(&format!("{field}_to_add"), add, |cx, option| {
        let core::HeaderValueOption { header, append, append_action, keep_empty_value } = option;
        let core::HeaderValue { key, value } = cx.required("header", header)?;
        let key = name(cx, "header.key", &key)?;
        let value = value_of(cx, &value)?;
        let action = HeaderAppendAction::try_from(append_action).unwrap_or_default();
        // What is empty is not written at all, unless that is asked for.
        let is_written = keep_empty_value || !value.is_empty();
        match (append, action) {
            (Some(true), _) | (None, HeaderAppendAction::AppendIfExistsOrAdd) => {
                edits.add.extend(is_written.then_some((key, value)));
            }
            (Some(false), _) | (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => {
                edits.set.extend(is_written.then_some((key, value)));
            }
            (None, HeaderAppendAction::AddIfAbsent | HeaderAppendAction::OverwriteIfExists) => {
                return cx.fail("append_action", format!("{} is not supported", action.as_str_name()));
            }
        }
        Some(())
    });
    added?;
    edits.remove = remove?;
    Some(edits)
}

/// A value, in which `%` begins a variable unless it is written twice.
fn value_of(cx: &mut Cx, text: &str) -> Option<HeaderValue> {
    let mut parts = text.split("%%");
    if parts.any(|part| part.contains('%')) {
        return cx.fail(
            "header.value",
            "`%` begins a variable there, and none is supported: write `%%` for the character",
        );
    }
    match HeaderValue::from_bytes(text.replace("%%", "%").as_bytes()) {
        Ok(value) => Some(value),
        Err(_) => cx.fail("header.value", "this is not the value of a header"),
    }
}

/// What is ours to write for each connection.
fn frames(name: &HeaderName) -> bool {
    const NAMES: [&str; 9] = [
        "host",
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.contains(&name.as_str())
}
