//! The definition of which route takes a request: every route is asked. The index must give the same answer, and
//! whoever explains a decision walks this one.

use outrigger_proto::model::{HostPattern, Match, RouteTable};

use super::host;
use super::predicates::matches_beyond_host;
use crate::facts::ReqHead;

/// Whether a request matches in every part.
pub fn matches(matches: &Match, head: &ReqHead<'_>) -> bool {
    let mut buffer = [0; host::BUFFER];
    rank(matches, &host::normal(head.host, &mut buffer), head).is_some()
}

/// Position in `table.routes` of the route that takes this request.
pub fn find(table: &RouteTable, head: &ReqHead<'_>) -> Option<usize> {
    let mut buffer = [0; host::BUFFER];
    let host = host::normal(head.host, &mut buffer);
    let mut best = None;
    for (position, route) in table.routes.iter().enumerate() {
        let rank = rank(&route.matches, &host, head);
        // Only a better one replaces: of equals, the first written stays.
        if rank > best.map(|(rank, _)| rank) {
            best = rank.map(|rank| (rank, position));
        }
    }
    best.map(|(_, position)| position)
}

/// How specific the host that matched is, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    NoHost,
    /// By the length of the domain.
    Suffix(usize),
    Exact,
}

fn rank(matches: &Match, host: &[u8], head: &ReqHead<'_>) -> Option<Rank> {
    let best = match &*matches.hosts {
        [] => Some(Rank::NoHost),
        hosts => hosts.iter().filter_map(|pattern| host_rank(pattern, host)).max(),
    };
    best.filter(|_| matches_beyond_host(matches, head))
}

fn host_rank(pattern: &HostPattern, host: &[u8]) -> Option<Rank> {
    match pattern {
        HostPattern::Exact(exact) => (exact.as_bytes() == host).then_some(Rank::Exact),
        HostPattern::Suffix(suffix) => {
            let is_below =
                suffix.starts_with('.') && host.len() > suffix.len() && host.ends_with(suffix.as_bytes());
            is_below.then_some(Rank::Suffix(suffix.len()))
        }
    }
}
