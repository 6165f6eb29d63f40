//! The host of a request, in the form in which routes are written.
//!
//! RFC 9110 section 4.2.3 (letter case and port do not tell hosts apart), RFC 3986 section 3.2.2 (IPv6 literals).

use std::borrow::Cow;

use outrigger_proto::model::HostPattern;

/// Longer than any DNS name; what is longer still is lower-cased on the heap.
pub(super) const BUFFER: usize = 256;

/// `host` without its port and one trailing dot, in lower case. `buffer` holds the result if letters changed.
pub(super) fn normal<'a>(host: &'a str, buffer: &'a mut [u8; BUFFER]) -> Cow<'a, [u8]> {
    let host = bare(host).as_bytes();
    if !host.iter().any(u8::is_ascii_uppercase) {
        return Cow::Borrowed(host);
    }
    match buffer.get_mut(..host.len()) {
        Some(short) => {
            short.copy_from_slice(host);
            short.make_ascii_lowercase();
            Cow::Borrowed(short)
        }
        None => Cow::Owned(host.to_ascii_lowercase()),
    }
}

/// The same, to be kept.
pub fn canonical_host(host: &str) -> String {
    bare(host).to_ascii_lowercase()
}

fn bare(host: &str) -> &str {
    let host = without_port(host);
    host.strip_suffix('.').unwrap_or(host)
}

/// What follows a `:` but is no port stays, so that such a host equals no pattern.
fn without_port(host: &str) -> &str {
    let end = match host.strip_prefix('[').and_then(|v6| v6.find(']')) {
        Some(bracket) => bracket + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(end);
    match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

/// Every `.domain` that `host` is below and that has at most `longest` bytes, longest first.
pub(super) fn domains(host: &[u8], longest: usize) -> impl Iterator<Item = &[u8]> {
    // The bound keeps a host that is all dots from costing the square of its length.
    let first = host.len().saturating_sub(longest).max(1);
    (first..host.len()).filter(|&dot| host[dot] == b'.').map(|dot| &host[dot..])
}

/// Whether one of these patterns is for this host, in whatever letters and with whatever port.
pub fn host_fits(patterns: &[HostPattern], host: &str) -> bool {
    let mut buffer = [0; BUFFER];
    let host = normal(host, &mut buffer);
    patterns.iter().any(|pattern| match pattern {
        HostPattern::Exact(exact) => exact.as_bytes() == &*host,
        HostPattern::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(host: &str, expected: &str) {
        let mut buffer = [0; BUFFER];
        assert_eq!(normal(host, &mut buffer), expected.as_bytes(), "{host:?}");
    }

    #[test]
    fn normal_form() {
        check("a.example", "a.example");
        check("A.Example:80", "a.example");
        check("a.example.", "a.example");
        check("a.example.:80", "a.example");
        check("a.example..", "a.example.");
        check("a.example:", "a.example");
        check("", "");
        check(":80", "");
        check("[::1]", "[::1]");
        check("[::1]:80", "[::1]");
        check("[FE80::A]:80", "[fe80::a]");
        check("10.0.0.1:80", "10.0.0.1");
        check("É.example", "É.example");
    }

    #[test]
    fn what_is_no_port_stays() {
        check("a.example:http", "a.example:http");
        check("a:80:b", "a:80:b");
        check("::1", "::1");
        check("[::1", "[::1");
        check("[::1]x", "[::1]x");
        check("[::1]:x", "[::1]:x");
    }

    #[test]
    fn long_hosts() {
        let label = "Ab".repeat(BUFFER);
        check(&label, &label.to_lowercase());
        check(&"A".repeat(BUFFER), &"a".repeat(BUFFER));
    }

    #[test]
    fn domains_longest_first() {
        let of = |host: &'static str, longest| {
            domains(host.as_bytes(), longest).map(|d| str::from_utf8(d).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(of("a.b.example", 99), [".b.example", ".example"]);
        assert_eq!(of("a.b.example", 8), [".example"]);
        assert_eq!(of("a.b.example", 7), [""; 0]);
        assert_eq!(of(".example", 99), [""; 0]);
        assert_eq!(of("", 99), [""; 0]);
    }
}
