//! Documents: what they say, held to the proxies' own code, and in what two of them differ.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{Context, SHA256};
use outrigger_proto::model::{Holds, Name};
use outrigger_proto::yaml::{self, Document};
use similar::TextDiff;

use crate::serving::Serving;

/// Texts by name.
pub type Documents = BTreeMap<String, String>;

/// What documents say, as far as it can be told to proxies, and what can hardly be meant. They name these secrets alone, or any
/// where it is not asked which there are.
///
/// # Errors
/// All that is wrong with them.
pub fn checked(
    number: u64,
    documents: &Documents,
    secrets: Option<&BTreeMap<Name, Holds>>,
) -> Result<(Serving, Vec<String>), String> {
    let serving = |fleet| Serving::new(number, digested(documents), fleet).map_err(|error| error.to_string());
    if documents.is_empty() {
        return Ok((serving(Default::default())?, Vec::new()));
    }
    let named: Vec<_> = documents.iter().map(|(name, text)| Document { name, text }).collect();
    let parsed = yaml::parse_fleet(&named, secrets).map_err(|errors| errors.to_string())?;
    let warnings =
        parsed.warnings.iter().flat_map(|of| of.errors.iter().map(|error| format!("{}:{error}", of.source)));
    let warnings = warnings.collect();
    Ok((serving(parsed.fleet)?, warnings))
}

/// The same for the same documents.
fn digested(documents: &Documents) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for text in documents.iter().flat_map(|(name, text)| [name, text]) {
        // With its length: what one text ends with could begin the next.
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// What is different, by document.
pub fn diff(before: &Documents, after: &Documents) -> String {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let mut out = String::new();
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        if old != new {
            let (from, to) = (header(before, "a/", name), header(after, "b/", name));
            out += &TextDiff::from_lines(old.map_or("", String::as_str), new.map_or("", String::as_str))
                .unified_diff()
                .context_radius(3)
                .header(&from, &to)
                .to_string();
        }
    }
    out
}

fn header(documents: &Documents, side: &str, name: &str) -> String {
    if documents.contains_key(name) { format!("{side}{name}") } else { "/dev/null".to_owned() }
}

/// Whether a document may be called so.
pub fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    !name.is_empty() && name.len() <= 200 && name.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_documents_have_the_same_digest_and_others_another() {
        let of = |all: &[(&str, &str)]| {
            digested(&all.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
        };
        assert_eq!(of(&[("a", "x"), ("b", "y")]), of(&[("b", "y"), ("a", "x")]));
        let all =
            [of(&[]), of(&[("a", "xy")]), of(&[("ax", "y")]), of(&[("a", "x"), ("y", "")]), of(&[("a", "")])];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
