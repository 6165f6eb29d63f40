//! The one form of a path that routing, authorization, the log and the upstream all see.
//!
//! RFC 3986 section 6.2.2: percent-encoded unreserved characters are decoded, the hex digits of the other escapes
//! are upper case, and dot segments are removed. What two parsers may read in two ways (an encoded slash, a
//! backslash, a control character) has no canonical form and is refused.

use std::borrow::Cow;
use std::fmt;

/// Why a path has no canonical form. The request is to be refused with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It does not begin with `/`. (`*` of `OPTIONS` never comes here.)
    NotAbsolute,
    /// A `%` without two hex digits after it.
    BadEscape,
    /// `%2F`: some servers read it as a slash, others as data.
    EncodedSlash,
    /// A backslash, plain or as `%5C`: some servers read it as a slash.
    Backslash,
    /// NUL, another control character or DEL, plain or encoded.
    Control,
    /// A space, `#`, `?` or a byte above ASCII, which a path holds in encoded form only.
    NotEncoded,
    /// Dot segments that climb above the root.
    AboveRoot,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "the path does not begin with a slash",
            Self::BadEscape => "the path has a percent sign without two hex digits after it",
            Self::EncodedSlash => "the path has an encoded slash",
            Self::Backslash => "the path has a backslash",
            Self::Control => "the path has a control character",
            Self::NotEncoded => "the path has a character that must be percent-encoded",
            Self::AboveRoot => "the path climbs above the root",
        })
    }
}

impl std::error::Error for PathError {}

/// The canonical form of `path`, which comes without its query. Borrowed when `path` is canonical already.
///
/// With `merge_slashes`, repeated slashes become one, before dot segments are removed: `/a//../b` is `/b`, as a
/// file system reads it. Without, an empty segment is a segment like any other.
///
/// # Errors
/// The first reason, from the left, why the path has no canonical form.
pub fn canonical(path: &str, merge_slashes: bool) -> Result<Cow<'_, str>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if is_canonical(path.as_bytes(), merge_slashes) {
        return Ok(Cow::Borrowed(path));
    }
    rebuild(path, merge_slashes).map(Cow::Owned)
}

/// Whether a segment is `.` or `..`, in any form that [`canonical`] takes for one.
pub(super) fn has_dot_segment(path: &str) -> bool {
    path.split('/').any(|segment| {
        let (mut rest, mut dots) = (segment.as_bytes(), 0);
        while let [b'.', after @ ..] | [b'%', b'2', b'e' | b'E', after @ ..] = rest {
            (rest, dots) = (after, dots + 1);
        }
        rest.is_empty() && matches!(dots, 1 | 2)
    })
}

/// Says no to everything that [`rebuild`] would change or refuse, so that most paths cost one scan.
fn is_canonical(path: &[u8], merge_slashes: bool) -> bool {
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'/', [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..]) => return false,
            (b'/', [b'/', ..]) if merge_slashes => return false,
            (b'%', [high, low, after @ ..]) => match unescape(Some(*high), Some(*low)) {
                Ok(byte) if !is_unreserved(byte) && is_upper(*high) && is_upper(*low) => after,
                Ok(_) | Err(_) => return false,
            },
            (b'%', _) => return false,
            (byte, after) if plain(byte).is_ok() => after,
            (_, _) => return false,
        };
    }
    true
}

fn rebuild(path: &str, merge_slashes: bool) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len());
    out.push('/');
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let start = out.len();
        push_segment(&mut out, segment)?;
        let is_last = segments.peek().is_none();
        // After decoding: `%2e%2E` is a dot segment too.
        match &out[start..] {
            "." => out.truncate(start),
            ".." => {
                out.truncate(start);
                pop_segment(&mut out)?;
            }
            "" if merge_slashes => {}
            _ if is_last => {}
            _ => out.push('/'),
        }
    }
    Ok(out)
}

/// `out` ends with a slash before and after.
fn pop_segment(out: &mut String) -> Result<(), PathError> {
    let parent = &out[..out.len() - 1];
    let end = parent.rfind('/').ok_or(PathError::AboveRoot)?;
    out.truncate(end + 1);
    Ok(())
}

