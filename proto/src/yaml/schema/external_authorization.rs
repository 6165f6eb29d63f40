//! A service that is asked whether requests are let in.

use serde_json::{Value, json};

use super::parts::{by_name, described, duration, object, one_of, reference, string, with_default, words};
use crate::model::ExternalAuthorization;

pub(super) fn of_listener() -> Value {
    let names = |description| described(description, json!({ "type": "array", "items": string() }));
    one_of(
        &["grpc", "http"],
        object(
            "A service that is asked whether requests are let in (Envoy's ext_authz).",
            &[],
            json!({
                "grpc": described("The service, asked by gRPC; a cluster of protocol: http2.", string()),
                "http": described("The service, asked by the request's own head.", string()),
                "context": context("What a service that is asked by gRPC is told beside the request."),
                "path_prefix": described("Before the request's path, where the service is asked by HTTP.", string()),
                "response_headers": names("Of a 200 of a service that is asked by HTTP: what the client's answer gets."),
                "show_headers": names("Header fields of the request that the service is shown; all by default."),
                "set_headers": names("Header fields of the request that are the service's to set, and not a client's."),
                "body": described("How much of a body it is shown; nothing by default.", reference("check_body")),
                "timeout": duration("For an answer.", ExternalAuthorization::TIMEOUT),
                "on_failure": words("What becomes of a request without an answer.", &["allow", "deny"], "deny"),
            }),
        ),
    )
}

pub(super) fn of_route() -> Value {
    json!({
        "description": "What the service that the listener asks is told too; or none: it is not asked.",
        "anyOf": [{ "const": "none" }, reference("variable"), reference("route_external_authorization")],
    })
}

pub(super) fn of_route_map() -> Value {
    object(
        "What the service that the listener asks is told too.",
        &["context"],
        json!({ "context": context("Texts by name; over those of the listener.") }),
    )
}

fn context(description: &str) -> Value {
    by_name(description, string())
}

pub(super) fn body() -> Value {
    object(
        "How much of a request's body a service is shown.",
        &["max"],
        json!({
            "max": described("Bytes, which are held until it has answered; up to 1MiB.", reference("size")),
            "partial": with_default(
                "Whether it is shown the beginning of a body that is larger; otherwise that is answered with 413.",
                json!({ "type": "boolean" }),
                false,
            ),
        }),
    )
}
