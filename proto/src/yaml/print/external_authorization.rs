//! A service that is asked whether requests are let in.

use std::collections::BTreeMap;

use http::HeaderName;

use super::super::scalar::{show_duration, show_size};
use super::global_rate_limit::on_failure;
use super::writer::{Out, key, list, text};
use crate::model::{CheckBody, CheckProtocol, CheckUse, ExternalAuthorization};

pub(super) fn of_listener(out: &mut Out, asked: &ExternalAuthorization) {
    let ExternalAuthorization {
        cluster,
        protocol,
        show_headers,
        set_headers,
        body,
        timeout,
        on_failure: failure,
    } = asked;
    out.block("external_authorization", |out| {
        match protocol {
            CheckProtocol::Grpc { context: said } => {
                out.field("grpc", text(cluster.as_str()));
                if !said.is_empty() {
                    context(out, said);
                }
            }
            CheckProtocol::Http { path_prefix, response_headers } => {
                out.field("http", text(cluster.as_str()));
                if !path_prefix.is_empty() {
                    out.field("path_prefix", text(path_prefix));
                }
                out.field("response_headers", names(response_headers));
            }
        }
        match show_headers {
            Some(shown) => out.field("show_headers", names(shown)),
            None => out.comment("show_headers: (default: all)"),
        }
        out.field("set_headers", names(set_headers));
        match body {
            Some(CheckBody { max, partial }) => out.block("body", |out| {
                out.field("max", show_size(u64::from(max.get())));
                out.field("partial", partial);
            }),
            None => out.comment("body: (default: not shown)"),
        }
        out.field("timeout", show_duration(*timeout));
        out.field("on_failure", on_failure(*failure));
    });
}

pub(super) fn of_route(out: &mut Out, said: &CheckUse) {
    match said {
        CheckUse::None => out.field("external_authorization", "none"),
        CheckUse::Context(said) => out.block("external_authorization", |out| context(out, said)),
    }
}

fn context(out: &mut Out, context: &BTreeMap<Box<str>, Box<str>>) {
    out.map("context", context.iter(), |out, (name, value)| out.field(&key(name), text(value)));
}

fn names(names: &[HeaderName]) -> String {
    list(names.iter().map(|name| text(name.as_str())))
}
