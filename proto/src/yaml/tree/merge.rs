//! Several documents as one: what stands under the same key at their tops is put together.
//!
//! Lines are counted through all of them, so that a place says which document it is in.

use std::collections::HashMap;

use super::super::fault::Fault;
use super::super::place::{Step, render};
use super::{Cell, Entry, Kind, Node, Tree, View};
use crate::error::{ConfigError, Place};

/// One tree of many, each with what is to be added to its lines. A name that stands in two of them is an error, and so is
/// a document that is not a mapping.
pub(in super::super) fn merge(parts: &[(Tree, u32)]) -> (Tree, Vec<ConfigError>) {
    let mut merged = Merged { tree: Tree::default(), errors: Vec::new() };
    let mut keys: Vec<(&str, Vec<(Entry<'_>, u32)>)> = Vec::new();
    for (tree, lines) in parts {
        let Some(root) = tree.root() else { continue };
        if !matches!(root.view(), View::Map | View::Broken) {
            let expected = Fault::new("a document is a mapping").hint("expected `key: value`");
            merged.fail(shifted(root.place(), *lines), &[], expected);
        }
        for entry in root.entries() {
            match keys.iter_mut().find(|(key, _)| *key == entry.key) {
                Some((_, found)) => found.push((entry, *lines)),
                None => keys.push((entry.key, vec![(entry, *lines)])),
            }
        }
    }
    let root = merged.open(Place { line: 1, column: 1 });
    for (key, entries) in &keys {
        merged.key(key, shifted(entries[0].0.place, entries[0].1));
        merged.values(key, entries);
    }
    merged.close(root, keys.len());
    (merged.tree, merged.errors)
}

fn shifted(place: Place, lines: u32) -> Place {
    Place { line: place.line + lines, ..place }
}

struct Merged {
    tree: Tree,
    errors: Vec<ConfigError>,
}

impl Merged {
    fn fail(&mut self, place: Place, steps: &[Step<'_>], Fault { problem, hint }: Fault) {
        let path = render(steps.iter().copied());
        self.errors.push(ConfigError { place: Some(place), path, problem, hint });
    }

    fn open(&mut self, place: Place) -> usize {
        self.tree.cells.push(Cell { place, kind: Kind::Map, a: 0, b: 0 });
        self.tree.cells.len() - 1
    }

    fn close(&mut self, at: usize, count: usize) {
        let end = index(self.tree.cells.len());
        (self.tree.cells[at].a, self.tree.cells[at].b) = (end, index(count));
    }

    fn key(&mut self, text: &str, place: Place) {
        let begins = index(self.tree.text.len());
        self.tree.text.push_str(text);
        self.tree.cells.push(Cell { place, kind: Kind::Quoted, a: begins, b: index(text.len()) });
    }

    /// What stands under a key: mappings together, or the one value.
    fn values(&mut self, key: &str, entries: &[(Entry<'_>, u32)]) {
        let (first, lines) = entries[0];
        if entries.len() == 1 {
            return self.copy(first.value, lines);
        }
        for (entry, lines) in entries.iter().filter(|(entry, _)| !matches!(entry.value.view(), View::Map)) {
            let fault = Fault::new("another document has this key too, and so it is to be a mapping");
            self.fail(shifted(entry.value.place(), *lines), &[Step::Key(key)], fault);
        }
        let at = self.open(shifted(first.value.place(), lines));
        let mut count = 0;
        let mut seen: HashMap<&str, u32> = HashMap::new();
        for (part, (entry, lines)) in (0_u32..).zip(entries) {
            for named in entry.value.entries() {
                // Within one document the reader has said so.
                if seen.insert(named.key, part).is_some_and(|other| other != part) {
                    let fault = Fault::new("another document has this name already");
                    let steps = [Step::Key(key), Step::Key(named.key)];
                    self.fail(shifted(named.place, *lines), &steps, fault.hint("rename one of them"));
                    continue;
                }
                self.key(named.key, shifted(named.place, *lines));
                self.copy(named.value, *lines);
                count += 1;
            }
        }
        self.close(at, count);
    }

    fn copy(&mut self, node: Node<'_>, lines: u32) {
        let Node { tree, at } = node;
        let cells = index(self.tree.cells.len());
        let cells_before = index(at);
        for cell in &tree.cells[at..node.end()] {
            let a = match cell.kind {
                Kind::List | Kind::Map => cell.a - cells_before + cells,
                Kind::Plain | Kind::Quoted => {
                    self.tree.text.push_str(tree.text(*cell));
                    index(self.tree.text.len()) - cell.b
                }
                Kind::Broken => cell.a,
            };
            self.tree.cells.push(Cell { a, place: shifted(cell.place, lines), ..*cell });
        }
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("documents are read up to a size that 32 bits count")
}
