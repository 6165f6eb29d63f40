//! The YAML form as a whole: the files that the contract names, every rule with its error, and the way there and back.

mod control;
mod errors;
mod external_authorization;
mod files;
mod fleet;
mod global_rate_limit;
mod plane;
mod resilience;
mod round_trip;
mod schema;

use std::path::Path;

use super::{Parsed, Source, parse};
use crate::error::ConfigErrors;

/// Parses with an environment of a few variables, paths relative to nothing.
fn read(text: &str) -> Result<Parsed, ConfigErrors> {
    read_at(text, Path::new(""))
}

fn read_at(text: &str, base: &Path) -> Result<Parsed, ConfigErrors> {
    let env = |name: &str| match name {
        "PORT" => Some("9001".to_owned()),
        "WORKERS" => Some("3".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    parse(&Source { name: "test.yaml", text, base, env: &env })
}
