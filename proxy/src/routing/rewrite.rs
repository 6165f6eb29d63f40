//! The path that a request is sent on with.

use std::borrow::Cow;
use std::fmt;

use outrigger_proto::model::{Action, PathMatch, PathRewrite, Route};

use super::path::{PathError, canonical, has_dot_segment};

/// Why a request is not sent on with what the route makes of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewriteError {
    /// It has a segment that is `.` or `..`, which the path had not: whoever resolves it is led out of what was put in place.
    /// Who asks can bring it about, so it is answered with 400.
    DotSegment,
    /// It is no path. The route is at fault, and not who asks.
    NoPath(PathError),
}

impl fmt::Display for RewriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DotSegment => f.write_str("the route's rewrite makes a dot segment of the path"),
            Self::NoPath(error) => write!(f, "what the route's rewrite makes cannot be sent: {error}"),
        }
    }
}

impl std::error::Error for RewriteError {}

/// What `path`, which the route matches, becomes; `None` where it stays as it is.
///
/// # Errors
/// What an expression makes of it is no path, or leads out of itself.
pub fn rewritten<'r>(route: &'r Route, path: &str) -> Result<Option<Cow<'r, str>>, RewriteError> {
    let Action::Forward(forward) = &route.action else { return Ok(None) };
    Ok(match &forward.rewrite.path {
        None => None,
        Some(PathRewrite::Whole(whole)) => Some(Cow::Borrowed(whole)),
        Some(PathRewrite::Prefix(prefix)) => {
            let PathMatch::Prefix(matched) = &route.matches.path else { return Ok(None) };
            let rest = path.get(matched.len()..).unwrap_or_default();
            Some(Cow::Owned(replace_prefix(prefix, rest)))
        }
        Some(PathRewrite::Found(replace)) => match replace.apply(path) {
            None => None,
            Some(made) => Some(Cow::Owned(sendable(made)?)),
        },
    })
}

/// What is sent on has one form here, too; of slashes there may be as many as were put there. Dot segments are not resolved,
/// as those are that a client sends: they came about at a seam, and nobody has asked for what they lead to.
fn sendable(made: String) -> Result<String, RewriteError> {
    if made.starts_with('/') && has_dot_segment(&made) {
        return Err(RewriteError::DotSegment);
    }
    let changed = match canonical(&made, false) {
        Ok(Cow::Borrowed(_)) => None,
        Ok(Cow::Owned(changed)) => Some(changed),
        Err(error) => return Err(RewriteError::NoPath(error)),
    };
    Ok(changed.unwrap_or(made))
}

/// `rest` begins with `/` or is empty; the result is never empty and has no `//` at the seam.
fn replace_prefix(prefix: &str, rest: &str) -> String {
    let prefix = prefix.trim_end_matches('/');
    if prefix.is_empty() && rest.is_empty() { "/".to_owned() } else { [prefix, rest].concat() }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use outrigger_proto::model::{Forward, Match, Name, Pattern, Replace, Rewrite, Split, Target};

    use super::*;

    #[track_caller]
    fn check(pattern: &str, with: &str, path: &str, expected: Result<Option<&str>, RewriteError>) {
        let replace = Replace::new(Pattern::new(pattern).unwrap(), with).unwrap();
        let rewrite = Rewrite { path: Some(PathRewrite::Found(replace)), host: None };
        let targets = vec![Target::new(Name::new("a").unwrap(), NonZeroU32::MIN)];
        let forward = Forward { rewrite, ..Forward::new(Split { targets }) };
        let route = Route::new(Match::default(), Action::Forward(forward));
        let made = rewritten(&route, path);
        assert_eq!(made.as_ref().map(Option::as_deref).map_err(|error| *error), expected, "{path}");
    }

    /// What Envoy sends on with its dots, nobody may resolve: not we, and not who is behind us.
    #[test]
    fn nothing_climbs_out_of_what_stands_in_place() {
        let dots = Err(RewriteError::DotSegment);
        for rest in
            ["..", "../", "../secret", ".", "./x", "../../../x", "%2e%2E/x", ".%2e", "/../x", "/a/%2e"]
        {
            check("^/api", "/static/", &["/api", rest].concat(), dots);
        }
        check("^/api", "/static/..", "/api/x", dots);
        check("x", "", "/a/.x./secret", dots);
        check("25", "", "/a/%252e%252e/secret", dots);
        check("^/(.*)/(.*)$", r"/\2/\1", "/a../b", Ok(Some("/b/a..")));
        check("^/(.*)-(.*)$", r"/\1/\2", "/a-..", dots);
        for (rest, made) in [("...", "/static/..."), ("..x", "/static/..x"), ("..;/x", "/static/..;/x")] {
            check("^/api", "/static/", &["/api", rest].concat(), Ok(Some(made)));
        }
        check("^/api", "/static/", "/api%252e%252e/x", Ok(Some("/static/%252e%252e/x")));
        check("^/api", "/static/", "/api..%2fx", Err(RewriteError::NoPath(PathError::EncodedSlash)));
    }

    #[test]
    fn what_is_not_found_is_not_rewritten() {
        check("^/nowhere", "/x", "*", Ok(None));
        check("^/(nowhere)", r"/\1", "*", Ok(None));
        check("^/nowhere", "/x", "/a", Ok(None));
        check("^/a", "//x", "/a//b", Ok(Some("//x//b")));
        check("%25", "%", "/a%2561", Ok(Some("/aa")));
    }

    #[test]
    fn a_route_that_makes_no_path_is_at_fault_itself() {
        let no = |error| Err(RewriteError::NoPath(error));
        check("^/x/(.*)$", r"\1", "/x/a", no(PathError::NotAbsolute));
        check("^/x/(.*)$", r"\1", "/x/../a", no(PathError::NotAbsolute));
        check("^/a", "", "/a", no(PathError::NotAbsolute));
        check("25", "", "/%252F", no(PathError::EncodedSlash));
        check("25", "", "/%25", no(PathError::BadEscape));
    }

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
