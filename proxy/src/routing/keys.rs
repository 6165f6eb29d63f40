//! Texts of a route table, found by hash: hosts, whole paths, and segments of paths.
//!
//! No text is copied. A key remembers where in the table its text stands, so that an index over ten thousand routes
//! stays small beside the routes themselves. The texts come from the configuration, never from a request: a client
//! can make no collisions.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use outrigger_proto::model::{HostPattern, PathMatch, RouteTable};

/// Where a text stands in a route table.
pub(super) trait Place {
    /// Empty where the table has no such place, which happens only with a table that the index was not built from.
    fn text<'t>(&self, table: &'t RouteTable) -> &'t [u8];
}

/// One of the hosts of a route.
#[derive(Debug)]
pub(super) struct HostAt {
    pub(super) route: u32,
    pub(super) host: u32,
}

impl Place for HostAt {
    fn text<'t>(&self, table: &'t RouteTable) -> &'t [u8] {
        let Self { route, host } = *self;
        match table.routes.get(route as usize).and_then(|route| route.matches.hosts.get(host as usize)) {
            Some(HostPattern::Exact(text) | HostPattern::Suffix(text)) => text.as_bytes(),
            None => &[],
        }
    }
}

/// The path of a route, exact or a prefix.
#[derive(Debug)]
pub(super) struct PathAt {
    pub(super) route: u32,
}

impl Place for PathAt {
    fn text<'t>(&self, table: &'t RouteTable) -> &'t [u8] {
        match table.routes.get(self.route as usize).map(|route| &route.matches.path) {
            Some(PathMatch::Exact(text) | PathMatch::Prefix(text)) => text.as_bytes(),
            Some(PathMatch::Any | PathMatch::Regex(_)) | None => &[],
        }
    }
}

/// A segment of a route's path, in bytes from its beginning.
#[derive(Debug)]
pub(super) struct SegmentAt {
    pub(super) route: u32,
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Place for SegmentAt {
    fn text<'t>(&self, table: &'t RouteTable) -> &'t [u8] {
        let Self { route, start, end } = *self;
        PathAt { route }.text(table).get(start as usize..end as usize).unwrap_or_default()
    }
}

/// Numbers from 0 for pairs of a scope and a text: one text has one number in each scope.
#[derive(Debug)]
pub(super) struct Keys<P> {
    hasher: DefaultHashBuilder,
    numbers: HashTable<u32>,
    keys: Vec<(u32, P)>,
}

impl<P: Place> Keys<P> {
    pub(super) fn new() -> Self {
        Self { hasher: DefaultHashBuilder::default(), numbers: HashTable::new(), keys: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn get(&self, table: &RouteTable, scope: u32, text: &[u8]) -> Option<u32> {
        if self.keys.is_empty() {
            return None;
        }
        let is_key = |number: &u32| {
            let (of, place) = &self.keys[*number as usize];
            *of == scope && place.text(table) == text
        };
        self.numbers.find(hash(&self.hasher, scope, text), is_key).copied()
    }

    /// The number of the text at `place`, a new one if it has none.
    pub(super) fn get_or_insert(&mut self, table: &RouteTable, scope: u32, place: P) -> u32 {
        let text = place.text(table);
        self.get(table, scope, text).unwrap_or_else(|| {
            let number = number(self.keys.len());
            self.keys.push((scope, place));
            self.numbers.insert_unique(hash(&self.hasher, scope, text), number, |&number| {
                let (scope, place) = &self.keys[number as usize];
                hash(&self.hasher, *scope, place.text(table))
            });
            number
        })
    }

    pub(super) fn scope(&self, number: u32) -> Option<u32> {
        self.keys.get(number as usize).map(|(scope, _)| *scope)
    }

    /// To be called when no more keys come.
    pub(super) fn freeze(&mut self) {
        self.keys.shrink_to_fit();
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.numbers.allocation_size() + self.keys.capacity() * size_of::<(u32, P)>()
    }
}

fn hash(hasher: &DefaultHashBuilder, scope: u32, text: &[u8]) -> u64 {
    hasher.hash_one((scope, text))
}

/// A position as the index keeps it.
pub(super) fn number(position: usize) -> u32 {
    u32::try_from(position).expect("a configuration has fewer than 2^32 of anything")
}
