//! Values that many parts of the model share.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// The name of a listener, route table or cluster: one or more characters. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// `None` for an empty name, or one with control characters or white space: names stand in logs and labels.
    pub fn new(name: &str) -> Option<Self> {
        let fits = !name.is_empty() && !name.chars().any(|c| c.is_control() || c.is_whitespace());
        fits.then(|| Self(name.into()))
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether this is the name of a host in ASCII, without a dot at its end: labels of letters, digits, `-` and `_`.
pub(crate) fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Where to listen or to connect: `ip:port`, `[v6]:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// TCP.
    Ip(SocketAddr),
    /// A unix stream socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A regular expression that compiled (linear-time engine: a hostile input cannot make it slow).
#[derive(Clone, Debug)]
pub struct Pattern(regex::Regex);

/// What was found in a bracket, by its number.
pub(super) type Found<'t> = &'t dyn Fn(usize) -> &'t str;

impl Pattern {
    /// The expression is not anchored: write `^` and `$` where they are meant.
    ///
    /// # Errors
    /// The engine's own words, which point at the place.
    pub fn new(expression: &str) -> Result<Self, regex::Error> {
        regex::RegexBuilder::new(expression).size_limit(1 << 20).build().map(Self)
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// How many brackets it has, the whole of it among them.
    pub(super) fn groups(&self) -> usize {
        self.0.captures_len()
    }

    /// Whether it is one of those that are written for the whole of a path, whatever it is.
    pub(crate) fn is_whole(&self) -> bool {
        ["^.*$", ".*", "^.+$", ".+", "^/.*$", "/.*", "^/.*"].contains(&self.as_str())
    }

    /// A text in which all that is found is replaced; `None` where nothing is found, for which no memory is taken. What was
    /// found in a bracket is told by its number; nothing, where that was not needed.
    pub(super) fn replace_all(&self, text: &str, with: impl Fn(Found<'_>, &mut String)) -> Option<String> {
        // Brackets are looked at once it is known that there is something in them: they need memory.
        self.is_match(text).then(|| self.0.replace_all(text, Append(with)).into_owned())
    }

    /// The same, with one text in place of all that is found.
    pub(super) fn replace_all_by(&self, text: &str, with: &str) -> Option<String> {
        match self.0.replace_all(text, regex::NoExpand(with)) {
            Cow::Borrowed(_) => None,
            Cow::Owned(replaced) => Some(replaced),
        }
    }

    /// Whether it matches anywhere in `text`.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// What is put in place goes where it is to stand, without a text of its own.
struct Append<F>(F);

impl<F: Fn(Found<'_>, &mut String)> regex::Replacer for Append<F> {
    fn replace_append(&mut self, found: &regex::Captures<'_>, out: &mut String) {
        self.0(&|number| found.get(number).map_or("", |group| group.as_str()), out);
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}
