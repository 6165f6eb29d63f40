//! `XDS.md` says of each field of upstream's whether it is honoured, harmless or refused, and how. It is made of what decides
//! that: the subset's `.proto` files, whose comments say how, and the list of what is not in them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::super::schema;

const TABLE: &str = "XDS.md";
const AGAIN: &str = "UPDATE=1 cargo test -p outrigger-proto --lib table";

const HEAD: &str = "# What is honoured of xDS

Made of the [subset of the API](proto/envoy) that is honoured, whose comments these are, and of the
[list of all else](proto/upstream.txt), by a test that fails when they differ from this.

*Honoured*: it has the effect that upstream documents, with what is said here. *Harmless*: accepted, as no request is treated
otherwise for it, and counted in `outrigger_xds_ignored_fields_total`. *Refused*: a resource that sets it is refused, with its
path. So is one that sets a field of a message that is not here, or a number that nobody knows. What no field of upstream's says
stands in [messages of ours](proto/outrigger/extensions/v1).
";

/// A message, or an enumeration, which has no fields.
#[derive(Default)]
struct Message {
    comment: String,
    fields: BTreeMap<u32, Field>,
}

struct Field {
    name: String,
    state: &'static str,
    how: String,
}

/// By package, and there by name.
type Messages = BTreeMap<String, BTreeMap<String, Message>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
}

/// What a file declares. It is generated, and says one thing a line.
fn read(text: &str, messages: &mut Messages) {
    let package = text.lines().find_map(|line| line.strip_prefix("package ")?.strip_suffix(';')).unwrap();
    let own = messages.entry(package.to_owned()).or_default();
    let mut around: Vec<(&str, String)> = Vec::new();
    let mut comment = String::new();
    for line in text.lines().map(str::trim) {
        let words: Vec<_> = line.split_whitespace().collect();
        let inside = around.last().map(|(kind, _)| *kind);
        match *words {
            ["//", ..] => {
                comment = line.trim_start_matches("// ").to_owned();
                continue;
            }
            [kind @ ("message" | "enum" | "oneof"), name, ..] => {
                let above = around.iter().rev().find(|(kind, _)| *kind == "message");
                let full = above.map_or(name.to_owned(), |(_, above)| format!("{above}.{name}"));
                if kind == "message" {
                    let comment = std::mem::take(&mut comment);
                    own.insert(full.clone(), Message { comment, fields: BTreeMap::new() });
                }
                if line.ends_with('{') {
                    around.push((kind, full));
                }
            }
            ["}"] => drop(around.pop()),
            [.., name, "=", number] if matches!(inside, Some("message" | "oneof")) => {
                let of = around.iter().rev().find(|(kind, _)| *kind == "message").unwrap();
                let how = std::mem::take(&mut comment);
                let field = Field { name: name.to_owned(), state: "honoured", how };
                let number = number.trim_end_matches(';').parse().unwrap();
                own.get_mut(&of.1).unwrap().fields.insert(number, field);
            }
            _ => {}
        }
        comment.clear();
    }
}

/// What of known messages is not honoured.
fn add_absent(text: &str, messages: &mut Messages) {
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let (full, number, name) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let state = if words.next().is_some() { "harmless" } else { "refused" };
        let of = messages
            .iter_mut()
            .find_map(|(package, own)| own.get_mut(full.strip_prefix(&**package)?.strip_prefix('.')?));
        let field = Field { name: name.to_owned(), state, how: String::new() };
        of.unwrap().fields.insert(number.parse().unwrap(), field);
    }
}

/// What of the subset is harmless; its comments say so, too.
fn mark_ignored(messages: &mut Messages) {
    for (package, own) in messages {
        for (name, Message { comment, fields }) in own {
            let full = format!("{package}.{name}");
            let known = schema::Message::named(&full).unwrap_or_else(|| panic!("{full}"));
            assert_eq!(known.ignored.is_some(), comment.starts_with("Accepted without effect"), "{full}");
            for field in known.fields {
                let Field { name, state, how } = fields.get_mut(&field.number).unwrap();
                assert_eq!(
                    field.ignored.is_some(),
                    how.ends_with("; without effect."),
                    "{full}.{name}: {how}"
                );
                if field.ignored.is_some() {
                    *state = "harmless";
                }
            }
        }
    }
}

fn render(messages: &Messages) -> String {
    let mut out = HEAD.to_owned();
    for (package, own) in messages {
        write!(out, "\n## {package}\n").unwrap();
        for (name, Message { comment, fields }) in own {
            write!(out, "\n### {name}\n\n{comment}\n").unwrap();
            if fields.is_empty() {
                continue;
            }
            out += "\n| field | | |\n|---|---|---|\n";
            for Field { name, state, how } in fields.values() {
                writeln!(out, "| `{name}` | {state} | {} |", how.replace('|', "\\|")).unwrap();
            }
        }
    }
    out
}

/// What resources are made of; what is spoken about them is not.
fn is_resource(package: &str) -> bool {
    ["envoy.config.", "envoy.extensions.", "envoy.type."].iter().any(|start| package.starts_with(start))
}

#[test]
fn the_table_says_what_is_so() {
    let mut found = Vec::new();
    files(&root().join("proto/envoy"), &mut found);
    found.sort();
    let mut messages = Messages::new();
    for file in found {
        read(&std::fs::read_to_string(file).unwrap(), &mut messages);
    }
    add_absent(&std::fs::read_to_string(root().join("proto/upstream.txt")).unwrap(), &mut messages);
    messages.retain(|package, _| is_resource(package));
    mark_ignored(&mut messages);
    let (path, expected) = (root().join(TABLE), render(&messages));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = written.lines().zip(expected.lines()).position(|(old, new)| old != new);
    assert!(
        written == expected,
        "{TABLE} is not what the subset says, from line {} on: run {AGAIN}",
        differs.unwrap_or(written.lines().count().min(expected.lines().count())) + 1
    );
}
