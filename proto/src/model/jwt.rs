//! Who a request says it comes from, by a token that somebody has signed (RFC 7519).

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use super::InlineKeys;

/// Whose tokens are good, by listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtIssuer {
    /// What its tokens say in `iss`, exactly.
    pub issuer: Box<str>,
    /// Where its keys are.
    pub keys: JwksSource,
    /// At least one: of these a token must be for one.
    pub audiences: Box<[Box<str>]>,
    /// Whether every request of the listener must have a good token, of this issuer or another of the listener's.
    pub required: bool,
    /// How its tokens may be signed.
    pub algorithms: Box<[JwtAlgorithm]>,
    /// How far its clock may be from ours.
    pub leeway: Duration,
    /// Which claims are passed on, and as what. From clients these fields are never taken.
    pub claims_to_headers: Box<[(Box<str>, HeaderName)]>,
}

impl JwtIssuer {
    /// How far clocks may be apart by default.
    pub const LEEWAY: Duration = Duration::from_secs(60);
}

/// Where keys are (RFC 7517 section 5).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JwksSource {
    /// They stand in the configuration.
    Inline(InlineKeys),
    /// A file, read again when it changes.
    File(PathBuf),
    /// An address, asked again and again.
    Url {
        /// `https://...`, or `http://` on loopback.
        url: Box<str>,
        /// PEM file of the roots that the server is checked against; the system's by default.
        trust: Option<PathBuf>,
    },
}

/// How a token is signed (RFC 7518 section 3.1, RFC 8037 section 3.1). Nothing that needs a shared secret, and not
/// `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "they are called what the standards call them")]
pub enum JwtAlgorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl JwtAlgorithm {
    /// All there are, with their names.
    pub const ALL: [(&'static str, Self); 9] = [
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
    ];

    /// The one of this name; letters count.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, algorithm)| *algorithm == self).map_or("", |(name, _)| name)
    }
}

/// What a route asks of tokens, beside what its listener asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtUse {
    /// There must be one that is good.
    Required,
    /// There may be none; one that is not good is refused.
    Optional,
    /// Nobody looks.
    None,
}
