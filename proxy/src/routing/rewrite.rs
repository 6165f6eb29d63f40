//! The path that a request is sent on with.

use std::borrow::Cow;

use outrigger_proto::model::{Action, PathMatch, PathRewrite, Route};

use super::path::{PathError, canonical};

/// What `path`, which the route matches, becomes; `None` where it stays as it is.
///
/// # Errors
/// What an expression makes of it is no path.
pub fn rewritten<'r>(route: &'r Route, path: &str) -> Result<Option<Cow<'r, str>>, PathError> {
    let Action::Forward(forward) = &route.action else { return Ok(None) };
    Ok(match &forward.rewrite.path {
        None => None,
        Some(PathRewrite::Whole(whole)) => Some(Cow::Borrowed(whole)),
        Some(PathRewrite::Prefix(prefix)) => {
            let PathMatch::Prefix(matched) = &route.matches.path else { return Ok(None) };
            let rest = path.get(matched.len()..).unwrap_or_default();
            Some(Cow::Owned(replace_prefix(prefix, rest)))
        }
        // What is sent on has one form here, too; of slashes there may be as many as were put there.
        Some(PathRewrite::Found(replace)) => {
            Some(Cow::Owned(canonical(&replace.apply(path), false)?.into_owned()))
        }
    })
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
