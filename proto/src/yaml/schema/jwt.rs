//! Tokens.

use serde_json::{Value, json};

use super::parts::{
    described, duration, object, one_or_list, one_or_some, reference, some, string, with_default, words,
};
use crate::model::{JwtAlgorithm, JwtIssuer};

pub(super) fn issuers() -> Value {
    described("Whose tokens (JWT) requests may carry.", some(reference("jwt_issuer")))
}

pub(super) fn of_route() -> Value {
    words(
        "Whether a request needs a token; by default what the listener says.",
        &["required", "optional", "none"],
        "optional",
    )
}

pub(super) fn keys() -> Value {
    object(
        "Keys that are written down here.",
        &["inline"],
        json!({
            "inline": described("A JSON object with keys (RFC 7517); none may be there that cannot be used.", string()),
        }),
    )
}

pub(super) fn issuer() -> Value {
    let names: Vec<_> = JwtAlgorithm::ALL.iter().map(|(name, _)| *name).collect();
    object(
        "Somebody who signs tokens.",
        &["issuer", "jwks", "audiences"],
        json!({
            "issuer": described("What tokens say in iss.", string()),
            "jwks": described("File of the keys, their https:// address, or the keys themselves.", json!({
                "anyOf": [string(), reference("jwks")],
            })),
            "jwks_trust": described("PEM file of the roots that the server of the keys is checked against.", string()),
            "audiences": described("Whom tokens are for.", one_or_list()),
            "required": with_default("Whether every request must have a good token.", json!({ "type": "boolean" }), false),
            "algorithms": described(
                "How they may be signed; by default all of these.",
                one_or_some(json!({ "enum": names })),
            ),
            "leeway": duration("How far its clock may be from ours.", JwtIssuer::LEEWAY),
            "claims_to_headers": described("Header fields by the claim that is passed on in them.", json!({
                "type": "object", "additionalProperties": string(),
            })),
        }),
    )
}
