//! From the parser's events to a tree.
//!
//! Refused here: duplicate keys, merge keys, anchors and aliases, tags outside the core schema, a second document,
//! keys that are not strings, control characters, nesting beyond [`MAX_DEPTH`].

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput, Tag};

use super::super::fault::{Fault, show};
use super::super::place::{Step, render};
use super::super::scalar::{Core, core};
use super::{Cell, Entry, Kind, Node, Tree, View};
use crate::error::{ConfigError, Place};

/// How deep collections may stand in each other. The format itself needs nine.
const MAX_DEPTH: usize = 64;

/// Above this a file is a mistake; cells count text in 32 bits.
const MAX_BYTES: usize = 256 << 20;

const CORE_TAGS: &str = "tag:yaml.org,2002:";

/// Reads a document. With errors, the tree holds what could still be made sense of, which may be nothing.
pub(in super::super) fn read(text: &str) -> (Tree, Vec<ConfigError>) {
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        tree: Tree::default(),
        steps: Vec::new(),
        errors: Vec::new(),
    };
    if builder.readable(text).and_then(|()| builder.document()).is_err() {
        builder.tree = Tree::default();
    }
    (builder.tree, builder.errors)
}

/// The rest of the document cannot be read; the error that says why is among the errors.
struct Stop;

struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    tree: Tree,
    steps: Vec<At>,
    errors: Vec<ConfigError>,
}

/// A [`Step`] while the tree grows: a key's cell instead of its text.
#[derive(Clone, Copy)]
enum At {
    Key(usize),
    Item(usize),
}

impl<'t> Builder<'t> {
    /// The parser takes a NUL for the end; what is not YAML's `c-printable` is refused before it sees it.
    fn readable(&mut self, text: &str) -> Result<(), Stop> {
        if text.len() > MAX_BYTES {
            return self
                .stop(Place { line: 1, column: 1 }, Fault::new("the document is larger than 256 MiB"));
        }
        let odd = |b: u8| (b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r')) || b == 0x7f;
        let Some(at) = text.bytes().position(odd) else { return Ok(()) };
        let before = &text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let problem = format!("a control character, U+{:04X}", text.as_bytes()[at]);
        self.stop(place(line, column), Fault::new(problem).hint(r#"write it escaped, as `"\x07"`"#))
    }

    fn document(&mut self) -> Result<(), Stop> {
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::DocumentStart(_) => break,
                Event::StreamEnd => return self.stop(at, nothing_written()),
                _ => {}
            }
        }
        let (event, at) = self.next()?;
        self.node(event, at)?;
        if let Some(View::Plain(text)) = self.tree.root().map(Node::view)
            && core(text) == Core::Null
        {
            return self.stop(at, nothing_written());
        }
        self.next()?;
        let (event, at) = self.next()?;
        if event == Event::StreamEnd {
            return Ok(());
        }
        self.stop(at, Fault::new("a second document begins here").hint("a file holds one: remove the `---`"))
    }

    fn next(&mut self) -> Result<(Event<'t>, Place), Stop> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, mark(span.start))),
            Some(Err(error)) => {
                self.stop(mark(*error.marker()), Fault::new(format!("this is not YAML: {}", error.info())))
            }
            None => Ok((Event::StreamEnd, Place::default())),
        }
    }

