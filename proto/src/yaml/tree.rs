//! A document as a tree with places: YAML 1.2 (yaml.org/spec/1.2.2), without what makes a configuration surprising.
//!
//! Values are laid down in document order in one vector of small cells, with all text in one string: a file of ten
//! thousand routes is two allocations. [`read()`] says what is refused.

mod merge;
mod read;

pub(super) use self::merge::merge;
pub(super) use self::read::read;
use crate::error::Place;

/// A whole document.
#[derive(Debug, Default)]
pub(super) struct Tree {
    cells: Vec<Cell>,
    text: String,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    place: Place,
    kind: Kind,
    /// Text: where it begins. Collections: the cell after the last one inside.
    a: u32,
    /// Text: its length. Collections: how many values are inside.
    b: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Quoted,
    List,
    Map,
    /// Something that has been complained of; nobody need complain again.
    Broken,
}

/// A value of a document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'t> {
    tree: &'t Tree,
    at: usize,
}

/// What a value is.
#[derive(Clone, Copy, Debug)]
pub(super) enum View<'t> {
    /// A scalar that the core schema types by its text.
    Plain(&'t str),
    /// A string, whatever it says.
    Quoted(&'t str),
    List,
    Map,
    /// Something that has been complained of.
    Broken,
}

/// A key and its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'t> {
    pub(super) key: &'t str,
    pub(super) place: Place,
    pub(super) value: Node<'t>,
}

impl Tree {
    /// The document's own value; `None` when there was none to read.
    pub(super) fn root(&self) -> Option<Node<'_>> {
        (!self.cells.is_empty()).then_some(Node { tree: self, at: 0 })
    }

    fn text(&self, cell: Cell) -> &str {
        &self.text[cell.a as usize..(cell.a + cell.b) as usize]
    }
}

impl<'t> Node<'t> {
    pub(super) fn place(self) -> Place {
        self.cell().place
    }

    pub(super) fn view(self) -> View<'t> {
        let cell = self.cell();
        match cell.kind {
            Kind::Plain => View::Plain(self.tree.text(cell)),
            Kind::Quoted => View::Quoted(self.tree.text(cell)),
            Kind::List => View::List,
            Kind::Map => View::Map,
            Kind::Broken => View::Broken,
        }
    }

    /// How many values a collection holds.
    pub(super) fn len(self) -> usize {
        match self.cell().kind {
            Kind::List | Kind::Map => self.cell().b as usize,
            Kind::Plain | Kind::Quoted | Kind::Broken => 0,
        }
    }

    /// The values of a list; none for anything else.
    pub(super) fn items(self) -> impl Iterator<Item = Node<'t>> {
        let count = if self.cell().kind == Kind::List { self.len() } else { 0 };
        let mut next = Node { at: self.at + 1, ..self };
        (0..count).map(move |_| {
            let item = next;
            next.at = item.end();
            item
        })
    }

    /// The entries of a mapping in written order, without those whose key has been complained of; none for anything
    /// else.
    pub(super) fn entries(self) -> impl Iterator<Item = Entry<'t>> {
        let count = if self.cell().kind == Kind::Map { self.len() } else { 0 };
        let mut next = Node { at: self.at + 1, ..self };
        (0..count).filter_map(move |_| {
            let key = next;
            let value = Node { at: key.at + 1, ..key };
            next.at = value.end();
            match key.view() {
                View::Plain(text) | View::Quoted(text) => {
                    Some(Entry { key: text, place: key.place(), value })
                }
                View::List | View::Map | View::Broken => None,
            }
        })
    }

    /// The entry of a mapping under a key.
    pub(super) fn get(self, key: &str) -> Option<Entry<'t>> {
        self.entries().find(|entry| entry.key == key)
    }

    fn cell(self) -> Cell {
        self.tree.cells[self.at]
    }

    /// The cell after this value.
    fn end(self) -> usize {
        match self.cell().kind {
            Kind::List | Kind::Map => self.cell().a as usize,
            Kind::Plain | Kind::Quoted | Kind::Broken => self.at + 1,
        }
    }
}
