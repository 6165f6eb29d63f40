//! Names of workloads, by the grammar of the SPIFFE ID specification (sections 2.1 to 2.3), and patterns over them.
//!
//! Strict on purpose: what two readers could understand differently (capitals in a trust domain, percent-encoding, an
//! empty segment) is no name at all.

use std::borrow::Borrow;
use std::fmt;

/// What a name begins with.
const SCHEME: &str = "spiffe://";

/// Bytes of a trust domain (section 2.1).
const MAX_TRUST_DOMAIN: usize = 255;

/// Bytes of a name, scheme included (section 2.3).
const MAX_ID: usize = 2048;

/// Who vouches for a workload: lower-case letters, digits, `.`, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Box<str>);

impl TrustDomain {
    /// A trust domain by its name alone, as `cluster.local`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(name: &str) -> Result<Self, SpiffeError> {
        check_trust_domain(name).map(|()| Self(name.into()))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a workload: `spiffe://trust-domain/path`. The path may be empty: that is the trust domain itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Box<str>,
    /// Where the path begins.
    path: usize,
}

impl SpiffeId {
    /// A name as it stands in a certificate.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, SpiffeError> {
        let (domain, path) = split(text)?;
        if !path.is_empty() {
            path[1..].split('/').try_for_each(check_segment)?;
        }
        Ok(Self { text: text.into(), path: SCHEME.len() + domain.len() })
    }

    /// The whole of it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name of its trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.path]
    }

    /// Its path with the leading `/`; empty for the trust domain itself.
    pub fn path(&self) -> &str {
        &self.text[self.path..]
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Which workloads are meant. Written as a name, or as one that ends in `/*`: all that are below.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerPattern {
    /// This one.
    Exact(SpiffeId),
    /// Those whose names begin so; it ends in `/`. Of a whole trust domain, with `spiffe://trust-domain/`.
    Below(Box<str>),
}

impl PeerPattern {
    /// A pattern as it is written.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, SpiffeError> {
        let Some(above) = text.strip_suffix("/*") else { return SpiffeId::new(text).map(Self::Exact) };
        SpiffeId::new(above).map(|above| Self::Below(format!("{above}/").into()))
    }

    /// Whether this workload is meant. Segments are whole: `.../ns/shop/*` is not `.../ns/shopping/a`.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Exact(exact) => exact == id,
            Self::Below(above) => id.as_str().starts_with(&**above),
        }
    }

    /// The name of the trust domain that all of them are of.
    pub fn trust_domain(&self) -> &str {
        match self {
            Self::Exact(id) => id.trust_domain(),
            Self::Below(above) => above[SCHEME.len()..].split('/').next().unwrap_or_default(),
        }
    }
}

impl fmt::Display for PeerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(id) => id.fmt(f),
            Self::Below(above) => write!(f, "{above}*"),
        }
    }
}

/// Why something is no name of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpiffeError {
    /// It does not begin with `spiffe://`.
    Scheme,
    /// There is no trust domain.
    NoTrustDomain,
    /// The trust domain has a character that it may not have.
    TrustDomain(char),
    /// A segment of the path is empty, or there is a `/` at its end.
    EmptySegment,
    /// A segment of the path is `.` or `..`.
    DotSegment,
    /// The path has a character that it may not have.
    Path(char),
    /// It is longer than it may be.
    TooLong,
}

impl fmt::Display for SpiffeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => write!(f, "it does not begin with `{SCHEME}`"),
            Self::NoTrustDomain => write!(f, "it names no trust domain"),
            Self::TrustDomain(c) => write!(
                f,
                "`{}` is not allowed in a trust domain: lower-case letters, digits, `.`, `-` and `_` are",
                c.escape_default()
            ),
            Self::EmptySegment => write!(f, "its path has an empty segment"),
            Self::DotSegment => write!(f, "its path has a segment `.` or `..`"),
            Self::Path(c) => write!(
                f,
                "`{}` is not allowed in a path: letters, digits, `.`, `-` and `_` are",
                c.escape_default()
            ),
            Self::TooLong => {
                write!(f, "it is longer than {MAX_ID} bytes, or its trust domain than {MAX_TRUST_DOMAIN}")
            }
        }
    }
}

impl std::error::Error for SpiffeError {}

/// The trust domain, and the path with its `/`.
fn split(text: &str) -> Result<(&str, &str), SpiffeError> {
    if text.len() > MAX_ID {
        return Err(SpiffeError::TooLong);
    }
    let rest = text.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
    let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    check_trust_domain(domain).map(|()| (domain, path))
}

