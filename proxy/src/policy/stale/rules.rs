//! What may be kept of a request and its answer, and for whom (RFC 9111 section 3): we are a shared cache, and one that
//! serves nothing but stale answers.
//!
//! - The request says no `no-store` (section 5.2.1.5) and asks for no range (section 3.3 would allow it).
//! - The answer says no `no-store` or `private` (section 5.2.2), and nothing that forbids to serve it stale: `no-cache`,
//!   `must-revalidate`, `proxy-revalidate`, and `s-maxage`, which implies that (sections 4.2.4, 5.2.2.10). The forms of
//!   `private` and `no-cache` that name fields count as those that do not. `must-understand` (section 5.2.2.3) forbids
//!   too: we understand no more than 200. What cannot be read counts as `no-store`.
//! - The answer sets no cookie: it is for one client, whatever it says.
//! - A request with `authorization` (section 3.5) or a `cookie` is kept only where the answer says `public`; and only
//!   then is such a request served from here: somebody who is known would see what a stranger is shown.
//! - The fields that `vary` names are part of what must match (section 4.1). Nothing matches `*`.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// For which requests an answer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What must be the same.
    pub vary: Vary,
    /// Also for those that say who they are.
    pub public: bool,
}

impl Terms {
    /// Of an answer to a request with these fields; `None` where it may not be kept.
    pub fn of(request: &HeaderMap, answer: &HeaderMap) -> Option<Self> {
        let said = Said::by(answer)?;
        let kept = !said.forbidden
            && (said.public || !is_known(request))
            && !answer.contains_key(header::SET_COOKIE)
            && may_keep(request);
        if kept { Some(Self { vary: Vary::of(request, answer)?, public: said.public }) } else { None }
    }

    /// Whether the answer is for a request with these fields.
    pub fn fit(&self, request: &HeaderMap) -> bool {
        (self.public || !is_known(request)) && self.vary.matches(request)
    }
}

/// Whether an answer to a request with these fields may be kept at all, as far as that is known before there is one.
pub fn may_keep(request: &HeaderMap) -> bool {
    !request.contains_key(header::RANGE) && Said::by(request).is_some_and(|said| !said.no_store)
}

/// Whether a request says whose it is.
pub fn is_known(request: &HeaderMap) -> bool {
    [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE]
        .iter()
        .any(|name| request.contains_key(name))
}

/// The fields of a request that its answer depends on, and what they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vary(Box<[(HeaderName, Value)]>);

/// `None` for a field that was not there.
type Value = Option<Box<[u8]>>;

impl Vary {
    /// What an answer names, in the request that it answers. `None` for `*`, and for what is no list of names.
    fn of(request: &HeaderMap, answer: &HeaderMap) -> Option<Self> {
        let lists = answer.get_all(header::VARY).iter().map(HeaderValue::as_bytes);
        let names = lists.flat_map(|list| list.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        let name = |name: &[u8]| if name == b"*" { None } else { HeaderName::from_bytes(name).ok() };
        let mut names: Vec<HeaderName> =
            names.filter(|name| !name.is_empty()).map(name).collect::<Option<_>>()?;
        // The same names in another order are the same.
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        Some(Self(
            names.into_iter().map(|name| (compact(&name), joined(request, &name).map(Into::into))).collect(),
        ))
    }

    /// Whether a request has the same values.
    fn matches(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|(name, value)| joined(request, name).as_deref() == value.as_deref())
    }

    /// Bytes of its texts.
    pub(super) fn size(&self) -> usize {
        let value = |value: &Value| value.as_ref().map_or(0, |value| value.len());
        self.0.iter().map(|(name, text)| name.as_str().len() + value(text) + super::FIELD).sum()
    }
}

/// A copy that holds nothing of the buffer that the name was read in.
fn compact(name: &HeaderName) -> HeaderName {
    HeaderName::from_bytes(name.as_str().as_bytes()).unwrap_or_else(|_| name.clone())
}

/// All values of a field as one (RFC 9110 section 5.3).
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let mut all = values.next()?.to_vec();
    for value in values {
        all.extend_from_slice(b", ");
        all.extend_from_slice(value);
    }
    Some(all)
}

/// What `cache-control` says that is of concern here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Said {
    no_store: bool,
    /// Any of what forbids that an answer is kept, or served stale.
    forbidden: bool,
    public: bool,
}

/// In an answer.
const FORBIDDING: [&[u8]; 7] = [
    b"no-store",
    b"private",
    b"no-cache",
    b"must-revalidate",
    b"proxy-revalidate",
    b"s-maxage",
    b"must-understand",
];

impl Said {
    /// By all fields together; `None` where one cannot be read.
    fn by(headers: &HeaderMap) -> Option<Self> {
        let mut said = Self::default();
        for value in headers.get_all(header::CACHE_CONTROL) {
            let mut rest = value.as_bytes();
            while !rest.is_empty() {
                let (name, after) = directive(rest)?;
                let is = |word: &[u8]| name.eq_ignore_ascii_case(word);
                said.no_store |= is(b"no-store");
                said.public |= is(b"public");
                said.forbidden |= FORBIDDING.into_iter().any(is);
                rest = after;
            }
        }
        Some(said)
    }
}

