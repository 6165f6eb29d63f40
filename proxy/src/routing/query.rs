//! Parameters of a query, as `application/x-www-form-urlencoded` has them (URL Standard, section 5.1).

use std::borrow::Cow;

use outrigger_proto::model::QueryMatch;

use super::predicates::text_matches;

/// The value of the first parameter with this name, decoded.
pub fn query_value<'q>(query: &'q str, name: &str) -> Option<Cow<'q, [u8]>> {
    first(query.as_bytes(), name.as_bytes()).map(decode)
}

pub(super) fn query_matches(wanted: &QueryMatch, query: Option<&str>) -> bool {
    let value = query.and_then(|query| query_value(query, &wanted.name));
    text_matches(&wanted.value, value.as_deref().into_iter())
}

/// The value, not decoded, of the first parameter with this name.
fn first<'q>(query: &'q [u8], name: &[u8]) -> Option<&'q [u8]> {
    query.split(|&b| b == b'&').filter(|pair| !pair.is_empty()).find_map(|pair| {
        let end = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let found = Decoded(&pair[..end]).eq(name.iter().copied());
        found.then(|| pair.get(end + 1..).unwrap_or_default())
    })
}

fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    match memchr::memchr2(b'%', b'+', text) {
        None => Cow::Borrowed(text),
        Some(_) => Cow::Owned(Decoded(text).collect()),
    }
}

/// A `%` without two hex digits after it stands for itself, as the URL Standard has it.
struct Decoded<'a>(&'a [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        match (byte, rest) {
            (b'+', _) => Some(b' '),
            (b'%', [high, low, rest @ ..]) => {
                let digit = |hex: u8| char::from(hex).to_digit(16);
                let Some((high, low)) = digit(*high).zip(digit(*low)) else { return Some(b'%') };
                self.0 = rest;
                Some(u8::try_from(high << 4 | low).expect("two hex digits make a byte"))
            }
            (byte, _) => Some(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, name: &str, expected: Option<&str>) {
        let value = first(query.as_bytes(), name.as_bytes()).map(decode);
        assert_eq!(value.as_deref(), expected.map(str::as_bytes), "{name:?} of {query:?}");
    }

    #[test]
    fn the_first_of_a_name_counts() {
        check("a=1&b=2&a=3", "a", Some("1"));
        check("aa=1&a=2", "a", Some("2"));
        check("a&a=2", "a", Some(""));
        check("a=", "a", Some(""));
        check("a=1=2", "a", Some("1=2"));
        check("a=1;b=2", "a", Some("1;b=2"));
        check("&&a=1&", "a", Some("1"));
        check("=1", "", Some("1"));
        check("", "", None);
        check("&", "", None);
        check("b=1", "a", None);
        check("A=1", "a", None);
    }

    #[test]
    fn decoding() {
        check("%61=%62", "a", Some("b"));
        check("a=b+c%2Bd%20e", "a", Some("b c+d e"));
        check("b+c=1", "b c", Some("1"));
        check("a=%26%3d", "a", Some("&="));
        check("a=%zz%4", "a", Some("%zz%4"));
        check("a=%252b", "a", Some("%2b"));
        check("%zz=1", "%zz", Some("1"));
        check("a=caf%C3%A9", "a", Some("café"));
    }

    #[test]
    fn plain_values_are_borrowed() {
        assert!(matches!(decode(b"plain"), Cow::Borrowed(_)));
    }
}
