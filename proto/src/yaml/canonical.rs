//! The one form in which paths are compared (RFC 3986 section 6.2.2): no needless percent-encoding, no dot segments,
//! no empty segments.
//!
//! The proxy brings every request into this form before it routes. A pattern in another form could never match, so
//! it is refused here, with the form to write.

use std::fmt;

use super::fault::{Fault, show};

/// Checks that a path is absolute and canonical.
pub(super) fn check(path: &str) -> Result<(), Fault> {
    if !path.starts_with('/') {
        return Err(
            Fault::new(format!("{} does not begin with `/`", show(path))).hint(format!("write `/{path}`"))
        );
    }
    if let Some(at) = path.find(['?', '#']) {
        return Err(Fault::new(format!("{} is more than a path", show(path)))
            .hint(format!("write `{}`; a query is matched by `query`", &path[..at])));
    }
    let canonical = canonical(path).map_err(|held| {
        let fault = Fault::new(format!("{} holds {held}", show(path)));
        match held {
            Held::BrokenEscape => fault.hint("write `%25` for a percent sign"),
            Held::EncodedSlash | Held::Backslash | Held::Control => {
                fault.hint("requests for such paths are refused before they are routed")
            }
        }
    })?;
    if canonical != path {
        return Err(Fault::new(format!("{} is not in the form in which paths are compared", show(path)))
            .hint(format!("write `{canonical}`")));
    }
    Ok(())
}

/// What makes that a path has no canonical form: two servers would read it in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    BrokenEscape,
    EncodedSlash,
    Backslash,
    Control,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BrokenEscape => "a `%` without two hex digits after it",
            Self::EncodedSlash => "an encoded slash",
            Self::Backslash => "a backslash",
            Self::Control => "a control character",
        })
    }
}

/// The canonical form of an absolute path.
fn canonical(path: &str) -> Result<String, Held> {
    let decoded = decode_unreserved(path)?;
    let mut segments: Vec<&str> = Vec::new();
    let mut last = "";
    for segment in decoded.split('/') {
        last = segment;
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let directory = matches!(last, "" | "." | "..") && !segments.is_empty();
    Ok(format!("/{}{}", segments.join("/"), if directory { "/" } else { "" }))
}

/// Escapes of unreserved characters are undone, the others written in capitals; what no path may hold is escaped.
fn decode_unreserved(path: &str) -> Result<String, Held> {
    let mut out = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let (escaped, byte) = match byte {
            b'%' => (true, unescape(bytes.next(), bytes.next()).ok_or(Held::BrokenEscape)?),
            byte => (false, byte),
        };
        match byte {
            b'\\' => return Err(Held::Backslash),
            0..=0x1f | 0x7f => return Err(Held::Control),
            b'/' if escaped => return Err(Held::EncodedSlash),
            b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() || !escaped && byte.is_ascii_graphic() => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(out)
}

/// The byte that an escape stands for, from its two digits.
fn unescape(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high?)? * 16 + digit(low?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(path: &str, hint: &str) {
        assert_eq!(check(path).unwrap_err().hint.as_deref(), Some(hint), "{path}");
    }

    #[test]
    fn only_the_canonical_form_passes() {
        for path in
            ["/", "/cart", "/cart/", "/a%20b", "/a%2A", "/grpc.health.v1.Health/", "/a:b@c;d=1", "/..."]
        {
            assert_eq!(check(path), Ok(()), "{path}");
        }
        refused("cart", "write `/cart`");
        refused("/a?b=1", "write `/a`; a query is matched by `query`");
        refused("/a//b", "write `/a/b`");
        refused("//", "write `/`");
        refused("/a/./b", "write `/a/b`");
        refused("/a/../b", "write `/b`");
        refused("/a/..", "write `/`");
        refused("/a/b/..", "write `/a/`");
        refused("/a/%2e%2E/b", "write `/b`");
        refused("/%41", "write `/A`");
        refused("/a%c3%A9", "write `/a%C3%A9`");
        refused("/a b", "write `/a%20b`");
        refused("/é", "write `/%C3%A9`");
        refused("/100%", "write `%25` for a percent sign");
        refused("/%zz", "write `%25` for a percent sign");
        for path in ["/a%2Fb", "/a\\b", "/%5c", "/%00", "/a\n", "/%7F"] {
            refused(path, "requests for such paths are refused before they are routed");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_a_hint_says_is_accepted(path in "/[a-c./%2eE é]{0,12}") {
            if let Ok(once) = canonical(&path) {
                proptest::prop_assert_eq!(canonical(&once), Ok(once));
            }
        }
    }
}
