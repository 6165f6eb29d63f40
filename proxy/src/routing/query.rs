//! Parameters of a query, as `application/x-www-form-urlencoded` has them (URL Standard, section 5.1).

use std::borrow::Cow;

use outrigger_proto::model::QueryMatch;

use super::predicates::text_matches;

/// What a `+` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plus {
    /// A space, as forms have it.
    Space,
    /// Itself, as RFC 3986 has it and as Envoy counts.
    Itself,
}

impl Plus {
    fn byte(self) -> u8 {
        match self {
            Self::Space => b' ',
            Self::Itself => b'+',
        }
    }
}

/// The value of the first parameter with this name, decoded.
pub fn query_value<'q>(query: &'q str, name: &str, plus: Plus) -> Option<Cow<'q, [u8]>> {
    first(query.as_bytes(), name.as_bytes(), plus).map(|value| decode(value, plus))
}

/// Whether a parameter of this query fits.
pub fn query_matches(wanted: &QueryMatch, query: Option<&str>, plus: Plus) -> bool {
    let value = query.and_then(|query| query_value(query, &wanted.name, plus));
    text_matches(&wanted.value, value.as_deref().into_iter())
}

/// The value, not decoded, of the first parameter with this name.
fn first<'q>(query: &'q [u8], name: &[u8], plus: Plus) -> Option<&'q [u8]> {
    query.split(|&b| b == b'&').filter(|pair| !pair.is_empty()).find_map(|pair| {
        let end = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let found = Decoded(&pair[..end], plus).eq(name.iter().copied());
        found.then(|| pair.get(end + 1..).unwrap_or_default())
    })
}

fn decode(text: &[u8], plus: Plus) -> Cow<'_, [u8]> {
    match memchr::memchr2(b'%', b'+', text) {
        None => Cow::Borrowed(text),
        Some(_) => Cow::Owned(Decoded(text, plus).collect()),
    }
}

/// A `%` without two hex digits after it stands for itself, as the URL Standard has it.
struct Decoded<'a>(&'a [u8], Plus);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        match (byte, rest) {
            (b'+', _) => Some(self.1.byte()),
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

/// Changes to the parameters of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryEdit {
    /// Names and values, as they are written.
    set: Vec<(String, String)>,
    /// Names.
    remove: Vec<String>,
}

impl QueryEdit {
    /// Sets these, which are written as in a query, then removes those. `None` when something could not stand in one.
    pub fn new(set: Vec<(String, String)>, remove: Vec<String>) -> Option<Self> {
        let fits = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && !b"\"#<>&".contains(&b));
        let fit = set.iter().all(|(name, value)| fits(name) && !name.contains('=') && fits(value));
        fit.then_some(Self { set, remove })
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// The query after the changes; `None` when nothing is left of it. However a name is written, it is the same name.
    pub fn apply(&self, query: Option<&str>) -> Option<String> {
        let mut set: Vec<_> = self.set.iter().map(Some).collect();
        let mut parts: Vec<String> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let name = pair.split('=').next().unwrap_or_default();
            match self.set.iter().position(|(wanted, _)| is_same(wanted, name)) {
                // In the place of the first; there is no second.
                Some(place) => parts.extend(set[place].take().map(write)),
                None => parts.push(pair.to_owned()),
            }
        }
        parts.extend(set.into_iter().flatten().map(write));
        let is_removed = |part: &String| {
            let name = part.split('=').next().unwrap_or_default();
            self.remove.iter().any(|removed| is_same(removed, name))
        };
        parts.retain(|part| !is_removed(part));
        (!parts.is_empty()).then(|| parts.join("&"))
    }
}

fn write((name, value): &(String, String)) -> String {
    format!("{name}={value}")
}

fn is_same(a: &str, b: &str) -> bool {
    Decoded(a.as_bytes(), Plus::Space).eq(Decoded(b.as_bytes(), Plus::Space))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, name: &str, expected: Option<&str>) {
        let value = query_value(query, name, Plus::Space);
        assert_eq!(value.as_deref(), expected.map(str::as_bytes), "{name:?} of {query:?}");
    }

    #[test]
    fn a_plus_is_itself_where_nothing_speaks_of_forms() {
        let rows =
            [("q=a+b", "q", "a+b"), ("q=a%20b", "q", "a b"), ("a+b=%2B%2520", "a+b", "+%20"), ("q", "q", "")];
        for (query, name, value) in rows {
            let found = query_value(query, name, Plus::Itself);
            assert_eq!(found.as_deref(), Some(value.as_bytes()), "{query}");
        }
        assert_eq!(query_value("a+b=1", "a b", Plus::Itself), None);
    }

    #[test]
    fn edits_know_a_name_however_it_is_written() {
        let edit = |set: &[(&str, &str)], remove: &[&str]| {
            let set = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            QueryEdit::new(set.collect(), remove.iter().map(|name| (*name).to_owned()).collect())
        };
        let apply = |query, set: &[(&str, &str)], remove: &[&str]| edit(set, remove).unwrap().apply(query);
        assert_eq!(apply(Some("a=1&token=x&%74oken=y&b"), &[], &["token"]).as_deref(), Some("a=1&b"));
        assert_eq!(apply(Some("token"), &[], &["token"]), None);
        assert_eq!(apply(None, &[], &["token"]), None);
        assert_eq!(apply(None, &[("a", "1")], &[]).as_deref(), Some("a=1"));
        assert_eq!(apply(Some("b=1&%61=2&a=3&&c="), &[("a", "%20")], &[]).as_deref(), Some("b=1&a=%20&c="));
        assert_eq!(apply(Some("a=1"), &[("b", "2"), ("c", "3")], &["c"]).as_deref(), Some("a=1&b=2"));
        for (name, value) in
            [("a b", "1"), ("a&b", "1"), ("a=b", "1"), ("a", "1#2"), ("é", "1"), ("a", "1\n")]
        {
            assert_eq!(edit(&[(name, value)], &[]), None, "{name:?}={value:?}");
        }
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
        assert!(matches!(decode(b"plain", Plus::Space), Cow::Borrowed(_)));
    }
}
