//! Words that stand for codes: the gRPC statuses, and what makes a request worth another attempt.

use http::StatusCode;

use super::fault::{Fault, nearest, show};
use super::scalar::whole;
use crate::model::{Priority, RetryCondition};

/// The statuses 1 to 16 of gRPC (its `statuscodes.md`) in small letters.
pub(super) const GRPC: [&str; 16] = [
    "cancelled",
    "unknown",
    "invalid-argument",
    "deadline-exceeded",
    "not-found",
    "already-exists",
    "permission-denied",
    "resource-exhausted",
    "failed-precondition",
    "aborted",
    "out-of-range",
    "unimplemented",
    "internal",
    "unavailable",
    "data-loss",
    "unauthenticated",
];

/// The classes of requests.
pub(super) const PRIORITIES: [(&str, Priority); 2] =
    [("default", Priority::Default), ("high", Priority::High)];

/// A class, as it is written.
pub(super) fn show_priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Default => "default",
        Priority::High => "high",
    }
}

/// The conditions that have a word of their own.
const CONDITIONS: [(&str, RetryCondition); 6] = [
    ("connect-failure", RetryCondition::ConnectFailure),
    ("reset", RetryCondition::Reset),
    ("refused-stream", RetryCondition::RefusedStream),
    ("5xx", RetryCondition::ServerError),
    ("gateway-error", RetryCondition::GatewayError),
    ("retriable-4xx", RetryCondition::Retriable4xx),
];

/// Every word that [`condition`] takes.
pub(super) fn conditions() -> impl Iterator<Item = String> {
    let own = CONDITIONS.iter().map(|(word, _)| (*word).to_owned());
    own.chain(GRPC.iter().map(|name| format!("grpc-{name}")))
}

/// Reads a retry condition: a status, a word, or `grpc-` and the name of a gRPC status.
pub(super) fn condition(text: &str) -> Result<RetryCondition, Fault> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let status = whole(text)?;
        let status = u16::try_from(status).ok().filter(|status| (100..600).contains(status));
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        return status.map(RetryCondition::Status).ok_or_else(|| {
            Fault::new(format!("{} is out of range", show(text))).hint("expected a status from 100 to 599")
        });
    }
    if let Some((_, condition)) = CONDITIONS.iter().find(|(word, _)| *word == text) {
        return Ok(*condition);
    }
    let after = text.strip_prefix("grpc-");
    if let Some(code) = after.and_then(named) {
        return Ok(RetryCondition::Grpc(code));
    }
    let words: Vec<_> = conditions().collect();
    // Whoever writes a number means the status of that number.
    let numbered = after.and_then(numbered).map(|code| format!("grpc-{}", show_grpc(code)));
    let near = numbered.or_else(|| nearest(text, words.iter().map(String::as_str)).map(str::to_owned));
    let own: Vec<_> = CONDITIONS.iter().map(|(word, _)| format!("`{word}`")).collect();
    Err(Fault::new(format!("{} is not known here", show(text))).hint(match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            format!(
                "expected a status, as `503`, {}, or a gRPC status, as `grpc-unavailable`",
                own.join(", ")
            )
        }
    }))
}

/// A condition as it is read.
pub(super) fn show_condition(condition: RetryCondition) -> String {
    match condition {
        RetryCondition::Status(status) => status.as_u16().to_string(),
        RetryCondition::Grpc(code) => format!("grpc-{}", show_grpc(code)),
        RetryCondition::ConnectFailure
        | RetryCondition::Reset
        | RetryCondition::RefusedStream
        | RetryCondition::ServerError
        | RetryCondition::GatewayError
        | RetryCondition::Retriable4xx => {
            let found = CONDITIONS.iter().find(|(_, named)| *named == condition);
            found.expect("the table holds every other condition").0.to_owned()
        }
    }
}

/// Reads a gRPC status that is an error: a name, or a number from 1 to 16.
pub(super) fn grpc(text: &str) -> Result<u8, Fault> {
    if let Some(code) = named(text).or_else(|| numbered(text)) {
        return Ok(code);
    }
    let fault = Fault::new(format!("{} is not a gRPC status of an error", show(text)));
    Err(fault.hint(match nearest(text, GRPC.into_iter()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "expected a name, as `unavailable`, or a number from 1 to 16".to_owned(),
    }))
}

/// The name of a gRPC status from 1 to 16; what is none is unknown.
pub(super) fn show_grpc(code: u8) -> &'static str {
    let at = usize::from(code).checked_sub(1);
    at.and_then(|at| GRPC.get(at)).copied().unwrap_or("unknown")
}

fn named(name: &str) -> Option<u8> {
    let at = GRPC.iter().position(|known| *known == name)?;
    u8::try_from(at + 1).ok()
}

fn numbered(text: &str) -> Option<u8> {
    whole(text).ok().and_then(|n| u8::try_from(n).ok()).filter(|n| (1..=16).contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_reads_back() {
        for word in conditions().chain(["100", "503", "599"].map(str::to_owned)) {
            assert_eq!(show_condition(condition(&word).unwrap()), word);
        }
        assert_eq!(condition("grpc-cancelled"), Ok(RetryCondition::Grpc(1)));
        assert_eq!(condition("grpc-unauthenticated"), Ok(RetryCondition::Grpc(16)));
    }

    #[track_caller]
    fn check(text: &str, hint: &str) {
        assert_eq!(condition(text).unwrap_err().hint.as_deref(), Some(hint), "{text}");
    }

    #[test]
    fn a_wrong_condition_says_what_was_meant() {
        check("600", "expected a status from 100 to 599");
        check("grpc-14", "did you mean `grpc-unavailable`?");
        check("grpc-canceled", "did you mean `grpc-cancelled`?");
        check("GRPC-DEADLINE_EXCEEDED", "did you mean `grpc-deadline-exceeded`?");
        check("connection-failure", "did you mean `connect-failure`?");
        check("5XX", "did you mean `5xx`?");
        check(
            "timeouts",
            "expected a status, as `503`, `connect-failure`, `reset`, `refused-stream`, `5xx`, `gateway-error`, \
             `retriable-4xx`, or a gRPC status, as `grpc-unavailable`",
        );
    }

    #[test]
    fn grpc_statuses() {
        for (text, code) in [("unavailable", 14), ("14", 14), ("1", 1), ("unauthenticated", 16)] {
            assert_eq!(grpc(text), Ok(code), "{text}");
        }
        for (text, hint) in [
            ("UNAVAILABLE", "did you mean `unavailable`?"),
            ("0", "expected a name, as `unavailable`, or a number from 1 to 16"),
            ("17", "expected a name, as `unavailable`, or a number from 1 to 16"),
            ("ok", "expected a name, as `unavailable`, or a number from 1 to 16"),
        ] {
            assert_eq!(grpc(text).unwrap_err().hint.as_deref(), Some(hint), "{text}");
        }
    }
}
