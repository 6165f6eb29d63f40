//! The YAML form of the model: what a person writes, and how we say what is wrong with it.
//!
//! Text becomes a tree with places (`tree`), variables are replaced in its scalars (`expand`), and decoders written
//! by hand (`decode`) turn it into the model while they collect every error. YAML 1.2 core schema: `on`, `off`, `yes`
//! and `no` are strings, and no key or word of ours is one that YAML 1.1 tools read as a boolean. [`print()`] is the way
//! back, [`schema()`] tells editors.

mod canonical;
mod cursor;
mod decode;
mod expand;
mod fault;
mod fleet;
mod lint;
mod place;
mod print;
mod ratio;
mod scalar;
mod schema;

#[cfg(test)]
mod tests;
mod tree;
mod words;

use std::fmt;
use std::path::Path;

/// Why a path is not in the one form in which paths are compared, whichever form of a configuration it stands in.
pub(crate) fn canonical_path(path: &str) -> Result<(), String> {
    canonical::check(path).map_err(fault::Fault::into_text)
}

pub(crate) use self::decode::{is_private, of_one_hop};
pub use self::fleet::{Document, FleetErrors, ParsedFleet, parse_fleet};
pub use self::print::print;
pub use self::schema::schema;
use crate::error::{ConfigError, ConfigErrors};
use crate::model::{Config, Plane};

/// A document and what surrounds it.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// What the document is called in error texts: a file's path, or `<stdin>`.
    pub name: &'a str,
    /// The document.
    pub text: &'a str,
    /// The directory that file paths in the document are relative to. Absolute, unless relative paths are meant to
    /// follow the process's own directory.
    pub base: &'a Path,
    /// Looks up an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, text, base, env: _ } = self;
        f.debug_struct("Source").field("name", name).field("bytes", &text.len()).field("base", base).finish()
    }
}

/// A document that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// What it says.
    pub config: Config,
    /// What is allowed but can hardly be meant, in the order of their places.
    pub warnings: Vec<ConfigError>,
}

/// Reads a document.
///
/// # Errors
/// Everything that is wrong with it, in the order of the places; never just the first.
pub fn parse(source: &Source<'_>) -> Result<Parsed, ConfigErrors> {
    let (tree, mut errors) = tree::read(source.text);
    let mut cx = cursor::Cx::new(source.base, Some(source.env));
    let config = tree.root().and_then(|root| decode::config(&mut cx, root));
    let mut warnings = cx.warnings;
    errors.extend(cx.errors);
    match config {
        Some(config) if errors.is_empty() => {
            in_order(&mut warnings);
            Ok(Parsed { config, warnings })
        }
        Some(_) | None => {
            in_order(&mut errors);
            Err(ConfigErrors { source: source.name.to_owned(), errors })
        }
    }
}

/// Reads how a control plane runs.
///
/// # Errors
/// Everything that is wrong with the document.
pub fn parse_plane(source: &Source<'_>) -> Result<Plane, ConfigErrors> {
    let (tree, mut errors) = tree::read(source.text);
    let mut cx = cursor::Cx::new(source.base, Some(source.env));
    let plane = tree.root().and_then(|root| decode::plane(&mut cx, root));
    errors.extend(cx.errors);
    match plane {
        Some(plane) if errors.is_empty() => Ok(plane),
        Some(_) | None => {
            in_order(&mut errors);
            Err(ConfigErrors { source: source.name.to_owned(), errors })
        }
    }
}

fn in_order(errors: &mut Vec<ConfigError>) {
    errors.sort_by_key(|error| error.place);
    errors.dedup();
}
