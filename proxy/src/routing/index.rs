//! The index over a route table: hosts by hash, then whole paths by hash and prefixes by a trie, then predicates.
//!
//! Routes with the same host pattern form a *group*; the groups that a request falls into are asked from the most
//! specific to the least. Within a group, a route stands in exactly one list: that of its whole path, that of its
//! prefix (a node of the trie), or that of the others, which are regular expressions and routes for every path. The
//! lists that fit the path are merged in written order, and the first route that matches in all its parts wins.
//!
//! The trie has no maps of its own: one hash table for all groups leads from (node, segment) to the next node.

use std::iter;

use outrigger_proto::model::{HostPattern, RouteTable};

use super::build;
use super::host;
use super::keys::{HostAt, Keys, PathAt, SegmentAt};
use super::lists::Lists;
use super::predicates::matches_beyond_host;
use crate::facts::ReqHead;

/// The group of routes without hosts. That of a host is its number plus one.
pub(super) const NO_HOST: u32 = 0;

/// Finds the route of a request without asking every route. Built once for a configuration.
///
/// It holds positions, not texts, and is of use only with the table that it was built from.
#[derive(Debug)]
pub struct RouteIndex {
    pub(super) hosts: Keys<HostAt>,
    pub(super) longest_suffix: usize,
    /// Nodes below this are roots, each that of the group with its number; the others are `nodes`, in order.
    pub(super) roots: u32,
    pub(super) nodes: Keys<SegmentAt>,
    pub(super) paths: Keys<PathAt>,
    /// By node.
    pub(super) prefixed: Lists,
    /// By path.
    pub(super) exact: Lists,
    /// By group.
    pub(super) others: Lists,
}

impl RouteIndex {
    /// Takes time in proportion to the hosts and path segments of all routes.
    pub fn new(table: &RouteTable) -> Self {
        build::build(table)
    }

    /// Position in `table.routes` of the route that takes this request: of those that match it, the first written
    /// among those with the most specific host. `table` is the one that the index was built from.
    pub fn find(&self, table: &RouteTable, head: &ReqHead<'_>) -> Option<usize> {
        if self.hosts.len() == 0 {
            return self.find_in(NO_HOST, table, head);
        }
        let mut buffer = [0; host::BUFFER];
        let host = host::normal(head.host, &mut buffer);
        let suffixes = host::domains(&host, self.longest_suffix).map(|domain| (SUFFIX, domain));
        iter::once((EXACT, &*host))
            .chain(suffixes)
            .filter_map(|(scope, text)| self.hosts.get(table, scope, text))
            .find_map(|number| self.find_in(number + 1, table, head))
            .or_else(|| self.find_in(NO_HOST, table, head))
    }

    fn find_in(&self, group: u32, table: &RouteTable, head: &ReqHead<'_>) -> Option<usize> {
        let path = self.paths.get(table, group, head.path.as_bytes());
        let mut candidates = Candidates {
            index: self,
            exact: path.map_or(&[], |path| self.exact.get(path)),
            others: self.others.get(group),
            deepest: self.deepest(group, table, head.path),
            from: 0,
        };
        candidates.find(|&route| {
            table.routes.get(route).is_some_and(|route| matches_beyond_host(&route.matches, head))
        })
    }

    /// The longest way that `path` goes down the trie. Every node on it stands for a prefix of the path.
    fn deepest(&self, group: u32, table: &RouteTable, path: &str) -> Option<u32> {
        let Some(below) = path.strip_prefix('/') else {
            // `*` is below no prefix, not even `/`.
            return path.is_empty().then_some(group);
        };
        let mut node = group;
        for segment in below.split('/') {
            match self.nodes.get(table, node, segment.as_bytes()) {
                Some(number) => node = self.roots + number,
                None => break,
            }
        }
        Some(node)
    }

    fn parent(&self, node: u32) -> Option<u32> {
        self.nodes.scope(node.checked_sub(self.roots)?)
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        let Self { hosts, longest_suffix: _, roots: _, nodes, paths, prefixed, exact, others } = self;
        let lists = [prefixed, exact, others].map(Lists::heap_bytes);
        hosts.heap_bytes() + nodes.heap_bytes() + paths.heap_bytes() + lists.iter().sum::<usize>()
    }
}

const EXACT: u32 = 0;
const SUFFIX: u32 = 1;

/// The key of a host pattern: the two kinds do not share their texts.
pub(super) fn scope(pattern: &HostPattern) -> (u32, &[u8]) {
    match pattern {
        HostPattern::Exact(text) => (EXACT, text.as_bytes()),
        HostPattern::Suffix(text) => (SUFFIX, text.as_bytes()),
    }
}

/// Routes of one group whose path may match, in written order.
///
/// There may be as many lists as a path has segments; looking for the least in each, instead of keeping a place in
/// each, needs no memory. Nearly always, all lists together hold one or two routes.
struct Candidates<'i> {
    index: &'i RouteIndex,
    exact: &'i [u32],
    others: &'i [u32],
    deepest: Option<u32>,
    /// All routes before this one have been returned.
    from: u32,
}

impl Iterator for Candidates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let Self { index, exact, others, deepest, from } = *self;
        let prefixed =
            iter::successors(deepest, |&node| index.parent(node)).map(|node| index.prefixed.get(node));
        let next = [exact, others]
            .into_iter()
            .chain(prefixed)
            .filter_map(|list| list.get(list.partition_point(|&route| route < from)))
            .min()?;
        self.from = next + 1;
        Some(*next as usize)
    }
}