/// The name of the first directive, and what comes behind it and its argument: a token or a quoted text (RFC 9111
/// section 5.2, RFC 9110 section 5.6.4). `None` for anything else, as where a semicolon stands for a comma.
fn directive(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| matches!(byte, b',' | b'=')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let name = name.trim_ascii();
    if !name.iter().all(is_token) {
        return None;
    }
    let Some(argument) = rest.strip_prefix(b"=") else {
        return Some((name, rest.get(1..).unwrap_or_default()));
    };
    let behind = match argument.trim_ascii_start().strip_prefix(b"\"") {
        Some(quoted) => behind_quote(quoted)?,
        None => argument,
    };
    let end = behind.iter().position(|byte| *byte == b',').unwrap_or(behind.len());
    let (left, after) = behind.split_at(end);
    let quoted = behind.len() != argument.len();
    let left = left.trim_ascii();
    if if quoted { !left.is_empty() } else { !left.iter().all(is_token) } {
        return None;
    }
    Some((name, after.get(1..).unwrap_or_default()))
}

/// Whether a byte may stand in a token (RFC 9110 section 5.6.2).
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// What comes behind the end of a quoted text.
fn behind_quote(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', _, rest @ ..] | [_, rest @ ..] => rest,
            [] => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    type Fields = &'static [(&'static str, &'static str)];

    #[track_caller]
    fn kept(request: &[(&'static str, &'static str)], answer: &[(&'static str, &'static str)], is: bool) {
        assert_eq!(Terms::of(&headers(request), &headers(answer)).is_some(), is, "{request:?} {answer:?}");
    }

    #[test]
    fn what_an_answer_says_of_itself() {
        let rows: [(&[&'static str], bool); 38] = [
            (&[], true),
            (&[""], true),
            (&[","], true),
            (&["public"], true),
            (&["max-age=0"], true),
            (&["max-age=60, stale-if-error=\"600\""], true),
            (&["no-store"], false),
            (&["NO-STORE"], false),
            (&["max-age=60,no-store"], false),
            (&["max-age=60 ,\t no-Store , public"], false),
            (&["public", "no-store"], false),
            (&["no-store", "public"], false),
            (&["private"], false),
            (&["private=\"x-user\""], false),
            (&["no-cache"], false),
            (&["no-cache=\"set-cookie, x\""], false),
            (&["no-cache = \"set-cookie\""], false),
            (&["must-revalidate"], false),
            (&["proxy-revalidate"], false),
            (&["s-maxage=600"], false),
            (&["S-MaxAge=\"600\""], false),
            (&["must-understand"], false),
            (&["x=\"a, no-store, b\""], true),
            (&["x=\"a\\\", no-store\""], true),
            (&["x=\"a\\\\\", no-store"], false),
            (&["x=no-store"], true),
            (&["no-storage"], true),
            (&["xno-store, no-stor"], true),
            // Unreadable.
            (&["x=\"no end"], false),
            (&["x=\"no end\\\""], false),
            (&["x=\"a\"b"], false),
            (&["x=a\"b\""], false),
            (&["\"no-store\""], false),
            (&["\"a, no-store, b\""], false),
            (&["public, x=\""], false),
            (&["private; max-age=0"], false),
            (&["no-store no-cache"], false),
            (&["max-age=0; private"], false),
        ];
        for (values, is) in rows {
            let answer: Vec<_> = values.iter().map(|value| ("cache-control", *value)).collect();
            kept(&[], &answer, is);
        }
        kept(&[], &[("set-cookie", "a=b"), ("cache-control", "public")], false);
    }

    #[test]
    fn what_a_request_says() {
        for (request, alone, public) in [
            (("accept", "a/b"), true, true),
            (("cache-control", "no-cache"), true, true),
            (("cache-control", "max-age=0, private"), true, true),
            (("cache-control", "max-age=0, no-store"), false, false),
            (("cache-control", "x=\""), false, false),
            (("range", "bytes=0-1"), false, false),
            (("authorization", "Basic eA=="), false, true),
            (("cookie", "a=b"), false, true),
        ] {
            kept(&[request], &[], alone);
            kept(&[request], &[("cache-control", "max-age=5, Public")], public);
        }
    }

    #[test]
    fn who_is_known_is_served_only_what_is_public() {
        let of = |control| Terms::of(&headers(&[]), &headers(&[("cache-control", control)])).unwrap();
        for known in [("authorization", "x"), ("cookie", "a=b")] {
            assert!(!of("max-age=1").fit(&headers(&[known])));
            assert!(of("public").fit(&headers(&[known])));
        }
        assert!(of("max-age=1").fit(&headers(&[])));
    }

    #[test]
    fn vary_says_what_must_match() {
        let asked = [("accept", "a"), ("x-many", "1"), ("x-many", "2")];
        let of = |vary| Terms::of(&headers(&asked), &headers(&[("vary", vary)]));
        for never in ["*", "accept, *", "accept, a b", "\"accept\""] {
            assert_eq!(of(never), None, "{never}");
        }
        let rows: [(&str, Fields, bool); 10] = [
            ("", &[], true),
            (", ,", &[], true),
            ("accept", &[("accept", "a")], true),
            ("Accept", &[("accept", "b")], false),
            ("accept", &[], false),
            ("x-none", &[("accept", "b")], true),
            ("x-none", &[("x-none", "")], false),
            ("x-many,accept", &[("accept", "a"), ("x-many", "1, 2")], true),
            ("x-many", &[("x-many", "2"), ("x-many", "1")], false),
            ("x-many", &[("x-many", "1")], false),
        ];
        for (vary, request, fits) in rows {
            assert_eq!(of(vary).unwrap().fit(&headers(request)), fits, "{vary} {request:?}");
        }
        assert_eq!(of("accept, x-many"), of("X-Many,  ACCEPT, accept"));
    }
}
