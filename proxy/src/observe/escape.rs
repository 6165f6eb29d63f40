//! Strangers' bytes, made fit to stand in a line of a log.
//!
//! Nothing that a client sends may end a line, close a quote, move a terminal's cursor or turn its text around: what
//! could is written as an escape. RFC 8259, section 7, for JSON.

use std::fmt;
use std::io::Write;

/// Where the text will stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// In a JSON string. What is not UTF-8 becomes U+FFFD.
    Json,
    /// Between quotes, for a person. What is not UTF-8 is shown as `\xff`.
    Quoted,
    /// The same without quotes: a space is escaped too.
    Bare,
}

/// The bytes that are not simply copied: controls, quote, backslash, and all that is not ASCII.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = byte < 0x20 || byte == b'"' as usize || byte == b'\\' as usize || byte >= 0x7f;
        byte += 1;
    }
    table
};

/// Appends `text`, escaped.
pub(super) fn escape(style: Style, text: &[u8], out: &mut Vec<u8>) {
    let special = |byte: &u8| SPECIAL[usize::from(*byte)] || (style == Style::Bare && *byte == b' ');
    let mut rest = text;
    while let Some(at) = rest.iter().position(special) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        // A character beyond ASCII has no ASCII byte, so a run of such bytes holds whole characters only.
        let wide = rest.iter().position(u8::is_ascii).unwrap_or(rest.len());
        if wide == 0 {
            ascii(style, rest[0], out);
            rest = &rest[1..];
        } else {
            beyond_ascii(style, &rest[..wide], out);
            rest = &rest[wide..];
        }
    }
    out.extend_from_slice(rest);
}

fn ascii(style: Style, byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        byte => match style {
            Style::Json => put(out, format_args!("\\u{byte:04x}")),
            Style::Quoted | Style::Bare => put(out, format_args!("\\x{byte:02x}")),
        },
    }
}

fn beyond_ascii(style: Style, text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match style {
                _ if !deceives(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                // All that deceive are below U+10000: one escape each, never a pair.
                Style::Json => put(out, format_args!("\\u{:04x}", u32::from(c))),
                Style::Quoted | Style::Bare => put(out, format_args!("\\u{{{:x}}}", u32::from(c))),
            }
        }
        match style {
            Style::Json if !chunk.invalid().is_empty() => out.extend_from_slice("\u{fffd}".as_bytes()),
            Style::Json => {}
            Style::Quoted | Style::Bare => {
                chunk.invalid().iter().for_each(|byte| put(out, format_args!("\\x{byte:02x}")));
            }
        }
    }
}

/// C1 controls, what some readers take for the end of a line, and what changes the direction of text.
fn deceives(c: char) -> bool {
    matches!(c,
        '\u{80}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Appends what the arguments print.
pub(super) fn put(out: &mut Vec<u8>, args: fmt::Arguments<'_>) {
    out.write_fmt(args).expect("a Vec takes every write");
}

/// Escapes what is printed into it.
pub(super) struct Escaped<'a>(pub(super) Style, pub(super) &'a mut Vec<u8>);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text.as_bytes(), self.1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(style: Style, text: &[u8]) -> String {
        let mut out = Vec::new();
        escape(style, text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn table() {
        #[track_caller]
        fn check(text: &[u8], json: &str, quoted: &str, bare: &str) {
            let all = [Style::Json, Style::Quoted, Style::Bare].map(|style| escaped(style, text));
            assert_eq!(all, [json, quoted, bare]);
        }
        check(b"", "", "", "");
        check(b"/cart?x=1&y='2'", "/cart?x=1&y='2'", "/cart?x=1&y='2'", "/cart?x=1&y='2'");
        check(b"a b", "a b", "a b", "a\\x20b");
        check(b"a\"b\\c", "a\\\"b\\\\c", "a\\\"b\\\\c", "a\\\"b\\\\c");
        check(b"\r\n\t", "\\r\\n\\t", "\\r\\n\\t", "\\r\\n\\t");
        check(b"\0\x1b[2J\x7f", "\\u0000\\u001b[2J\\u007f", "\\x00\\x1b[2J\\x7f", "\\x00\\x1b[2J\\x7f");
        check("grüße 🦀".as_bytes(), "grüße 🦀", "grüße 🦀", "grüße\\x20🦀");
        check("\u{85}x\u{2028}".as_bytes(), "\\u0085x\\u2028", "\\u{85}x\\u{2028}", "\\u{85}x\\u{2028}");
        check("ü\u{202e}é".as_bytes(), "ü\\u202eé", "ü\\u{202e}é", "ü\\u{202e}é");
        check(b"\xff\xfex", "\u{fffd}\u{fffd}x", "\\xff\\xfex", "\\xff\\xfex");
        check(b"\xe2\x82x", "\u{fffd}x", "\\xe2\\x82x", "\\xe2\\x82x");
        check(b"\xe2\x82", "\u{fffd}", "\\xe2\\x82", "\\xe2\\x82");
    }

    proptest! {
        #[test]
        fn json_reads_back(text in prop::collection::vec(any::<u8>(), 0..64)) {
            let json = format!("\"{}\"", escaped(Style::Json, &text));
            prop_assert!(!json.chars().any(|c| c.is_control() || deceives(c)));
            let back: String = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(back, String::from_utf8_lossy(&text));
        }

        #[test]
        fn text_stays_in_its_place(text in prop::collection::vec(any::<u8>(), 0..64)) {
            let quoted = escaped(Style::Quoted, &text);
            prop_assert!(!quoted.chars().any(|c| c.is_control() || deceives(c)));
            prop_assert!(!quoted.replace("\\\\", "").replace("\\\"", "").contains('"'));
            prop_assert!(!escaped(Style::Bare, &text).contains(' '));
        }

        #[test]
        fn different_texts_look_different(a in any::<Vec<u8>>(), b in any::<Vec<u8>>()) {
            prop_assert_eq!(a == b, escaped(Style::Quoted, &a) == escaped(Style::Quoted, &b));
        }
    }
}