fn check_trust_domain(name: &str) -> Result<(), SpiffeError> {
    let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_');
    match name.chars().find(|c| !allowed(*c)) {
        _ if name.is_empty() => Err(SpiffeError::NoTrustDomain),
        Some(c) => Err(SpiffeError::TrustDomain(c)),
        None if name.len() > MAX_TRUST_DOMAIN => Err(SpiffeError::TooLong),
        None => Ok(()),
    }
}

fn check_segment(segment: &str) -> Result<(), SpiffeError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match segment {
        "" => Err(SpiffeError::EmptySegment),
        "." | ".." => Err(SpiffeError::DotSegment),
        _ => segment.chars().find(|c| !allowed(*c)).map_or(Ok(()), |c| Err(SpiffeError::Path(c))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_the_grammar() {
        let long = "a".repeat(256);
        let rows = [
            ("spiffe://cluster.local/ns/shop/sa/cart", Ok(("cluster.local", "/ns/shop/sa/cart"))),
            ("spiffe://a", Ok(("a", ""))),
            ("spiffe://a_b-c.1/A.-_z", Ok(("a_b-c.1", "/A.-_z"))),
            ("spiffe://a/...", Ok(("a", "/..."))),
            ("", Err(SpiffeError::Scheme)),
            ("http://a/b", Err(SpiffeError::Scheme)),
            ("SPIFFE://a/b", Err(SpiffeError::Scheme)),
            ("spiffe:/a/b", Err(SpiffeError::Scheme)),
            ("spiffe:///b", Err(SpiffeError::NoTrustDomain)),
            ("spiffe://A/b", Err(SpiffeError::TrustDomain('A'))),
            ("spiffe://a:80/b", Err(SpiffeError::TrustDomain(':'))),
            ("spiffe://u@a/b", Err(SpiffeError::TrustDomain('@'))),
            ("spiffe://a\0.evil/b", Err(SpiffeError::TrustDomain('\0'))),
            ("spiffe://a/", Err(SpiffeError::EmptySegment)),
            ("spiffe://a//b", Err(SpiffeError::EmptySegment)),
            ("spiffe://a/b/../c", Err(SpiffeError::DotSegment)),
            ("spiffe://a/b%2fc", Err(SpiffeError::Path('%'))),
            ("spiffe://a/b?c", Err(SpiffeError::Path('?'))),
            ("spiffe://a/\u{e9}", Err(SpiffeError::Path('\u{e9}'))),
            ("spiffe://a/b\0", Err(SpiffeError::Path('\0'))),
        ];
        for (text, expected) in rows {
            let id = SpiffeId::new(text);
            let parts = id.as_ref().map(|id| (id.trust_domain(), id.path())).map_err(|error| *error);
            assert_eq!(parts, expected, "{text:?}");
        }
        assert_eq!(SpiffeId::new(&format!("spiffe://{long}/a")), Err(SpiffeError::TooLong));
        assert!(SpiffeId::new(&format!("spiffe://a/{}", "b".repeat(2048 - 11))).is_ok());
        assert_eq!(
            SpiffeId::new(&format!("spiffe://a/{}", "b".repeat(2048 - 10))),
            Err(SpiffeError::TooLong)
        );
    }

    #[test]
    fn patterns_take_whole_segments() {
        let rows = [
            ("spiffe://a/ns/shop/*", "spiffe://a/ns/shop/sa/x", true),
            ("spiffe://a/ns/shop/*", "spiffe://a/ns/shopping/sa/x", false),
            ("spiffe://a/ns/shop/*", "spiffe://a/ns/shop", false),
            ("spiffe://a/*", "spiffe://a/x", true),
            ("spiffe://a/*", "spiffe://ab/x", false),
            ("spiffe://a/*", "spiffe://a", false),
            ("spiffe://a/x", "spiffe://a/x", true),
            ("spiffe://a/x", "spiffe://a/X", false),
            ("spiffe://a/x", "spiffe://a/x/y", false),
        ];
        for (pattern, id, expected) in rows {
            let parsed = PeerPattern::new(pattern).unwrap();
            assert_eq!(parsed.to_string(), pattern);
            assert_eq!(parsed.trust_domain(), "a");
            assert_eq!(parsed.matches(&SpiffeId::new(id).unwrap()), expected, "{pattern} {id}");
        }
        for wrong in ["*", "spiffe://*", "spiffe://a/b*", "spiffe://a/*/b", "spiffe:///*", "spiffe://a//*"] {
            assert!(PeerPattern::new(wrong).is_err(), "{wrong}");
        }
    }
}
