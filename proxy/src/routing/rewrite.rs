//! The path that a request is sent on with.

use std::borrow::Cow;

use outrigger_proto::model::{Action, PathMatch, PathRewrite, Route};

/// What `path`, which the route matches, becomes; `None` where it stays as it is.
pub fn rewritten<'r>(route: &'r Route, path: &str) -> Option<Cow<'r, str>> {
    let Action::Forward(forward) = &route.action else { return None };
    match forward.rewrite.path.as_ref()? {
        PathRewrite::Whole(whole) => Some(Cow::Borrowed(whole)),
        PathRewrite::Prefix(prefix) => {
            let PathMatch::Prefix(matched) = &route.matches.path else { return None };
            let rest = path.get(matched.len()..).unwrap_or_default();
            Some(Cow::Owned(replace_prefix(prefix, rest)))
        }
    }
}

/// `rest` begins with `/` or is empty; the result is never empty and has no `//` at the seam.
fn replace_prefix(prefix: &str, rest: &str) -> String {
    let prefix = prefix.trim_end_matches('/');
    if prefix.is_empty() && rest.is_empty() { "/".to_owned() } else { [prefix, rest].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_join_without_a_seam() {
        let rows = [
            ("/new", "/x", "/new/x"),
            ("/new/", "/x", "/new/x"),
            ("/", "/x", "/x"),
            ("/", "", "/"),
            ("/new", "", "/new"),
        ];
        for (prefix, rest, expected) in rows {
            assert_eq!(replace_prefix(prefix, rest), expected);
        }
    }
}
