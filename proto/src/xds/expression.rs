//! Regular expressions: theirs fit the whole of a text, ours are looked for within it.
//!
//! Each way keeps what is matched, and the way back gives the text that was: what is read of what was written is the same
//! expression, to the letter.

use crate::model::Pattern;
pub(super) use crate::model::literal;

/// Around an expression of ours, whose place in the text is all the same. `.` is a line break, too.
const ANYWHERE: &str = "(?s:.*)";

/// An expression for the whole of a text, as one of ours.
///
/// # Errors
/// Why it is none.
pub(super) fn read(theirs: &str) -> Result<Pattern, String> {
    if theirs.is_empty() {
        return Err("this is empty".to_owned());
    }
    // By itself, as a bracket too many would else close what is put around it.
    let alone = compiled(theirs)?;
    if let Some(ours) = loose(theirs) {
        return Ok(ours);
    }
    if is_anchored(theirs) {
        return Ok(alone);
    }
    compiled(&format!("^(?:{theirs})$"))
}

/// An expression of ours, for the whole of a text.
pub(super) fn write(ours: &Pattern) -> String {
    let text = ours.as_str();
    let inside = text.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$"));
    let is_same = |theirs: &&str| read(theirs).is_ok_and(|read| read == *ours);
    match inside.into_iter().chain([text]).find(is_same) {
        Some(theirs) => theirs.to_owned(),
        None => format!("{ANYWHERE}(?:{text}){ANYWHERE}"),
    }
}

/// What [`write`] has put between two [`ANYWHERE`].
fn loose(theirs: &str) -> Option<Pattern> {
    let inside = theirs.strip_prefix(ANYWHERE)?.strip_suffix(ANYWHERE)?;
    compiled(inside.strip_prefix("(?:")?.strip_suffix(')')?).ok()
}

/// Whether an expression can only fit the whole of a text, for all that can be seen of it at a glance.
fn is_anchored(expression: &str) -> bool {
    let Some(rest) = expression.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')) else {
        return false;
    };
    let escapes = rest.bytes().rev().take_while(|byte| *byte == b'\\').count();
    // An alternative, a flag or a repetition could take an anchor away.
    escapes % 2 == 0 && !rest.starts_with(['*', '+', '?', '{']) && !rest.contains('|') && !rest.contains("(?")
}

pub(super) fn compiled(expression: &str) -> Result<Pattern, String> {
    Pattern::new(expression).map_err(|error| {
        let said = error.to_string();
        let reason = said.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("this is not a regular expression: {reason}")
    })
}

/// The parts of an expression that stand between bare `|`.
pub(super) fn alternatives(expression: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, char) in expression.char_indices() {
        if char == '|' && !escaped {
            parts.push(&expression[start..at]);
            start = at + 1;
        }
        escaped = char == '\\' && !escaped;
    }
    parts.push(&expression[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ours: &str, theirs: &str) {
        let ours = Pattern::new(ours).unwrap();
        assert_eq!(write(&ours), theirs, "{ours:?}");
        assert_eq!(read(theirs).unwrap(), ours, "{theirs:?}");
    }

    #[test]
    fn to_the_letter_both_ways() {
        check("^(?:a|b)$", "a|b");
        check("^/v[0-9]+/items$", "^/v[0-9]+/items$");
        check("a|b", "(?s:.*)(?:a|b)(?s:.*)");
        check("^a|b$", "(?s:.*)(?:^a|b$)(?s:.*)");
        check("", "(?s:.*)(?:)(?s:.*)");
        check("^(?:)$", "(?s:.*)(?:^(?:)$)(?s:.*)");
        check("^a\\$", "(?s:.*)(?:^a\\$)(?s:.*)");
        check("^(?:^a$)$", "(?s:.*)(?:^(?:^a$)$)(?s:.*)");
        check("^(?:a)|(?:b)$", "(?s:.*)(?:^(?:a)|(?:b)$)(?s:.*)");
        check("^*a$", "(?s:.*)(?:^*a$)(?s:.*)");
        check("^(?:(?s:.*)(?:a)(?s:.*))$", "(?s:.*)(?:^(?:(?s:.*)(?:a)(?s:.*))$)(?s:.*)");
        check("(?i)x{1,3}", "(?s:.*)(?:(?i)x{1,3})(?s:.*)");
    }

    #[test]
    fn what_is_matched_is_the_same() {
        let texts = ["", "a", "b", "ab", "ba", "xax", "a\nb", "a$", "/v1/items", "x/v1/items"];
        for ours in
            ["^(?:a|b)$", "a|b", "^a|b$", "", "^a", "b$", "^(?:)$", "^*a$", "^/v[0-9]+/items$", "(?m)^b"]
        {
            let ours = Pattern::new(ours).unwrap();
            let whole = Pattern::new(&format!("^(?:{})$", write(&ours))).unwrap();
            for text in texts {
                assert_eq!(ours.is_match(text), whole.is_match(text), "{ours:?} in {text:?}");
            }
        }
    }

    #[test]
    fn a_bracket_too_many_is_refused() {
        for theirs in ["a)(b", "a)|(?:b", "(", ""] {
            assert!(read(theirs).is_err(), "{theirs:?}");
        }
    }

    #[test]
    fn literals() {
        assert_eq!(literal("a\\.b/\\-").as_deref(), Some("a.b/-"));
        assert_eq!((literal("a.b"), literal("\\d"), literal("a\\")), (None, None, None));
        assert_eq!(alternatives("GET|A\\|B|"), ["GET", "A\\|B", ""]);
    }
}
