//! Tokens.

use super::super::scalar::show_duration;
use super::path;
use super::writer::{Out, key, list, text};
use crate::model::{JwksSource, JwtIssuer};

pub(super) fn issuers(out: &mut Out, issuers: &[JwtIssuer]) {
    out.list("jwt", issuers.iter(), |out, issuer| {
        let JwtIssuer { issuer, keys, audiences, required, algorithms, leeway, claims_to_headers } = issuer;
        out.field("issuer", text(issuer));
        match keys {
            JwksSource::Inline(keys) => out.field("jwks", format!("{{ inline: {} }}", text(keys.text()))),
            JwksSource::File(file) => out.field("jwks", path(file, "")),
            JwksSource::Url { url, trust } => {
                out.field("jwks", text(url));
                if let Some(trust) = trust {
                    out.field("jwks_trust", path(trust, ""));
                }
            }
        }
        out.field("audiences", list(audiences.iter().map(|audience| text(audience))));
        out.field("required", required);
        out.field("algorithms", list(algorithms.iter().map(|algorithm| algorithm.name().to_owned())));
        out.field("leeway", show_duration(*leeway));
        if !claims_to_headers.is_empty() {
            out.map("claims_to_headers", claims_to_headers.iter(), |out, (claim, name)| {
                out.field(&key(claim), text(name.as_str()));
            });
        }
    });
}
