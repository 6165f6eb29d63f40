//! Identity, and TLS of both sides.

use serde_json::{Value, json};

use super::parts::{
    by_name, described, duration, object, one_of, reference, some, string, with_default, words,
};
use crate::model::Csr;

fn file(description: &str) -> Value {
    described(&format!("{description}; relative to this file."), string())
}

pub(super) fn identity() -> Value {
    one_of(
        &["files", "workload_api", "csr"],
        object(
            "Who this proxy is; what mtls uses.",
            &[],
            json!({
                "files": reference("identity_files"),
                "workload_api": described("The SPIFFE Workload API's socket, as unix:/path.", reference("address")),
                "csr": reference("csr"),
                "revocation": reference("revocation"),
            }),
        ),
    )
}

pub(super) fn identity_files() -> Value {
    object(
        "An identity in files, which are read again when they change.",
        &["certificate", "private_key", "trust"],
        json!({
            "certificate": file("PEM file of the chain, leaf first"),
            "private_key": file("PEM file of the leaf's private key"),
            "trust": by_name("PEM files of roots, by trust domain.", string()),
        }),
    )
}

pub(super) fn csr() -> Value {
    object(
        "An identity that a signing service gives, for a key that stays here.",
        &["server"],
        json!({
            "server": described("https://host:port.", string()),
            "trust": file("PEM file of the roots that the service's certificate is checked against, by default the system's"),
            "token": file("File of the token that says who asks; read anew each time"),
            "lifetime": duration("How long a certificate should live.", Csr::LIFETIME),
        }),
    )
}

pub(super) fn revocation() -> Value {
    object(
        "Which certificates are no longer good.",
        &["crls"],
        json!({
            "crls": described("PEM files of revocation lists.", some(string())),
            "unknown": words("What becomes of a certificate whose issuer has no list.", &["deny", "allow"], "deny"),
        }),
    )
}

pub(super) fn mtls() -> Value {
    words(
        "TLS with the proxy's identity, asking the client for its own; permissive serves who speaks in the clear too.",
        &["strict", "permissive", "none"],
        "none",
    )
}

pub(super) fn tls() -> Value {
    let certificate = file("PEM file of the chain, leaf first");
    one_of(
        &["certificate", "certificates"],
        object(
            "TLS towards the client.",
            &[],
            json!({
                "certificate": certificate,
                "private_key": file("PEM file of the leaf's private key"),
                "certificates": described(
                    "Several; a client gets the one for the host that it names, or the first.",
                    some(reference("certificate")),
                ),
                "client": words("Whether clients need a certificate.", &["none", "optional", "required"], "none"),
                "client_trust": file("PEM file of the roots that clients' certificates are checked against"),
                "revocation": reference("revocation"),
            }),
        ),
    )
}

pub(super) fn certificate() -> Value {
    object(
        "A certificate and its key.",
        &["certificate", "private_key"],
        json!({
            "certificate": file("PEM file of the chain, leaf first"),
            "private_key": file("PEM file of the leaf's private key"),
        }),
    )
}

pub(super) fn cluster_mtls() -> Value {
    object(
        "TLS towards endpoints that have a SPIFFE ID, with the proxy's identity.",
        &["peers"],
        json!({
            "peers": described("Who may answer: SPIFFE IDs, or spiffe://domain/path/* for all below.", some(string())),
            "sni": described("The host to name; none by default.", string()),
        }),
    )
}

pub(super) fn cluster_tls() -> Value {
    object(
        "TLS towards endpoints outside of the mesh.",
        &[],
        json!({
            "trust": with_default("Who vouches for them: system, or a PEM file of roots.", string(), "system"),
            "sni": described("The host to name; by default the one of dns.", string()),
            "sans": described("Of these names the certificate must have one; by default the host of sni.", some(string())),
            "certificate": file("PEM file of the chain that we show when asked, leaf first"),
            "private_key": file("PEM file of its leaf's private key"),
            "revocation": reference("revocation"),
        }),
    )
}
