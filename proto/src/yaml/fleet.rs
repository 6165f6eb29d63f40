//! What many proxies serve, out of several documents: whose each is, is nobody's business but its name's.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::cursor::Secrets;
use super::{cursor, decode, in_order, tree};
use crate::error::{ConfigError, ConfigErrors, Place};
use crate::model::{Fleet, Holds, Name};

/// A document of several.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// What it is called in error texts.
    pub name: &'a str,
    /// What it says. Variables are not replaced: a configuration that is kept must mean the same whenever it is read.
    pub text: &'a str,
}

/// Documents that were understood.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedFleet {
    /// What they say.
    pub fleet: Fleet,
    /// What is allowed but can hardly be meant, by document.
    pub warnings: Vec<ConfigErrors>,
}

/// What is wrong with documents, by document. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetErrors(pub Vec<ConfigErrors>);

impl fmt::Display for FleetErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, errors) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{errors}")?;
        }
        Ok(())
    }
}

impl std::error::Error for FleetErrors {}

/// Reads several documents as one. Names are shared by all of them, and none may stand in two. They name no secrets but
/// these, or any where it is not known which there are.
///
/// # Errors
/// Everything that is wrong with them.
pub fn parse_fleet(
    documents: &[Document<'_>],
    secrets: Option<&BTreeMap<Name, Holds>>,
) -> Result<ParsedFleet, FleetErrors> {
    let mut errors = Vec::new();
    let mut parts = Vec::new();
    let mut lines = 0_u32;
    for document in documents {
        let (tree, found) = tree::read(document.text);
        errors.extend(found.into_iter().map(|error| moved(error, |line| line + lines)));
        parts.push((tree, lines));
        let own = document.text.bytes().filter(|byte| *byte == b'\n').count();
        lines = lines.saturating_add(u32::try_from(own).unwrap_or(u32::MAX)).saturating_add(2);
    }
    let (tree, found) = tree::merge(&parts);
    let is_read = errors.is_empty();
    errors.extend(found);
    // Paths are the reader's own, and nobody reads here.
    let mut cx = cursor::Cx::new(Path::new(""), None);
    cx.secrets = secrets.map_or(Secrets::Any, Secrets::These);
    // What is broken in one document must not look missing in another.
    let fleet = tree.root().filter(|_| is_read).and_then(|root| decode::fleet(&mut cx, root));
    let mut warnings = cx.warnings;
    errors.extend(cx.errors);
    let begins: Vec<u32> = parts.iter().map(|(_, lines)| *lines).collect();
    match fleet {
        Some(fleet) if errors.is_empty() => {
            in_order(&mut warnings);
            Ok(ParsedFleet { fleet, warnings: by_document(documents, &begins, warnings) })
        }
        Some(_) | None => {
            in_order(&mut errors);
            Err(FleetErrors(by_document(documents, &begins, errors)))
        }
    }
}

/// Gives each document its own, with the lines that it counts itself.
fn by_document(documents: &[Document<'_>], begins: &[u32], errors: Vec<ConfigError>) -> Vec<ConfigErrors> {
    let mut out: Vec<ConfigErrors> = Vec::new();
    for error in errors {
        let line = error.place.map_or(1, |place| place.line);
        let part = begins.iter().rposition(|begins| *begins < line).unwrap_or(0);
        let begins = begins.get(part).copied().unwrap_or(0);
        let name = documents.get(part).map_or("<none>", |document| document.name);
        let error = moved(error, |line| line - begins);
        match out.last_mut().filter(|last| last.source == name) {
            Some(last) => last.errors.push(error),
            None => out.push(ConfigErrors { source: name.to_owned(), errors: vec![error] }),
        }
    }
    out
}

fn moved(error: ConfigError, to: impl Fn(u32) -> u32) -> ConfigError {
    let place = error.place.map(|Place { line, column }| Place { line: to(line), column });
    ConfigError { place, ..error }
}