fn push_segment(out: &mut String, segment: &str) -> Result<(), PathError> {
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(plain(byte)?);
            continue;
        }
        let byte = unescape(bytes.next(), bytes.next())?;
        if is_unreserved(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    Ok(())
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// A byte that stands for itself.
fn plain(byte: u8) -> Result<char, PathError> {
    match byte {
        b'\\' => Err(PathError::Backslash),
        0..=0x1F | 0x7F => Err(PathError::Control),
        b' ' | b'#' | b'?' | 0x80.. => Err(PathError::NotEncoded),
        _ => Ok(char::from(byte)),
    }
}

/// The byte that an escape stands for, from its two digits.
fn unescape(high: Option<u8>, low: Option<u8>) -> Result<u8, PathError> {
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
    let (Some(high), Some(low)) = (digit(high), digit(low)) else {
        return Err(PathError::BadEscape);
    };
    match u8::try_from(high << 4 | low).expect("two hex digits make a byte") {
        b'/' => Err(PathError::EncodedSlash),
        b'\\' => Err(PathError::Backslash),
        0..=0x1F | 0x7F => Err(PathError::Control),
        byte => Ok(byte),
    }
}

/// Of a hex digit.
fn is_upper(digit: u8) -> bool {
    !digit.is_ascii_lowercase()
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(path: &str, merged: Result<&str, PathError>, unmerged: Result<&str, PathError>) {
        assert_eq!(canonical(path, true).as_deref(), merged.as_ref().map(|p| *p), "{path:?}, merged");
        assert_eq!(canonical(path, false).as_deref(), unmerged.as_ref().map(|p| *p), "{path:?}, not merged");
    }

    #[track_caller]
    fn same(path: &str, expected: &str) {
        check(path, Ok(expected), Ok(expected));
    }

    #[track_caller]
    fn refused(path: &str, error: PathError) {
        check(path, Err(error), Err(error));
    }

    #[test]
    fn canonical_paths_are_borrowed() {
        for path in [
            "/",
            "/a",
            "/a/",
            "/a/.b/..c/...",
            "/a%20b/%C3%A9",
            "/a;v=1/b:@!$&'()*+,=",
            "/a%252e",
            "/{x}|^`\"<>[]",
        ] {
            assert!(matches!(canonical(path, true), Ok(Cow::Borrowed(p)) if p == path), "{path:?}");
        }
        assert!(matches!(canonical("//a//", false), Ok(Cow::Borrowed("//a//"))));
    }

    #[test]
    fn escapes() {
        same("/%61%5A%30%2d%2E%5f%7e", "/aZ0-._~");
        same("/caf%c3%a9", "/caf%C3%A9");
        same("/%7e%3a", "/~%3A");
        same("/%23%3f%20", "/%23%3F%20");
        for path in ["/%", "/%4", "/a%zz", "/%%34%31", "/%u002e", "/%4/1", "/%+1", "/%0x", "/%é"] {
            refused(path, PathError::BadEscape);
        }
    }

    #[test]
    fn dot_segments() {
        same("/a/./b", "/a/b");
        same("/a/../b", "/b");
        same("/a/b/..", "/a/");
        same("/a/b/../", "/a/");
        same("/a/.", "/a/");
        same("/.", "/");
        same("/a/..", "/");
        same("/a/b/c/./../../g", "/a/g");
        same("/a/%2e%2E/b", "/b");
        same("/a/.%2e/b", "/b");
        same("/a/%2e/b", "/a/b");
        same("/.a/..b/c..", "/.a/..b/c..");
    }

    #[test]
    fn above_the_root() {
        for path in ["/..", "/../", "/../a", "/a/../..", "/a/%2e%2e/%2e%2e/etc/passwd", "/./..", "/.%2E/a"] {
            refused(path, PathError::AboveRoot);
        }
        check("//..", Err(PathError::AboveRoot), Ok("/"));
        check("/a//../..", Err(PathError::AboveRoot), Ok("/"));
    }

    #[test]
    fn slashes() {
        check("//", Ok("/"), Ok("//"));
        check("//a", Ok("/a"), Ok("//a"));
        check("/a//b///c", Ok("/a/b/c"), Ok("/a//b///c"));
        check("/a//", Ok("/a/"), Ok("/a//"));
        check("/a//../b", Ok("/b"), Ok("/a/b"));
        check("/a/.//b", Ok("/a/b"), Ok("/a//b"));
        check("/a//.", Ok("/a/"), Ok("/a//"));
    }

    /// What proxies and servers have been known to read in two ways.
    #[test]
    fn confusions() {
        same("/public/../admin", "/admin");
        same("/public/%2e%2e/admin", "/admin");
        same("/%61dmin", "/admin");
        check("//admin", Ok("/admin"), Ok("//admin"));
        check("/public//admin", Ok("/public/admin"), Ok("/public//admin"));
        refused("/public%2fadmin", PathError::EncodedSlash);
        refused("/public/..%2F..%2Fadmin", PathError::EncodedSlash);
        refused("/public%5cadmin", PathError::Backslash);
        refused("/public/..%5Cadmin", PathError::Backslash);
        refused("/public\\..\\admin", PathError::Backslash);
        // Twice encoded stays encoded: decoding again is for whoever encoded twice.
        same("/public/%252e%252e/admin", "/public/%252e%252e/admin");
        same("/public%252fadmin", "/public%252fadmin");
        same("/public%255cadmin", "/public%255cadmin");
        // Parameters are part of their segment: `..;` is a name, not a dot segment.
        same("/public;x=/admin", "/public;x=/admin");
        same("/public/..;/admin", "/public/..;/admin");
        same("/admin%3b", "/admin%3B");
        // An overlong form is bytes, not a dot or a slash.
        same("/%c0%ae%c0%ae/%c0%af", "/%C0%AE%C0%AE/%C0%AF");
        refused("/admin#x", PathError::NotEncoded);
        refused("/admin?x", PathError::NotEncoded);
        refused("/admin x", PathError::NotEncoded);
        refused("/\u{ff0e}\u{ff0e}/admin", PathError::NotEncoded);
        same("/admin%23/x", "/admin%23/x");
        refused("http://a/admin", PathError::NotAbsolute);
        refused("admin", PathError::NotAbsolute);
        refused("%2fadmin", PathError::NotAbsolute);
        refused("*", PathError::NotAbsolute);
        refused("", PathError::NotAbsolute);
        refused("/admin%00.png", PathError::Control);
        refused("/admin%0d%0aX:y", PathError::Control);
        refused("/admin%7f", PathError::Control);
        refused("/a\tb", PathError::Control);
        refused("/a\0b", PathError::Control);
        refused("/a\u{7f}b", PathError::Control);
    }

    /// Also a path that is refused further on is refused from the left.
    #[test]
    fn the_first_reason_wins() {
        refused("/../%2f", PathError::AboveRoot);
        refused("/%2f/../..", PathError::EncodedSlash);
        refused("/a%2f\\", PathError::EncodedSlash);
    }

    #[test]
    fn display() {
        assert_eq!(PathError::EncodedSlash.to_string(), "the path has an encoded slash");
    }

    /// RFC 3986 section 5.2.4, written as it stands there; for paths without escapes.
    fn remove_dot_segments(path: &str) -> String {
        let mut input = path.to_owned();
        let mut output = String::new();
        while !input.is_empty() {
            if input.starts_with("/./") {
                input.replace_range(..2, "");
            } else if input == "/." {
                input = "/".to_owned();
            } else if input.starts_with("/../") || input == "/.." {
                input.replace_range(..3, "");
                if input.is_empty() {
                    input.push('/');
                }
                output.truncate(output.rfind('/').unwrap_or(0));
            } else {
                let end = input[1..].find('/').map_or(input.len(), |i| i + 1);
                output.extend(input.drain(..end));
            }
        }
        output
    }

    fn adversarial() -> impl Strategy<Value = String> {
        let harmless = prop::sample::select(vec![
            "/", "/", "/", "//", ".", "..", "/.", "/..", "/../", "/./", "a", "bc", "%61", "%2e", "%2E",
            "%252e", "%25", "2e", "2", "E", "%7e", "%c3", "%3b", ";", "..;", "%20",
        ]);
        let harmful = prop::sample::select(vec![
            "%", "%2", "%2f", "%5c", "\\", "%00", "\u{1}", "é", "#", "?", " ", "%zz",
        ]);
        let token = prop_oneof![40 => harmless, 1 => harmful];
        prop::collection::vec(token, 0..12).prop_map(|tokens| format!("/{}", tokens.concat()))
    }

    fn any_path() -> impl Strategy<Value = String> {
        prop_oneof![4 => adversarial(), 1 => any::<String>(), 1 => any::<String>().prop_map(|s| format!("/{s}"))]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(8192) })]

        #[test]
        fn is_a_fixed_point(path in any_path(), merge in any::<bool>()) {
            if let Ok(once) = canonical(&path, merge) {
                let twice = canonical(&once, merge);
                prop_assert!(matches!(&twice, Ok(Cow::Borrowed(_))), "{once:?} -> {twice:?}");
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
            }
        }

        #[test]
        fn holds_nothing_ambiguous(path in any_path(), merge in any::<bool>()) {
            if let Ok(path) = canonical(&path, merge) {
                prop_assert!(path.starts_with('/'));
                prop_assert!(!merge || !path.contains("//"), "{path:?}");
                prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{path:?}");
                prop_assert!(path.bytes().all(|b| b.is_ascii_graphic() && !b"\\#?".contains(&b)), "{path:?}");
                for (at, _) in path.match_indices('%') {
                    let hex = &path[at + 1..at + 3];
                    let byte = u8::from_str_radix(hex, 16).unwrap();
                    prop_assert_eq!(hex, format!("{byte:02X}"));
                    prop_assert!(!is_unreserved(byte) && !byte.is_ascii_control() && !b"/\\".contains(&byte));
                }
            }
        }

        /// On its own, each of them is nothing, or above the root.
        #[test]
        fn dot_segments_are_found_in_the_forms_that_are_resolved(path in any_path()) {
            let is_dot = |segment: &str| match canonical(&format!("/{segment}"), false) {
                Ok(alone) => alone == "/" && !segment.is_empty(),
                Err(error) => error == PathError::AboveRoot,
            };
            prop_assert_eq!(has_dot_segment(&path), path.split('/').any(is_dot), "{:?}", path);
        }

        #[test]
        fn removes_dot_segments_as_the_rfc_does(path in "/[./a]{0,16}") {
            if let Ok(ours) = canonical(&path, false) {
                prop_assert_eq!(ours, remove_dot_segments(&path));
            }
        }
    }
}
