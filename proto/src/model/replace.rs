//! What an expression finds in a path, and what is put in its place.

use std::fmt;

use http::uri::PathAndQuery;

use super::Pattern;

/// What is found is replaced, as often as it is found. Never the whole of every path by one text: that says
/// [`PathRewrite::Whole`](super::PathRewrite::Whole).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replace {
    pattern: Pattern,
    /// The one text that the expression finds, at the beginning: what most rewrites are, and needs no expression.
    prefix: Option<Box<str>>,
    with: Box<[Piece]>,
}

/// A part of what is put in place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Piece {
    /// A text, which can stand in a path.
    Text(Box<str>),
    /// What was found in the brackets of this number; 0 is all that was found.
    Group(u8),
}

/// Why nothing can be replaced so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplaceError {
    /// Behind a backslash stands no digit.
    Escape,
    /// There are not so many brackets.
    Group(u8),
    /// A character cannot stand in a path.
    Character(char),
    /// It is the whole of every path, and one text in its place.
    Whole,
}

impl fmt::Display for ReplaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Escape => f.write_str("behind `\\` stands the number of a bracket"),
            Self::Group(number) => write!(f, "the expression has no bracket {number}"),
            Self::Character(char) => write!(f, "`{}` cannot stand in a path", char.escape_debug()),
            Self::Whole => f.write_str("this is the whole path, whatever it is"),
        }
    }
}

impl std::error::Error for ReplaceError {}

impl Replace {
    /// With a text in which `\1` to `\9` are what was found in brackets, and `\0` is all that was found.
    ///
    /// # Errors
    /// Why nothing can be replaced so.
    pub fn new(pattern: Pattern, with: &str) -> Result<Self, ReplaceError> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut chars = with.chars();
        while let Some(char) = chars.next() {
            match (char, if char == '\\' { chars.next() } else { None }) {
                ('\\', Some(digit)) if digit.is_ascii_digit() => {
                    let number = u8::try_from(u32::from(digit) - u32::from('0')).unwrap_or_default();
                    if usize::from(number) >= pattern.groups() {
                        return Err(ReplaceError::Group(number));
                    }
                    if !text.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut text).into()));
                    }
                    pieces.push(Piece::Group(number));
                }
                ('\\', Some('\\')) => return Err(ReplaceError::Character('\\')),
                ('\\', _) => return Err(ReplaceError::Escape),
                (char, _) if is_sendable(char) => text.push(char),
                (char, _) => return Err(ReplaceError::Character(char)),
            }
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.into()));
        }
        let prefix = pattern.as_str().strip_prefix('^').and_then(literal).map(Into::into);
        let made = Self { pattern, prefix, with: pieces.into() };
        let is_whole = made.pattern.is_whole() && made.text().is_some();
        if is_whole { Err(ReplaceError::Whole) } else { Ok(made) }
    }

    /// What is looked for.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// What is put in place, as it was written.
    pub fn with(&self) -> String {
        self.with
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.to_string(),
                Piece::Group(number) => format!("\\{number}"),
            })
            .collect()
    }

    /// The text that is put in place, where nothing of what was found is.
    pub fn text(&self) -> Option<&str> {
        match &*self.with {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            [Piece::Group(_)] | [_, _, ..] => None,
        }
    }

    /// What becomes of a path; `None` where nothing is found in it.
    pub fn apply(&self, path: &str) -> Option<String> {
        if let Some(text) = self.text() {
            return match &self.prefix {
                Some(prefix) => path.strip_prefix(&**prefix).map(|rest| [text, rest].concat()),
                None => self.pattern.replace_all_by(path, text),
            };
        }
        self.pattern.replace_all(path, |found, out| {
            for piece in &self.with {
                match piece {
                    Piece::Text(text) => out.push_str(text),
                    Piece::Group(number) => out.push_str(found(usize::from(*number))),
                }
            }
        })
    }
}

/// Whether an expression takes a prefix away, with the slash behind it: what is left of the path is the rest of it, which
/// begins with one slash.
pub(crate) fn drops(prefix: &str, regex: &str, substitution: &str) -> bool {
    let rests = [("/?", "/"), ("(/?)(.*)", r"/\2")];
    let dropped = rests.into_iter().find_map(|(rest, slash)| {
        let literal = literal(regex.strip_prefix('^')?.strip_suffix(rest)?)?;
        (substitution == slash).then_some(literal)
    });
    !prefix.is_empty() && dropped.as_deref() == Some(prefix)
}

/// The one text that an expression fits; `None` when there may be others.
pub(crate) fn literal(expression: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = expression.chars();
    while let Some(char) = chars.next() {
        match char {
            // Those two are the ends of a word.
            '\\' => {
                let punctuation = |char: &char| char.is_ascii_punctuation() && !matches!(char, '<' | '>');
                out.push(chars.next().filter(punctuation)?);
            }
            '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
            char => out.push(char),
        }
    }
    Some(out)
}

/// Whether a request can be sent with it in its path.
fn is_sendable(char: char) -> bool {
    let fits = |path: PathAndQuery| path.query().is_none() && path.path().len() == 2;
    char.is_ascii_graphic() && format!("/{char}").parse().is_ok_and(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, with: &str, path: &str, expected: &str) {
        let replace = Replace::new(Pattern::new(pattern).unwrap(), with).unwrap();
        let expected = Some(expected).filter(|expected| *expected != path);
        assert_eq!(replace.apply(path).as_deref(), expected, "{pattern} in {path}");
        assert_eq!(replace.with(), with);
        assert_eq!(Replace::new(replace.pattern().clone(), &replace.with()), Ok(replace));
    }

    #[test]
    fn what_is_found_is_replaced() {
        check("^/api", "/v1", "/apis/api", "/v1s/api");
        check("a", "b", "/a/a", "/b/b");
        check("^/([a-z]+)/([0-9]+)$", r"/\2/\1", "/items/7", "/7/items");
        check("^/([a-z]+)(/[0-9]+)?", r"/x\2\1", "/items", "/xitems");
        check("[0-9]+", r"(\0)", "/1/22", "/(1)/(22)");
        check("^/a", "", "/a/b", "/b");
        check(r"^/a\.b", "/x", "/a.b/a.b", "/x/a.b");
        check(r"^/a\<b", "/x", "/a<b", "/a<b");
        check("^", "/x", "/a", "/x/a");
        check("/", "//", "/a/b", "//a//b");
    }

    #[test]
    fn what_is_not_found_leaves_the_path() {
        for (pattern, with) in [("^/nowhere", "/x"), ("nowhere", "/x"), ("^/(nowhere)", r"/x/\1")] {
            for path in ["/a", "*", "/a/nowher", ""] {
                check(pattern, with, path, path);
            }
        }
    }

    #[test]
    fn what_cannot_be_put_in_place_is_refused() {
        let refused =
            |pattern: &str, with: &str| Replace::new(Pattern::new(pattern).unwrap(), with).unwrap_err();
        assert_eq!(refused("(a)", r"\2"), ReplaceError::Group(2));
        assert_eq!(refused("a", r"\a"), ReplaceError::Escape);
        assert_eq!(refused("a", "\\"), ReplaceError::Escape);
        for (with, char) in [("/a b", ' '), ("/?", '?'), ("#", '#'), ("<", '<'), ("/ä", 'ä'), (r"\\", '\\')]
        {
            assert_eq!(refused("a", with), ReplaceError::Character(char));
        }
        for pattern in ["^.*$", ".*", "^/.*"] {
            assert_eq!(refused(pattern, "/x"), ReplaceError::Whole);
        }
    }
}
