//! The parts of a match, each on its own. Shared by the naive matcher and the index: what an index finds is a
//! candidate, and these decide.

use ::http::HeaderMap;
use outrigger_proto::model::{HeaderMatch, Match, PathMatch, StringMatch};

use super::query::{Plus, query_matches};
use crate::facts::ReqHead;

/// All parts but the hosts, the cheap ones first.
pub(super) fn matches_beyond_host(matches: &Match, head: &ReqHead<'_>) -> bool {
    let Match { hosts: _, path, methods, headers, query } = matches;
    (methods.is_empty() || methods.contains(head.method))
        && path_matches(path, head.path)
        && headers.iter().all(|wanted| header_matches(wanted, head.headers))
        && query.iter().all(|wanted| query_matches(wanted, head.query, Plus::Space))
}

/// Whether the hosts and the path decide alone.
pub(super) fn is_unconditional(matches: &Match) -> bool {
    let Match { hosts: _, path, methods, headers, query } = matches;
    !matches!(path, PathMatch::Regex(_)) && methods.is_empty() && headers.is_empty() && query.is_empty()
}

fn path_matches(wanted: &PathMatch, path: &str) -> bool {
    match wanted {
        PathMatch::Any => true,
        PathMatch::Exact(exact) => **exact == *path,
        PathMatch::Prefix(prefix) => {
            path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathMatch::Regex(pattern) => pattern.is_match(path),
    }
}

/// Whether a field, as often as it is there, fits.
pub fn header_matches(wanted: &HeaderMatch, headers: &HeaderMap) -> bool {
    text_matches(&wanted.value, headers.get_all(&wanted.name).into_iter().map(|value| value.as_bytes()))
}

/// Whether one of the `values` fits; for `Absent`, whether there is none.
pub(super) fn text_matches<'v>(wanted: &StringMatch, mut values: impl Iterator<Item = &'v [u8]>) -> bool {
    match wanted {
        StringMatch::Absent => values.next().is_none(),
        StringMatch::Present | StringMatch::Exact(_) | StringMatch::Prefix(_) | StringMatch::Regex(_) => {
            values.any(|value| text_fits(wanted, value))
        }
    }
}

/// Whether a value that is there fits.
fn text_fits(wanted: &StringMatch, value: &[u8]) -> bool {
    match wanted {
        StringMatch::Present => true,
        StringMatch::Absent => false,
        // A value equal to a text is one: no need to look at it as UTF-8.
        StringMatch::Exact(exact) => value == exact.as_bytes(),
        StringMatch::Prefix(prefix) => value.starts_with(prefix.as_bytes()) && str::from_utf8(value).is_ok(),
        StringMatch::Regex(pattern) => str::from_utf8(value).is_ok_and(|value| pattern.is_match(value)),
    }
}