    fn node(&mut self, event: Event<'t>, at: Place) -> Result<(), Stop> {
        if self.steps.len() > MAX_DEPTH {
            return self.stop(at, Fault::new(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let kind = self.scalar_kind(style, anchor, tag.as_deref(), at);
                self.push_text(&text, kind, at);
                Ok(())
            }
            Event::SequenceStart(anchor, tag) => {
                self.properties(anchor, tag.as_deref(), &["seq"], at);
                self.list(at)
            }
            Event::MappingStart(anchor, tag) => {
                self.properties(anchor, tag.as_deref(), &["map"], at);
                self.map(at)
            }
            Event::Alias(_) => {
                self.complain(
                    at,
                    Fault::new("an alias").hint("aliases are not supported: write the value out"),
                );
                self.push(Kind::Broken, at);
                Ok(())
            }
            _ => self.stop(at, Fault::new("this is not YAML: a value was expected")),
        }
    }

    fn list(&mut self, at: Place) -> Result<(), Stop> {
        let cell = self.push(Kind::List, at);
        let mut count = 0;
        loop {
            let (event, at) = self.next()?;
            if event == Event::SequenceEnd {
                break;
            }
            self.steps.push(At::Item(count));
            self.node(event, at)?;
            self.steps.pop();
            count += 1;
        }
        self.close(cell, count);
        Ok(())
    }

    fn map(&mut self, at: Place) -> Result<(), Stop> {
        let cell = self.push(Kind::Map, at);
        let mut count = 0;
        loop {
            let (event, at) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.tree.cells.len();
            self.key(event, at)?;
            self.steps.push(At::Key(key));
            let (event, at) = self.next()?;
            self.node(event, at)?;
            self.steps.pop();
            count += 1;
        }
        self.close(cell, count);
        self.refuse_duplicates(cell);
        Ok(())
    }

    fn key(&mut self, event: Event<'t>, at: Place) -> Result<(), Stop> {
        let fault = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let kind = self.scalar_kind(style, anchor, tag.as_deref(), at);
                let Some(fault) = bad_key(kind, &text) else {
                    self.push_text(&text, kind, at);
                    return Ok(());
                };
                fault
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                self.skip_collection()?;
                Fault::new("a collection as a key").hint("a key is a string")
            }
            _ => Fault::new("an alias as a key").hint("a key is a string"),
        };
        self.complain(at, fault);
        self.push(Kind::Broken, at);
        Ok(())
    }

    fn skip_collection(&mut self) -> Result<(), Stop> {
        let mut depth = 1_usize;
        while depth > 0 {
            match self.next()?.0 {
                Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
                Event::SequenceEnd | Event::MappingEnd => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// An explicit `!!str` makes a string of what would be a number; the other core tags say what the text says.
    fn scalar_kind(&mut self, style: ScalarStyle, anchor: usize, tag: Option<&Tag>, at: Place) -> Kind {
        self.properties(anchor, tag, &["str", "int", "float", "bool", "null"], at);
        match tag {
            Some(tag) if tag.suffix == "str" => Kind::Quoted,
            Some(_) => Kind::Plain,
            None if style == ScalarStyle::Plain => Kind::Plain,
            None => Kind::Quoted,
        }
    }

    fn properties(&mut self, anchor: usize, tag: Option<&Tag>, known: &[&str], at: Place) {
        if anchor != 0 {
            self.complain(at, Fault::new("an anchor").hint("anchors are not supported: write the value out"));
        }
        if let Some(tag) = tag
            && !(tag.handle == CORE_TAGS && known.contains(&tag.suffix.as_str()))
        {
            let written = format!("{}{}", tag.handle, tag.suffix);
            self.complain(at, Fault::new(format!("the tag {} here", show(&written))).hint("remove it"));
        }
    }

    fn refuse_duplicates(&mut self, cell: usize) {
        let map = Node { tree: &self.tree, at: cell };
        let mut twice = Vec::new();
        if map.len() <= 12 {
            let keys: Vec<_> = map.entries().map(|e| (e.key, e.place)).collect();
            for (i, (key, at)) in keys.iter().enumerate() {
                if let Some((_, first)) = keys[..i].iter().find(|(k, _)| k == key) {
                    twice.push((*key, *first, *at));
                }
            }
        } else {
            let mut seen = HashMap::with_capacity(map.len());
            for Entry { key, place, value: _ } in map.entries() {
                let first = *seen.entry(key).or_insert(place);
                if first != place {
                    twice.push((key, first, place));
                }
            }
        }
        let errors = twice.into_iter().map(|(key, first, at)| ConfigError {
            place: Some(at),
            path: render(self.steps().chain([Step::Key(key)])),
            problem: "this key is written twice".into(),
            hint: Some(format!("it stands in line {} already", first.line)),
        });
        let errors: Vec<_> = errors.collect();
        self.errors.extend(errors);
    }

    fn push(&mut self, kind: Kind, place: Place) -> usize {
        self.tree.cells.push(Cell { place, kind, a: 0, b: 0 });
        self.tree.cells.len() - 1
    }

    fn push_text(&mut self, text: &str, kind: Kind, place: Place) {
        let a = small(self.tree.text.len());
        self.tree.text.push_str(text);
        self.tree.cells.push(Cell { place, kind, a, b: small(text.len()) });
    }

    fn close(&mut self, cell: usize, count: usize) {
        let end = small(self.tree.cells.len());
        let cell = &mut self.tree.cells[cell];
        (cell.a, cell.b) = (end, small(count));
    }

    fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        self.steps.iter().map(|step| match step {
            At::Item(index) => Step::Item(*index),
            At::Key(at) => match (Node { tree: &self.tree, at: *at }.view()) {
                View::Plain(text) | View::Quoted(text) => Step::Key(text),
                View::List | View::Map | View::Broken => Step::Key("?"),
            },
        })
    }

    fn complain(&mut self, at: Place, Fault { problem, hint }: Fault) {
        let path = render(self.steps());
        self.errors.push(ConfigError { place: Some(at), path, problem, hint });
    }

    fn stop<T>(&mut self, at: Place, fault: Fault) -> Result<T, Stop> {
        self.complain(at, fault);
        Err(Stop)
    }
}

fn bad_key(kind: Kind, text: &str) -> Option<Fault> {
    if kind != Kind::Plain {
        return None;
    }
    match core(text) {
        Core::Str if text == "<<" => {
            Some(Fault::new("a merge key").hint("merge keys are not supported: write the values out"))
        }
        Core::Str => None,
        Core::Null => Some(Fault::new("a key is missing before the `:`")),
        Core::Bool | Core::Int | Core::Float => Some(
            Fault::new(format!("the key {} is not a string", show(text)))
                .hint(format!("write it in quotes: `\"{text}\"`")),
        ),
    }
}

fn nothing_written() -> Fault {
    Fault::new("the document is empty")
        .hint("write at least `listeners:` with a `bind` and `routes`, and `clusters:` with `endpoints`")
}

fn mark(at: Marker) -> Place {
    place(at.line(), at.col() + 1)
}

fn place(line: usize, column: usize) -> Place {
    Place { line: small(line), column: small(column) }
}

/// Sizes here are bounded by [`MAX_BYTES`], so that nothing is lost.
fn small(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let (_, errors) = read(text);
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(lines, expected, "{text}");
    }

    #[test]
    fn surprising_yaml_is_refused() {
        check(
            "a: 1\nb: {c: 2, c: 3}\na: 4\n",
            &[
                "2:11: b.c: this key is written twice; it stands in line 2 already",
                "3:1: a: this key is written twice; it stands in line 1 already",
            ],
        );
        check(
            "a: &x 1\nb: *x\n",
            &[
                "1:4: a: an anchor; anchors are not supported: write the value out",
                "2:4: b: an alias; aliases are not supported: write the value out",
            ],
        );
        check(
            "a: 1\n<<: {b: 2}\n",
            &["2:1: a merge key; merge keys are not supported: write the values out"],
        );
        check(
            "a: !secret x\nb: !!str 1\nc: !!set {}\n",
            &[
                "1:4: a: the tag `!secret` here; remove it",
                "3:4: c: the tag `tag:yaml.org,2002:set` here; remove it",
            ],
        );
        check(
            "? [a]\n: 1\n2: x\ntrue: y\n: z\n",
            &[
                "1:3: a collection as a key; a key is a string",
                "3:1: the key `2` is not a string; write it in quotes: `\"2\"`",
                "4:1: the key `true` is not a string; write it in quotes: `\"true\"`",
                "5:1: a key is missing before the `:`",
            ],
        );
        check(
            "a: 1\n---\nb: 2\n",
            &["2:1: a second document begins here; a file holds one: remove the `---`"],
        );
        check("a: [1\n", &["2:1: a: this is not YAML: while parsing a flow sequence, expected ',' or ']'"]);
        check("a: \"x\n\u{0}y\"", &["2:1: a control character, U+0000; write it escaped, as `\"\\x07\"`"]);
        check("{a: 1, b: yes}\n", &[]);
    }

    #[test]
    fn an_empty_document_says_what_to_write() {
        let line = "the document is empty; write at least `listeners:` with a `bind` and `routes`, and `clusters:` \
                    with `endpoints`";
        for (text, place) in [("", "1:1"), ("# nothing\n", "2:1"), ("---\n", "2:1"), ("--- ~\n", "1:5")] {
            let (_, errors) = read(text);
            assert_eq!(errors.len(), 1, "{text}");
            assert_eq!(errors[0].to_string(), format!("{place}: {line}"), "{text:?}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        check(&deep(MAX_DEPTH), &[]);
        let (_, errors) = read(&deep(MAX_DEPTH + 2));
        assert_eq!(errors.len(), 1);
        assert!(errors[0].problem.contains("nested deeper than 64 levels"), "{}", errors[0]);
        assert_eq!(read(&deep(100_000)).1.len(), 1);
        assert_eq!(read(&"- ".repeat(100_000)).1.len(), 1);
        let stairs: String = (0..2_000).map(|i| format!("{:i$}a:\n", "")).collect();
        assert_eq!(read(&stairs).1.len(), 1);
    }

    #[test]
    fn a_large_map_finds_its_duplicates() {
        let mut text: String = (0..100).map(|i| format!("k{i}: {i}\n")).collect();
        text.push_str("k7: again\n");
        check(&text, &["101:1: k7: this key is written twice; it stands in line 8 already"]);
    }

    #[test]
    fn nodes_walk_over_what_is_inside_others() {
        let (tree, _) = read("a: [1, {x: [2]}, three]\nb: 'four'\n");
        let root = tree.root().unwrap();
        let entries: Vec<_> = root.entries().collect();
        assert_eq!(entries.iter().map(|e| e.key).collect::<Vec<_>>(), ["a", "b"]);
        let items: Vec<_> = entries[0].value.items().map(|n| (n.place().column, n.len())).collect();
        assert_eq!(items, [(5, 0), (8, 1), (18, 0)]);
        assert!(matches!(entries[1].value.view(), View::Quoted("four")));
    }
}
