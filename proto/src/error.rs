//! What is wrong with a configuration, said so that it can be put right without reading our source.

use std::fmt;

/// Where in a document a value stands. Lines and columns count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it stands, when the source has lines.
    pub place: Option<Place>,
    /// The field, as `listeners.web.routes[2].timeout`; empty for the document itself.
    pub path: String,
    /// What was found, and why it cannot be.
    pub problem: String,
    /// What to write instead: what was expected, or a "did you mean".
    pub hint: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, path, problem, hint } = self;
        if let Some(Place { line, column }) = place {
            write!(f, "{line}:{column}: ")?;
        }
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        f.write_str(problem)?;
        match hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Every error of one document, in the order of their places. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// What the document is called: a file's path, or `<stdin>`.
    pub source: String,
    /// The errors.
    pub errors: Vec<ConfigError>,
}

impl fmt::Display for ConfigErrors {
    /// One line an error, each as `source:line:column: path: problem; hint`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            let separator = if error.place.is_some() { ":" } else { ": " };
            write!(f, "{}{separator}{error}", self.source)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
