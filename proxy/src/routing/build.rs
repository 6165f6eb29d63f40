//! Building an index: one pass to name the groups of hosts, one to sort the routes into them.

use std::collections::HashSet;

use outrigger_proto::model::{HostPattern, Match, PathMatch, RouteTable};

use super::index::{NO_HOST, RouteIndex, scope};
use super::keys::{HostAt, Keys, PathAt, SegmentAt, number};
use super::lists::Lists;
use super::predicates::is_unconditional;

pub(super) fn build(table: &RouteTable) -> RouteIndex {
    let (hosts, longest_suffix) = groups(table);
    let mut builder = Builder {
        table,
        roots: number(hosts.len() + 1),
        nodes: Keys::new(),
        paths: Keys::new(),
        prefixed: Sorter::default(),
        exact: Sorter::default(),
        others: Sorter::default(),
    };
    for (position, route) in table.routes.iter().enumerate() {
        let matches = &route.matches;
        if matches.hosts.is_empty() {
            builder.add(NO_HOST, number(position), matches);
        }
        for pattern in &matches.hosts {
            let (scope, text) = scope(pattern);
            let group = hosts.get(table, scope, text).expect("groups() has seen every host");
            builder.add(group + 1, number(position), matches);
        }
    }
    let Builder { table: _, roots, mut nodes, mut paths, prefixed, exact, others } = builder;
    nodes.freeze();
    paths.freeze();
    RouteIndex {
        prefixed: prefixed.freeze(roots as usize + nodes.len()),
        exact: exact.freeze(paths.len()),
        others: others.freeze(roots as usize),
        hosts,
        longest_suffix,
        roots,
        nodes,
        paths,
    }
}

/// Every host, and the bytes of the longest suffix.
fn groups(table: &RouteTable) -> (Keys<HostAt>, usize) {
    let mut hosts = Keys::new();
    let mut longest_suffix = 0;
    for (route, position) in table.routes.iter().zip(0..) {
        for (pattern, host) in route.matches.hosts.iter().zip(0..) {
            let (scope, text) = scope(pattern);
            hosts.get_or_insert(table, scope, HostAt { route: position, host });
            if let HostPattern::Suffix(_) = pattern {
                longest_suffix = longest_suffix.max(text.len());
            }
        }
    }
    hosts.freeze();
    (hosts, longest_suffix)
}

struct Builder<'t> {
    table: &'t RouteTable,
    roots: u32,
    nodes: Keys<SegmentAt>,
    paths: Keys<PathAt>,
    /// By node.
    prefixed: Sorter,
    /// By path.
    exact: Sorter,
    /// By group.
    others: Sorter,
}

impl Builder<'_> {
    fn add(&mut self, group: u32, route: u32, matches: &Match) {
        if self.others.is_closed(group) {
            return;
        }
        let closes = is_unconditional(matches);
        match &matches.path {
            PathMatch::Any => self.others.add(group, route, closes),
            PathMatch::Exact(_) => {
                let path = self.paths.get_or_insert(self.table, group, PathAt { route });
                self.exact.add(path, route, closes);
            }
            PathMatch::Prefix(prefix) if prefix.is_empty() || prefix.starts_with('/') => {
                if let Some(node) = self.node(group, route, prefix) {
                    self.prefixed.add(node, route, closes);
                }
            }
            // The trie knows absolute paths only. What is no such path is compared whole.
            PathMatch::Prefix(_) | PathMatch::Regex(_) => self.others.add(group, route, false),
        }
    }

    /// The node of a prefix; `None` when a shorter prefix before it takes all that it could.
    fn node(&mut self, group: u32, route: u32, prefix: &str) -> Option<u32> {
        let mut node = group;
        let mut start = 1;
        for segment in prefix.split('/').skip(1) {
            if self.prefixed.is_closed(node) {
                return None;
            }
            let end = start + number(segment.len());
            node = self.roots + self.nodes.get_or_insert(self.table, node, SegmentAt { route, start, end });
            start = end + 1;
        }
        Some(node)
    }
}

/// Puts routes into lists, and leaves out those that a route before them in the same list hides.
#[derive(Default)]
struct Sorter {
    pairs: Vec<(u32, u32)>,
    closed: HashSet<u32>,
}

impl Sorter {
    fn is_closed(&self, list: u32) -> bool {
        self.closed.contains(&list)
    }

    /// `closes` says that the route takes whatever reaches the list.
    fn add(&mut self, list: u32, route: u32, closes: bool) {
        if self.is_closed(list) {
            return;
        }
        self.pairs.push((list, route));
        if closes {
            self.closed.insert(list);
        }
    }

    fn freeze(self, lists: usize) -> Lists {
        Lists::new(lists, self.pairs)
    }
}
