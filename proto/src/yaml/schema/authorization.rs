//! Who may do what.

use serde_json::{Value, json};

use super::parts::{
    described, object, one_of, one_or_list, one_or_some, reference, some, string, whole, with_default,
};

pub(super) fn authorization() -> Value {
    described(
        "Who may do what: deny before allow, and what no rule fits is refused.",
        some(reference("authorization_rule")),
    )
}

pub(super) fn rule() -> Value {
    let when = |description| described(description, reference("authorization_when"));
    one_of(
        &["allow", "deny", "audit"],
        object(
            "A rule.",
            &[],
            json!({
                "allow": when("Lets pass what it fits, unless a rule denies it."),
                "deny": when("Refuses what it fits."),
                "audit": when("Logs and counts what it fits."),
                "name": described("What it is called in logs.", string()),
                "dry_run": with_default("Decides nothing; what it would change is logged and counted.", json!({ "type": "boolean" }), false),
            }),
        ),
    )
}

pub(super) fn when() -> Value {
    let any = json!({ "type": "object", "minProperties": 1, "additionalProperties": one_or_list() });
    object(
        "What a rule is about: all that is written must fit, and of a list one.",
        &[],
        json!({
            "peers": described("SPIFFE IDs that clients have proven, or spiffe://domain/path/* for all below.", some(string())),
            "source": described("Networks that clients are in.", one_or_list()),
            "sni": described("Hosts named in the TLS handshake.", one_or_list()),
            "ports": described("Ports of ours.", one_or_some(whole(1, u16::MAX.into()))),
            "methods": described("Methods.", one_or_list()),
            "hosts": described("Hosts.", one_or_list()),
            "paths": described("Paths; /cart is that one, /cart/* those below.", one_or_some(json!({
                "anyOf": [string(), reference("path_match")],
            }))),
            "headers": described("Header fields, all of which must fit.", json!({
                "type": "object", "minProperties": 1, "additionalProperties": reference("string"),
            })),
            "claims": described("Claims of a checked token, all of which must fit.", any),
        }),
    )
}
