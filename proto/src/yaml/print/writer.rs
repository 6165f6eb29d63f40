//! Block-style YAML, and the quoting of scalars (YAML 1.2.2 sections 5.7, 7.3).

use std::fmt::{Display, Write};

use super::super::expand::escape;
use super::super::scalar::{Core, core};

/// A document while it is written.
#[derive(Debug, Default)]
pub(super) struct Out {
    text: String,
    depth: usize,
    /// The next line begins an item of a list.
    dash: bool,
}

impl Out {
    /// `key: value`, both as they are to stand there.
    pub(super) fn field(&mut self, key: &str, value: impl Display) {
        self.line(format_args!("{key}: {value}"));
    }

    /// A list item on one line, as it is to stand there.
    pub(super) fn inline(&mut self, value: &str) {
        self.line(format_args!("{value}"));
    }

    pub(super) fn comment(&mut self, text: &str) {
        self.line(format_args!("# {text}"));
    }

    /// A mapping under a key; `f` writes at least one field.
    pub(super) fn block(&mut self, key: &str, f: impl FnOnce(&mut Self)) {
        self.line(format_args!("{key}:"));
        self.depth += 1;
        f(self);
        self.depth -= 1;
    }

    /// A mapping under a key, with a field for each value.
    pub(super) fn map<T>(
        &mut self,
        key: &str,
        values: impl Iterator<Item = T>,
        mut f: impl FnMut(&mut Self, T),
    ) {
        let mut values = values.peekable();
        if values.peek().is_none() {
            return self.field(key, "{}");
        }
        self.block(key, |out| values.for_each(|value| f(out, value)));
    }

    /// A list under a key; `f` writes one item.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        values: impl Iterator<Item = T>,
        mut f: impl FnMut(&mut Self, T),
    ) {
        let mut values = values.peekable();
        if values.peek().is_none() {
            return self.field(key, "[]");
        }
        self.block(key, |out| {
            out.depth += 1;
            for value in values {
                out.dash = true;
                f(out, value);
            }
            out.depth -= 1;
        });
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, content: std::fmt::Arguments<'_>) {
        let dash = std::mem::take(&mut self.dash);
        let indent = 2 * (self.depth - usize::from(dash));
        writeln!(self.text, "{:indent$}{}{content}", "", if dash { "- " } else { "" })
            .expect("a String takes all");
    }
}

/// A value: dollars doubled, quoted where needed.
pub(super) fn text(text: &str) -> String {
    quote(&escape(text))
}

/// A key, in which variables are not looked for.
pub(super) fn key(text: &str) -> String {
    quote(text)
}

/// A list on one line, of items as they are to stand there.
pub(super) fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn quote(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            ' ' => out.push(' '),
            c if c.is_ascii_graphic() || c.is_alphanumeric() => out.push(c),
            c if u32::from(c) <= 0xffff => {
                write!(out, "\\u{:04X}", u32::from(c)).expect("a String takes all")
            }
            c => write!(out, "\\U{:08X}", u32::from(c)).expect("a String takes all"),
        }
    }
    out.push('"');
    out
}

/// Whether every YAML reader takes a text, bare, in a block or between brackets, for the string that it is.
fn is_plain(text: &str) -> bool {
    let first = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'.');
    let inside = |b: u8| first(b) || matches!(b, b'-' | b':' | b'@' | b'%' | b'+' | b'=' | b'^' | b'~');
    // What YAML 1.1 makes booleans of.
    let boolean = ["y", "n", "yes", "no", "on", "off"].iter().any(|word| text.eq_ignore_ascii_case(word));
    text.bytes().next().is_some_and(first)
        && text.bytes().all(inside)
        && !text.ends_with(':')
        && !boolean
        && core(text) == Core::Str
        && !is_odd_number(text)
}

/// What YAML 1.1 makes numbers of and YAML 1.2 does not: `1_000`, `0b1`, `12:30`.
fn is_odd_number(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b'_' | b':' | b'.' | b'x' | b'o'))
        && text.matches('.').count() < 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_stand_where_they_are_needed() {
        let bare =
            ["app", "127.0.0.1:9001", "unix:/run/x.sock", "/a/%20b", "x-beta", "shop.example.com", "v1"];
        for text in bare {
            assert_eq!(key(text), text);
        }
        let quoted = [
            "", "1", "1.5", "true", "null", "~", "off", "Yes", "y", "*.a", "[::1]:80", "a b", "a: b", "a:",
            "#a", "- a", "1_000", "12:30", "0b1", "<<", "{a}", "a,b", "é", "-", "&a", "!a",
        ];
        for text in quoted {
            assert_eq!(key(text), format!("\"{text}\""), "{text}");
        }
        assert_eq!(text("a$b\n\u{7f}\u{1f600}\\\""), "\"a$$b\\n\\u007F\\U0001F600\\\\\\\"\"");
        assert_eq!(key("$x"), "\"$x\"");
    }
}
